"""What is said of dongles between the agent and its helper."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Self

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from proxyagent.uri import Uri

RSA_BITS = {"rsa-2048": 2048, "rsa-3072": 3072, "rsa-4096": 4096}
CURVES = {"ec-p256": "secp256r1"}
KEY_KINDS = (*RSA_BITS, *CURVES)
"""The kinds of keys that can be made on a dongle."""

_MAX_PEM_BYTES = 48 * 1024


@dataclass(frozen=True, slots=True)
class DongleState:
    """A dongle as it is now."""

    serial: str
    label: str
    manufacturer: str
    model: str
    pin_state: str
    """'ok', 'low' (a wrong PIN was entered), 'final' (one attempt left) or 'locked'."""
    pin_pad: bool
    """Whether the PIN can be entered at the reader itself."""
    certificates: tuple[x509.Certificate, ...]
    """The end-entity certificates that may be meant; empty if there is none, or they show after login only."""

    def to_message(self) -> dict[str, Any]:
        """This in JSON's types. Of more certificates than fit a frame, none is told, as if they were hidden."""
        pems = [each.public_bytes(serialization.Encoding.PEM).decode() for each in self.certificates]
        fields = ("serial", "label", "manufacturer", "model", "pin_state", "pin_pad")
        fit = sum(map(len, pems)) <= _MAX_PEM_BYTES
        return {**{name: getattr(self, name) for name in fields}, "certificates": pems if fit else []}

    @classmethod
    def from_message(cls, message: Mapping[str, Any]) -> Self:
        """What `to_message` wrote."""
        return cls(
            serial=str(message["serial"]),
            label=str(message["label"]),
            manufacturer=str(message["manufacturer"]),
            model=str(message["model"]),
            pin_state=str(message["pin_state"]),
            pin_pad=message["pin_pad"] is True,
            certificates=tuple(x509.load_pem_x509_certificate(str(pem).encode()) for pem in message["certificates"]),
        )


@dataclass(frozen=True, slots=True)
class OtherDongle:
    """A dongle that is plugged in beside the one that is meant, or in its place."""

    serial: str
    label: str
    manufacturer: str
    model: str

    def is_meant_by(self, uri: Uri) -> bool:
        """Whether `uri` means it."""
        return uri.matches_token(serial=self.serial, manufacturer=self.manufacturer, model=self.model, label=self.label)

    @classmethod
    def from_message(cls, message: Mapping[str, Any]) -> Self:
        """What the helper has made of it, by `dataclasses.asdict`."""
        return cls(*(str(message[name]) for name in ("serial", "label", "manufacturer", "model")))


@dataclass(frozen=True, slots=True)
class ListedKey:
    """A key on a dongle, as far as is seen without its PIN."""

    label: str
    id: str
    """CKA_ID in hexadecimal."""
    type: str
    """Such as 'RSA' or 'EC'."""
    size_bits: int | None


@dataclass(frozen=True, slots=True)
class ListedCertificate:
    """A certificate on a dongle. Its texts may be cut."""

    label: str
    id: str
    """CKA_ID in hexadecimal: that of its key."""
    subject: str
    issuer: str
    not_after: datetime
    key: str
    """Kind of its key, such as 'RSA 2048'."""


@dataclass(frozen=True, slots=True)
class ListedDongle:
    """One of all the dongles behind a module. Nothing on it has been asked for a PIN."""

    label: str
    serial: str
    manufacturer: str
    model: str
    initialised: bool
    """Whether it has been given a label and PINs; a blank one has not."""
    pin_state: str
    pin_pad: bool
    keys: tuple[ListedKey, ...]
    certificates: tuple[ListedCertificate, ...]
    problem: str | None
    """Why this is not all that is to be told."""

    @property
    def uri(self) -> str:
        """A URI that means this dongle."""
        return str(Uri(serial=self.serial) if self.serial else Uri(token=self.label))

    def to_message(self) -> dict[str, Any]:
        """This in JSON's types."""
        certificates = [{**asdict(each), "not_after": each.not_after.isoformat()} for each in self.certificates]
        return {**asdict(self), "certificates": certificates}

    @classmethod
    def from_message(cls, message: Mapping[str, Any]) -> Self:
        """What `to_message` wrote."""
        certificates = (
            ListedCertificate(**{**each, "not_after": datetime.fromisoformat(each["not_after"])})
            for each in message["certificates"]
        )
        keys = tuple(ListedKey(**each) for each in message["keys"])
        return cls(**{**message, "keys": keys, "certificates": tuple(certificates)})
