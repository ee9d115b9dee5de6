"""Reductions, arguments of extremes, running sums."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from adapters.onnx.reading.items import Item
from adapters.onnx.reading.reader import Reader
from adapters.onnx.registry import reads
from converter.builder import Value
from converter.intervals import may_be_empty
from converter.ir import DType


def axes_of(g: Reader, x: Item, axes: Item | None, given: Sequence[int] | None, empty_is_none: int) -> tuple[int, ...] | None:
    """The axes to reduce, sorted; None for all of them. An operand since version 13 or 18, an attribute before."""
    found = given if axes is None else g.integers(axes, "axes")
    if found is None or not len(found):
        return () if empty_is_none else None
    return tuple(sorted({g.axis(int(axis), g.rank(x)) for axis in found}))


def _reducer(function: Callable[[Reader, Value, dict[str, Any]], Value],
             before: Callable[[Reader, Value], Value] | None = None) -> Callable[..., Value]:
    def reduce(g: Reader, x: Item, axes: Item | None = None, *, keepdims: int = 1, noop_with_empty_axes: int = 0,
               axes_attribute: Sequence[int] | None = None) -> Value:
        places = axes_of(g, x, axes, axes_attribute, noop_with_empty_axes)
        value = g.tensor(x)
        if places == ():
            # Nothing is reduced; what is done to each element is.
            return value if before is None else function(g, value, {"axis": (), "keepdims": True})
        return function(g, value, {"axis": places, "keepdims": bool(keepdims)})

    def read(g: Reader, x: Item, places: Item | None = None, **attributes: Any) -> Value:
        attributes["axes_attribute"] = attributes.pop("axes", None)
        return reduce(g, x, places, **attributes)

    return read


def _plain(op: str) -> Callable[..., Value]:
    return _reducer(lambda g, x, where: g.op(op, x, **where))


def _largest(op: str) -> Callable[..., Value]:
    """An extreme; that of nothing is what every other number takes the place of."""

    def reduce(g: Reader, x: Value, where: dict[str, Any]) -> Value:
        axes = range(x.rank) if where["axis"] is None else where["axis"]
        empty = [axis for axis in axes if may_be_empty([x.shape[axis]], g.builder.dims)]
        if not empty:
            return g.op(op, x, **where)
        least = lowest(x.dtype, op == "min")
        return g.op(op, g.op("pad", x, pads=tuple((1, 0) if axis in empty else (0, 0) for axis in range(x.rank)), value=least), **where)

    return _reducer(reduce)


def lowest(dtype: DType, most: bool) -> float:
    """The identity of a maximum, or of a minimum."""
    if dtype is DType.BOOL:
        return most
    if dtype.is_float:
        return math.inf if most else -math.inf
    return dtype.limits[most]


def _of_each(op: str, each: str) -> Callable[..., Value]:
    return _reducer(lambda g, x, where: g.op(op, g.op(each, x), **where), lambda g, x: g.op(each, x))


for _name, _op in {"ReduceSum": "sum", "ReduceMean": "mean", "ReduceProd": "prod"}.items():
    reads(_name)(_plain(_op))
reads("ReduceMax")(_largest("max"))
reads("ReduceMin")(_largest("min"))
reads("ReduceL1")(_of_each("sum", "abs"))
reads("ReduceSumSquare")(_of_each("sum", "square"))


def _root_of_squares(g: Reader, x: Value, where: dict[str, Any]) -> Value:
    if x.dtype.is_float:
        return g.op("sqrt", g.op("sum", g.op("square", x), **where))
    # Integers: the root of their sum, cut off.
    return g.cast(g.op("sqrt", g.cast(g.op("sum", g.op("square", x), **where), DType.FLOAT64)), x.dtype)


reads("ReduceL2")(_reducer(_root_of_squares, lambda g, x: g.op("square", x)))
reads("ReduceLogSum")(_reducer(lambda g, x, where: g.op("log", g.op("sum", x, **where)), lambda g, x: g.op("log", x)))
reads("ReduceLogSumExp")(_reducer(lambda g, x, where: g.op("logsumexp", x, **where), lambda g, x: x))


def _extreme(op: str) -> Callable[..., Value]:
    def read(g: Reader, x: Item, *, axis: int = 0, keepdims: int = 1, select_last_index: int = 0) -> Value:
        place = g.axis(axis, g.rank(x))
        if not select_last_index:
            return g.op(op, x, axis=place, keepdims=bool(keepdims))
        found = g.op(op, g.op("flip", x, axis=(place,)), axis=place, keepdims=bool(keepdims))
        last = g.op("full", shape=(), fill_value=g.shape(x)[place] - 1, dtype=found.dtype)
        return g.op("subtract", last, found)

    return read


reads("ArgMax")(_extreme("argmax"))
reads("ArgMin")(_extreme("argmin"))


def _running(op: str, start: int) -> Callable[..., Value]:
    def read(g: Reader, x: Item, axis: Item, *, exclusive: int = 0, reverse: int = 0) -> Value:
        place = g.axis(g.integers(axis, "an axis")[0], g.rank(x))
        value = g.op("flip", x, axis=(place,)) if reverse else g.tensor(x)
        if exclusive:
            pads = tuple((1, 0) if at == place else (0, 0) for at in range(value.rank))
            value = g.op("pad", value, pads=pads, value=start)
            value = g.op("slice", value, axes=(place,), starts=(0,), stops=(g.shape(x)[place],))
        found = g.op(op, value, axis=place)
        return g.op("flip", found, axis=(place,)) if reverse else found

    return read


reads("CumSum")(_running("cumulative_sum", 0))
reads("CumProd")(_running("cumulative_prod", 1))
