"""Tensors side by side."""

from __future__ import annotations

from typing import Any

from adapters.c.fusion import Value, store
from adapters.c.registry import fuses, lowers
from adapters.c.views import View
from adapters.c.writer import Lowered, Writer
from converter.dims import Dim


@fuses
@lowers("concat")
def concat(g: Writer, node: Lowered, *tensors: Value) -> View:
    axis: Any = node.attributes["axis"]
    place, start, y = axis % len(node.spec.shape), 0, g.new(node.spec, node.names[0])
    position: Dim = start
    for tensor in tensors:
        for other, (size, wanted) in enumerate(zip(tensor.shape, node.spec.shape, strict=True)):
            if other != place:
                g.same(size, wanted)
        part = y.sliced(place, position, tensor.shape[place])
        store(g, tensor, View(part.buffer, tensor.shape, part.strides, part.offset))
        position = position + tensor.shape[place]
    return y
