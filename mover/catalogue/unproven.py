"""Replicas that were proven, and turned out to be lost or wrong: with what that means for their run, all at once."""

from collections.abc import Iterable
from datetime import datetime

from mover.catalogue import custody
from mover.catalogue.database import Database
from mover.catalogue.replicas import ReplicaRecord
from mover.catalogue.runs import move_run, state_of
from mover.errors import MoverError
from mover.model import BundleKind
from mover.states import ReplicaEvent, RunEvent, RunState, next_replica_state


def record_unproven(
    database: Database,
    run: int,
    *,
    lost: Iterable[ReplicaRecord],
    wrong: Iterable[tuple[ReplicaRecord, MoverError]],
    now: datetime,
) -> None:
    """What is lost is wanted again, what is wrong is quarantined, and a run whose raw data it is is not safe any more.

    Looking may have taken hours: a replica that has changed its state since it was looked up is left as it is.

    Raises:
        CatalogueError: the state table forbids it: one of them was not proven.
    """
    found: list[tuple[ReplicaRecord, ReplicaEvent, MoverError | None]] = [
        *((one, ReplicaEvent.MISSING, None) for one in lost),
        *((one, ReplicaEvent.GAVE_UP, problem) for one, problem in wrong),
    ]
    at = now.isoformat()
    with database.transaction() as connection:
        changed: dict[ReplicaEvent, list[str]] = {ReplicaEvent.MISSING: [], ReplicaEvent.GAVE_UP: []}
        for replica, event, problem in found:
            state = next_replica_state(replica.state, event, subject=f"run {run} at {replica.endpoint}")
            row = connection.execute(
                "UPDATE replica SET state = ?, since = ?, next_attempt_at = ?, problem = ?, hint = ? "
                "WHERE id = ? AND state = ? AND since = ? "
                "RETURNING (SELECT lfn FROM bundle WHERE bundle.id = bundle_id) AS lfn, "
                "(SELECT kind FROM bundle WHERE bundle.id = bundle_id) AS kind",
                (
                    state,
                    at,
                    at,
                    problem and problem.message,
                    problem and problem.hint,
                    replica.id,
                    replica.state,
                    replica.since.isoformat(),
                ),
            ).fetchone()
            if row is None:
                continue
            facts = {"problem": problem.message} if problem else {}
            custody.append(connection, now, run, event, lfn=row["lfn"], endpoint=replica.endpoint, **facts)
            # Whether a run is safe is a question of its raw data.
            if row["kind"] == BundleKind.RAW:
                changed[event].append(replica.endpoint)
        gone, bad = changed[ReplicaEvent.MISSING], changed[ReplicaEvent.GAVE_UP]
        if (gone or bad) and state_of(connection, run) is RunState.SAFE:
            move_run(connection, run, RunEvent.REPLICA_LOST, now, endpoints=gone, wrong=bad)
