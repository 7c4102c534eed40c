"""Free TCP ports, never the same for two sandboxes, in however many processes they run."""

import errno
import random
import socket

from mover.errors import SandboxError

# Below the kernel's ephemeral range (32768 and up), so that no outgoing connection takes one.
_FIRST, _LAST = 20000, 32767
_ATTEMPTS = 200


class PortLease:
    """A free port, ours until `close` or the end of our process, whether a server listens on it or not.

    The lease is an abstract Unix socket named after the port: the kernel lets only one process bind it, and nothing
    remains of it. Programs that know nothing of leases may still take the port while no server of ours listens.
    """

    def __init__(self) -> None:
        """Take a free port.

        Raises:
            SandboxError: no free port was found.
        """
        for _ in range(_ATTEMPTS):
            number = random.randint(_FIRST, _LAST)  # noqa: S311 - not a secret
            lease = _lease(number)
            if lease is None:
                continue
            if _is_free(number):
                self.number = number
                self._socket = lease
                return
            lease.close()
        raise SandboxError(
            f"no free TCP port from {_FIRST} to {_LAST}", hint="stop other servers or sandboxes on this machine"
        )

    @property
    def in_use(self) -> bool:
        """Whether some program listens on the port now."""
        return not _is_free(self.number)

    def close(self) -> None:
        """Let others have the port."""
        self._socket.close()


def _lease(number: int) -> socket.socket | None:
    lease = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        lease.bind(f"\0mover-sandbox-port-{number}")
    except OSError as error:
        lease.close()
        if error.errno == errno.EADDRINUSE:
            return None
        raise
    return lease


def _is_free(number: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As servers do: connections of an earlier server that linger in TIME_WAIT are no obstacle.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("0.0.0.0", number))  # noqa: S104 - what the servers bind
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return False
            raise
    return True
