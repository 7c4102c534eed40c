"""Wanted → submitted: the release is there, the raw data is staged and right, and the batch system has the job."""

from datetime import timedelta
from pathlib import Path

from mover.bundle.plan import md5_name
from mover.catalogue.approvals import approved_releases
from mover.catalogue.attempts import record_batch_id
from mover.catalogue.jobs import jobs_under_way, postpone_job, record_attempt
from mover.catalogue.runs import BundleRecord
from mover.errors import JobRefusedError, NoSourceError, NotOnlineError, OutputError
from mover.model import EndpointKind
from mover.naming import temporary_path
from mover.ports import JobInput, JobOutput, JobSpec, StorageEndpoint
from mover.reco.jobdescription import (
    DESCRIPTION_NAME,
    HEARTBEAT_NAME,
    LOG_NAME,
    REPORT_NAME,
    WRAPPER,
    WRAPPER_NAME,
    JobDescription,
    StagedBundle,
    command_line,
)
from mover.reco.releases import ReleaseRecord, Releases
from mover.reco.scratch import has_room, remove
from mover.reco.source import choose_source, stage
from mover.reco.work import JobWork, attempt_name

_NO_ROOM_SECONDS = 30.0
_RECALL_POLL_SECONDS = 10.0
_WRAPPER_SECONDS = 180


def submit(work: JobWork, releases: Releases) -> None:
    """Submit the next attempt of a job.

    1. The release is there and can be set up. 2. There is room, and the raw data can be read. 3. Stage what the job
    needs. 4. Commit the attempt's name: from here on it is looked for in the batch system, whatever happens. 5. Submit.

    Raises:
        ReleaseNotFoundError: it is not.
        NoSourceError: no replica can be read.
        JobRefusedError: the batch system will never take such a job.
        BatchUnavailableError: it does not answer; the job may be there nevertheless.
        StorageError: a replica cannot be read.
    """
    # 1
    release = releases.check(work.job.key.release, also_approved=approved_releases(work.database))
    # 2
    raw = work.raw()
    if not work.batch.capabilities.stages and not _has_room(work, raw):
        _later(work, _NO_ROOM_SECONDS, "waits for room in the scratch area")
        return
    try:
        source = choose_source(work, raw)
    except NotOnlineError as error:
        _later(work, _RECALL_POLL_SECONDS, error.message)
        return
    # 3
    name = attempt_name(work.job)
    directory = _new_directory(work.directory(name))
    _write_own(work, directory, raw, release)
    bundle, stored_at = _bring(work, directory, raw, source)
    spec = _spec(work, directory, bundle, stored_at)
    # 4
    record_attempt(
        work.database,
        work.claim,
        batch=work.batch.name,
        name=name,
        revision=str(release.cvmfs.revision) if release.cvmfs else None,
        now=work.clock.now(),
    )
    # 5
    record_batch_id(work.database, name, work.batch.submit(spec))


def output_place(work: JobWork) -> str:
    """The endpoint to which a batch system that stages stores outputs: a disk, by root:// if there is a choice.

    ARC's uploads to XRootD's WebDAV stall (docs/grid-notes.md).

    Raises:
        JobRefusedError: the policy has none.
    """
    policy = work.config.policy_of(work.job.key.kind)
    places = [work.config.places[name] for name in (policy.endpoints if policy else ())]
    disks = [place for place in places if place.kind is EndpointKind.DISK]
    if not disks:
        raise JobRefusedError(
            f"[policy.{work.job.key.kind}] has no disk endpoint for {work.batch.name} to store the output at",
            hint="add one: what comes from a compute element goes to disk first, and to tape once it is proven",
        )
    return next((one.name for one in disks if one.scheme == "root"), disks[0].name)


def stored_path(work: JobWork, attempt: int) -> str:
    """The temporary name under which a batch system stores an attempt's output."""
    return temporary_path(work.output_lfn, attempt)


def _has_room(work: JobWork, raw: BundleRecord) -> bool:
    alone = all(job.id == work.job.id for job in jobs_under_way(work.database))
    return has_room(work.reco.scratch, work.reco.scratch_bytes, raw.size_bytes, alone=alone)


def _later(work: JobWork, seconds: float, why: str) -> None:
    until = work.clock.now() + timedelta(seconds=seconds)
    postpone_job(work.database, work.claim, until=until, why=why)


def _new_directory(directory: Path) -> Path:
    """An empty directory of the attempt's own. What an agent that died here has left was never submitted."""
    try:
        if directory.exists():
            remove(directory)
        directory.mkdir(mode=0o750)
    except OSError as error:
        raise OutputError(f"cannot make {directory}: {error.strerror}", hint="look at the scratch area") from error
    return directory


def _write_own(work: JobWork, directory: Path, raw: BundleRecord, release: ReleaseRecord) -> None:
    """Write the wrapper, and what it is told, into the attempt's directory."""
    key, settings = work.job.key, work.settings
    if raw.digest is None:
        raise NoSourceError(f"{raw.lfn} was never read", hint="nothing to do: it is looked at again")
    name, output = bundle_name(raw), settings.output_file(key.run, key.iteration)
    listing = md5_name(raw.lfn)
    description = JobDescription(
        name=directory.name,
        run=key.run,
        iteration=key.iteration,
        release=key.release,
        setup=release.setup,
        bundle=StagedBundle.of(
            name, raw.digest, listing if any(one.name == listing for one in raw.digest.members) else None
        ),
        command=command_line(
            settings.command, run=key.run, iteration=key.iteration, release=key.release, output=output, bundle=name
        ),
        output=output,
        wall_seconds=settings.wall_seconds,
        heartbeat_seconds=min(60.0, work.reco.silent_after_seconds / 4),
    )
    try:
        (directory / DESCRIPTION_NAME).write_bytes(description.render())
        (directory / WRAPPER_NAME).write_bytes(WRAPPER.read_bytes())
        (directory / WRAPPER_NAME).chmod(0o755)
    except OSError as error:
        raise OutputError(f"cannot write to {directory}: {error.strerror}", hint="look at the scratch area") from error


def bundle_name(raw: BundleRecord) -> str:
    """The name under which a job finds the bundle."""
    return raw.lfn.rpartition("/")[2]


def _bring(work: JobWork, directory: Path, raw: BundleRecord, source: StorageEndpoint) -> tuple[JobInput, str | None]:
    """How the job gets its bundle, and under which SURL the batch system stores the output, if it does that."""
    name = bundle_name(raw)
    if not work.batch.capabilities.stages:
        stage(work, source, raw, directory / name)
        return JobInput(name, directory / name), None
    adler32 = raw.digest.adler32 if raw.digest else None
    path = stored_path(work, work.job.attempts + 1)
    target = work.endpoints[output_place(work)].url(path)
    return JobInput(name, source.url(raw.lfn), raw.size_bytes, adler32), target


def _spec(work: JobWork, directory: Path, bundle: JobInput, stored_at: str | None) -> JobSpec:
    key, settings = work.job.key, work.settings
    wrapper = JobInput(WRAPPER_NAME, directory / WRAPPER_NAME, executable=True)
    description = JobInput(DESCRIPTION_NAME, directory / DESCRIPTION_NAME)
    kept = (REPORT_NAME, HEARTBEAT_NAME, LOG_NAME)
    return JobSpec(
        name=directory.name,
        directory=directory,
        arguments=(WRAPPER_NAME, DESCRIPTION_NAME),
        inputs=(wrapper, description, bundle),
        outputs=(JobOutput(settings.output_file(key.run, key.iteration), stored_at), *map(JobOutput, kept)),
        # The wrapper ends the command, says so, and has time for that.
        wall_seconds=settings.wall_seconds + _WRAPPER_SECONDS,
        memory_mib=settings.memory_mib,
    )
