"""The agent's side of the audit log: any thread records, and a thread of its own makes it durable."""

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path

from proxyagent.audit.limit import FloodLimit
from proxyagent.audit.record import LIMITED, LOST, START, Head, Value, check_entry
from proxyagent.audit.writer import ChainWriter
from proxyagent.errors import AuditError

_log = logging.getLogger(__name__)
_RETRY_SECONDS = 10.0
_HUNG_SECONDS = 30.0
_CLOSE_SECONDS = 5.0

#: What anybody who reaches the socket can cause as often as they like.
_FLOODING = {"refused", "busy"}


class AuditLog:
    """Records events in a directory, in files that nobody can change unnoticed (`verify_audit`).

    An agent whose log cannot be written works on, since the run must not be lost: `problem` and the system's log say
    so at once, and the audit log itself, as soon as it can be written again, how many records it lacks.
    """

    def __init__(
        self,
        directory: Path,
        *,
        now: Callable[[], datetime],
        on_head: Callable[[int, str], object],
        max_file_bytes: int = 10 * 1024 * 1024,
        max_bytes: int = 1024 * 1024 * 1024,
        refusals_per_minute: int = 20,
        flush_seconds: float = 0.5,
    ) -> None:
        """Continue the log, or begin one.

        Args:
            now: the time of day (UTC, aware).
            on_head: is told sequence number and digest of the last record once it is on the disk, from another thread.
            max_file_bytes: a file that is longer is followed by another.
            max_bytes: the oldest files are removed while all together are longer; that is on record too.
            refusals_per_minute: how many 'refused' and 'busy' records each uid gets; the others are only counted.
            flush_seconds: how long a record may wait until it is made durable.

        Raises:
            AuditError: the directory cannot be used, others can write it, or another agent writes there.
        """
        self._now = now
        self._on_head = on_head
        self._max_file_bytes = max_file_bytes
        self._max_bytes = max_bytes
        self._flush_seconds = flush_seconds
        self._limit = FloodLimit(refusals_per_minute, now())
        self._writer = ChainWriter(directory, now)
        self._writing = threading.Lock()
        self._flushing = threading.Lock()
        self._durable = START
        self._lost = 0
        self._write_problem: str | None = None
        self._flush_problem: str | None = None
        self._flush_began_seconds: float | None = None
        self._opened_seconds = float("-inf")
        self._stopping = threading.Event()
        self._reopen()
        self.flush()
        self._flusher = threading.Thread(target=self._flush_until_stopped, name="audit", daemon=True)
        self._flusher.start()

    @property
    def problem(self) -> str | None:
        """What is wrong with the log now, for the status and the alarms; None if nothing is."""
        if self._writer.broken is not None:
            return f"the audit log was changed: {self._writer.broken}"
        began = self._flush_began_seconds
        if began is not None and time.monotonic() - began > _HUNG_SECONDS:
            return "the audit log's disk does not answer"
        return self._write_problem or self._flush_problem

    def record(self, event: str, **fields: Value) -> None:
        """Record an event: in the file when this returns, on the disk at most a second later.

        It fails only by a mistake of the caller's; what a disk does to it is said by `problem`. Long texts are cut.

        Raises:
            ValueError, TypeError: the event is named 'log-…', or is none.
        """
        checked = check_entry(event, fields)
        if event.startswith("log-"):
            raise ValueError(f"{event!r} is an event of the log itself")
        with self._writing:
            self._end_minute()
            uid = checked.get("uid")
            if event in _FLOODING and not self._limit.admits(event, uid if isinstance(uid, int) else None):
                return
            self._append(event, checked)

    def flush(self) -> None:
        """Make durable what was recorded so far, as far as the disk lets us."""
        with self._flushing:
            self._flush_began_seconds = time.monotonic()
            try:
                self._make_durable()
                self._flush_problem = None
            except AuditError as error:
                self._flush_problem = self._told(self._flush_problem, error)
            finally:
                self._flush_began_seconds = None

    def close(self) -> None:
        """Make everything durable and stop; what is recorded later is lost."""
        if self._stopping.is_set():
            return
        self._stopping.set()
        self._flusher.join(_CLOSE_SECONDS)
        if self._flusher.is_alive():
            _log.error("the audit log's disk does not answer; its last records may be lost")
            return
        with self._writing:
            self._writer.close()

    def _flush_until_stopped(self) -> None:
        while not self._stopping.wait(self._flush_seconds):
            self._try_tick()
        with self._writing:
            self._end_minute(now_over=True)
        self._try_tick()

    def _try_tick(self) -> None:
        try:
            self._tick()
        except Exception:
            # The last resort: without this thread nothing would be durable any more, and nobody would know.
            _log.exception("the audit log failed")

    def _tick(self) -> None:
        if not self._writer.is_open and time.monotonic() - self._opened_seconds >= _RETRY_SECONDS:
            with self._flushing:
                self._reopen()
        with self._writing:
            self._end_minute()
            with contextlib.suppress(AuditError):  # as before: `problem` still says so
                self._recover()
        self.flush()

    def _reopen(self) -> None:
        self._opened_seconds = time.monotonic()
        with self._writing:
            try:
                self._writer.open()
            except AuditError as error:
                self._write_problem = self._told(self._write_problem, error)
            else:
                self._write_problem = None

    def _make_durable(self) -> None:
        with self._writing:
            if not self._writer.is_open:
                return
            head = self._writer.head
        if head != self._durable:
            self._writer.sync(head)
            self._publish(head)
        if self._writer.size_bytes > self._max_file_bytes:
            with self._writing:
                self._writer.rotate()
                head = self._writer.prune(self._max_bytes)
            self._publish(head)

    def _publish(self, head: Head) -> None:
        if head != self._durable:
            self._durable = head
            self._on_head(head.sequence, head.digest)

    def _end_minute(self, *, now_over: bool = False) -> None:
        now = self._now()
        if not now_over and not self._limit.is_over(now):
            return
        for (event, uid), count in self._limit.end(now):
            self._append(LIMITED, {"event": event, "uid": uid, "count": count})

    def _append(self, event: str, fields: Mapping[str, Value]) -> None:
        try:
            self._recover()
            self._writer.append(event, fields)
        except AuditError as error:
            self._lost += 1
            self._write_problem = self._told(self._write_problem, error)

    def _recover(self) -> None:
        """Record how many records are lacking, if any are. Raises AuditError if that fails as well."""
        if self._lost:
            self._writer.append(LOST, {"count": self._lost})
            _log.warning("the audit log is written again; %d records were lost", self._lost)
            self._lost = 0
            self._write_problem = None

    @staticmethod
    def _told(before: str | None, error: AuditError) -> str:
        if before != error.message:
            _log.error("%s; %s", error.message, error.hint)
        return error.message
