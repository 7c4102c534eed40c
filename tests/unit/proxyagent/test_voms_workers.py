"""Fetching for several VOs at once: one that is stuck holds up itself, and nothing is fetched twice at a time."""

import threading

import pytest

from proxyagent.messages import WantedAttributes
from proxyagent.voms.workers import VoWorkers

SECONDS = 60.0


def want(vo: str, name: str = "robot") -> WantedAttributes:
    return WantedAttributes(identity=name, vo=vo, fqans=(f"/{vo}",))


class Servers:
    """Serves at once, but for VOs that are held."""

    def __init__(self, *held: str) -> None:
        self.held = set(held)
        self.let_go = threading.Event()
        self.begun: list[tuple[str, str]] = []
        self.changed = threading.Condition()

    def __call__(self, want: WantedAttributes, lifetime_seconds: int) -> None:
        assert lifetime_seconds == 600
        with self.changed:
            self.begun.append((want.vo, want.identity))
            self.changed.notify_all()
        if want.vo in self.held:
            assert self.let_go.wait(SECONDS)

    def wait_for(self, *begun: tuple[str, str]) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: set(begun) <= set(self.begun), SECONDS)


def test_a_silent_vo_holds_up_itself_only() -> None:
    servers = Servers("silent")
    workers = VoWorkers(servers, max_threads=2)
    for each in (want("silent", "a"), want("silent", "b"), want("mice"), want("dune")):
        workers.submit(each, 600)
    servers.wait_for(("silent", "a"), ("mice", "robot"), ("dune", "robot"))
    assert ("silent", "b") not in servers.begun
    assert workers.longest_seconds() > 0
    assert not workers.wait(0.01)
    servers.let_go.set()
    assert workers.wait(SECONDS)
    assert [each for each in servers.begun if each[0] == "silent"] == [("silent", "a"), ("silent", "b")]
    assert workers.longest_seconds() == 0


def test_what_is_being_fetched_is_not_fetched_again_at_the_same_time() -> None:
    servers = Servers("silent")
    workers = VoWorkers(servers, max_threads=2)
    for _ in range(3):
        workers.submit(want("silent", "a"), 600)
        workers.submit(want("silent", "b"), 600)
    servers.wait_for(("silent", "a"))
    workers.submit(want("silent", "a"), 600)
    servers.let_go.set()
    assert workers.wait(SECONDS)
    assert servers.begun == [("silent", "a"), ("silent", "b")]
    workers.submit(want("silent", "a"), 600)
    assert workers.wait(SECONDS)
    assert len(servers.begun) == 3


def test_there_are_no_more_threads_than_allowed() -> None:
    servers = Servers("one", "two", "three")
    workers = VoWorkers(servers, max_threads=2)
    for vo in ("one", "two", "three"):
        workers.submit(want(vo), 600)
    servers.wait_for(("one", "robot"), ("two", "robot"))
    running = {thread.name for thread in threading.enumerate()}
    assert running & {"voms-one", "voms-two", "voms-three"} == {"voms-one", "voms-two"}
    servers.let_go.set()
    servers.wait_for(("three", "robot"))
    assert workers.wait(SECONDS)


def test_a_bug_in_one_fetch_does_not_end_the_fetching(caplog: pytest.LogCaptureFixture) -> None:
    served = []

    def serve(want: WantedAttributes, _lifetime_seconds: int) -> None:
        served.append(want.identity)
        if want.identity == "a":
            raise KeyError

    workers = VoWorkers(serve, max_threads=1)
    for name in ("a", "b"):
        workers.submit(want("mice", name), 600)
    assert workers.wait(SECONDS)
    assert served == ["a", "b"]
    assert caplog.messages == ["mice: KeyError while fetching"]
