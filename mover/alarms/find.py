"""All alarms of a moment."""

from datetime import datetime

from mover.agentstate import AgentState
from mover.alarms.alarm import Alarm, Severity
from mover.alarms.box import credentials, daemons, disk, silent_endpoints
from mover.alarms.people import need_people
from mover.alarms.stuck import find_stuck
from mover.catalogue.database import Database
from mover.config import Config


def find_alarms(
    database: Database,
    config: Config,
    *,
    now: datetime,
    agents: tuple[AgentState, ...],
    fill_percent: float | None,
) -> tuple[Alarm, ...]:
    """What somebody should know of now, the most urgent first.

    Args:
        agents: what the credential agents say.
        fill_percent: how full the run directory's disk is; None if it cannot be looked at.

    Raises:
        CatalogueError: the catalogue cannot be read.
    """
    with database.snapshot():
        found = [
            *credentials(agents),
            *daemons(database, config),
            *disk(config, fill_percent),
            *silent_endpoints(database, config, now=now),
            *need_people(database, config, now=now),
            *find_stuck(database, config, now=now),
        ]
    return tuple(sorted(found, key=lambda one: one.severity is not Severity.CRITICAL))
