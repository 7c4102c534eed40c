"""Submitted → collected: what an ended attempt came to by the job contract, and its output taken.

The contract (docs/reco.md): 0 done, 1 transient, 2 the reconstruction failed, 3 or anything else the script failed.
"""

from datetime import timedelta

from mover.bundle.readymade import digest_file
from mover.catalogue.endpoints import sick_endpoints
from mover.catalogue.jobs import record_job_event, record_job_failure
from mover.catalogue.outputs import Output, record_output
from mover.errors import BatchError, JobFailedError, JobTransientError, MoverError, RunChangedError
from mover.model import BundleDigest, EndpointKind, MemberDigest
from mover.ports import JobPhase
from mover.reco.jobdescription import (
    MOST_REPORT_BYTES,
    REPORT_NAME,
    JobOutputReport,
    JobReport,
    JobReportError,
    read_report,
)
from mover.reco.jobfiles import fetch_logs, read_job_file
from mover.reco.scratch import drop_all_but, keep_logs, remove
from mover.reco.submit import output_place, stored_path
from mover.reco.tidy import forget_attempt
from mover.reco.work import JobWork
from mover.states import JobEvent

_DONE, _TRANSIENT, _RECONSTRUCTION_FAILED = 0, 1, 2
_LONGEST_LOG_BYTES = 4 << 20


def collect(work: JobWork) -> None:
    """Take the output of an attempt that has ended, or say why there is none.

    1. What the batch system says. 2. What the job reports of itself. 3. Its output, if all is well by that; it is read
    and its digests are committed before anything else is done with it.

    Raises:
        JobTransientError: it is to be tried again.
        JobFailedError: a person has to look.
        StorageError: what the batch system has stored cannot be asked for.
    """
    job = work.job
    # 1
    raw = _raw_report(work)
    report = _report(work, raw)
    code = job.exit_code if job.phase == JobPhase.EXITED else None
    if code is None and report is not None:
        # Batch systems forget jobs that have ended; the report is written last.
        code = report.exit_code
    if code is None:
        why = f"; {job.problem}" if job.problem else ""
        raise JobTransientError(f"the {job.key} was {job.phase}: {job.status}{why}", hint="it is submitted again")
    # 2
    made = _judge(work, report, code)
    # 3
    output = _stored_output(work, made) if work.batch.capabilities.stages else _local_output(work, made)
    record_output(
        work.database,
        work.claim,
        output,
        endpoints=_first_endpoints(work),
        backlog=job.campaign_id is not None,
        attempt=job.attempts,
        report=_text(raw),
        now=work.clock.now(),
    )
    if output.ready_made is not None:
        drop_all_but(output.ready_made)
    _forget(work)


def note_failure(work: JobWork, error: MoverError) -> None:
    """An attempt has failed: its logs are kept, and it is tried again, or a person has to look.

    The one place that decides so.
    """
    reco, job, now = work.reco, work.job, work.clock.now()
    report = _last_words(work)
    if job.name is not None:
        directory = work.directory(job.name)
        if directory.is_dir():
            if work.batch.capabilities.stages:
                fetch_logs(work.batch, job, directory, limit_bytes=_LONGEST_LOG_BYTES)
            logs = reco.scratch / "logs"
            keep_logs(directory, logs, most_bytes=_LONGEST_LOG_BYTES, most_attempts=reco.kept_logs)
    last = job.failures + 1 >= reco.failures_before_quarantine
    if isinstance(error, JobTransientError) and not last:
        delay = min(reco.first_retry_seconds * 2 ** min(job.failures, 20), reco.longest_retry_seconds)
        until = now + timedelta(seconds=delay)
        record_job_failure(work.database, work.claim, error, now=now, next_attempt_at=until, again=True, report=report)
    else:
        if isinstance(error, JobTransientError):
            error = JobFailedError(
                f"{error.message}; so ended {job.failures + 1} attempts in a row", hint=_expert(work)
            )
        record_job_event(work.database, work.claim, JobEvent.GAVE_UP, now=now, problem=error, report=report)
    if job.name is not None:
        _forget(work)
        remove(work.directory(job.name))


def _forget(work: JobWork) -> None:
    """Let the batch system forget the attempt, now that it is over."""
    forget_attempt(work.database, work.batch, work.job.name or "", now=work.clock.now())


def _last_words(work: JobWork) -> str | None:
    """What the job reports, if it can be had: that it has failed is known without."""
    try:
        return _text(_raw_report(work))
    except BatchError as error:
        return f"not to be had: {error.message}"


def _raw_report(work: JobWork) -> bytes | None:
    directory = work.directory(work.job.name or "")
    return read_job_file(work.batch, work.job, directory, REPORT_NAME, limit_bytes=MOST_REPORT_BYTES + 1)


def _text(raw: bytes | None) -> str | None:
    return None if raw is None else raw[:MOST_REPORT_BYTES].decode("utf-8", "backslashreplace")


def _report(work: JobWork, raw: bytes | None) -> JobReport | None:
    """What the job says of itself; None if it left nothing."""
    if raw is None:
        return None
    key = work.job.key
    try:
        return read_report(raw, name=work.job.name or "", output=work.settings.output_file(key.run, key.iteration))
    except JobReportError as error:
        raise JobFailedError(f"the {work.job.key} left a report that is none: {error}", hint=_expert(work)) from error


def _judge(work: JobWork, report: JobReport | None, code: int) -> JobOutputReport:
    """What the job says that it has made; raises what an exit code other than 0 means."""
    key = work.job.key
    said = f": {report.reason}" if report else ", and it left no report"
    if code == _TRANSIENT:
        raise JobTransientError(f"the {key} could not be done now (exit code 1){said}", hint="it is submitted again")
    if code == _RECONSTRUCTION_FAILED:
        raise JobFailedError(f"the {key} failed (exit code 2){said}", hint=_expert(work))
    if code != _DONE:
        raise JobFailedError(f"the script of the {key} failed (exit code {code}){said}", hint=_expert(work))
    if report is None or report.exit_code != _DONE or report.output is None:
        raise JobFailedError(
            f"the {key} ended with exit code 0, but does not say what it made{said}: nothing was saved",
            hint=_expert(work),
        )
    return report.output


def _local_output(work: JobWork, made: JobOutputReport) -> Output:
    key, job = work.job.key, work.job
    path = work.directory(job.name or "") / work.settings.output_file(key.run, key.iteration)
    if not path.is_file() or path.is_symlink():
        raise JobFailedError(
            f"the {key} says that all is well, but there is no {path.name}: nothing was saved", hint=_expert(work)
        )
    try:
        digest = digest_file(path, alive=work.alive)
    except RunChangedError as error:
        raise JobFailedError(f"the output of the {key} cannot be read: {error.message}", hint=error.hint) from error
    if (digest.size_bytes, digest.adler32) != (made.size_bytes, made.adler32):
        raise JobTransientError(
            f"{path.name} of the {key} has {digest.size_bytes} bytes with adler32 {digest.adler32} here, but the job "
            f"wrote {made.size_bytes} with {made.adler32}",
            hint="it is done again; if this repeats, look at the scratch area's disk",
        )
    return Output(work.output_lfn, digest, ready_made=path)


def _stored_output(work: JobWork, made: JobOutputReport) -> Output:
    place, path = output_place(work), stored_path(work, work.job.attempts)
    endpoint, job = work.endpoints[place], work.job
    found = endpoint.stat(path)
    # Of one that the batch system ended well, a wrong size is told when the file is verified.
    if job.phase != JobPhase.EXITED and (found is None or found.size_bytes != made.size_bytes):
        there = "is not there" if found is None else f"has {found.size_bytes} bytes instead of {made.size_bytes}"
        raise JobTransientError(
            f"the {job.key} made its output, but {endpoint.url(path)} {there}: {work.batch.name} says {job.status!r}",
            hint=f"it is done again; if this repeats, see whether {place} has room, and {work.batch.name} reaches it",
        )
    if found is None:
        raise JobFailedError(
            f"the {job.key} says that all is well, and so does {work.batch.name} ({job.status}), but "
            f"{endpoint.url(path)} is not there: nothing was saved",
            hint=_expert(work),
        )
    member = MemberDigest(made.name, made.size_bytes, (("sha256", made.sha256),))
    return Output(work.output_lfn, BundleDigest(made.size_bytes, made.adler32, (member,)), stored=(place, path))


def _first_endpoints(work: JobWork) -> tuple[str, ...]:
    """Where an output goes before it is proven: to the policy's disks that are well, or to any, if it has none.

    What is on tape cannot be taken back, so it gets there once it is proven.
    """
    policy = work.config.policy_of(work.job.key.kind)
    names = policy.endpoints if policy else ()
    disks = tuple(one for one in names if work.config.places[one].kind is EndpointKind.DISK)
    sick = sick_endpoints(work.database)
    well = tuple(one for one in disks if one not in sick)
    return well or disks or names


def _expert(work: JobWork) -> str:
    logs = work.reco.scratch / "logs" / (work.job.name or "")
    return f"an expert is needed: its logs are in {logs}; then `mover reco retry {work.job.key.run}`"
