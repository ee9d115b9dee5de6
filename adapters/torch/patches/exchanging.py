"""One attribute in another's place for a while: all that is exchanged of torch goes through here."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_ABSENT = object()


@contextmanager
def exchanged(*parts: tuple[Any, str, Any]) -> Iterator[None]:
    """While active, the owners' attributes of these names have these values; then their own again, or none where they inherit it."""
    held = [(owner, name, vars(owner).get(name, _ABSENT)) for owner, name, _ in parts]
    try:
        for owner, name, value in parts:
            setattr(owner, name, value)
        yield
    finally:
        for owner, name, value in reversed(held):
            if value is _ABSENT:
                delattr(owner, name)
            else:
                setattr(owner, name, value)
