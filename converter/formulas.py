"""What an operator is in terms of simpler ones: written once, read as arrays and as nodes of a graph.

A formula is a function of a *space*, then of the operator's operands and attributes. A space has every operator by name, with the
operator's own signature; what it gives and takes has `shape`, `dtype`, and Python's arithmetic and comparisons (but `==`: `equal`).
Numbers may stand beside tensors, and a sub-graph is a function of a space and its terms that gives a tuple of terms.

    @op(infer=unary(float_only=True))
    def silu(f: Space, x: Term) -> Term:
        '''x · sigmoid(x).'''
        return x * f.sigmoid(x)

A size of a shape may stand beside a tensor too; arithmetic of sizes alone stays one of sizes.

`converter.opset.ARRAYS` computes with the operators' reference kernels; `converter.passes.nodes.Nodes` makes nodes, each
once. A formula answers None where the operator has no simpler form.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial, wraps
from typing import Any, Protocol

import numpy as np

from converter import intervals
from converter.dims import Dim
from converter.ir import DimRange, DType, TensorSpec

Term = Any
"""A tensor of a space: an array, or a `Symbol`."""

Formula = Callable[..., Any]


class Space(Protocol):
    """The operators by name, on the terms of one reading."""

    dims: Mapping[str, DimRange]
    """The ranges of the sizes."""

    def __getattr__(self, operator: str, /) -> Callable[..., Any]: ...


def dtype_of(x: Term) -> DType:
    """The dtype of a term."""
    return DType.of(x.dtype)


def spec_of(x: Term) -> TensorSpec:
    """The dtype and the shape of a term."""
    return TensorSpec(dtype_of(x), tuple(x.shape))


def nothing(x: Term) -> bool | int:
    """0 in the dtype of a term."""
    return False if dtype_of(x) is DType.BOOL else 0


NUMBERS = frozenset({bool, int, float})


class Arrays:
    """The reading as arrays. `kernel_of` gives an operator's reference kernel."""

    def __init__(self, kernel_of: Callable[[str], Callable[..., Any]]) -> None:
        self._kernel_of = kernel_of
        self.dims: Mapping[str, DimRange] = {}

    def __getattr__(self, operator: str) -> Callable[..., Any]:
        kernel = self._kernel_of(operator)

        def compute(*operands: Any, **attributes: Any) -> Any:
            if not NUMBERS.isdisjoint(map(type, operands)):
                dtype = next((item.dtype for item in reversed(operands) if isinstance(item, (np.ndarray, np.generic))), None)
                operands = tuple(np.asarray(item, dtype) if type(item) in NUMBERS else item for item in operands)
            return kernel(*operands, **{name: partial(item, self) if callable(item) else item for name, item in attributes.items()})

        setattr(self, operator, compute)
        return compute


def in_float64(formula: Formula) -> Formula:
    """`formula` on float64, its result in the last operand's dtype; complex numbers in complex128."""

    @wraps(formula)
    def computed(f: Space, *operands: Term, **attributes: Any) -> Term:
        dtype = dtype_of(operands[-1])
        wide = DType.COMPLEX128 if dtype.is_complex else DType.FLOAT64
        result = formula(f, *(f.astype(item, dtype=wide) for item in operands), **attributes)
        real = dtype.is_complex and not dtype_of(result).is_complex
        return f.astype(result, dtype=dtype if not real else DType.FLOAT32 if dtype is DType.COMPLEX64 else DType.FLOAT64)

    return computed


def widened(formula: Formula) -> Formula:
    """`formula` whose operands of smaller floats compute in float32; its float results have the first operand's dtype."""

    @wraps(formula)
    def computed(f: Space, x: Term, *others: Term, **attributes: Any) -> Any:
        dtype = dtype_of(x)
        if not dtype.is_float or dtype.itemsize >= 4:
            return formula(f, x, *others, **attributes)
        wider = (f.astype(item, dtype=DType.FLOAT32) if item is not None and dtype_of(item) is dtype else item for item in (x, *others))
        result = formula(f, *wider, **attributes)
        narrowed = tuple(f.astype(item, dtype=dtype) if dtype_of(item).is_float else item
                         for item in (result if isinstance(result, tuple) else (result,)))
        return narrowed if isinstance(result, tuple) else narrowed[0]

    return computed


def counted(f: Space, count: Dim, axis: int = 0, rank: int = 1) -> Term:
    """0, 1, … count - 1 (int64) along one axis of several, the others of size 1."""
    index = f.arange(stop=count, dtype=DType.INT64)
    return index if rank == 1 else f.reshape(index, shape=tuple(count if place == axis % rank else 1 for place in range(rank)))


def swapped(shape: Sequence[Dim], axis: int, *sizes: Dim) -> tuple[Dim, ...]:
    """A shape with sizes in place of one of its."""
    place = axis % len(shape)
    return (*shape[:place], *sizes, *shape[place + 1:])


def refuse(f: Space, wrong: Term, x: Term) -> Term:
    """x, integers; a run fails where one of `wrong` holds: it looks for a second number in a table of one."""
    return x + f.take(f.full(shape=(1,), fill_value=0, dtype=dtype_of(x)), f.astype(f.any(wrong), dtype=DType.INT64), axis=0)


def may_be_empty(f: Space, sizes: Iterable[Dim]) -> bool:
    """Whether one of the sizes may be 0."""
    return intervals.may_be_empty(sizes, f.dims)


def largest(f: Space, x: Term, axes: Iterable[int]) -> Term:
    """The largest floats along axes, which stay with size 1; -infinity of none."""
    axes = tuple(axis % x.ndim for axis in axes)
    empty = [axis in axes and may_be_empty(f, [size]) for axis, size in enumerate(x.shape)]
    if any(empty):
        x = f.pad(x, pads=tuple((0, int(more)) for more in empty), value=-math.inf)
    return f.max(x, axis=axes, keepdims=True)


def polynomial(coefficients: Sequence[float], x: Term) -> Term:
    """Horner's scheme, constant term first."""
    result = x * coefficients[-1] + coefficients[-2]
    for coefficient in reversed(coefficients[:-2]):
        result = result * x + coefficient
    return result


def ratio(pair: tuple[Sequence[float], Sequence[float]], x: Term) -> Term:
    """A quotient of two polynomials."""
    return polynomial(pair[0], x) / polynomial(pair[1], x)


def constants(f: Space, values: Sequence[float]) -> Term:
    """A float64 vector of numbers."""
    return f.concat(*(f.full(shape=(1,), fill_value=float(value), dtype=DType.FLOAT64) for value in values), axis=0)
