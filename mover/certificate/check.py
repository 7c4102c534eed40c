"""Check a custody certificate without the catalogue, as at the time at which it says that it was signed."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from mover.catalogue.custody import Head, Link
from mover.catalogue.replay import replay
from mover.certificate import strictjson
from mover.certificate.statement import MEDIA_TYPE, Record, Statement, bundles_of, run_of
from mover.errors import CatalogueError, CertificateError
from proxyagent.client import ProxyAgentError, VerifiedChain, read_statement, verify_statement

MAX_CERTIFICATE_BYTES = 16 << 20
"""No certificate is longer; read one byte more at most."""

_SKEW = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class Checked:
    """A certificate that is what it claims to be. `signed_at` is the signer's word: nobody else has vouched for it."""

    statement: Statement
    signer: VerifiedChain
    signed_at: datetime


def check_certificate(text: bytes, ca_directory: Path, *, now: datetime, signer: str | None = None) -> Checked:
    """Check everything that can be checked without the catalogue and the storage.

    1. The form. 2. The chain, as at the claimed time, and the signature. 3. The signer, if one is wanted. 4. Each
    custody record against its hash, and against the one before it where that is there. 5. What is stated, against what
    follows from the records.

    Args:
        ca_directory: the CAs that are trusted, with their revocation lists.
        now: the time of day: nothing is signed in the future.
        signer: the end-entity certificate's name that it must be signed with, in slash form.

    Raises:
        CertificateError: it is not what it claims to be.
    """
    # 1
    try:
        jws = read_statement(text, MEDIA_TYPE)
    except ProxyAgentError as error:
        raise CertificateError(f"this is no custody certificate: {error.message}", hint=error.hint) from error
    content = strictjson.loads(jws.payload, "the statement")
    signed_at = _time(content.get("signed_at"))
    # 2
    try:
        chain = verify_statement(jws, ca_directory, signed_at)
    except ProxyAgentError as error:
        raise _wrong(f"signed at {signed_at:%Y-%m-%d %H:%M:%SZ}, {error.message}", error.hint) from error
    if signed_at > now + _SKEW:
        raise _wrong(f"it says that it was signed at {signed_at:%Y-%m-%d %H:%M:%SZ}, which is to come")
    # 3
    if signer is not None and signer != chain.identity:
        raise _wrong(f"it is signed by {chain.identity}")
    # 4
    statement = _statement(content)
    links = _links(statement)
    # 5
    _check_stated(statement, links)
    return Checked(statement, chain, signed_at)


def _statement(content: dict[str, Any]) -> Statement:
    try:
        return Statement.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(step) for step in first["loc"])
        raise _wrong(f"its statement is malformed: {where}: {first['msg']}") from error


def _time(text: object) -> datetime:
    try:
        at = datetime.fromisoformat(text if isinstance(text, str) else "")
    except ValueError as error:
        raise _wrong(f"its time of signing is no time: {text!r}") from error
    if at.utcoffset() is None:
        raise _wrong(f"its time of signing has no time zone: {text!r}")
    try:
        return at.astimezone(UTC)
    except OverflowError as error:
        raise _wrong(f"its time of signing is no time: {text!r}") from error


def _links(statement: Statement) -> list[Link]:
    """The records, each of them right by itself and following from the one before it."""
    head = Head(statement.custody.head_seq, statement.custody.head_hash)
    links = [_link(record) for record in statement.custody.records]
    place = Head(0, "")
    for link in links:
        try:
            link.check()
        except CatalogueError as error:
            raise _wrong(error.message) from error
        if link.run != statement.run.number or link.seq <= place.seq:
            raise _wrong(f"custody record {link.seq} does not belong where it stands")
        if link.seq == place.seq + 1 and place.hash and link.previous != place.hash:
            raise _wrong(f"custody record {link.seq} does not follow from the one before it")
        place = Head(link.seq, link.hash)
    if place.seq > head.seq or (place.seq == head.seq and place != head):
        raise _wrong("the head of its chain is not that of its last record")
    return links


def _check_stated(statement: Statement, links: list[Link]) -> None:
    places = {one.endpoint: (one.site, one.kind) for bundle in statement.bundles for one in bundle.replicas}
    sizes = {(bundle.lfn, one.name): one.size_bytes for bundle in statement.bundles for one in bundle.members}
    try:
        story = replay(statement.run.number, [link.record() for link in links])
        for bundle in statement.bundles:
            for replica in bundle.replicas:
                story.want(bundle.lfn, replica.endpoint)
        stated = run_of(story), bundles_of(story, places, sizes)
    except CatalogueError as error:
        raise _wrong(error.message) from error
    except KeyError as error:
        raise _wrong(f"its records and its statement speak of different things: {error}") from error
    if stated != (statement.run, statement.bundles):
        raise _wrong("what it states does not follow from its custody records")


def _link(record: Record) -> Link:
    return Link(record.seq, record.at, record.run, record.by, record.event, record.facts, record.previous, record.hash)


def _wrong(why: str, hint: str = "ask who keeps the catalogue for another") -> CertificateError:
    return CertificateError(f"the certificate is not to be trusted: {why}", hint=hint)
