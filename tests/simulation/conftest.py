"""What the simulations share."""

import logging
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """A simulated life logs megabytes; the tests that come after it in this process want to hear the mover again."""
    logger = logging.getLogger("mover")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    yield
    logger.setLevel(level)
