"""Tensors put together along an axis, and taken apart."""

from __future__ import annotations

import numpy as np

from converter.dims import Dim, fixed
from converter.equal_sizes import differ
from converter.facts import moves
from converter.formulas import Space, Term, swapped
from converter.ir import Array, TensorSpec
from converter.ops._rules import Size, axis_of, require, same_dtype
from converter.opset import op


def _concat(*tensors: TensorSpec, axis: int) -> TensorSpec:
    require(len(tensors) > 0, "nothing to put together", expected="at least one tensor")
    dtype = same_dtype(*tensors)
    place = axis_of(axis, tensors[0].rank)
    sizes = list(tensors[0].shape)
    for tensor in tensors[1:]:
        require(tensor.rank == len(sizes), "wrong number of axes", expected=str(tensors[0]), received=tensor)
        for other, size in enumerate(tensor.shape):
            if other == place:
                sizes[place] = sizes[place] + size
                continue
            require(not differ(sizes[other], size), f"sizes that differ on axis {other}", expected=str(sizes[other]), received=size)
            sizes[other] = size if isinstance(size, int) else sizes[other]
    return TensorSpec(dtype, tuple(sizes))


@op(infer=_concat, facts=moves(finite=True))
def concat(*tensors: Array, axis: int) -> Array:
    """Tensors joined along an axis they have. Array API: concat."""
    return np.concatenate(tensors, axis)


def _stack(*tensors: TensorSpec, axis: int) -> TensorSpec:
    require(len(tensors) > 0, "nothing to put together", expected="at least one tensor")
    dtype = same_dtype(*tensors)
    sizes = list(tensors[0].shape)
    for tensor in tensors[1:]:
        require(tensor.rank == len(sizes) and not any(differ(a, b) for a, b in zip(sizes, tensor.shape, strict=True)),
                "shapes that differ", expected=str(tensors[0]), received=tensor)
        sizes = [b if isinstance(b, int) else a for a, b in zip(sizes, tensor.shape, strict=True)]
    place = axis_of(axis, len(sizes) + 1)
    return TensorSpec(dtype, (*sizes[:place], len(tensors), *sizes[place:]))


@op(infer=_stack, facts=moves(finite=True))
def stack(f: Space, *tensors: Term, axis: int) -> Term:
    """Tensors of one shape joined along a new axis. Array API: stack."""
    return f.concat(*(f.expand_dims(tensor, axis=(axis,)) for tensor in tensors), axis=axis)


def _split(x: TensorSpec, sizes: tuple[Dim, ...], axis: int) -> tuple[TensorSpec, ...]:
    place = axis_of(axis, x.rank)
    total: Dim = 0
    for size in sizes:
        require(not (isinstance(size, int) and size < 0), "a negative size", received=size)
        total = total + size
    require(len(sizes) > 0 and not differ(total, x.shape[place]), "the parts do not add up to the axis",
            expected=str(x.shape[place]), received=total)
    return tuple(TensorSpec(x.dtype, (*x.shape[:place], size, *x.shape[place + 1:])) for size in sizes)


def _parts(f: Space, x: Term, *, sizes: tuple[Dim, ...], axis: int) -> tuple[Term, ...]:
    total, parts = sum(sizes), []
    if total != x.shape[axis]:
        x = f.reshape(x, shape=swapped(x.shape, axis, total))  # which fails where the parts do not add up
    start: Dim = 0
    for size in sizes:
        parts.append(f.slice(x, axes=(axis,), starts=(start,), stops=(start + size,)))
        start = start + size
    return tuple(parts)


@op(infer=_split, outputs=None, formula=_parts, facts=moves(0, finite=True))
def split(x: Array, *, sizes: tuple[Size, ...], axis: int) -> tuple[Array, ...]:
    """x cut along `axis` into consecutive parts of the given sizes, which add up to the axis. torch.split."""
    if sum(sizes) != x.shape[axis] or min(sizes) < 0:
        raise ValueError(f"parts of {', '.join(map(str, sizes))} elements of an axis of {x.shape[axis]}")
    return tuple(np.split(x, np.cumsum(sizes)[:-1], axis))


MAX_PARTS = 1 << 14
"""Slices that `unstack` gives at most: each is an output of the node, whether anything uses it or not."""


def _unstack(x: TensorSpec, axis: int) -> tuple[TensorSpec, ...]:
    place = axis_of(axis, x.rank)
    require(isinstance(x.shape[place], int) and x.shape[place] != 0, "the number of outputs must be fixed",
            expected="an integer size of 1 and up", received=x.shape[place])
    count = fixed(x.shape[place])
    require(count <= MAX_PARTS, "too many slices", expected=f"at most {MAX_PARTS}", received=count)
    return (TensorSpec(x.dtype, x.shape[:place] + x.shape[place + 1:]),) * count


@op(infer=_unstack, outputs=None,
    formula=lambda f, x, *, axis: tuple(f.select(x, axis=axis, index=place) for place in range(x.shape[axis])), facts=moves(0, finite=True))
def unstack(x: Array, *, axis: int) -> tuple[Array, ...]:
    """Each slice of x along `axis`, without that axis: a fixed size of at most 16,384. Array API: unstack; torch.unbind."""
    return tuple(np.moveaxis(x, axis, 0))
