"""How long XrdCl may wait. There are two of it in our process: the one of PyPI's xrootd, and Debian's below gfal2.

Its own defaults wait for half an hour, and stay away as long from a server that was down.
"""

import os
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


def limit_waiting() -> None:
    """Set the limits of the process, where the environment does not (XRD_REQUESTTIMEOUT and so on).

    gfal2's XrdCl reads the environment when it is loaded, which is when the first gfal2 context is made.
    """
    for name, value in (_SECONDS | _ATTEMPTS).items():
        variable = f"XRD_{name.upper()}"
        library.EnvPutInt(name, int(os.environ.setdefault(variable, str(value))))
