"""`mover why`: for every state that a run, a replica or a job can be in, what it waits for and what comes next."""

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mover.agentstate import AgentState, IdentityState, Urgency
from mover.catalogue.campaigns import Campaign
from mover.catalogue.endpoints import EndpointHealth
from mover.catalogue.jobs import JobKey, JobRecord
from mover.catalogue.owner import this_process
from mover.catalogue.replicas import ReplicaRecord, claim_next
from mover.catalogue.runs import BundleRecord, RunRecord
from mover.catalogue.services import record_service
from mover.cli.main import cli
from mover.config import Config
from mover.errors import AccessDeniedError
from mover.model import BundleKind
from mover.states import CampaignState, JobState, ReplicaState, RunState
from mover.steps.archive import archive
from mover.steps.transfer import transfer
from mover.steps.verify import verify
from mover.why.explain import explain
from mover.why.sentence import Needs, Sentence
from mover.why.situation import Holder, Services, Situation
from tests.unit.mover.bench import NOW, RUN, Bench
from tests.unit.mover.reco.recobench import RecoBench
from tests.unit.mover.running import SettableClock, work

LATER = NOW + timedelta(minutes=5)
SOON = "2026-01-02 03:09:05Z"
PLACES = ("tape", "disk")
RUNS_HERE = Services(frozenset({"engine", "reco agent"}))


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    """One with a tape, a disk, and jobs of both kinds."""
    return RecoBench(tmp_path_factory.mktemp("why")).config


def run(state: RunState, problem: str | None = None, hint: str | None = None) -> RunRecord:
    return RunRecord(RUN, state, NOW, NOW, None, problem, hint)


def bundle(kind: BundleKind = BundleKind.RAW, number: int = 1) -> BundleRecord:
    return BundleRecord(number, RUN, kind, f"MICE/{kind}.tar", 1000, None, None)


def a_replica(endpoint: str, state: ReplicaState, **more: object) -> ReplicaRecord:
    number = PLACES.index(endpoint) + 1 if endpoint in PLACES else 9
    made = ReplicaRecord(number, 1, RUN, endpoint, state, NOW, False, None, 0, 0, 0, 0, NOW, None, None)
    return replace(made, **more)  # type: ignore[arg-type]


def a_job(state: JobState, **more: object) -> JobRecord:
    values: dict[str, object] = dict.fromkeys(JobRecord.__dataclass_fields__)
    values |= {"id": 1, "key": JobKey(RUN, BundleKind.RECO, "0.4.1"), "state": state, "since": NOW, "attempts": 0}
    values |= {"failures": 0, "next_attempt_at": NOW, "ended": False, "lease_until": ""}
    return JobRecord(**{**values, **more})  # type: ignore[arg-type]


def situation(
    config: Config, record: RunRecord | None, replicas: tuple[ReplicaRecord, ...] = (), **more: object
) -> Situation:
    planned = record is not None and (replicas or record.state is not RunState.QUARANTINED)
    made = Situation(
        number=RUN,
        now=NOW,
        config=config,
        run=record,
        bundles=((bundle(), replicas),) if planned else (),
        jobs=(),
        claims={},
        overlong={},
        job_claims={},
        sick={},
        campaigns={},
        jobs_under_way=0,
        services=RUNS_HERE,
        agents=(),
        fill_percent=10.0,
    )
    return replace(made, **more)  # type: ignore[arg-type]


def without_jobs(config: Config, **release: object) -> Config:
    changed = config.release.model_copy(update=release)
    return config.model_copy(update={"reco": None, "release": changed})


def both(tape: ReplicaState, disk: ReplicaState, **of_tape: object) -> tuple[ReplicaRecord, ...]:
    return a_replica("tape", tape, **of_tape), a_replica("disk", disk)


R, P, J = ReplicaState, RunState, JobState
STORED = both(R.ARCHIVED, R.VERIFIED)
SICK = EndpointHealth("tape", NOW, 3, LATER, "connection refused", "wait for it")


def planned(config: Config, **of_tape: object) -> Situation:
    """A run whose tape replica is as said, and all else well."""
    state = of_tape.pop("state", R.WANTED)
    return situation(without_jobs(config), run(P.PLANNED), both(state, R.VERIFIED, **of_tape))  # type: ignore[arg-type]


def with_job(config: Config, job: JobRecord, **more: object) -> Situation:
    mc = a_job(J.PROVEN, id=2, key=JobKey(RUN, BundleKind.MC, "0.4.1"))
    return situation(config, run(P.RELEASED), STORED, jobs=(job, mc), **more)


CASES: dict[str, tuple[Callable[[Config], Situation], Needs, str, str]] = {
    "never closed": (
        lambda c: situation(c, None),
        Needs.TIME,
        "never closed here",
        "once the DAQ has written 04742.end into ",
    ),
    "dismissed": (lambda c: situation(c, run(P.DISMISSED)), Needs.NOTHING, "it is no run", "`mover run close 4742`"),
    "incomplete": (
        lambda c: situation(c, run(P.QUARANTINED, "run 4742 is not complete: no end", "look at the files")),
        Needs.PERSON,
        "is not complete: no end.",
        "if it is no run at all, `mover run unquarantine 4742 --reason …` dismisses it",
    ),
    "held by a person": (
        lambda c: situation(c, run(P.QUARANTINED, "quarantined by x: odd", "let it go on"), STORED),
        Needs.PERSON,
        "Nothing of it is moved, submitted or released meanwhile.",
        "Let it go on.",
    ),
    "a problem": (
        lambda c: situation(c, run(P.PLANNED, "it ended a second time", "mend it"), STORED),
        Needs.PERSON,
        "It ended a second time.",
        "Mend it.",
    ),
    "lacks": (
        lambda c: situation(without_jobs(c), run(P.PLANNED), both(R.WANTED, R.WANTED)),
        Needs.TIME,
        "it lacks 1 tape, 1 tape site, 1 disk.",
        "It is safe when enough of its replicas are proven",
    ),
    "the policy wants more than is wanted": (
        lambda c: situation(without_jobs(c), run(P.PLANNED), (a_replica("disk", R.VERIFIED),)),
        Needs.PERSON,
        "Even all the replicas that are wanted would lack 1 tape, 1 tape site.",
        "`mover policy apply` wants it.",
    ),
    "to be called safe": (
        lambda c: situation(without_jobs(c), run(P.PLANNED), STORED),
        Needs.TIME,
        "Enough of it is proven (safe: 1 tape at 1 site, 1 disk).",
        "The engine calls it safe at its next look.",
    ),
    "safe, left to people": (
        lambda c: situation(without_jobs(c), run(P.SAFE), STORED),
        Needs.TIME,
        "left to people",
        "removes them after 2026-01-09 03:04:05Z.",
    ),
    "safe, due, left to people": (
        lambda c: situation(without_jobs(c), run(P.SAFE), STORED, fill_percent=99.0),
        Needs.PERSON,
        "left to people",
        "`mover release 4742` asks the storage once more, and removes them now.",
    ),
    "safe, kept": (
        lambda c: situation(without_jobs(c, automatic=True), run(P.SAFE), STORED),
        Needs.TIME,
        "kept until 2026-01-09 03:04:05Z",
        "earlier if the disk is 80 % full",
    ),
    "safe, due": (
        lambda c: situation(without_jobs(c, automatic=True, retention_hours=0), run(P.SAFE), STORED),
        Needs.TIME,
        "due to go: kept for 0 h",
        "The engine asks the storage once more",
    ),
    "safe, and its files are needed": (
        lambda c: situation(without_jobs(c), run(P.SAFE), both(R.VERIFIED, R.VERIFIED)),
        Needs.TIME,
        "It is safe, but tape may still need its local files.",
        "They stay until that is done.",
    ),
    "released": (
        lambda c: situation(without_jobs(c), run(P.RELEASED), STORED),
        Needs.NOTHING,
        "its raw data is at tape, disk.",
        "Nothing is left to do",
    ),
    "released and lost": (
        lambda c: situation(without_jobs(c), run(P.RELEASED), both(R.WANTED, R.WANTED)),
        Needs.PERSON,
        "its raw data is at no endpoint.",
        "`mover run retry 4742 --look`",
    ),
    "replica wanted": (planned, Needs.TIME, "It is wanted since", "It is brought there when a stream to tape is free"),
    "replica of the backlog": (
        lambda c: planned(c, backlog=True),
        Needs.TIME,
        "as backlog after all live runs",
        "when a stream to tape is free",
    ),
    "replica copied": (
        lambda c: planned(c, state=R.COPIED),
        Needs.TIME,
        "It is copied since",
        "Size and checksum are asked",
    ),
    "replica waits for tape": (
        lambda c: planned(c, state=R.VERIFIED, next_attempt_at=LATER),
        Needs.TIME,
        "not on tape yet.",
        f"asked again at {SOON}.",
    ),
    "replica quarantined": (
        lambda c: planned(c, state=R.QUARANTINED, problem="taken by another file", hint="ask whose it is"),
        Needs.PERSON,
        "taken by another file.",
        "Ask whose it is. Then `mover run retry 4742` takes it up.",
    ),
    "replica failed": (
        lambda c: planned(c, problem="no space left", hint="ask the site", failures=4, next_attempt_at=LATER),
        Needs.TIME,
        "failed 4 times in a row: no space left.",
        f"tried again at {SOON} by itself; `mover run retry 4742` does so at once. Ask the site.",
    ),
    "endpoint sick": (
        lambda c: replace(planned(c), sick={"tape": SICK}),
        Needs.TIME,
        "tape has not answered since 2026-01-02 03:04:05Z: connection refused.",
        f"One piece of work tries it again at {SOON}; once it answers, this goes on by itself. Wait for it.",
    ),
    "endpoint not configured": (
        lambda c: situation(without_jobs(c), run(P.PLANNED), (*STORED, a_replica("gone", R.WANTED))),
        Needs.NOTHING,
        "gone is not in the configuration any more",
        "put the endpoint back",
    ),
    "claim of an engine at work": (
        lambda c: replace(planned(c), claims={1: Holder("here", True, LATER)}),
        Needs.TIME,
        "The engine brings it there just now.",
        "size and checksum are asked",
    ),
    "claim of a dead engine": (
        lambda c: replace(planned(c), claims={1: Holder("here", False, LATER)}),
        Needs.TIME,
        "has died and still holds its claim",
        "The next engine of that machine frees it",
    ),
    "claim of an engine elsewhere": (
        lambda c: replace(planned(c), claims={1: Holder("there", None, LATER)}),
        Needs.TIME,
        "An engine on there brings it there; whether it still runs cannot be seen from here.",
        f"by {SOON}, any engine may take it over.",
    ),
    "claim longer than any lease": (
        lambda c: replace(planned(c), claims={1: Holder("there", None, LATER)}, overlong={1: "its clock was ahead"}),
        Needs.PERSON,
        "Its clock was ahead.",
        "`mover run retry 4742` takes it up.",
    ),
    "no engine": (lambda c: replace(planned(c), services=Services()), Needs.PERSON, "No engine runs.", "mover engine"),
    "an engine elsewhere": (
        lambda c: replace(planned(c), services=Services(elsewhere={"engine": "there"})),
        Needs.TIME,
        "one was started on there",
        "start one",
    ),
    "an engine by another configuration": (
        lambda c: replace(planned(c), services=Services(frozenset({"engine"}), frozenset({"engine"}))),
        Needs.PERSON,
        "goes by another configuration",
        "Restart it.",
    ),
    "dongle": (
        lambda c: replace(
            planned(c),
            agents=(
                AgentState(Path("/s"), (IdentityState("robot", Urgency.EXPIRED, NOW, None, ("plug the dongle in",)),)),
            ),
        ),
        Needs.PERSON,
        "The agent issues no proxies, or not all, for robot.",
        "plug the dongle in.",
    ),
    "no agent": (
        lambda c: replace(planned(c), agents=(AgentState(Path("/s"), (), "nobody listens", "start it"),)),
        Needs.PERSON,
        "does not answer at /s: nobody listens.",
        "start it",
    ),
    "job not wanted, raw data not there": (
        lambda c: situation(c, run(P.PLANNED), both(R.ARCHIVED, R.WANTED)),
        Needs.TIME,
        "Its reco job waits for the raw data at disk.",
        "as soon as the replica at disk is proven.",
    ),
    "job not wanted, raw data never there": (
        lambda c: situation(c, run(P.PLANNED), (a_replica("tape", R.ARCHIVED),)),
        Needs.PERSON,
        "Its reco job waits for the raw data at disk.",
        "`mover policy apply` wants it.",
    ),
    "job not wanted, raw data there": (
        lambda c: situation(c, run(P.PLANNED), STORED),
        Needs.TIME,
        "no reco job is wanted yet.",
        "`mover reco approve RELEASE`",
    ),
    "job wanted": (
        lambda c: with_job(c, a_job(J.WANTED)),
        Needs.TIME,
        "0 jobs of at most 8 are under way",
        "It is submitted in its turn",
    ),
    "job of a paused campaign": (
        lambda c: with_job(
            c,
            a_job(J.WANTED, campaign_id=3),
            campaigns={3: Campaign(3, "0.4.1", NOW, CampaignState.PAUSED, 4, "runs")},
        ),
        Needs.PERSON,
        "campaign 3, which is paused.",
        "`mover campaign resume 3`",
    ),
    "job of a campaign that was not started": (
        lambda c: with_job(
            c,
            a_job(J.WANTED, campaign_id=3),
            campaigns={3: Campaign(3, "0.4.1", NOW, CampaignState.CREATED, 4, "runs")},
        ),
        Needs.PERSON,
        "which is created.",
        "`mover campaign start 3`",
    ),
    "job whose earlier attempt lives": (
        lambda c: with_job(c, a_job(J.WANTED, name="run-1", batch="slurm")),
        Needs.TIME,
        "an earlier attempt, run-1, may still be at slurm",
        "ends that first",
    ),
    "job that waits for its release or recall": (
        lambda c: with_job(c, a_job(J.WANTED, status="it is on tape only", next_attempt_at=LATER)),
        Needs.TIME,
        "It is not submitted yet: it is on tape only.",
        f"tried again at {SOON}",
    ),
    "job that cannot be submitted": (
        lambda c: with_job(c, a_job(J.WANTED, problem="0.4.1 is not on CVMFS", hint="see to it", failures=2)),
        Needs.TIME,
        "failed 2 times in a row, 0.4.1 is not on CVMFS.",
        "See to it.",
    ),
    "job of a dead agent": (
        lambda c: with_job(c, a_job(J.WANTED), job_claims={1: Holder("here", False, LATER)}),
        Needs.TIME,
        "has died and still holds its claim",
        "The next agent of that machine frees it",
    ),
    "job of an agent elsewhere": (
        lambda c: with_job(c, a_job(J.COLLECTED), job_claims={1: Holder("there", None, LATER)}),
        Needs.TIME,
        "A reco agent on there reads its output back",
        f"by {SOON}",
    ),
    "job of an agent at work": (
        lambda c: with_job(c, a_job(J.SUBMITTED, ended=True), job_claims={1: Holder("here", True, LATER)}),
        Needs.TIME,
        "The reco agent takes its output just now.",
        "looked into",
    ),
    "job handed over": (
        lambda c: with_job(c, a_job(J.SUBMITTED, name="run-1", batch="slurm")),
        Needs.TIME,
        "whose answer has not come",
        "looks for it",
    ),
    "job in a queue": (
        lambda c: with_job(c, a_job(J.SUBMITTED, batch="slurm", batch_id="77", phase="waiting")),
        Needs.TIME,
        "It waits in the queue of slurm as 77",
        "when it likes",
    ),
    "job running": (
        lambda c: with_job(c, a_job(J.SUBMITTED, batch="slurm", batch_id="77", phase="running", heartbeat_at=NOW)),
        Needs.TIME,
        "It runs at slurm as 77; its last sign of life is of 2026-01-02 03:04:05Z.",
        "its output is taken",
    ),
    "job missing": (
        lambda c: with_job(c, a_job(J.SUBMITTED, batch="slurm", batch_id="77", missing_since=NOW)),
        Needs.TIME,
        "slurm does not know it since",
        "submitted again",
    ),
    "job silent": (
        lambda c: with_job(c, a_job(J.SUBMITTED, batch_id="77", problem="ended by us", hint="submitted again")),
        Needs.TIME,
        "Ended by us.",
        "Submitted again.",
    ),
    "job ended": (
        lambda c: with_job(c, a_job(J.SUBMITTED, batch="slurm", batch_id="77", ended=True, status="COMPLETED")),
        Needs.TIME,
        "slurm says that it has ended: COMPLETED.",
        "counts for nothing",
    ),
    "output not verified": (
        lambda c: with_job(c, a_job(J.COLLECTED, bundle_id=2)),
        Needs.TIME,
        "not verified at any endpoint yet",
        "held against the output contract",
    ),
    "output not proven": (
        lambda c: replace(
            with_job(c, a_job(J.COLLECTED, bundle_id=2)),
            bundles=((bundle(), STORED), (bundle(BundleKind.RECO, 2), (a_replica("disk", R.VERIFIED),))),
        ),
        Needs.TIME,
        "Its output is stored.",
        "reads it back from the storage",
    ),
    "output not readable": (
        lambda c: with_job(c, a_job(J.COLLECTED, bundle_id=2, problem="no space here", hint="make space")),
        Needs.TIME,
        "not looked into: no space here.",
        "Make space.",
    ),
    "job quarantined": (
        lambda c: with_job(c, a_job(J.QUARANTINED, problem="no recon.root", hint="ask an expert")),
        Needs.PERSON,
        "no recon.root.",
        "Ask an expert. Then `mover reco retry 4742` has it done again, or `mover reco cancel 4742` gives it up.",
    ),
    "no reco agent": (
        lambda c: with_job(c, a_job(J.WANTED), services=Services(frozenset({"engine"}))),
        Needs.PERSON,
        "No reco agent runs.",
        "mover reco agent",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_each_state_is_explained(config: Config, name: str) -> None:
    make, needs, says, after = CASES[name]
    found = explain(make(config))
    assert [one for one in found if one.needs is needs and says in one.says and after in one.next], found


def test_what_needs_a_person_comes_first_but_for_the_runs_own_state(config: Config) -> None:
    made = planned(config, state=R.QUARANTINED, problem="x", hint="y")
    found = explain(replace(made, services=Services()))
    assert [one.about for one in found[:3]] == ["run", "raw at tape", "engine"]
    assert [one.needs for one in found[1:]] == sorted((one.needs for one in found[1:]), key=list(Needs).index)


def test_a_wanted_replica_names_the_endpoint_whose_copy_it_waits_for(config: Config) -> None:
    places = tuple(one.model_copy(update={"source": "tpc", "url": f"davs://{one.name}/x"}) for one in config.endpoint)
    made = without_jobs(config).model_copy(update={"endpoint": places})
    found = explain(situation(made, run(P.PLANNED), both(R.COPIED, R.WANTED)))
    assert "waits for a third-party copy from tape." in _of(found, "raw at disk").says
    for change in ({"sick": {"tape": SICK}}, {"bundles": ((bundle(), both(R.COPIED, R.WANTED, failures=1)),)}):
        other = explain(situation(made, run(P.PLANNED), both(R.COPIED, R.WANTED), **change))
        assert "third-party" not in _of(other, "raw at disk").says


def test_a_job_that_was_done_again_since_needs_nobody(config: Config) -> None:
    bad = a_job(J.QUARANTINED, problem="x", hint="y")
    again = a_job(J.PROVEN, id=3, key=JobKey(RUN, BundleKind.RECO, "0.4.1", 2))
    made = with_job(config, bad)
    assert any(one.needs is Needs.PERSON for one in explain(made))
    assert not any(one.needs is Needs.PERSON for one in explain(replace(made, jobs=(*made.jobs, again))))


def _of(found: tuple[Sentence, ...], about: str) -> Sentence:
    return next(one for one in found if one.about == about)


_TEXTS = st.none() | st.text(max_size=20)
_TIMES = st.integers(-(10**6), 10**6).map(lambda seconds: NOW + timedelta(seconds=seconds))
_HOLDERS = st.builds(Holder, st.just("somewhere"), st.sampled_from([True, False, None]), _TIMES)


@st.composite
def _replicas(draw: st.DrawFn) -> tuple[ReplicaRecord, ...]:
    return tuple(
        a_replica(
            endpoint,
            draw(st.sampled_from(ReplicaState)),
            problem=draw(_TEXTS),
            hint=draw(_TEXTS),
            failures=draw(st.integers(0, 5)),
            next_attempt_at=draw(_TIMES),
            since=draw(_TIMES),
        )
        for endpoint in draw(st.sets(st.sampled_from([*PLACES, "gone"])))
    )


@st.composite
def _jobs(draw: st.DrawFn) -> JobRecord:
    return a_job(
        draw(st.sampled_from(JobState)),
        campaign_id=draw(st.sampled_from([None, 3])),
        problem=draw(_TEXTS),
        hint=draw(_TEXTS),
        status=draw(_TEXTS),
        name=draw(_TEXTS),
        batch=draw(_TEXTS),
        batch_id=draw(_TEXTS),
        ended=draw(st.booleans()),
        phase=draw(st.sampled_from([None, "waiting", "running", "exited"])),
        missing_since=draw(st.none() | _TIMES),
        bundle_id=draw(st.sampled_from([None, 1])),
    )


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=300)
@given(data=st.data())
def test_every_run_that_is_not_released_is_told_what_comes_next(config: Config, data: st.DataObject) -> None:
    draw = data.draw
    state = draw(st.sampled_from([one for one in RunState if one not in {P.UNKNOWN, P.RELEASED, P.DISMISSED}]))
    problem = draw(_TEXTS)
    campaign = Campaign(3, "0.4.1", NOW, draw(st.sampled_from(CampaignState)), 4, "runs")
    reco = draw(st.booleans())
    made = situation(
        config if reco else without_jobs(config, automatic=draw(st.booleans())),
        run(state, problem, draw(_TEXTS)),
        draw(_replicas()),
        jobs=tuple(draw(st.lists(_jobs(), max_size=2))),
        claims=draw(st.dictionaries(st.integers(1, 2), _HOLDERS)),
        job_claims=draw(st.dictionaries(st.just(1), _HOLDERS)),
        sick=draw(st.sampled_from([{}, {"tape": SICK}])),
        campaigns={3: campaign},
        services=draw(st.sampled_from([RUNS_HERE, Services(), Services(elsewhere={"engine": "x"})])),
        fill_percent=draw(st.sampled_from([None, 10.0, 99.0])),
    )
    found = explain(made)
    assert any(one.needs is not Needs.NOTHING for one in found)
    for one in found:
        assert one.says.strip()
        assert one.next.strip()
    bad = state is P.QUARANTINED or bool(problem)
    if state is not P.QUARANTINED:
        bad = bad or any(
            one.state is R.QUARANTINED and one.endpoint != "gone" for _, all_ in made.bundles for one in all_
        )
    if bad:
        assert any(one.needs is Needs.PERSON for one in found)


Mover = Callable[..., str]


@pytest.fixture
def mover(bench: Bench, tmp_path: Path) -> Mover:
    """The command, on the bench's catalogue; what it prints."""
    config = tmp_path / "mover.toml"
    endpoints = "".join(
        f'[[endpoint]]\nname = "{name}"\nsite = "{name}"\nkind = "{name}"\nurl = "davs://{name}.example.org/store"\n'
        'source = "local"\n'
        for name in PLACES
    )
    config.write_text(
        f'experiment = "MICE"\ncatalogue = "{bench.config.catalogue}"\n[runs]\ndirectory = "{tmp_path}/daq"\n'
        f'[bundle]\nlfn = "MICE/{{run:05d}}.tar"\n[credential]\nagent = "{tmp_path}/none"\n{endpoints}'
        "[policy.raw]\ntapes = 1\ntape_sites = 1\ndisks = 1\n"
    )

    def invoke(*arguments: str, fails: int = 0) -> str:
        result = CliRunner().invoke(cli, ["--config", str(config), *arguments])
        assert result.exit_code == fails, result.output
        return result.stdout

    return invoke


def test_the_story_of_a_run_as_its_operator_reads_it(bench: Bench, mover: Mover) -> None:
    assert "run 4742 is not known here\n" in mover("why", str(RUN))
    bench.close_run()
    shown = mover("why", str(RUN))
    assert shown.startswith("run 4742 is planned\n… It is not safe yet: it lacks 1 tape, 1 tape site, 1 disk. ")
    assert "\n! engine: No engine runs. " in shown
    assert "\n! credential: The agent that issues Grid proxies does not answer at " in shown
    assert "credential" not in mover("why", str(RUN), "--no-agent")
    assert shown.index("! engine") < shown.index("… raw at tape: It is wanted since ")
    bench.step(transfer, "tape")
    bench.step(verify, "tape")
    assert "… raw at tape: It is stored and verified since " in mover("why", str(RUN))
    bench.step(archive, "tape")
    assert "raw at tape" not in mover("why", str(RUN))


def test_the_engine_at_work_is_seen_as_such_and_its_death_too(bench: Bench, mover: Mover) -> None:
    bench.close_run()
    now, mine = datetime.now(UTC), this_process()
    record_service(bench.catalogue, "engine", "another configuration", now=now)
    # A process of that number runs, but it was not started then.
    dead = mine.rpartition("/")[0] + "/1"
    for endpoint, owner in (("tape", mine), ("disk", dead)):
        assert claim_next(bench.catalogue, endpoint, list(R), owner=owner, lease=timedelta(hours=1), now=now)
    shown = mover("why", str(RUN))
    assert "… raw at tape: The engine brings it there just now." in shown
    assert "… raw at disk: The engine on " in shown
    assert " has died and still holds its claim" in shown
    assert "! engine: The engine goes by another configuration than the file has now." in shown


def test_why_for_programs(bench: Bench, mover: Mover) -> None:
    bench.close_run()
    found = json.loads(mover("why", str(RUN), "--json"))
    assert (found["run"], found["state"]) == (RUN, "planned")
    assert {one["needs"] for one in found["sentences"]} == {"person", "time"}
    assert all(one.keys() == {"about", "says", "next", "needs"} for one in found["sentences"])


def test_foreign_text_is_text(bench: Bench, mover: Mover, clock: SettableClock) -> None:
    bench.close_run()
    bench.endpoints["disk"].fail_next(AccessDeniedError("go away \x1b[2J", hint="\x1b[31m"))
    work(bench, "disk", clock)
    assert "go away \\x1b[2J" in mover("why", str(RUN))
    assert "\x1b" not in mover("why", str(RUN)) + mover("why", str(RUN), "--json")
