"""`mover demo` as a newcomer runs it: it ends well, leaves nothing behind, and no key ever is in a file."""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from mover.sandbox.batches import BatchKind
from tests.integration.mover.box import processes_using, wait_for
from tests.integration.mover.secrets import files_with_keys
from tests.other_user import need_readable_checkout
from tests.real_data import real_file

SECONDS = 300.0
DEMO = [sys.executable, "-P", "-m", "mover", "demo"]
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - looked at, not written to


@pytest.fixture
def private() -> Iterator[Path]:
    """A folder with an empty `tmp` and `home`, of a path that is short enough for sockets."""
    with TemporaryDirectory(prefix="demo-") as folder:
        for name in ("tmp", "home"):
            (Path(folder) / name).mkdir()
        yield Path(folder)


def _environment(private: Path) -> dict[str, str]:
    return {**os.environ, "TMPDIR": str(private / "tmp"), "HOME": str(private / "home")}


def _demo(private: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [*DEMO, *arguments], env=_environment(private), capture_output=True, text=True, timeout=SECONDS, check=False
    )
    assert "Traceback" not in done.stderr
    return done


def _assert_nothing_left(private: Path) -> None:
    assert list((private / "tmp").iterdir()) == []
    assert list((private / "home").iterdir()) == []
    assert processes_using(private / "tmp") == []


def test_the_demo_moves_a_run_has_it_reconstructed_and_leaves_nothing_behind(private: Path) -> None:
    before = set(SHARED_MEMORY.iterdir())
    done = _demo(private, "--release")
    assert done.returncode == 0, done.stderr
    for fact in (
        r"4742 +MICE/Step1/04700/04742\.tar +12\.6 MB +[0-9a-f]{8} +ral-tape .* yes",
        r"imperial-tape .* yes",
        r"brunel-disk .* disk",
        r"safe: 2 tapes at 2 sites, 1 disk, asked of the storage itself",
        r"\d+\.\d s from end of run to safe",
        r"local files of run 4742 are removed",
        r" reco +reference-1\.0 +proven +RECO/reference-1\.0/Step1/04700/04742_offline\.tar +Spill: 12 +brunel-disk",
        r" mc +reference-1\.0 +proven +Simulation/reference-1\.0/Step1/04700/04742_mc\.tar +Spill: 21 +brunel-disk",
        r"ral-tape: on tape",
        r"imperial-tape: on tape",
        r"\d+\.\d s from end of run to reconstructed, proven and on tape",
    ):
        assert re.search(fact, done.stdout), done.stdout
    assert "run 4742 at ral-tape: archived" in done.stderr
    for robot in ("mover", "reco"):
        assert f"a dongle has signed a session proxy for CN=Robot - sandbox {robot}" in done.stderr
    _assert_nothing_left(private)
    left = {path for path in SHARED_MEMORY.iterdir() if not path.name.startswith("pytest-")}  # other tests' own
    assert left - before == set()


def test_the_demo_says_what_is_wrong_with_files_that_are_no_run(private: Path, tmp_path: Path) -> None:
    junk = tmp_path / "06008.000"
    junk.write_bytes(b"not DATE at all" * 100)
    done = _demo(private, "--run-files", str(junk))
    assert done.returncode == 4
    assert "error: run 6008 is not complete: part 06008.000: no event at byte 0" in done.stderr
    assert "hint: " in done.stderr
    other = tmp_path / "notes.txt"
    other.touch()
    assert _demo(private, "--run-files", str(junk), str(other)).returncode == 4
    missing = _demo(private, "--run-files", str(junk), str(tmp_path / "none"))
    assert missing.returncode == 2
    assert "FILE…" in missing.stderr
    _assert_nothing_left(private)


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGHUP])
def test_a_demo_that_is_told_to_stop_cleans_up(private: Path, stop: signal.Signals) -> None:
    with (private / "said").open("w") as said:
        demo = subprocess.Popen(DEMO, env=_environment(private), stdout=said, stderr=said)
    try:
        text = (private / "said").read_text
        wait_for(lambda: "end of run 4742 is signalled" in text() or demo.poll() is not None, text, seconds=SECONDS)
        demo.send_signal(stop)
        assert demo.wait(timeout=SECONDS) == 130
    finally:
        demo.kill()
        demo.wait(timeout=SECONDS)
    assert "Traceback" not in text()
    _assert_nothing_left(private)


def test_the_demo_moves_and_reconstructs_the_real_run_6008(private: Path) -> None:
    done = _demo(private, "--run-files", str(real_file("06008.000")))
    assert done.returncode == 0, done.stderr
    assert "MICE/Step4/06000/06008.tar" in done.stdout
    assert "safe: 2 tapes at 2 sites, 1 disk" in done.stdout
    assert re.search(r"RECO/reference-1\.0/Step4/06000/06008_offline\.tar +Spill: 6 ", done.stdout), done.stdout


def test_the_demo_ends_when_the_run_is_safe_if_that_is_all_that_is_wanted(private: Path) -> None:
    done = _demo(private, "--no-reco")
    assert done.returncode == 0, done.stderr
    assert "safe: 2 tapes at 2 sites, 1 disk" in done.stdout
    assert "RECO" not in done.stdout + done.stderr
    _assert_nothing_left(private)


@pytest.mark.long
@pytest.mark.parametrize("kind", [BatchKind.SLURM, BatchKind.ARC])
def test_the_demo_reconstructs_with_a_real_batch_system(private: Path, kind: BatchKind) -> None:
    program = {BatchKind.SLURM: "/usr/sbin/slurmctld", BatchKind.ARC: "/usr/share/arc/arc-arex-start"}[kind]
    if not Path(program).exists():
        pytest.skip(f"{program} is not there: apt install {' '.join(kind.packages)}")
    if kind is BatchKind.ARC:
        need_readable_checkout()  # the jobs are nobody's
        for folder in (private, private / "tmp"):
            folder.chmod(0o711)
    done = _demo(private, "--batch", kind)
    assert done.returncode == 0, done.stderr
    assert f"jobs run by {kind}" in done.stderr
    assert len(re.findall(r" (?:reco|mc) .* proven +", done.stdout)) == 2
    _assert_nothing_left(private)


@pytest.mark.skipif(os.geteuid() != 0, reason="jobs are another user's for root only")
def test_a_demo_with_arc_says_at_once_that_its_jobs_may_not_read_the_checkout_or_the_folder(private: Path) -> None:
    (private / "tmp").chmod(0o711)
    done = _demo(private, "--batch", "arc")
    assert done.returncode == 11
    assert f"error: {private} is closed to the user nobody" in done.stderr
    private.chmod(0o711)
    # The same Python, in an environment that only root can reach.
    closed = private / "closed"
    (closed / "bin").mkdir(parents=True, mode=0o700)
    closed.chmod(0o700)
    python = closed / "bin/python"
    python.symlink_to(sys.executable)
    for name in ("pyvenv.cfg", "lib"):
        (closed / name).symlink_to(Path(sys.prefix) / name)
    command = [str(python), *DEMO[1:], "--batch", "arc"]
    done = subprocess.run(
        command, env=_environment(private), capture_output=True, text=True, timeout=SECONDS, check=False
    )
    assert done.returncode == 11
    assert f"error: nobody, as whom the compute element's jobs run, cannot run {python}: " in done.stderr
    assert "hint: work in a checkout that every user may read" in done.stderr
    assert "a site on loopback" not in done.stderr
    _assert_nothing_left(private)


def test_nothing_is_installed_that_nobody_asked_for(private: Path) -> None:
    """Where the batch system's packages are not installed, by a dpkg-query that says so."""
    programs = private / "bin"
    programs.mkdir()
    for name, script in (("dpkg-query", "exit 1"), ("apt-get", f"echo called >> {private}/called")):
        (programs / name).write_text(f"#!/bin/sh\n{script}\n")
        (programs / name).chmod(0o755)
    environment = {**_environment(private), "PATH": f"{programs}:{os.environ['PATH']}"}
    command = [*DEMO, "--batch", "slurm"]
    done = subprocess.run(
        command, env=environment, input="y\n", capture_output=True, text=True, timeout=SECONDS, check=False
    )
    assert done.returncode == 11
    assert "apt-get -q install -y --no-install-recommends munge slurm-client slurmctld slurmd" in done.stderr
    assert "give --install" in done.stderr
    assert not (private / "called").exists()
    _assert_nothing_left(private)


@pytest.fixture
def kept(private: Path) -> Iterator[Path]:
    """A demo that stays up, under strace; the folder of its site. It is ended by Ctrl-C and must clean up."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed: apt install strace")
    # Payloads are random bytes in writes of megabytes: what is shown of each is enough for a whole PEM chain and key.
    trace = ["strace", "-f", "-yy", "-s", "16384", "-e", "trace=%file,write,writev,pwrite64,pwritev"]
    command = [*trace, "-o", str(private / "trace"), *DEMO, "--keep"]
    with (private / "said").open("w") as said:
        demo = subprocess.Popen(command, env=_environment(private), stdout=said, stderr=said, start_new_session=True)
    try:
        text = (private / "said").read_text
        wait_for(lambda: "stays up until Ctrl-C" in text() or demo.poll() is not None, text, seconds=SECONDS)
        assert demo.poll() is None, text()
        (site,) = (private / "tmp").glob("mover-demo-*")
        yield site
        (traced,) = (Path(f"/proc/{demo.pid}/task/{demo.pid}/children")).read_text().split()
        os.kill(int(traced), signal.SIGINT)
        assert demo.wait(timeout=SECONDS) == 0, text()
        _assert_nothing_left(private)
    finally:
        demo.kill()
        demo.wait(timeout=SECONDS)


def test_the_scan_finds_planted_keys(tmp_path: Path) -> None:
    keys: list[rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey] = [
        rsa.generate_private_key(public_exponent=65537, key_size=2048),
        ec.generate_private_key(ec.SECP256R1()),
    ]
    number = 0
    for key in keys:
        for encoding in (serialization.Encoding.PEM, serialization.Encoding.DER):
            for form in (serialization.PrivateFormat.TraditionalOpenSSL, serialization.PrivateFormat.PKCS8):
                number += 1
                raw = key.private_bytes(encoding, form, serialization.NoEncryption())
                (tmp_path / f"planted-{number}").write_bytes(b"\x00" * ((8 << 20) - 100) + raw + b"\xff" * 100)
    (tmp_path / "innocent").write_bytes(os.urandom(1 << 20))
    assert {path.name for path in files_with_keys(tmp_path)} == {f"planted-{one + 1}" for one in range(number)}


def test_no_key_but_the_servers_own_is_in_any_file_or_was_ever_written_to_one(kept: Path, private: Path) -> None:
    planted = private / "home" / "planted.pem"
    planted.write_text("-----BEGIN PRIVATE KEY-----\n")
    found = set(files_with_keys(private / "tmp", private / "home", SHARED_MEMORY))
    assert planted in found
    planted.unlink()
    # Host keys are files because servers need them so; the CA's key is in memory only.
    servers = {kept / name / "etc" / "hostkey.pem" for name in ("tape-ral", "tape-imperial", "disk-brunel")}
    assert found == {planted} | servers
    # The dongle's key is in SoftHSM's own object files, encrypted under the PIN.
    assert list((kept / "dongle" / "tokens").rglob("*.object"))

    memory, files = 0, set()
    for line in (private / "trace").read_text(errors="replace").splitlines():
        written = WRITE.match(line)
        if written and (PEM_KEY in written["data"] or DER_KEY.search(written["data"])):
            if written["file"].startswith("/memfd:"):
                memory += 1
            else:
                files.add(Path(written["file"]))
    # The watching works: the client proxies of both services were seen to be written to memory.
    assert memory >= 2
    assert files == servers


# write(29</memfd:proxy>(deleted), "…
WRITE = re.compile(r"^\d+ +(?:write|writev|pwrite64|pwritev)\(\d+<(?P<file>.*?)>(?:\(deleted\))?, (?P<data>.*)")
PEM_KEY = "PRIVATE KEY-----"
# How strace shows the beginning of an RSA key in DER: PKCS #1 after its version, PKCS #8 with its algorithm.
DER_KEY = re.compile(
    r"\\2\\1\\0\\2\\202\\[12]\\[01]\\0|\\2\\1\\0000\\r\\6\\t\*\\206H\\206\\367\\r\\1\\1\\1\\5\\0\\4\\202"
)


def test_the_trace_would_show_a_key_in_der(tmp_path: Path) -> None:
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed: apt install strace")
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    for form in (serialization.PrivateFormat.TraditionalOpenSSL, serialization.PrivateFormat.PKCS8):
        raw = key.private_bytes(serialization.Encoding.DER, form, serialization.NoEncryption())
        trace = ["strace", "-yy", "-s", "16384", "-e", "trace=write", "-o", str(tmp_path / "trace")]
        with (tmp_path / "key").open("wb") as file:
            subprocess.run([*trace, "cat"], input=raw, stdout=file, check=True, timeout=SECONDS)
        lines = (tmp_path / "trace").read_text(errors="replace").splitlines()
        # Without -f there is no pid in front.
        assert any((found := WRITE.match(f"1 {line}")) and DER_KEY.search(found["data"]) for line in lines)
