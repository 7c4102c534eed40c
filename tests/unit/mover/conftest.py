"""The fixtures that the tests of steps, lanes and engine share."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.mover.bench import Bench
from tests.unit.mover.running import News, SettableClock


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """A run that has ended and is not yet closed."""
    return Bench(tmp_path)


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
