"""vomsdir: which certificates sign for a VO, as chains of names in .lsc files."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from cryptography import x509

from proxyagent.chain import grid_name
from proxyagent.errors import VomsError
from proxyagent.voms.names import printable, same_name

_MAX_BYTES = 64 * 1024
_MAX_FILES = 100
_VO = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,254}")  # a name of a directory, and nothing that leads elsewhere
_NEXT = re.compile(r"-+ *next chain *-+", re.IGNORECASE)


def check_lsc(vomsdir: Path, vo: str, chain: Sequence[x509.Certificate]) -> None:
    """See that a chain, from a VOMS server's certificate upwards, is one that `vomsdir` names for the VO.

    Each chain in an ``.lsc`` file is a line with the name of the server's certificate, one with its issuer's, and
    maybe more with those further up.

    Raises:
        VomsError: it is not, or vomsdir has nothing readable for the VO.
    """
    names = [grid_name(chain[0].subject), *(grid_name(each.issuer) for each in chain)]
    for trusted in _trusted_chains(vomsdir, vo):
        # A server's name alone would trust every CA to certify it.
        long_enough = 2 <= len(trusted) <= len(names)
        if long_enough and all(same_name(*pair) for pair in zip(trusted, names, strict=False)):
            return
    raise VomsError(
        f"{printable(names[0])}, certified by {printable(names[1])}, is no VOMS server of {vo!r} for {vomsdir}",
        hint="if the VO has announced a new server or certificate, put its .lsc file there",
    )


def _trusted_chains(vomsdir: Path, vo: str) -> Iterator[list[str]]:
    if not _VO.fullmatch(vo):
        raise VomsError(f"{vo!r} is no name of a VO", hint="correct the FQANs in the agent's configuration")
    try:
        files = sorted((vomsdir / vo).glob("*.lsc"))[:_MAX_FILES]
        for file in files:
            with file.open("rb") as stream:
                content = stream.read(_MAX_BYTES).decode(errors="replace")
            yield from _chains_in(content)
    except OSError as error:
        raise VomsError(
            f"cannot read {error.filename or vomsdir}: {error.strerror or error}", hint="set vomsdir in [voms]"
        ) from error


def _chains_in(content: str) -> Iterator[list[str]]:
    chain: list[str] = []
    for line in map(str.strip, content.splitlines()):
        if _NEXT.fullmatch(line):
            yield chain
            chain = []
        elif line:
            chain.append(line)
    yield chain
