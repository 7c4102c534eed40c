"""Where real raw data lies: tests that want it skip where it is not."""

import os
from pathlib import Path

import pytest


def real_file(name: str) -> Path:
    """The real file of that name, from MOVER_REAL_DATA or from the folder `shared/data` beside the checkout."""
    beside = Path(__file__).parents[2] / "shared" / "data"
    file = Path(os.environ.get("MOVER_REAL_DATA", beside)) / name
    if not file.exists():
        pytest.skip(f"there is no real file {file}; set MOVER_REAL_DATA to the folder that has it")
    return file
