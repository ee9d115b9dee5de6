"""Elements replaced, accumulated or counted at places that tensors of indices or masks name."""

from __future__ import annotations

from typing import Any

import torch

from adapters.torch.ops.indexing import as_masks, data_size, same_indices, without_masks, wrapped
from adapters.torch.ops.manipulation import broadcasted, reshaped
from adapters.torch.registry import imports, rebuilds
from adapters.torch.tracing.importer import Importer
from converter import dims
from converter.builder import Value
from converter.dims import Dim
from converter.ir import DType

Tensor = torch.Tensor
REDUCTIONS = {"sum": "add", "add": "add", "prod": "multiply", "multiply": "multiply", "amax": "maximum", "amin": "minimum",
              "mean": "mean"}
TORCH_REDUCTIONS = {"add": "sum", "multiply": "prod", "maximum": "amax", "minimum": "amin", "mean": "mean"}


# scatter -------------------------------------------------------------------------------------------------------------------


def scattered(g: Importer, x: Value, dim: int, index: Value, src: object, reduction: str = "none", include_self: bool = True) -> Value:
    """`scatter` with values cut to the indices' shape, a number as values, and tensors without axes as vectors."""
    if x.rank == 0 or index.rank == 0:
        one = reshaped(g, x, (1,)) if x.rank == 0 else x
        values = reshaped(g, src, (1,)) if isinstance(src, Value) and src.rank == 0 else src
        picked = reshaped(g, index, (1,)) if index.rank == 0 else index
        return reshaped(g, scattered(g, one, 0, picked, values, reduction, include_self), x.shape)
    if isinstance(src, Value):
        longer = tuple(axis for axis, (a, b) in enumerate(zip(src.shape, index.shape, strict=True)) if a != b)
        values = g.cast(src, x.dtype)
        if longer:
            values = g.op("slice", values, axes=longer, starts=(0,) * len(longer), stops=tuple(index.shape[axis] for axis in longer))
    else:
        values = g.op("full", shape=index.shape, fill_value=g.operand(src, x.dtype), dtype=x.dtype)
    attributes: dict[str, Any] = {} if reduction == "none" else {"reduction": REDUCTIONS[reduction], "include_self": include_self}
    return g.op("scatter", x, index, values, axis=dim % x.rank, **attributes)


@imports("aten.scatter.src", "aten.scatter.value")
def scatter(g: Importer, self: Value, dim: int, index: Value, src: object = None, *, value: object = None) -> Value:
    return scattered(g, self, dim, index, value if src is None else src)


@imports("aten.scatter.reduce", "aten.scatter.value_reduce")
def scatter_with_reduce(g: Importer, self: Value, dim: int, index: Value, src: object = None, *, reduce: str,
                        value: object = None) -> Value:
    return scattered(g, self, dim, index, value if src is None else src, reduce)


@imports("aten.scatter_add.default")
def scatter_add(g: Importer, self: Value, dim: int, index: Value, src: Value) -> Value:
    return scattered(g, self, dim, index, src, "sum")


@imports("aten.scatter_reduce.two")
def scatter_reduce(g: Importer, self: Value, dim: int, index: Value, src: Value, reduce: str, *, include_self: bool = True) -> Value:
    return scattered(g, self, dim, index, src, reduce, include_self)


@imports("aten.index_reduce.default")
def index_reduce(g: Importer, self: Value, dim: int, index: Value, source: Value, reduce: str, *, include_self: bool = True) -> Value:
    if self.rank == 0:
        return scattered(g, self, 0, index, source, reduce, include_self)
    axis = dim % self.rank
    column = reshaped(g, index, (*(1,) * axis, source.shape[axis], *(1,) * (self.rank - axis - 1)))
    return scattered(g, self, axis, broadcasted(g, column, source.shape), source, reduce, include_self)


# index_put -----------------------------------------------------------------------------------------------------------------


@imports("aten.index_put.default", "aten._unsafe_index_put.default")
def index_put(g: Importer, self: Value, indices: list[Value | None], values: Value, accumulate: bool = False) -> Value:
    indices = as_masks(g, indices)
    values = g.cast(values, self.dtype)
    given = [axis for axis, item in enumerate(indices) if item is not None]
    if not given:
        total = g.op("add", self, values) if accumulate else values
        return broadcasted(g, total, self.shape)
    mask = indices[given[0]]
    if mask is not None and len(given) == 1 and mask.dtype is DType.BOOL and not (accumulate and self.dtype is DType.BOOL):
        filled = _where(g, self, given[0], mask, values, accumulate)
        if filled is not None:
            return filled
    if any(item is not None and item.dtype is DType.BOOL for item in indices):
        indices = without_masks(g, indices, _count(indices, values))
    return g.op("index_put", self, values, *same_indices(g, indices), accumulate=accumulate)


def _where(g: Importer, x: Value, axis: int, mask: Value, values: Value, accumulate: bool) -> Value | None:
    """x with `values` where one mask holds, as a `where`; None where the values differ from one true element to the next."""
    rest = x.rank - axis - mask.rank
    if values.rank > rest + 1 or values.rank == rest + 1 and values.shape[0] != 1:
        return None
    if values.rank == rest + 1:
        values = reshaped(g, values, values.shape[1:])
    mask = reshaped(g, mask, (*mask.shape, *(1,) * rest))
    return g.op("where", mask, g.op("add", x, values) if accumulate else values, x)


def _count(indices: list[Value | None], values: Value) -> Dim:
    """The size that a mask's true elements have in the values, where it stands there; 0 otherwise."""
    if len([item for item in indices if item is not None]) == 1:
        position = next(axis for axis, item in enumerate(indices) if item is not None)
        if position == 0 and values.rank > 0:
            return values.shape[0]
    return 0


def _along(g: Importer, x: Value, dim: int, index: Value, values: Value, accumulate: bool = False) -> Value:
    """`index_put` on one axis."""
    if x.rank == 0:
        one, values = reshaped(g, x, (1,)), reshaped(g, values, (dims.product(values.shape),))
        return reshaped(g, _along(g, one, 0, index, values, accumulate), ())
    index = reshaped(g, index, (1,)) if index.rank == 0 else index
    return g.op("index_put", x, g.cast(values, x.dtype), *([None] * (dim % x.rank)), index, accumulate=accumulate)


@imports("aten.index_add.default")
def index_add(g: Importer, self: Value, dim: int, index: Value, source: Value, *, alpha: object = 1) -> Value:
    source = g.cast(source, self.dtype)
    if alpha != 1:
        if isinstance(alpha, int) and self.dtype.value.startswith("uint"):
            alpha = alpha % 2 ** (8 * self.dtype.itemsize)
        source = g.op("multiply", source, g.operand(alpha, self.dtype))
    return _along(g, self, dim, index, source, accumulate=True)


@imports("aten.index_copy.default")
def index_copy(g: Importer, self: Value, dim: int, index: Value, source: Value) -> Value:
    return _along(g, self, dim, index, source)


@imports("aten.index_fill.int_Scalar", "aten.index_fill.int_Tensor")
def index_fill(g: Importer, self: Value, dim: int, index: Value, value: object) -> Value:
    return _along(g, self, dim, index, g.tensor(value, self.dtype))


@imports("aten.put.default")
def put(g: Importer, self: Value, index: Value, source: Value, accumulate: bool = False) -> Value:
    count = dims.product(index.shape)
    flat, places = reshaped(g, self, (dims.product(self.shape),)), reshaped(g, index, (count,))
    result = _along(g, flat, 0, places, reshaped(g, source, (count,)), accumulate)
    return reshaped(g, result, self.shape)


@imports("aten.masked_scatter.default")
def masked_scatter(g: Importer, self: Value, mask: Value, source: Value) -> Value:
    shape = g.result_shape()
    return g.op("masked_scatter", broadcasted(g, self, shape), broadcasted(g, mask, shape), g.cast(source, self.dtype))


@imports("aten.bincount.default")
def bincount(g: Importer, self: Value, weights: Value | None = None, minlength: Any = 0) -> Value:
    if not isinstance(minlength, int):
        raise g.refuse("a number of counts that depends on a free size")
    weights = None if weights is None else g.cast(weights, g.result_dtype())
    return g.op("bincount", self, weights, minlength=minlength, size=data_size(g, g.result_shape()[0]))


# PyTorch again -------------------------------------------------------------------------------------------------------------


@rebuilds("scatter")
def rebuild_scatter(x: Tensor, indices: Tensor, values: Tensor, *, axis: int, reduction: str = "none", include_self: bool = True) -> Tensor:
    indices = wrapped(indices, x.shape[axis])
    if reduction == "none":
        return x.scatter(axis, indices, values)
    return x.scatter_reduce(axis, indices, values, TORCH_REDUCTIONS[reduction], include_self=include_self)


@rebuilds("index_put")
def rebuild_index_put(x: Tensor, values: Tensor, *indices: Tensor | None, accumulate: bool = False) -> Tensor:
    return torch.ops.aten.index_put.default(x, list(indices), values, accumulate)


@rebuilds("masked_scatter")
def rebuild_masked_scatter(x: Tensor, mask: Tensor, values: Tensor) -> Tensor:
    return x.masked_scatter(mask, values)


@rebuilds("bincount")
def rebuild_bincount(x: Tensor, weights: Tensor | None = None, *, minlength: int = 0) -> Tensor:
    return torch.bincount(x, weights, minlength)
