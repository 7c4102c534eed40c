"""Custody: the chain shows every change and every cut, and the catalogue must say what its records say."""

import re
import sqlite3
import tracemalloc
from datetime import timedelta

import pytest

from mover.catalogue import custody
from mover.catalogue.agreement import disagreements
from mover.catalogue.custody import Head
from mover.catalogue.replay import replay
from mover.catalogue.replicas import record_event, release_claim, retry_replicas
from mover.catalogue.runs import record_run_event
from mover.errors import CatalogueError, ForeignFileError, RunIncompleteError
from mover.model import BundleKind
from mover.states import ReplicaEvent, ReplicaState, RunEvent, RunState
from mover.steps.look import look_again
from mover.steps.release import release_run
from mover.steps.transfer import transfer
from mover.steps.verify import verify
from tests.unit.mover.bench import LFN, NOW, RUN, Bench, FixedClock

_REPLICA = "INSERT INTO replica (bundle_id, endpoint, state, since, next_attempt_at) VALUES "


def _tamper(bench: Bench, statement: str = "", *values: object) -> None:
    """What somebody could do who writes the file with another program."""
    bench.spoiled = True
    raw = sqlite3.connect(bench.catalogue.path, isolation_level=None)
    raw.execute("DROP TRIGGER IF EXISTS custody_is_not_changed")
    raw.execute("DROP TRIGGER IF EXISTS custody_is_not_removed")
    raw.execute(statement, values)
    raw.close()


def _rewrite(bench: Bench, seq: int, **facts: str) -> None:
    """Change a record and make the chain after it anew, as a clever forger would."""
    links = [custody._link(row, "") for row in bench.catalogue.query("SELECT * FROM custody ORDER BY seq")]
    _tamper(bench)
    raw = sqlite3.connect(bench.catalogue.path, isolation_level=None)
    previous = custody.GENESIS
    for link in links:
        text = link.facts if link.seq != seq else str(facts).replace("'", '"')
        digest = custody._hash(previous, (link.seq, link.at, link.run, link.by, link.event, text))
        raw.execute("UPDATE custody SET facts = ?, hash = ? WHERE seq = ?", (text, digest, link.seq))
        previous = digest
    raw.close()


def _found(bench: Bench) -> list[str]:
    return list(disagreements(bench.catalogue))


def test_the_head_is_of_the_last_record_and_reads_back(bench: Bench) -> None:
    assert custody.head(bench.catalogue) == custody.START
    assert custody.verify(bench.catalogue).head == custody.START
    bench.make_safe()
    chain = custody.verify(bench.catalogue)
    head = custody.head(bench.catalogue)
    assert chain.head == head == Head.parse(str(head))
    assert chain.records == head.seq == len(custody.records(bench.catalogue, RUN))
    assert chain.first_at == chain.last_at == NOW.isoformat()


@pytest.mark.parametrize(
    "text", ["", "1", "1:", "1:ab", f"-1:{'a' * 64}", f"x:{'a' * 64}", f"1:{'A' * 64}", f"²:{'a' * 64}"]
)
def test_what_is_no_head_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="SEQ:HASH"):
        Head.parse(text)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("UPDATE custody SET facts = '{}' WHERE seq = 2", "record 2 does not follow"),
        ("UPDATE custody SET run = 1 WHERE seq = 2", "record 2 does not follow"),
        ("UPDATE custody SET by = 'me@here' WHERE seq = 1", "record 1 does not follow"),
        ("DELETE FROM custody WHERE seq = 1", "record 1 is missing"),
        ("DELETE FROM custody WHERE seq = 2", "record 2 is missing"),
        ("UPDATE custody SET seq = 99 WHERE seq = 3", "record 3 is missing"),
        ("INSERT INTO custody SELECT 0, at, run, by, event, facts, hash FROM custody LIMIT 1", "record 1 is missing"),
    ],
)
def test_any_change_of_the_chain_is_found(bench: Bench, change: str, said: str) -> None:
    bench.make_safe()
    _tamper(bench, change)
    with pytest.raises(CatalogueError, match=said):
        custody.verify(bench.catalogue)


def test_a_cut_end_shows_against_a_noted_head_only(bench: Bench) -> None:
    bench.make_safe()
    noted = custody.head(bench.catalogue)
    earlier = Head(2, custody.records(bench.catalogue, RUN)[1].hash)
    assert custody.verify(bench.catalogue, noted=[noted, earlier, noted, custody.START]).head == noted
    _tamper(bench, "DELETE FROM custody WHERE seq = ?", noted.seq)
    assert custody.verify(bench.catalogue, noted=[earlier]).records == noted.seq - 1
    with pytest.raises(CatalogueError, match=f"ends with record {noted.seq - 1}, but record {noted.seq} was noted"):
        custody.verify(bench.catalogue, noted=[noted])


def test_a_chain_that_was_made_anew_shows_against_a_noted_head_only(bench: Bench) -> None:
    bench.make_safe()
    noted = [custody.head(bench.catalogue), custody.START]
    _rewrite(bench, 1, lfn="x")
    assert custody.verify(bench.catalogue).records == noted[0].seq
    with pytest.raises(CatalogueError, match=r"has the hash \w+, but \w+ was noted"):
        custody.verify(bench.catalogue, noted=noted)
    with pytest.raises(CatalogueError, match="record 0 has the hash"):
        custody.verify(bench.catalogue, noted=[Head(0, "1" * 64)])


def test_the_whole_chain_is_checked_within_bounded_memory(bench: Bench) -> None:
    bench.close_run()
    facts = {"text": "x" * 1000}
    with bench.catalogue.transaction() as connection:
        for run in range(20_000):
            custody.append(connection, NOW, run + 10_000, "noted", **facts)
    tracemalloc.start()
    assert custody.verify(bench.catalogue).records == 20_001
    list(disagreements(bench.catalogue))
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 2_000_000  # the records alone have twenty times that


def test_a_run_on_its_way_agrees_with_its_records(bench: Bench) -> None:
    bench.close_run()
    assert not _found(bench)
    bench.step(transfer, "tape")
    assert not _found(bench)
    bench.step(verify, "tape")
    assert not _found(bench)


def test_the_story_of_a_released_run(bench: Bench) -> None:
    bench.make_safe()
    release_run(bench.catalogue, bench.config, RUN, bench.endpoints, clock=FixedClock())
    assert not _found(bench)
    story = replay(RUN, custody.records(bench.catalogue, RUN))
    assert (story.state, story.safe is not None, story.unproven_release) == (RunState.RELEASED, True, False)
    assert story.released is not None
    assert story.released.event == RunEvent.FILES_REMOVED
    (bundle,) = story.bundles.values()
    assert (bundle.lfn, bundle.kind) == (LFN, BundleKind.RAW)
    assert set(bundle.members or {}) == {file.name for file in bench.files}
    tape, disk = bundle.replicas["tape"], bundle.replicas["disk"]
    assert (tape.state, disk.state) == (ReplicaState.ARCHIVED, ReplicaState.VERIFIED)
    assert disk.url == bench.endpoints["disk"].url(LFN)
    assert list(tape.proofs) == [ReplicaState.COPIED, ReplicaState.VERIFIED, ReplicaState.ARCHIVED]


def test_a_run_that_was_quarantined_forced_planned_anew_and_lost_a_replica(bench: Bench) -> None:
    bench.files[1].unlink()
    with pytest.raises(RunIncompleteError):
        bench.close_run()
    assert not _found(bench)
    bench.close_run(force=True)
    work = bench.work("disk")
    record_event(
        bench.catalogue, work.claim, ReplicaEvent.GAVE_UP, now=NOW, problem=ForeignFileError("theirs", hint="look")
    )
    release_claim(bench.catalogue, work.claim)
    assert not _found(bench)
    bench.daq.write_run(RUN + 1, parts=2, part_bytes=30_000)[1].rename(bench.files[1])
    bench.close_run(force=True)
    assert bench.state("disk") is ReplicaState.WANTED
    assert not _found(bench)
    work = bench.work("disk")
    record_event(
        bench.catalogue, work.claim, ReplicaEvent.GAVE_UP, now=NOW, problem=ForeignFileError("theirs", hint="look")
    )
    release_claim(bench.catalogue, work.claim)
    retry_replicas(bench.catalogue, RUN, now=NOW)
    for endpoint in ("tape", "disk"):
        bench.step(transfer, endpoint)
        bench.step(verify, endpoint)
    assert not _found(bench)


def test_a_lost_replica_is_no_longer_proven(bench: Bench) -> None:
    bench.make_safe()
    bench.endpoints["disk"].remove(LFN)
    assert look_again(
        bench.catalogue, bench.config, RUN, bench.endpoints, clock=FixedClock(NOW + timedelta(1))
    ).lost == ("disk",)
    assert not _found(bench)
    story = replay(RUN, custody.records(bench.catalogue, RUN))
    assert (story.state, story.safe) == (RunState.PLANNED, None)
    disk = story.bundles[LFN].replicas["disk"]
    assert (disk.state, disk.url, disk.proofs) == (ReplicaState.WANTED, None, {})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            "UPDATE replica SET state = 'archived' WHERE endpoint = 'disk'",
            "at disk is archived, but .* make it verified",
        ),
        ("UPDATE run SET state = 'released'", "is released, but its custody records make it safe"),
        ("UPDATE bundle SET adler32 = '00000001'", "has adler32 00000001, but"),
        ("UPDATE bundle SET size_bytes = 1", "has size 1, but"),
        ("UPDATE bundle SET kind = 'mc'", "has kind mc, but"),
        ("UPDATE bundle SET lfn = 'x'", f"the bundle {LFN} is in the custody records only"),
        ('UPDATE member SET digests = \'[["sha256", "00"]]\' WHERE position = 0', "other members or digests"),
        ("UPDATE member SET digests = '[1]' WHERE position = 0", "other members or digests"),
        ("DELETE FROM member WHERE position = 1", "other members or digests"),
        ("DELETE FROM replica WHERE endpoint = 'disk'", "at disk is in the custody records only"),
        ("INSERT INTO run VALUES (9, 'safe', 'x', 'x', NULL, NULL, NULL)", "run 9 is safe, but .* make it unknown"),
        (
            f"{_REPLICA}(1, 'x', 'verified', '', '')",
            "at x is verified, but its custody records make it wanted: none speaks of it",
        ),
    ],
)
def test_a_state_that_no_record_explains_is_found(bench: Bench, change: str, said: str) -> None:
    bench.make_safe()
    _tamper(bench, change)
    found = _found(bench)
    assert any(re.search(said, one) for one in found), found


def test_a_replica_that_is_wanted_needs_no_record(bench: Bench) -> None:
    bench.make_safe()
    _tamper(
        bench,
        f"{_REPLICA}(1, 'x', 'wanted', '', '')",
    )
    assert not _found(bench)


@pytest.mark.parametrize(
    ("event", "facts", "said"),
    [
        (ReplicaEvent.ON_TAPE, {"endpoint": "disk"}, "nobody verified"),
        (ReplicaEvent.UPLOADED, {"endpoint": 3}, "speaks of endpoint"),
        (ReplicaEvent.UPLOADED, {"endpoint": "disk", "url": []}, "speaks of url"),
        (ReplicaEvent.UPLOADED, {"endpoint": "disk", "lfn": "another"}, "never planned"),
        (RunEvent.FILES_REMOVED, {}, "only sure copy"),
        ("planned anew", {"lfn": 1, "size_bytes": 1}, "speaks of lfn"),
        ("planned anew", {"lfn": "a", "size_bytes": True}, "speaks of kind or size_bytes"),
        ("planned anew", {"lfn": "a", "size_bytes": 1, "kind": "x"}, "speaks of kind or size_bytes"),
        ("digests computed", {"adler32": 1, "members": {}}, "speaks of adler32"),
        ("digests computed", {"adler32": "1", "members": []}, "speaks of members"),
        ("digests computed", {"adler32": "1", "members": {"a": {"sha256": 1}}}, "speaks of members"),
    ],
)
def test_records_that_the_mover_would_not_write_are_named(
    bench: Bench, event: str, facts: dict[str, object], said: str
) -> None:
    bench.close_run()
    bench.spoiled = True
    with bench.catalogue.transaction() as connection:
        custody.append(connection, NOW, RUN, event, **facts)
    (found,) = _found(bench)
    assert re.search(f"run {RUN}: custody record 2.*{said}", found), found


def test_a_release_without_a_verified_replica_is_found(bench: Bench) -> None:
    bench.close_run()
    bench.spoiled = True
    record_run_event(bench.catalogue, RUN, RunEvent.POLICY_HOLDS, now=NOW)
    record_run_event(bench.catalogue, RUN, RunEvent.FILES_REMOVED, now=NOW)
    assert _found(bench) == [f"run {RUN} was released without a verified replica"]


@pytest.mark.parametrize("text", ["", "[]", "[" * 100_000, "{"])
def test_facts_that_are_none_are_found(bench: Bench, text: str) -> None:
    bench.close_run()
    _tamper(bench, "UPDATE custody SET facts = ?", text)
    assert _found(bench) == [f"run {RUN}: custody record 1 is not one that the mover writes"]
    with pytest.raises(CatalogueError, match="is not one that the mover writes"):
        custody.records(bench.catalogue, RUN)


def test_bundles_of_other_kinds_have_a_story_of_their_own(bench: Bench) -> None:
    bench.close_run()
    with bench.catalogue.transaction() as connection:
        custody.append(connection, NOW, RUN, "reco planned", lfn="reco.tar", size_bytes=7, kind="reco")
        custody.append(connection, NOW, RUN, ReplicaEvent.UPLOADED, lfn="reco.tar", endpoint="disk")
        connection.execute("INSERT INTO bundle (run, kind, lfn, size_bytes) VALUES (?, 'reco', 'reco.tar', 7)", (RUN,))
        connection.execute(f"{_REPLICA}(2, 'disk', 'copied', '', '')")
    assert not _found(bench)
    story = replay(RUN, custody.records(bench.catalogue, RUN))
    assert story.bundles["reco.tar"].replicas["disk"].state is ReplicaState.COPIED
    assert not story.bundles[LFN].replicas
