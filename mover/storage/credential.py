"""Names a proxy for libraries that remember credentials by path: another name for every proxy."""

import itertools
from dataclasses import dataclass

from mover.ports import CredentialSource, Proxy

_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class NamedProxy:
    """A proxy and a path to it that stood for no other proxy in this process. It keeps the proxy alive."""

    proxy: Proxy
    path: str


class NamedCredential:
    """The current proxy of a source, under a path of its own.

    XRootD's GSI plugin keeps the chain and key of each path that it has read, and XrdCl (and curl) the connections that
    were logged in with it. A memfd's number is used again as soon as the memfd is closed, so that without this a new
    proxy, even one of another identity, would act as the old one.
    """

    def __init__(self, source: CredentialSource) -> None:
        self._source = source
        self._named: NamedProxy | None = None

    def current(self) -> NamedProxy:
        """The current proxy; the same object as before as long as the source gives the same proxy.

        Raises:
            CredentialError: the source has none for us.
        """
        proxy = self._source.proxy()
        if self._named is None or self._named.proxy is not proxy:
            self._named = NamedProxy(proxy, _fresh_name(proxy.path))
        return self._named

    def release(self) -> None:
        """Let go of the proxy."""
        self._named = None


def _fresh_name(path: str) -> str:
    """A synonym of `path`, a file in /proc/self/fd, with a number written into it: '/.' is 0 and '/../fd' is 1."""
    folder, _, descriptor = path.rpartition("/")
    _, _, last = folder.rpartition("/")
    detour = "".join(f"/../{last}" if digit == "1" else "/." for digit in f"{next(_numbers):b}")
    return f"{folder}{detour}/{descriptor}"
