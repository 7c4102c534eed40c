"""What Slurm says of jobs, in the words of the port. What is here was seen of 22.05, or stands in squeue(1)."""

import pytest

from mover.batch.slurmstates import job_status, wait_status
from mover.ports import JobPhase


@pytest.mark.parametrize(
    ("state", "status", "reason", "phase", "exit_code"),
    [
        ("PENDING", 0, "Resources", JobPhase.WAITING, None),
        ("CONFIGURING", 0, "None", JobPhase.WAITING, None),
        ("REQUEUE_HOLD", 0, "job_requeued_in_held_state", JobPhase.WAITING, None),
        ("RUNNING", 0, "None", JobPhase.RUNNING, None),
        ("SUSPENDED", 0, "None", JobPhase.RUNNING, None),
        ("COMPLETING", 0, "None", JobPhase.RUNNING, None),
        ("A_STATE_OF_A_LATER_SLURM", 0, "None", JobPhase.RUNNING, None),
        ("COMPLETED", 0, "None", JobPhase.EXITED, 0),
        ("FAILED", 3 << 8, "NonZeroExitCode", JobPhase.EXITED, 3),
        ("FAILED", 139 << 8, "NonZeroExitCode", JobPhase.EXITED, 139),
        ("FAILED", 11, "JobLaunchFailure", JobPhase.CANCELLED, None),
        ("FAILED", 0x80 | 11, "RaisedSignal:11(Segmentation_fault)", JobPhase.CANCELLED, None),
        ("FAILED", 4021, "JobLaunchFailure", JobPhase.FAILED, None),
        ("FAILED", 53, "", JobPhase.FAILED, None),
        ("FAILED", 1, "BadConstraints", JobPhase.FAILED, None),
        ("FAILED", 0, "None", JobPhase.FAILED, None),
        ("CANCELLED by 1000", 0, "", JobPhase.CANCELLED, None),
        ("OUT_OF_MEMORY", 9, "OutOfMemory", JobPhase.CANCELLED, None),
        ("TIMEOUT", 15, "TimeLimit", JobPhase.TIMED_OUT, None),
        ("DEADLINE", 0, "None", JobPhase.TIMED_OUT, None),
        ("NODE_FAIL", 0, "NodeDown", JobPhase.FAILED, None),
        ("PREEMPTED", 0, "None", JobPhase.FAILED, None),
        ("BOOT_FAIL", 0, "None", JobPhase.FAILED, None),
    ],
)
def test_states(state: str, status: int, reason: str, phase: JobPhase, exit_code: int | None) -> None:
    said = job_status(state, status, reason)
    assert (said.phase, said.exit_code) == (phase, exit_code)
    assert said.words.startswith(state.partition(" ")[0])


@pytest.mark.parametrize(("text", "status"), [("0:0", 0), ("3:0", 768), ("0:11", 11), ("0:53", 53), ("0", 0)])
def test_exit_codes_of_accounting_are_wait_statuses(text: str, status: int) -> None:
    assert wait_status(text) == status
