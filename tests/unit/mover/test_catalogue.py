"""The catalogue: migrations, custody, claims; what is committed stays, what is forbidden is refused."""

import os
import sqlite3
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from mover.bundle.plan import BundlePlan
from mover.catalogue import custody, migrations, owner
from mover.catalogue.database import Database
from mover.catalogue.replicas import (
    Claim,
    claim_next,
    free_dead_claims,
    get_replica,
    record_event,
    record_failure,
    record_intent,
    release_claim,
    renew_claim,
    replicas_of,
    retry_replicas,
)
from mover.catalogue.runs import BundleRecord, bundle_of, find_run, record_digest, record_planned, record_run_event
from mover.errors import CatalogueError, EndpointUnavailableError, ForeignFileError, LeaseLostError, LfnTakenError
from mover.model import BundleDigest, BundleKind, MemberDigest, Part
from mover.states import ReplicaEvent, ReplicaState, RunEvent, RunState

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
LEASE = timedelta(seconds=60)
WANTED = [ReplicaState.WANTED]


def _plan(run: int = 7) -> BundlePlan:
    return BundlePlan("MICE", run, f"a/{run}.tar", (Part(0, f"{run}.000", 3, 10**18),), ("sha256",), None, ())


@pytest.fixture
def catalogue(tmp_path: Path) -> Database:
    """A catalogue with run 7 wanted at two endpoints."""
    opened = Database(tmp_path / "catalogue.sqlite", create=True)
    record_planned(opened, _plan(), marker_ns=1, endpoints=["tape", "disk"], now=NOW)
    return opened


def _claim(catalogue: Database, *, who: str = "a", now: datetime = NOW) -> Claim | None:
    return claim_next(catalogue, "tape", WANTED, owner=f"elsewhere/boot/pid:[1]/1/{who}", lease=LEASE, now=now)


def _must_claim(catalogue: Database, *, who: str = "a", now: datetime = NOW) -> Claim:
    claim = _claim(catalogue, who=who, now=now)
    assert claim is not None
    return claim


def test_a_planned_run_is_there_with_its_bundle_and_wanted_replicas(catalogue: Database) -> None:
    run = find_run(catalogue, 7)
    assert run is not None
    assert (run.state, run.closed_at, run.marker_ns) == (RunState.PLANNED, NOW, 1)
    bundle = bundle_of(catalogue, 7)
    assert bundle is not None
    assert (bundle.plan, bundle.size_bytes, bundle.digest) == (_plan(), _plan().size_bytes, None)
    assert [(one.endpoint, one.state) for one in replicas_of(catalogue, 7)] == [
        ("tape", ReplicaState.WANTED),
        ("disk", ReplicaState.WANTED),
    ]


def test_an_lfn_belongs_to_one_run(catalogue: Database) -> None:
    other = BundlePlan("MICE", 8, "a/7.tar", (Part(0, "8.000", 3, 10**18),), ("sha256",), None, ())
    with pytest.raises(LfnTakenError, match="belongs to run 7"):
        record_planned(catalogue, other, marker_ns=None, endpoints=[], now=NOW)
    assert find_run(catalogue, 8) is None


def test_the_first_reading_is_the_one_that_counts(catalogue: Database) -> None:
    bundle = bundle_of(catalogue, 7)
    assert bundle is not None
    first = BundleDigest(bundle.size_bytes, "00000001", (MemberDigest("7.000", 3, (("sha256", "ab"),)),))
    second = BundleDigest(bundle.size_bytes, "00000002", first.members)
    assert record_digest(catalogue, bundle, first, now=NOW) == first
    assert record_digest(catalogue, bundle, second, now=NOW) == first


def test_one_claim_at_a_time_and_the_next_has_a_higher_fence(catalogue: Database) -> None:
    first = _must_claim(catalogue)
    assert _claim(catalogue, who="b") is None
    release_claim(catalogue, first)
    second = _must_claim(catalogue, who="b")
    assert second.fence == first.fence + 1


def test_an_engine_whose_lease_ran_out_cannot_commit_once_another_has_the_claim(catalogue: Database) -> None:
    slow = _must_claim(catalogue)
    assert _claim(catalogue, who="b", now=NOW + LEASE) is None
    quick = _must_claim(catalogue, who="b", now=NOW + LEASE * 2)
    for act in (
        lambda: record_intent(catalogue, slow, "x", now=NOW),
        lambda: record_event(catalogue, slow, ReplicaEvent.UPLOADED, now=NOW),
        lambda: renew_claim(catalogue, slow, now=NOW),
    ):
        with pytest.raises(LeaseLostError):
            act()
    release_claim(catalogue, slow)
    record_event(catalogue, quick, ReplicaEvent.UPLOADED, now=NOW)


def test_a_renewed_lease_is_not_taken(catalogue: Database) -> None:
    claim = _must_claim(catalogue)
    renew_claim(catalogue, claim, now=NOW + LEASE)
    assert _claim(catalogue, who="b", now=NOW + LEASE * 3 / 2) is None


def test_claims_of_a_dead_process_are_freed_and_of_a_live_one_not(catalogue: Database) -> None:
    alive = claim_next(catalogue, "disk", WANTED, owner=owner.this_process(), lease=LEASE, now=NOW)
    code = "from mover.catalogue.owner import this_process; print(this_process())"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    dead = claim_next(catalogue, "tape", WANTED, owner=ended.stdout.strip(), lease=LEASE, now=NOW)
    assert alive
    assert dead
    assert _claim(catalogue, who="b") is None
    assert free_dead_claims(catalogue) == 1
    assert _claim(catalogue, who="b") is not None
    renew_claim(catalogue, alive, now=NOW)


def test_an_owner_of_an_earlier_boot_is_dead_and_of_another_host_unknown() -> None:
    host = os.uname().nodename
    assert owner.is_dead(f"{host}/some-other-boot/pid:[1]/1/1")
    assert not owner.is_dead("another-host/some-other-boot/pid:[1]/1/1")
    # A container on the same host: its pids are not ours to look up.
    _, boot, _, pid, started = owner.this_process().split("/")
    assert not owner.is_dead(f"{host}/{boot}/pid:[1]/{pid}/0{started}")
    assert owner.is_dead(f"{host}/{boot}/{owner.this_process().split('/')[2]}/{pid}/0{started}")
    assert not owner.is_dead(owner.this_process())


def test_failures_wait_and_a_person_can_retry_at_once(catalogue: Database) -> None:
    claim = _must_claim(catalogue)
    later = NOW + timedelta(hours=1)
    record_failure(catalogue, claim, EndpointUnavailableError("down", hint="wait"), next_attempt_at=later)
    release_claim(catalogue, claim)
    assert _claim(catalogue) is None
    assert retry_replicas(catalogue, 7, now=NOW) == 1
    claim = _must_claim(catalogue)
    record_event(catalogue, claim, ReplicaEvent.GAVE_UP, now=NOW, problem=ForeignFileError("not ours", hint="look"))
    release_claim(catalogue, claim)
    replica = get_replica(catalogue, claim.replica_id)
    assert (replica.state, replica.problem, replica.hint) == (ReplicaState.QUARANTINED, "not ours", "look")
    assert _claim(catalogue) is None
    assert retry_replicas(catalogue, 7, now=NOW) == 1
    assert _claim(catalogue) is not None


def test_a_forbidden_event_changes_nothing(catalogue: Database) -> None:
    claim = _must_claim(catalogue)
    before = custody.records(catalogue, 7)
    with pytest.raises(CatalogueError, match="nobody verified"):
        record_event(catalogue, claim, ReplicaEvent.ON_TAPE, now=NOW)
    with pytest.raises(CatalogueError, match="only sure copy"):
        record_run_event(catalogue, 7, RunEvent.FILES_REMOVED, now=NOW)
    assert custody.records(catalogue, 7) == before
    assert get_replica(catalogue, claim.replica_id).state is ReplicaState.WANTED


def test_custody_is_a_chain_that_shows_any_change(catalogue: Database) -> None:
    claim = _must_claim(catalogue)
    record_intent(catalogue, claim, "a/7.tar", now=NOW)
    record_event(catalogue, claim, ReplicaEvent.UPLOADED, now=NOW, adler32="00000001")
    assert custody.verify(catalogue).records == 3
    assert [record.event for record in custody.records(catalogue, 7)] == [
        RunEvent.COMPLETE,
        "upload intended",
        ReplicaEvent.UPLOADED,
    ]
    raw = sqlite3.connect(catalogue.path, isolation_level=None)
    for statement in ("UPDATE custody SET facts = '{}' WHERE seq = 2", "DELETE FROM custody WHERE seq = 2"):
        with pytest.raises(sqlite3.IntegrityError, match="never"):
            raw.execute(statement)
    raw.execute("DROP TRIGGER custody_is_not_changed")
    raw.execute("UPDATE custody SET at = '2026-01-01' WHERE seq = 2")
    raw.close()
    with pytest.raises(CatalogueError, match="custody record 2"):
        custody.verify(catalogue)


def test_a_transaction_that_fails_leaves_nothing(catalogue: Database) -> None:
    def half_done() -> None:
        with catalogue.transaction() as connection:
            connection.execute("DELETE FROM replica")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        half_done()
    assert len(replicas_of(catalogue, 7)) == 2


def test_a_newer_schema_is_refused_and_a_file_that_is_no_catalogue_too(tmp_path: Path) -> None:
    path = tmp_path / "newer.sqlite"
    Database(path, create=True).close()
    raw = sqlite3.connect(path)
    raw.execute("PRAGMA user_version = 99")
    raw.close()
    with pytest.raises(CatalogueError, match="schema 99"):
        Database(path)
    raw = sqlite3.connect(tmp_path / "other.sqlite")
    raw.execute("CREATE TABLE theirs (x)")
    raw.close()
    with pytest.raises(CatalogueError, match="database of something else"):
        Database(tmp_path / "other.sqlite")
    (tmp_path / "text.sqlite").write_text("no database at all, but long enough to be looked at" * 20)
    with pytest.raises(CatalogueError, match="cannot open the catalogue"):
        Database(tmp_path / "text.sqlite")
    with pytest.raises(CatalogueError, match="cannot open the catalogue"):
        Database(tmp_path / "no" / "such" / "folder.sqlite", create=True)


def test_an_upgrade_backs_up_first_and_keeps_what_was_there(
    catalogue: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalogue.close()
    shipped = migrations.shipped()
    added = (len(shipped) + 1, ["CREATE TABLE added (x INTEGER) STRICT;"])
    monkeypatch.setattr(migrations, "shipped", lambda: [*shipped, added])
    upgraded = Database(catalogue.path)
    assert upgraded.query("SELECT * FROM added") == []
    assert find_run(upgraded, 7) is not None
    backup = sqlite3.connect(catalogue.path.with_name(f"{catalogue.path.name}.schema-{len(shipped)}"))
    assert backup.execute("SELECT count(*) FROM run").fetchone() == (1,)
    backup.close()


def test_a_catalogue_of_the_first_schema_keeps_its_facts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, at, plan = tmp_path / "old.sqlite", NOW.isoformat(), _plan()
    with monkeypatch.context() as patch:
        first = migrations.shipped()[:1]
        patch.setattr(migrations, "shipped", lambda: first)
        old = Database(path, create=True)
    with old.transaction() as rows:
        rows.execute("INSERT INTO run VALUES (7, 'planned', ?, ?, '1', NULL, NULL)", (at, at))
        rows.execute("INSERT INTO bundle VALUES (3, 7, ?, ?, 10240, '00000001', ?)", (plan.lfn, plan.to_json(), at))
        rows.execute("""INSERT INTO member VALUES (3, 0, '7.000', 3, '[["sha256", "ab"]]')""")
        rows.execute(
            "INSERT INTO replica (bundle_id, endpoint, state, since, next_attempt_at) "
            "VALUES (3, 'tape', 'wanted', ?, ?)",
            (at, at),
        )
        custody.append(rows, NOW, 7, "found complete")
    old.close()
    upgraded = Database(path)
    assert bundle_of(upgraded, 7) == BundleRecord(
        id=3,
        run=7,
        kind=BundleKind.RAW,
        lfn=plan.lfn,
        size_bytes=10240,
        plan=plan,
        digest=BundleDigest(10240, "00000001", (MemberDigest("7.000", 3, (("sha256", "ab"),)),)),
    )
    assert [(one.bundle_id, one.endpoint, one.backlog) for one in replicas_of(upgraded, 7)] == [(3, "tape", False)]
    assert not upgraded.query("PRAGMA foreign_key_check")
    assert custody.verify(upgraded).records == 1


def test_a_migration_that_fails_leaves_the_old_schema(catalogue: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    catalogue.close()
    shipped = migrations.shipped()
    broken = (len(shipped) + 1, ["CREATE TABLE added (x INTEGER) STRICT;", "CREATE TABLE run (x INTEGER);"])
    monkeypatch.setattr(migrations, "shipped", lambda: [*shipped, broken])
    with pytest.raises(CatalogueError):
        Database(catalogue.path)
    monkeypatch.undo()
    assert find_run(Database(catalogue.path), 7) is not None


@pytest.mark.parametrize("replaced", [False, True], ids=["removed", "replaced"])
def test_nothing_is_written_to_a_file_that_nobody_finds_any_more(catalogue: Database, *, replaced: bool) -> None:
    catalogue.path.rename(catalogue.path.with_suffix(".away"))
    if replaced:
        Database(catalogue.path, create=True).close()
    with pytest.raises(CatalogueError, match="was removed or replaced"), catalogue.transaction():
        pass
    catalogue.path.with_suffix(".away").replace(catalogue.path)
    with catalogue.transaction():
        pass
