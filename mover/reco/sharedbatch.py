"""A batch system that several threads use: one call at a time, as the port allows."""

import threading
from collections.abc import Collection

from mover.ports import BatchCapabilities, BatchSystem, JobSpec, JobStatus


class SharedBatch:
    """Lets one thread after the other at the batch system; every call of it has a deadline, so that none waits long."""

    def __init__(self, batch: BatchSystem) -> None:
        self._batch = batch
        self._lock = threading.Lock()

    @property
    def name(self) -> str:
        """The batch system's."""
        return self._batch.name

    @property
    def capabilities(self) -> BatchCapabilities:
        """The batch system's."""
        return self._batch.capabilities

    def submit(self, job: JobSpec) -> str:
        """As the batch system does."""
        with self._lock:
            return self._batch.submit(job)

    def find(self, name: str) -> str | None:
        """As the batch system does."""
        with self._lock:
            return self._batch.find(name)

    def look(self, ids: Collection[str]) -> dict[str, JobStatus]:
        """As the batch system does."""
        with self._lock:
            return self._batch.look(ids)

    def read(self, job_id: str, name: str, *, limit_bytes: int) -> bytes | None:
        """As the batch system does."""
        with self._lock:
            return self._batch.read(job_id, name, limit_bytes=limit_bytes)

    def cancel(self, job_id: str) -> None:
        """As the batch system does."""
        with self._lock:
            self._batch.cancel(job_id)

    def forget(self, job_id: str) -> None:
        """As the batch system does."""
        with self._lock:
            self._batch.forget(job_id)

    def close(self) -> None:
        """As the batch system does."""
        with self._lock:
            self._batch.close()
