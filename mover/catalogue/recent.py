"""What happened of late, by the end of the custody chain: its records are in the order of time."""

from datetime import datetime

from mover.catalogue.database import Database
from mover.states import ReplicaEvent

#: No more of the chain's end is looked at, so that a look takes a moment whatever happened.
_MOST_RECORDS = 20_000


def proven_bytes(database: Database, *, since: datetime) -> dict[str, int]:
    """The bytes of the replicas that were verified since then, by endpoint."""
    rows = database.query(
        "SELECT json_extract(facts, '$.endpoint') AS endpoint, sum(bundle.size_bytes) AS bytes FROM custody "
        "JOIN bundle ON bundle.lfn = json_extract(facts, '$.lfn') "
        "WHERE custody.seq > (SELECT coalesce(max(seq), 0) FROM custody) - ? AND custody.at >= ? "
        "AND custody.event = ? GROUP BY 1",
        _MOST_RECORDS,
        since.isoformat(),
        ReplicaEvent.CHECKED,
    )
    return {row["endpoint"]: row["bytes"] for row in rows}
