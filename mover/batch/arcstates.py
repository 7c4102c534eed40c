"""What ARC CE says of a job, and what that means: the states of its REST interface, and its words for failures."""

import re
import signal

from mover.batch.arcrest import printable
from mover.ports import JobPhase, JobStatus

#: Those in which a job never runs again and its files are still there.
ENDED = frozenset({"FINISHED", "FAILED", "KILLED"})
#: The compute element knows that there was such a job, and has removed it.
GONE = frozenset({"WIPED", "None", ""})
#: Those before the batch system behind it has started the job.
_WAITING = frozenset({"ACCEPTING", "ACCEPTED", "PREPARING", "PREPARED", "SUBMITTING", "QUEUING", "HELD"})
#: Those of a job that the batch system has. Only ARC's information system tells them apart; the rest of ARC says
#: RUNNING to all of them.
_IN_BATCH_SYSTEM = frozenset({"QUEUING", "HELD", "RUNNING", "OTHER", "EXITINGLRMS"})
_RUNNING = "RUNNING"
#: What `GET /jobs` is asked for.
KNOWN = ENDED | _WAITING | _IN_BATCH_SYSTEM | {"EXECUTED", "FINISHING", "KILLING"}


def is_vague(state: str | None) -> bool:
    """Whether the list of jobs does not tell enough, so that the information system is to be asked."""
    return state is None or state == _RUNNING


def refined(state: str | None, detail: str) -> str:
    """The state of a job that the list of jobs, and then the information system, which is older, told."""
    return detail if state is None or (state == _RUNNING and detail in _IN_BATCH_SYSTEM) else state


# 6.17 says FAILED with these words in one place, and KILLED in another.
_ON_REQUEST = "Job is canceled by external request"
# "LRMS error: (3) Job finished with wrong exit code - 3 != 0"
_LRMS_ERROR = re.compile(r"LRMS error: \((-?\d{1,9})\)([^\n]*)")
# The words of its scripts for Slurm, HTCondor, LoadLeveler, SGE and PBS.
_TIME_IS_OVER = re.compile(
    r"job timeout|job killed: (?:wall|cput)|exceeded (?:the )?(?:time|wall|cpu)|(?:time|wall|cput)\S* limit|walltime",
    re.IGNORECASE,
)
_EXIT_CODE = re.compile(r"^exitcode=(\d{1,3})\s*$", re.MULTILINE)
# By GNU time, where ARC uses it.
_BY_ITSELF = re.compile(r"^Command exited with non-zero status \d+$", re.MULTILINE)
_FIRST_SIGNAL, _LAST_SIGNAL = 129, 192  # what a shell makes of them


def live_status(state: str) -> JobStatus:
    """The status of a job that has not ended, in a state of the REST interface."""
    return JobStatus(JobPhase.WAITING if state in _WAITING else JobPhase.RUNNING, state)


def ended_status(state: str, failure: str, diagnosis: str) -> JobStatus:
    """How a job ended.

    Args:
        state: one of `ENDED`.
        failure: ARC's words for what went wrong, one reason a line.
        diagnosis: what its wrapper of the command has written: `exitcode=` and much else.
    """
    words = printable("; ".join(line.strip() for line in failure.splitlines() if line.strip())) or state
    codes = _EXIT_CODE.findall(diagnosis)
    if state == "KILLED" or _ON_REQUEST in failure:
        status = JobStatus(JobPhase.CANCELLED, words)
    elif state == "FINISHED":
        status = JobStatus(JobPhase.EXITED, words, int(codes[-1]) if codes else 0)
    elif lrms := _LRMS_ERROR.search(failure):
        status = _lrms_status(int(lrms[1]), lrms[2], words, diagnosis)
    else:
        status = JobStatus(JobPhase.FAILED, words)
    return status


def _lrms_status(code: int, comment: str, words: str, diagnosis: str) -> JobStatus:
    """How a job ended of which the batch system behind ARC says `code`, and something in words."""
    if _TIME_IS_OVER.search(comment) or code == 128 + signal.SIGXCPU:
        return JobStatus(JobPhase.TIMED_OUT, words)
    if _FIRST_SIGNAL <= code <= _LAST_SIGNAL and not _BY_ITSELF.search(diagnosis):
        return JobStatus(JobPhase.CANCELLED, f"killed by signal {code - 128}; {words}")
    # A code that the wrapper knows nothing of is not the command's.
    if code < 0 or not _EXIT_CODE.search(diagnosis):
        return JobStatus(JobPhase.FAILED, words)
    return JobStatus(JobPhase.EXITED, words, code)
