"""Where torch's own kernels for quantised tensors give more than one answer, by where an element lies or in which order sums are
taken: the model has one of them, and that is said."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from converter.ports import Concern

AT_THE_END = "where they lie at the end of a tensor, past whole vectors"

_FOUND: ContextVar[dict[str, str] | None] = ContextVar("unsteady", default=None)


@contextmanager
def noted() -> Iterator[dict[str, str]]:
    """While active, what `unsteady` is told of is kept: what differs, by the function's name."""
    found: dict[str, str] = {}
    token = _FOUND.set(found)
    try:
        yield found
    finally:
        _FOUND.reset(token)


def unsteady(name: str, how: str) -> None:
    """Tells that torch's kernel of that name has more than one answer."""
    found = _FOUND.get()
    if found is not None:
        found.setdefault(name, how)


def concerns(found: dict[str, str]) -> list[Concern]:
    """One note on all of them."""
    if not found:
        return []
    told = "; ".join(f"{name}: {how}" for name, how in found.items())
    return [Concern(f"torch's kernels for quantised tensors do not always give one answer, and the model has one of them: {told}")]
