"""The fixture that the tests of steps, lanes and engine share."""

from pathlib import Path

import pytest

from tests.unit.mover.bench import Bench


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """A run that has ended and is not yet closed."""
    return Bench(tmp_path)
