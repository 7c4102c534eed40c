"""The systemd units: no swap and no dumps where proxies are, and as little exposed as each can be."""

import configparser
import re
import shutil
import subprocess
from pathlib import Path

import pytest

UNITS = Path(__file__).parents[2] / "systemd"
SERVICES = sorted(UNITS.glob("*.service"))
EXPOSURE = {"proxyagent.service": 1.5, "proxyagent-voms.service": 2.0, "mover.service": 3.0}


def settings(unit: Path) -> dict[str, str]:
    """The [Service] section; of settings that stand there several times, the last one."""
    parser = configparser.RawConfigParser(strict=False, comment_prefixes=("#",))
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # names of settings are case-sensitive
    parser.read_string(unit.read_text())
    return dict(parser["Service"])


@pytest.mark.parametrize("unit", SERVICES, ids=lambda unit: unit.name)
def test_no_proxy_is_swapped_or_dumped(unit: Path) -> None:
    values = settings(unit)
    assert values["MemorySwapMax"] == "0"
    assert values["LimitCORE"] == "0"
    assert values["NoNewPrivileges"] == "yes"
    assert values["User"] not in {"", "root"}


def test_the_agent_has_no_network() -> None:
    values = settings(UNITS / "proxyagent.service")
    assert values["RestrictAddressFamilies"] == "AF_UNIX"
    assert values["PrivateNetwork"] == "yes"


@pytest.mark.parametrize("unit", SERVICES, ids=lambda unit: unit.name)
def test_the_exposure_is_low(unit: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("needs the package systemd")
    shown = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", str(unit)],
        capture_output=True,
        text=True,
        check=False,  # it fails above a threshold of its own
        timeout=60,
        env={"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"},
    )
    found = re.search(r"Overall exposure level for \S+: (\d+\.\d+)", shown.stdout)
    assert found is not None, shown.stderr
    assert float(found[1]) <= EXPOSURE[unit.name]
