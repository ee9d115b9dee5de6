"""Parts that sizes decide, and borders."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from adapters.c.fusion import Number, store
from adapters.c.registry import lowers
from adapters.c.views import View
from adapters.c.writer import BAD_SIZE, Lowered, Writer
from converter.dims import Dim, maximum, minimum
from converter.ops.slicing import bounds, slice_length


@lowers("slice")
def slice_(g: Writer, node: Lowered, x: View) -> View:
    given: Any = node.attributes
    steps = given["steps"] or (1,) * len(given["axes"])
    for axis, start, stop, step in zip(given["axes"], given["starts"], given["stops"], steps, strict=True):
        place = axis % len(x.shape)
        begin, end = bounds(x.shape[place], start, stop)
        for least, most in ((0, begin), (begin, end), (end, x.shape[place]), (1, step)):
            if not isinstance(gap := most - least, int):
                g.require(f"{g.size(gap)} < 0", BAD_SIZE)
        x = x.sliced(place, begin, slice_length(x.shape[place], start, stop, step), step)
    return replace(x, shape=node.spec.shape)


@lowers("pad")
def pad(g: Writer, node: Lowered, x: View) -> View:
    """The border is written first, then what lies in it; borders below zero cut."""
    given: Any = node.attributes
    y = g.new(node.spec, node.names[0])
    if any(pair != (0, 0) for pair in given["pads"]):
        store(g, Number(given["value"], node.spec.dtype, node.spec.shape), y)
    inside = y
    for axis, (before, after) in enumerate(given["pads"]):
        cut: Dim = maximum(0 - before, 0)
        left: Dim = x.shape[axis] - cut - maximum(0 - after, 0)
        # Borders that take more than there is from one side leave what the other side adds.
        if not isinstance(left, int) or left < 0:
            left = maximum(left, 0)
        x = x.sliced(axis, minimum(cut, x.shape[axis]), left)
        inside = inside.sliced(axis, minimum(maximum(before, 0), inside.shape[axis] - left), left)
    g.copy(inside, x)
    return y
