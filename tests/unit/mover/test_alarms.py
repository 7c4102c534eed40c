"""Alarms: each begins when it should, ends when it should, says what to do, and nothing waits in silence."""

from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from mover.agentstate import AgentState, IdentityState, Urgency
from mover.alarms.alarm import Alarm, AlarmKind, Severity
from mover.alarms.find import find_alarms
from mover.alarms.people import MOST
from mover.catalogue.replicas import claim_next, want_replicas
from mover.catalogue.runs import bundle_of
from mover.catalogue.services import record_service
from mover.errors import EndpointUnavailableError, RunError
from mover.states import CampaignEvent, JobState, ReplicaState, RunState
from mover.steps.archive import archive
from mover.steps.hold import hold_run
from mover.steps.transfer import transfer
from mover.steps.verify import verify
from tests.unit.mover.bench import NOW, RUN, Bench
from tests.unit.mover.reco.campaignbench import CampaignBench
from tests.unit.mover.reco.recobench import RecoBench, write_output
from tests.unit.mover.running import RIVAL, SettableClock, add_run, known, tune, work

Alarms = Callable[..., dict[str, Alarm]]


def alarms(bench: Bench, *, hours: float = 0, fill: float | None = 10.0, agents: tuple[AgentState, ...] = ()) -> dict[
    str, Alarm
]:  # fmt: skip
    """By key, those of so many hours after the bench's moment; that no engine runs is left out."""
    now = NOW + timedelta(hours=hours)
    found = find_alarms(bench.catalogue, bench.config, now=now, agents=agents, fill_percent=fill)
    keys = [one.key for one in found]
    assert len(keys) == len(set(keys))
    return {one.key: one for one in found if one.kind is not AlarmKind.SERVICE}


def test_where_all_is_well_there_is_none(bench: Bench) -> None:
    bench.make_safe()
    record_service(bench.catalogue, "engine", bench.config.digest(), now=NOW)
    assert find_alarms(bench.catalogue, bench.config, now=NOW, agents=(), fill_percent=10.0) == ()


def test_a_run_that_is_quarantined_needs_a_person(bench: Bench) -> None:
    bench.files[0].unlink()
    with pytest.raises(RunError):
        bench.close_run()
    alarm = alarms(bench)["run-needs-person/run 4742"]
    assert alarm.says.startswith("run 4742 is not complete: ")
    assert alarm.remedy.endswith("; `mover why 4742` says more")
    assert alarm.since == NOW


def test_a_replica_that_is_quarantined_needs_a_person(bench: Bench, clock: SettableClock) -> None:
    bench.close_run()
    bench.endpoints["tape"].upload("MICE/04742.tar", [b"theirs"], 6)
    work(bench, "tape", clock)
    alarm = alarms(bench)["replica-needs-person/raw of run 4742 at tape"]
    assert "is taken by another file" in alarm.says
    assert alarm.remedy.endswith("; then `mover run retry 4742`")


def test_a_job_that_is_quarantined_needs_a_person_until_it_is_done_again(tmp_path: Path) -> None:
    bench = RecoBench(tmp_path)
    bench.what_becomes = lambda job: write_output(job, None, exit_code=2, reason="no field map")
    bench.turns(2)
    assert bench.job_state() is JobState.QUARANTINED
    alarm = alarms(bench)["job-needs-person/reco of run 4742 with 0.4.1"]
    assert "no field map" in alarm.says
    assert "`mover reco retry 4742`" in alarm.remedy
    bench.catalogue.query(
        "INSERT INTO job (run, kind, release, iteration, state, since, next_attempt_at) "
        "SELECT run, kind, release, 2, 'wanted', since, since FROM job WHERE kind = 'reco'"
    )
    assert "job-needs-person/reco of run 4742 with 0.4.1" not in alarms(bench)


def test_many_of_a_kind_are_counted_and_not_all_listed(bench: Bench) -> None:
    bench.close_run()
    for run in range(RUN + 1, RUN + MOST + 5):
        add_run(bench, run)
        hold_run(bench.catalogue, run, reason="x", now=NOW)
    hold_run(bench.catalogue, RUN, reason="x", now=NOW)
    found = alarms(bench)
    assert len(found) == MOST + 1
    assert found["run-needs-person/runs"].says == "5 more runs"


def _to_copied(bench: Bench) -> None:
    bench.step(transfer, "tape")


def _to_verified(bench: Bench) -> None:
    _to_copied(bench)
    bench.step(verify, "tape")


@pytest.mark.parametrize(
    ("act", "subject", "hours", "words"),
    [
        (lambda _: None, "to tape", 6, "run 4742: to be brought to tape for more than 6 h"),
        (_to_copied, "check at tape", 6, "run 4742: stored at tape, and not verified for more than 6 h"),
        (_to_verified, "tape at tape", 48, "run 4742: stored at tape, and not on tape for more than 48 h"),
        (lambda _: None, "safe", 54, "run 4742: closed, and not safe for more than 54 h"),
    ],
)
def test_what_takes_longer_than_expected_is_told(
    bench: Bench, act: Callable[[Bench], None], subject: str, hours: float, words: str
) -> None:
    bench.close_run()
    act(bench)
    assert f"stuck/{subject}" not in alarms(bench, hours=hours - 0.1)
    alarm = alarms(bench, hours=hours + 0.1)[f"stuck/{subject}"]
    assert alarm.says == words
    assert alarm.remedy == "`mover why 4742` says what it waits for"
    assert alarm.since == NOW + timedelta(hours=hours)


def test_every_run_that_is_not_done_is_told_in_the_end(bench: Bench, clock: SettableClock) -> None:
    """Whatever state it is in: that nobody hears of it for ever must not be."""
    bench.close_run()
    steps: list[Callable[[], object]] = [
        lambda: None,
        lambda: bench.step(transfer, "tape"),
        lambda: bench.step(verify, "tape"),
        lambda: bench.step(archive, "tape"),
        lambda: bench.step(transfer, "disk"),
        lambda: bench.step(verify, "disk"),
    ]
    for step in steps:
        step()
        assert any(one.kind is AlarmKind.STUCK for one in alarms(bench, hours=24 * 365).values())


def test_the_longest_is_named_and_the_others_counted(bench: Bench) -> None:
    bench.close_run()
    add_run(bench, RUN - 1, now=NOW + timedelta(hours=1))
    add_run(bench, RUN + 1, now=NOW + timedelta(hours=1))
    assert alarms(bench, hours=8)["stuck/to disk"].says.startswith("run 4742 and 2 more: ")
    assert alarms(bench, hours=6.5)["stuck/to disk"].says.startswith("run 4742: ")


def test_backlog_may_take_longer(bench: Bench) -> None:
    bench.make_safe()
    bundle = bundle_of(bench.catalogue, RUN)
    assert bundle is not None
    places = (*bench.config.endpoint, bench.config.endpoint[1].model_copy(update={"name": "new"}))
    bench.config = bench.config.model_copy(update={"endpoint": places})
    want_replicas(bench.catalogue, bundle.id, RUN, bundle.lfn, ["new"], now=NOW)
    assert not alarms(bench, hours=719)
    assert "stuck/to new (backlog)" in alarms(bench, hours=721)


def test_what_a_person_holds_is_told_as_that_and_not_as_stuck(bench: Bench) -> None:
    bench.close_run()
    hold_run(bench.catalogue, RUN, reason="x", now=NOW)
    assert {one.kind for one in alarms(bench, hours=1000).values()} == {AlarmKind.RUN}


def test_a_safe_run_that_is_not_released_is_told_if_the_engine_is_to_do_it(bench: Bench) -> None:
    bench.make_safe()
    assert not alarms(bench, hours=1000)
    tune(bench, "release", automatic=True)
    assert not alarms(bench, hours=168 + 23)
    assert alarms(bench, hours=168 + 25)["stuck/release"].says == (
        "run 4742: safe, and its local files are not released for more than 192 h"
    )


def test_jobs_that_take_too_long_are_told_but_not_those_of_a_paused_campaign(tmp_path: Path) -> None:
    bench = CampaignBench(tmp_path)
    campaign = bench.create()
    assert "stuck/reco wanted of campaigns" in alarms(bench, hours=721)
    bench.move(campaign, CampaignEvent.PAUSED)
    assert not any(one.kind is AlarmKind.STUCK for one in alarms(bench, hours=721).values())


def test_jobs_are_told_in_each_state(tmp_path: Path) -> None:
    bench = RecoBench(tmp_path)
    bench.agent.look_around(bench.catalogue)
    assert "stuck/reco wanted" in alarms(bench, hours=25)
    bench.what_becomes = lambda _: None
    bench.turn()
    assert bench.job_state() is JobState.SUBMITTED
    assert "stuck/reco submitted" not in alarms(bench, hours=24.9)
    assert "stuck/reco submitted" in alarms(bench, hours=25.1)


def test_an_endpoint_that_is_silent_for_long_is_told(bench: Bench, clock: SettableClock) -> None:
    bench.close_run()
    tune(bench, "engine", failures_before_pause=1)
    bench.endpoints["disk"].fail_next(EndpointUnavailableError("not today", hint="wait"))
    work(bench, "disk", clock)
    assert not alarms(bench, hours=0.9)
    alarm = alarms(bench, hours=1.1)["endpoint-silent/disk"]
    assert alarm.says == "disk has not answered for 60 min: not today"
    assert alarm.since == NOW


def test_a_disk_that_fills_up(bench: Bench) -> None:
    assert not alarms(bench, fill=79.9)
    assert alarms(bench, fill=80.0)["disk-fills-up/runs"].severity is Severity.WARNING
    assert alarms(bench, fill=95.0)["disk-fills-up/runs"].severity is Severity.CRITICAL
    assert "cannot be looked at" in alarms(bench, fill=None)["disk-fills-up/runs"].says


def test_daemons_that_are_missing_or_outdated(bench: Bench) -> None:
    def found() -> dict[str, Alarm]:
        made = find_alarms(bench.catalogue, bench.config, now=NOW, agents=(), fill_percent=1.0)
        return {one.key: one for one in made}

    assert found()["service-missing/engine"].severity is Severity.CRITICAL
    record_service(bench.catalogue, "engine", "another", now=NOW)
    assert found().keys() == {"service-outdated/engine"}
    record_service(bench.catalogue, "engine", bench.config.digest(), now=NOW)
    assert not found()


def _agent(urgency: Urgency) -> AgentState:
    until = datetime.fromisoformat("2026-01-02T05:00:00+00:00")
    return AgentState(Path("/s"), (IdentityState("robot", urgency, until, None, ("plug it in",)),))


def test_credentials(bench: Bench) -> None:
    assert not alarms(bench, agents=(_agent(Urgency.OK),))
    soon = alarms(bench, agents=(_agent(Urgency.SOON),))["credential/robot"]
    assert (soon.severity, soon.remedy) == (Severity.WARNING, "plug it in")
    assert "until 2026-01-02 05:00:00Z only" in soon.says
    assert alarms(bench, agents=(_agent(Urgency.EXPIRED),))["credential/robot"].severity is Severity.CRITICAL
    silent = AgentState(Path("/s"), problem="nobody listens", hint="start it")
    assert "nobody listens" in alarms(bench, agents=(silent,))["credential//s"].says


def test_a_claim_that_a_clock_ahead_made(bench: Bench) -> None:
    bench.close_run()
    lease = timedelta(days=365)
    assert claim_next(bench.catalogue, "disk", list(ReplicaState), owner=RIVAL, lease=lease, now=NOW)
    assert "its clock was ahead" in alarms(bench)["claim-overlong/run 4742 at disk"].says


def test_the_most_urgent_comes_first(bench: Bench) -> None:
    bench.close_run()
    hold_run(bench.catalogue, RUN, reason="x", now=NOW)
    found = find_alarms(bench.catalogue, bench.config, now=NOW, agents=(_agent(Urgency.EXPIRED),), fill_percent=85.0)
    severities = [one.severity for one in found]
    assert severities == sorted(severities, key=[Severity.CRITICAL, Severity.WARNING].index)
    assert known(bench.catalogue, RUN).state is RunState.QUARANTINED
