"""What an operator is in terms of simpler ones: written once, read as arrays and as nodes of a graph.

A formula is a function of a *space*, then of the operator's operands and attributes. A space has every operator by name, with the
operator's own signature; what it gives and takes has `shape`, `dtype`, and Python's arithmetic and comparisons (but `==`: `equal`).
Numbers may stand beside tensors, and a sub-graph is a function of a space and its terms that gives a tuple of terms.

    def _silu(f: Space, x: Term) -> Term:
        return x * f.sigmoid(x)

    @op(infer=unary(), formula=_silu)

`converter.opset.ARRAYS` computes with the operators' reference kernels; `converter.decomposing.Nodes` makes nodes, each once. A formula
answers None where the operator has no simpler form.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial, wraps
from typing import Any, Protocol

import numpy as np

from converter.ir import DType

Term = Any
"""A tensor of a space: an array, or a `Symbol`."""

Formula = Callable[..., Any]


class Space(Protocol):
    """The operators by name, on the terms of one reading."""

    def __getattr__(self, operator: str, /) -> Callable[..., Any]: ...


def dtype_of(x: Term) -> DType:
    """The dtype of a term."""
    return DType.of(x.dtype)


class Arrays:
    """The reading as arrays. `kernel_of` gives an operator's reference kernel."""

    def __init__(self, kernel_of: Callable[[str], Callable[..., Any]]) -> None:
        self._kernel_of = kernel_of

    def __getattr__(self, operator: str) -> Callable[..., Any]:
        kernel = self._kernel_of(operator)

        def compute(*operands: Any, **attributes: Any) -> Any:
            dtype = next((item.dtype for item in reversed(operands) if isinstance(item, (np.ndarray, np.generic))), None)
            tensors = (np.asarray(item, dtype) if isinstance(item, (int, float)) else item for item in operands)
            return kernel(*tensors, **{name: partial(item, self) if callable(item) else item for name, item in attributes.items()})

        setattr(self, operator, compute)
        return compute


def in_float64(formula: Formula) -> Formula:
    """`formula` on float64, its result in the last operand's dtype."""

    @wraps(formula)
    def computed(f: Space, *operands: Term, **attributes: Any) -> Term:
        result = formula(f, *(f.astype(item, dtype=DType.FLOAT64) for item in operands), **attributes)
        return f.astype(result, dtype=dtype_of(operands[-1]))

    return computed


def widened(formula: Formula) -> Formula:
    """`formula` of one operand, whose smaller floats compute in float32."""

    @wraps(formula)
    def computed(f: Space, x: Term, **attributes: Any) -> Term:
        dtype = dtype_of(x)
        if not dtype.is_float or dtype.itemsize >= 4:
            return formula(f, x, **attributes)
        return f.astype(formula(f, f.astype(x, dtype=DType.FLOAT32), **attributes), dtype=dtype)

    return computed


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
