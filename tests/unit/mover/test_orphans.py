"""Orphans: ours are found and removed; what is being written, what is stored, and what is others' is not."""

from dataclasses import replace

import pytest

from mover.catalogue import custody
from mover.catalogue.replicas import get_replica, record_intent
from mover.errors import EndpointUnavailableError, StorageError
from mover.naming import temporary_attempt, temporary_path
from mover.states import ReplicaState
from mover.steps.orphans import Orphan, Stranger, Unlisted, find_orphans, remove_orphan
from mover.steps.transfer import transfer
from mover.steps.verify import verify
from tests.unit.mover.bench import LFN, NOW, RUN, Bench


@pytest.fixture
def bench(bench: Bench) -> Bench:
    """The disk has had three attempts: the first two left their files, the third is under way."""
    bench.close_run()
    work = bench.work("disk")
    for attempt in (1, 2, 3):
        path = temporary_path(LFN, attempt)
        record_intent(bench.catalogue, work.claim, path, now=NOW)
        bench.endpoints["disk"].upload(path, [b"part"], 4)
    return bench


def _found(bench: Bench) -> dict[str, type]:
    found = find_orphans(bench.catalogue, bench.endpoints["disk"])
    return {one.folder if isinstance(one, Unlisted) else one.file.path: type(one) for one in found}


def test_what_earlier_attempts_left_is_found_and_what_is_being_written_is_not(bench: Bench) -> None:
    assert _found(bench) == {temporary_path(LFN, 1): Orphan, temporary_path(LFN, 2): Orphan}


def test_what_is_stored_is_no_orphan(bench: Bench) -> None:
    bench.step(transfer, "tape")
    assert list(find_orphans(bench.catalogue, bench.endpoints["tape"])) == []


@pytest.mark.parametrize(
    "name",
    [
        "MICE/04743.tar",
        "MICE/notes.txt",
        temporary_path(LFN, 4),
        temporary_path("MICE/04743.tar", 1),
        LFN + ".mover-01.part",
        LFN + ".mover-1.part.mover-1.part",
        LFN + ".mover-.part",
    ],
)
def test_what_others_put_there_is_reported_and_nothing_else(bench: Bench, name: str) -> None:
    bench.endpoints["disk"].upload(name, [b"theirs"], 6)
    assert _found(bench)[name] is Stranger


def test_removing_says_so_in_custody(bench: Bench) -> None:
    disk = bench.endpoints["disk"]
    for found in find_orphans(bench.catalogue, disk):
        assert isinstance(found, Orphan)
        assert remove_orphan(bench.catalogue, disk, found, now=NOW)
    assert _found(bench) == {}
    assert [file.path for file in disk.list("MICE")] == [temporary_path(LFN, 3)]
    removed = [one.facts for one in custody.records(bench.catalogue, RUN) if one.event == "orphan removed"]
    assert [(one["endpoint"], one["path"], one["size_bytes"]) for one in removed] == [
        ("disk", temporary_path(LFN, attempt), 4) for attempt in (1, 2)
    ]


def test_what_the_catalogue_means_by_now_is_left_alone(bench: Bench) -> None:
    disk = bench.endpoints["disk"]
    orphan = next(one for one in find_orphans(bench.catalogue, disk) if isinstance(one, Orphan))
    replica = get_replica(bench.catalogue, orphan.replica.id)
    assert replica.intent_path is not None
    in_use = replace(orphan, file=replace(orphan.file, path=replica.intent_path))
    assert not remove_orphan(bench.catalogue, disk, in_use, now=NOW)
    assert disk.stat(replica.intent_path) is not None


def test_where_a_directory_is_not_listed_ours_are_found_by_name(bench: Bench) -> None:
    disk = bench.endpoints["disk"]
    disk.upload("MICE/notes.txt", [b"theirs"], 6)
    for _ in range(2):
        disk.fail_next(StorageError("XML parse error: invalid Char value 27", hint="ask the site"), "list")
        assert _found(bench) == {"MICE": Unlisted, temporary_path(LFN, 1): Orphan, temporary_path(LFN, 2): Orphan}
    with bench.catalogue.transaction() as connection:
        connection.execute("UPDATE replica SET intent_path = NULL")
    disk.remove(temporary_path(LFN, 1))
    disk.upload(f"{temporary_path(LFN, 1)}/theirs", [b"x"], 1)
    disk.fail_next(StorageError("XML parse error: invalid Char value 27", hint="ask the site"), "list")
    assert _found(bench) == {"MICE": Unlisted, temporary_path(LFN, 2): Orphan, temporary_path(LFN, 3): Orphan}


@pytest.mark.parametrize("endpoint", ["disk", "tape"])
def test_an_endpoint_that_does_not_answer_is_not_asked_for_every_name(bench: Bench, endpoint: str) -> None:
    down = EndpointUnavailableError("down", hint="wait")
    bench.endpoints[endpoint].fail_next(down, "list")
    bench.endpoints[endpoint].fail_next(EndpointUnavailableError("still down", hint="wait"), "stat")
    with pytest.raises(EndpointUnavailableError) as caught:
        list(find_orphans(bench.catalogue, bench.endpoints[endpoint]))
    assert caught.value is down


def test_an_upload_that_went_well_leaves_no_orphan(bench: Bench) -> None:
    disk = bench.endpoints["disk"]
    for found in list(find_orphans(bench.catalogue, disk)):
        assert isinstance(found, Orphan)
        disk.remove(found.file.path)
    bench.catalogue.query("SELECT 1")
    with bench.catalogue.transaction() as connection:
        connection.execute("UPDATE claim SET owner = NULL")
    bench.step(transfer, "disk")
    assert bench.step(verify, "disk") is ReplicaState.VERIFIED
    assert _found(bench) == {}


@pytest.mark.parametrize(
    ("path", "parsed"),
    [
        ("a/b.tar.mover-7.part", ("a/b.tar", 7)),
        ("b.tar.mover-7.part.mover-2.part", ("b.tar.mover-7.part", 2)),
        ("a/b.tar.mover-07.part", None),
        ("a/b.tar.mover-7.parts", None),
        ("a/b.tar", None),
        (".mover-1.part", None),
        ("a/b.tar.mover-٣.part", None),
        ("a/b c.mover-1.part", None),
        ("a/\x1b\udcff.mover-1.part", None),
        ("a/../b.tar.mover-1.part", ("a/../b.tar", 1)),
    ],
)
def test_temporary_names_are_recognised_exactly(path: str, parsed: tuple[str, int] | None) -> None:
    assert temporary_attempt(path) == parsed
