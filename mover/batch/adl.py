"""What a compute element is told of a job: the Activity Description Language of EMI-ES 1.16, as ARC reads it."""

import re
import shlex
from pathlib import Path
from urllib.parse import urlsplit
from xml.etree import ElementTree

from mover.batch.job import LOG, check_job
from mover.errors import JobRefusedError
from mover.ports import JobOutput, JobSpec

_ADL = "http://www.eu-emi.eu/es/2010/12/adl"
_SCHEMES = frozenset({"davs", "https", "root", "gsiftp", "srm"})
_URL = re.compile(r"[a-z]+://[A-Za-z0-9.:\[\]-]+/[A-Za-z0-9/._+=@,%~-]+")

#: What ARC starts: it puts the job's environment and arguments right, which ARC would not leave unchanged (it drops
#: newlines), and becomes the job's command.
LAUNCHER = "mover-launch.sh"


def needs_delegation(job: JobSpec) -> bool:
    """Whether the compute element needs a proxy of ours: it is to move files for the job."""
    return any(isinstance(each.source, str) for each in job.inputs) or any(each.url for each in job.outputs)


def check_staging(job: JobSpec) -> JobSpec:
    """Return `job` if it can be described, and its inputs are there to be sent or to be fetched.

    Raises:
        JobRefusedError: it cannot.
    """
    check_job(job)
    for each in job.inputs:
        if isinstance(each.source, str):
            _check_url(job, each.source)
        elif each.source != job.directory / each.name or not each.source.is_file():
            raise _refused(job, f"its input {each.name} is not in its directory")
    for output in job.outputs:
        if output.url is not None:
            _check_url(job, output.url)
    if LAUNCHER in {*(each.name for each in job.inputs), *(each.name for each in job.outputs)}:
        raise _refused(job, f"{LAUNCHER} is not its own to name")
    return job


def launcher(job: JobSpec) -> bytes:
    """The script that ARC starts, to be sent under its name."""
    command = shlex.join(job.arguments[1:])
    lines = (
        "#!/bin/sh",
        "unset X509_USER_PROXY X509_USER_KEY X509_USER_CERT BEARER_TOKEN",
        "HOME=$PWD TMPDIR=$PWD LANG=C.UTF-8; export HOME TMPDIR LANG",
        # GNU time, which ARC runs it with, leaves its own file open.
        f"exec ./{job.arguments[0]} {command} {' '.join(f'{number}>&-' for number in range(3, 10))}",
    )
    return "\n".join(lines).encode("utf-8", "surrogateescape") + b"\n"


def describe(job: JobSpec, *, queue: str | None, delegation: str | None) -> bytes:
    """The description of a job that `check_staging` has let pass; its files are moved with that delegation."""
    activity = ElementTree.Element("ActivityDescription", xmlns=_ADL)
    _add(_add(activity, "ActivityIdentification"), "Name", job.name)
    application = _add(activity, "Application")
    command = _add(application, "Executable")
    _add(command, "Path", LAUNCHER)
    # Otherwise outputs are stored whatever the command says.
    _add(command, "FailIfExitCodeNotEqualTo", "0")
    _add(application, "Output", LOG)
    _add(application, "Error", LOG)
    resources = _add(activity, "Resources")
    _add(_add(resources, "SlotRequirement"), "NumberOfSlots", str(job.cores))
    if queue is not None:
        _add(resources, "QueueName", queue)
    _add(resources, "IndividualPhysicalMemory", str(job.memory_mib << 20))
    _add(resources, "WallTime", str(job.wall_seconds))
    staging = _add(activity, "DataStaging")
    _add_input(staging, LAUNCHER, executable=True)
    for each in job.inputs:
        executable = each.executable or each.name == job.arguments[0]
        _add_input(staging, each.name, each.source, executable=executable, delegation=delegation)
    for output in (*job.outputs, JobOutput(LOG)):
        _add_output(staging, output, delegation)
    description: bytes = ElementTree.tostring(activity, encoding="utf-8", xml_declaration=True)
    return description


def _add_input(
    staging: ElementTree.Element,
    name: str,
    where: Path | str | None = None,
    *,
    executable: bool,
    delegation: str | None = None,
) -> None:
    """A file that ARC fetches from `where`, if that is a URL, or is sent."""
    file = _add(staging, "InputFile")
    _add(file, "Name", name)
    if isinstance(where, str):
        source = _add(file, "Source")
        _add(source, "URI", _as_arc_writes(where))
        _add(source, "DelegationID", delegation)
    _add(file, "IsExecutable", "true" if executable else "false")


def _add_output(staging: ElementTree.Element, output: JobOutput, delegation: str | None) -> None:
    file = _add(staging, "OutputFile")
    _add(file, "Name", output.name)
    if output.url is not None:
        target = _add(file, "Target")
        _add(target, "URI", _as_arc_writes(output.url))
        _add(target, "DelegationID", delegation)
        _add(target, "Mandatory", "true")
        _add(target, "CreationFlag", "dontOverwrite")
        _add(target, "UseIfFailure", "false")
        _add(target, "UseIfCancel", "false")
        _add(target, "UseIfSuccess", "true")


def _add(parent: ElementTree.Element, tag: str, text: str | None = None) -> ElementTree.Element:
    child = ElementTree.SubElement(parent, tag)
    child.text = text
    return child


def _as_arc_writes(url: str) -> str:
    """The same place: of davs:// ARC makes requests that XRootD denies, since it writes that scheme into them."""
    return url.replace("davs://", "https://", 1)


def _check_url(job: JobSpec, url: str) -> None:
    # A compute element would read its own files, too. Semicolons, colons and commas part options of ARC's from the URL.
    if urlsplit(url).scheme not in _SCHEMES or not _URL.fullmatch(url):
        raise _refused(job, f"{url!r} is not the URL of a file at a storage element")


def _refused(job: JobSpec, why: str) -> JobRefusedError:
    return JobRefusedError(f"job {job.name} cannot be run: {why}", hint="this is a mistake in how the job was made")
