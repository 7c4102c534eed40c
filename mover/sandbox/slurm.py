"""A real Slurm cluster of one node on loopback, with its munge, and with accounting in a MariaDB if wanted."""

import os
import pwd
import secrets
import shutil
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path
from tempfile import mkdtemp

from mover.errors import SandboxError
from mover.sandbox.database import ENVIRONMENT, database_process
from mover.sandbox.ports import PortLease
from mover.sandbox.process import ServerProcess, write_config

PARTITION = "fast"
_UP = {"idle", "mixed", "allocated", "completing"}
_COMMAND_SECONDS = 60.0
# Everything starts in a second or two; a busy machine may take its time.
_START_SECONDS = 60.0


class SlurmCluster:
    """A controller, a node of `cpus` cores and a partition `fast`, which run as the user that we are, as do the jobs.

    Everything lies in `directory`, but for munge's socket, whose path must be short. Ports stay the same until `close`.
    """

    def __init__(self, directory: Path, *, cpus: int = 2, accounting: bool = False) -> None:
        """Lay out the directory, which must not exist. Without `accounting`, only the controller knows of jobs.

        Raises:
            SandboxError: no port is free.
        """
        self.directory = directory.resolve()
        for name in ("db/tmp", "etc", "spool", "state"):
            (self.directory / name).mkdir(parents=True)
        self._sockets = Path(mkdtemp(prefix="mover-slurm-"))
        self._accounting = accounting
        self._cpus = cpus
        self._host = socket.gethostname().partition(".")[0]
        names = ("CONTROLLER_PORT", "NODE_PORT", "ACCOUNTING_PORT")
        self._ports = {name: PortLease() for name in names}
        self._key = self.directory / "etc/munge.key"
        self._key.touch(0o600)
        self._key.write_bytes(secrets.token_bytes(1024))
        self._munged = self._process("munged", self._munge_argv(), package="munge")
        self.controller = self._process("slurmctld", ["slurmctld", "-D", "-i"], package="slurmctld")
        self.node = self._process("slurmd", ["slurmd", "-D"], package="slurmd")
        self.accountant = self._process("slurmdbd", ["slurmdbd", "-D"], package="slurmdbd")
        self._database = database_process(
            self.directory / "db", init_file="load.sql", socket=str(self._sockets / "db.sock")
        )

    @property
    def config(self) -> Path:
        """The configuration file that clients want in SLURM_CONF."""
        return self.directory / "etc/slurm.conf"

    def start(self) -> None:
        """Start everything, and wait until the node takes jobs.

        Raises:
            SandboxError: a package is not installed, or a server did not start.
        """
        self._configure()
        try:
            self._munged.start(lambda _: self._socket.exists(), seconds=_START_SECONDS)
            if self._accounting:
                self._database.start(lambda log: "ready for connections" in log, seconds=_START_SECONDS)
                self.start_accounting()
            self.start_controller()
            self.start_node()
        except BaseException:
            self.stop()
            raise

    def start_accounting(self) -> None:
        """Start slurmdbd, again if it was stopped, and wait until it knows the cluster."""
        # It creates its tables before it listens.
        self.accountant.start(lambda _: self._ports["ACCOUNTING_PORT"].in_use, seconds=_START_SECONDS)
        if "sandbox" not in self.command("sacctmgr", "-nP", "list", "cluster", "format=cluster").split():
            self.command("sacctmgr", "-i", "add", "cluster", "sandbox")

    def start_controller(self) -> None:
        """Start the controller, again if it was stopped, and wait until it answers."""
        self.controller.start(lambda _: self._answers(), seconds=_START_SECONDS)

    def start_node(self) -> None:
        """Start the node, again if it was stopped, and wait until it takes jobs."""
        self.node.start(lambda _: self._node_state() in _UP, seconds=_START_SECONDS)

    def lose_node(self) -> None:
        """End the node with all that runs on it, and have the controller take note."""
        self.node.stop()
        self.command("scontrol", "update", f"nodename={self._host}", "state=down", "reason=lost")

    def lose_state(self) -> None:
        """Let the controller forget all jobs, running ones too, and number them from 1 again."""
        self.controller.stop()
        shutil.rmtree(self.directory / "state")
        (self.directory / "state").mkdir()
        self.start_controller()
        self.node.stop()
        self.start_node()

    def command(self, *argv: str) -> str:
        """What a program of Slurm's prints, run as its administrator.

        Raises:
            SandboxError: it fails.
        """
        done = self._run(argv)
        if done.returncode != 0:
            raise SandboxError(f"{' '.join(argv)}: {done.stderr.strip()}", hint=f"see {self.directory / 'log'}")
        return done.stdout

    def stop(self) -> None:
        """End everything, jobs too."""
        for process in (self.node, self.controller, self.accountant, self._database, self._munged):
            process.stop()

    def close(self) -> None:
        """Stop for good, and let others have the ports."""
        self.stop()
        shutil.rmtree(self._sockets, ignore_errors=True)
        for port in self._ports.values():
            port.close()

    @property
    def _socket(self) -> Path:
        return self._sockets / "munge.sock"

    def _answers(self) -> bool:
        return self._ports["CONTROLLER_PORT"].in_use and self._run(["scontrol", "ping"]).returncode == 0

    def _node_state(self) -> str:
        done = self._run(["sinfo", "-h", "-p", PARTITION, "-o", "%T"])
        return done.stdout.strip()

    def _run(self, argv: Sequence[str]) -> subprocess.CompletedProcess[str]:
        try:
            return subprocess.run(
                argv,
                capture_output=True,
                check=False,
                env=self._environment,
                text=True,
                stdin=subprocess.DEVNULL,
                timeout=_COMMAND_SECONDS,
            )
        except FileNotFoundError as error:
            raise SandboxError(f"{argv[0]} is not installed", hint="apt install slurm-client") from error
        except subprocess.TimeoutExpired as error:
            raise SandboxError(f"{argv[0]} does not end", hint=f"see {self.directory / 'log'}") from error

    @property
    def _environment(self) -> dict[str, str]:
        return {**ENVIRONMENT, "SLURM_CONF": str(self.config)}

    def _configure(self) -> None:
        accounting = ["AccountingStorageType=accounting_storage/none"]
        if self._accounting:
            accounting = [
                "AccountingStorageType=accounting_storage/slurmdbd",
                "AccountingStorageHost=127.0.0.1",
                f"AccountingStoragePort={self._ports['ACCOUNTING_PORT'].number}",
                f"AccountingStoragePass={self._socket}",
            ]
        values: dict[str, object] = {name: port.number for name, port in self._ports.items()}
        values |= {"HOST": self._host, "CPUS": self._cpus, "USER": pwd.getpwuid(os.geteuid()).pw_name}
        values |= {"DIRECTORY": self.directory, "SOCKET": self._socket, "ACCOUNTING": "\n".join(accounting)}
        write_config("slurm.conf", self.config, values)
        dbd = self.directory / "etc/slurmdbd.conf"
        dbd.touch(0o600)  # it insists
        write_config("slurmdbd.conf", dbd, values)
        (self.directory / "db/load.sql").write_text("CREATE DATABASE IF NOT EXISTS slurm;\n")

    def _munge_argv(self) -> list[str]:
        own = self._sockets
        # It dislikes the permissions of directories above, which are the machine's, and is told not to.
        argv = ["munged", "--foreground", "--force", f"--key-file={self._key}", f"--socket={self._socket}"]
        return [*argv, f"--pid-file={own}/munged.pid", f"--log-file={own}/munged.log", f"--seed-file={own}/munged.seed"]

    def _process(self, name: str, argv: Sequence[str], *, package: str) -> ServerProcess:
        environment = {**ENVIRONMENT, "SLURM_CONF": str(self.config), "MYSQL_UNIX_PORT": str(self._sockets / "db.sock")}
        return ServerProcess(
            name, argv, directory=self.directory, package=package, environment=environment, grace_seconds=3.0
        )
