"""A fresh SoftHSM dongle, an agent for it, and a PKCS#11 module that misbehaves on demand."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mover.sandbox.agent import Agent
from mover.sandbox.ca import CertificateAuthority
from mover.sandbox.dongle import MODULE, Dongle
from proxyagent.client import agent_status
from proxyagent.hsm import Helper
from proxyagent.messages import IdentityStatus
from proxyagent.modules import DEFAULT_ALLOWED
from proxyagent.pin import Secret
from proxyagent.uri import Uri

AgentMaker = Callable[..., Agent]
HelperMaker = Callable[..., Helper]
_HEADER = Path("/usr/include/p11-kit-1/p11-kit/pkcs11.h")
_SOURCE = Path(__file__).parent / "shim.c"


class Shim:
    """The misbehaving module's switches, which shim.c explains."""

    def __init__(self, module: Path, directory: Path) -> None:
        self.module = module
        self.directory = directory

    def set(self, name: str, value: int = 1) -> None:
        self.write(name, f"{value:x}")

    def write(self, name: str, text: str) -> None:
        (self.directory / name).write_text(text)

    def clear(self, name: str) -> None:
        (self.directory / name).unlink()

    def is_hanging(self) -> bool:
        """Whether a function hangs now."""
        return (self.directory / "hanging").exists()

    @property
    def logins(self) -> int:
        """How often C_Login was called so far."""
        return self.calls("login")

    def calls(self, function: str) -> int:
        """How often a function was called so far. C_Sign is called twice for a signature, first for its length."""
        log = self.directory / f"{function}s"
        return len(log.read_bytes()) if log.exists() else 0


def pin_of(dongle: Dongle) -> Secret:
    """The dongle's PIN, as the agent holds one."""
    return Secret(bytearray(dongle.pin.encode()))


def log_in(helper: Helper, dongle: Dongle) -> None:
    """Log a helper in to the dongle."""
    helper.login(pin_of(dongle), helper.describe().serial)


def robot_status(agent: Agent) -> IdentityStatus:
    """What the agent says of its only identity."""
    (identity,) = agent_status(agent.socket, timeout_seconds=30).identities
    return identity


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> CertificateAuthority:
    return CertificateAuthority(tmp_path_factory.mktemp("authority") / "certificates")


@pytest.fixture
def dongle(tmp_path: Path, authority: CertificateAuthority) -> Dongle:
    if not MODULE.exists():
        pytest.skip("needs the package softhsm2")
    return Dongle(tmp_path / "dongle", authority)


@pytest.fixture
def start_agent(dongle: Dongle) -> Iterator[AgentMaker]:
    """Start an agent for the dongle; it is stopped when the test ends."""
    agents: list[Agent] = []

    def start(**options: object) -> Agent:
        agents.append(Agent(dongle, **options))  # type: ignore[arg-type]  # passed through
        return agents[-1]

    yield start
    for agent in agents:
        agent.stop()


@pytest.fixture
def agent(start_agent: AgentMaker) -> Agent:
    return start_agent()


@pytest.fixture
def start_helper(dongle: Dongle, monkeypatch: pytest.MonkeyPatch) -> Iterator[HelperMaker]:
    """Start a helper for the dongle; it is stopped when the test ends."""
    for name, value in dongle.environment.items():
        monkeypatch.setenv(name, value)
    helpers: list[Helper] = []

    def start(uri: str | None = None, *, setup: bool = False, timeout_seconds: float = 30.0) -> Helper:
        helper = Helper(
            dongle.module,
            Uri.parse(uri or dongle.uri),
            timeout_seconds=timeout_seconds,
            allowed_modules=(str(dongle.module), *DEFAULT_ALLOWED),
            setup=setup,
        )
        helpers.append(helper)
        return helper

    yield start
    for helper in helpers:
        helper.close()


@pytest.fixture(scope="session")
def shim_module(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("gcc")
    if compiler is None or not _HEADER.exists():
        pytest.skip("needs the packages gcc and libp11-kit-dev")
    if os.geteuid() != 0:
        pytest.skip("needs root: only modules of root's are loaded")
    module = tmp_path_factory.mktemp("shim") / "shim.so"
    define = f'-DSOFTHSM="{MODULE}"'
    command = [
        compiler,
        "-shared",
        "-fPIC",
        "-Wall",
        f"-I{_HEADER.parents[1]}",
        define,
        "-o",
        str(module),
        str(_SOURCE),
    ]
    subprocess.run([*command, "-ldl"], check=True, timeout=60)
    return module


@pytest.fixture
def shim(shim_module: Path, dongle: Dongle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shim:
    """The misbehaving module in front of the dongle, for agents that are started afterwards."""
    directory = tmp_path / "switches"
    directory.mkdir()
    monkeypatch.setenv("PKCS11_SHIM_DIR", str(directory))
    dongle.module = shim_module
    return Shim(shim_module, directory)
