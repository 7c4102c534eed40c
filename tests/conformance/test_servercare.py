"""A shared server that falls ill costs one test a second run, and no test its verdict."""

import subprocess
import sys
from pathlib import Path

import pytest

_CONFTEST = """
from pathlib import Path
import pytest
from mover.sandbox.ca import CertificateAuthority
from mover.sandbox.xrootd import DiskServer
from tests.conftest import pytest_runtest_makereport, pytest_runtest_protocol
from tests.servercare import cared_for

@pytest.fixture(scope="session")
def server(tmp_path_factory):
    made = DiskServer(Path("server"), CertificateAuthority(Path("ca")), robot="Robot")
    made.start()
    with cared_for([made]):
        yield made
    made.close()
"""
_TESTS = """
import socket
from pathlib import Path
from tests import servercare
from tests.conformance.frozen import frozen_later

servercare._PATIENCE_SECONDS = 1.0
runs = []

def test_it_hangs(server, request, tmp_path):
    runs.append(tmp_path)
    if len(runs) == 1:
        freezing = frozen_later(server)
        request.session.kept = freezing
        freezing.__enter__()()
        raise AssertionError("nobody answered")

def test_it_is_gone(server, tmp_path):
    runs.append(tmp_path)
    if len(runs) == 3:
        server.stop()
        raise AssertionError("nobody was there")

def test_it_is_well_and_the_mover_is_not(server):
    runs.append(None)
    raise AssertionError("wrong bytes")

def test_all_the_others_find_it_well():
    assert len(runs) == 5 and runs[0] != runs[1]
"""


@pytest.mark.usefixtures("site")  # skips where there is no XRootD
def test_a_test_is_run_again_only_if_a_server_was_ill(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(_CONFTEST)
    (tmp_path / "test_it.py").write_text(_TESTS)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    checkout = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-v", "--basetemp=base"],
        cwd=tmp_path,
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "PYTHONPATH": f"{checkout}:{checkout / 'token'}"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    lines = [line.split() for line in done.stdout.splitlines() if line.startswith("test_it.py::")]
    verdicts = [[line[0].removeprefix("test_it.py::"), line[1]] for line in lines if len(line) > 1]
    assert verdicts == [
        ["test_it_hangs", "PASSED"],
        ["test_it_is_gone", "PASSED"],
        ["test_it_is_well_and_the_mover_is_not", "FAILED"],
        ["test_all_the_others_find_it_well", "PASSED"],
    ], done.stdout
    assert done.stdout.count("run once more, because") == 2
    assert "davs port" in done.stdout
