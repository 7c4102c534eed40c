#!/bin/sh
''':'
# What a job runs on the worker: ./job.py job.json. This part finds a Python, the rest is Python.
for python in python3 /usr/libexec/platform-python python3.12 python3.11 python3.9; do
    if command -v "$python" >/dev/null 2>&1; then exec "$python" -E -s "$0" "$@"; fi
done
echo "job.py: there is no Python 3 on this worker" >&2
exit 1
'''  # fmt: skip
# It needs nothing but the standard library of Python 3.6: workers are old, and get their software from CVMFS.
#
# Reads job.json, checks the staged bundle, takes over the environment that the release's set-up script makes, runs the
# experiment's command, and writes report.json last of all. It ends with 0: done, 1: transient, 2: reconstruction
# failed, 3: script failed. There is no credential here, and the command gets none that the batch system may have set.

import ctypes
import hashlib
import json
import os
import re
import resource
import select
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import time
import zlib
from functools import partial
from pathlib import Path
from typing import IO, Any, Callable, Dict, List, Optional, Tuple

FORMAT = 1
DONE, TRANSIENT, RECONSTRUCTION_FAILED, SCRIPT_FAILED = 0, 1, 2, 3
MEANINGS = {
    TRANSIENT: "try again later",
    RECONSTRUCTION_FAILED: "the reconstruction failed",
    SCRIPT_FAILED: "its script failed",
}
HEARTBEAT, REPORT, LOG, WORK = Path("heartbeat"), Path("report.json"), Path("payload.log"), Path("work")
CHUNK_BYTES = 1 << 20
MOST_LISTING_BYTES = 16 << 20
MOST_ENVIRONMENT_BYTES = 4 << 20
SETUP_SECONDS = 600.0
KILLED_SECONDS = 10.0
POLL_SECONDS = 0.2
TAIL_BYTES = 64 << 10
MOST_TAILS = 10
ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGXCPU)
PR_SET_PDEATHSIG = 1
# Sourced in a function, so that the script does not take the shell's arguments for its own.
SETUP = 's=$1; load() { . "$s"; }; load >&2 </dev/null || exit 1; exec /bin/cat /proc/self/environ'

Job = Dict[str, Any]
Sink = Callable[[bytes], None]


class JobError(Exception):
    """The job is over: its exit code, what kind of end that is, and the reason for people."""

    def __init__(self, code: int, outcome: str, reason: str) -> None:
        super().__init__(reason)
        self.code, self.outcome, self.reason = code, outcome, reason


class Life:
    """Heartbeats, the time limit, and signals of the batch system: `beat` is called all the time."""

    def __init__(self, job: Job) -> None:
        self.begun = time.time()
        self.until = time.monotonic() + job["wall_seconds"]
        self.every, self.grace = job["heartbeat_seconds"], job["grace_seconds"]
        self.output = WORK / job["output"]
        self.step = "beginning"
        self.next = 0.0
        self.signal: Optional[int] = None
        for number in ENDING:
            signal.signal(number, self.hear)

    def hear(self, number: int, _frame: Any) -> None:
        self.signal = number

    def begin(self, step: str) -> None:
        self.step, self.next = step, 0.0
        self.beat()

    def beat(self) -> None:
        """Raises JobError once the job is to end."""
        if self.signal is not None:
            raise JobError(TRANSIENT, "terminated", f"ended by signal {self.signal} while {self.step}")
        if time.monotonic() >= self.until:
            raise JobError(TRANSIENT, "timeout", f"took longer than it may while {self.step}")
        self.keep_beating()

    def keep_beating(self) -> None:
        if time.monotonic() < self.next:
            return
        self.next = time.monotonic() + self.every
        try:
            size_bytes = self.output.stat().st_size
        except OSError:
            size_bytes = 0
        now = time.time()
        beat = {"step": self.step, "at": now, "elapsed_seconds": now - self.begun, "output_bytes": size_bytes}
        write_whole(HEARTBEAT, beat, durable=False)


def write_whole(path: Path, content: Any, *, durable: bool) -> None:
    """Readers see the old file or the new one, never half of it."""
    unfinished = path.with_name(f"{path.name}.part")
    with unfinished.open("w") as file:
        json.dump(content, file)
        if durable:
            file.flush()
            os.fsync(file.fileno())
    unfinished.rename(path)
    if durable:
        directory = os.open(".", os.O_RDONLY)
        os.fsync(directory)
        os.close(directory)


class Summed:
    """A file whose bytes are summed up as tarfile reads them."""

    def __init__(self, file: IO[bytes], life: Life) -> None:
        self.file, self.life = file, life
        self.adler, self.size_bytes = 1, 0

    def read(self, size: int) -> bytes:
        chunk = self.file.read(size)
        self.adler = zlib.adler32(chunk, self.adler)
        self.size_bytes += len(chunk)
        self.life.beat()
        return chunk


def check_bundle(bundle: Job, life: Life) -> None:
    """Raises JobError unless the staged bundle is the one that was meant, to the last byte of each member."""
    life.begin("checking the bundle")
    name = bundle["name"]
    try:
        with Path(name).open("rb") as file:
            summed = Summed(file, life)
            found, listing = read_members(summed, bundle["listing"])
            while summed.read(CHUNK_BYTES):
                pass
    except (OSError, tarfile.TarError, EOFError, ValueError) as error:
        raise staged_badly(f"{name} cannot be read: {error}") from error
    adler32 = f"{summed.adler:08x}"
    if (summed.size_bytes, adler32) != (bundle["size_bytes"], bundle["adler32"]):
        wanted = f"{bundle['size_bytes']} bytes and adler32 {bundle['adler32']}"
        raise staged_badly(f"{name} has {summed.size_bytes} bytes and adler32 {adler32} instead of {wanted}")
    for member in bundle["members"]:
        there = found.get(member["name"], {})
        if any(there.get(key) != value for key, value in dict(member["digests"], size=member["size_bytes"]).items()):
            raise staged_badly(f"member {member['name']} is not what it should be, or missing")
    if bundle["listing"] is not None:
        check_listing(bundle["listing"], listing, found)


def read_members(summed: Summed, listing_name: Optional[str]) -> Tuple[Dict[str, Job], Optional[str]]:
    """Size and digests of each plain file, and the text of the listing if there is one."""
    found: Dict[str, Job] = {}
    listing = None
    with tarfile.open(fileobj=summed, mode="r|") as archive:  # type: ignore[call-overload]
        for member in archive:
            content = archive.extractfile(member) if member.isreg() else None
            if content is None:
                continue
            name = member.name[2:] if member.name.startswith("./") else member.name
            sha256, md5, kept = hashlib.sha256(), hashlib.md5(), b""  # noqa: S324
            for chunk in iter(partial(content.read, CHUNK_BYTES), b""):
                sha256.update(chunk)
                md5.update(chunk)
                kept += chunk if name == listing_name and member.size <= MOST_LISTING_BYTES else b""
            found[name] = {"sha256": sha256.hexdigest(), "md5": md5.hexdigest(), "size": member.size}
            if name == listing_name:
                listing = kept.decode("utf-8", "replace")
    return found, listing


def check_listing(name: str, listing: Optional[str], found: Dict[str, Job]) -> None:
    """As `md5sum -c` would."""
    listed = re.findall(r"^([0-9a-f]{32}) [ *](?:\./)?(.+)$", listing or "", re.MULTILINE)
    if not listed:
        raise staged_badly(f"{name} is missing in the bundle, or lists nothing")
    for md5, member in listed:
        if found.get(member, {}).get("md5") != md5:
            raise staged_badly(f"{name} says otherwise of {member}, or that is missing")


def staged_badly(words: str) -> JobError:
    return JobError(TRANSIENT, "staging", f"the bundle was staged badly: {words}")


def environment_of(job: Job, log: "Log", life: Life) -> Dict[str, str]:
    """The environment that the release's set-up script makes out of a minimal one."""
    life.begin("setting up the release")
    home = str(WORK.absolute())
    minimal = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": home, "TMPDIR": home, "LANG": "C", "LC_ALL": "C"}
    made = bytearray()

    def keep(chunk: bytes) -> None:
        made.extend(chunk[: MOST_ENVIRONMENT_BYTES - len(made)])

    setup = job["setup"]
    code = run([job["shell"], "-c", SETUP, "job", setup], minimal, keep, log.write, life=life, seconds=SETUP_SECONDS)
    if code is None:
        raise JobError(TRANSIENT, "setup", f"{setup} took over {SETUP_SECONDS:.0f} s on this worker")
    # A script that says `exit` has made none.
    if code != 0 or not made:
        raise JobError(TRANSIENT, "setup", f"{setup} failed on this worker ({code})")
    pairs = [entry.partition(b"=") for entry in bytes(made).split(b"\0") if b"=" in entry]
    return {os.fsdecode(name): os.fsdecode(value) for name, _, value in pairs}


def run(
    command: List[str], environment: Dict[str, str], out: Sink, err: Sink, *, life: Life, seconds: float = 1e9
) -> Optional[int]:
    """Run it in a process group of its own, of which nothing is left afterwards; None if it took too long."""
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT if err == out else subprocess.PIPE,
        env=environment,
        cwd=str(WORK),
        preexec_fn=begin_group,  # noqa: PLW1509 - there are no threads
    )
    pipes = {process.stdout: out, process.stderr: err}
    pipes.pop(None, None)
    until = time.monotonic() + seconds
    try:
        while process.poll() is None:
            life.beat()
            if time.monotonic() >= until:
                return None
            pass_on(pipes, POLL_SECONDS)
    finally:
        end_group(process, pipes, life.grace)
    return process.returncode


def begin_group() -> None:
    os.setpgid(0, 0)
    # A wrapper that is killed takes the command along.
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def pass_on(pipes: Dict[Any, Sink], seconds: float) -> bool:
    """Hand on what the pipes have, if anything comes in time; whether there was anything."""
    ready: List[IO[bytes]] = select.select(list(pipes), [], [], seconds)[0]
    for pipe in ready:
        chunk = os.read(pipe.fileno(), CHUNK_BYTES)
        if chunk:
            pipes[pipe](chunk)
        else:
            del pipes[pipe]
            pipe.close()
    return bool(ready)


def end_group(process: "subprocess.Popen[bytes]", pipes: Dict[Any, Sink], grace_seconds: float) -> None:
    """Nobody of the group is left, as far as signals can do it; what was written until then is passed on."""
    for number, seconds in ((signal.SIGTERM, grace_seconds), (signal.SIGKILL, KILLED_SECONDS)):
        until = time.monotonic() + seconds
        alive = signal_group(process, number)
        while alive and time.monotonic() < until:
            pass_on(pipes, POLL_SECONDS / 4)
            alive = signal_group(process, 0)
    while pass_on(pipes, 0):
        pass
    for pipe in pipes:
        pipe.close()


def signal_group(process: "subprocess.Popen[bytes]", number: int) -> bool:
    """Whether there is anybody in it to be signalled."""
    process.poll()  # a zombie is somebody
    try:
        os.killpg(process.pid, number)
    except OSError:
        return False
    return True


class Log:
    """What the command says: the beginning and the end of it, so that it is bounded."""

    def __init__(self, most_bytes: int) -> None:
        self.left = most_bytes // 2
        self.most_tail = most_bytes - self.left
        self.tail = b""
        self.dropped = 0
        self.file = LOG.open("wb", buffering=0)

    def write(self, chunk: bytes) -> None:
        self.file.write(chunk[: self.left])
        self.tail += chunk[self.left :]
        self.left -= min(self.left, len(chunk))
        if len(self.tail) > 2 * self.most_tail:
            self.cut()

    def cut(self) -> None:
        self.dropped += max(0, len(self.tail) - self.most_tail)
        self.tail = self.tail[-self.most_tail :]

    def close(self, *, with_ends: bool) -> None:
        """`with_ends`: whether the ends of the logs that the command wrote itself are wanted too."""
        self.cut()
        if self.dropped:
            self.file.write(b"\n[... %d bytes are left out ...]\n" % self.dropped)
        self.file.write(self.tail)
        for path in sorted(WORK.glob("*.log"))[:MOST_TAILS] if with_ends else ():
            self.file.write(f"\n==> the end of {path.name!a} <==\n".encode() + end_of(path))
        self.file.close()


def end_of(path: Path) -> bytes:
    try:
        # A FIFO put there must not hang us.
        with os.fdopen(os.open(str(path), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - TAIL_BYTES))
            return file.read(TAIL_BYTES) or b""
    except OSError as error:
        return f"{error!a}".encode()


def run_command(job: Job, log: Log, life: Life) -> None:
    """Raises JobError unless it ends with 0, and has left its output."""
    environment = environment_of(job, log, life)
    life.begin("running the command")
    try:
        code = run(job["command"], environment, log.write, log.write, life=life)
    except OSError as error:
        raise JobError(SCRIPT_FAILED, "command", f"{job['command'][0]} cannot be run: {error.strerror}") from error
    if code in MEANINGS:
        raise JobError(code, "command", f"the command ended with {code}: {MEANINGS[code]}")
    if code is None or code < 0:
        raise JobError(SCRIPT_FAILED, "command", f"the command was killed by signal {-(code or 0)}")
    if code != DONE:
        raise JobError(SCRIPT_FAILED, "command", f"the command ended with {code}, which means nothing")
    path = WORK / job["output"]
    if path.is_symlink() or not path.is_file() or not path.stat().st_size:
        raise JobError(SCRIPT_FAILED, "no-output", f"the command ended with 0, but there is no {path.name}")


def take_output(name: str, life: Life) -> Optional[Job]:
    """Move the output out of the working directory, if there is one, and sum it up."""
    path = WORK / name
    if path.is_symlink() or not path.is_file():
        return None
    adler, sha256, size_bytes = 1, hashlib.sha256(), 0
    with path.open("rb") as file:
        for chunk in iter(partial(file.read, CHUNK_BYTES), b""):
            adler = zlib.adler32(chunk, adler)
            sha256.update(chunk)
            size_bytes += len(chunk)
            life.keep_beating()
        os.fsync(file.fileno())
    path.rename(name)
    return {"name": name, "size_bytes": size_bytes, "adler32": f"{adler:08x}", "sha256": sha256.hexdigest()}


def revision_of(path: Path) -> Optional[str]:
    """The CVMFS revision that this worker sees, by the path or what it is in; None if there is none."""
    try:
        return os.getxattr(str(path), "user.revision").decode("ascii", "replace")[:40]
    except OSError:
        return None if path == path.parent else revision_of(path.parent)


def prepare(job: Job) -> None:
    """A batch system may start the same job again where it ran before: nothing of that counts."""
    for path in (REPORT, HEARTBEAT, LOG, Path(job["output"])):
        if path.exists() or path.is_symlink():
            path.unlink()
    shutil.rmtree(str(WORK), ignore_errors=True)
    WORK.mkdir()
    if job["bundle"] is not None:
        name = job["bundle"]["name"]
        (WORK / name).symlink_to(Path(name).absolute())
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))


def main(path: str) -> int:
    job: Job = json.loads(Path(path).read_text(encoding="utf-8"))
    if job["format"] != FORMAT:
        raise ValueError(f"{path} has format {job['format']!r}, not {FORMAT}")
    prepare(job)
    life, log = Life(job), Log(job["log_bytes"])
    end = JobError(DONE, "done", "done")
    try:
        if job["bundle"] is not None:
            check_bundle(job["bundle"], life)
        run_command(job, log, life)
    except JobError as error:
        end = error
    except OSError as error:
        end = JobError(TRANSIENT, "worker", f"this worker failed: {error}")
    life.step = "summing up"
    log.close(with_ends=end.code != DONE)
    report = {
        "format": FORMAT,
        "name": job["name"],
        "exit_code": end.code,
        "outcome": end.outcome,
        "reason": end.reason[:2000],
        "output": take_output(job["output"], life),
        "begun": life.begun,
        "ended": time.time(),
        "node": socket.gethostname(),
        "release": job["release"],
        "revision": revision_of(Path(job["setup"])),
    }
    shutil.rmtree(str(WORK), ignore_errors=True)
    write_whole(REPORT, report, durable=True)
    return end.code


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1]))
    except (OSError, ValueError, KeyError, IndexError) as error:
        sys.stderr.write(f"job.py: no report can be made: {type(error).__name__}: {error}\n")
        sys.exit(TRANSIENT)
