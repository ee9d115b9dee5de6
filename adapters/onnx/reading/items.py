"""What a value of an ONNX graph is while the graph is read: a tensor of the neutral graph, elements that are known, or both."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from converter.builder import Value
from converter.dims import Dim, Expr
from converter.ir import Array, DType

SMALL = 4096
"""Elements of a constant that are looked into: enough for shapes, axes, pads, and tables of scales."""


@dataclass(eq=False)
class Item:
    """One value of the ONNX graph.

    `value` is its tensor in the neutral graph once there is one, made by `make` when it is first asked for. `known` holds its
    elements where the graph and the sizes of its inputs decide them: numbers, or sizes as `Expr` in an array of objects.
    `initializer` is its name where it is one.
    """

    dtype: DType
    shape: tuple[Dim, ...]
    value: Value | None = None
    known: Array | None = None
    make: Callable[[], Value] | None = None
    initializer: str | None = None

    @classmethod
    def of(cls, value: Value, known: Array | None = None) -> Item:
        """A tensor of the neutral graph."""
        return cls(value.dtype, value.shape, value, known)


def is_numeric(known: Array | None) -> bool:
    """Whether elements are all numbers, none of them a size."""
    return known is not None and (known.dtype != object or not any(isinstance(item, Expr) for item in known.reshape(-1)))


def as_numbers(known: Array, dtype: DType) -> Array:
    """Known elements, none of which is a size, as an array of their dtype."""
    return known if known.dtype == dtype.numpy else np.array(known.tolist(), dtype.numpy).reshape(known.shape)


def as_sizes(known: Array) -> list[Dim]:
    """Known integers as sizes, in row-major order."""
    return [item if isinstance(item, Expr) else int(item) for item in known.reshape(-1).tolist()]


def from_sizes(sizes: Sequence[Dim], shape: tuple[int, ...] | None = None) -> Array:
    """Sizes as an array of objects, of one axis where no shape is given."""
    found = np.empty(len(sizes), object)
    found[:] = list(sizes)
    return found if shape is None else found.reshape(shape)
