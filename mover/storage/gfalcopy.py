"""Third-party copies by root:// and gsiftp://: gfal2 makes each of them in a process of its own.

A process, and not a thread, for two reasons. A library that hangs can be ended whatever it does. And XrdCl's GSI takes
the leave to sign proxies for servers, which root:// needs, from the environment, for all connections of a process: the
mover's own never have it.
"""

import contextlib
import json
import os
import re
import select
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from mover.errors import EndpointUnavailableError, StorageError, ThirdPartyCopyError
from mover.storage.credential import NamedProxy
from mover.storage.gfalerrors import storage_error
from mover.storage.thirdparty import LOOK_SECONDS, Watch
from mover.storage.xrdcl import limit_waiting

_PROGRAM = "mover.storage.gfalcopy_process"
# A server is told that the copy is over, if it can be.
_CANCEL_SECONDS = 5.0
_KILLED_SECONDS = 5.0
_MOST_LINE_BYTES = 1 << 16
# XrdSecProtocolgsi: 0 delegates nothing, 1 signs a request of the server's, 2 would send it our private key.
_SIGN_REQUESTS = {"XrdSecGSIDELEGPROXY": "1"}


def copy_by_gfal(source_url: str, target_url: str, proxy: NamedProxy, watch: Watch) -> None:
    """Have the storages copy one file to a new one; returns when they say that it is done.

    The servers that ask for it get a proxy signed by ours for a key of their own, which is good for as long as ours.

    Raises:
        ThirdPartyCopyError: gfal2 began to copy through this machine, and was stopped.
        StorageError: the copy failed.
        BaseException: what `watch.look` raised; the copy was ended.
    """
    request = {"source": source_url, "target": target_url, "proxy": proxy.path}
    what = f"{source_url} to {target_url}"
    limit_waiting()  # in the environment, for the process
    with _process(_descriptors(proxy.path), _SIGN_REQUESTS) as connection:
        watch.begun = True
        connection.sendall(json.dumps(request).encode() + b"\n")
        for message in _messages(connection, watch):
            match message:
                case {"bytes": int(done)}:
                    watch.saw(done)
                case {"type": str(kind)} if "stream" in kind.lower():
                    raise ThirdPartyCopyError(
                        f"{what}: gfal2 copies through this machine ({kind})", hint="let the bundle be streamed instead"
                    )
                case {"done": True}:
                    return
                case {"code": int(code), "text": str(text)}:
                    raise storage_error(code, text.replace(source_url, "the source"), target_url)
    raise EndpointUnavailableError(
        f"{what}: the process that copies ended without a word", hint="it is tried again; see the log for a crash"
    )


def _messages(connection: socket.socket, watch: Watch) -> Iterator[Any]:
    """What the process says, while the watch looks in between; ends when the process does."""
    rest = b""
    looked = float("-inf")
    while True:
        if time.monotonic() - looked >= LOOK_SECONDS:
            watch.look()
            looked = time.monotonic()
        if not select.select([connection], [], [], LOOK_SECONDS)[0]:
            continue
        received = connection.recv(_MOST_LINE_BYTES)
        if not received:
            return
        *lines, rest = (rest + received).split(b"\n")
        try:
            messages = [json.loads(line) for line in lines]
        except ValueError:
            messages = None
        if messages is None or len(rest) > _MOST_LINE_BYTES:
            raise StorageError("the process that copies talks nonsense", hint="please report it, with the log")
        yield from messages


@contextmanager
def _process(descriptors: tuple[int, ...], environment: Mapping[str, str]) -> Iterator[socket.socket]:
    """The program, and a socket to it; however the body ends, the process is ended in bounded time."""
    ours, theirs = socket.socketpair()
    command = [sys.executable, "-P", "-B", "-m", _PROGRAM, str(theirs.fileno())]
    with ours, theirs:
        try:
            # A session of its own: Ctrl-C is for the mover, which then ends the copy in order.
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(), *descriptors),
                env={**os.environ, **environment},
                start_new_session=True,
            )
        except OSError as error:
            raise EndpointUnavailableError(
                f"cannot start a process to copy with: {error.strerror}",
                hint="see whether the mover has run out of processes, memory or open files",
            ) from error
        theirs.close()
        try:
            yield ours
        finally:
            ours.close()  # tells it to end
            _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(_CANCEL_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        # One that hangs in the kernel stays; subprocess reaps it when it ends at last.
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_KILLED_SECONDS)


def _descriptors(proxy_path: str) -> tuple[int, ...]:
    """The open file that the path names, which the process is to have under the same number."""
    found = re.fullmatch(r"/proc/self/fd/(?:\./|\.\./fd/)*(\d+)", proxy_path)
    return (int(found[1]),) if found else ()
