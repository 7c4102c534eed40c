"""JSON from strangers, without the freedoms that let two readers see two things (RFC 8259 section 4)."""

import json
from typing import Any, NoReturn

from mover.errors import CertificateError


def loads(text: bytes, what: str) -> dict[str, Any]:
    """The JSON object in `text`.

    Raises:
        CertificateError: it is no JSON object in UTF-8, has a name twice or a number that is none, or is too deep.
    """
    try:
        value = json.loads(text.decode("utf-8"), object_pairs_hook=_once, parse_constant=_no_number)
    except RecursionError as error:
        raise _refused(what, "is nested too deeply") from error
    except (ValueError, UnicodeDecodeError) as error:
        raise _refused(what, f"is no JSON that we take: {str(error)[:200]}") from error
    if not isinstance(value, dict):
        raise _refused(what, "is no JSON object")
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands twice in an object")
    return found


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number")


def _refused(what: str, why: str) -> CertificateError:
    return CertificateError(f"{what} {why}", hint="have the certificate made again with `mover custody show`")
