"""Removes the partial file of an upload that failed."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from mover.errors import MoverError


@contextmanager
def removed_on_failure(
    remove: Callable[[str], None], path: str, *, ours: Callable[[], bool], may_remove: Callable[[], bool]
) -> Iterator[None]:
    """If the body raises anything, and `ours()` and `may_remove()` are true, remove `path`; then the error goes on.

    An error of the removal is added to it as a note: the next attempt looks at what is there anyway.
    """
    try:
        yield
    except BaseException as error:
        # In this order: `may_remove` asks whether the name is still ours to act on, at this very moment.
        if ours() and may_remove():
            try:
                remove(path)
            except MoverError as second:
                error.add_note(f"the partial file {path} may still be there: {second}")
        raise
