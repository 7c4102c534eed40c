"""Compiles the sandbox's small plug-ins for servers, in the server's own directory."""

import shutil
import subprocess
from importlib import resources
from pathlib import Path

from mover.errors import SandboxError

_COMPILE_SECONDS = 60


def compile_plugin(name: str, directory: Path, *, package: str = "libxrootd-dev") -> None:
    """Compile `mover/sandbox/files/<name>.cc` to `<directory>/lib<name>.so`; nothing to do if that is there.

    `package` is the Debian package with the headers that it includes.

    Raises:
        SandboxError: there is no compiler, or it refuses.
    """
    target = directory / f"lib{name}.so"
    if target.exists():
        return
    if shutil.which("g++") is None:
        raise SandboxError("g++ is not installed", hint="apt install g++")
    source = resources.files(__package__).joinpath("files", f"{name}.cc")
    unfinished = target.with_suffix(".new")
    with resources.as_file(source) as path:
        command = ["g++", "-shared", "-fPIC", "-O1", "-I/usr/include/xrootd", str(path), "-o", str(unfinished)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=_COMPILE_SECONDS, check=False)
    if done.returncode != 0:
        raise SandboxError(f"cannot compile {name}.cc:\n{done.stderr}", hint=f"apt install {package} g++")
    unfinished.chmod(0o755)  # the server is another user, whatever the umask
    unfinished.replace(target)
