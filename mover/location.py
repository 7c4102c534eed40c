"""The base URL of an endpoint, and the URLs of files below it."""

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from mover.errors import ConfigError, UnsafeNameError
from mover.model import check_path

_DEFAULT_PORTS = {"root": 1094, "davs": 443, "gsiftp": 2811}
_HOST = re.compile(r"[a-z0-9][a-z0-9.-]*|[0-9a-f:.]+")  # a name or an IPv4 or IPv6 address


@dataclass(frozen=True, slots=True)
class Location:
    """A base URL without credential, query or trailing slash. Its path has only names that need no quoting."""

    scheme: str
    host: str
    path: str

    @classmethod
    def parse(cls, base_url: str, scheme: str) -> "Location":
        """Take a base URL of that scheme apart.

        Raises:
            ConfigError: it has another scheme, no path, a user name, a query, or a name that `check_name` refuses.
        """
        hint = f"write it as {scheme}://host:port/path, with letters, digits and . _ + = @ , - in the path"
        try:
            parts = urlsplit(base_url)
            port = f":{parts.port}" if parts.port is not None else ""
            names = parts.path.strip("/")
            check_path(names)
        except (ValueError, UnsafeNameError) as error:
            raise ConfigError(f"bad endpoint URL {base_url!r}: {error}", hint=hint) from error
        odd = parts.username is not None or parts.password is not None or parts.query or parts.fragment
        if parts.scheme != scheme or odd or not _HOST.fullmatch(parts.hostname or ""):
            raise ConfigError(f"bad endpoint URL {base_url!r}", hint=hint)
        # In root:// and roots:// the second slash makes the path absolute; for the others more than one means nothing.
        slashes = "//" if scheme in {"root", "roots"} else "/"
        host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
        return cls(scheme, f"{host}{port}", f"{slashes}{names}")

    def canonical(self) -> "Location":
        """The same place with its default port written out: two URLs of one place are equal in this form."""
        scheme = "root" if self.scheme == "roots" else self.scheme  # the same port, within TLS or not
        name, colon, port = self.host.rpartition(":")
        if colon and port.isdigit():
            return Location(scheme, f"{name}:{int(port)}", self.path)
        return Location(scheme, f"{self.host}:{_DEFAULT_PORTS[scheme]}", self.path)

    def url(self, path: str, *, scheme: str | None = None) -> str:
        """The URL of `path`, which is relative to the base; with another scheme if one is given.

        Raises:
            UnsafeNameError: `path` is not allowed by `check_path`.
        """
        return f"{scheme or self.scheme}://{self.host}{self.path}/{check_path(path)}"

    def parent_url(self, path: str) -> str:
        """The URL of the directory of `path`."""
        parent, _, _ = path.rpartition("/")
        return self.url(parent) if parent else f"{self.scheme}://{self.host}{self.path}"
