"""A real compute element on loopback: ARC CE (A-REX) with its REST interface and data staging, and jobs by `fork`."""

import os
import pwd
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from mover.errors import SandboxError
from mover.sandbox.ca import CertificateAuthority
from mover.sandbox.process import ServerProcess, server_user, write_config
from mover.sandbox.server import RobotServer

_SHARE = Path("/usr/share/arc")
_PACKAGE = "nordugrid-arc-arex"
_START_SECONDS = 60.0
# As root it runs as this user, and so do its jobs: without privileges it can map robots to its own user only.
_USER = "nobody"
_DH_PARAMETERS = ["openssl", "genpkey", "-genparam", "-algorithm", "DH", "-pkeyopt", "group:ffdhe2048"]

# Texts of ARC's scripts, and what is put in or for them.
_DIED = '            fork_comment="Job died unexpectedly" 1>&2\n'
_TIME_IS_OVER = '            [ -f "${joboption_directory}.timeout" ] && fork_comment="Job timeout"\n'
_CLOCK = """\
    setsid sh -c 'sleep "$1"; : > "$2"; kill -9 "-$3"' - \\
        "${maxwalltime:-86400}" "${joboption_directory}.timeout" $JOB_ID &
    CLOCK=$!
"""
_LOOK = "if ps -ouser= -p$joboption_jobid > /dev/null; then\n"
_KILL = "kill -TERM $joboption_jobid\n        sleep 5\n"
_KILL_ALL = "for child in $(ps -opid= --ppid $joboption_jobid); do kill -KILL -$child; done\n        sleep 0.5\n"
_VOMS = "<VOMSProcessing>$VOMS_PROCESSING</VOMSProcessing>"
_ARCHED = "<arex:gmconfig>"
_EACH = 'for control_dir in "$@" ; do\n'

#: What is changed in our copy of ARC's scripts: the file, a text that is in it once, and what stands there instead.
_CHANGES = (
    # Otherwise VOMS attributes are dropped: there is no setting for it.
    ("arc-arex-ws-start", _VOMS, f"{_VOMS}<VOMSDir>$X509_VOMS_DIR</VOMSDir>"),
    # Its information system takes a second of a processor each time: once a minute will do (the unit is 0.1 s).
    ("arc-arex-start", _ARCHED, f"<arex:InfoproviderWakeupPeriod>600</arex:InfoproviderWakeupPeriod>{_ARCHED}"),
    # ARC starts this script once in ten seconds: look many times.
    ("scan-fork-job", _EACH, f"for round in $(seq 1000) ; do\n{_EACH}"),
    ("scan-fork-job", "sleep 10\n", "sleep 0.3\ndone\n"),
    # What our guard inherits stays a zombie.
    ("scan-fork-job", _LOOK, "if ps -ostat= -p$joboption_jobid | grep -qv Z; then\n"),
    ("submit-fork-job", "    sleep 1\n", "    sleep 0.1\n"),
    # `fork` limits the processor's time only, and ends nothing but its own shell. Batch systems for more than tests
    # end all of a job, also when its time is over, which we have it report in the words of ARC's script for Slurm.
    ("submit-fork-job", '    "$1" > "$2" 2>&1 &\n', '    setsid "$1" > "$2" 2>&1 &\n'),
    ("submit-fork-job", "kill -9 $JOB_ID 2>/dev/null\n", "kill -9 -- -$JOB_ID -$CLOCK 2>/dev/null\n"),
    ("cancel-fork-job", _KILL, _KILL_ALL),
    ("submit-fork-job", "    JOB_ID=$!\n", f"    JOB_ID=$!\n{_CLOCK}"),
    ("scan-fork-job", _DIED, _DIED + _TIME_IS_OVER),
)


class ComputeElement(RobotServer):
    """An ARC CE for one robot; everybody else is denied. Its jobs run as nobody, or as who we are."""

    def __init__(
        self, directory: Path, ca: CertificateAuthority, *, robot: str, queue: str = "fast", slots: int = 2
    ) -> None:
        """Lay out the directory, as `RobotServer` does; others must be able to reach it. `slots` jobs run at once.

        Raises:
            SandboxError: it is not installed, or the CE's user cannot reach the directory.
        """
        if not (_SHARE / "arc-arex-start").exists():
            raise SandboxError("ARC CE is not installed", hint=f"apt install {_PACKAGE}")
        folders = ["etc/vomsdir", "jobs/control", "jobs/session", "jobs/tmp", "location/share"]
        super().__init__(directory, ca, robot=robot, user=_USER, folders=folders)
        if self._user is not None:
            _check_reachable(self.directory.parents)
        self._queue = queue
        self._slots = slots
        (self.directory / "jobs/tmp").chmod(0o1777)
        # ARC makes its own at every start, which takes a minute.
        parameters = self.directory / "jobs/control/dhparam.pem"
        subprocess.run([*_DH_PARAMETERS, "-out", str(parameters)], check=True, capture_output=True, timeout=60)
        self._lay_out_location()
        self._arex = self._program("arc-arex", "arc-arex-start")
        self._ws = self._program("arc-arex-ws", "arc-arex-ws-start")

    @property
    def url(self) -> str:
        """Where its REST interface is, for `ArcBatch`."""
        return f"https://localhost:{self.port('HTTPS_PORT')}/arex"

    @property
    def disk_directory(self) -> Path:
        """Where the directories of its jobs are, by their ids."""
        return self.directory / "jobs/session"

    @property
    def control_directory(self) -> Path:
        """Where it keeps what it knows of jobs and delegations."""
        return self.directory / "jobs/control"

    def stop(self) -> None:
        """End both services, and the jobs with them; what is known of jobs stays."""
        self.stop_interface()
        self._arex.stop()

    def stop_interface(self) -> None:
        """End the REST interface only: new connections are refused, and jobs go on."""
        self._ws.stop()

    def start_interface(self) -> None:
        """Start the REST interface again.

        Raises:
            SandboxError: it did not start.
        """
        self._ws.start(lambda _: self._ports["HTTPS_PORT"].in_use, seconds=_START_SECONDS)

    def port_names(self) -> tuple[str, ...]:
        """One, for the REST interface."""
        return ("HTTPS_PORT",)

    def configure(self) -> None:
        """Write the configuration, with the port."""
        super().configure()
        account = pwd.getpwnam(self._user) if self._user else pwd.getpwuid(os.geteuid())
        values = {
            "BASE": self.directory,
            "ROBOT": self.robot_name,
            "ACCOUNT": account.pw_name,
            "QUEUE": self._queue,
            "SLOTS": self._slots,
            "HTTPS_PORT": self.port("HTTPS_PORT"),
        }
        write_config("arc.conf", self.directory / "etc/arc.conf", values)

    def start_processes(self) -> None:
        """Start the service that runs jobs, and then the one that takes them."""
        log = self.directory / "log/arex.log"
        log.unlink(missing_ok=True)
        self._arex.start(
            lambda _: log.exists() and "Starting jobs processing thread" in log.read_text(errors="replace"),
            seconds=_START_SECONDS,
        )
        self.start_interface()

    def _program(self, name: str, script: str) -> ServerProcess:
        environment = {
            "ARC_CONFIG": str(self.directory / "etc/arc.conf"),
            "ARC_LOCATION": str(self.directory / "location"),
            "X509_VOMS_DIR": str(self.directory / "etc/vomsdir"),
            # Its scripts change their directory: what is relative to it would be lost.
            "HOME": str(self.directory / "control"),
            "TMPDIR": str(self.directory / "jobs/tmp"),
        }
        argv = [str(self.directory / "location/share/arc" / script), "--foreground"]
        return self.process(name, argv, package=_PACKAGE, environment=environment)

    def _lay_out_location(self) -> None:
        """ARC as it is installed, with our own copy of its scripts."""
        location = self.directory / "location"
        for name in ("bin", "lib", "sbin"):
            (location / name).symlink_to(Path("/usr") / name)
        scripts = location / "share/arc"
        shutil.copytree(_SHARE, scripts, symlinks=True)
        for name, text, instead in _CHANGES:
            script = (scripts / name).read_text(encoding="utf-8")
            if script.count(text) != 1:
                raise SandboxError(
                    f"{_SHARE / name} is not that of ARC 6.17: it has no single {text.strip()!r}",
                    hint=f"install {_PACKAGE} 6.17, as in Debian 12",
                )
            (scripts / name).write_text(script.replace(text, instead), encoding="utf-8")


def check_jobs_can_run(parent: Path) -> None:
    """Return if jobs of a compute element in a new folder of `parent` can run the reference application.

    Raises:
        SandboxError: they run as another user, to whom `parent` is closed, or who cannot run the Python that we run
            with, and what is installed for it.
    """
    user = server_user(_USER)
    if user is None:
        return
    _check_reachable([parent, *parent.parents])
    group = pwd.getpwnam(user).pw_gid
    as_user = ["setpriv", f"--reuid={user}", f"--regid={group}", "--clear-groups", "--"]
    command = [*as_user, sys.executable, "-P", "-c", "import uproot"]
    environment = {"PATH": os.defpath, "LANG": "C.UTF-8"}
    try:
        done = subprocess.run(
            command, cwd="/", env=environment, capture_output=True, timeout=_START_SECONDS, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise SandboxError(
            f"{sys.executable} as {user} has not started in {_START_SECONDS:.0f} s", hint="look at the machine's load"
        ) from error
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").split("\n")
        why = next((line for line in reversed(said) if line.strip()), f"it ended with {done.returncode}")
        raise SandboxError(
            f"{user}, as whom the compute element's jobs run, cannot run {sys.executable}: {why}",
            hint="work in a checkout that every user may read (not below /root), or not as root, or use --batch local",
        )


def _check_reachable(folders: Iterable[Path]) -> None:
    for above in folders:
        if not above.stat().st_mode & stat.S_IXOTH:
            raise SandboxError(
                f"{above} is closed to the user {_USER}, whom the compute element and its jobs run as",
                hint=f"use a directory that others can reach, or chmod o+x {above}",
            )
