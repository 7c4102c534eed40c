"""What gfal2 says of where a tape endpoint has a file's bytes, and what that means to who wants to read them."""

import re

from mover.errors import FileMissingError, NotOnlineError, StorageError
from mover.model import Locality

# gfal2's words for what an XRootD server's stat says, and for the localities of the Tape REST API.
_STATUS = {
    "ONLINE": Locality.DISK,
    "NEARLINE": Locality.TAPE,
    "ONLINE_AND_NEARLINE": Locality.DISK_AND_TAPE,
    "LOST": Locality.LOST,
    "NONE": Locality.NONE,
    "UNAVAILABLE": Locality.UNAVAILABLE,
}
# It raises some of the latter as errors: LOST looks like a missing file.
_TOLD = re.compile(r"File locality reported as (LOST|NONE|UNAVAILABLE)\b")
#: gfal2's word for a file that is not on disk, and of which the server names no copy elsewhere.
NOWHERE = "UNKNOWN"


def locality_named(status: str) -> Locality | None:
    """The locality that gfal2 means by an attribute user.status; None if it is none of those that are known."""
    return _STATUS.get(status.strip("\0 "))


def locality_told(error: StorageError) -> Locality | None:
    """The locality that gfal2 has made an error of; None if the error is about something else."""
    told = _TOLD.search(error.message)
    return Locality(told[1]) if told else None


def check_online(url: str, locality: Locality) -> None:
    """Return if the file can be read at once.

    Raises:
        FileMissingError: the storage has lost it.
        NotOnlineError: it must be brought online before.
    """
    if locality.online:
        return
    if locality in {Locality.LOST, Locality.NONE}:
        raise FileMissingError(f"{url} is {locality} at its storage", hint="ask the site what became of the tape")
    raise NotOnlineError(f"{url} is not on disk: it is {locality} at its storage", hint="bring it online first")
