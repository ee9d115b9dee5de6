"""Whether sizes are equal, and a record of those that were taken to be."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from converter.dims import Dim


def differ(left: Dim, right: Dim, exact: bool = False) -> bool:
    """Whether two sizes are unequal whatever their symbols are. `exact`: a size of 1 does not broadcast here."""
    difference = left - right
    taken = _TAKEN.get()
    if taken is not None and not isinstance(difference, int) and (exact or isinstance(left, int) or isinstance(right, int)):
        taken[left, right] = exact or taken.get((left, right), False)
    return isinstance(difference, int) and difference != 0


_TAKEN: ContextVar[dict[tuple[Dim, Dim], bool] | None] = ContextVar("taken", default=None)


def is_recorded() -> bool:
    """Whether somebody collects what `differ` is asked."""
    return _TAKEN.get() is not None


@contextmanager
def taken_as_equal() -> Iterator[dict[tuple[Dim, Dim], bool]]:
    """While active, collects the pairs of sizes that `differ` could not tell apart: what asks takes them to be equal, which holds
    only at some sizes. Of two that are no integers, only those that have to be equal, where none broadcasts: those are marked."""
    found: dict[tuple[Dim, Dim], bool] = {}
    token = _TAKEN.set(found)
    try:
        yield found
    finally:
        _TAKEN.reset(token)
