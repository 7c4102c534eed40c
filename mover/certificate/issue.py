"""Make a run's custody certificate: what the records say of it, if the catalogue agrees, signed."""

from collections.abc import Mapping
from datetime import datetime
from importlib import metadata
from typing import Protocol

from mover.catalogue import custody
from mover.catalogue.agreement import of_run
from mover.catalogue.database import Database
from mover.catalogue.replay import replay
from mover.catalogue.runs import get_run
from mover.certificate.statement import (
    MEDIA_TYPE,
    TYPE,
    VERSION,
    Custody,
    Place,
    Software,
    Statement,
    bundles_of,
    record_of,
    run_of,
)
from mover.errors import CatalogueError, CredentialError
from proxyagent.client import ProxyAgentError

_DISTRIBUTION = "end-of-run-mover"


class Signer(Protocol):
    """A Grid proxy in memory, with its key."""

    def sign(self, payload: bytes, media_type: str) -> bytes:
        """The payload as a JWS, with the proxy's chain in its header."""


def make_statement(
    database: Database, run: int, *, experiment: str, places: Mapping[str, Place], now: datetime
) -> Statement:
    """What the catalogue knows of a run at this moment, whether it is safe or not.

    Args:
        places: site and kind of the configured endpoints by name.

    Raises:
        CatalogueError: the run is not known, or the catalogue contradicts itself: that is not signed.
    """
    with database.snapshot():
        get_run(database, run)
        for contradiction in of_run(database, run):
            raise CatalogueError(
                f"no certificate of a catalogue that contradicts itself: {contradiction}",
                hint="`mover catalogue check` shows all of it; restore a backup that is well",
            )
        links = custody.links(database, run)
        for link in links:
            link.check()
        story = replay(run, [link.record() for link in links])
        for row in database.query(
            "SELECT lfn, endpoint FROM replica JOIN bundle ON bundle.id = replica.bundle_id WHERE run = ?", run
        ):
            story.want(row["lfn"], row["endpoint"])
        sizes = {
            (row["lfn"], row["name"]): row["size_bytes"]
            for row in database.query(
                "SELECT lfn, name, member.size_bytes FROM member JOIN bundle ON bundle.id = bundle_id WHERE run = ?",
                run,
            )
        }
        head = custody.head(database)
    return Statement(
        type=TYPE,
        version=VERSION,
        experiment=experiment,
        signed_at=now.isoformat(timespec="seconds"),
        software=Software(name=_DISTRIBUTION, version=metadata.version(_DISTRIBUTION)),
        run=run_of(story),
        bundles=bundles_of(story, places, sizes),
        custody=Custody(head_seq=head.seq, head_hash=head.hash, records=[record_of(link) for link in links]),
    )


def sign(statement: Statement, proxy: Signer) -> bytes:
    """The certificate: a JWS (RFC 7515) with the statement as its payload.

    Raises:
        CredentialError: the proxy has ended.
    """
    try:
        return proxy.sign(statement.model_dump_json().encode("utf-8"), MEDIA_TYPE)
    except ProxyAgentError as error:
        raise CredentialError(f"the certificate cannot be signed: {error.message}", hint=error.hint) from error
