"""A log of bounded size: what does not fit is left out of the middle, since the end tells why something failed."""

import os
from pathlib import Path

_TAIL_BYTES = 64 << 10


class BoundedLog:
    """A new file of at most `limit_bytes` from its beginning and 64 KiB from its end."""

    def __init__(self, path: Path, *, limit_bytes: int) -> None:
        """Create the file, or empty it.

        Raises:
            OSError: it cannot be written.
        """
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        self._descriptor = os.open(path, flags, 0o666)
        self._room = limit_bytes
        self._tail = b""
        self._left_out = 0
        #: Why the file is not whole, if it could not be written.
        self.error: OSError | None = None

    def write(self, data: bytes) -> None:
        """Append, as far as there is room; an error is kept for later."""
        head, rest = data[: self._room], data[self._room :]
        self._room -= len(head)
        self._append(head)
        tail = self._tail + rest
        self._tail = tail[-_TAIL_BYTES:]
        self._left_out += len(tail) - len(self._tail)

    def close(self) -> None:
        """Write what the end was; the file is whole then."""
        if self._left_out:
            self._append(f"\n[{self._left_out} bytes of this log were left out here]\n".encode())
        self._append(self._tail)
        os.close(self._descriptor)

    def _append(self, data: bytes) -> None:
        try:
            while data and self.error is None:
                data = data[os.write(self._descriptor, data) :]
        except OSError as error:
            self.error = error
