"""The daemon on real servers: from the marker to safe and released, and what it does with faults."""

import hashlib
import signal
import tarfile
import time
from pathlib import Path

import pytest

from mover.bundle.plan import BundlePlan
from mover.bundle.stream import BundleReader
from mover.catalogue import custody
from mover.catalogue.agreement import disagreements
from mover.catalogue.runs import bundle_of
from mover.sandbox.tape import Drive
from mover.states import RunState
from tests.integration.mover.box import Box, wait_for

RUN = 4742
LFN = "MICE/Step1/04700/04742.tar"


def _bundle_sha256(box: Box, run: int) -> str:
    """The digest of the bundle, made afresh from the local files by the plan in the catalogue."""
    with box.catalogue() as database:
        bundle = bundle_of(database, run)
    assert bundle is not None
    assert bundle.plan is not None
    return _sha256_of_plan(bundle.plan, box.room.run_directory)


def _sha256_of_plan(plan: BundlePlan, directory: Path) -> str:
    digest = hashlib.sha256()
    for chunk in BundleReader(plan, directory).chunks():
        digest.update(chunk)
    return digest.hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _assert_everywhere_right(box: Box, bundles: dict[str, str]) -> None:
    """Every endpoint has exactly these bundles, byte for byte, and nothing else."""
    for place, files in box.stored().items():
        assert {path: _sha256(file) for path, file in files.items()} == bundles, place


def _wait_for_state(box: Box, run: int, state: RunState) -> None:
    wait_for(lambda: box.state(run) is state, lambda: f"run {run} is {box.state(run)}; {box.log}")


def test_a_marked_run_becomes_safe_and_is_released(box: Box) -> None:
    with box.engine():
        box.room.daq.write_run(RUN, parts=3, part_bytes=1 << 20)
        box.room.daq.end_run(RUN)
        _wait_for_state(box, RUN, RunState.SAFE)
    _assert_everywhere_right(box, {LFN: _bundle_sha256(box, RUN)})
    with tarfile.open(box.stored()["brunel-disk"][LFN]) as archive:
        assert archive.getnames() == ["04742.000", "04742.001", "04742.002", "manifest.json", "04742.md5"]
    assert "safe" in box.mover("status").stdout
    shown = box.mover("run", "show", str(RUN))
    assert shown.returncode == 0
    for fact in ("replica policy holds", "on tape", LFN, "imperial-tape"):
        assert fact in shown.stdout
    assert LFN in box.mover("bundle", "list").stdout
    released = box.mover("release", str(RUN), "--now")
    assert released.returncode == 0, released.stderr
    assert list(box.room.run_directory.iterdir()) == []
    assert box.state(RUN) is RunState.RELEASED
    with box.catalogue() as database:
        assert custody.verify(database).records > 8
        assert not list(disagreements(database))


def test_a_run_closed_by_command_is_moved_without_a_marker(box: Box) -> None:
    box.room.daq.write_run(RUN, parts=1, part_bytes=100_000)
    closed = box.mover("run", "close", str(RUN))
    assert (closed.returncode, closed.stdout) == (0, "run 4742: planned\n")
    assert "already closed" in box.mover("run", "close", str(RUN)).stdout
    with box.engine():
        _wait_for_state(box, RUN, RunState.SAFE)


def test_a_stop_in_the_middle_of_an_upload_leaves_nothing_half_made(box: Box) -> None:
    box.room.daq.write_run(RUN, parts=4, part_bytes=64 << 20)
    with box.engine():
        box.room.daq.end_run(RUN)
        wait_for(lambda: any(box.stored().values()), lambda: box.log)
    for files in box.stored().values():
        assert all(_sha256(file) == _bundle_sha256(box, RUN) for file in files.values())
    with box.engine():
        _wait_for_state(box, RUN, RunState.SAFE)
    _assert_everywhere_right(box, {LFN: _bundle_sha256(box, RUN)})


def test_a_site_that_is_down_holds_up_neither_the_others_nor_itself_once_it_is_back(box: Box) -> None:
    disk = box.site.disk_brunel
    box.room.daq.write_run(RUN, parts=1, part_bytes=100_000)
    disk.stop()
    try:
        with box.engine():
            box.room.daq.end_run(RUN)
            wait_for(lambda: "on tape" in box.mover("run", "show", str(RUN)).stdout, lambda: box.log)
            wait_for(lambda: "brunel-disk: " in box.mover("status").stdout, lambda: box.log)
            assert box.state(RUN) is RunState.PLANNED
            refused = box.mover("release", str(RUN), "--now")
            assert refused.returncode == 9
            disk.start()
            _wait_for_state(box, RUN, RunState.SAFE)
    finally:
        disk.start()


def test_a_run_is_not_safe_before_the_tape_drive_has_written_it(box: Box) -> None:
    tape = box.site.tape_ral
    tape.set_drive(Drive.BUSY)
    try:
        box.room.daq.write_run(RUN, parts=1, part_bytes=100_000)
        with box.engine():
            box.room.daq.end_run(RUN)
            wait_for(lambda: "imperial-tape: archived" in box.mover("status").stdout, lambda: box.log)
            assert "ral-tape: verified" in box.mover("status").stdout
            assert box.state(RUN) is RunState.PLANNED
            tape.set_drive(Drive.READY)
            _wait_for_state(box, RUN, RunState.SAFE)
    finally:
        tape.set_drive(Drive.READY)


def test_a_second_end_of_run_with_other_files_is_an_alarm_and_changes_nothing(box: Box) -> None:
    (part,) = box.room.daq.write_run(RUN, parts=1, part_bytes=100_000)
    with box.engine():
        marker = box.room.daq.end_run(RUN)
        _wait_for_state(box, RUN, RunState.SAFE)
        first = box.stored()["brunel-disk"][LFN].read_bytes()
        part.unlink()
        box.room.daq.write_run(RUN, parts=1, part_bytes=50_000)
        marker.unlink()
        box.room.daq.end_run(RUN)
        wait_for(lambda: "ended a second time" in box.mover("status").stdout, lambda: box.log)
    assert box.stored()["brunel-disk"][LFN].read_bytes() == first
    assert box.mover("release", str(RUN), "--now").returncode == 9
    assert part.exists()


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_an_idle_engine_stops_cleanly_even_if_it_was_started_with_signals_blocked(
    box: Box, stop: signal.Signals
) -> None:
    engine = box.start_engine("env", "--block-signal=TERM,INT")
    wait_for(lambda: "engine started" in box.log, lambda: box.log)
    engine.send_signal(stop)
    assert engine.wait(timeout=30) == 0
    assert "engine stopped" in box.log


def test_an_engine_that_is_stopped_and_continued_goes_on(box: Box) -> None:
    with box.engine() as engine:
        wait_for(lambda: "engine started" in box.log, lambda: box.log)
        for _ in range(3):
            engine.send_signal(signal.SIGSTOP)
            # Longer than the engine's own look at its signals: what matters is that this wait of its has run out.
            time.sleep(1.0)
            engine.send_signal(signal.SIGCONT)
        box.room.daq.write_run(RUN, parts=1, part_bytes=100_000)
        box.room.daq.end_run(RUN)
        _wait_for_state(box, RUN, RunState.SAFE)
        assert engine.poll() is None
