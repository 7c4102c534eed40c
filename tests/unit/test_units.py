"""The systemd units: nothing secret is swapped or dumped, and each is as little exposed as it can be."""

import configparser
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.test_docs import check_command_line

ROOT = Path(__file__).parents[2]
UNITS = ROOT / "systemd"
SERVICES = sorted(UNITS.glob("*.service"))
OTHERS = sorted(path for path in UNITS.iterdir() if path.suffix in {".socket", ".timer", ".path"})
EXPOSURE = {
    "proxyagent.service": 1.5,
    "proxyagent-renew@.service": 1.5,
    "proxyagent-voms.service": 2.0,
    "mover.service": 3.0,
    "mover-reco.service": 3.0,  # jobs run behind it: what it may not, they may not
    "mover-audit.service": 3.0,
    "mover-close.service": 1.5,
    "mover-close@.service": 1.5,
}
ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"}


def settings(unit: Path) -> dict[str, str]:
    """The [Service] section; of settings that stand there several times, the last one."""
    parser = configparser.RawConfigParser(strict=False, comment_prefixes=("#",))
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # names of settings are case-sensitive
    parser.read_string(unit.read_text())
    return dict(parser["Service"])


def need(program: str) -> None:
    if shutil.which(program) is None:
        pytest.skip("needs the package systemd")


@pytest.mark.parametrize("unit", SERVICES, ids=lambda unit: unit.name)
def test_no_proxy_and_no_pin_is_swapped_or_dumped(unit: Path) -> None:
    values = settings(unit)
    assert values["MemorySwapMax"] == "0"
    assert values["LimitCORE"] == "0"
    assert values["NoNewPrivileges"] == "yes"


@pytest.mark.parametrize("unit", SERVICES, ids=lambda unit: unit.name)
def test_only_what_asks_for_the_pin_is_root_and_without_any_capability(unit: Path) -> None:
    values = settings(unit)
    assert (values["User"] == "root") == (unit.name == "proxyagent-renew@.service")
    assert values["CapabilityBoundingSet"] == ""
    assert values["AmbientCapabilities"] == ""


@pytest.mark.parametrize("name", ["proxyagent.service", "proxyagent-renew@.service"])
def test_the_agent_and_what_asks_for_the_pin_have_no_network(name: str) -> None:
    values = settings(UNITS / name)
    assert values["RestrictAddressFamilies"] == "AF_UNIX"
    assert values["PrivateNetwork"] == "yes"


@pytest.mark.parametrize(
    "name", ["proxyagent.service", "proxyagent-voms.service", "mover.service", "mover-reco.service"]
)
def test_systemd_watches_the_daemons(name: str) -> None:
    values = settings(UNITS / name)
    assert values["Type"] == "notify"
    assert values["WatchdogSec"]


def test_jobs_outlive_the_reco_agent_and_keep_their_files() -> None:
    values = settings(UNITS / "mover-reco.service")
    assert values["KillMode"] == "process"
    assert "PrivateTmp" not in values  # it would be removed with the agent
    assert "RemoveIPC" not in values


def test_the_question_for_the_pin_ends_with_its_device() -> None:
    text = (UNITS / "proxyagent-renew@.service").read_text()
    assert "\nBindsTo=%i.device\n" in text
    assert re.search(r"^After=.*%i\.device", text, re.MULTILINE)


@pytest.mark.parametrize("unit", SERVICES, ids=lambda unit: unit.name)
def test_the_exposure_is_low(unit: Path) -> None:
    need("systemd-analyze")
    shown = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", str(unit)],
        capture_output=True,
        text=True,
        check=False,  # it fails above a threshold of its own
        timeout=60,
        env=ENVIRONMENT,
    )
    found = re.search(r"Overall exposure level for \S+: (\d+\.\d+)", shown.stdout)
    assert found is not None, shown.stderr
    assert float(found[1]) <= EXPOSURE[unit.name]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All units, with programs that are here."""
    directory = tmp_path_factory.mktemp("units")
    for unit in (*SERVICES, *OTHERS):
        text = unit.read_text().replace("/opt/mover/bin/", f"{Path(sys.executable).parent}/")
        (directory / unit.name).write_text(text)
    drop_in = directory / "proxyagent.service.d"
    drop_in.mkdir()
    shutil.copy(UNITS / "examples/sealed-pin.conf", drop_in)
    return directory


@pytest.mark.parametrize("unit", [*SERVICES, *OTHERS], ids=lambda unit: unit.name)
def test_systemd_finds_nothing_wrong(unit: Path, installed: Path) -> None:
    need("systemd-analyze")
    name = unit.name.replace("@.", "@4742.")
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", name],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={**ENVIRONMENT, "SYSTEMD_UNIT_PATH": f"{installed}:/usr/lib/systemd/system"},
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("command", sorted({settings(unit)["ExecStart"] for unit in SERVICES}))
def test_the_commands_of_the_units_exist(command: str) -> None:
    check_command_line(command.removeprefix("/opt/mover/bin/").replace("%i", "4742"))


def test_users_and_directories_are_in_order_for_systemd(tmp_path: Path) -> None:
    need("systemd-sysusers")
    (tmp_path / "etc").mkdir()
    for program, name in (("systemd-sysusers", "sysusers.d"), ("systemd-tmpfiles", "tmpfiles.d")):
        create = ["--create"] if program == "systemd-tmpfiles" else []
        done = subprocess.run(
            [program, *create, f"--root={tmp_path}", str(UNITS / name / "mover.conf")],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
            env=ENVIRONMENT,
        )
        assert done.returncode == 0, done.stderr
    users = {line.split(":")[0] for line in (tmp_path / "etc/passwd").read_text().splitlines()}
    assert {settings(unit)["User"] for unit in SERVICES} - {"root"} <= users
    members = {line.split(":")[0]: line.split(":")[3] for line in (tmp_path / "etc/group").read_text().splitlines()}
    assert set(members["proxyagent-clients"].split(",")) == {"mover", "mover-reco", "proxyagent-voms"}
    assert members["mover-trigger"] == ""
    modes = {path: (tmp_path / path).stat().st_mode & 0o7777 for path in ("var/lib/mover", "var/spool/mover/ended")}
    assert modes == {"var/lib/mover": 0o2770, "var/spool/mover/ended": 0o3730}
