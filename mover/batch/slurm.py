"""Slurm: jobs are handed over by sbatch, and asked after with squeue and, where there is accounting, sacct.

The job's directory is shared with the nodes. Slurm enforces time, cores and, as far as it is configured to, memory;
the size of `batch.log` it does not.
"""

import os
import re
from collections.abc import Collection
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from mover.batch.files import read_tail
from mover.batch.job import LOG, check_file_name, check_job, is_job_name, job_environment, prepare_directory
from mover.batch.slurmstates import job_status, wait_status
from mover.batch.slurmtools import JobUnknownError, SlurmTools, fields
from mover.errors import BatchUnavailableError, JobRefusedError
from mover.ports import BatchCapabilities, JobSpec, JobStatus

# Jobs that accounting is asked for by name: none lives longer.
_NAME_DAYS = 30
_NO_ACCOUNTING = "accounting storage is disabled"
_ID = re.compile(r"([0-9]{1,10}):(.*)")


@dataclass(frozen=True, slots=True)
class _Listed:
    """A job as Slurm lists it."""

    status: JobStatus
    directory: Path


class SlurmBatch:
    """A partition of a cluster, used as the user that we are.

    Ids are Slurm's with the job's name, `1234:reco-4742-1`: a controller that lost its state numbers jobs from 1 again,
    and nobody else's job is to be taken for ours, or cancelled.
    """

    def __init__(
        self,
        partition: str,
        *,
        account: str | None = None,
        qos: str | None = None,
        config: Path | None = None,
        programs: Path | None = None,
    ) -> None:
        """Jobs go to `partition`, for `account` and in `qos` if they are given.

        `config` is the path of slurm.conf, `programs` the directory of sbatch, if they are not where they usually are.
        """
        self._partition = partition
        self._options = [f"--partition={partition}"]
        self._options += [f"--account={account}"] if account else []
        self._options += [f"--qos={qos}"] if qos else []
        self._tools = SlurmTools(config=config, directory=programs)

    @property
    def name(self) -> str:
        """That it is Slurm."""
        return "slurm"

    @property
    def capabilities(self) -> BatchCapabilities:
        """No staging: the job's directory is shared."""
        return BatchCapabilities(stages=False)

    def submit(self, job: JobSpec) -> str:
        """Hand the job over to sbatch."""
        check_job(job)
        directory = prepare_directory(job)
        if re.search(r"[%\\]", str(directory)):
            raise JobRefusedError(
                f"job {job.name} has its directory at {directory}, and Slurm replaces what % and \\ begin",
                hint="let jobs have their directories at a path without these",
            )
        minutes = -(-job.wall_seconds // 60)
        self._check_limit(job, minutes)
        command, *arguments = job.arguments
        clean = ["/usr/bin/env", "-i", *(f"{name}={value}" for name, value in job_environment(directory).items())]
        with resources.as_file(resources.files(__package__) / "slurm_job.sh") as script:
            said = self._run(
                "sbatch",
                "--parsable",
                *self._options,
                f"--job-name={job.name}",
                f"--chdir={directory}",
                f"--time={minutes}",
                f"--output={LOG}",
                "--no-requeue",
                # All that sbatch was given, which is nothing. NONE and NIL have the user's login shell run first.
                "--export=ALL",
                "--nodes=1",
                "--ntasks=1",
                f"--cpus-per-task={job.cores}",
                f"--mem={job.memory_mib}M",
                str(script),
                # An argument of the script is quoted by nobody, so that none can be anything else.
                *clean,
                "/bin/sh",
                "-c",
                'exec "$@"',
                "sh",
                f"./{command}",
                *arguments,
            )
        number = said.strip().partition(";")[0]  # with several clusters, the cluster's name follows
        if not number.isdecimal():
            raise BatchUnavailableError(f"sbatch answered {said!r}", hint="the job is looked for by its name")
        return f"{number}:{job.name}"

    def find(self, name: str) -> str | None:
        """The newest job of that name, if it is one of ours."""
        if not is_job_name(name):
            return None
        known = [job_id for job_id in self._queue() if _name(job_id) == name]
        if not known:
            sought = ("--name", name, "--starttime", f"now-{_NAME_DAYS}days")
            known = [job_id for job_id in self._accounts(*sought) if _name(job_id) == name]
        return max(known, key=_number, default=None)

    def look(self, ids: Collection[str]) -> dict[str, JobStatus]:
        """What the controller says, and of those that it has forgotten what accounting says."""
        return {job_id: listed.status for job_id, listed in self._listed(ids).items()}

    def read(self, job_id: str, name: str, *, limit_bytes: int) -> bytes | None:
        """The end of a file in the job's directory, as long as Slurm knows the job."""
        check_file_name(name)
        listed = self._listed([job_id]).get(job_id)
        return read_tail(listed.directory, name, limit_bytes=limit_bytes) if listed else None

    def cancel(self, job_id: str) -> None:
        """Have Slurm end the job: SIGTERM, and after its KillWait SIGKILL, to the whole of it."""
        listed = self._queue().get(job_id)
        if listed is None or listed.status.ended:
            return
        try:
            self._tools.run("scancel", f"--name={_name(job_id)}", str(_number(job_id)))
        except JobUnknownError:
            return  # it has ended meanwhile

    def forget(self, job_id: str) -> None:
        """Nothing to do: Slurm forgets when its configuration says so."""

    def close(self) -> None:
        """Nothing to let go of."""

    def _check_limit(self, job: JobSpec, minutes: int) -> None:
        """Refuse what would wait for ever: by default Slurm takes jobs that exceed the partition's limit.

        Raises:
            JobRefusedError: there is no such partition, or it has no such time.
        """
        said = self._run("sinfo", "--noheader", f"--partition={self._partition}", "--format=%l").split()
        if not said:
            raise JobRefusedError(f"Slurm has no partition {self._partition}", hint="see sinfo for those that it has")
        limit = _minutes(said[0])
        if limit is not None and minutes > limit:
            raise JobRefusedError(
                f"job {job.name} asks for {minutes} min, and partition {self._partition} gives {limit}",
                hint="ask for less, or use another partition: see sinfo",
            )

    def _listed(self, ids: Collection[str]) -> dict[str, _Listed]:
        ours = [job_id for job_id in ids if _ID.fullmatch(job_id)]
        if not ours:
            return {}
        queue = self._queue()
        rest = [job_id for job_id in ours if job_id not in queue]
        accounts = self._accounts("--jobs", ",".join(str(_number(job_id)) for job_id in rest)) if rest else {}
        known = accounts | queue
        return {job_id: known[job_id] for job_id in ours if job_id in known}

    def _queue(self) -> dict[str, _Listed]:
        """All our jobs that the controller knows, by id. Its --json knows no filter, and differs between versions."""
        said = self._run(
            "squeue",
            "--noheader",
            "--states=all",
            "--me",
            "--Format=JobID:|,Name:|,State:|,exit_code:|,Reason:|,WorkDir:|",
        )
        return {
            f"{number}:{name}": _Listed(job_status(state, int(code), reason), Path(directory))
            for number, name, state, code, reason, directory in fields(said, 6)
        }

    def _accounts(self, *sought: str) -> dict[str, _Listed]:
        """Those of the jobs that accounting knows to have ended, by id; none where there is no accounting."""
        try:
            said = self._run(
                "sacct",
                "--noheader",
                "--parsable2",
                "--allocations",
                f"--uid={os.geteuid()}",
                *sought,
                "--format=JobIDRaw,JobName,State,ExitCode,WorkDir",
            )
        except BatchUnavailableError as error:
            if _NO_ACCOUNTING in error.message:
                return {}
            raise
        listed = {
            f"{number}:{name}": _Listed(job_status(state, wait_status(code)), Path(directory))
            for number, name, state, code, directory in fields(said, 5)
        }
        # What the controller does not know cannot run, whatever accounting has heard of it last.
        return {job_id: each for job_id, each in listed.items() if each.status.ended}

    def _run(self, *argv: str) -> str:
        try:
            return self._tools.run(*argv)
        except JobUnknownError as error:
            raise BatchUnavailableError(str(error), hint="it is asked again later") from error


def _number(job_id: str) -> int:
    return int(job_id.partition(":")[0])


def _name(job_id: str) -> str:
    return job_id.partition(":")[2]


def _minutes(limit: str) -> int | None:
    """A time as sinfo writes it, [days-][hours:]minutes:seconds, in whole minutes; None: there is no limit."""
    found = re.fullmatch(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)", limit)
    if found is None:
        return None
    days, hours, minutes, _ = (int(each or 0) for each in found.groups())
    return (days * 24 + hours) * 60 + minutes
