"""How long XrdCl may wait. There are two of it in our process: the one of PyPI's xrootd, and Debian's below gfal2.

Its own defaults wait for half an hour, and stay away as long from a server that was down.
"""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from XRootD import client

#: PyPI's XrdCl. It claims to be typed, but is not.
library: Any = client

_SECONDS = {
    "RequestTimeout": 120,
    "StreamTimeout": 60,
    "ConnectionWindow": 15,
    "StreamErrorWindow": 0,
    "TimeoutResolution": 1,
}
_ATTEMPTS = {"ConnectionRetry": 1}

_lock = threading.Lock()
_waits: list[int] = []


def login(proxy_path: str) -> str:
    """The parameters of a URL that make XrdCl log in by GSI with that proxy.

    Not a secret: the name means something in this process only. XrdCl takes the parameters out.
    """
    return f"?xrd.wantprot=gsi&xrd.gsiusrpxy={proxy_path}"


def limit_waiting() -> None:
    """Set the limits of the process, where the environment does not (XRD_REQUESTTIMEOUT and so on).

    gfal2's XrdCl reads the environment when it is loaded, which is when the first gfal2 context is made.
    """
    with _lock:
        _set_limits()


@contextmanager
def waiting_long(seconds: int) -> Iterator[None]:
    """In the block, a server may say nothing for so long.

    A checksum that XRootD computes by itself is such a silence, and the stream timeout would break the connection,
    whatever the call itself is given. It holds for the process; its other calls have deadlines of their own.
    """
    with _lock:
        _waits.append(seconds)
        _set_limits()
    try:
        yield
    finally:
        with _lock:
            _waits.remove(seconds)
            _set_limits()


def _set_limits() -> None:
    for name, value in (_SECONDS | _ATTEMPTS).items():
        set_for_all = int(os.environ.setdefault(f"XRD_{name.upper()}", str(value)))
        library.EnvPutInt(name, max([set_for_all, *_waits]) if name == "StreamTimeout" else set_for_all)
