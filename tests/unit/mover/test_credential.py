"""Proxies from the agent: used until a third of their life is left, renewed, and made do with while it is away."""

import threading
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path
from typing import NoReturn, Self

import pytest

from mover import credential
from mover.credential import AgentCredentials, protect_memory
from mover.errors import CredentialError
from proxyagent.errors import AgentUnreachableError, NoSessionError, ProxyAgentError

START = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
SOCKET = Path("/run/somewhere/agent.sock")
LIFE = timedelta(hours=3)


class SettableDatetime(datetime):
    """`datetime`, with a `now` to set: the credential source reads the time of day itself."""

    moment: datetime = START

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> Self:
        """The moment that was set."""
        return cls.fromtimestamp(cls.moment.timestamp(), tz)


class FakeProxy:
    """A proxy of which only the end matters."""

    def __init__(self, not_after: datetime) -> None:
        self.not_after = not_after


class FakeAgent:
    """Hands out proxies that end after `LIFE`, or raises `error`."""

    def __init__(self) -> None:
        self.asked: list[tuple[Path, str, int]] = []
        self.error: ProxyAgentError | None = None
        self.given: object = None

    def obtain(self, socket: Path, profile: str, lifetime_seconds: int, *, timeout_seconds: float) -> FakeProxy:
        """What `obtain_proxy` does."""
        assert 0 < timeout_seconds <= 60
        self.asked.append((socket, profile, lifetime_seconds))
        if self.error:
            raise self.error
        proxy = FakeProxy(SettableDatetime.now(UTC) + LIFE)
        self.given = proxy
        return proxy


@pytest.fixture
def agent(monkeypatch: pytest.MonkeyPatch) -> FakeAgent:
    """An agent that answers, at `START`."""
    agent = FakeAgent()
    monkeypatch.setattr(credential, "obtain_proxy", agent.obtain)
    monkeypatch.setattr(credential, "datetime", SettableDatetime)
    monkeypatch.setattr(SettableDatetime, "moment", START)
    return agent


@pytest.fixture
def source() -> AgentCredentials:
    """A source that has no proxy yet."""
    return AgentCredentials(SOCKET, "mover", 7200)


def _at(after_start: timedelta) -> None:
    SettableDatetime.moment = START + after_start


_TICK = timedelta(microseconds=1)


def test_the_agent_is_asked_for_what_was_configured(agent: FakeAgent, source: AgentCredentials) -> None:
    assert source.proxy() is agent.given
    assert agent.asked == [(SOCKET, "mover", 7200)]


def test_a_proxy_is_used_until_a_third_of_its_life_is_left_and_then_another(
    agent: FakeAgent, source: AgentCredentials
) -> None:
    first = source.proxy()
    for moment in (LIFE / 3, LIFE * 2 / 3 - _TICK):
        _at(moment)
        assert source.proxy() is first
    assert len(agent.asked) == 1
    _at(LIFE * 2 / 3)
    second = source.proxy()
    assert second is not first
    assert second is agent.given
    _at(LIFE * 4 / 3 - _TICK)
    assert source.proxy() is second
    _at(LIFE * 4 / 3)
    assert source.proxy() is not second
    assert len(agent.asked) == 3


def test_while_the_agent_is_away_a_good_proxy_is_used_and_the_agent_asked_now_and_then(
    agent: FakeAgent, source: AgentCredentials
) -> None:
    first = source.proxy()
    agent.error = AgentUnreachableError("cannot reach the agent", hint="see whether it runs")
    _at(LIFE * 2 / 3)
    assert source.proxy() is first
    assert source.proxy() is first
    assert len(agent.asked) == 2, "asked at every use"
    _at(LIFE * 2 / 3 + timedelta(minutes=2))
    assert source.proxy() is first
    assert len(agent.asked) == 3, "not asked again"
    agent.error = None
    _at(LIFE - _TICK)
    assert source.proxy() is not first


def test_a_proxy_that_has_ended_is_never_used(agent: FakeAgent, source: AgentCredentials) -> None:
    first = source.proxy()
    agent.error = NoSessionError("there is no session", hint="plug the dongle")
    _at(LIFE - timedelta(minutes=1))
    assert source.proxy() is first
    _at(LIFE)
    for _ in range(2):
        with pytest.raises(CredentialError, match="no Grid proxy: there is no session") as caught:
            source.proxy()
        assert caught.value.hint == "plug the dongle"
    agent.error = None
    assert source.proxy() is agent.given


def test_a_proxy_that_ends_right_after_the_agent_was_found_away_is_not_used_either(
    agent: FakeAgent, source: AgentCredentials
) -> None:
    first = source.proxy()
    agent.error = NoSessionError("there is no session", hint="plug the dongle")
    _at(LIFE - timedelta(seconds=10))
    assert source.proxy() is first
    _at(LIFE)
    with pytest.raises(CredentialError):
        source.proxy()


def test_without_a_first_proxy_the_agents_error_and_hint_come_out_each_time(
    agent: FakeAgent, source: AgentCredentials
) -> None:
    agent.error = NoSessionError("there is no session", hint="plug the dongle")
    for asked in (1, 2):
        with pytest.raises(CredentialError, match="no Grid proxy: there is no session") as caught:
            source.proxy()
        assert caught.value.hint == "plug the dongle"
        assert not caught.value.permanent
        assert len(agent.asked) == asked
    agent.error = None
    assert source.proxy() is agent.given


def test_lanes_that_ask_at_once_share_one_proxy(source: AgentCredentials, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second comes while the agent is still busy with the first."""
    asked: list[FakeProxy] = []
    got: list[object] = []
    second_asks = threading.Event()
    second = threading.Thread(target=lambda: got.append(source.proxy()), daemon=True)

    def obtain(*_: object, **__: object) -> FakeProxy:
        asked.append(FakeProxy(datetime.now(UTC) + LIFE))
        if len(asked) > 1:
            second_asks.set()
        else:
            second.start()
            # Long enough for a source without a lock to be caught; a right one never gets there.
            second_asks.wait(0.2)
        return asked[0]

    monkeypatch.setattr(credential, "obtain_proxy", obtain)
    got.append(source.proxy())
    second.join(30)
    assert got == [asked[0], asked[0]]
    assert len(asked) == 1


def test_an_agent_that_is_not_there_is_a_credential_error(tmp_path: Path) -> None:
    """The real client library, with nobody behind the socket."""
    with pytest.raises(CredentialError, match=r"no Grid proxy: cannot reach the agent on .*no-agent") as caught:
        AgentCredentials(tmp_path / "no-agent", "mover", 7200).proxy()
    assert "proxyagent serve" in caught.value.hint


def test_a_kernel_that_refuses_to_protect_the_memory_is_a_credential_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused for real it cannot be, and granted it would change this process for good."""

    def refuse(*, no_new_privileges: bool) -> NoReturn:
        assert not no_new_privileges
        raise ProxyAgentError("the kernel refused", hint="look at the kernel")

    monkeypatch.setattr(credential, "harden_process", refuse)
    with pytest.raises(CredentialError, match="the kernel refused") as caught:
        protect_memory()
    assert caught.value.hint == "look at the kernel"
