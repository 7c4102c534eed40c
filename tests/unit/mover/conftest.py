"""The fixtures that the tests of steps, lanes and engine share."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from mover.catalogue import custody
from mover.catalogue.agreement import disagreements
from mover.catalogue.database import Database
from tests.unit.mover.bench import Bench
from tests.unit.mover.running import News, SettableClock, tune


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """A run that has ended and is not yet closed. Whatever the test does, the custody records must explain it."""
    made = Bench(tmp_path)
    yield made
    if not made.spoiled:
        database = Database(made.config.catalogue, read_only=True)
        custody.verify(database)
        assert not list(disagreements(database))
        database.close()


@pytest.fixture
def looks_often(bench: Bench) -> None:
    """The bench's engine looks for ended runs many times a second."""
    tune(bench, "runs", poll_seconds=0.05)


@pytest.fixture
def clock() -> SettableClock:
    """It stands still until a test moves it."""
    return SettableClock()


@pytest.fixture
def news() -> Iterator[News]:
    """What the engine says."""
    logger, heard = logging.getLogger("mover"), News()
    level = logger.level
    logger.addHandler(heard)
    logger.setLevel(logging.INFO)
    yield heard
    logger.setLevel(level)
    logger.removeHandler(heard)


@pytest.fixture(autouse=True)
def _own_certificate_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    """`wiring` sets it for the whole process, and the real servers' tests of this process have set theirs."""
    monkeypatch.setenv("X509_CERT_DIR", "/nowhere/of/a/unit/test")
