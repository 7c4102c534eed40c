"""What must be true after any fault, found without the mover's own reading of bundles."""

import json
import subprocess
from pathlib import Path

from mover.catalogue import custody
from mover.catalogue.database import Database
from mover.catalogue.replicas import replicas_of
from mover.catalogue.runs import get_run
from mover.states import ReplicaEvent, ReplicaState, RunEvent, RunState, next_replica_state, next_run_state
from tests.faults.rooms import LFN, RUN, Room, files_in, sha256

_REPLICA_EVENTS = {event.value for event in ReplicaEvent}
_RUN_EVENTS = {event.value for event in RunEvent}
_BEFORE_THE_FACT = "release intended"


def assert_safe_everywhere(room: Room, scratch: Path, *, run: int = RUN, lfn: str = LFN) -> None:
    """Every endpoint has exactly this one file of the room, with the bytes that were taken, and the record is whole."""
    assert_stored_once(room, scratch, {lfn: run})
    assert_record_is_whole(room, run)


def assert_stored_once(room: Room, scratch: Path, bundles: dict[str, int]) -> None:
    """Every endpoint has these bundles (LFN → run), right to the byte, and nothing else: no double, no `.part`."""
    everywhere = room.station.stored()
    first = next(iter(everywhere.values()))
    expected = {lfn: sha256(first[lfn]) for lfn in bundles if lfn in first}
    for place, files in everywhere.items():
        assert {path: sha256(file) for path, file in files.items()} == expected, place
    assert expected.keys() == bundles.keys()
    for lfn, run in bundles.items():
        _assert_unpacks(first[lfn], room, run, scratch / str(run))


def assert_record_is_whole(room: Room, run: int = RUN) -> None:
    """The custody chain holds, and every state follows from its events by the tables of the allowed ones."""
    database = Database(room.station.room.catalogue_path)
    try:
        custody.verify(database)
        records = custody.records(database, run)
        state = RunState.UNKNOWN
        for record in records:
            if record.event in _RUN_EVENTS:
                state = next_run_state(state, RunEvent(record.event), subject=str(record))
        assert state is get_run(database, run).state
        for replica in replicas_of(database, run):
            reached = ReplicaState.WANTED
            for record in records:
                if record.event in _REPLICA_EVENTS and record.facts.get("endpoint") == replica.endpoint:
                    reached = next_replica_state(reached, ReplicaEvent(record.event), subject=str(record))
            assert reached is replica.state
    finally:
        database.close()


def assert_nothing_lost(room: Room, run: int = RUN) -> None:
    """Every part is here as it was taken; or the run was safe, its release was recorded, and every endpoint has it."""
    present = {name for name in room.digests if (room.run_directory / name).exists()}
    for name in present:
        assert sha256(room.run_directory / name) == room.digests[name], name
    if present == room.digests.keys():
        return
    database = Database(room.station.room.catalogue_path)
    try:
        events = [record.event for record in custody.records(database, run)]
    finally:
        database.close()
    assert RunEvent.POLICY_HOLDS in events[: events.index(_BEFORE_THE_FACT)], events
    stored = [sha256(file) for files in room.station.stored().values() for file in files.values()]
    assert len(stored) >= 2
    assert len(set(stored)) == 1


def _assert_unpacks(bundle: Path, room: Room, run: int, folder: Path) -> None:
    """GNU tar unpacks it, `md5sum -c` agrees, and the parts are those that were taken."""
    folder.mkdir(parents=True)
    subprocess.run(["tar", "-xf", str(bundle), "-C", str(folder)], check=True, timeout=60)
    subprocess.run(["md5sum", "--quiet", "-c", f"{run:05d}.md5"], cwd=folder, check=True, timeout=60)
    parts = {name: digest for name, digest in room.digests.items() if name.startswith(f"{run:05d}.")}
    assert {file.name: sha256(file) for file in files_in(folder) if file.name in parts} == parts
    json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
