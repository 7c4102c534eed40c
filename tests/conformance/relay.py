"""A network that stops carrying anything in the middle of an upload or a download."""

import select
import socket
import threading
import time
from collections.abc import Callable
from types import TracebackType

_SECONDS = 0.05


class Relay:
    """Passes connections on to a port on localhost until `open_bytes` have gone there; then it stands still.

    With `answer_bytes`, also when that many have come back.
    What is connected then stays connected, and nobody else gets through. Without a port nothing ever answers.
    """

    def __init__(
        self,
        target_port: int | None,
        *,
        open_bytes: int,
        answer_bytes: int | None = None,
        tap: Callable[[bytes], None] | None = None,
        answer_delay_seconds: float = 0.0,
    ) -> None:
        """`tap` is given everything that is passed on, in either direction; pieces of answers wait before they are."""
        self._target_port = target_port
        self._tap = tap
        self._answer_delay_seconds = answer_delay_seconds
        self._left_answer_bytes = answer_bytes
        self._left_bytes = open_bytes
        self._stop = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._run)
        #: How much clients have sent so far.
        self.sent_bytes = 0

    def __enter__(self) -> "Relay":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def hang_up(self) -> None:
        """Close all connections, and let nobody else through."""
        self._stop.set()

    def _run(self) -> None:
        peers: dict[socket.socket, socket.socket] = {}
        clients: list[socket.socket] = []
        try:
            while not self._stop.is_set() and (self._target_port is None or not self._stands_still()):
                for ready in select.select([self._listener, *peers], [], [], _SECONDS)[0]:
                    if ready is self._listener:
                        clients.append(self._accept(peers))
                    else:
                        self._pass_on(ready, peers, from_client=ready in clients)
            self._listener.close()
            self._stop.wait()
        finally:
            self._listener.close()
            for connection in [*peers, *clients]:
                connection.close()

    def _stands_still(self) -> bool:
        return self._left_bytes <= 0 or (self._left_answer_bytes is not None and self._left_answer_bytes <= 0)

    def _accept(self, peers: dict[socket.socket, socket.socket]) -> socket.socket:
        client, _ = self._listener.accept()
        if self._target_port is not None:
            server = socket.create_connection(("127.0.0.1", self._target_port), timeout=5)
            peers[client], peers[server] = server, client
        return client

    def _pass_on(self, source: socket.socket, peers: dict[socket.socket, socket.socket], *, from_client: bool) -> None:
        if source not in peers:
            return
        target = peers[source]
        try:
            data = source.recv(1 << 16)
            time.sleep(0.0 if from_client else self._answer_delay_seconds)
            target.sendall(data)
        except OSError:
            data = b""
        if self._tap is not None:
            self._tap(data)
        if from_client:
            self._left_bytes -= len(data)
            self.sent_bytes += len(data)
        elif self._left_answer_bytes is not None:
            self._left_answer_bytes -= len(data)
        if not data:
            for ended in (source, target):
                del peers[ended]
                ended.close()
