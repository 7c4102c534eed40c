"""The program of `gfalcopy`: one third-party copy by gfal2, told and answered in lines of JSON on one socket.

Called as `python -m mover.storage.gfalcopy_process DESCRIPTOR`. The request is `{"source", "target", "proxy"}`; the
answers are `{"type"}` when gfal2 has decided how it copies, `{"bytes"}` now and then, and at last `{"done"}` or
`{"code", "text"}`. When the other side closes the socket, the copy is cancelled.
"""

import json
import os
import socket
import sys
import threading
from typing import Any

import gfal2

from proxyagent.client import harden_process

_CANCELLED_SECONDS = 3.0
# The other side decides when it has lasted too long; gfal2 wants a number.
_LONGEST_SECONDS = 7 * 86400
_SCHEMES = ("root", "gsiftp")


class _Line:
    """The socket to the mover."""

    def __init__(self, descriptor: int) -> None:
        self._socket = socket.socket(fileno=descriptor)
        self._lock = threading.Lock()

    def request(self) -> dict[str, str]:
        """The one line that the mover sends."""
        received = b""
        while not received.endswith(b"\n"):
            more = self._socket.recv(4096)
            if not more:
                sys.exit("nothing was asked for")
            received += more
        asked: dict[str, str] = json.loads(received)
        return asked

    def say(self, **message: object) -> None:
        """Tell the mover. If it is gone, `wait_for_end` notices."""
        with self._lock:
            try:
                self._socket.sendall(json.dumps(message).encode() + b"\n")
            except OSError:
                return

    def wait_for_end(self) -> None:
        """Return when the mover has closed its end, or is gone."""
        try:
            while self._socket.recv(4096):
                pass
        except OSError:
            return


def main(descriptor: int) -> None:
    """Make one copy."""
    harden_process()
    line = _Line(descriptor)
    asked = line.request()
    context = gfal2.creat_context()
    credential = context.cred_new("X509_CERT", asked["proxy"])
    for scheme in _SCHEMES:
        context.cred_set(f"{scheme}://", credential)
    threading.Thread(target=_cancel_at_end, args=(line, context), daemon=True).start()
    try:
        context.filecopy(_parameters(context, line), asked["source"], asked["target"])
    except gfal2.GError as error:
        line.say(code=error.code, text=str(error.message))
    else:
        line.say(done=True)
    # The libraries' threads and destructors may hang, and there is nothing left to do.
    os._exit(0)


def _parameters(context: Any, line: _Line) -> Any:
    parameters = context.transfer_parameters()
    parameters.overwrite = False
    parameters.create_parent = False  # made before
    parameters.local_transfers = False
    parameters.timeout = _LONGEST_SECONDS
    parameters.monitor_callback = lambda *progress: line.say(bytes=progress[4])
    parameters.event_callback = lambda event: _tell(event, line)
    return parameters


def _tell(event: Any, line: _Line) -> None:
    if event.stage == "TRANSFER:TYPE":
        line.say(type=event.description)


def _cancel_at_end(line: _Line, context: Any) -> None:
    line.wait_for_end()
    threading.Timer(_CANCELLED_SECONDS, os._exit, args=(1,)).start()
    context.cancel()


if __name__ == "__main__":
    main(int(sys.argv[1]))
