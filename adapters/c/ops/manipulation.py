"""The shape and the order of axes: other views of the same memory."""

from __future__ import annotations

from adapters.c.registry import lowers
from adapters.c.views import View, row_major
from adapters.c.writer import Lowered, Writer
from converter.dims import product


@lowers("reshape")
def reshape(g: Writer, node: Lowered, x: View) -> View:
    g.same(product(x.shape), product(node.spec.shape))
    found = x.reshaped(node.spec.shape)
    return found if found is not None else View(g.contiguous(x).buffer, node.spec.shape, row_major(node.spec.shape))


@lowers("permute_dims")
def permute_dims(g: Writer, node: Lowered, x: View) -> View:
    return x.permuted([axis % len(x.shape) for axis in node.attributes["axes"]])  # type: ignore[attr-defined]


@lowers("broadcast_to")
def broadcast_to(g: Writer, node: Lowered, x: View) -> View:
    for size, wanted in zip(x.shape, node.spec.shape[len(node.spec.shape) - len(x.shape) :], strict=True):
        if size != 1:
            g.same(size, wanted)
    return x.broadcast(node.spec.shape)
