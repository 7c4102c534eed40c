"""PKCS#11 URIs (RFC 7512): which token and which object on it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from proxyagent.errors import ConfigError

_SCHEME = "pkcs11:"
_TEXT_ATTRIBUTES = ("serial", "manufacturer", "model", "token", "object")
_ATTRIBUTES = (*_TEXT_ATTRIBUTES, "id", "type")
_TYPES = ("private", "cert", "public")
_HINT = "write the dongle as pkcs11:serial=…;object=…  (RFC 7512; `pkcs11-tool -L` shows serial numbers)"

# RFC 7512 section 2.3: pk11-pchar, unreserved and a few reserved characters; everything else is percent-encoded.
_VALUE = re.compile(r"(?:[A-Za-z0-9\-._~:\[\]@!$'()*+,=&]|%[0-9A-Fa-f]{2})*", re.ASCII)
_VALUE_PLAIN = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")


@dataclass(frozen=True, slots=True)
class Uri:
    """The path attributes of a PKCS#11 URI; None matches anything. Slots are never matched: their numbers move."""

    serial: str | None = None
    manufacturer: str | None = None
    model: str | None = None
    token: str | None = None
    object: str | None = None
    id: bytes | None = None
    type: str | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a URI such as ``pkcs11:serial=1234;object=robot`` (RFC 7512 section 2.3).

        Raises:
            ConfigError: it is malformed, has an attribute we do not know, or would carry a PIN or run a command.
        """
        if not text.startswith(_SCHEME):
            raise ConfigError("a dongle's URI starts with 'pkcs11:'", hint=_HINT)
        path, question, query = text.removeprefix(_SCHEME).partition("?")
        if question:
            _refuse_query(query)
        values: dict[str, bytes] = {}
        for part in path.split(";") if path else []:
            name, value = _attribute(part)
            if name in values:
                raise ConfigError(f"the dongle's URI has {name!r} twice", hint="leave one of them")
            values[name] = value
        return cls._from_values(values)

    @classmethod
    def _from_values(cls, values: Mapping[str, bytes]) -> Self:
        texts: dict[str, str] = {}
        for name in (*_TEXT_ATTRIBUTES, "type"):
            if name not in values:
                continue
            try:
                texts[name] = values[name].decode()
            except UnicodeDecodeError as error:
                raise ConfigError(f"{name!r} in the dongle's URI is not UTF-8", hint=_HINT) from error
        if "type" in texts and texts["type"] not in _TYPES:
            raise ConfigError("the dongle's URI has an unknown type", hint=f"use one of {', '.join(_TYPES)}")
        return cls(**texts, id=values.get("id"))

    def __str__(self) -> str:
        pairs = ((name, getattr(self, name)) for name in _ATTRIBUTES)
        return _SCHEME + ";".join(f"{name}={_quote(value)}" for name, value in pairs if value is not None)

    def matches_token(self, *, serial: str, manufacturer: str, model: str, label: str) -> bool:
        """Whether a token with this description is meant."""
        wanted = ((self.serial, serial), (self.manufacturer, manufacturer), (self.model, model), (self.token, label))
        return all(want is None or want == have for want, have in wanted)

    def matches_object(self, *, label: str, identifier: bytes) -> bool:
        """Whether an object with this label and CKA_ID is meant; `type` is left to the caller."""
        return self.object in {None, label} and self.id in {None, identifier}


def _attribute(part: str) -> tuple[str, bytes]:
    name, equals, value = part.partition("=")
    if not equals:
        raise ConfigError("the dongle's URI has an attribute without a value", hint=_HINT)
    if name in {"slot-id", "slot-description", "slot-manufacturer"}:
        raise ConfigError(f"the dongle's URI names {name!r}, which changes from plug to plug", hint=_HINT)
    if name not in _ATTRIBUTES:
        raise ConfigError("the dongle's URI has an unknown attribute", hint=f"use {', '.join(_ATTRIBUTES)}")
    if not _VALUE.fullmatch(value):
        raise ConfigError(f"{name!r} in the dongle's URI has a character that must be percent-encoded", hint=_HINT)
    return name, _unquote(value)


def _refuse_query(query: str) -> None:
    names = {part.partition("=")[0] for part in query.split("&")}
    if "pin-value" in names:
        raise ConfigError(
            "the dongle's URI carries a PIN", hint="remove pin-value, and choose a new PIN: this one is on disk now"
        )
    if "pin-source" in names:
        raise ConfigError(
            "the dongle's URI names a source for the PIN",
            hint="remove pin-source: the PIN is asked for by `proxyagent renew`",
        )
    raise ConfigError("the dongle's URI has a query part", hint="remove everything from '?' on")


def _unquote(value: str) -> bytes:
    return re.sub(rb"%([0-9A-Fa-f]{2})", lambda match: bytes.fromhex(match[1].decode()), value.encode("ascii"))


def _quote(value: str | bytes) -> str:
    if isinstance(value, bytes):  # all of it, as the RFC advises for `id`
        return "".join(f"%{byte:02X}" for byte in value)
    return "".join(chr(byte) if byte in _VALUE_PLAIN else f"%{byte:02X}" for byte in value.encode())
