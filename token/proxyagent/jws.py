"""JSON Web Signatures (RFC 7515) in their flattened form, with the signer's chain in the protected header."""

import base64
import json
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from proxyagent.errors import SignatureError

ALGORITHM = "RS256"  # RFC 7518 section 3.3: RSASSA-PKCS1-v1_5 with SHA-256. Clients' proxies have RSA keys only.
MAX_BYTES = 16 << 20
_MAX_CERTIFICATES = 16


@dataclass(frozen=True, slots=True)
class Jws:
    """A signed text as it came: nothing of it is verified."""

    payload: bytes
    chain_pem: bytes
    """The signer's certificate, then its issuers."""
    signing_input: bytes
    """What is signed (RFC 7515 section 5.1): begins with the encoded header, so never like a certificate or TLS."""
    signature: bytes


def make_jws(payload: bytes, media_type: str, chain: Sequence[bytes], sign: Callable[[bytes], bytes]) -> bytes:
    """The payload, signed, as JSON.

    Args:
        media_type: the `typ` of the header, which tells what kind of statement this is.
        chain: certificates in DER, the signer's first, each followed by its issuer's.
        sign: makes the signature of the signing input.

    Raises:
        SignatureError: it would be too large to be read.
    """
    # Section 4.1.6: x5c is in plain base64, everything else in base64url.
    header = {"alg": ALGORITHM, "typ": media_type, "x5c": [base64.b64encode(one).decode("ascii") for one in chain]}
    protected, body = _encode(json.dumps(header).encode("ascii")), _encode(payload)
    signature = _encode(sign(f"{protected}.{body}".encode("ascii")))
    text = json.dumps({"payload": body, "protected": protected, "signature": signature}, indent=1).encode("ascii")
    if len(text) >= MAX_BYTES:
        raise SignatureError(f"a statement of {len(text)} bytes is too large", hint="state less at once")
    return text + b"\n"


def read_jws(text: bytes, media_type: str) -> Jws:
    """What `make_jws` wrote; another algorithm, form or kind is refused.

    Raises:
        SignatureError: it is something else.
    """
    if len(text) > MAX_BYTES:
        raise _refused("it is too large")
    outer = _object(text)
    if set(outer) != {"payload", "protected", "signature"}:
        raise _refused("it does not consist of payload, protected and signature")
    payload, protected, signature = (_decode(outer[name]) for name in ("payload", "protected", "signature"))
    header = _object(protected)
    if set(header) != {"alg", "typ", "x5c"} or header["alg"] != ALGORITHM or header["typ"] != media_type:
        raise _refused(
            f"its header is not that of {media_type}, signed with {ALGORITHM}, with a chain and nothing else"
        )
    signing_input = f"{outer['protected']}.{outer['payload']}".encode("ascii")
    return Jws(payload, _chain(header["x5c"]), signing_input, signature)


def _chain(x5c: object) -> bytes:
    if not isinstance(x5c, list) or not 0 < len(x5c) <= _MAX_CERTIFICATES:
        raise _refused("its chain is no list of certificates")
    try:
        return "".join(ssl.DER_cert_to_PEM_cert(base64.b64decode(one, validate=True)) for one in x5c).encode("ascii")
    except (TypeError, ValueError) as error:
        raise _refused("a certificate of its chain is no base64") from error


def _object(text: bytes) -> dict[str, Any]:
    """A JSON object in which each name stands once: two readers must not see two things (RFC 7515 section 4)."""
    try:
        value = json.loads(text.decode("utf-8"), object_pairs_hook=_once, parse_constant=_no_number)
    except RecursionError as error:
        raise _refused("its JSON is nested too deeply") from error
    except ValueError as error:
        raise _refused(f"its JSON cannot be read: {str(error)[:200]}") from error
    if not isinstance(value, dict):
        raise _refused("it is no JSON object")
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands twice")
    return found


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number")


def _encode(data: bytes) -> str:
    """RFC 7515 section 2: base64url without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def _decode(text: object) -> bytes:
    """The bytes of which `_encode` makes `text`, and no other text: one content has one form."""
    if not isinstance(text, str) or not text.isascii():
        raise _refused("it has something else than base64url")
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except ValueError as error:
        raise _refused("it has something else than base64url") from error
    if _encode(data) != text:
        raise _refused("it has something else than base64url")
    return data


def _refused(why: str) -> SignatureError:
    return SignatureError(f"not a signed statement of this kind: {why}", hint="give the file as it was made")
