"""A bad network: a TCP proxy in this process that cuts, stalls, slows or resets what goes through it, or refuses it."""

import socket
import struct
import threading
import time
from dataclasses import dataclass
from types import TracebackType

_LOOK_SECONDS = 0.05
_BLOCK = 1 << 16
#: SO_LINGER on with no time: close sends RST (socket(7)).
_RESET = struct.pack("ii", 1, 0)


@dataclass(frozen=True, slots=True)
class Toxic:
    """What is wrong with each connection: at `after_bytes` from the client, or all the time.

    `cut` closes both sides, `reset` with RST; `stall` carries nothing more and stays connected. `refuse` closes whoever
    connects at once. `bytes_per_second` slows what the client sends.
    """

    after_bytes: int | None = None
    how: str = "cut"
    refuse: bool = False
    bytes_per_second: int | None = None


WELL = Toxic()


class ToxicProxy:
    """A context manager: stands before `target_port` of localhost, at `port`. `toxic` may be changed at any time.

    What the toxic does to a connection that stands already, it does at that connection's next bytes.
    """

    def __init__(self, target_port: int) -> None:
        self.toxic = WELL
        self.hits = 0
        """How many connections the toxic has hit."""
        self._target_port = target_port
        self._stop = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(_LOOK_SECONDS)
        self.port: int = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept, name="toxic proxy")]

    def __enter__(self) -> "ToxicProxy":
        self._threads[0].start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()
        self._listener.close()

    def _accept(self) -> None:
        while not self._stop.is_set():
            try:
                client, _ = self._listener.accept()
            except TimeoutError:
                continue
            if self.toxic.refuse:
                self.hits += 1
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                client.close()
                continue
            try:
                server = socket.create_connection(("127.0.0.1", self._target_port), timeout=5)
            except OSError:
                client.close()
                continue
            for side in (client, server):
                side.settimeout(_LOOK_SECONDS)
            for source, target, upstream in ((client, server, True), (server, client, False)):
                thread = threading.Thread(target=self._carry, args=(source, target), kwargs={"upstream": upstream})
                self._threads.append(thread)
                thread.start()

    def _carry(self, source: socket.socket, target: socket.socket, *, upstream: bool) -> None:
        """Pass one direction on until it ends, or until the toxic has had its way."""
        carried = 0
        with source, target:
            while not self._stop.is_set():
                try:
                    data = source.recv(_BLOCK)
                except TimeoutError:
                    continue
                except OSError:
                    return
                toxic = self.toxic
                if not data:
                    return
                if upstream and toxic.after_bytes is not None and carried >= toxic.after_bytes:
                    self.hits += 1
                    self._end(source, target, toxic.how)
                    return
                if upstream and toxic.bytes_per_second:
                    time.sleep(len(data) / toxic.bytes_per_second)
                if not self._send(target, data):
                    return
                carried += len(data)

    def _end(self, source: socket.socket, target: socket.socket, how: str) -> None:
        if how == "stall":
            self._stop.wait()
        elif how == "reset":
            for side in (source, target):
                side.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        for side in (source, target):
            # The thread of the other direction sees the end.
            try:
                side.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue

    def _send(self, target: socket.socket, data: bytes) -> bool:
        """Whether all of it went."""
        view = memoryview(data)
        while view and not self._stop.is_set():
            try:
                view = view[target.send(view) :]
            except TimeoutError:
                continue
            except OSError:
                return False
        return not view
