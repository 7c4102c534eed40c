"""What an ARC compute element does beyond the other batch systems: it moves files with a proxy that we delegate."""

import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from mover.batch.adl import describe
from mover.batch.arcdelegation import Delegations
from mover.batch.arcrest import ArcRest
from mover.errors import BatchUnavailableError, ConfigError, JobRefusedError
from mover.ports import JobInput, JobOutput, JobPhase, JobSpec, JobStatus
from mover.sandbox.arc import ComputeElement
from mover.sandbox.ca import CertificateAuthority
from mover.sandbox.xrootd import DiskServer
from tests.conformance.arc_site import ArcSite
from tests.conformance.batches import ArcSubject
from tests.conformance.credentials import RobotCredentials
from tests.conformance.door import Answer, door
from tests.conformance.subjects import Site, eventually

_LIMITED = bytes.fromhex("060b2b060104019b5001010109")  # Globus's limited proxy, as an object identifier
_DATA = b"raw data\n" * 1000


@pytest.fixture
def subject(arc: ArcSite, tmp_path: Path) -> Iterator[ArcSubject]:
    """The compute element, without jobs that run."""
    made = ArcSubject(tmp_path, arc)
    yield made
    made.close()


def proxy_at(arc: ArcSite, job_id: str) -> list[x509.Certificate]:
    """The chain that the compute element moves a job's files with."""
    rest = ArcRest(arc.ce.url, arc.robot, arc.ca.directory)
    ((found,),) = Delegations(rest, arc.robot, longest_seconds=1).of([job_id]).values()
    names = [found[first : first + 3] for first in range(0, len(found), 3)]
    (path,) = arc.ce.control_directory.glob("/".join(["delegations.*", *names]))
    return x509.load_pem_x509_certificates(path.read_bytes())


def staging(job: JobSpec, source: str, target: str | None) -> JobSpec:
    """The job, made one that copies its input to its output; with 9, one that leaves none and says that all is well."""
    (job.directory / "job.sh").write_text(
        '#!/bin/sh\necho ran >> ran.txt\n[ "$2" = 9 ] && exit 0\ncat in > out\nexit "$2"\n'
    )
    return replace(
        job,
        inputs=(*job.inputs, JobInput("in", source, size_bytes=len(_DATA))),
        outputs=(*job.outputs, JobOutput("out", target)),
    )


@dataclass(frozen=True)
class Staged:
    """Jobs that moved files, or should have, and how they ended."""

    ids: dict[str, str]
    statuses: dict[str, JobStatus]
    folder: Path
    chains: dict[str, list[x509.Certificate]]


@pytest.fixture(scope="module")
def staged(
    arc: ArcSite, site: Site, refusing_forever: int, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Staged]:
    """All of them at once: each takes seconds, and most of those are waited."""
    subject = ArcSubject(tmp_path_factory.mktemp("staged"), arc)
    server = site.disk
    assert isinstance(server, DiskServer)
    folder = server.disk_directory / "arc"
    folder.mkdir()
    (folder / "in").write_bytes(_DATA)
    shutil.chown(folder, server.disk_directory.owner())
    shutil.chown(folder / "in", server.disk_directory.owner())
    root, davs = f"{server.root_url}/arc", f"{server.davs_url}/arc"
    down = f"davs://localhost:{refusing_forever}/out"
    wanted = {
        "by root": ("0", f"{root}/in", f"{root}/new/by-root"),
        "by davs": ("0", f"{davs}/in", f"{root}/by-davs"),
        "no input": ("0", f"{davs}/missing", None),
        "name taken": ("0", f"{root}/in", f"{root}/in"),
        "no output": ("9", f"{root}/in", f"{root}/never"),
        "failed": ("2", f"{root}/in", f"{root}/failed"),
        "storage down": ("0", f"{root}/in", down),
    }
    ids = {}
    for name, (code, source, target) in wanted.items():
        ids[name] = subject.batch.submit(staging(subject.job("exit", code, wall_seconds=300), source, target))
    chains = {name: proxy_at(arc, job_id) for name, job_id in ids.items()}
    statuses = {name: subject.wait(job_id, lambda status: status.ended) for name, job_id in ids.items()}
    yield Staged(ids, statuses, folder, chains)
    subject.close()


@pytest.fixture(scope="module")
def refusing_forever(arc: ArcSite) -> Iterator[int]:
    """A port at which nobody listens."""
    from tests.conformance.subjects import refusing_port  # noqa: PLC0415

    yield from refusing_port()


def test_files_are_staged_in_and_out(staged: Staged) -> None:
    for name, stored in (("by root", "new/by-root"), ("by davs", "by-davs")):
        assert (staged.statuses[name].phase, staged.statuses[name].exit_code) == (JobPhase.EXITED, 0)
        assert (staged.folder / stored).read_bytes() == _DATA


def test_a_failure_of_staging_is_none_of_the_command(staged: Staged) -> None:
    words = {
        "no input": "missing: .*no such file",
        "name taken": "already exists",
        "no output": "no such file",
        "storage down": "Failed",
    }
    for name, pattern in words.items():
        status = staged.statuses[name]
        assert (status.phase, status.exit_code) == (JobPhase.FAILED, None), name
        assert re.search(f"data staging.*{pattern}", status.words, re.IGNORECASE), status.words
    assert (staged.folder / "in").read_bytes() == _DATA
    assert not (staged.folder / "never").exists()


def test_nothing_is_stored_of_a_command_that_failed(staged: Staged, arc: ArcSite) -> None:
    status = staged.statuses["failed"]
    assert (status.phase, status.exit_code) == (JobPhase.EXITED, 2)
    assert not (staged.folder / "failed").exists()
    assert arc.open().read(staged.ids["failed"], "ran.txt", limit_bytes=10) == b"ran\n"


def test_what_is_delegated_is_limited_and_short(staged: Staged, arc: ArcSite) -> None:
    for chain in staged.chains.values():
        leaf, ours, robot = chain
        assert leaf.issuer == ours.subject
        assert ours.issuer == robot.subject
        info = leaf.extensions.get_extension_for_oid(x509.ObjectIdentifier("1.3.6.1.5.5.7.1.14"))
        assert _LIMITED in info.value.public_bytes()
        # 300 s of wall time, and 600 s for staging.
        assert leaf.not_valid_after_utc - datetime.now(UTC) <= timedelta(seconds=900)
        assert leaf.not_valid_after_utc < ours.not_valid_after_utc


def test_a_job_that_is_forgotten_leaves_no_key_behind(staged: Staged, arc: ArcSite) -> None:
    job_id = staged.ids["by davs"]
    before = _secrets(arc.ce)
    batch = arc.open()
    batch.forget(job_id)
    assert eventually(lambda: not batch.look([job_id]))
    assert len(_secrets(arc.ce)) == len(before) - 1
    assert not list(arc.ce.control_directory.rglob(f"*{job_id}*"))


def _secrets(ce: ComputeElement) -> list[Path]:
    files = [path for path in ce.control_directory.rglob("*") if path.is_file()]
    return [path for path in files if b"PRIVATE KEY" in path.read_bytes()]


def test_a_job_that_needs_no_files_from_storage_is_given_no_proxy(subject: ArcSubject, arc: ArcSite) -> None:
    before = _secrets(arc.ce)
    subject.run("exit", "0")
    assert _secrets(arc.ce) == before


def test_what_is_delegated_is_renewed_in_time(subject: ArcSubject, arc: ArcSite, site: Site) -> None:
    short = RobotCredentials(arc.ca, "Robot", hours=21 / 3600)
    batch = arc.open(credentials=short)
    server = site.disk
    assert isinstance(server, DiskServer)
    job = subject.job("hold")
    job_id = batch.submit(replace(job, outputs=(JobOutput("out", f"{server.root_url}/never"),)))
    first = proxy_at(arc, job_id)[0].not_valid_after_utc
    short.renew()
    batch.look([job_id])
    assert proxy_at(arc, job_id)[0].not_valid_after_utc == first

    def renewed() -> bool:
        short.renew()
        status = batch.look([job_id])[job_id]
        assert "renewed" not in status.words
        return proxy_at(arc, job_id)[0].not_valid_after_utc > first

    assert eventually(renewed, seconds=60)
    # A later engine does not know how long what it finds lasts.
    arc.open().look([job_id])
    assert proxy_at(arc, job_id)[0].not_valid_after_utc > datetime.now(UTC) + timedelta(seconds=60)
    subject.batch.cancel(job_id)


def test_a_job_that_was_not_sent_whole_is_removed_and_not_found(subject: ArcSubject, arc: ArcSite) -> None:
    job = subject.job("exit", "0")
    rest = ArcRest(arc.ce.url, arc.robot, arc.ca.directory)
    answer = rest.post(
        "jobs", action="new", body=describe(job, queue=None, delegation=None), kind="application/xml"
    )  # and then the engine dies
    job_id = str(rest.entries(answer, "job")[0]["id"])
    assert subject.status(job_id)
    assert subject.batch.find(job.name) is None
    assert eventually(lambda: subject.status(job_id) is None)
    # It may be submitted again under its name.
    again = subject.batch.submit(job)
    assert subject.batch.find(job.name) == again


def test_a_job_that_the_administrator_removed_has_vanished(subject: ArcSubject, arc: ArcSite) -> None:
    job_id, _ = subject.run("exit", "0")
    for path in arc.ce.control_directory.rglob(f"job.{job_id}.*"):
        path.unlink()
    assert subject.batch.look([job_id]) == {}
    subject.batch.cancel(job_id)
    subject.batch.forget(job_id)
    assert subject.batch.read(job_id, "ran.txt", limit_bytes=1) is None


def test_a_queue_that_is_not_there_is_refused_for_good(subject: ArcSubject, arc: ArcSite) -> None:
    with pytest.raises(JobRefusedError, match="slow"):
        arc.open(queue="slow").submit(subject.job("exit", "0"))


def test_strangers_are_told_so(subject: ArcSubject, arc: ArcSite) -> None:
    for credentials in (RobotCredentials(arc.ca, "Stranger"), RobotCredentials(arc.ca, "Robot", hours=-1)):
        with pytest.raises(BatchUnavailableError) as caught:
            arc.open(credentials=credentials).submit(subject.job("exit", "0"))
        assert "identity" in caught.value.hint


def test_another_ca_is_not_believed(subject: ArcSubject, arc: ArcSite, tmp_path: Path) -> None:
    other = CertificateAuthority(tmp_path / "other", common_name="Other CA")
    with pytest.raises(BatchUnavailableError) as caught:
        arc.open(ca_directory=other.directory).find("x")
    assert "CA directory" in caught.value.hint


def test_a_name_that_is_not_in_the_certificate_is_not_believed(arc: ArcSite) -> None:
    with pytest.raises(BatchUnavailableError) as caught:
        arc.open(url=arc.ce.url.replace("localhost", "127.0.0.2")).find("x")
    assert "certificate" in caught.value.hint


def test_a_revoked_certificate_is_not_believed(arc: ArcSite, tmp_path: Path) -> None:
    ca = CertificateAuthority(tmp_path / "ca")
    credentials = RobotCredentials(ca, "Robot")
    with door(ca, tmp_path, lambda _method, _path: Answer(200)) as port:
        rest = ArcRest(f"https://localhost:{port}/arex", credentials, ca.directory)
        assert rest.get_list("jobs", of="job") == []
        certificate = x509.load_pem_x509_certificate((tmp_path / "hostcert.pem").read_bytes())
        ca.revoke(certificate.serial_number)
        with pytest.raises(BatchUnavailableError, match="revoked"):
            rest.get_list("jobs", of="job")
        for path in ca.crl_paths:
            path.unlink()
        with pytest.raises(BatchUnavailableError, match="no CRL"):
            rest.get_list("jobs", of="job")


@pytest.mark.parametrize(
    ("body", "elements"),
    [
        (b"", 0),
        (b" \n", 0),
        (b'""', 0),
        (b"{}", 0),
        (b'{"job": ""}', None),
        (b'{"job": {"id": "a"}}', 1),
        (b'{"job": [{"id": "a"}, {"id": "b"}]}', 2),
        (b'{"job": ["a"]}', None),
        (b"[]", None),
        (b"<html>", None),
        (b"[" * 100_000, None),
        (b"\xff", None),
        (b" " * (33 << 20), None),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_answers_are_read_with_care(arc: ArcSite, tmp_path: Path, body: bytes, elements: int | None) -> None:
    with door(arc.ca, tmp_path, lambda _method, _path: Answer(200, body=body)) as port:
        rest = ArcRest(f"https://localhost:{port}/arex", arc.robot, arc.ca.directory)
        if elements is None:
            with pytest.raises(BatchUnavailableError):
                rest.get_list("jobs", of="job")
        else:
            assert len(rest.get_list("jobs", of="job")) == elements


def test_a_server_that_fails_is_quoted_without_its_control_characters(arc: ArcSite, tmp_path: Path) -> None:
    with door(arc.ca, tmp_path, lambda _method, _path: Answer(500, body=b"\x1b[2Jno " + b"x" * 9999)) as port:
        rest = ArcRest(f"https://localhost:{port}/arex", arc.robot, arc.ca.directory)
        with pytest.raises(BatchUnavailableError, match=r"HTTP 500: \?\[2Jno x+$") as caught:
            rest.get_list("jobs", of="job")
    assert len(caught.value.message) < 500


@pytest.mark.parametrize("url", ["http://ce/arex", "https:///arex", "https://u@ce/arex", "ce.example.org", ""])
def test_a_bad_url_is_refused_at_once(arc: ArcSite, url: str) -> None:
    with pytest.raises(ConfigError, match="compute element"):
        arc.open(url=url)


def test_jobs_are_those_of_one_compute_element(arc: ArcSite) -> None:
    urls = ("https://CE.example.org/arex", "https://ce.example.org:8443/arex")
    one, other = (arc.open(url=url) for url in urls)
    assert (one.name, other.name) == ("arc at ce.example.org", "arc at ce.example.org:8443")
