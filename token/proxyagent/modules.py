"""Which PKCS#11 modules may be loaded."""

import fnmatch
import os
import stat
from collections.abc import Sequence
from pathlib import Path

from proxyagent.errors import ConfigError

DEFAULT_ALLOWED = ("/usr/lib/*", "/usr/lib64/*", "/usr/local/lib/*", "/opt/*")
"""Patterns of the real paths of modules; ``*`` matches any characters, slashes too."""


def check_module(path: Path, allowed: Sequence[str] = DEFAULT_ALLOWED) -> Path:
    """The real path of a module that nobody but root can have put there or can change.

    Args:
        path: what the configuration names; it may be a symbolic link.
        allowed: patterns (fnmatch) of real paths.

    Raises:
        ConfigError: there is no such file, no pattern allows it, or somebody else than root could exchange it.
    """
    try:
        real = path.resolve(strict=True)
        found = real.lstat()
        above = [(each, each.lstat()) for each in real.parents]
    except (OSError, RuntimeError, ValueError) as error:  # RuntimeError: links in a circle; ValueError: a NUL
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise ConfigError(
            f"cannot use the PKCS#11 module {str(path)!r}: {reason}",
            hint="install the dongle's PKCS#11 module and give its path in `module`",
        ) from error
    if not any(fnmatch.fnmatchcase(str(real), pattern) for pattern in allowed):
        raise ConfigError(
            f"the PKCS#11 module {real} is not where modules may lie",
            hint=f"install it below one of {', '.join(allowed)}, or add its path to `modules` in [agent]",
        )
    if not stat.S_ISREG(found.st_mode):
        raise ConfigError(f"the PKCS#11 module {real} is not a file", hint="give the path of the vendor's library")
    _check_owner(real, found)
    for directory, status in above:
        _check_owner(directory, status)
    return real


def _check_owner(path: Path, found: os.stat_result) -> None:
    if found.st_uid != 0:
        raise ConfigError(
            f"{path} belongs to uid {found.st_uid}, who could exchange the PKCS#11 module", hint=f"chown root {path}"
        )
    others = stat.S_IWGRP | stat.S_IWOTH
    sticky = stat.S_ISDIR(found.st_mode) and found.st_mode & stat.S_ISVTX  # what is root's in there stays
    if found.st_mode & others and not sticky:
        raise ConfigError(
            f"others than root may write {path}, and could exchange the PKCS#11 module", hint=f"chmod go-w {path}"
        )
