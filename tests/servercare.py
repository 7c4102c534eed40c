"""What XRootD's own illness costs the tests: a warning, and the time of one test.

XRootD 5.5.3 crashes or hangs once in many thousand connections (docs/grid-notes.md). A server that several tests share
would take them all with it. So, when a test has failed, its process asks each such server whether it is alive: one that
is not is started again, and the test is run once more. A test that fails while all are well has failed.
"""

import socket
import ssl
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest
from _pytest.runner import runtestprotocol

from mover.sandbox.xrootd import StorageServer
from tests.serverstate import servers_below

_PATIENCE_SECONDS = 20.0
#: What a client says first ("Client/Server handshake" of the XRootD protocol), and the length of the answer.
_HANDSHAKE, _ANSWER_BYTES = struct.pack("!5i", 0, 0, 0, 4, 2012), 16

_shared: list[StorageServer] = []
_ILL = pytest.StashKey[list[str]]()


@contextmanager
def cared_for(servers: Sequence[StorageServer]) -> Iterator[None]:
    """In the block, the servers run, and many tests use them."""
    _shared.extend(servers)
    try:
        yield
    finally:
        for server in servers:
            _shared.remove(server)


def heal(item: pytest.Item) -> str:
    """Start the shared servers again that do not answer, and remember it; what was seen of them, or ""."""
    seen = []
    for server in _shared:
        if trouble := _trouble(server):
            seen.append(f"{server.directory} {trouble}, and is started again:\n{servers_below(server.directory)}")
            server.start()
    item.stash.setdefault(_ILL, []).extend(seen)
    return "\n".join(seen)


def run(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Run the test, and once more if a server fell ill; for the hook `pytest_runtest_protocol`."""
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    reports = runtestprotocol(item, nextitem=nextitem, log=False)
    if ill := item.stash.get(_ILL, []):
        item.warn(pytest.PytestWarning("run once more, because " + "\n".join(ill)))
        item._initrequest()  # type: ignore[attr-defined]
        reports = runtestprotocol(item, nextitem=nextitem, log=False)
    for report in reports:
        item.ihook.pytest_runtest_logreport(report=report)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)


def _trouble(server: StorageServer) -> str:
    try:
        with socket.create_connection(("127.0.0.1", server.port("DAVS_PORT")), timeout=_PATIENCE_SECONDS) as connection:
            # Whether it answers, not who it is.
            ssl._create_unverified_context().wrap_socket(connection).close()  # noqa: S323
    except OSError as error:
        return f"does not answer at its davs port ({error})"
    try:
        with socket.create_connection(("127.0.0.1", server.port("ROOT_PORT")), timeout=_PATIENCE_SECONDS) as connection:
            connection.sendall(_HANDSHAKE)
            if len(connection.recv(_ANSWER_BYTES)) == _ANSWER_BYTES:
                return ""
            return "hangs up at its root port"
    except OSError as error:
        return f"does not answer at its root port ({error})"
