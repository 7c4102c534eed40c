"""Ctrl-C while a command is still being loaded ends it as Ctrl-C does, and quietly."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPTS: dict[str, str] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]

_PROGRAM = """
import importlib, os, signal, sys

class Interrupter:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            os.kill(os.getpid(), signal.SIGINT)

signal.signal(signal.SIGINT, signal.{handler})
sys.meta_path.insert(0, Interrupter())
sys.argv = ["program", "--version"]
importlib.import_module({package!r}).{function}()
"""


def _interrupted(script: str, module: str, handler: str) -> "subprocess.CompletedProcess[str]":
    """The command, with SIGINT sent when it imports that module."""
    package, _, function = SCRIPTS[script].partition(":")
    program = _PROGRAM.format(module=module, package=package, function=function, handler=handler)
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize(("script", "module"), [("mover", "mover.engine"), ("proxyagent", "proxyagent.cli.words")])
def test_ctrl_c_during_the_imports_is_quiet(script: str, module: str) -> None:
    ended = _interrupted(script, module, "default_int_handler")
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, "", "")


@pytest.mark.parametrize(("script", "module"), [("mover", "mover.engine"), ("proxyagent", "proxyagent.cli.words")])
def test_ctrl_c_that_is_ignored_stays_ignored(script: str, module: str) -> None:
    ended = _interrupted(script, module, "SIG_IGN")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "version" in ended.stdout
