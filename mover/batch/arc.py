"""Jobs at an ARC compute element, by its REST interface; it moves files from and to Grid storage itself."""

from collections.abc import Collection, Sequence
from pathlib import Path

from mover.batch.adl import LAUNCHER, check_staging, describe, launcher, needs_delegation
from mover.batch.arcdelegation import Delegations
from mover.batch.arcrest import ArcRest, is_id, text_of
from mover.batch.arcstates import ENDED, GONE, KNOWN, ended_status, is_vague, live_status, refined
from mover.batch.job import check_file_name, is_job_name
from mover.errors import BatchUnavailableError, JobRefusedError
from mover.ports import BatchCapabilities, DelegatingSource, JobSpec, JobStatus

_AT_ONCE = 200
_FULL = "No more jobs allowed"
_NOT_FOUND = "404"
_ACCEPTED = frozenset({"200", "201", "202"})


class ArcBatch:
    """Jobs at one compute element. A job's id is ARC's own."""

    def __init__(
        self,
        url: str,
        credentials: DelegatingSource,
        ca_directory: Path,
        *,
        queue: str | None = None,
        staging_seconds: int = 6 * 3600,
        answer_seconds: int = 60,
    ) -> None:
        """The compute element whose service is at `url`, such as https://ce.example.org/arex.

        Its certificate, and its CRL, are those of an authority in `ca_directory`. Without `queue`, its default one is
        used. What is delegated to it lasts for a job's wall time and `staging_seconds`, in which the job waits and its
        files are moved; and never longer than the proxy of `credentials`, so that it is renewed while the job is looked
        at. An answer may take `answer_seconds`.

        Raises:
            ConfigError: the URL is not such a one.
        """
        self._rest = ArcRest(url, credentials, ca_directory, answer_seconds=answer_seconds)
        self._queue = queue
        self._staging_seconds = staging_seconds
        self._delegations = Delegations(self._rest, credentials, longest_seconds=staging_seconds)

    @property
    def name(self) -> str:
        """The software, and which compute element: another one knows nothing of this one's jobs."""
        return f"arc at {self._rest.host}"

    @property
    def capabilities(self) -> BatchCapabilities:
        """It stages."""
        return BatchCapabilities(stages=True)

    def submit(self, job: JobSpec) -> str:
        """Delegate what the job's files need, describe it, and send the inputs that are here."""
        check_staging(job)
        delegation = None
        if needs_delegation(job):
            delegation = self._delegations.new(job.wall_seconds + self._staging_seconds)
        try:
            job_id = self._create(job, describe(job, queue=self._queue, delegation=delegation))
        except JobRefusedError:
            if delegation is not None:
                self._delegations.remove(delegation)
            raise
        for each in job.inputs:
            if isinstance(each.source, Path):
                try:
                    self._rest.put_file("jobs", job_id, "session", each.name, path=each.source)
                except OSError as error:
                    raise BatchUnavailableError(
                        f"job {job.name}: cannot read its input {each.source}: {error.strerror}",
                        hint="see whether it is still there, and may be read by us",
                    ) from error
        # Last, so that `find` sees whether all was sent.
        self._rest.put("jobs", job_id, "session", LAUNCHER, body=launcher(job), kind="application/octet-stream")
        return job_id

    def find(self, name: str) -> str | None:
        """The id of the job of that name. One whose inputs were not all sent will never run, and is removed."""
        if not is_job_name(name):
            return None
        ids = [found for entry in self._rest.get_list("jobs", of="job") if is_id(found := text_of(entry, "id"))]
        job_id = next((job_id for job_id in ids if self._name_of(job_id) == name), None)
        if job_id is None or self._is_whole(job_id):
            return job_id
        self._manage("kill", job_id)
        self._manage("clean", job_id)
        return None

    def look(self, ids: Collection[str]) -> dict[str, JobStatus]:
        """What became of these jobs, and renewed proxies for those that go on."""
        states = self._states([job_id for job_id in ids if is_id(job_id)])
        live = [job_id for job_id, state in states.items() if state not in ENDED]
        unrenewed = self._delegations.renew(live) if live else {}
        found = {}
        for job_id, state in states.items():
            if state in ENDED:
                found[job_id] = ended_status(state, self._diagnose(job_id, "failed"), self._diagnose(job_id, "diag"))
            else:
                found[job_id] = live_status(state)
            if job_id in unrenewed:
                words = f"{state}; its proxy could not be renewed: {unrenewed[job_id].message}"
                found[job_id] = JobStatus(found[job_id].phase, words)
        return found

    def read(self, job_id: str, name: str, *, limit_bytes: int) -> bytes | None:
        """The end of a file in the session directory."""
        check_file_name(name)
        if not is_id(job_id):
            return None
        return self._rest.get_end("jobs", job_id, "session", name, limit_bytes=limit_bytes)

    def cancel(self, job_id: str) -> None:
        """Ask for the job's end, which takes some seconds."""
        if is_id(job_id) and self._states([job_id]).get(job_id, "") not in ENDED | GONE:
            self._manage("kill", job_id)

    def forget(self, job_id: str) -> None:
        """Have an ended job's files and delegations removed."""
        if not is_id(job_id) or self._states([job_id]).get(job_id) not in ENDED:
            return
        delegations = self._delegations.of([job_id]).get(job_id, ())
        self._manage("clean", job_id)
        for each in delegations:
            self._delegations.remove(each)

    def close(self) -> None:
        """Nothing to let go of; the jobs go on."""

    def _create(self, job: JobSpec, description: bytes) -> str:
        answer = self._rest.post("jobs", action="new", body=description, kind="application/xml")
        entry = next(iter(self._rest.entries(answer, "job")), {})
        # The status of the answer is 201 in any case.
        code, why, job_id = (text_of(entry, key) for key in ("status-code", "reason", "id"))
        if code in _ACCEPTED and is_id(job_id):
            return job_id
        if _FULL in why or not code:
            raise BatchUnavailableError(f"{self._rest.url} takes no job: {why or 'no reason'}", hint="try again later")
        raise JobRefusedError(
            f"{self._rest.url} refuses job {job.name}: {why} ({code})",
            hint="check the queue, and the limits of time, memory and cores, that the compute element has",
        )

    def _states(self, ids: Sequence[str]) -> dict[str, str]:
        """The states of those that are known.

        What is told of single jobs is as old as the last round of ARC's information system, up to minutes; the list of
        all that are ours is of now.
        """
        if not ids:
            return {}
        listed = self._rest.get_list("jobs", of="job", query={"state": ",".join(sorted(KNOWN))})
        states = {text_of(entry, "id"): text_of(entry, "state") for entry in listed}
        vague = [job_id for job_id in ids if is_vague(states.get(job_id))]
        for first in range(0, len(vague), _AT_ONCE):
            for entry in self._rest.post_ids("status", vague[first : first + _AT_ONCE]):
                job_id, state = text_of(entry, "id"), text_of(entry, "state")
                if text_of(entry, "status-code") != _NOT_FOUND and state not in GONE:
                    states[job_id] = refined(states.get(job_id), state)
        return {job_id: states[job_id] for job_id in ids if job_id in states}

    def _is_whole(self, job_id: str) -> bool:
        state = self._states([job_id]).get(job_id, "")
        return state in ENDED or self._rest.get_end("jobs", job_id, "session", LAUNCHER, limit_bytes=1) is not None

    def _name_of(self, job_id: str) -> str:
        for line in self._rest.get_text("jobs", job_id, "diagnose", "local").splitlines():
            key, _, value = line.partition("=")
            if key == "jobname":
                return value
        return ""

    def _diagnose(self, job_id: str, what: str) -> str:
        return self._rest.get_text("jobs", job_id, "diagnose", what)

    def _manage(self, action: str, job_id: str) -> None:
        entry = next(iter(self._rest.post_ids(action, [job_id])), {})
        code = text_of(entry, "status-code")
        if code not in _ACCEPTED and code != _NOT_FOUND:
            raise BatchUnavailableError(
                f"{self._rest.url} does not {action} job {job_id}: {text_of(entry, 'reason')} ({code})",
                hint="try again later; else ask the site",
            )
