"""Removes the partial file of an upload that failed."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from mover.errors import MoverError


@contextmanager
def removed_on_failure(remove: Callable[[str], None], path: str, *, ours: Callable[[], bool]) -> Iterator[None]:
    """If the body raises anything and `ours()` is true, remove `path`; then the body's error goes on.

    An error of the removal is added to it as a note: the next attempt looks at what is there anyway.
    """
    try:
        yield
    except BaseException as error:
        if ours():
            try:
                remove(path)
            except MoverError as second:
                error.add_note(f"the partial file {path} may still be there: {second}")
        raise
