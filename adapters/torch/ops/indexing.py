"""Elements picked by tensors of indices or by masks."""

from __future__ import annotations

import torch

from adapters.torch.ops.manipulation import broadcasted, reshaped
from adapters.torch.patches.operand_checks import refuse_outside
from adapters.torch.registry import imports, rebuilds
from adapters.torch.tracing.importer import Importer
from converter import dims
from converter.builder import Value
from converter.dims import Dim, Expr
from converter.ir import DType

Tensor = torch.Tensor


def data_size(g: Importer, size: Dim) -> Expr:
    """The symbol for a size that the data decide: PyTorch's own, or a new one where PyTorch has proved what it equals."""
    given = {item.symbol for port in g.builder._inputs for item in port.spec.shape if isinstance(item, Expr)}
    if isinstance(size, Expr) and size.symbol is not None and size.symbol not in given:
        return size
    number = 0
    while f"count_{number}" in g.builder.dims:
        number += 1
    return dims.symbol(f"count_{number}")


# Masks ---------------------------------------------------------------------------------------------------------------------


def places(g: Importer, mask: Value, size: Dim) -> list[Value]:
    """One vector of indices for each axis of a mask: where it holds."""
    found = g.op("nonzero", mask, size=data_size(g, size))
    return [g.op("squeeze", found, axis=(1,))] if mask.rank == 1 else list(g.add("unstack", found, axis=1))


@imports("aten.tensor_split.tensor_indices_or_sections")
def split_at(g: Importer, self: Value, tensor_indices_or_sections: Value, dim: int = 0) -> tuple[Value, ...]:
    """Parts whose borders are data: each takes the places between its own."""
    if tensor_indices_or_sections.rank == 0:
        raise g.refuse("as many parts as the data say")
    axis, count = dim % self.rank, tensor_indices_or_sections.shape[0]
    if not isinstance(count, int):
        raise g.refuse("a number of parts that is not fixed")
    borders = g.cast(tensor_indices_or_sections, DType.INT64)
    size = g.op("full", shape=(), fill_value=self.shape[axis], dtype=DType.INT64)
    borders = g.op("where", g.op("less", borders, 0), g.op("add", borders, size), borders)
    along = g.op("arange", start=0, stop=self.shape[axis], step=1, dtype=DType.INT64)
    every = g.op("full", shape=(self.shape[axis],), fill_value=True, dtype=DType.BOOL)
    parts = []
    for part in range(count + 1):
        mask = every
        if part:
            mask = g.op("greater_equal", along, g.op("select", borders, axis=0, index=part - 1))
        if part < count:
            before = g.op("less", along, g.op("select", borders, axis=0, index=part))
            mask = g.op("logical_and", mask, before) if part else before
        (found,) = places(g, mask, g.result_shape(part)[axis])
        parts.append(g.op("take", self, found, axis=axis))
    return tuple(parts)


def as_masks(g: Importer, indices: list[Value | None]) -> list[Value | None]:
    """Indices with those of uint8, which are masks too, as bool."""
    return [g.cast(item, DType.BOOL) if item is not None and item.dtype is DType.UINT8 else item for item in indices]


def without_masks(g: Importer, indices: list[Value | None], size: Dim) -> list[Value | None]:
    """Indices with every mask replaced by the places where it holds; `size` is how many they are."""
    result: list[Value | None] = []
    for item in indices:
        if item is None or item.dtype is not DType.BOOL:
            result.append(item)
        elif item.rank == 0:
            raise g.refuse("an index that is a single boolean")
        else:
            result += places(g, item, size)
    return result


def picked_size(indices: list[Value | None], shape: tuple[Dim, ...]) -> Dim:
    """The size on the last of the axes that stand for the indices in the result's shape, where a mask's count is found."""
    axes: list[int] = []
    rank, axis = 1, 0
    for item in indices:
        width = 1 if item is None or item.dtype is not DType.BOOL else item.rank
        if item is not None:
            axes += range(axis, axis + width)
            rank = max(rank, 1 if item.dtype is DType.BOOL else item.rank)
        axis += width
    lead = axes[0] if axes == list(range(axes[0], axes[0] + len(axes))) else 0
    return shape[lead + rank - 1]


@imports("aten.index.Tensor", "aten._unsafe_index.Tensor")
def index(g: Importer, self: Value, indices: list[Value | None]) -> Value:
    indices = as_masks(g, indices)
    given = [axis for axis, item in enumerate(indices) if item is not None]
    if not given:
        return self
    first = indices[given[0]]
    shape = g.result_shape()
    if given == [0] and first is not None and first.dtype is DType.BOOL and first.rank > 0:
        return g.op("masked_select", self, first, size=data_size(g, shape[0]))
    if any(item is not None and item.dtype is DType.BOOL for item in indices):
        indices = without_masks(g, indices, picked_size(indices, shape))
        given = [axis for axis, item in enumerate(indices) if item is not None]
    if len(given) == 1:
        return g.op("take", self, indices[given[0]], axis=given[0])
    return g.op("index", self, *same_indices(g, indices))


def same_indices(g: Importer, indices: list[Value | None]) -> list[Value | None]:
    """Indices of one dtype: int64 where they differ."""
    kinds = {item.dtype for item in indices if item is not None}
    return indices if len(kinds) == 1 else [None if item is None else g.cast(item, DType.INT64) for item in indices]


@imports("aten.masked_select.default")
def masked_select(g: Importer, self: Value, mask: Value) -> Value:
    from converter.ops._rules import broadcast_dims

    if any(one != other and 1 not in (one, other) for one, other in zip(self.shape[::-1], mask.shape[::-1], strict=False)):
        # Unlike elsewhere, torch compares them only when it runs.
        raise g.refuse("the sizes of the tensor and of its mask vary apart")
    shape = broadcast_dims(self.shape, mask.shape)
    self, mask = broadcasted(g, self, shape), broadcasted(g, mask, shape)
    if not shape:
        self, mask = reshaped(g, self, (1,)), reshaped(g, mask, (1,))
    return g.op("masked_select", self, mask, size=data_size(g, g.result_shape()[0]))


@imports("aten.masked_fill.Scalar", "aten.masked_fill.Tensor")
def masked_fill(g: Importer, self: Value, mask: Value, value: object) -> Value:
    dtype = g.result_dtype()
    fill = g.operand(value, dtype)
    return g.op("where", mask, fill, g.cast(self, dtype))


@imports("aten.nonzero.default", "aten.argwhere.default")
def nonzero(g: Importer, self: Value) -> Value:
    return g.op("nonzero", self, size=data_size(g, g.result_shape()[0]))


@imports("aten.nonzero_numpy.default", "aten.where.default")
def nonzero_numpy(g: Importer, self: Value) -> list[Value]:
    if self.rank == 0:
        raise g.refuse("the places of the true elements of a single number")
    return places(g, self, g.result_shape(0)[0])


# Indices -------------------------------------------------------------------------------------------------------------------


@imports("aten.index_select.default")
def index_select(g: Importer, self: Value, dim: int, index: Value) -> Value:
    if self.rank == 0:
        return self
    index = reshaped(g, index, (1,)) if index.rank == 0 else index
    return g.op("take", self, index, axis=dim % self.rank)


@imports("aten.take.default")
def take(g: Importer, self: Value, index: Value) -> Value:
    return g.op("take", reshaped(g, self, (dims.product(self.shape),)), index, axis=0)


@imports("aten.gather.default")
def gather(g: Importer, self: Value, dim: int, index: Value, *, sparse_grad: bool = False) -> Value:
    if 0 in index.shape:  # such may have any number of axes
        return g.op("full", shape=g.result_shape(), fill_value=0, dtype=self.dtype)
    if index.dtype not in (DType.INT32, DType.INT64):  # torch takes any dtype of indices that are none
        index = g.cast(index, DType.INT64)
    if self.rank == 0 or index.rank == 0:
        flat = g.op("take", reshaped(g, self, (dims.product(self.shape),)), reshaped(g, index, (dims.product(index.shape),)), axis=0)
        return reshaped(g, flat, g.result_shape())
    return g.op("take_along_axis", self, index, axis=dim % self.rank)


@imports("aten.take_along_dim.default")
def take_along_dim(g: Importer, self: Value, indices: Value, dim: int | None = None) -> Value:
    if dim is None:
        self, indices = (reshaped(g, item, (dims.product(item.shape),)) for item in (self, indices))
        return g.op("take", self, indices, axis=0)
    axis = dim % self.rank
    shape = g.result_shape()
    source = (*shape[:axis], self.shape[axis], *shape[axis + 1:])
    return g.op("take_along_axis", broadcasted(g, self, source), broadcasted(g, indices, shape), axis=axis)


@imports("aten.one_hot.default")
def one_hot(g: Importer, self: Value, num_classes: int = -1) -> Value:
    if not isinstance(num_classes, int) or num_classes < 1:
        raise g.refuse("the number of classes depends on the data: give num_classes")
    return g.op("one_hot", self, num_classes=num_classes)


# PyTorch again -------------------------------------------------------------------------------------------------------------


def wrapped(indices: Tensor, size: int) -> Tensor:
    """Indices counted from the front, for torch functions that take no negative ones."""
    return torch.where(indices < 0, indices + size, indices).long()


@rebuilds("take")
def rebuild_take(x: Tensor, indices: Tensor, *, axis: int) -> Tensor:
    axis = axis % x.dim()
    flat = x.index_select(axis, wrapped(indices, x.shape[axis]).reshape(-1))
    return flat.reshape(x.shape[:axis] + indices.shape + x.shape[axis + 1:])


@rebuilds("take_along_axis")
def rebuild_take_along_axis(x: Tensor, indices: Tensor, *, axis: int) -> Tensor:
    return x.gather(axis, wrapped(indices, x.shape[axis]))


@rebuilds("index")
def rebuild_index(x: Tensor, *indices: Tensor | None) -> Tensor:
    return torch.ops.aten.index.Tensor(x, list(indices))


@rebuilds("masked_select")
def rebuild_masked_select(x: Tensor, mask: Tensor) -> Tensor:
    return x[mask]


@rebuilds("nonzero")
def rebuild_nonzero(x: Tensor) -> Tensor:
    return x.nonzero()


@rebuilds("one_hot")
def rebuild_one_hot(x: Tensor, *, num_classes: int) -> Tensor:
    refuse_outside(x, 0, num_classes - 1, "classes")
    return torch.nn.functional.one_hot(x.long(), num_classes)
