"""The catalogue is lost: it is made again from a real site's storage alone, and everything goes on with it."""

import sqlite3
from pathlib import Path
from typing import Any

import pytest

from mover.catalogue.database import Database
from mover.catalogue.replicas import replicas_of
from mover.states import ReplicaState, RunState
from tests.integration.mover.box import Box, wait_for
from tests.integration.mover.test_adopt import make_bundle, put

RUNS = (4742, 4743, 5901)
LFNS = ("MICE/Step1/04700/04742.tar", "MICE/Step1/04700/04743.tar", "MICE/Step4/05900/05901.tar")
OLD_RUN, OLD_LFN = 1234, "MICE/Step1/01200/01234.tar"

#: What is the same in a catalogue that was made again. Times, attempts, ids and the story of it are not stored.
SAME = {
    "run": "SELECT number, state, problem FROM run ORDER BY number",
    "bundle": "SELECT run, kind, lfn, size_bytes, adler32, json_remove(plan, '$.parts') FROM bundle ORDER BY run",
    "part": (
        "SELECT run, json_extract(value, '$.name'), json_extract(value, '$.size_bytes'), "
        "json_extract(value, '$.mtime_ns') / 1000000000 FROM bundle, json_each(plan, '$.parts') ORDER BY run, key"
    ),
    "member": (
        "SELECT run, position, name, member.size_bytes, digests FROM member JOIN bundle ON bundle.id = bundle_id "
        "ORDER BY run, position"
    ),
    "replica": "SELECT run, endpoint, state FROM replica JOIN bundle ON bundle.id = bundle_id ORDER BY run, endpoint",
}


def facts(path: Path) -> dict[str, list[tuple[Any, ...]]]:
    """The facts of a catalogue that can be compared."""
    connection = sqlite3.connect(path)
    try:
        return {name: connection.execute(statement).fetchall() for name, statement in SAME.items()}
    finally:
        connection.close()


@pytest.mark.parametrize("deep", [False, True])
def test_a_lost_catalogue_is_made_again_and_everything_goes_on(box: Box, tmp_path: Path, deep: bool) -> None:
    for run in RUNS:
        box.room.daq.write_run(run, parts=2, part_bytes=300_000)
        box.room.daq.end_run(run)
    old = make_bundle(tmp_path, OLD_RUN)
    put(box, box.site.disk_brunel.disk_directory, OLD_LFN, old)
    assert box.mover("adopt", str(OLD_RUN)).returncode == 0
    with box.engine():
        for run in RUNS:
            wait_for(lambda run=run: box.state(run) is RunState.SAFE, lambda: box.log)  # type: ignore[misc]
        wait_for(lambda: _archived(box, OLD_RUN) == 2, lambda: box.log)
    assert box.mover("release", str(RUNS[0]), "--now").returncode == 0
    # On tape only, so that no listing of that endpoint has it.
    box.site.tape_ral.evict(f"{box.below}/{LFNS[1]}")
    before = facts(box.room.catalogue_path)
    lost = tmp_path / "lost.sqlite"
    for suffix in ("", "-wal", "-shm"):
        path = Path(f"{box.room.catalogue_path}{suffix}")
        if path.exists():
            path.rename(f"{lost}{suffix}")

    arguments = ["catalogue", "rebuild", "--into", str(box.room.catalogue_path), *(["--deep"] if deep else [])]
    rebuilt = box.mover(*arguments)
    assert rebuilt.returncode == 0, rebuilt.stderr + rebuilt.stdout
    assert "4 runs are in" in rebuilt.stdout
    assert not Path(f"{box.room.catalogue_path}-wal").exists()
    assert facts(box.room.catalogue_path) == before

    again = box.mover(*arguments)
    assert again.returncode == 12
    assert "nothing is overwritten" in again.stderr
    checked = box.mover("catalogue", "check")
    assert checked.returncode == 0, checked.stderr
    audited = box.mover("audit", "--deep")
    assert audited.returncode == 0, audited.stdout + audited.stderr
    # The engine sees the markers, finds the same files, and takes the next run; what was safe can be released.
    with box.engine():
        box.room.daq.write_run(6000, parts=1, part_bytes=100_000)
        box.room.daq.end_run(6000)
        wait_for(lambda: box.state(6000) is RunState.SAFE, lambda: box.log)
    assert [box.state(run) for run in RUNS] == [RunState.RELEASED, RunState.SAFE, RunState.SAFE]
    released = box.mover("release", str(RUNS[1]), "--now")
    assert released.returncode == 0, released.stderr
    assert "ended a second time" not in box.log


def _archived(box: Box, run: int) -> int:
    with box.catalogue() as database:
        return [one.state for one in replicas_of(database, run)].count(ReplicaState.ARCHIVED)


def test_sites_that_disagree_are_told_apart_by_reading_and_a_site_that_is_down_spoils_nothing(
    box: Box, tmp_path: Path
) -> None:
    run, lfn = RUNS[0], LFNS[0]
    box.room.daq.write_run(run, parts=2, part_bytes=300_000)
    box.room.daq.end_run(run)
    with box.engine():
        wait_for(lambda: box.state(run) is RunState.SAFE, lambda: box.log)
    stored = box.stored()["brunel-disk"][lfn]
    data = stored.read_bytes()
    stored.write_bytes(data[:2000] + b"!" + data[2001:])
    new = tmp_path / "new.sqlite"
    rebuilt = box.mover("catalogue", "rebuild", "--into", str(new))
    assert rebuilt.returncode == 7, rebuilt.stdout
    assert "04742.000: sha256 is" in rebuilt.stderr
    database = Database(new)
    try:
        assert {one.endpoint: one.state for one in replicas_of(database, run)} == {
            "brunel-disk": ReplicaState.QUARANTINED,
            "ral-tape": ReplicaState.ARCHIVED,
            "imperial-tape": ReplicaState.ARCHIVED,
        }
    finally:
        database.close()

    other = tmp_path / "other.sqlite"
    box.site.disk_brunel.stop()
    try:
        refused = box.mover("catalogue", "rebuild", "--into", str(other))
        assert refused.returncode == 6
        assert list(tmp_path.glob("*other*")) + list(tmp_path.glob(".mover*")) == []
        without = box.mover(
            "catalogue", "rebuild", "--into", str(other), "--endpoint", "ral-tape", "--endpoint", "imperial-tape"
        )
    finally:
        box.site.disk_brunel.start()
    assert without.returncode == 0, without.stderr
    assert "brunel-disk wanted" in without.stdout
