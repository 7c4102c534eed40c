"""The forecast: what is urgent, by when, and what a person has to do."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxyagent.errors import CrlError, ModuleError, VomsError
from proxyagent.forecast import Attributes, Facts, Level, forecast, moment

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)
WELL = Facts(
    session_not_after=NOW + 10 * HOUR,
    renews_itself=True,
    unattended=False,
    renewal_problem=None,
    certificate_not_after=NOW + timedelta(days=300),
    crl_next_update=NOW + timedelta(days=7),
    trust_problem=None,
    attributes=[Attributes("/mice/Role=production", NOW + 9 * HOUR, None)],
)
NO_VOMS = VomsError("no VOMS server answered", hint="see whether voms.example.org is up")


def test_all_is_well_while_the_dongle_stays_in() -> None:
    found = forecast(WELL, NOW, 3 * HOUR)
    assert found.level is Level.OK
    assert found.plug_before is None
    assert found.advice == ()
    assert found.not_after == NOW + 9 * HOUR


def test_a_pulled_dongle_is_wanted_back_in_time() -> None:
    facts = replace(WELL, renews_itself=False)
    early = forecast(facts, NOW, 3 * HOUR)
    assert early.level is Level.OK
    assert early.plug_before == NOW + 10 * HOUR
    assert early.advice == ("plug the dongle before 22:00 UTC",)
    late = forecast(facts, NOW + 8 * HOUR, 3 * HOUR)
    assert late.level is Level.SOON
    ended = forecast(replace(facts, session_not_after=None), NOW, 3 * HOUR)
    assert ended.level is Level.EXPIRED
    assert ended.advice == ("plug the dongle now and run `proxyagent renew`",)


@pytest.mark.parametrize(
    ("change", "level", "advice"),
    [
        ({"certificate_not_after": NOW + timedelta(days=20)}, Level.SOON, "get a new certificate before 2026-12-12"),
        ({"certificate_not_after": NOW - HOUR}, Level.EXPIRED, "get a new certificate"),
        ({"crl_next_update": NOW + HOUR}, Level.SOON, "run fetch-crl before 13:00 UTC"),
        ({"trust_problem": CrlError("the CRL ended", hint="run fetch-crl")}, Level.EXPIRED, "the CRL ended: run"),
        ({"attributes": [Attributes("/mice", NOW + HOUR / 2, NO_VOMS)]}, Level.SOON, "end in 30 min: no VOMS server"),
        ({"attributes": [Attributes("/mice", NOW + 5 * HOUR, NO_VOMS)]}, Level.OK, None),
        ({"attributes": [Attributes("/mice", None, NO_VOMS)]}, Level.EXPIRED, "see whether voms.example.org is up"),
        ({"attributes": [Attributes("/mice", None, None)]}, Level.EXPIRED, "not been fetched yet"),
        ({"session_not_after": None}, Level.EXPIRED, "the agent makes one by itself"),
        ({"session_not_after": NOW + HOUR / 2}, Level.SOON, "was not renewed"),
    ],
)
def test_each_thing_has_its_own_remedy(change: dict[str, object], level: Level, advice: str | None) -> None:
    found = forecast(replace(WELL, **change), NOW, 3 * HOUR)  # type: ignore[arg-type]  # fields of mixed types
    assert found.level is level
    assert (advice is None and not found.advice) or (advice is not None and advice in found.advice[0])


def test_why_it_was_not_renewed_is_told() -> None:
    problem = ModuleError("the module is sick", hint="replug the dongle")
    why = ": the module is sick (replug the dongle)"
    needs = replace(WELL, renews_itself=False, renewal_problem=problem)
    assert forecast(needs, NOW, HOUR).advice == (f"plug the dongle before 22:00 UTC{why}",)
    ended = replace(needs, session_not_after=None)
    assert forecast(ended, NOW, HOUR).advice == (f"plug the dongle now and run `proxyagent renew`{why}",)
    fails = replace(ended, renews_itself=True)
    assert forecast(fails, NOW, HOUR).advice == (f"no session{why}",)
    soon = forecast(replace(fails, session_not_after=NOW + HOUR / 4), NOW, HOUR)
    assert soon.level is Level.SOON
    assert soon.advice == (f"the session ends at 12:15 UTC and was not renewed{why}",)


def test_a_robot_with_a_sealed_pin_only_wants_its_dongle() -> None:
    facts = replace(WELL, renews_itself=False, unattended=True, session_not_after=None)
    assert forecast(facts, NOW, HOUR).advice == ("plug the dongle now",)


@pytest.mark.parametrize(
    ("facts", "at", "level"),
    [
        (replace(WELL, renews_itself=False), NOW + 7 * HOUR, Level.SOON),
        (replace(WELL, renews_itself=False), NOW + 7 * HOUR - HOUR / 60, Level.OK),
        (replace(WELL, attributes=[]), NOW + 9.25 * HOUR, Level.SOON),
        (replace(WELL, attributes=[]), NOW + 9.25 * HOUR - HOUR / 60, Level.OK),
        (replace(WELL, attributes=[Attributes("/mice", NOW + HOUR, NO_VOMS)]), NOW, Level.SOON),
        (replace(WELL, attributes=[Attributes("/mice", NOW + HOUR, NO_VOMS)]), NOW + HOUR, Level.EXPIRED),
        (replace(WELL, certificate_not_after=NOW + timedelta(days=31)), NOW, Level.OK),
        (replace(WELL, crl_next_update=NOW + timedelta(hours=25)), NOW, Level.OK),
        (replace(WELL, session_not_after=NOW), NOW, Level.EXPIRED),
    ],
)
def test_every_warning_begins_when_it_should(facts: Facts, at: datetime, level: Level) -> None:
    assert forecast(facts, at, 3 * HOUR).level is level


def test_plugging_is_not_advised_where_it_does_not_help() -> None:
    end = NOW + HOUR
    found = forecast(
        replace(WELL, renews_itself=False, session_not_after=end, certificate_not_after=end), NOW, 3 * HOUR
    )
    assert found.level is Level.SOON
    assert not any("plug" in advice for advice in found.advice)
    assert "get a new certificate before 13:00 UTC" in found.advice[0]
    assert found.plug_before is None


@pytest.mark.parametrize("renews", [True, False])
@pytest.mark.parametrize("session_end", [None, NOW - HOUR])
def test_plugging_is_not_advised_for_a_certificate_that_has_ended(renews: bool, session_end: datetime | None) -> None:
    facts = replace(WELL, renews_itself=renews, session_not_after=session_end, certificate_not_after=NOW)
    found = forecast(facts, NOW, 3 * HOUR)
    assert found.level is Level.EXPIRED
    (advice,) = found.advice
    assert advice == "get a new certificate from the CA and import it with `proxyagent init --certificate`"


times = st.none() | st.integers(-1000, 100_000).map(lambda minutes: NOW + timedelta(minutes=minutes))


@given(ends=st.tuples(times, times, times, times), renews=st.booleans(), problem=st.booleans())
def test_the_earliest_end_counts_and_what_is_urgent_comes_with_advice(
    ends: tuple[datetime | None, ...], renews: bool, problem: bool
) -> None:
    session, certificate, crl, voms = ends
    attributes = [Attributes("/mice", voms, NO_VOMS if problem else None)]
    found = forecast(Facts(session, renews, False, None, certificate, crl, None, attributes), NOW, 3 * HOUR)
    assert found.not_after == min((end for end in ends if end is not None), default=None)
    assert found.level is Level.OK or found.advice
    if session is None or session <= NOW or voms is None or voms <= NOW:
        assert found.level is Level.EXPIRED


def test_a_moment_has_a_date_only_when_it_needs_one() -> None:
    assert moment(NOW + HOUR, NOW) == "13:00 UTC"
    assert moment(NOW + 13 * HOUR, NOW) == "2026-11-23 01:00 UTC"
