"""Custody certificates: what is stated follows from the records, and is signed by who may."""

import base64
import json
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from mover.catalogue import custody
from mover.catalogue.runs import bundle_of
from mover.certificate.issue import make_statement
from mover.errors import CatalogueError, CredentialError, MoverError
from mover.sandbox.ca import CertificateAuthority
from mover.steps.release import release_run
from mover.steps.transfer import transfer
from tests.unit.mover.bench import LFN, NOW, RUN, Bench, FixedClock
from tests.unit.mover.certificate.robot import ROBOT, Check, RobotProxy, certificate_of, raw, statement_of


def test_a_released_run_is_certified_with_everything_that_was_proven(
    bench: Bench, proxy: RobotProxy, check: Check
) -> None:
    bench.make_safe()
    release_run(bench.catalogue, bench.config, RUN, bench.endpoints, clock=FixedClock())
    before = datetime.now(UTC).replace(microsecond=0)
    checked = check(certificate_of(bench, proxy), signer=ROBOT)
    statement = checked.statement
    assert (checked.signer.identity, checked.signer.subject.startswith(f"{ROBOT}/CN=")) == (ROBOT, True)
    assert before <= checked.signed_at <= datetime.now(UTC)
    assert (statement.experiment, statement.run.number, statement.run.state) == ("MICE", RUN, "released")
    assert statement.run.safe is not None
    assert statement.run.released is not None
    (bundle,) = statement.bundles
    assert (bundle.kind, bundle.lfn) == ("raw", LFN)
    assert [(one.name, one.size_bytes) for one in bundle.members] == [
        (part.name, part.size_bytes) for part in _plan(bench)
    ]
    assert all(set(one.digests) == {"sha256", "md5"} for one in bundle.members)
    disk, tape = bundle.replicas
    assert (disk.endpoint, disk.site, disk.kind, disk.state, disk.archived) == ("disk", "IC", "disk", "verified", None)
    assert (tape.site, tape.state, tape.surl) == ("RAL", "archived", bench.endpoints["tape"].url(LFN))
    for proof in (tape.copied, tape.verified, tape.archived):
        assert proof is not None
        assert proof.at == NOW.isoformat()
        assert proof.how
    records = custody.records(bench.catalogue, RUN)
    assert [one.seq for one in statement.custody.records] == [one.seq for one in records]
    head = custody.head(bench.catalogue)
    assert (statement.custody.head_seq, statement.custody.head_hash) == head
    # The certificate's own part of the chain is found in the whole one.
    heads = [custody.Head(one.seq, one.hash) for one in statement.custody.records]
    custody.verify(bench.catalogue, noted=[*heads, head])


def _plan(bench: Bench) -> Any:
    bundle = bundle_of(bench.catalogue, RUN)
    assert bundle is not None
    assert bundle.plan is not None
    return bundle.plan.parts


def test_a_run_that_is_not_safe_is_certified_as_just_that(bench: Bench, proxy: RobotProxy, check: Check) -> None:
    bench.close_run()
    bench.step(transfer, "tape")
    statement = check(certificate_of(bench, proxy)).statement
    assert (statement.run.state, statement.run.safe, statement.run.released) == ("planned", None, None)
    disk, tape = statement.bundles[0].replicas
    assert (disk.state, disk.surl, disk.copied) == ("wanted", None, None)
    assert (tape.state, tape.verified, tape.archived) == ("copied", None, None)


def test_a_quarantined_run_has_a_certificate_too(bench: Bench, proxy: RobotProxy, check: Check) -> None:
    bench.files[1].unlink()
    with pytest.raises(MoverError):
        bench.close_run()
    statement = check(certificate_of(bench, proxy)).statement
    assert (statement.run.state, statement.bundles) == ("quarantined", [])


def test_records_of_other_runs_may_lie_between(bench: Bench, proxy: RobotProxy, check: Check) -> None:
    bench.close_run()
    with bench.catalogue.transaction() as connection:
        custody.append(connection, NOW, RUN + 1, "noted")
    bench.step(transfer, "tape")
    statement = check(certificate_of(bench, proxy)).statement
    assert [one.seq for one in statement.custody.records][:2] == [1, 3]


def test_a_catalogue_that_contradicts_itself_is_not_certified(bench: Bench) -> None:
    bench.make_safe()
    bench.spoiled = True
    with bench.catalogue.transaction() as connection:
        connection.execute("UPDATE replica SET state = 'archived' WHERE endpoint = 'disk'")
    with pytest.raises(CatalogueError, match=r"contradicts itself: .*at disk is archived"):
        statement_of(bench)
    with pytest.raises(CatalogueError, match="run 9 is not in the catalogue"):
        make_statement(bench.catalogue, 9, experiment="MICE", places={}, now=NOW)


def test_a_record_that_was_changed_is_not_certified(bench: Bench) -> None:
    bench.make_safe()
    bench.spoiled = True
    with bench.catalogue.transaction() as connection:
        connection.execute("DROP TRIGGER custody_is_not_changed")
        connection.execute("UPDATE custody SET by = 'me@here' WHERE seq = 2")
    with pytest.raises(CatalogueError, match="record 2 does not follow"):
        statement_of(bench)


def test_a_proxy_that_has_ended_signs_nothing(
    bench: Bench, authority: CertificateAuthority, keys: list[rsa.RSAPrivateKey]
) -> None:
    bench.close_run()
    ended = RobotProxy(authority, keys, datetime.now(UTC))
    ended.begin += timedelta(hours=2)
    with pytest.raises(CredentialError, match="cannot be signed: the proxy ended"):
        certificate_of(bench, ended)


def test_openssl_judges_it_by_the_standards_alone(
    bench: Bench, proxy: RobotProxy, authority: CertificateAuthority, tmp_path: Path
) -> None:
    bench.make_safe()
    outer = json.loads(certificate_of(bench, proxy))
    header = json.loads(raw(outer["protected"]))
    assert json.loads(raw(outer["payload"]))["run"]["state"] == "safe"

    def openssl(*arguments: str, text: bytes = b"") -> bytes:
        done = subprocess.run(
            ["openssl", *arguments], cwd=tmp_path, input=text, capture_output=True, check=True, timeout=60
        )
        return done.stdout

    for number, certificate in enumerate(header["x5c"]):
        (tmp_path / f"{number}.der").write_bytes(base64.b64decode(certificate))
        openssl("x509", "-inform", "DER", "-in", f"{number}.der", "-out", f"{number}.pem")
    trust = ["-allow_proxy_certs", "-CApath", str(authority.directory), "-untrusted", "1.pem"]
    assert openssl("verify", *trust, "0.pem") == b"0.pem: OK\n"
    (tmp_path / "key").write_bytes(openssl("x509", "-in", "0.pem", "-pubkey", "-noout"))
    (tmp_path / "signature").write_bytes(raw(outer["signature"]))
    signed = f"{outer['protected']}.{outer['payload']}".encode()
    verdict = openssl("dgst", "-sha256", "-verify", "key", "-signature", "signature", text=signed)
    assert verdict == b"Verified OK\n"
