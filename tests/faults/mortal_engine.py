"""The engine, in a process that dies where it is told to: ``python -m tests.faults.mortal_engine CONFIG JOURNAL RUN…``.

Works until every run is safe and nothing is left to do for it, then releases the runs if ``--release`` is given, and
ends with 0. With ``--die PATTERN`` it kills itself at the first boundary (`boundaries`) that matches.
``--tape-double NAME=DIRECTORY`` stands a directory in for the configured tape endpoint NAME.
"""

import argparse
import logging
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path

from mover.catalogue.database import Database
from mover.catalogue.replicas import replicas_of
from mover.catalogue.runs import find_run
from mover.config import Config, load_config
from mover.engine import Engine
from mover.errors import CatalogueError
from mover.lane import OpenEndpoints
from mover.ports import StorageEndpoint
from mover.states import ReplicaState, RunState
from mover.steps.release import release_run
from mover.storage.file import FileEndpoint
from mover.wiring import SystemClock, endpoint_factory
from tests.faults.boundaries import Boundaries
from tests.faults.tape_double import DirectoryTape

_SECONDS = 150.0
_HEAD_START_SECONDS = 0.3
_LOOK_SECONDS = 0.05


def main() -> int:
    """Work, and perhaps die."""
    parser = argparse.ArgumentParser()
    parser.add_argument("config", type=Path)
    parser.add_argument("journal", type=Path)
    parser.add_argument("runs", type=int, nargs="+")
    parser.add_argument("--die")
    parser.add_argument("--release", action="store_true")
    parser.add_argument("--tape-double", action="append", default=[])
    asked = parser.parse_args()
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.WARNING)
    logging.getLogger("mover").setLevel(logging.INFO)
    config = load_config(asked.config)
    boundaries = Boundaries(asked.journal, asked.die)
    open_endpoints = _factory(config, asked.tape_double, boundaries)
    boundaries.watch_catalogue()
    boundaries.watch_removals()
    if not _work(config, open_endpoints, asked.runs):
        return 1
    if asked.release:
        database = Database(config.catalogue)
        for run in asked.runs:
            if _state(database, run) is not RunState.RELEASED:
                release_run(database, config, run, open_endpoints(), clock=SystemClock())
        database.close()
    return 0


def _factory(config: Config, doubles: list[str], boundaries: Boundaries) -> OpenEndpoints:
    """What makes adapters for a thread, each counted."""
    stand_ins = dict(one.split("=", 1) for one in doubles)

    def stand_in() -> Mapping[str, StorageEndpoint]:
        return {
            place.name: DirectoryTape(place.name, Path(stand_ins[place.name]))
            if place.name in stand_ins
            else FileEndpoint(name=place.name, base_url=place.url)
            for place in config.endpoint
        }

    make = stand_in if stand_ins else endpoint_factory(config)
    return lambda: {name: boundaries.watch_endpoint(endpoint) for name, endpoint in make().items()}


def _work(config: Config, open_endpoints: OpenEndpoints, runs: list[int]) -> bool:
    """Run the engine until the runs are done; False if they are not in time."""
    engine = Engine(config, open_endpoints, SystemClock())
    done = threading.Event()

    def watch() -> None:
        deadline = time.monotonic() + _SECONDS
        # Not before the engine has made the catalogue: whoever opens it brings its schema up to date.
        time.sleep(_HEAD_START_SECONDS)
        while time.monotonic() < deadline and not done.is_set():
            if _all_done(config, runs):
                done.set()
            time.sleep(_LOOK_SECONDS)
        engine.stop()

    watcher = threading.Thread(target=watch, name="watcher", daemon=True)
    watcher.start()
    engine.run()
    return done.is_set()


def _all_done(config: Config, runs: list[int]) -> bool:
    try:
        database = Database(config.catalogue)
    except CatalogueError:
        return False  # the engine has not made it yet
    try:
        return all(_is_done(database, config, run) for run in runs)
    finally:
        database.close()


def _is_done(database: Database, config: Config, run: int) -> bool:
    tapes = {place.name for place in config.endpoint if place.kind == "tape"}
    finished = all(
        replica.state is (ReplicaState.ARCHIVED if replica.endpoint in tapes else ReplicaState.VERIFIED)
        for replica in replicas_of(database, run)
    )
    return finished and _state(database, run) in {RunState.SAFE, RunState.RELEASED}


def _state(database: Database, run: int) -> RunState:
    found = find_run(database, run)
    return found.state if found else RunState.UNKNOWN


if __name__ == "__main__":
    sys.exit(main())
