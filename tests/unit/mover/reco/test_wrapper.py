"""The job wrapper, run as on a worker: what it checks, how it ends, and what it leaves."""

import ast
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mover.reco.jobdescription import REPORT_NAME, WRAPPER, read_heartbeat
from mover.sandbox.daq import DaqWriter
from tests.unit.mover.reco.jobs import SECONDS, JobDirectory, raw_bundle

OUTPUT = "04742_offline.tar"
Make = Callable[..., JobDirectory]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A raw bundle of two parts."""
    directory = tmp_path_factory.mktemp("daq")
    return raw_bundle(4742, DaqWriter(directory).write_run(4742, parts=2, part_bytes=20_000))


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Makes a job whose command is a line of sh."""

    def job(line: str, bundle: Any = None, **more: Any) -> JobDirectory:
        return JobDirectory.make(tmp_path / "job", bundle, command=("sh", "-c", line), **more)

    return job


def _wait_for(what: Callable[[], object]) -> None:
    until = time.monotonic() + SECONDS
    while not what():
        assert time.monotonic() < until
        time.sleep(0.05)


def test_it_runs_on_python_3_6() -> None:
    text = WRAPPER.read_text("utf-8")
    ast.parse(text, feature_version=(3, 6))
    command = [
        str(Path(sys.executable).with_name("vermin")),
        "-t=3.6-",
        "--eval-annotations",
        "--violations",
        str(WRAPPER),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=SECONDS)
    assert done.returncode == 0, done.stdout
    assert "Minimum required versions: 3.6" in done.stdout


def test_a_job_that_is_done(make: Make, bundle: Any) -> None:
    job = make(f"cat 04742.tar > {OUTPUT}; echo reconstructed; echo warned >&2", bundle)
    code, report = job.run()
    assert (code, report.outcome, report.reason) == (0, "done", "done")
    stored = bundle[0]
    assert (job.path / OUTPUT).read_bytes() == stored
    assert report.output
    assert report.output.size_bytes == len(stored)
    assert report.output.adler32 == f"{zlib.adler32(stored):08x}"
    assert report.output.sha256 == hashlib.sha256(stored).hexdigest()
    assert report.begun <= report.ended
    assert (report.release, report.revision) == ("0.1.0", None)
    assert sorted(job.log().splitlines()) == ["reconstructed", "warned"]
    assert not (job.path / "work").exists()


@pytest.mark.parametrize("code", [1, 2, 3])
def test_exit_codes_of_the_contract_are_passed_on(code: int, make: Make) -> None:
    job = make(f"echo something > reco.log; exit {code}")
    found, report = job.run()
    assert (found, report.outcome) == (code, "command")
    assert report.reason.startswith(f"the command ended with {code}: ")
    assert report.output is None
    assert "==> the end of 'reco.log' <==\nsomething" in job.log()


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("exit 4", "the command ended with 4, which means nothing"),
        ("exit 255", "the command ended with 255, which means nothing"),
        ("kill -9 $$", "the command was killed by signal 9"),
        ("kill -SEGV $$", "the command was killed by signal 11"),
    ],
)
def test_any_other_end_is_a_script_that_failed(line: str, reason: str, make: Make) -> None:
    code, report = make(line).run()
    assert (code, report.outcome, report.reason) == (3, "command", reason)


def test_a_command_that_is_not_there(tmp_path: Path) -> None:
    code, report = JobDirectory.make(tmp_path / "job", None, command=("no-such-program",)).run()
    assert (code, report.reason) == (3, "no-such-program cannot be run: No such file or directory")


@pytest.mark.parametrize("line", ["true", f": > {OUTPUT}", f"mkdir {OUTPUT}", f"ln -s /etc/passwd {OUTPUT}"])
def test_an_end_with_0_that_left_nothing_as_in_2012(line: str, make: Make) -> None:
    code, report = make(line).run()
    assert (code, report.outcome) == (3, "no-output")
    assert report.reason == f"the command ended with 0, but there is no {OUTPUT}"


def test_an_output_from_before_does_not_count(make: Make) -> None:
    """A batch system starts the same job again where it ran before."""
    job = make("true")
    (job.path / OUTPUT).write_bytes(b"left over")
    (job.path / REPORT_NAME).write_text("{}")
    (job.path / "work").mkdir()
    (job.path / "work" / OUTPUT).write_bytes(b"left over")
    assert job.run()[0] == 3
    assert not (job.path / OUTPUT).exists()


def test_a_failed_command_may_leave_an_output_for_the_expert(make: Make) -> None:
    job = make(f"echo x > {OUTPUT}; exit 2")
    code, report = job.run()
    assert code == 2
    assert report.output
    assert (job.path / OUTPUT).read_bytes() == b"x\n"


def _flip(job: JobDirectory, at: int) -> None:
    path = job.path / "04742.tar"
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def _rewrite(job: JobDirectory, change: Callable[[dict[str, Any]], None]) -> None:
    path = job.path / "job.json"
    described = json.loads(path.read_bytes())
    change(described)
    path.write_text(json.dumps(described))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda job: _flip(job, 600), "04742.tar has"),
        (lambda job: _flip(job, 0), "04742.tar"),
        (lambda job: (job.path / "04742.tar").unlink(), "04742.tar cannot be read"),
        (lambda job: (job.path / "04742.tar").write_bytes(b""), "04742.tar"),
        (lambda job: os.truncate(job.path / "04742.tar", 30_000), "04742.tar"),
        (lambda job: _rewrite(job, lambda raw: raw["bundle"]["members"][1].update(size_bytes=1)), "member 04742.001"),
        (
            lambda job: _rewrite(job, lambda raw: raw["bundle"]["members"][0]["digests"].update(sha256="0" * 64)),
            "member 04742.000",
        ),
        (lambda job: _rewrite(job, lambda raw: raw["bundle"]["members"][0].update(name="04742.009")), "04742.009"),
        (lambda job: _rewrite(job, lambda raw: raw["bundle"].update(listing="04743.md5")), "04743.md5 is missing"),
        (lambda job: _rewrite(job, lambda raw: raw["bundle"].update(listing="04742.000")), "04742.000 is missing"),
    ],
)
def test_a_bundle_that_was_staged_badly_is_not_used(
    spoil: Callable[[JobDirectory], None], words: str, make: Make, bundle: Any
) -> None:
    job = make(f"echo x > {OUTPUT}", bundle)
    spoil(job)
    code, report = job.run()
    assert (code, report.outcome) == (1, "staging")
    assert report.reason.startswith("the bundle was staged badly: ")
    assert words in report.reason
    assert not (job.path / OUTPUT).exists()


def test_a_listing_that_says_otherwise_is_noticed(make: Make, tmp_path: Path) -> None:
    (tmp_path / "04742.000").write_bytes(b"data")
    stored, digest, listing = raw_bundle(4742, [tmp_path / "04742.000"])
    good = hashlib.md5(b"data").hexdigest().encode()  # noqa: S324
    stored = stored.replace(good, good[::-1])
    code, report = make("true", (stored, type(digest)(len(stored), f"{zlib.adler32(stored):08x}", ()), listing)).run()
    assert (code, report.outcome) == (1, "staging")
    assert "04742.md5 says otherwise of 04742.000" in report.reason


def test_the_set_up_script_makes_the_environment_and_nothing_else_does(make: Make, tmp_path: Path) -> None:
    setup = tmp_path / "env.sh"
    setup.write_text('echo noise; export MAUS="two\nlines $#"; export PATH="/maus/bin:$PATH"\n')
    job = make(f"env > {OUTPUT}", setup=str(setup))
    assert job.run()[0] == 0
    found = (job.path / OUTPUT).read_text()
    assert "MAUS=two\nlines 0\n" in found
    assert "PATH=/maus/bin:/usr/local/bin:/usr/bin:/bin\n" in found
    assert f"HOME={job.path}/work\n" in found
    for secret in ("X509", "SLURM", "secret", "PYTEST"):
        assert secret not in found
    assert "noise" in job.log()


@pytest.mark.parametrize("text", [None, "exit 0", "exit 2", "false", "kill -9 $$", "syntax ( error"])
def test_a_release_that_cannot_be_set_up_on_this_worker_is_tried_on_another(
    text: str | None, make: Make, tmp_path: Path
) -> None:
    setup = tmp_path / "env.sh"
    if text is not None:
        setup.write_text(text)
    code, report = make(f"echo x > {OUTPUT}", setup=str(setup)).run()
    assert (code, report.outcome) == (1, "setup")
    assert str(setup) in report.reason


def test_a_job_that_takes_too_long_is_ended_with_all_its_processes(make: Make) -> None:
    job = make("trap '' TERM; sleep 1000 & echo $! > ../pid; wait; sleep 1000", wall_seconds=3)
    code, report = job.run()
    assert (code, report.outcome) == (1, "timeout")
    assert report.reason == "took longer than it may while running the command"
    pid = int((job.path / "pid").read_text())
    _wait_for(lambda: not _runs(pid))


def _runs(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text("ascii", "replace").rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in {"Z", "X"}


def test_what_a_command_leaves_running_is_ended(make: Make) -> None:
    job = make(f"sleep 1000 & echo $! > ../pid; echo x > {OUTPUT}")
    assert job.run()[0] == 0
    pid = int((job.path / "pid").read_text())
    _wait_for(lambda: not _runs(pid))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_the_batch_system_may_end_it(number: signal.Signals, make: Make) -> None:
    job = make("echo $$ > ../pid; exec sleep 1000")
    process = job.start()
    _wait_for(lambda: (job.path / "pid").exists() and (job.path / "pid").read_text().endswith("\n"))
    process.send_signal(number)
    assert process.wait(SECONDS) == 1
    assert job.report().outcome == "terminated"
    assert job.report().reason == f"ended by signal {int(number)} while running the command"
    pid = int((job.path / "pid").read_text())
    _wait_for(lambda: not _runs(pid))


def test_a_wrapper_that_is_killed_takes_the_command_along_and_leaves_no_report(make: Make) -> None:
    job = make("echo $$ > ../pid; exec sleep 1000")
    process = job.start()
    _wait_for(lambda: (job.path / "pid").exists() and (job.path / "pid").read_text().endswith("\n"))
    process.kill()
    process.wait(SECONDS)
    pid = int((job.path / "pid").read_text())
    _wait_for(lambda: not _runs(pid))
    assert not (job.path / REPORT_NAME).exists()


def test_heartbeats_say_what_it_is_at(make: Make) -> None:
    job = make(f"printf 12345 > {OUTPUT}; while [ ! -e ../go ]; do sleep 0.1; done")
    process = job.start()
    _wait_for(lambda: job.heartbeat().get("output_bytes") == 5)
    first = read_heartbeat((job.path / "heartbeat").read_bytes())
    assert first.step == "running the command"
    _wait_for(lambda: job.heartbeat()["at"] > first.at)
    (job.path / "go").touch()
    assert process.wait(SECONDS) == 0


def test_logs_are_bounded_with_their_beginning_and_end(make: Make) -> None:
    job = make(f"echo begins; seq 100000; echo ends; echo x > {OUTPUT}", log_bytes=10_000)
    assert job.run()[0] == 0
    log = job.log()
    assert len(log) < 10_100
    assert log.startswith("begins\n1\n2\n")
    assert log.endswith("99999\n100000\nends\n")
    left_out = int(log.split("[... ")[1].split()[0])
    assert len(log) - len(f"\n[... {left_out} bytes are left out ...]\n") + left_out == len(
        "begins\nends\n" + "".join(f"{number}\n" for number in range(1, 100_001))
    )


def test_links_and_fifos_in_place_of_logs_do_no_harm(make: Make) -> None:
    job = make("ln -s /etc/passwd a.log; mkfifo b.log; mkdir c.log; echo good > d.log; exit 2")
    assert job.run()[0] == 2
    assert "root:" not in job.log()
    assert "'d.log' <==\ngood" in job.log()


def test_a_job_that_was_staged_without_its_description_says_so(make: Make) -> None:
    job = make("true")
    for spoil in (b"", b"{}", b"[]", b'{"format": 2}'):
        (job.path / "job.json").write_bytes(spoil)
        assert job.start().wait(SECONDS) == 1
        assert "no report can be made" in (job.path / "batch.log").read_text()
        assert not (job.path / REPORT_NAME).exists()


def test_a_worker_without_python_says_so(make: Make) -> None:
    job = make("true")
    done = subprocess.run(
        ["/bin/sh", "job.py", "job.json"],
        cwd=job.path,
        env={"PATH": "/none"},
        capture_output=True,
        text=True,
        check=False,
    )
    if Path("/usr/libexec/platform-python").exists():
        pytest.skip("this system has a Python that needs no PATH")
    assert done.returncode == 1
    assert "there is no Python 3" in done.stderr
