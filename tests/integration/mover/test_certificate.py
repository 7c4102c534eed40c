"""`mover custody show --certificate` with a real agent and dongle: the mover's own proxy signs."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mover.sandbox.agent import Agent
from mover.sandbox.ca import CertificateAuthority
from mover.sandbox.daq import DaqWriter
from mover.sandbox.dongle import MODULE, Dongle

RUN = 4742
SECONDS = 120.0


class Box:
    """A run that was closed, with an agent for the mover's proxies."""

    def __init__(self, base: Path, authority: CertificateAuthority, agent: Agent) -> None:
        self.base = base
        self.authority = authority
        self.agent = agent
        for name in ("daq", "disk"):
            (base / name).mkdir()
        (base / "mover.toml").write_text(
            f'experiment = "MICE"\ncatalogue = "{base}/catalogue.sqlite"\n'
            f'[runs]\ndirectory = "{base}/daq"\n[bundle]\nlfn = "MICE/{{run:05d}}.tar"\n'
            f'[credential]\nagent = "{agent.socket}"\nprofile = "{agent.profile}"\n'
            f'ca_directory = "{authority.directory}"\n'
            f'[[endpoint]]\nname = "disk"\nsite = "here"\nkind = "disk"\nurl = "file://{base}/disk"\n'
            "[policy.raw]\ntapes = 0\ntape_sites = 0\ndisks = 1\n"
        )
        DaqWriter(base / "daq").write_run(RUN, parts=2, part_bytes=10_000)
        assert self.mover("run", "close", str(RUN)).returncode == 0

    def mover(self, *arguments: str, text: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
        """Run a command to its end."""
        command = [sys.executable, "-P", "-m", "mover", "--config", str(self.base / "mover.toml"), *arguments]
        done = subprocess.run(command, input=text, capture_output=True, timeout=SECONDS, check=False)
        assert b"Traceback" not in done.stderr + done.stdout, done.stderr
        return done

    def check(self, *arguments: str, text: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
        """`mover custody check` with the CA of this box."""
        return self.mover("custody", "check", *arguments, "--ca-directory", str(self.authority.directory), text=text)


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    if not MODULE.exists():
        pytest.skip("needs the package softhsm2")
    base = tmp_path_factory.mktemp("box")
    authority = CertificateAuthority(base / "certificates")
    agent = Agent(Dongle(base / "dongle", authority))
    try:
        yield Box(base, authority, agent)
    finally:
        agent.stop()


def test_the_movers_own_proxy_signs_and_the_certificate_outlives_the_agents_session(box: Box) -> None:
    file = box.base / "4742.certificate"
    made = box.mover("custody", "show", str(RUN), "--certificate", str(file))
    assert made.returncode == 0, made.stderr
    assert f"{file}: run {RUN} of MICE is planned, NOT safe; signed by /C=UK/O=Sandbox/CN=".encode() in made.stdout
    piped = box.mover("custody", "show", str(RUN), "--certificate", "-").stdout
    again = box.mover("custody", "show", str(RUN), "--certificate", str(file))
    assert (again.returncode, b"is there already" in again.stderr) == (12, True)
    box.agent.halt()
    try:
        for checked in (box.check(str(file)), box.check("-", text=piped)):
            assert checked.returncode == 0, checked.stderr
            assert b"NOT safe" in checked.stdout
        refused = box.mover("custody", "show", str(RUN), "--certificate", str(box.base / "other"))
        assert (refused.returncode, b"no Grid proxy" in refused.stderr) == (8, True)
    finally:
        box.agent.start()
        box.agent.unlock()
    assert not [path.name for path in box.base.iterdir() if path.name == "other" or path.name.startswith(".mover-")]
    # Neither file has a key in it.
    chain = json.loads(box.check(str(file), "--json").stdout)
    assert chain["statement"]["run"]["number"] == RUN
    assert b"PRIVATE" not in file.read_bytes() + piped
