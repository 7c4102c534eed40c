"""Custody certificates: nothing that was changed, forged or signed by others passes."""

import hashlib
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from mover.certificate.issue import sign
from mover.certificate.statement import MEDIA_TYPE, Statement
from mover.errors import CertificateError
from mover.sandbox.ca import CertificateAuthority
from mover.steps.transfer import transfer
from proxyagent.request import new_key
from tests.unit.mover.bench import Bench
from tests.unit.mover.certificate.robot import Check, Json, RobotProxy, certificate_of, encoded, raw, statement_of


def test_any_byte_that_is_changed_is_noticed(bench: Bench, proxy: RobotProxy, check: Check) -> None:
    bench.close_run()
    certificate = certificate_of(bench, proxy)
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
    outer = json.loads(certificate_of(bench, proxy))
    header = json.loads(raw(outer["protected"]))
    other = RobotProxy(authority, [new_key(), new_key()], datetime.now(UTC))
    theirs = json.loads(raw(json.loads(certificate_of(bench, other))["protected"]))["x5c"]
    for x5c in (theirs, [theirs[0], header["x5c"][1]], header["x5c"][::-1], header["x5c"][:1]):
        changed = {**outer, "protected": encoded(json.dumps({**header, "x5c": x5c}).encode())}
        with pytest.raises(CertificateError, match="not to be trusted"):
            check(json.dumps(changed).encode())
    stranger = CertificateAuthority(tmp_path / "stranger", common_name="Stranger CA")
    with pytest.raises(CertificateError, match="no CA certificate"):
        check(certificate_of(bench, RobotProxy(stranger, [new_key(), new_key()], datetime.now(UTC))))
    with pytest.raises(CertificateError, match=r"is signed by /C=UK/O=Sandbox/CN=Robot$"):
        check(certificate_of(bench, proxy), signer="/C=UK/O=Sandbox/CN=Another")


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
    statement = statement_of(bench)
    check(sign(statement, proxy))
    with pytest.raises(CertificateError, match=said):
        check(_resigned(statement, proxy, change))


def test_the_chain_is_judged_as_at_the_time_of_signing(
    bench: Bench, proxy: RobotProxy, authority: CertificateAuthority, keys: list[rsa.RSAPrivateKey], check: Check
) -> None:
    bench.close_run()
    # Long after the proxy has ended it is good still.
    later = datetime.now(UTC) + timedelta(days=30)
    check(certificate_of(bench, proxy), now=later)
    for signed_at, said in (
        (proxy.chain[0].not_valid_after_utc, "has ended"),
        (proxy.chain[0].not_valid_before_utc - timedelta(minutes=6), "not valid yet"),
        (datetime.now(UTC) - timedelta(days=9), "not valid yet"),
    ):
        with pytest.raises(CertificateError, match=said):
            check(sign(statement_of(bench, signed_at), proxy), now=later)
    with pytest.raises(CertificateError, match="which is to come"):
        check(sign(statement_of(bench, datetime.now(UTC) + timedelta(minutes=30)), proxy))


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
        check(proxy.sign(statement_of(bench).model_dump_json().encode(), "another+jws"))
    for text in (b"", b"[" * 100_000, b'{"payload": 1}', b"\x00" * 100, b" " * (17 << 20)):
        with pytest.raises(CertificateError, match="this is no custody certificate"):
            check(text)
