"""Arithmetic of shapes, done while a graph is read: `Shape`, `Gather`, `Concat`, `Reshape` and their kin on sizes.

Each function takes the elements of a node's operands, numbers or sizes (`Expr`) in arrays, and gives those of its result, or None
where sizes decide nothing. Constants alone, of whatever operator, are computed by ONNX's reference evaluator.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import reduce
from typing import Any

import numpy as np

from converter.dims import Dim, Expr, maximum, minimum
from converter.errors import ConverterError
from converter.ir import Array

Known = Callable[..., "Array | None"]

LARGEST = 1 << 16
"""Elements that a result may have: sizes of sizes, never tensors."""


class _Undecided(Exception):
    """A comparison that only a run decides."""


def _each(function: Callable[..., Any]) -> Known:
    def whole(*values: Any) -> Any:
        # A size beside a float: the float is a whole number, or nothing is decided.
        if any(isinstance(item, Expr) for item in values):
            if any(isinstance(item, float) and not item.is_integer() for item in values):
                raise _Undecided
            values = tuple(int(item) if isinstance(item, float) else item for item in values)
        return function(*values)

    ufunc = np.frompyfunc(whole, function.__code__.co_argcount, 1)

    def apply(*arrays: Array) -> Array | None:
        try:
            if math.prod(np.broadcast_shapes(*(array.shape for array in arrays))) > LARGEST:
                return None
            found = ufunc(*(array.astype(object) for array in arrays))
        except (_Undecided, ZeroDivisionError, TypeError):
            return None
        return np.asarray(found, object)

    return apply


def _divide(x: Dim, y: Dim) -> Dim:
    if isinstance(x, (int, Expr)) and isinstance(y, (int, Expr)):
        if isinstance(y, int) and isinstance(x, int):
            return abs(x) // abs(y) * (1 if (x < 0) == (y < 0) else -1)
        if not never_negative(x) or not never_negative(y):
            raise _Undecided  # ONNX rounds to zero, and sizes down
        return x // y
    return x / y


def never_negative(x: Dim) -> bool:
    """Whether a size is none at all values of its symbols; not every one that is so is known to be."""
    return _span(x)[0] >= 0 or _span(_without_remainders(x))[0] >= 0


def _without_remainders(x: Dim) -> Dim:
    """The same with `a - n * (a // n)` for `a % n`, from which `a` may go away."""
    found: Dim = 0
    for monomial, factor in x.terms.items() if isinstance(x, Expr) else ():
        atom, power = monomial[0] if len(monomial) == 1 else (("", 0, 0), 0)
        whole = atom[0] == "%" and power == 1
        found = found + factor * (atom[1] - atom[2] * (atom[1] // atom[2]) if whole else Expr({monomial: 1}) if monomial else 1)
    return found if isinstance(x, Expr) else x


def _span(x: Dim) -> tuple[float, float]:
    """Bounds of what a size may be, each of its terms alone, where symbols are 0 or more."""
    if isinstance(x, int):
        return x, x
    low = high = 0.0
    for monomial, factor in x.terms.items():
        least, most = _product_span(monomial)
        low, high = (low + factor * least, high + factor * most) if factor > 0 else (low + factor * most, high + factor * least)
    return low, high


def _product_span(monomial: Any) -> tuple[float, float]:
    sign, low, high = 1, 1.0, 1.0
    for bottom, top in (_atom_span(atom) for atom, power in monomial for _ in range(power)):
        if bottom < 0 < top:
            return (bottom, top) if len(monomial) == 1 and monomial[0][1] == 1 else (-math.inf, math.inf)
        if top <= 0:
            sign, bottom, top = -sign, -top, -bottom
        low, high = low * bottom if low and bottom else 0.0, high * top if high and top else 0.0
    return (low, high) if sign > 0 else (-high, -low)


def _atom_span(atom: Any) -> tuple[float, float]:
    if atom[0] == "symbol":
        return 0.0, math.inf
    function, (first, second) = atom[0], atom[1:]
    (low, high), (under, over) = _span(first), _span(second)
    if function == "max":
        return max(low, under), max(high, over)
    if function == "min":
        return min(low, under), min(high, over)
    if function == "%":
        return (0.0, over - 1) if under > 0 or low >= 0 and under >= 0 else (-math.inf, math.inf)
    if under == over > 0:
        return low // under if math.isfinite(low) else low, high // under if math.isfinite(high) else high
    return (0.0, high) if low >= 0 and under >= 0 else (-math.inf, math.inf)


def _equal(x: Dim, y: Dim) -> bool:
    difference = x - y
    if isinstance(difference, Expr):
        if isinstance(x, int) and x < 0 and never_negative(y) or isinstance(y, int) and y < 0 and never_negative(x):
            return False
        raise _Undecided
    return bool(difference == 0)


def _less(x: Dim, y: Dim) -> bool:
    difference = x - y
    if isinstance(difference, Expr):
        raise _Undecided
    return bool(difference < 0)


def _where(condition: Any, x: Any, y: Any) -> Any:
    return x if condition else y


def _smaller(x: Any, y: Any) -> Any:
    return minimum(x, y) if isinstance(x, Expr) or isinstance(y, Expr) else min(x, y)


def _larger(x: Any, y: Any) -> Any:
    return maximum(x, y) if isinstance(x, Expr) or isinstance(y, Expr) else max(x, y)


def _modulo(x: Any, y: Any) -> Any:
    return x % y


def _whole(x: Any) -> Any:
    if isinstance(x, Expr):
        return x
    return x if isinstance(x, int) else float(np.floor(x))


def _concat(*arrays: Array, axis: int) -> Array | None:
    if sum(array.size for array in arrays) > LARGEST:
        return None
    return np.concatenate([array.astype(object) for array in arrays], axis)


def _gather(x: Array, indices: Array, *, axis: int = 0) -> Array | None:
    if any(isinstance(item, Expr) for item in indices.reshape(-1)) or x.size // max(1, x.shape[axis]) * indices.size > LARGEST:
        return None
    return np.take(x, indices.astype(np.int64), axis)


def _axes(axes: Array | None, given: Any) -> tuple[int, ...] | None:
    found = given if axes is None else axes.reshape(-1).tolist()
    return None if found is None else tuple(int(item) for item in found)


def _unsqueeze(x: Array, axes: Array | None = None, **given: Any) -> Array:
    return np.expand_dims(x, _axes(axes, given.get("axes")) or ())


def _squeeze(x: Array, axes: Array | None = None, **given: Any) -> Array:
    return np.squeeze(x, _axes(axes, given.get("axes")))


def _slice(x: Array, starts: Array | None = None, ends: Array | None = None, axes: Array | None = None, steps: Array | None = None,
           **given: Any) -> Array | None:
    parts: list[Any] = []
    for array, name in ((starts, "starts"), (ends, "ends"), (axes, "axes"), (steps, "steps")):
        parts.append(given.get(name) if array is None else array.reshape(-1).tolist())
    first, last, places, strides = parts
    if any(isinstance(item, Expr) for item in (*first, *last)):
        return None
    index: list[Any] = [slice(None)] * x.ndim
    for number, place in enumerate(places if places is not None else range(len(first))):
        stride = 1 if strides is None else int(strides[number])
        start, stop = int(first[number]), int(last[number])
        index[int(place)] = slice(start, None if stride < 0 and stop < -x.shape[int(place)] else stop, stride)
    return x[tuple(index)]


def _reshape(x: Array, shape: Array | None = None, *, allowzero: int = 0, **given: Any) -> Array | None:
    sizes = given.get("shape") if shape is None else shape.reshape(-1).tolist()
    if sizes is None or any(isinstance(item, Expr) for item in sizes):
        return None
    return x.reshape([x.shape[place] if size == 0 and not allowzero else int(size) for place, size in enumerate(sizes)])


def _filled(shape: Array, *, value: Array | None = None) -> Array | None:
    sizes = shape.reshape(-1).tolist()
    if any(isinstance(item, Expr) for item in sizes) or math.prod(sizes) > LARGEST:
        return None
    return np.full([int(item) for item in sizes], 0.0 if value is None else value.reshape(-1)[0].item(), object)


def _expand(x: Array, shape: Array) -> Array | None:
    sizes = shape.reshape(-1).tolist()
    if any(isinstance(item, Expr) for item in sizes):
        return None
    wanted = np.broadcast_shapes(x.shape, tuple(int(item) for item in sizes))
    return np.broadcast_to(x, wanted) if math.prod(wanted) <= LARGEST else None


def _range(start: Array, limit: Array, delta: Array) -> Array | None:
    values = [item.reshape(-1)[0] for item in (start, limit, delta)]
    if any(isinstance(item, Expr) for item in values) or abs(values[1] - values[0]) > abs(values[2]) * LARGEST:
        return None
    return np.arange(*values).astype(object)


def _reduced(function: Callable[[Any, Any], Any], start: Any) -> Known:
    def apply(x: Array, axes: Array | None = None, *, keepdims: int = 1, noop_with_empty_axes: int = 0, **given: Any) -> Array | None:
        places = _axes(axes, given.get("axes"))
        if noop_with_empty_axes and not places:
            return x
        if places is not None and (len(places) != 1 or x.ndim != 1) or x.ndim != 1:
            return None
        found = reduce(function, x.tolist(), start)
        return np.array([found] if keepdims else found, object)

    return apply


def _transpose(x: Array, *, perm: Any = None) -> Array:
    return x.transpose(perm)


KNOWN: dict[str, Known] = {
    "Add": _each(lambda x, y: x + y), "Sub": _each(lambda x, y: x - y), "Mul": _each(lambda x, y: x * y), "Div": _each(_divide),
    "Mod": lambda x, y, fmod=0: None if fmod else _each(_modulo)(x, y), "Neg": _each(lambda x: -x), "Min": _each(_smaller),
    "Max": _each(_larger), "Equal": _each(_equal), "Less": _each(_less), "Greater": _each(lambda x, y: _less(y, x)),
    "LessOrEqual": _each(lambda x, y: not _less(y, x)), "GreaterOrEqual": _each(lambda x, y: not _less(x, y)),
    "Not": _each(lambda x: not x), "And": _each(lambda x, y: bool(x and y)), "Or": _each(lambda x, y: bool(x or y)),
    "Where": _each(_where), "Floor": _each(_whole), "Ceil": _each(lambda x: x if isinstance(x, (int, Expr)) else float(np.ceil(x))),
    "Concat": _concat, "Gather": _gather, "Unsqueeze": _unsqueeze, "Squeeze": _squeeze, "Slice": _slice, "Reshape": _reshape,
    "ConstantOfShape": _filled, "Expand": _expand, "Range": _range, "Transpose": _transpose,
    "ReduceProd": _reduced(lambda x, y: x * y, 1), "ReduceSum": _reduced(lambda x, y: x + y, 0),
    "ReduceMax": _reduced(lambda x, y: y if x is None else _larger(x, y), None),
    "ReduceMin": _reduced(lambda x, y: y if x is None else _smaller(x, y), None),
}


def evaluate(operator: str, operands: list[Array | None], attributes: dict[str, Any]) -> Array | None:
    """The elements of a node's result, where those of its operands decide them; None where they do not.

    Integers stay integers: a division of sizes is a floor division, as sizes are not negative.
    """
    function = KNOWN.get(operator)
    if function is None:
        return None
    try:
        found = function(*operands, **attributes)
    except (ConverterError, ValueError, TypeError, IndexError, AttributeError, OverflowError, ZeroDivisionError):
        return None  # the operator itself says what is wrong
    if found is None:
        return None
    if not isinstance(found, np.ndarray):  # NumPy gives what is in an array of no axes
        held = np.empty((), object)
        held[()] = found
        found = held
    return found if found.size <= LARGEST else None
