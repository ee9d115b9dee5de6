"""What torch's own functions take without a look, and read memory of others for: places, labels and lengths."""

from __future__ import annotations

import torch
from torch import Tensor

from converter.errors import RunError


def refuse_outside(values: Tensor, low: int, high: int, what: str) -> None:
    """Raises `RunError` for integers that are not from `low` to `high`. Not while a module is traced, where there are none."""
    if torch.compiler.is_compiling() or not values.numel():
        return
    smallest, largest = int(values.min()), int(values.max())
    if smallest < low or largest > high:
        raise RunError(f"{what} outside their range", expected=f"{low} to {high}", received=f"{smallest} to {largest}")


def refuse_descending(offsets: Tensor, last: int, least: int = 0) -> None:
    """Raises `RunError` for offsets of shape [n] that do not ascend from 0 to at most `last`, or are fewer than `least`."""
    if torch.compiler.is_compiling():
        return
    if len(offsets) < least:
        raise RunError("no offsets, of which the first is 0")
    if not len(offsets):
        return
    refuse_outside(offsets[:1], 0, 0, "the first offset")
    refuse_outside(offsets[-1:], 0, last, "offsets")
    refuse_outside(offsets.diff(), 0, last, "steps between offsets")
