"""Runs one job of the local batch system to its end, whatever becomes of the engine that submitted it.

Called as `python -m mover.batch.supervisor STATE LOCK GRACE_SECONDS LOG_BYTES`: the job's directory of facts, the
descriptor of its lock (held already), how long processes are given to end, and how much of a log is kept.
"""

import contextlib
import os
import resource
import select
import signal
import sys
import time
from pathlib import Path

from mover.batch.boundedlog import BoundedLog
from mover.batch.job import LOG, job_environment
from mover.batch.localjob import MARK, LocalJob
from mover.batch.processes import become_reaper, below_us, end
from mover.ports import JobPhase, JobStatus

_DRAIN_SECONDS = 5.0
_CHUNK_BYTES = 1 << 16
# When memory runs out, the kernel is to end a job, and not what moves data: see proc(5), oom_score_adj.
_OOM_SCORE = "500"


def main() -> int:
    """Leave the engine, run the job, and record how it ended."""
    job, lock = LocalJob(Path(sys.argv[1])), int(sys.argv[2])
    os.set_inheritable(lock, False)
    if os.fork():
        os._exit(0)  # the engine waits for this one only, and never has us as its child
    become_reaper()
    supervisor = Supervisor(job, grace_seconds=float(sys.argv[3]), log_bytes=int(sys.argv[4]))
    job.record_result(supervisor.run())
    return 0


class Supervisor:
    """One job, its processes and its log."""

    def __init__(self, job: LocalJob, *, grace_seconds: float, log_bytes: int) -> None:
        """Make ready to run the job; nothing is started yet."""
        self._job = job
        self._grace_seconds = grace_seconds
        self._log_bytes = log_bytes
        self._wake = os.open(job.state / "control", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        self._command = 0
        self._ended: int | None = None  # the command's exit code, or minus the signal that ended it
        self._asked_to_end = False
        # A signal wakes us as a cancellation does: by a byte in the pipe.
        signal.set_wakeup_fd(self._wake, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda _signal, _frame: None)
        signal.signal(signal.SIGTERM, self._on_sigterm)

    def run(self) -> JobStatus:
        """Run the command, unless it was cancelled before; how that ended."""
        if self._job.cancelled:
            return JobStatus(JobPhase.CANCELLED, "cancelled before it ran")
        self._job.record_started()
        try:
            directory = Path(self._job.order.directory)
            os.chdir(directory)
            log = BoundedLog(directory / LOG, limit_bytes=self._log_bytes)
            output = self._start(directory)
        except OSError as error:
            return JobStatus(JobPhase.FAILED, f"it could not be started: {error}")
        why = self._watch(output, log)
        # What it leaves is ended too: as soon as can be if it ended by itself.
        clean = end(self._below, grace_seconds=self._grace_seconds if why else 0.0)
        self._reap()
        self._drain(output, log)
        log.close()
        return self._status(why, clean=clean, log=log)

    def _start(self, directory: Path) -> int:
        """Start the command in a session of its own; where its output can be read."""
        order = self._job.order
        output, theirs = os.pipe()
        command, *arguments = order.arguments
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        # If we are killed, the command is. A thread of ours would not do as its parent: there is none.
        argv = ["setpriv", "--pdeathsig", "KILL", "--", f"./{command}", *arguments]
        no_input = (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)
        self._command = os.posix_spawnp(
            argv[0],
            argv,
            {**job_environment(directory), MARK: order.mark},
            file_actions=[no_input, (os.POSIX_SPAWN_DUP2, theirs, 1), (os.POSIX_SPAWN_DUP2, theirs, 2)],
            setsid=True,
            # The engine may have blocked or ignored signals (gfal2 does), and Python ignores some: not so the job.
            setsigmask=(),
            setsigdef=signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP},
        )
        os.close(theirs)
        with contextlib.suppress(OSError):  # it has ended already, or we may not; nothing depends on it
            Path(f"/proc/{self._command}/oom_score_adj").write_text(_OOM_SCORE)
        return output

    def _watch(self, output: int, log: BoundedLog) -> JobStatus | None:
        """Keep its log until it has ended (None) or is to be ended, and why."""
        wall_seconds = self._job.order.wall_seconds
        deadline = time.monotonic() + wall_seconds
        reading = [self._wake, output]
        while True:
            self._reap()
            if self._ended is not None:
                return None
            if self._job.cancelled:
                return JobStatus(JobPhase.CANCELLED, "cancelled")
            if self._asked_to_end:
                return JobStatus(JobPhase.FAILED, "its supervisor was asked to end, as when the machine stops")
            left = deadline - time.monotonic()
            if left <= 0:
                return JobStatus(JobPhase.TIMED_OUT, f"it ran for more than {wall_seconds} s")
            ready, _, _ = select.select(reading, [], [], left)
            if self._wake in ready:
                os.read(self._wake, _CHUNK_BYTES)
            if output in ready and not _copy(output, log):
                reading.remove(output)

    def _below(self) -> set[int]:
        # One that ended just after it had started another may hide both from a look; but a reaper has children then.
        while self._reap():
            if found := below_us():
                return found
        return set()

    def _reap(self) -> bool:
        """Take note of processes that have ended, so that none stays a zombie; whether there are others."""
        with contextlib.suppress(ChildProcessError):
            while True:
                process, status = os.waitpid(-1, os.WNOHANG)
                if process == 0:
                    return True
                if process == self._command:
                    self._ended = os.waitstatus_to_exitcode(status)
        return False

    def _drain(self, output: int, log: BoundedLog) -> None:
        deadline = time.monotonic() + _DRAIN_SECONDS
        while (left := deadline - time.monotonic()) > 0 and select.select([output], [], [], left)[0]:
            if not _copy(output, log):
                return

    def _status(self, why: JobStatus | None, *, clean: bool, log: BoundedLog) -> JobStatus:
        notes = "" if clean else "; some of its processes cannot be ended"
        if log.error is not None:
            notes += f"; its log could not be written: {os.strerror(log.error.errno or 0).lower()}"
        if why is not None:
            return JobStatus(why.phase, why.words + notes)
        ended = self._ended
        assert ended is not None  # noqa: S101 - or there would be a reason
        if ended >= 0:
            return JobStatus(JobPhase.EXITED, f"exit code {ended}{notes}", ended)
        return JobStatus(JobPhase.CANCELLED, f"killed by {signal.Signals(-ended).name}{notes}")

    def _on_sigterm(self, _signal: int, _frame: object) -> None:
        self._asked_to_end = True


def _copy(output: int, log: BoundedLog) -> bool:
    """Put what there is into the log; whether more can come."""
    data = os.read(output, _CHUNK_BYTES)
    log.write(data)
    return bool(data)


if __name__ == "__main__":
    sys.exit(main())
