"""What a custody certificate states of a run: JSON with these names and types, and no others (docs/catalogue.md)."""

from collections.abc import Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict

from mover.catalogue.custody import CustodyRecord, Link
from mover.catalogue.replay import BundleStory, ReplicaStory, RunStory
from mover.states import ReplicaState

MEDIA_TYPE = "mover-custody+jws"
"""The `typ` of a certificate's header (RFC 7515 section 4.1.9)."""

TYPE: Literal["mover-custody-certificate"] = "mover-custody-certificate"
VERSION: Literal[1] = 1


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Proof(_Part):
    """The custody record on which a state rests."""

    at: str
    seq: int
    how: str


class Member(_Part):
    """A file in the bundle."""

    name: str
    size_bytes: int
    digests: dict[str, str]


class Replica(_Part):
    """A copy of the bundle. `site` and `kind` are as configured where the certificate was made."""

    endpoint: str
    site: str | None
    kind: str | None
    surl: str | None
    state: str
    copied: Proof | None
    verified: Proof | None
    archived: Proof | None


class Bundle(_Part):
    """What the run was packaged into; `adler32` and `members` are of one complete reading, if there was one."""

    kind: str
    lfn: str
    size_bytes: int
    adler32: str | None
    members: list[Member]
    replicas: list[Replica]


class Run(_Part):
    """The run, and the records that say that its policy held and that its local files were removed."""

    number: int
    state: str
    safe: Proof | None
    released: Proof | None


class Record(_Part):
    """A custody record as it stands in the chain: the texts that its hash covers, and the hash before it."""

    seq: int
    at: str
    run: int
    by: str
    event: str
    facts: str
    previous: str
    hash: str


class Custody(_Part):
    """The run's records, and the last record of the whole chain at the time of signing."""

    head_seq: int
    head_hash: str
    records: list[Record]


class Software(_Part):
    """What made the certificate."""

    name: str
    version: str


class Statement(_Part):
    """All of it."""

    type: Literal["mover-custody-certificate"]
    version: Literal[1]
    experiment: str
    signed_at: str
    software: Software
    run: Run
    bundles: list[Bundle]
    custody: Custody


Place = tuple[str | None, str | None]
"""Site and kind of an endpoint."""


def run_of(story: RunStory) -> Run:
    """What the records say of the run."""
    return Run(
        number=story.run,
        state=story.state.value,
        safe=_proof(story.safe, _found(story.safe)),
        released=_proof(story.released, "the local files were removed, after another look at the storage"),
    )


def bundles_of(story: RunStory, places: Mapping[str, Place], sizes: Mapping[tuple[str, str], int]) -> list[Bundle]:
    """What the records say of the bundles.

    Args:
        places: of the endpoints by name; the records do not have them.
        sizes: of the members in bytes, by LFN and name; the records do not have them.
    """
    return [_bundle(bundle, places, sizes) for _, bundle in sorted(story.bundles.items())]


def record_of(link: Link) -> Record:
    """The record as the certificate has it."""
    return Record(
        seq=link.seq, at=link.at, run=link.run, by=link.by, event=link.event, facts=link.facts,
        previous=link.previous, hash=link.hash,
    )  # fmt: skip


def _bundle(bundle: BundleStory, places: Mapping[str, Place], sizes: Mapping[tuple[str, str], int]) -> Bundle:
    members = [
        Member(name=name, size_bytes=sizes[bundle.lfn, name], digests=digests)
        for name, digests in sorted((bundle.members or {}).items())
    ]
    return Bundle(
        kind=bundle.kind.value,
        lfn=bundle.lfn,
        size_bytes=bundle.size_bytes,
        adler32=bundle.adler32,
        members=members,
        replicas=[_replica(one, places.get(name, (None, None))) for name, one in sorted(bundle.replicas.items())],
    )


def _replica(replica: ReplicaStory, place: Place) -> Replica:
    proofs = {state: _proof(record, _how(state, record)) for state, record in replica.proofs.items()}
    return Replica(
        endpoint=replica.endpoint,
        site=place[0],
        kind=place[1],
        surl=replica.url,
        state=replica.state.value,
        copied=proofs.get(ReplicaState.COPIED),
        verified=proofs.get(ReplicaState.VERIFIED),
        archived=proofs.get(ReplicaState.ARCHIVED),
    )


def _proof(record: CustodyRecord | None, how: str) -> Proof | None:
    return None if record is None else Proof(at=record.at.isoformat(), seq=record.seq, how=how)


def _how(state: ReplicaState, record: CustodyRecord) -> str:
    route, source, checksum = (_fact(record, name) for name in ("route", "source", "checksum"))
    if state is ReplicaState.COPIED:
        return (route or "copied") + (f" from {source}" if source else "")
    asked = "size and adler32" if state is ReplicaState.VERIFIED else "size, adler32 and tape state"
    return f"{asked} as planned, by a fresh query" + (f"; adler32 {checksum}" if checksum else "")


def _found(record: CustodyRecord | None) -> str:
    """What the record says of itself, such as 'safe: 2 tapes at 2 sites, 1 disk'."""
    return (record and _fact(record, "found")) or "the replica policy held"


def _fact(record: CustodyRecord, name: str) -> str | None:
    value = record.facts.get(name)
    return value if isinstance(value, str) else None
