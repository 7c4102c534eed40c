"""Two robots at one site: each service has only its own profile, and storage lets the reco robot write only outputs."""

import os
import re
import subprocess
from collections.abc import Iterable
from pathlib import Path

import pytest

from mover.sandbox.ca import slash_name
from mover.sandbox.service import MOVER, RECO, Service, are_separate
from mover.sandbox.site import Site
from mover.sandbox.xrootd import StorageServer

SECONDS = 120.0


@pytest.fixture
def storage(site: Site, request: pytest.FixtureRequest) -> StorageServer:
    """The endpoint of that name."""
    found: StorageServer = getattr(site, request.param)
    return found


def run_as(service: Service, site: Site, *command: str, profile: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run the command as the service does it, with a proxy of a profile, by default its own."""
    argv = site.agent.command("exec", "--profile", profile or service.profile, "--", *command)
    environment = {**os.environ, "X509_CERT_DIR": str(site.ca.directory)}
    return subprocess.run(
        service.command(argv), capture_output=True, text=True, timeout=SECONDS, check=False, env=environment
    )


def copied(service: Service, site: Site, source: str, targets: Iterable[str]) -> list[bool]:
    """Copy it to each of the targets, with one proxy; whether that was done."""
    script = 'source=$1; shift; for one; do xrdcp -s "$source" "$one" && echo True || echo False; done'
    done = run_as(service, site, "sh", "-c", script, "sh", source, *targets)
    return [line == "True" for line in done.stdout.split()]


@pytest.mark.parametrize(("service", "other"), [(MOVER, RECO), (RECO, MOVER)], ids=["mover", "reco"])
def test_each_service_has_its_own_robot_and_is_refused_the_others(site: Site, service: Service, other: Service) -> None:
    named = run_as(service, site, "sh", "-c", 'openssl x509 -in "$X509_USER_PROXY" -noout -issuer -nameopt RFC2253')
    assert service.robot in named.stdout, named.stderr
    if not are_separate():
        pytest.skip("one user is one service to the agent: run the tests as root")
    refused = run_as(service, site, "true", profile=other.profile)
    assert refused.returncode == 6
    assert f"may not use profile {other.profile!r}" in refused.stderr


def test_a_service_of_root_cannot_leave_its_group_or_look_into_others(site: Site) -> None:
    if not are_separate():
        pytest.skip("only root has services of different groups")
    for attempt in (["setpriv", "--regid=0", "--clear-groups", "true"], ["cat", f"/proc/{os.getpid()}/maps"]):
        done = subprocess.run(RECO.command(attempt), capture_output=True, text=True, timeout=SECONDS, check=False)
        assert done.returncode != 0
        assert "not permitted" in done.stderr or "denied" in done.stderr
        assert subprocess.run(attempt, capture_output=True, timeout=SECONDS, check=False).returncode == 0


@pytest.mark.parametrize("storage", ["tape_ral", "disk_brunel"], indirect=True)
def test_storage_lets_the_reco_robot_read_raw_data_and_write_only_outputs(
    site: Site, storage: StorageServer, reco_area: str, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"what is stored")
    base = f"{storage.root_url}/{reco_area}"
    raw = f"{base}/MICE/raw.tar"
    assert copied(MOVER, site, str(source), [raw]) == [True]
    outputs = [f"{base}/RECO/r/1.tar", f"{base}/Simulation/r/1.tar"]
    others = [raw, f"{base}/MICE/other.tar", f"{base}/elsewhere.tar", f"{base}/RECO/../MICE/dots.tar"]
    assert copied(RECO, site, str(source), outputs + others) == [True] * 2 + [False] * 4
    assert copied(RECO, site, raw, [str(tmp_path / "read")]) == [True]
    assert (tmp_path / "read").read_bytes() == source.read_bytes()
    stored = storage.disk_directory / reco_area
    assert sorted(str(path.relative_to(stored)) for path in stored.rglob("*.tar")) == [
        "MICE/raw.tar",
        "RECO/r/1.tar",
        "Simulation/r/1.tar",
    ]
    # The server's own words; the account is the robot's by its map.
    assert f'"{slash_name(RECO.robot)}" reco\n' in (storage.directory / "etc/grid-mapfile").read_text()
    log = (storage.directory / "log/xrootd.log").read_text()
    for word, path in (("grant", "RECO/r/1.tar"), ("deny", "MICE/other.tar")):
        line = rf"{word} gsi reco@\S+ \w*create /{storage.export}/{reco_area}/{path}"
        assert re.search(line, log), line
