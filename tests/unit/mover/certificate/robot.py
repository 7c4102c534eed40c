"""A robot that signs certificates at any time that it is told, and what it signs."""

import base64
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa

from mover.certificate.check import Checked
from mover.certificate.issue import make_statement, sign
from mover.certificate.statement import Statement
from mover.sandbox.ca import CertificateAuthority
from proxyagent.chain import proxy_pem
from proxyagent.proxy import Language, ProxyInfo, issue_proxy
from proxyagent.statement import sign_statement
from tests.unit.mover.bench import RUN, Bench

PLACES: dict[str, tuple[str | None, str | None]] = {"tape": ("RAL", "tape"), "disk": ("IC", "disk")}
ROBOT = "/C=UK/O=Sandbox/CN=Robot"
Json = dict[str, Any]
Check = Callable[..., Checked]


class RobotProxy:
    """A client proxy of an hour, whose key is at hand, and which signs at any time that it is told."""

    def __init__(self, authority: CertificateAuthority, keys: list[rsa.RSAPrivateKey], begin: datetime) -> None:
        robot = authority.issue_robot("Robot", keys[0].public_key())
        info, hour = ProxyInfo(Language.INHERIT_ALL, None), timedelta(hours=1)
        leaf = issue_proxy(robot, keys[0], keys[1].public_key(), info=info, lifetime=hour, now=begin)
        self.chain: tuple[x509.Certificate, ...] = (leaf, robot)
        self.key = keys[1]
        self.begin = begin

    def sign(self, payload: bytes, media_type: str) -> bytes:
        """As `ClientProxy.sign`, but with this object's idea of now."""
        return sign_statement(proxy_pem(self.chain, self.key), payload, media_type, now=self.begin)


def statement_of(bench: Bench, now: datetime | None = None) -> Statement:
    """What the catalogue knows of the run."""
    return make_statement(bench.catalogue, RUN, experiment="MICE", places=PLACES, now=now or datetime.now(UTC))


def certificate_of(bench: Bench, proxy: RobotProxy) -> bytes:
    """The run's certificate."""
    return sign(statement_of(bench), proxy)


def raw(text: str) -> bytes:
    """The bytes of a text in base64url (RFC 7515)."""
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def encoded(data: bytes) -> str:
    """The text in base64url of bytes."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
