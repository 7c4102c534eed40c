"""Names of certificates and of VOMS attributes, as differently as Grid software writes the same one."""

import re

# Names of attribute types that stand for one another, in lower case (OpenSSL's, Globus's and Java's habits).
_SAME_TYPE = {"e": "emailaddress", "email": "emailaddress", "userid": "uid", "s": "st"}
_TYPE = re.compile(r"/([A-Za-z][A-Za-z0-9.]*|[0-9]+(?:\.[0-9]+)+)=")
_ROLE = re.compile(r"/role=", re.IGNORECASE)
_CONTROL = re.compile(r"[^ -~]")
_LONGEST_SAID = 300


def same_name(one: str, other: str) -> bool:
    """Whether two names in slash form (/DC=org/CN=host) are the same but for how attribute types are spelt."""
    return _TYPE.sub(_usual_type, one) == _TYPE.sub(_usual_type, other)


def _usual_type(match: re.Match[str]) -> str:
    kind = match[1].lower()
    return f"/{_SAME_TYPE.get(kind, kind)}="


def short_fqan(fqan: str) -> str:
    """The FQAN in its shortest form: /mice/ROLE=reco/Capability=NULL is /mice/Role=reco, /mice/Role=NULL is /mice."""
    shorter = _ROLE.sub("/Role=", fqan).removesuffix("/Capability=NULL")
    return shorter.removesuffix("/Role=NULL")


def printable(text: str) -> str:
    """What somebody else's program said, fit for a message: on one line, and not too long."""
    plain = _CONTROL.sub(" ", text).strip()
    return plain if len(plain) <= _LONGEST_SAID else f"{plain[:_LONGEST_SAID]}…"
