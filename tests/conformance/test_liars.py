"""WebDAV servers that say that they have done what they have not: a fresh look at the storage decides.

The liar is a double: it passes everything on to a real server, but answers some requests by itself.
"""

import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from mover.catalogue.replicas import release_claim
from mover.errors import EndpointUnavailableError, StorageError, ThirdPartyCopyError, VerificationError
from mover.ports import StorageEndpoint
from mover.states import ReplicaState
from mover.steps.transfer import transfer
from mover.steps.verify import verify
from mover.steps.work import Work
from tests.conformance.door import Answer, door, redirect
from tests.conformance.subjects import PLAIN, Site, Subject, adler32_of, remote_subject
from tests.unit.mover.bench import LFN, Bench, bundle_bytes

SIZE = 6 << 20
DATA = bytes(range(256)) * (SIZE // 256)


class LiarDouble:
    """Gives each scripted answer once, to the method that it is for, and passes on everything else."""

    def __init__(self, real: Subject) -> None:
        self._netloc = urlsplit(real.base_url).netloc
        self.script: list[tuple[str, Answer]] = []

    def __call__(self, method: str, path: str) -> Answer:
        for number, (wanted, answer) in enumerate(self.script):
            if wanted == method:
                del self.script[number]
                return answer
        return redirect(f"https://{self._netloc}{path}")


class Lied:
    """A directory at a real server, and the liar before it."""

    def __init__(self, site: Site, subject: Subject, liar: LiarDouble, port: int) -> None:
        self.real = subject.open()
        self.liar = liar
        base_url = site.at("davs", port, urlsplit(subject.base_url).path)
        self.endpoint = site.endpoint(subject.kind, base_url, stall_timeout_seconds=5)
        self._site = site
        self._subject = subject

    def store(self, name: str, data: bytes) -> None:
        """Put a file on the real server's disk."""
        self._site.store(self._subject, name, data)


@pytest.fixture
def lied(request: pytest.FixtureRequest, site: Site, tmp_path: Path) -> Iterator[Lied]:
    subject = remote_subject(getattr(request, "param", "davs"), site)
    liar = LiarDouble(subject)
    with subject.closing, door(site.ca, tmp_path, liar) as port:
        yield Lied(site, subject, liar, port)


def test_success_after_a_part_of_the_body_is_no_success(lied: Lied) -> None:
    """And nothing is left of it; no person is needed to try again. (The rest is more than sockets hold.)"""
    lied.liar.script.append(("PUT", Answer(200, takes_bytes=1 << 20, took=lambda data: lied.store("a", data))))
    with pytest.raises(EndpointUnavailableError):
        lied.endpoint.upload("a", [DATA] * 16, 16 * SIZE)
    assert lied.real.stat("a") is None
    lied.endpoint.upload("a", [DATA], SIZE)
    assert adler32_of(lied.real, "a") == f"{zlib.adler32(DATA):08x}"


@pytest.mark.parametrize("status", [200, 201, 202, 204])
def test_success_without_the_body_is_no_success(lied: Lied, status: int) -> None:
    lied.liar.script.append(("PUT", Answer(status)))
    with pytest.raises(EndpointUnavailableError, match="0 of"):
        lied.endpoint.upload("a", [DATA], SIZE)
    assert lied.real.stat("a") is None


@pytest.mark.parametrize("kept", [None, 0, SIZE // 2, SIZE - 1])
def test_what_was_not_stored_whole_is_seen(lied: Lied, kept: int | None) -> None:
    """The whole body is taken, 201 is answered, and nothing or not all of it is stored."""

    def store(data: bytes) -> None:
        if kept is not None:
            lied.store("a", data[:kept])

    lied.liar.script.append(("PUT", Answer(201, takes_bytes=SIZE, took=store)))
    lied.endpoint.upload("a", [DATA], SIZE)
    found = lied.endpoint.stat("a")
    assert (found and found.size_bytes) == kept


def test_rename_that_was_not_done_is_seen(lied: Lied) -> None:
    lied.endpoint.upload("a", [DATA], SIZE)
    lied.liar.script.append(("MOVE", Answer(201)))
    lied.endpoint.rename("a", "b")
    assert lied.endpoint.stat("b") is None
    assert lied.endpoint.stat("a") is not None


def test_rename_that_was_done_in_part_is_tried_again(lied: Lied) -> None:
    lied.endpoint.upload("a", [DATA], SIZE)
    lied.liar.script.append(("MOVE", Answer(207, body=b"<multistatus/>")))
    with pytest.raises(EndpointUnavailableError, match="207"):
        lied.endpoint.rename("a", "b")
    assert lied.endpoint.stat("a") is not None


@pytest.mark.parametrize("status", [403, 500])
def test_file_that_appears_before_a_copy_begins_is_left_alone(lied: Lied, site: Site, status: int) -> None:
    """The source is asked for a macaroon first, and that may take its time, and fail."""
    subject = remote_subject("davs", site)
    lied.endpoint.upload("a", [DATA], SIZE)
    answer = Answer(status, takes_bytes=1, took=lambda _: site.store(subject, "b", b"theirs"))
    lied.liar.script.append(("POST", answer))
    with subject.closing, pytest.raises(StorageError):
        subject.open().copy_from(lied.endpoint, "a", "b", SIZE, alive=lambda _: None)
    assert (site.folder(subject) / "b").read_bytes() == b"theirs"


def test_file_at_which_a_copy_is_refused_is_left_alone(lied: Lied, site: Site) -> None:
    subject = remote_subject("davs", site)
    answer = Answer(403, took=lambda _: lied.store("b", b"theirs"))
    lied.liar.script.append(("COPY", answer))
    with subject.closing:
        source = subject.open()
        source.upload("a", [DATA], SIZE)
        with pytest.raises(ThirdPartyCopyError):
            lied.endpoint.copy_from(source, "a", "b", SIZE, alive=lambda _: None)
    assert b"".join(lied.real.read("b")) == b"theirs"


@pytest.mark.parametrize("method", ["PUT", "MOVE"])
def test_circles_end(lied: Lied, site: Site, method: str) -> None:
    lied.endpoint.upload("a", [DATA], SIZE)
    here = urlsplit(lied.endpoint.url("a"))
    lied.liar.script += [(method, redirect(f"https://{here.netloc}{here.path}"))] * 20
    with pytest.raises(StorageError, match="over 5 redirects"):
        lied.endpoint.upload("b", [DATA], SIZE) if method == "PUT" else lied.endpoint.rename("a", "b")
    assert lied.real.stat("b") is None
    assert lied.real.stat("a") is not None


METADATA: list[tuple[str, Callable[[StorageEndpoint], object]]] = [
    ("PROPFIND", lambda endpoint: endpoint.stat("a")),
    ("PROPFIND", lambda endpoint: endpoint.list("a")),
    ("DELETE", lambda endpoint: endpoint.remove("a")),
]


@pytest.mark.parametrize(("method", "use"), METADATA, ids=["stat", "list", "remove"])
def test_metadata_in_circles_ends(lied: Lied, method: str, use: Callable[[StorageEndpoint], object]) -> None:
    """With an error: left to itself, gfal2 ends the process here."""
    lied.endpoint.upload("a", [DATA], SIZE)
    here = urlsplit(lied.endpoint.url("a"))
    lied.liar.script += [(method, redirect(f"https://{here.netloc}{here.path}"))] * 20
    with pytest.raises(StorageError):
        use(lied.endpoint)
    assert lied.real.stat("a") is not None


class OneReplica:
    """The steps of a bench's run at one endpoint that is not in memory."""

    def __init__(self, base: Path, endpoint: StorageEndpoint) -> None:
        self.bench = Bench(base)
        self.bench.close_run()
        self._endpoint = endpoint

    def step(self, act: Callable[[Work], None]) -> ReplicaState:
        """Do one step, whatever it raises; the state after it."""
        with self._work() as work:
            act(work)
        return self.bench.state("disk")

    @contextmanager
    def _work(self) -> Iterator[Work]:
        work = self.bench.work("disk")
        try:
            yield replace(work, endpoints={"disk": self._endpoint})
        finally:
            release_claim(self.bench.catalogue, work.claim)


@pytest.mark.parametrize("lied", ["davs", PLAIN], indirect=True)
@pytest.mark.parametrize("kept", ["nothing", "half", "another byte"])
def test_a_lie_is_found_out_and_mended(lied: Lied, tmp_path: Path, kept: str) -> None:
    """By the steps: never verified on the server's word, ours and wrong is removed, then stored again, whole."""
    (tmp_path / "bench").mkdir()
    replica = OneReplica(tmp_path / "bench", lied.endpoint)
    whole = bundle_bytes(replica.bench)
    written = f"{LFN}.mover-1.part"

    def store(data: bytes) -> None:
        if kept != "nothing":
            lied.store(written, data[: len(data) // 2] if kept == "half" else b"!" + data[1:])

    lied.liar.script.append(("PUT", Answer(201, takes_bytes=len(whole), took=store)))
    assert replica.step(transfer) is ReplicaState.COPIED
    with suppress(VerificationError):
        replica.step(verify)
        pytest.fail("it was believed")
    assert replica.bench.state("disk") is ReplicaState.WANTED
    assert lied.real.list("MICE") == []

    assert replica.step(transfer) is ReplicaState.COPIED
    assert replica.step(verify) is ReplicaState.VERIFIED
    assert b"".join(lied.real.read(LFN)) == whole
    assert [file.path for file in lied.real.list("MICE")] == [LFN]
