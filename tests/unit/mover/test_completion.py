"""What a shell completes: commands, options, endpoints, campaigns, releases; and nothing, quietly, where it cannot."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mover.catalogue.approvals import approve_release
from tests.unit.mover.bench import NOW
from tests.unit.mover.reco.campaignbench import CampaignBench

Complete = Callable[[str], list[str]]


def _complete(line: str) -> list[str]:
    """What bash would offer for a line that ends where the cursor is."""
    words = line.split(" ")
    environment = {
        **os.environ,
        "_MOVER_COMPLETE": "bash_complete",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(words) - 1),
    }
    done = subprocess.run(
        [sys.executable, "-m", "mover"], env=environment, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.stderr == ""
    return [one.partition(",")[2] for one in done.stdout.splitlines() if one]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A configuration with endpoints, a campaign, and releases."""
    bench = CampaignBench(tmp_path)
    bench.create(start=False)
    for name in ("0.4.1", "0.5.0"):
        approve_release(bench.catalogue, name, now=NOW)
    return bench.write_config(tmp_path / "mover.toml")


def test_commands_and_options_are_completed() -> None:
    assert _complete("mover wh") == ["why"]
    assert _complete("mover run qua") == ["quarantine"]
    assert "--reason" in _complete("mover run quarantine --")


def test_endpoints_campaigns_and_releases_are_completed(config: Path) -> None:
    mover = f"mover --config {config}"
    assert _complete(f"{mover} audit --endpoint ") == ["tape", "disk"]
    assert _complete(f"{mover} adopt --endpoint t") == ["tape"]
    assert _complete(f"{mover} campaign start ") == ["1"]
    assert _complete(f"{mover} campaign create --release 0.5") == ["0.5.0"]


def test_where_nothing_can_be_read_nothing_is_completed(config: Path, tmp_path: Path) -> None:
    assert _complete(f"mover --config {tmp_path}/none audit --endpoint ") == []
    for file in tmp_path.glob("catalogue.sqlite*"):
        file.unlink()
    assert _complete(f"mover --config {config} campaign start ") == []


def test_the_shells_get_their_scripts() -> None:
    for shell in ("bash", "zsh", "fish"):
        environment = {**os.environ, "_MOVER_COMPLETE": f"{shell}_source"}
        done = subprocess.run(
            [sys.executable, "-m", "mover"], env=environment, capture_output=True, text=True, check=True, timeout=120
        )
        assert "_MOVER_COMPLETE" in done.stdout
