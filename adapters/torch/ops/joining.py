"""Tensors put together along an axis, and taken apart."""

from __future__ import annotations

import itertools

import torch

from adapters.torch.registry import imports, rebuilds
from adapters.torch.tracing.importer import Importer
from converter.builder import Value

Tensor = torch.Tensor


@imports("aten.cat.default", "aten.concat.default", "aten.concatenate.default")
def cat(g: Importer, tensors: list[Value], dim: int = 0) -> Value:
    rank = len(g.result_shape())
    # torch leaves out empty vectors beside tensors of more axes.
    present = [tensor for tensor in tensors if tensor.rank == rank]
    parts = [g.cast(tensor, g.result_dtype()) for tensor in present]
    return parts[0] if len(parts) == 1 else g.op("concat", *parts, axis=dim % rank)


@imports("aten.stack.default")
def stack(g: Importer, tensors: list[Value], dim: int = 0) -> Value:
    parts = [g.cast(tensor, g.result_dtype()) for tensor in tensors]
    axis = dim % len(g.result_shape())
    return g.op("expand_dims", parts[0], axis=(axis,)) if len(parts) == 1 else g.op("stack", *parts, axis=axis)


@imports("aten.split.Tensor", "aten.split.sizes", "aten.split_with_sizes.default", "aten.split_copy.Tensor", "aten.chunk.default",
         "aten.split_with_sizes_copy.default", "aten.unsafe_split.Tensor", "aten.unsafe_chunk.default",
         "aten.unsafe_split_with_sizes.default")
def split(g: Importer, self: Value, _: object = None, dim: int = 0, **__: object) -> tuple[Value, ...]:
    axis = dim % self.rank
    count = len(g.node.meta["val"])
    if count == 1:
        return (self,)
    return g.add("split", self, sizes=tuple(g.result_shape(part)[axis] for part in range(count)), axis=axis)


@imports("aten.tensor_split.sections", "aten.tensor_split.indices", "aten.hsplit.int", "aten.hsplit.array", "aten.vsplit.int",
         "aten.vsplit.array", "aten.dsplit.int", "aten.dsplit.array")
def tensor_split(g: Importer, self: Value, _: object = None, dim: int | None = None, **__: object) -> tuple[Value, ...]:
    name = str(g.node.target)
    fixed = {"aten.hsplit": min(1, self.rank - 1), "aten.vsplit": 0, "aten.dsplit": 2}
    axis = fixed.get(name.rpartition(".")[0], dim or 0) % self.rank
    count = len(g.node.meta["val"])
    sizes = [g.result_shape(part)[axis] for part in range(count)]
    total = sizes[0]
    for size in sizes[1:]:
        total = total + size
    if total == self.shape[axis]:
        return (self,) if count == 1 else g.add("split", self, sizes=tuple(sizes), axis=axis)
    if name.endswith((".int", ".sections")):
        raise g.refuse("the parts of a split do not add up to the axis")
    # Indices out of order give parts that overlap or leave gaps.
    from adapters.torch.ops.slicing import sliced

    indices = g.node.args[1]
    edges = [0, *indices, None]  # type: ignore[misc]
    return tuple(sliced(g, self, axis, start, stop, 1) for start, stop in itertools.pairwise(edges))


@imports("aten.unbind.int", "aten.unbind_copy.int")
def unbind(g: Importer, self: Value, dim: int = 0) -> tuple[Value, ...]:
    axis = dim % self.rank
    count = len(g.node.meta["val"])
    return (g.op("squeeze", self, axis=(axis,)),) if count == 1 else g.add("unstack", self, axis=axis)


@rebuilds("concat")
def rebuild_concat(*tensors: Tensor, axis: int) -> Tensor:
    return torch.cat(tensors, axis)


@rebuilds("stack")
def rebuild_stack(*tensors: Tensor, axis: int) -> Tensor:
    return torch.stack(tensors, axis)


@rebuilds("split")
def rebuild_split(x: Tensor, *, sizes: tuple[int, ...], axis: int) -> tuple[Tensor, ...]:
    return torch.split(x, list(sizes), axis)


@rebuilds("unstack")
def rebuild_unstack(x: Tensor, *, axis: int) -> tuple[Tensor, ...]:
    return x.unbind(axis)
