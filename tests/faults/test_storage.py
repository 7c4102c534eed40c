"""What storage does to files: wrong and lost bytes, stale checksums, tapes that fail or forget, names taken."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from mover.catalogue.replicas import replicas_of
from mover.catalogue.runs import bundle_of
from mover.sandbox.tape import Drive
from mover.states import ReplicaState, RunState
from tests.faults.evidence import assert_nothing_lost, assert_safe_everywhere
from tests.faults.rooms import LFN, RUN, Room
from tests.integration.mover.box import Box, wait_for

_UPLOADED = "{}: after commit of record_event uploaded or adopted #1"


@pytest.fixture
def room(box: Box) -> Room:
    """A room whose endpoints are filled from here, each by itself."""
    room = Room(box)
    for name in ("imperial-tape", "brunel-disk"):
        room.configure(f'name = "{name}"', f'name = "{name}"\nsource = "local"')
    return room


def _flip_a_byte(path: Path, *, unnoticed: bool = False) -> None:
    """Change a byte in the middle; `unnoticed` keeps the time of the last change, as a sick disk would."""
    before = path.stat()
    with path.open("r+b") as file:
        file.seek(before.st_size // 2)
        (byte,) = file.read(1)
        file.seek(before.st_size // 2)
        file.write(bytes([byte ^ 1]))
    if unnoticed:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def _die(room: Room, scratch: Path, boundary: str) -> None:
    """Have an engine work until that boundary."""
    died = room.mortal_engine(scratch / "journal", die=boundary)
    assert died.returncode == -signal.SIGKILL, died.stderr


@pytest.mark.parametrize("place", ["brunel-disk", "ral-tape"])
def test_byte_that_flips_before_the_verification(room: Room, box: Box, place: str, tmp_path: Path) -> None:
    room.write_run()
    _die(room, tmp_path, _UPLOADED.format(place))
    (stored,) = box.stored()[place.replace("tape", "buffer")].values()
    _flip_a_byte(stored)
    with box.engine():
        room.wait_for_log(rf"WARNING run 4742 at {place}: .* has adler32 [0-9a-f]{{8}} instead of")
        room.wait_until_safe()
    assert_safe_everywhere(room, tmp_path / "unpacked")


def test_byte_that_flips_after_the_verification_is_mended_before_the_local_files_go(
    room: Room, box: Box, tmp_path: Path
) -> None:
    room.write_run()
    with box.engine():
        room.wait_until_safe()
    stored = box.stored()["brunel-disk"][LFN]
    _flip_a_byte(stored)
    refused = box.mover("release", str(RUN), "--now")
    assert refused.returncode == 9
    assert "brunel-disk" in refused.stderr
    assert_nothing_lost(room)
    looked = box.mover("run", "retry", str(RUN), "--look").stdout
    assert "run 4742: wrong at brunel-disk: " in looked
    assert "have the site mend it, remove it or rename it; then `mover run retry 4742`" in looked
    # The site follows the hint.
    stored.rename(stored.with_suffix(".bad"))
    assert box.mover("run", "retry", str(RUN)).returncode == 0
    with box.engine():
        room.wait_until_safe()
    stored.with_suffix(".bad").unlink()
    assert box.mover("release", str(RUN), "--now").returncode == 0
    assert_safe_everywhere(room, tmp_path / "unpacked")


def test_stale_checksum_in_the_servers_cache(room: Room, box: Box, tmp_path: Path) -> None:
    """XRootD keeps the adler32 of a file for as long as the second of its last change is the same."""
    room.write_run()
    _die(room, tmp_path, _UPLOADED.format("brunel-disk"))
    (stored,) = box.stored()["brunel-disk"].values()
    # The server computes the checksum of wrong bytes, and keeps it when the bytes are right again.
    _flip_a_byte(stored, unnoticed=True)
    _die(room, tmp_path, "brunel-disk: after checksum at brunel-disk #1")
    _flip_a_byte(stored, unnoticed=True)
    with box.engine():
        room.wait_for_log(r"WARNING run 4742 at brunel-disk: .* has adler32 [0-9a-f]{8} instead of")
        room.wait_until_safe()
    assert_safe_everywhere(room, tmp_path / "unpacked")


@pytest.mark.parametrize("scheme", ["root", "davs"])
def test_upload_that_is_cut_short_and_answered_as_complete(room: Room, box: Box, scheme: str, tmp_path: Path) -> None:
    disk = box.site.disk_brunel
    if scheme == "root":
        room.configure(disk.davs_url, disk.root_url)
    room.write_run()
    disk.set_losing_writes(losing=True)
    try:
        with box.engine():
            room.wait_for_log(r"WARNING run 4742 at brunel-disk: .* bytes instead of \d+")
            disk.set_losing_writes(losing=False)
            room.wait_until_safe()
    finally:
        disk.set_losing_writes(losing=False)
    assert_safe_everywhere(room, tmp_path / "unpacked")


def test_tape_drive_that_is_broken(room: Room, box: Box, tmp_path: Path) -> None:
    tape = box.site.tape_ral
    room.write_run()
    tape.set_drive(Drive.BROKEN)
    try:
        with box.engine():
            wait_for(lambda: "imperial-tape: archived" in box.mover("status").stdout, lambda: box.log)
            wait_for(lambda: "ral-tape: verified" in box.mover("status").stdout, lambda: box.log)
            assert box.mover("release", str(RUN), "--now").returncode == 9
            assert_nothing_lost(room)
            tape.set_drive(Drive.READY)
            room.wait_until_safe()
    finally:
        tape.set_drive(Drive.READY)
    assert_safe_everywhere(room, tmp_path / "unpacked")


def test_tape_system_that_loses_a_verified_file_before_it_is_on_tape(room: Room, box: Box, tmp_path: Path) -> None:
    """What is in the buffer only is gone with the buffer."""
    tape = box.site.tape_ral
    room.write_run()
    tape.set_drive(Drive.BUSY)
    try:
        with box.engine():
            wait_for(lambda: "ral-tape: verified" in box.mover("status").stdout, lambda: box.log)
            assert not box.stored()["ral-tape"]
            box.stored()["ral-buffer"][LFN].unlink()
            room.wait_for_log(r"WARNING run 4742 at ral-tape: .* is gone although it was verified")
            assert box.state(RUN) is RunState.PLANNED
            assert_nothing_lost(room)
            tape.set_drive(Drive.READY)
            room.wait_until_safe()
    finally:
        tape.set_drive(Drive.READY)
    with box.catalogue() as database:
        (replica,) = [one for one in replicas_of(database, RUN) if one.endpoint == "ral-tape"]
    assert (replica.state, replica.uploads) == (ReplicaState.ARCHIVED, 2)
    assert_safe_everywhere(room, tmp_path / "unpacked")


def test_tape_that_loses_the_file_after_it_said_archived(room: Room, box: Box, tmp_path: Path) -> None:
    room.write_run()
    with box.engine():
        room.wait_until_safe()
    for place in ("ral-tape", "ral-buffer"):
        box.stored()[place][LFN].unlink()
    refused = box.mover("release", str(RUN), "--now")
    assert refused.returncode == 9
    assert "ral-tape" in refused.stderr
    assert_nothing_lost(room)
    with box.engine():
        assert "lost at ral-tape" in box.mover("run", "retry", str(RUN), "--look").stdout
        room.wait_until_safe()
    assert_safe_everywhere(room, tmp_path / "unpacked")


def _smaller(size_bytes: int) -> bytes | None:
    return b"theirs"


def _equal(size_bytes: int) -> bytes | None:
    return bytes(size_bytes)


def _larger(size_bytes: int) -> bytes | None:
    return bytes(size_bytes + 1)


def _directory(size_bytes: int) -> bytes | None:
    return None


@pytest.mark.parametrize("theirs", [_smaller, _equal, _larger, _directory], ids=lambda one: one.__name__.strip("_"))
def test_name_that_somebody_else_took(
    room: Room, box: Box, theirs: Callable[[int], bytes | None], tmp_path: Path
) -> None:
    room.write_run()
    assert box.mover("run", "close", str(RUN)).returncode == 0
    with box.catalogue() as database:
        bundle = bundle_of(database, RUN)
    assert bundle is not None
    content = theirs(bundle.size_bytes)
    base = box.site.disk_brunel.disk_directory
    path = base / box.below / LFN
    path.parent.mkdir(parents=True)
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)
    for folder in list(path.relative_to(base).parents)[:-1]:
        (base / folder).chmod(0o777)
    with box.engine():
        wait_for(lambda: "brunel-disk: quarantined" in box.mover("status").stdout, lambda: box.log)
        assert box.state(RUN) is RunState.PLANNED
        if content is None:
            assert path.is_dir()
            path.rmdir()
        else:
            assert path.read_bytes() == content
            path.unlink()
        assert "are taken up again now" in box.mover("run", "retry", str(RUN)).stdout
        room.wait_until_safe()
    assert_safe_everywhere(room, tmp_path / "unpacked")
