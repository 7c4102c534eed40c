"""What Slurm says of a job, in the words of the port.

States are those of squeue(1) and sacct(1), JOB STATE CODES.
"""

import os
import signal

from mover.ports import JobPhase, JobStatus

_FAILED = ("BOOT_FAIL", "LAUNCH_FAILED", "NODE_FAIL", "PREEMPTED", "RECONFIG_FAIL", "REVOKED")
_PHASES = {
    **dict.fromkeys(("CONFIGURING", "PENDING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD"), JobPhase.WAITING),
    **dict.fromkeys(("RESV_DEL_HOLD", "SPECIAL_EXIT"), JobPhase.WAITING),
    **dict.fromkeys(_FAILED, JobPhase.FAILED),
    **dict.fromkeys(("DEADLINE", "TIMEOUT"), JobPhase.TIMED_OUT),
    **dict.fromkeys(("CANCELLED", "OUT_OF_MEMORY"), JobPhase.CANCELLED),
}
_UNEXPLAINED = {"", "None"}


def job_status(state: str, wait_status: int, reason: str = "") -> JobStatus:
    """The status of a job in that state, whose batch script ended with that wait status (as of waitpid(2)).

    A state that is not known to us is one in which the job has not ended: nothing is lost by waiting.
    """
    words = state if reason in _UNEXPLAINED else f"{state} ({reason})"
    base = state.partition(" ")[0]  # CANCELLED by 1000
    if base == "COMPLETED":
        return JobStatus(JobPhase.EXITED, words, 0)
    if base == "FAILED":
        return _failed(wait_status, words, reason)
    return JobStatus(_PHASES.get(base, JobPhase.RUNNING), words)


def wait_status(text: str) -> int:
    """The wait status that sacct writes as `exit code:signal`."""
    code, _, number = text.partition(":")
    return int(code) << 8 | int(number or 0)


def _failed(status: int, words: str, reason: str) -> JobStatus:
    """Either the command ended so, or it was never started.

    Of a command that a signal ended, 22.05 says JobLaunchFailure as well; of one that was not started, the status is
    the number of an error of Slurm's, from 1000 on, of which sacct makes a signal that there is not.
    """
    ours = reason in _UNEXPLAINED or reason.startswith(("NonZeroExitCode", "RaisedSignal", "JobLaunchFailure"))
    if ours and os.WIFEXITED(status) and os.WEXITSTATUS(status):
        code = os.WEXITSTATUS(status)
        return JobStatus(JobPhase.EXITED, f"{words}, exit code {code}", code)
    number = os.WTERMSIG(status)
    if ours and status <= 0xFF and 0 < number < signal.SIGRTMIN:
        # Its reason would mislead whoever reads it.
        return JobStatus(JobPhase.CANCELLED, f"FAILED, killed by {signal.Signals(number).name}")
    return JobStatus(JobPhase.FAILED, words)
