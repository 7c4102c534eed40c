"""Several dongles plugged at once: whoever asks for PINs takes turns, and asks for none that was just asked for."""

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path

from proxyagent.clock import SystemClock
from proxyagent.errors import ConfigError

_FILE = "asked.json"
_MAX_BYTES = 64 * 1024
_MAX_REMEMBERED = 64


class Questions:
    """When each dongle's PIN was asked for since boot, in a file that all who ask share. Nothing of any PIN."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    @classmethod
    @contextlib.contextmanager
    def open(cls, directory: Path) -> "Iterator[Questions]":
        """Those kept in this directory, which is root's alone, and empty after boot.

        Raises:
            ConfigError: it cannot be used.
        """
        try:
            descriptor = os.open(directory / _FILE, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise ConfigError(
                f"cannot use {directory}: {error.strerror}", hint="run this as proxyagent-renew@.service does"
            ) from error
        try:
            yield cls(descriptor)
        finally:
            os.close(descriptor)

    def take_turn(self) -> bool:
        """Be the one who asks, if nobody else is. The turn ends with the process, or when this is closed."""
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def was_asked_since(self, serial: str, boot_seconds: float) -> bool:
        """Whether somebody was asked for this dongle's PIN, and the question came to an end, since that time."""
        return self._read().get(serial, 0.0) >= boot_seconds

    def note(self, serial: str) -> None:
        """Remember that somebody was asked until now, whatever came of it. Only in our turn."""
        asked = self._read()
        asked.pop(serial, None)
        asked[serial] = SystemClock().boot_seconds()
        text = json.dumps(dict(list(asked.items())[-_MAX_REMEMBERED:])).encode()
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, text, 0)

    def _read(self) -> dict[str, float]:
        with contextlib.suppress(ValueError, AttributeError):  # new, or torn: nobody was asked
            found = json.loads(os.pread(self._descriptor, _MAX_BYTES, 0))
            return {str(serial): float(moment) for serial, moment in found.items()}
        return {}
