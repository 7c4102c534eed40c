"""Keeps a flood of refusals out of the audit log: beyond some a minute they are only counted."""

from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta

_WINDOW = timedelta(minutes=1)
_MAX_KEYS = 64

Key = tuple[str, int | None]
"""An event and a uid; None stands for those of whom too many are there to be told apart."""


class FloodLimit:
    """Counts events by kind and user. Not for use from several threads at once."""

    def __init__(self, per_minute: int, now: datetime) -> None:
        self._per_minute = per_minute
        self._since = now
        self._counts: Counter[Key] = Counter()

    def admits(self, event: str, uid: int | None) -> bool:
        """Count this one, and tell whether it may be recorded by itself."""
        key = (event, uid)
        if key not in self._counts and len(self._counts) >= _MAX_KEYS:
            key = (event, None)
        self._counts[key] += 1
        return self._counts[key] <= self._per_minute

    def is_over(self, now: datetime) -> bool:
        """Whether the minute is over; a clock that was set back ends it too."""
        return not self._since <= now < self._since + _WINDOW

    def end(self, now: datetime) -> Iterator[tuple[Key, int]]:
        """Begin another minute; for each kind and user, how many of the last one were only counted."""
        counts, self._counts, self._since = self._counts, Counter(), now
        for key, count in counts.items():
            if count > self._per_minute:
                yield key, count - self._per_minute
