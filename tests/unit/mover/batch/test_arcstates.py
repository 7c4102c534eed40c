"""ARC's words for how jobs end, as its scripts for `fork`, Slurm, HTCondor, LoadLeveler and PBS write them."""

import pytest

from mover.batch.arcstates import ended_status, is_vague, live_status, refined
from mover.ports import JobPhase

_RAN = "WallTime=0.00s\nexitcode={}\n"


@pytest.mark.parametrize(
    ("state", "failure", "diagnosis", "phase", "code"),
    [
        ("FINISHED", "", _RAN.format(0), JobPhase.EXITED, 0),
        ("FINISHED", "", "", JobPhase.EXITED, 0),
        ("FAILED", "LRMS error: (3) Job finished with wrong exit code - 3 != 0", _RAN.format(3), JobPhase.EXITED, 3),
        ("FAILED", "LRMS error: (139) Job finished with wrong exit code", _RAN.format(139), JobPhase.CANCELLED, None),
        (
            "FAILED",
            "LRMS error: (139) Job finished with wrong exit code",
            f"Command exited with non-zero status 139\n{_RAN.format(139)}",
            JobPhase.EXITED,
            139,
        ),
        ("FAILED", "LRMS error: (152) Job finished with wrong exit code", _RAN.format(152), JobPhase.TIMED_OUT, None),
        ("FAILED", "LRMS error: (-1) Job timeout", "", JobPhase.TIMED_OUT, None),
        ("FAILED", "LRMS error: (271) job killed: wall", _RAN.format(0), JobPhase.TIMED_OUT, None),
        ("FAILED", "LRMS error: (1) Job exceeded time limit.", "", JobPhase.TIMED_OUT, None),
        ("FAILED", "LRMS error: (271) Job was killed by PBS.", "", JobPhase.FAILED, None),
        ("FAILED", "LRMS error: (-1) Node fail", "", JobPhase.FAILED, None),
        ("FAILED", "LRMS error: (-1) Job died unexpectedly", "", JobPhase.FAILED, None),
        ("FAILED", "Failed in data staging: no such file", _RAN.format(0), JobPhase.FAILED, None),
        ("FAILED", "", "", JobPhase.FAILED, None),
        ("FAILED", "Job is canceled by external request\n", _RAN.format(0), JobPhase.CANCELLED, None),
        ("KILLED", "", "", JobPhase.CANCELLED, None),
    ],
)
def test_how_a_job_ended(state: str, failure: str, diagnosis: str, phase: JobPhase, code: int | None) -> None:
    status = ended_status(state, failure, diagnosis)
    assert (status.phase, status.exit_code) == (phase, code)
    assert status.ended
    assert failure.strip() in status.words
    assert status.words


def test_a_failure_has_all_its_reasons_on_one_line() -> None:
    assert ended_status("FAILED", "one\n\n two \n", "").words == "one; two"


def test_what_a_compute_element_says_is_bounded_and_safe_for_a_terminal() -> None:
    for failure in ("Failed in data staging: \x1b[2J" + "x" * 70_000, "LRMS error: (-1) \x1b[2J" + "x\n" * 70_000):
        words = ended_status("FAILED", failure, "").words
        assert words.isprintable()
        assert len(words) <= 300


@pytest.mark.parametrize(
    ("state", "phase"),
    [
        ("ACCEPTING", JobPhase.WAITING),
        ("QUEUING", JobPhase.WAITING),
        ("FINISHING", JobPhase.RUNNING),
        ("new", "running"),
    ],
)
def test_what_has_not_ended(state: str, phase: JobPhase) -> None:
    assert live_status(state).phase == phase


@pytest.mark.parametrize(
    ("listed", "told", "state"),
    [
        ("RUNNING", "QUEUING", "QUEUING"),
        ("RUNNING", "ACCEPTED", "RUNNING"),  # the information system is behind
        ("RUNNING", "", "RUNNING"),
        (None, "ACCEPTING", "ACCEPTING"),
    ],
)
def test_only_what_the_batch_system_has_is_told_in_more_detail(listed: str | None, told: str, state: str) -> None:
    assert is_vague(listed)
    assert refined(listed, told) == state
    assert not is_vague("FINISHED")
    assert refined("FINISHED", "QUEUING") == "FINISHED"
