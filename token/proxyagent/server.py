"""The agent's Unix socket: who is at the other end, how long they may take, and a clean end at SIGTERM."""

import contextlib
import logging
import os
import select
import signal
import socket
import stat
import threading
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType

from proxyagent.audit import AuditLog
from proxyagent.audit.limit import FloodLimit
from proxyagent.errors import BusyError, ConfigError, ProxyAgentError
from proxyagent.handler import Handler
from proxyagent.peer import Peer, peer_of, unit_of
from proxyagent.policy import AgentSection
from proxyagent.protocol import Channel, failure
from proxyagent.systemd import Notifier

_log = logging.getLogger(__name__)
_RECEIVE_SECONDS = 10.0
_REFUSE_SECONDS = 0.2
_STOP_SECONDS = 2.0
_WARNINGS_PER_MINUTE = 20


class Server:
    """Accepts connections, one request each, every one in a thread of its own; their number is bounded."""

    def __init__(self, section: AgentSection, handler: Handler, audit: AuditLog) -> None:
        self._section = section
        self._handler = handler
        self._audit = audit
        self._lock = threading.Lock()
        self._users: Counter[int] = Counter()
        self._threads: set[threading.Thread] = set()
        self._warnings = FloodLimit(_WARNINGS_PER_MINUTE, datetime.now(UTC))
        self._wake_reader, self._wake_writer = socket.socketpair()

    def run(self, activated: socket.socket | None, ready: Callable[[], object], stopping: Callable[[], object]) -> None:
        """Listen until SIGTERM or SIGINT: on the socket that systemd has handed over, else on one of our own.

        `ready` is called when clients can connect, `stopping` when no more can, so that those who wait for something
        are answered.

        Raises:
            ConfigError: the socket cannot be made, or another agent listens on it.
        """
        listener = activated or listen(self._section.socket, self._section.socket_mode)
        inode = None if activated else self._section.socket.stat().st_ino
        try:
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, self._stop)
            # Whoever started us may have had them blocked.
            signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGTERM, signal.SIGINT))
            notifier = Notifier()
            ready()
            notifier.ready()
            self._accept_until_stopped(listener, notifier)
        finally:
            listener.close()
            if inode is not None:
                _unlink_own(self._section.socket, inode)
            stopping()
            self._join()

    def _stop(self, _number: int, _frame: FrameType | None) -> None:
        with contextlib.suppress(BlockingIOError):
            self._wake_writer.send(b"\0")

    def _accept_until_stopped(self, listener: socket.socket, notifier: Notifier) -> None:
        listener.setblocking(False)
        poll = select.poll()
        poll.register(listener, select.POLLIN)
        poll.register(self._wake_reader, select.POLLIN)
        while True:
            # The watchdog is fed from here, so that it sees when nobody is served any more.
            ready = {descriptor for descriptor, _ in poll.poll(notifier.feed())}
            if self._wake_reader.fileno() in ready:
                notifier.stopping()
                return
            if listener.fileno() in ready:
                self._accept(listener)

    def _accept(self, listener: socket.socket) -> None:
        try:
            connection, _ = listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        except OSError as error:
            _log.warning("cannot accept a connection: %s", error.strerror)
            time.sleep(_REFUSE_SECONDS)  # out of descriptors: let some connections end
            return
        try:
            peer = peer_of(connection)
        except ProxyAgentError as error:
            _log.warning("refused a connection: %s", error.message)
            connection.close()
            return
        if not self._admit(peer):
            self._refuse(connection, peer)
            return
        thread = threading.Thread(target=self._serve, args=(connection, peer), daemon=True)
        with self._lock:
            self._threads.add(thread)
        try:
            thread.start()
        except RuntimeError:  # no more threads: TasksMax=, or memory; sessions must outlive that
            self._release(peer, thread)
            self._refuse(connection, peer)

    def _admit(self, peer: Peer) -> bool:
        with self._lock:
            # Users who join forces must not keep those out who can do something about it.
            full = self._users.total() >= self._section.max_connections and not self._handler.is_operator(peer)
            if full or self._users[peer.uid] >= self._section.max_connections_per_user:
                return False
            self._users[peer.uid] += 1
            return True

    def _refuse(self, connection: socket.socket, peer: Peer) -> None:
        self._warn(peer, "there are too many connections")
        self._audit.record("busy", uid=peer.uid, pid=peer.pid)
        busy = BusyError("the agent has too many connections", hint="try again in some seconds")
        with connection, contextlib.suppress(ProxyAgentError):
            Channel(connection, timeout_seconds=_REFUSE_SECONDS).send(failure(busy))

    def _serve(self, connection: socket.socket, peer: Peer) -> None:
        try:
            with connection:
                self.converse(connection, peer)
        finally:
            self._release(peer, threading.current_thread())

    def _release(self, peer: Peer, thread: threading.Thread) -> None:
        with self._lock:
            self._users[peer.uid] -= 1
            if not self._users[peer.uid]:
                del self._users[peer.uid]
            self._threads.discard(thread)

    def converse(self, connection: socket.socket, peer: Peer) -> None:
        """Read one request from the peer and answer it, whatever it is."""
        channel = Channel(connection, timeout_seconds=_RECEIVE_SECONDS)
        try:
            answer = self._handler.answer(channel, peer, lambda: unit_of(connection, peer))
        except ProxyAgentError as error:
            self._warn(peer, error.message)
            answer = failure(error)
        except Exception as error:
            # The last resort: one connection's bug must not stop the agent. The text might hold foreign bytes.
            _log.exception("uid %d (pid %d): %s in the agent", peer.uid, peer.pid, type(error).__name__)
            answer = failure(ProxyAgentError("the agent failed", hint="look into the agent's log"))
        channel.extend(_RECEIVE_SECONDS)
        try:
            channel.send_or_explain(answer)
        except ProxyAgentError as error:
            _log.info("uid %d (pid %d) did not take its answer: %s", peer.uid, peer.pid, error.message)

    def _warn(self, peer: Peer, what: str) -> None:
        """Log what went wrong; but beyond some a minute, which would crowd out all else, only how often."""
        now = datetime.now(UTC)
        with self._lock:
            ended = list(self._warnings.end(now)) if self._warnings.is_over(now) else []
            admitted = self._warnings.admits("warning", peer.uid)
        for (_, uid), count in ended:
            _log.warning("uid %s: %d more warnings in a minute", "of others" if uid is None else uid, count)
        if admitted:
            _log.warning("uid %d (pid %d): %s", peer.uid, peer.pid, what)

    def _join(self) -> None:
        deadline = time.monotonic() + _STOP_SECONDS
        with self._lock:
            threads = list(self._threads)
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))


def listen(path: Path, mode: int) -> socket.socket:
    """A listening Unix socket with these permission bits, in place of one that a dead agent left.

    Raises:
        ConfigError: it cannot be made, or somebody listens there.
    """
    _remove_stale(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    mask = os.umask(0o777)  # nobody connects before the mode is right
    try:
        listener.bind(str(path))
        path.chmod(mode)
        listener.listen(socket.SOMAXCONN)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise ConfigError(
            f"cannot listen on {path}: {error.strerror}", hint="make its directory, writable for the agent's user"
        ) from error
    finally:
        os.umask(mask)
    return listener


def _remove_stale(path: Path) -> None:
    try:
        is_socket = stat.S_ISSOCK(path.lstat().st_mode)
    except FileNotFoundError:
        return
    except OSError as error:
        raise ConfigError(f"cannot look at {path}: {error.strerror}", hint="check its directory") from error
    if not is_socket:
        raise ConfigError(f"{path} is not a socket", hint="give the agent another socket path, or move that file away")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
            return
        except OSError:
            pass
    raise ConfigError(f"another agent listens on {path}", hint="stop it first, or give this one another socket path")


def _unlink_own(path: Path, inode: int) -> None:
    with contextlib.suppress(FileNotFoundError):
        if path.lstat().st_ino == inode:
            path.unlink()
