"""One thing that is to be said of a run: what is so, and what comes next."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class Needs(StrEnum):
    """Who or what a run waits for."""

    PERSON = "person"
    TIME = "time"
    NOTHING = "nothing"


@dataclass(frozen=True, slots=True)
class Sentence:
    """What is so (`says`), of which part of the run (`about`), and what comes `next`; both are whole sentences.

    Both may hold foreign text, such as what a storage element answered: show them as text and nothing else.
    """

    about: str
    says: str
    next: str
    needs: Needs


def moment(at: datetime) -> str:
    """A time to the second, in UTC."""
    return at.strftime("%Y-%m-%d %H:%M:%SZ")


def sentence(text: str) -> str:
    """A message of ours as a sentence: they have neither a capital letter nor a final stop."""
    text = text.strip() or "nothing is known of it"
    return text[0].upper() + text[1:] + ("" if text.endswith((".", "!", "?", "…")) else ".")
