"""What is wrong with a bundle that was read, said at most so often."""

_MOST = 20


class Findings:
    """Sentences about one bundle. What is wrong in 2,000 places is said for the first of them, and counted."""

    def __init__(self) -> None:
        self._said: list[str] = []
        self._count = 0

    def add(self, text: str) -> None:
        """Say it, unless enough was said."""
        self._count += 1
        if self._count <= _MOST:
            self._said.append(text)

    def __bool__(self) -> bool:
        return bool(self._count)

    def texts(self) -> tuple[str, ...]:
        """All that was said, and how much more there is."""
        more = self._count - len(self._said)
        return (*self._said, f"and {more} more of this kind") if more else tuple(self._said)
