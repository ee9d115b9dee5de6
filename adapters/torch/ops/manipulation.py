"""The shape and the order of axes, and copies of whole tensors."""

from __future__ import annotations

import torch

from adapters.torch.registry import imports, rebuilds
from adapters.torch.tracing.importer import Importer
from adapters.torch.tracing.known_sizes import is_new, require_two
from converter.builder import Value
from converter.dims import Dim
from converter.errors import UnsupportedError
from converter.ir import DType

Tensor = torch.Tensor


def reshaped(g: Importer, x: Value, shape: tuple[Dim, ...]) -> Value:
    """`x` in another shape; no node when it has it."""
    return x if x.shape == tuple(shape) else g.op("reshape", x, shape=tuple(shape))


def permuted(g: Importer, x: Value, axes: tuple[int, ...]) -> Value:
    """`x` with its axes reordered; no node for the identity."""
    return x if axes == tuple(range(x.rank)) else g.op("permute_dims", x, axes=axes)


def broadcasted(g: Importer, x: Value, shape: tuple[Dim, ...]) -> Value:
    """`x` broadcast to `shape`; no node when it has it."""
    return x if x.shape == tuple(shape) else g.op("broadcast_to", x, shape=tuple(shape))


def last_axes(rank: int, axes: tuple[int, ...]) -> tuple[int, ...]:
    """The permutation that moves `axes` to the end, in the order given."""
    return (*(axis for axis in range(rank) if axis not in axes), *axes)


def inverse(axes: tuple[int, ...]) -> tuple[int, ...]:
    """The permutation that undoes `axes`."""
    return tuple(axes.index(axis) for axis in range(len(axes)))


# Shapes ------------------------------------------------------------------------------------------------------------------


@imports("aten.view.default", "aten._unsafe_view.default", "aten.reshape.default", "aten._reshape_alias.default",
         "aten._reshape_copy.default", "aten.view_copy.default", "aten.flatten.using_ints", "aten.unflatten.int", "aten.ravel.default",
         "aten.view_as.default", "aten.reshape_as.default")
def reshape(g: Importer, self: Value, *_: object, **__: object) -> Value:
    return reshaped(g, self, g.result_shape())


@imports("aten.permute.default", "aten.permute_copy.default")
def permute(g: Importer, self: Value, dims: list[int]) -> Value:
    return permuted(g, self, tuple(axis % self.rank for axis in dims))


@imports("aten.transpose.int", "aten.swapaxes.default", "aten.swapdims.default", "aten.transpose_copy.int")
def transpose(g: Importer, self: Value, dim0: int, dim1: int) -> Value:
    axes = list(range(self.rank))
    if axes:
        axes[dim0], axes[dim1] = axes[dim1], axes[dim0]
    return permuted(g, self, tuple(axes))


@imports("aten.t.default", "aten.numpy_T.default", "aten.matrix_H.default", "aten.mT.default", "aten.t_copy.default")
def t(g: Importer, self: Value) -> Value:
    name = str(g.node.target)
    if name.startswith("aten.matrix_H") and self.dtype.is_complex:
        self = g.op("conj", self)
    if name.startswith("aten.mT"):
        return transpose(g, self, -2, -1)
    return permuted(g, self, tuple(reversed(range(self.rank))))


@imports("aten.movedim.int", "aten.moveaxis.int", "aten.movedim.intlist", "aten.moveaxis.intlist")
def movedim(g: Importer, self: Value, source: int | list[int], destination: int | list[int]) -> Value:
    sources = [axis % self.rank for axis in ([source] if isinstance(source, int) else source)]
    targets = [axis % self.rank for axis in ([destination] if isinstance(destination, int) else destination)]
    rest = iter(axis for axis in range(self.rank) if axis not in sources)
    return permuted(g, self, tuple(sources[targets.index(place)] if place in targets else next(rest) for place in range(self.rank)))


@imports("aten.unsqueeze.default", "aten.unsqueeze_copy.default")
def unsqueeze(g: Importer, self: Value, dim: int) -> Value:
    return g.op("expand_dims", self, axis=(dim % (self.rank + 1),))


@imports("aten.squeeze.default", "aten.squeeze.dim", "aten.squeeze.dims", "aten.squeeze_copy.default", "aten.squeeze_copy.dim",
         "aten.squeeze_copy.dims")
def squeeze(g: Importer, self: Value, dim: int | list[int] | None = None) -> Value:
    named = range(self.rank) if dim is None else [dim] if isinstance(dim, int) else dim
    wanted = {axis % self.rank for axis in named} if self.rank else set()
    axes = tuple(axis for axis in sorted(wanted) if self.shape[axis] == 1)
    for axis in wanted:
        require_two(g, self.shape[axis])
    return g.op("squeeze", self, axis=axes) if axes else self


@imports("aten.expand.default", "aten.expand_as.default", "aten.broadcast_to.default", "aten.expand_copy.default")
def expand(g: Importer, self: Value, *_: object, **__: object) -> Value:
    return broadcasted(g, self, g.result_shape())


@imports("aten.broadcast_tensors.default")
def broadcast_tensors(g: Importer, tensors: list[Value]) -> list[Value]:
    return [broadcasted(g, tensor, g.result_shape(position)) for position, tensor in enumerate(tensors)]


@imports("aten.as_strided.default")
def as_strided(g: Importer, self: Value, size: list[Dim], stride: list[Dim], storage_offset: Dim | None = None) -> Value:
    flat, offset = _memory(g, self, size, stride, storage_offset)
    expected: Dim = 1
    for length, step in zip(reversed(size), reversed(stride), strict=True):
        if length != 1 and step != expected:
            return g.op("take", flat, _places(g, size, stride, offset), axis=0)
        expected = expected * length
    if offset == 0 and flat.shape[0] == expected:
        return reshaped(g, self, tuple(size))
    return reshaped(g, g.op("slice", flat, axes=(0,), starts=(offset,), stops=(offset + expected,)), tuple(size))


@imports("aten.as_strided_scatter.default")
def as_strided_scatter(g: Importer, self: Value, src: Value, size: list[Dim], stride: list[Dim],
                       storage_offset: Dim | None = None) -> Value:
    flat, offset = _memory(g, self, size, stride, storage_offset)
    places = _places(g, size, stride, offset)
    return reshaped(g, g.op("index_put", flat, src, places), self.shape)


def _memory(g: Importer, x: Value, size: list[Dim], stride: list[Dim], storage_offset: Dim | None) -> tuple[Value, Dim]:
    """A tensor's elements in the order of its memory, and the place among them where strides start."""
    node = g.node.args[0]
    source = node.meta["val"]  # type: ignore[union-attr]
    if not source.is_contiguous():
        raise g.refuse("the strides of a tensor that is not contiguous")
    start = source.storage_offset()
    if not isinstance(start, int) or start and storage_offset is not None and node.op == "placeholder":  # type: ignore[union-attr]
        raise g.refuse("a place in memory outside the tensor that is given", "memory")
    offset = 0 if storage_offset is None else storage_offset - start
    count: Dim = 1
    for length in x.shape:
        count = count * length
    last = offset
    for length, step in zip(size, stride, strict=True):
        last = last + (length - 1) * step
    if isinstance(offset, int) and offset < 0 or isinstance(last, int) and isinstance(count, int) and last >= count and 0 not in size:
        raise g.refuse("a place in memory outside the tensor", "memory")
    return reshaped(g, x, (count,)), offset


def _places(g: Importer, size: list[Dim], stride: list[Dim], offset: Dim) -> Value:
    """offset + Σ index · stride: int64, of shape `size`."""
    places = g.op("full", shape=(1,) * len(size), fill_value=offset, dtype=DType.INT64)
    for axis, (length, step) in enumerate(zip(size, stride, strict=True)):
        if length == 1:
            continue
        along = g.op("multiply", g.op("arange", start=0, stop=length, step=1, dtype=DType.INT64), g.operand(step, DType.INT64))
        shape = tuple(length if index == axis else 1 for index in range(len(size)))
        places = g.op("add", places, reshaped(g, along, shape))
    return places


# Copies --------------------------------------------------------------------------------------------------------------------


def flipped(g: Importer, x: Value, axes: tuple[int, ...]) -> Value:
    axes = tuple(axis % x.rank for axis in axes if x.rank and x.shape[axis] != 1)
    return g.op("flip", x, axis=axes) if axes else x


@imports("aten.flip.default")
def flip(g: Importer, self: Value, dims: list[int]) -> Value:
    return flipped(g, self, tuple(dims))


@imports("aten.fliplr.default")
def fliplr(g: Importer, self: Value) -> Value:
    return flipped(g, self, (1,))


@imports("aten.flipud.default")
def flipud(g: Importer, self: Value) -> Value:
    return flipped(g, self, (0,))


@imports("aten.rot90.default")
def rot90(g: Importer, self: Value, k: int = 1, dims: tuple[int, int] = (0, 1)) -> Value:
    first, second = dims
    if k % 4 == 2:
        return flipped(g, self, (first, second))
    if k % 2 == 0:
        return self
    if k % 4 == 1:
        return transpose(g, flipped(g, self, (second,)), first, second)
    return flipped(g, transpose(g, self, first, second), (second,))


@imports("aten.roll.default")
def roll(g: Importer, self: Value, shifts: list[Dim] | Dim, dims: list[int] | int = ()) -> Value:  # type: ignore[assignment]
    shift = tuple(shifts) if isinstance(shifts, (list, tuple)) else (shifts,)
    axis = tuple(dims) if isinstance(dims, (list, tuple)) else (dims,)
    if self.rank == 0:
        return self
    if axis:
        return g.op("roll", self, shift=shift, axis=axis)
    count: Dim = 1
    for size in self.shape:
        count = count * size
    return reshaped(g, g.op("roll", reshaped(g, self, (count,)), shift=shift, axis=(0,)), self.shape)


@imports("aten.repeat.default", "aten.tile.default")
def tile(g: Importer, self: Value, repeats: list[Dim] | None = None, dims: list[Dim] | None = None) -> Value:
    times = tuple(repeats if repeats is not None else dims or ())
    if all(item == 1 for item in times):
        return reshaped(g, self, g.result_shape())
    return g.op("tile", self, repetitions=times)


@imports("aten.repeat_interleave.self_int")
def repeat_interleave(g: Importer, self: Value, repeats: Dim, dim: int | None = None, *, output_size: Dim | None = None) -> Value:
    axis = dim if dim is not None else 0
    if dim is None or self.rank == 0:
        count: Dim = 1
        for size in self.shape:
            count = count * size
        self = reshaped(g, self, (count,))
    return self if repeats == 1 else g.op("repeat_interleave", self, repeats=repeats, axis=axis)


@imports("aten.repeat_interleave.Tensor")
def repeat_indices(g: Importer, repeats: Value, *, output_size: Dim | None = None) -> Value:
    return _indices(g, repeats, g.result_shape()[0])


def _indices(g: Importer, repeats: Value, size: Dim) -> Value:
    if isinstance(size, int) or size.symbol is None or not is_new(g, size):
        return g.op("repeat_indices", repeats, length=size)
    return g.op("repeat_indices", repeats, size=size)


@imports("aten.repeat_interleave.self_Tensor")
def repeat_interleave_tensor(g: Importer, self: Value, repeats: Value, dim: int | None = None, *,
                             output_size: Dim | None = None) -> Value:
    axis = 0
    if dim is None or self.rank == 0:
        count: Dim = 1
        for size in self.shape:
            count = count * size
        self = reshaped(g, self, (count,))
    else:
        axis = dim % self.rank
    if repeats.rank == 0 or repeats.shape[0] == 1 and self.shape[axis] != 1:
        repeats = broadcasted(g, repeats, (self.shape[axis],))
    indices = _indices(g, repeats, g.result_shape()[axis])
    return g.op("take", self, indices, axis=axis)


# PyTorch again -------------------------------------------------------------------------------------------------------------


@rebuilds("reshape")
def rebuild_reshape(x: Tensor, *, shape: tuple[int, ...]) -> Tensor:
    return x.reshape(shape)


@rebuilds("permute_dims")
def rebuild_permute(x: Tensor, *, axes: tuple[int, ...]) -> Tensor:
    return x.permute(axes)


@rebuilds("expand_dims")
def rebuild_expand_dims(x: Tensor, *, axis: tuple[int, ...]) -> Tensor:
    rank = x.dim() + len(axis)
    for place in sorted(item % rank for item in axis):
        x = x.unsqueeze(place)
    return x


@rebuilds("squeeze")
def rebuild_squeeze(x: Tensor, *, axis: tuple[int, ...]) -> Tensor:
    if any(x.shape[place] != 1 for place in axis):
        raise UnsupportedError("only an axis of size 1 can be taken away", received=str(list(x.shape)))
    return x.squeeze(axis)


@rebuilds("broadcast_to")
def rebuild_broadcast_to(x: Tensor, *, shape: tuple[int, ...]) -> Tensor:
    return x.broadcast_to(shape)


@rebuilds("flip")
def rebuild_flip(x: Tensor, *, axis: tuple[int, ...]) -> Tensor:
    return x.flip(axis)


@rebuilds("roll")
def rebuild_roll(x: Tensor, *, shift: tuple[int, ...], axis: tuple[int, ...]) -> Tensor:
    return x.roll(shift, axis)


@rebuilds("tile")
def rebuild_tile(x: Tensor, *, repetitions: tuple[int, ...]) -> Tensor:
    return x.tile(repetitions)


@rebuilds("repeat_interleave")
def rebuild_repeat_interleave(x: Tensor, *, repeats: int, axis: int) -> Tensor:
    return x.repeat_interleave(repeats, axis)


@rebuilds("repeat_indices")
def rebuild_repeat_indices(repeats: Tensor, *, length: int | None = None) -> Tensor:
    return torch.repeat_interleave(repeats, output_size=length)
