"""What is said of a conversion."""

from __future__ import annotations


class Concern(str):
    """A note that a person must see, as what it says changes what the model computes: a warning where Python asked for the model."""

    __slots__ = ()
