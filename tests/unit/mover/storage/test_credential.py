"""Names of proxies: each its own, and each for the right file."""

import os
from datetime import UTC, datetime
from pathlib import Path

from mover.storage.credential import NamedCredential


class _Proxy:
    not_after = datetime.now(UTC)

    def __init__(self, path: str) -> None:
        self.path = path


class _Source:
    def __init__(self, path: str) -> None:
        self.path = path
        self.current = _Proxy(path)

    def proxy(self) -> _Proxy:
        return self.current


def test_every_proxy_has_a_name_of_its_own() -> None:
    descriptor = os.memfd_create("proxy")
    try:
        os.write(descriptor, b"chain")
        source = _Source(f"/proc/self/fd/{descriptor}")
        credential = NamedCredential(source)
        names = set()
        for _ in range(100):
            named = credential.current()
            assert credential.current() is named
            assert named.proxy is source.current
            assert Path(named.path).read_bytes() == b"chain"
            names.add(named.path)
            source.current = _Proxy(source.path)
        names.add(NamedCredential(source).current().path)
        assert len(names) == 101
        assert max(map(len, names)) < 200
    finally:
        os.close(descriptor)
