"""A cgroup of the tests' own, in systemd's hierarchies, and programs in it."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxyagent.peer import parse_unit

_SECONDS = 30.0


def _hierarchies() -> Iterator[Path]:
    """Our own cgroup in version 2, and in systemd's version 1 hierarchy where it has one."""
    own = dict(line.split(":", 2)[1:] for line in Path("/proc/self/cgroup").read_text().splitlines())
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        mount, _, details = line.partition(" - ")
        kind, _, options = details.split()[:3]
        root, point = mount.split()[3:5]
        name = "" if kind == "cgroup2" else "name=systemd"
        if root == "/" and name in own and (kind == "cgroup2" or (kind == "cgroup" and name in options.split(","))):
            yield Path(point + own[name])


class Cgroup:
    """A slice below the cgroup that the tests run in. Nothing but what we put into it is ever moved or killed."""

    def __init__(self) -> None:
        """Skips the test where that cannot be."""
        if os.geteuid() != 0:
            pytest.skip("needs root, to make cgroups")
        if parse_unit(Path("/proc/self/cgroup").read_text()) is not None:
            pytest.skip("needs to be run outside any systemd unit")
        self.name = f"test-{os.getpid()}-{time.monotonic_ns()}.slice"
        self.directories = [directory / self.name for directory in _hierarchies()]
        if not self.directories:
            pytest.skip("needs a cgroup hierarchy of systemd's")
        try:
            for directory in self.directories:
                directory.mkdir()
        except OSError as error:
            pytest.skip(f"cannot make cgroups: {error.strerror}")

    @property
    def is_complete(self) -> bool:
        """Whether it is in every hierarchy that systemd looks at."""
        lines = Path("/proc/self/cgroup").read_text().splitlines()
        return len(self.directories) == sum(line.split(":", 2)[1] in {"", "name=systemd"} for line in lines)

    def command(self, group: str, *arguments: str) -> list[str]:
        """The command line that runs a program in a cgroup below ours, which is made if need be."""
        files = []
        for directory in self.directories:
            (directory / group).mkdir(parents=True, exist_ok=True)
            files.append(str(directory / group / "cgroup.procs"))
        script = 'while [ "$1" != -- ]; do echo $$ >"$1" || exit 99; shift; done; shift; exec "$@"'
        return ["sh", "-c", script, "sh", *files, "--", *arguments]

    def remove(self) -> None:
        """Kill what runs in it, and remove it."""
        deadline = time.monotonic() + _SECONDS
        while pids := {int(pid) for path in self._groups() for pid in (path / "cgroup.procs").read_text().split()}:
            for pid in pids:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            assert time.monotonic() < deadline, f"processes {pids} do not end"
            time.sleep(0.01)
        for path in self._groups():
            path.rmdir()

    def _groups(self) -> list[Path]:
        """Ours and all below, the innermost first."""
        return [Path(path) for directory in self.directories for path, _, _ in os.walk(directory, topdown=False)]


class ServiceManager:
    """A real systemd that runs units of ours. It is a user's manager, for only process 1 may be the system's."""

    program = Path("/usr/lib/systemd/systemd")

    def __init__(self, cgroup: Cgroup, directory: Path) -> None:
        """It has a /run of its own, in memory. Skips the test if systemd is not installed."""
        if not self.program.exists():
            pytest.skip("needs the package systemd")
        if not cgroup.is_complete:
            pytest.skip("needs all cgroup hierarchies of systemd's mounted")
        self.units = directory / "units"
        self.units.mkdir()
        (self.units / "basic.target").write_text("[Unit]\nDefaultDependencies=no\n")
        script = (
            # In a root cgroup it would move all processes of the machine.
            "if grep -Eq '^(0:|[0-9]+:name=systemd):/$' /proc/self/cgroup; then exit 98; fi && "
            # Shared, as credentials are mounted in a namespace of their own and must get from there to the service.
            "mount -t tmpfs -o mode=0755 tmpfs /run && mount --make-shared /run && "
            "mkdir -p /run/systemd/system && mkdir -m 0700 /run/user0 && "
            f"exec {self.program} --user --unit=basic.target"
        )
        environment = {
            "PATH": os.defpath,
            "HOME": str(directory),
            "XDG_RUNTIME_DIR": "/run/user0",
            "SYSTEMD_UNIT_PATH": str(self.units),
        }
        self._log = (directory / "systemd.log").open("wb")
        self._process = subprocess.Popen(
            cgroup.command(".", "unshare", "--mount", "sh", "-c", script),
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
        )
        try:
            self._wait_until_up()
        except BaseException:
            self.stop()
            raise

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def control(self, *arguments: str) -> str:
        """What `systemctl` says."""
        done = self._systemctl(*arguments)
        assert done.returncode == 0, f"systemctl {arguments}: {done.stdout}{done.stderr}"
        return done.stdout

    def install(self, name: str, text: str) -> None:
        """Write a unit file."""
        (self.units / name).write_text(text)
        self.control("daemon-reload")

    def property(self, unit: str, name: str) -> str:
        """A property of a unit, as `systemctl show` has it."""
        return self.control("show", unit, "--value", "--property", name).strip()

    def stop(self) -> None:
        """Kill the manager; what it started dies with the cgroup."""
        self._process.kill()
        self._process.wait(_SECONDS)
        self._log.close()

    def _systemctl(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["nsenter", f"--target={self._process.pid}", "--mount", "systemctl", "--user", *arguments],
            env={"PATH": os.defpath, "XDG_RUNTIME_DIR": "/run/user0"},
            capture_output=True,
            text=True,
            check=False,
            timeout=_SECONDS,
        )

    def _wait_until_up(self) -> None:
        deadline = time.monotonic() + _SECONDS
        while self._systemctl("is-active", "basic.target").returncode != 0:
            if self._process.poll() is not None:
                pytest.skip("systemd cannot be a service manager in this container")
            assert time.monotonic() < deadline, "systemd does not answer"
            time.sleep(0.02)
