"""`mover audit` on real servers: whatever is done to the stored bytes behind the mover's back is found."""

import itertools
import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mover.bundle import tar
from mover.sandbox.tape import Drive, TapeServer
from mover.states import RunState
from tests.integration.mover.box import Box, wait_for

RUN = 4742
LFN = "MICE/Step1/04700/04742.tar"

_seconds = itertools.count(1)


def make_safe(box: Box, *runs: int, part_bytes: int = 300_000) -> None:
    """Take runs and let the daemon move them."""
    for run in runs:
        box.room.daq.write_run(run, parts=2, part_bytes=part_bytes)
        box.room.daq.end_run(run)
    with box.engine():
        for run in runs:
            wait_for(lambda run=run: box.state(run) is RunState.SAFE, lambda: box.log)  # type: ignore[misc]


def found(done: subprocess.CompletedProcess[str]) -> dict[str, tuple[str, str]]:
    """What the report says of a single bundle: the outcome and all sentences, by endpoint."""
    (bundle,) = json.loads(done.stdout)["bundles"]
    return {
        one["endpoint"]: (one["outcome"], "; ".join(finding["found"] for finding in one["findings"]))
        for one in bundle["replicas"]
    }


def change(path: Path, edit: Callable[[bytes], bytes]) -> None:
    """Change a file in the server's own directory, at another second: XRootD keeps a checksum for an mtime's."""
    other = int(path.stat().st_mtime) - next(_seconds)
    path.write_bytes(edit(path.read_bytes()))
    os.utime(path, (other, other))


@contextmanager
def broken(tape: TapeServer) -> Iterator[None]:
    """Nothing is written to tape meanwhile."""
    tape.set_drive(Drive.BROKEN)
    try:
        yield
    finally:
        tape.set_drive(Drive.READY)


def flip_a_byte(data: bytes) -> bytes:
    """In the first part."""
    return data[:2000] + bytes([data[2000] ^ 1]) + data[2001:]


def change_a_header(data: bytes) -> bytes:
    """Another time for the first part, in a header that is well-formed."""
    size = int(data[124:135], 8)
    return tar.header("04742.000", size, 0) + data[512:]


def swap_members(data: bytes) -> bytes:
    """The second part first."""
    first = 512 + int(data[124:135], 8)
    first += -first % 512
    second = first + 512 + int(data[first + 124 : first + 135], 8)
    second += -second % 512
    return data[first:second] + data[:first] + data[second:]


def test_all_is_well_then_everything_that_can_go_wrong_is_found(box: Box, tmp_path: Path) -> None:
    make_safe(box, RUN)
    stored = box.stored()
    disk, tape = stored["brunel-disk"][LFN], stored["ral-buffer"][LFN]
    good = disk.read_bytes()

    well = box.mover("audit", "--deep", "--report", str(tmp_path))
    assert well.returncode == 0, well.stderr + well.stdout
    assert "1 good of 1 bundles (deep)" in well.stdout
    assert "All is well" in (tmp_path / "audit-1.html").read_text(encoding="utf-8")
    assert json.loads((tmp_path / "audit-1.json").read_text(encoding="utf-8"))["well"] is True

    # So that what is changed on disk is not written to tape over what was there.
    with broken(box.site.tape_ral):
        for edit, text in (
            (flip_a_byte, "04742.000: sha256 is"),
            (change_a_header, "the tar header of 04742.000 differs"),
            (swap_members, "the tar header of 04742.000 differs"),
            (lambda data: data + b"\0", "has bytes after its end"),
            (lambda data: data[:-1], "ends after"),
        ):
            for path, endpoint in ((disk, "brunel-disk"), (tape, "ral-tape")):
                before = path.stat()
                change(path, edit)
                done = box.mover("audit", str(RUN), "--deep", "--json")
                assert done.returncode == 7, done.stderr + done.stdout
                said = found(done)
                assert said.pop(endpoint)[0] == "wrong"
                assert f"as read back: {text}" in found(done)[endpoint][1]
                assert [outcome for outcome, _ in said.values()] == ["good", "good"], (endpoint, text, said)
                path.write_bytes(good)
                os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert box.mover("audit", "--show", "1").returncode == 0


def test_a_missing_replica_and_one_that_left_tape_are_found_and_an_evicted_one_is_fine(box: Box) -> None:
    make_safe(box, RUN)
    site, path = box.site, f"{box.below}/{LFN}"
    site.tape_ral.evict(path)
    evicted = box.mover("audit", str(RUN), "--json")
    assert evicted.returncode == 0, evicted.stderr + evicted.stdout
    assert "on tape only" in found(evicted)["ral-tape"][1]
    site.tape_imperial.evict(path)
    recalled = box.mover("audit", str(RUN), "--deep", "--json")
    assert recalled.returncode == 0, recalled.stderr + recalled.stdout
    assert all(outcome == "good" for outcome, _ in found(recalled).values())
    assert (site.tape_imperial.disk_directory / path).exists()

    box.stored()["brunel-disk"][LFN].unlink()
    # A drive that is broken keeps the site from writing it to tape again.
    with broken(site.tape_ral):
        (site.tape_ral.tape_directory / path).unlink()
        done = box.mover("audit", str(RUN), "--json")
    assert done.returncode == 7
    assert "is not there any more" in found(done)["brunel-disk"][1]
    assert found(done)["ral-tape"][0] == "wrong"
    assert "tape" in found(done)["ral-tape"][1]
    assert found(done)["imperial-tape"][0] == "good"
    shown = box.mover("run", "show", str(RUN)).stdout
    assert "audited" in shown
    assert box.state(RUN) is RunState.SAFE


def test_a_site_that_is_down_is_not_known_and_does_not_stop_the_others(box: Box) -> None:
    make_safe(box, RUN)
    box.site.disk_brunel.stop()
    try:
        done = box.mover("audit", "--deep", "--json")
    finally:
        box.site.disk_brunel.start()
    assert done.returncode == 13, done.stderr
    said = found(done)
    assert said.pop("brunel-disk")[0] == "not known"
    assert [outcome for outcome, _ in said.values()] == ["good", "good"]


@pytest.mark.parametrize(
    ("by", "said"),
    [(signal.SIGKILL, b""), (signal.SIGINT, b"audit 1 is cut short; `mover audit --resume` goes on with it\n")],
)
def test_an_audit_that_is_killed_goes_on_where_it_was(box: Box, by: signal.Signals, said: bytes) -> None:
    runs = range(RUN, RUN + 6)
    make_safe(box, *runs, part_bytes=1 << 20)
    slow = subprocess.Popen(box.command("audit", "--deep", "--limit-mb-per-second", "3"), stderr=subprocess.PIPE)

    def asked() -> int:
        with box.catalogue() as database:
            return len(database.query("SELECT 1 FROM audit_result WHERE outcome NOTNULL"))

    try:
        wait_for(lambda: asked() >= 4, lambda: f"{asked()} answers")
    finally:
        slow.send_signal(by)
        _, stderr = slow.communicate(timeout=60)
    assert said in stderr
    assert b"Traceback" not in stderr
    before = asked()
    assert before < 18
    resumed = box.mover("audit", "--resume", "--json")
    assert resumed.returncode == 0, resumed.stderr
    document = json.loads(resumed.stdout)
    assert (document["audit"], document["well"], document["outcomes"]["good"]) == (1, True, 6)
    with box.catalogue() as database:
        (row,) = database.query("SELECT count(*) AS audited FROM custody WHERE event = 'audited'")
    assert row["audited"] == 6
    nothing = box.mover("audit", "--resume")
    assert nothing.returncode == 5
    assert "no audit was cut short" in nothing.stderr


@pytest.mark.parametrize("target", ["missing/audit.html", "audit.txt"])
def test_a_report_that_cannot_be_written_is_said_before_anything_is_asked(
    box: Box, tmp_path: Path, target: str
) -> None:
    make_safe(box, RUN)
    refused = box.mover("audit", "--report", str(tmp_path / target))
    assert refused.returncode in {2, 12}
    with box.catalogue() as database:
        assert database.query("SELECT * FROM audit") == []
