"""Custody certificates: what is stated follows from the records, and nothing that was changed or forged passes."""

import base64
import hashlib
import json
import re
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa

from mover.catalogue import custody
from mover.catalogue.runs import bundle_of
from mover.certificate.check import Checked, check_certificate
from mover.certificate.issue import make_statement, sign
from mover.certificate.statement import MEDIA_TYPE, Statement
from mover.cli.main import cli
from mover.errors import CatalogueError, CertificateError, CredentialError, MoverError
from mover.sandbox.ca import CertificateAuthority
from mover.steps.release import release_run
from mover.steps.transfer import transfer
from proxyagent.chain import proxy_pem
from proxyagent.proxy import Language, ProxyInfo, issue_proxy
from proxyagent.request import new_key
from proxyagent.statement import sign_statement
from tests.unit.mover.bench import LFN, NOW, RUN, Bench, FixedClock

PLACES: dict[str, tuple[str | None, str | None]] = {"tape": ("RAL", "tape"), "disk": ("IC", "disk")}
ROBOT = "/C=UK/O=Sandbox/CN=Robot"
Json = dict[str, Any]


class RobotProxy:
    """A client proxy of an hour, whose key is at hand, and which signs at any time that it is told."""

    def __init__(self, authority: CertificateAuthority, keys: list[rsa.RSAPrivateKey], begin: datetime) -> None:
        robot = authority.issue_robot("Robot", keys[0].public_key())
        info, hour = ProxyInfo(Language.INHERIT_ALL, None), timedelta(hours=1)
        leaf = issue_proxy(robot, keys[0], keys[1].public_key(), info=info, lifetime=hour, now=begin)
        self.chain: tuple[x509.Certificate, ...] = (leaf, robot)
        self.key = keys[1]
        self.begin = begin

    def sign(self, payload: bytes, media_type: str) -> bytes:
        """As `ClientProxy.sign`, but with this object's idea of now."""
        return sign_statement(proxy_pem(self.chain, self.key), payload, media_type, now=self.begin)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> CertificateAuthority:
    return CertificateAuthority(tmp_path_factory.mktemp("authority") / "certificates")


@pytest.fixture(scope="module")
def keys() -> list[rsa.RSAPrivateKey]:
    return [new_key() for _ in range(3)]


@pytest.fixture(scope="module")
def proxy(authority: CertificateAuthority, keys: list[rsa.RSAPrivateKey]) -> RobotProxy:
    return RobotProxy(authority, keys, datetime.now(UTC))


Check = Callable[..., Checked]


@pytest.fixture
def check(authority: CertificateAuthority) -> Check:
    """`check_certificate` with the CA that is trusted."""

    def run(text: bytes, **options: Any) -> Checked:
        return check_certificate(text, authority.directory, **{"now": datetime.now(UTC), **options})

    return run


def _state(bench: Bench, now: datetime | None = None) -> Statement:
    return make_statement(bench.catalogue, RUN, experiment="MICE", places=PLACES, now=now or datetime.now(UTC))


def _certificate(bench: Bench, proxy: RobotProxy) -> bytes:
    return sign(_state(bench), proxy)


def _raw(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def test_a_released_run_is_certified_with_everything_that_was_proven(
    bench: Bench, proxy: RobotProxy, check: Check
) -> None:
    bench.make_safe()
    release_run(bench.catalogue, bench.config, RUN, bench.endpoints, clock=FixedClock())
    before = datetime.now(UTC).replace(microsecond=0)
    checked = check(_certificate(bench, proxy), signer=ROBOT)
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
    statement = check(_certificate(bench, proxy)).statement
    assert (statement.run.state, statement.run.safe, statement.run.released) == ("planned", None, None)
    disk, tape = statement.bundles[0].replicas
    assert (disk.state, disk.surl, disk.copied) == ("wanted", None, None)
    assert (tape.state, tape.verified, tape.archived) == ("copied", None, None)


def test_a_quarantined_run_has_a_certificate_too(bench: Bench, proxy: RobotProxy, check: Check) -> None:
    bench.files[1].unlink()
    with pytest.raises(MoverError):
        bench.close_run()
    statement = check(_certificate(bench, proxy)).statement
    assert (statement.run.state, statement.bundles) == ("quarantined", [])


def test_records_of_other_runs_may_lie_between(bench: Bench, proxy: RobotProxy, check: Check) -> None:
    bench.close_run()
    with bench.catalogue.transaction() as connection:
        custody.append(connection, NOW, RUN + 1, "noted")
    bench.step(transfer, "tape")
    statement = check(_certificate(bench, proxy)).statement
    assert [one.seq for one in statement.custody.records][:2] == [1, 3]


def test_a_catalogue_that_contradicts_itself_is_not_certified(bench: Bench) -> None:
    bench.make_safe()
    bench.spoiled = True
    with bench.catalogue.transaction() as connection:
        connection.execute("UPDATE replica SET state = 'archived' WHERE endpoint = 'disk'")
    with pytest.raises(CatalogueError, match=r"contradicts itself: .*at disk is archived"):
        _state(bench)
    with pytest.raises(CatalogueError, match="run 9 is not in the catalogue"):
        make_statement(bench.catalogue, 9, experiment="MICE", places={}, now=NOW)


def test_a_record_that_was_changed_is_not_certified(bench: Bench) -> None:
    bench.make_safe()
    bench.spoiled = True
    with bench.catalogue.transaction() as connection:
        connection.execute("DROP TRIGGER custody_is_not_changed")
        connection.execute("UPDATE custody SET by = 'me@here' WHERE seq = 2")
    with pytest.raises(CatalogueError, match="record 2 does not follow"):
        _state(bench)


def test_a_proxy_that_has_ended_signs_nothing(
    bench: Bench, authority: CertificateAuthority, keys: list[rsa.RSAPrivateKey]
) -> None:
    bench.close_run()
    ended = RobotProxy(authority, keys, datetime.now(UTC))
    ended.begin += timedelta(hours=2)
    with pytest.raises(CredentialError, match="cannot be signed: the proxy ended"):
        _certificate(bench, ended)


def test_openssl_judges_it_by_the_standards_alone(
    bench: Bench, proxy: RobotProxy, authority: CertificateAuthority, tmp_path: Path
) -> None:
    bench.make_safe()
    outer = json.loads(_certificate(bench, proxy))
    header = json.loads(_raw(outer["protected"]))
    assert json.loads(_raw(outer["payload"]))["run"]["state"] == "safe"

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
    (tmp_path / "signature").write_bytes(_raw(outer["signature"]))
    signed = f"{outer['protected']}.{outer['payload']}".encode()
    verdict = openssl("dgst", "-sha256", "-verify", "key", "-signature", "signature", text=signed)
    assert verdict == b"Verified OK\n"


def test_any_byte_that_is_changed_is_noticed(bench: Bench, proxy: RobotProxy, check: Check) -> None:
    bench.close_run()
    certificate = _certificate(bench, proxy)
    outer = json.loads(certificate)
    for name in ("payload", "protected", "signature"):
        for place in (0, len(outer[name]) // 2, len(outer[name]) - 2):
            other = "B" if outer[name][place] == "A" else "A"
            changed = {**outer, name: outer[name][:place] + other + outer[name][place + 1 :]}
            with pytest.raises(CertificateError):
                check(json.dumps(changed).encode())
    check(certificate)


def test_another_chain_or_key_is_noticed(
    bench: Bench, proxy: RobotProxy, authority: CertificateAuthority, check: Check, tmp_path: Path
) -> None:
    bench.close_run()
    outer = json.loads(_certificate(bench, proxy))
    header = json.loads(_raw(outer["protected"]))
    other = RobotProxy(authority, [new_key(), new_key()], datetime.now(UTC))
    theirs = json.loads(_raw(json.loads(_certificate(bench, other))["protected"]))["x5c"]
    for x5c in (theirs, [theirs[0], header["x5c"][1]], header["x5c"][::-1], header["x5c"][:1]):
        changed = {**outer, "protected": _encoded(json.dumps({**header, "x5c": x5c}).encode())}
        with pytest.raises(CertificateError, match="not to be trusted"):
            check(json.dumps(changed).encode())
    stranger = CertificateAuthority(tmp_path / "stranger", common_name="Stranger CA")
    with pytest.raises(CertificateError, match="no CA certificate"):
        check(_certificate(bench, RobotProxy(stranger, [new_key(), new_key()], datetime.now(UTC))))
    with pytest.raises(CertificateError, match=r"is signed by /C=UK/O=Sandbox/CN=Robot$"):
        check(_certificate(bench, proxy), signer="/C=UK/O=Sandbox/CN=Another")


def _resigned(statement: Statement, proxy: RobotProxy, change: Callable[[Json], None]) -> bytes:
    """What a robot that lies would sign."""
    content = statement.model_dump()
    change(content)
    return proxy.sign(json.dumps(content).encode(), MEDIA_TYPE)


def _set(path: str, value: object) -> Callable[[Json], None]:
    *steps, last = path.split(".")

    def change(content: Any) -> None:
        for step in steps:
            content = content[int(step)] if step.isdigit() else content[step]
        content[int(last) if last.isdigit() else last] = value

    return change


def _drop_record(place: int) -> Callable[[Json], None]:
    return lambda content: content["custody"]["records"].pop(place)


def _unchain(content: Json) -> None:
    """A record that is right by itself, but not after the one before it."""
    record = content["custody"]["records"][1]
    record["previous"] = "1" * 64
    covered = [record[name] for name in ("previous", "seq", "at", "run", "by", "event", "facts")]
    record["hash"] = hashlib.sha256(json.dumps(covered, separators=(",", ":")).encode()).hexdigest()


LIES: dict[str, tuple[Callable[[Json], None], str]] = {
    "safe": (_set("run.state", "safe"), "does not follow from its custody records"),
    "released": (_set("run.released", {"at": "", "seq": 1, "how": ""}), "does not follow"),
    "another run": (_set("run.number", 7), "record 1 does not belong where it stands"),
    "another LFN": (_set("bundles.0.lfn", "x"), "speak of different things"),
    "a larger bundle": (_set("bundles.0.size_bytes", 1), "does not follow"),
    "another checksum": (_set("bundles.0.adler32", "00000001"), "does not follow"),
    "another digest": (_set("bundles.0.members.0.digests", {"sha256": "00"}), "does not follow"),
    "another member": (_set("bundles.0.members.0.name", "x"), "speak of different things"),
    "another place": (_set("bundles.0.replicas.1.surl", "root://x"), "does not follow"),
    "on tape": (_set("bundles.0.replicas.0.state", "archived"), "does not follow"),
    "no bundle": (_set("bundles", []), "speak of different things"),
    "no first record": (_drop_record(0), "never planned|different things"),
    "no last record": (_drop_record(-1), "does not follow"),
    "records the other way round": (lambda one: one["custody"]["records"].reverse(), "does not belong where it stands"),
    "a changed record": (_set("custody.records.0.by", "me@here"), "record 1 does not follow from the one before"),
    "a changed fact": (_set("custody.records.0.facts", "{}"), "record 1 does not follow from the one before"),
    "another hash before": (_set("custody.records.1.previous", "0" * 64), "record 2 does not follow"),
    "a record from another chain": (_unchain, "record 2 does not follow from the one before"),
    "an older head": (_set("custody.head_seq", 1), "the head of its chain"),
    "another head": (_set("custody.head_hash", "0" * 64), "the head of its chain"),
    "another type": (_set("type", "x"), "malformed: type"),
    "another version": (_set("version", 2), "malformed: version"),
    "a text as a number": (_set("bundles.0.size_bytes", "10240"), "malformed: bundles.0.size_bytes"),
    "true as a number": (_set("bundles.0.size_bytes", True), "malformed: bundles.0.size_bytes"),
    "a number as a text": (_set("experiment", 1), "malformed: experiment"),
    "no list": (_set("bundles", {}), "malformed: bundles"),
    "more": (_set("run.more", 1), "malformed: run.more"),
    "less": (lambda one: one.pop("software"), "malformed: software"),
    "no time": (_set("signed_at", "yesterday"), "is no time: 'yesterday'"),
    "no time at all": (lambda one: one.pop("signed_at"), "is no time"),
    "a time without a zone": (_set("signed_at", "2026-11-22T12:00:00"), "has no time zone"),
    "a time beyond all": (_set("signed_at", "0001-01-01T00:00:00+23:00"), "is no time"),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_signature_does_not_make_a_lie_pass(bench: Bench, proxy: RobotProxy, check: Check, lie: str) -> None:
    bench.close_run()
    bench.step(transfer, "tape")
    change, said = LIES[lie]
    statement = _state(bench)
    check(sign(statement, proxy))
    with pytest.raises(CertificateError, match=said):
        check(_resigned(statement, proxy, change))


def test_the_chain_is_judged_as_at_the_time_of_signing(
    bench: Bench, proxy: RobotProxy, authority: CertificateAuthority, keys: list[rsa.RSAPrivateKey], check: Check
) -> None:
    bench.close_run()
    # Long after the proxy has ended it is good still.
    later = datetime.now(UTC) + timedelta(days=30)
    check(_certificate(bench, proxy), now=later)
    for signed_at, said in (
        (proxy.chain[0].not_valid_after_utc, "has ended"),
        (proxy.chain[0].not_valid_before_utc - timedelta(minutes=6), "not valid yet"),
        (datetime.now(UTC) - timedelta(days=9), "not valid yet"),
    ):
        with pytest.raises(CertificateError, match=said):
            check(sign(_state(bench, signed_at), proxy), now=later)
    with pytest.raises(CertificateError, match="which is to come"):
        check(sign(_state(bench, datetime.now(UTC) + timedelta(minutes=30)), proxy))


HOSTILE: dict[str, tuple[bytes, str]] = {
    "a name twice": (b'{"signed_at": "a", "signed_at": "b"}', "a name stands twice"),
    "deep": (b'{"a":' * 200_000, "nested too deeply"),
    "no object": (b"[]", "no JSON object"),
    "no number": (b'{"a": NaN}', "NaN is no number"),
    "no text": (b"\xff", "no JSON"),
    "empty": (b"{}", "is no time"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_statements_are_refused(proxy: RobotProxy, check: Check, case: str) -> None:
    payload, said = HOSTILE[case]
    with pytest.raises(CertificateError, match=said):
        check(proxy.sign(payload, MEDIA_TYPE))


def test_a_statement_of_another_kind_is_no_certificate(bench: Bench, proxy: RobotProxy, check: Check) -> None:
    bench.close_run()
    with pytest.raises(CertificateError, match="this is no custody certificate"):
        check(proxy.sign(_state(bench).model_dump_json().encode(), "another+jws"))
    for text in (b"", b"[" * 100_000, b'{"payload": 1}', b"\x00" * 100, b" " * (17 << 20)):
        with pytest.raises(CertificateError, match="this is no custody certificate"):
            check(text)


def test_the_command_says_who_signed_when_and_how_far_that_goes(
    bench: Bench, proxy: RobotProxy, authority: CertificateAuthority, tmp_path: Path
) -> None:
    bench.make_safe()
    file = tmp_path / "4742.certificate"
    file.write_bytes(_certificate(bench, proxy))
    command = ["custody", "check", str(file), "--ca-directory", str(authority.directory)]
    checked = CliRunner().invoke(cli, command)
    assert checked.exit_code == 0, checked.output
    words = re.sub(r"\s+", " ", checked.output)
    for said in (
        f"run {RUN} of MICE is safe",
        f"signed by {ROBOT}",
        "as the signer says",
        "no trusted timestamp",
        "This does not prove",
        bench.endpoints["tape"].url(LFN),
    ):
        assert said in words
    as_json = json.loads(CliRunner().invoke(cli, [*command, "--json"]).output)
    assert (as_json["signer"], as_json["statement"]["run"]["number"]) == (ROBOT, RUN)
    piped = CliRunner().invoke(cli, ["custody", "check", "-", *command[3:]], input=file.read_bytes())
    assert piped.output == checked.output
    refused = CliRunner().invoke(cli, [*command, "--signer", "/CN=Another"])
    assert refused.exit_code == 7
    assert f"error: the certificate is not to be trusted: it is signed by {ROBOT}\nhint: " in refused.stderr
    file.write_bytes(file.read_bytes().replace(b'"payload": "ey', b'"payload": "ez'))
    refused = CliRunner().invoke(cli, command)
    assert (refused.exit_code, "Traceback" in refused.output) == (7, False)
    assert CliRunner().invoke(cli, ["custody", "check", str(tmp_path / "none")]).exit_code == 2


def test_a_run_that_is_not_safe_is_shown_so(
    bench: Bench, proxy: RobotProxy, authority: CertificateAuthority, tmp_path: Path
) -> None:
    bench.close_run()
    file = tmp_path / "4742.certificate"
    file.write_bytes(_certificate(bench, proxy))
    command = ["custody", "check", str(file), "--ca-directory", str(authority.directory)]
    assert f"run {RUN} of MICE is planned, NOT safe\n" in CliRunner().invoke(cli, command).output


def test_a_certificate_that_was_kept_shows_that_the_chain_was_cut_off_or_made_anew(
    bench: Bench, proxy: RobotProxy, authority: CertificateAuthority, tmp_path: Path
) -> None:
    config = tmp_path / "mover.toml"
    config.write_text(
        f'experiment = "MICE"\ncatalogue = "{bench.config.catalogue}"\n'
        f'[runs]\ndirectory = "{bench.config.runs.directory}"\n[bundle]\nlfn = "MICE/{{run:05d}}.tar"\n'
        f'[[endpoint]]\nname = "disk"\nsite = "here"\nkind = "disk"\nurl = "file://{tmp_path}/disk"\n'
        f'[credential]\nca_directory = "{authority.directory}"\n[policy.raw]\ntapes = 0\ntape_sites = 0\ndisks = 1\n'
    )
    bench.close_run()
    file = tmp_path / "4742.certificate"
    file.write_bytes(_certificate(bench, proxy))
    command = ["--config", str(config), "custody", "verify", "--certificate", str(file)]
    assert CliRunner().invoke(cli, command).exit_code == 0
    bench.spoiled = True
    with bench.catalogue.transaction() as connection:
        connection.execute("DROP TRIGGER custody_is_not_removed")
        connection.execute("DELETE FROM custody")
    refused = CliRunner().invoke(cli, command)
    assert refused.exit_code == 5
    assert "ends with record 0, but record 1 was noted" in refused.stderr
    file.write_bytes(b"{}")
    assert CliRunner().invoke(cli, command).exit_code == 7
