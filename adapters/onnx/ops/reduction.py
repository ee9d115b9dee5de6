"""Reductions over axes."""

from __future__ import annotations

import math

from adapters.onnx.lowering.context import Lowering, Tensor
from adapters.onnx.lowering.kernels import COMPUTED, compute, in_order, number
from adapters.onnx.ops.creation import filled
from adapters.onnx.ops.elementwise import apply, select
from adapters.onnx.registry import lowers
from converter.dims import Dim, product
from converter.ir import DType, TensorSpec
from converter.ops._rules import axes_of, axis_of
from converter.ops.reduction import reduced

Axes = tuple[int, ...] | None


def reduce(g: Lowering, op_type: str, x: Tensor, axis: Axes, keepdims: bool, dtype: DType | None = None) -> Tensor:
    """One reduction of ONNX. A reduction over no axes is left out by the callers: ONNX takes an empty list for all."""
    axes = axes_of(axis, x.rank)
    spec = TensorSpec(dtype or x.dtype, reduced(x.shape, axis, keepdims))
    everything = len(axes) == x.rank
    if op_type == "ReduceMean" and any(x.shape[place] == 0 for place in axes):
        # Of no elements ONNX Runtime gives 0.
        return filled(g, spec.shape, math.nan, spec.dtype)
    return compute(g, op_type, x, extra=() if everything else (g.constant(list(axes)),), dtype=dtype, spec=spec, keepdims=int(keepdims))


def _no_axes(x: Tensor, axis: Axes) -> bool:
    return not axes_of(axis, x.rank)


def _like(x: Tensor, axis: Axes, keepdims: bool, dtype: DType | None = None) -> TensorSpec:
    return TensorSpec(dtype or x.dtype, reduced(x.shape, axis, keepdims))


def identity(g: Lowering, x: Tensor) -> Tensor:
    return g.node("Identity", x, spec=x.spec)


for _op, _type in {"sum": "ReduceSum", "mean": "ReduceMean", "prod": "ReduceProd", "logsumexp": "ReduceLogSumExp"}.items():

    def _lowering(g: Lowering, x: Tensor, *, axis: Axes = None, keepdims: bool = False, _type: str = _type) -> Tensor:
        return identity(g, x) if _no_axes(x, axis) else reduce(g, _type, x, axis, keepdims)

    lowers(_op)(_lowering)


def any_of(g: Lowering, x: Tensor, axis: Axes, keepdims: bool, largest: bool = True) -> Tensor:
    """Whether any (or, for `largest` False, every) element of a bool tensor holds."""
    op_type = "ReduceMax" if largest else "ReduceMin"
    axes, spec = axes_of(axis, x.rank), _like(x, axis, keepdims)
    if not axes:
        return x
    # Reducing booleans came with opset 20, and ONNX Runtime refuses it for no elements, unlike integers.
    extra = () if len(axes) == x.rank else (g.constant(list(axes)),)
    if g.opset >= 20 and not g.may_be_empty([x.shape[place] for place in axes]):
        return g.node(op_type, x, *extra, spec=spec, keepdims=int(keepdims))
    result = g.node(op_type, g.cast(x, DType.INT32), *extra, spec=TensorSpec(DType.INT32, spec.shape), keepdims=int(keepdims))
    if largest:
        return g.node("Greater", result, g.constant(0, DType.INT32), spec=spec)
    return g.cast(result, DType.BOOL)


@lowers("any")
def any_(g: Lowering, x: Tensor, *, axis: Axes = None, keepdims: bool = False) -> Tensor:
    return identity(g, x) if _no_axes(x, axis) else any_of(g, x, axis, keepdims)


@lowers("all")
def all_(g: Lowering, x: Tensor, *, axis: Axes = None, keepdims: bool = False) -> Tensor:
    return identity(g, x) if _no_axes(x, axis) else any_of(g, x, axis, keepdims, largest=False)


def _extreme(g: Lowering, op_type: str, x: Tensor, axis: Axes, keepdims: bool) -> Tensor:
    if _no_axes(x, axis):
        return identity(g, x)
    if x.dtype is DType.BOOL:
        return any_of(g, x, axis, keepdims, largest=op_type == "ReduceMax")
    if x.dtype is DType.UINT64:
        return g.cast(in_order(g, reduce(g, op_type, in_order(g, x), axis, keepdims)), DType.UINT64)
    result = reduce(g, op_type, x, axis, keepdims)
    if not x.dtype.is_float:
        return result
    # ONNX Runtime passes NaN over.
    missing = any_of(g, apply(g, "IsNaN", x, dtype=DType.BOOL), axis, keepdims)
    return select(g, missing, number(g, math.nan, x), result)


@lowers("max")
def max_(g: Lowering, x: Tensor, *, axis: Axes = None, keepdims: bool = False) -> Tensor:
    return _extreme(g, "ReduceMax", x, axis, keepdims)


@lowers("min")
def min_(g: Lowering, x: Tensor, *, axis: Axes = None, keepdims: bool = False) -> Tensor:
    return _extreme(g, "ReduceMin", x, axis, keepdims)


def _position(g: Lowering, op_type: str, x: Tensor, axis: int | None, keepdims: bool) -> Tensor:
    rank = x.rank
    x = in_order(g, x) if x.dtype is DType.UINT64 else x
    if axis is None:
        x = g.reshape(x, (product(x.shape),))
    place = axis_of(axis or 0, x.rank)
    flat_keep = keepdims and axis is not None
    spec = TensorSpec(DType.INT64, reduced(x.shape, (place,), flat_keep))

    def first(values: Tensor, kind: str) -> Tensor:
        return compute(g, kind, values, dtype=DType.INT64, spec=spec, axis=place, keepdims=int(flat_keep))

    result = first(x, op_type)
    if x.dtype.is_float:
        # ONNX Runtime passes NaN over, which counts as the extreme.
        missing = apply(g, "IsNaN", x, dtype=DType.BOOL)
        where_missing = first(g.cast(missing, DType.UINT8), "ArgMax")
        result = select(g, any_of(g, missing, (place,), flat_keep), where_missing, result)
    return g.reshape(result, (1,) * rank) if axis is None and keepdims and rank else result


@lowers("argmax")
def argmax(g: Lowering, x: Tensor, *, axis: int | None = None, keepdims: bool = False) -> Tensor:
    return _position(g, "ArgMax", x, axis, keepdims)


@lowers("argmin")
def argmin(g: Lowering, x: Tensor, *, axis: int | None = None, keepdims: bool = False) -> Tensor:
    return _position(g, "ArgMin", x, axis, keepdims)


def _nonzero(g: Lowering, x: Tensor, dtype: DType) -> Tensor:
    return g.cast(g.cast(x, DType.BOOL), dtype)


@lowers("count_nonzero")
def count_nonzero(g: Lowering, x: Tensor, *, axis: Axes = None, keepdims: bool = False) -> Tensor:
    ones = _nonzero(g, x, DType.INT64)
    return ones if _no_axes(x, axis) else reduce(g, "ReduceSum", ones, axis, keepdims)


def elements(x: Tensor, axis: Axes) -> Dim:
    """How many elements fall into one."""
    return product([x.shape[place] for place in axes_of(axis, x.rank)])


def _variance(g: Lowering, x: Tensor, axis: Axes, keepdims: bool, correction: float) -> Tensor:
    centred = apply(g, "Sub", x, reduce(g, "ReduceMean", x, axis, True)) if not _no_axes(x, axis) else apply(g, "Sub", x, x)
    count = elements(x, axis)
    if correction == 0 and not _no_axes(x, axis):
        return reduce(g, "ReduceMean", apply(g, "Mul", centred, centred), axis, keepdims)
    squares = apply(g, "Mul", centred, centred) if _no_axes(x, axis) else reduce(g, "ReduceSumSquare", centred, axis, keepdims)
    if isinstance(count, int):
        freedom = number(g, max(0.0, count - correction), x)
    else:
        scalar = TensorSpec(x.dtype, ())
        freedom = g.cast(g.scalar_size(count), DType.FLOAT32 if x.dtype is not DType.FLOAT64 else x.dtype)
        freedom = compute(g, "Sub", freedom, number(g, correction, freedom), spec=TensorSpec(freedom.dtype, ()))
        freedom = compute(g, "Max", freedom, number(g, 0.0, freedom), spec=TensorSpec(freedom.dtype, ()))
        freedom = Tensor(g.cast(freedom, x.dtype).name, scalar)
    return apply(g, "Div", squares, freedom)


@lowers("var")
def var(g: Lowering, x: Tensor, *, axis: Axes = None, keepdims: bool = False, correction: float = 0.0) -> Tensor:
    return _variance(g, x, axis, keepdims, correction)


@lowers("std")
def std(g: Lowering, x: Tensor, *, axis: Axes = None, keepdims: bool = False, correction: float = 0.0) -> Tensor:
    return apply(g, "Sqrt", _variance(g, x, axis, keepdims, correction))


@lowers("vector_norm")
def vector_norm(g: Lowering, x: Tensor, *, axis: Axes = None, keepdims: bool = False, ord: float = 2.0) -> Tensor:
    if ord == 0:
        ones = _nonzero(g, x, x.dtype)
        return ones if _no_axes(x, axis) else reduce(g, "ReduceSum", ones, axis, keepdims)
    if _no_axes(x, axis):
        return apply(g, "Abs", x)
    if math.isinf(ord):
        found = _extreme(g, "ReduceMax" if ord > 0 else "ReduceMin", apply(g, "Abs", x), axis, keepdims)
        return apply(g, "Max", found, number(g, 0, x)) if ord > 0 and g.may_be_empty(x.shape) else found
    if ord in (1, 2):
        return reduce(g, f"ReduceL{int(ord)}", x, axis, keepdims)
    powers = apply(g, "Pow", apply(g, "Abs", x), number(g, ord, x))
    return apply(g, "Pow", reduce(g, "ReduceSum", powers, axis, keepdims), number(g, 1 / ord, x))


@lowers("median")
def median(g: Lowering, x: Tensor, *, axis: int, keepdims: bool = False, ignore_nan: bool = False) -> tuple[Tensor, Tensor]:
    """All of the axis sorted, NaN as infinity, and the middle element read out."""
    place = axis_of(axis, x.rank)
    length = x.shape[place]
    kept = reduced(x.shape, (place,), True)
    inner = x.dtype if x.dtype in COMPUTED["TopK"] else DType.INT32 if not x.dtype.is_float else DType.FLOAT32
    if x.dtype in (DType.UINT32, DType.UINT64):
        inner = DType.INT64
    values = in_order(g, x) if x.dtype is DType.UINT64 else g.cast(x, inner)
    missing = apply(g, "IsNaN", values, dtype=DType.BOOL) if inner.is_float else None
    solid = values if missing is None else select(g, missing, number(g, math.inf, values), values)
    order = TensorSpec(DType.INT64, x.shape)
    ascending, _ = g.nodes_out("TopK", solid, g.size(length), specs=[values.spec, order], axis=place, largest=0, sorted=1)
    result_spec = TensorSpec(inner, kept)
    if missing is not None and ignore_nan:
        present = reduce(g, "ReduceSum", g.cast(apply(g, "Not", missing), DType.INT64), (place,), True)
        rank = apply(g, "Div", apply(g, "Sub", present, number(g, 1, present)), number(g, 2, present))
        rank = compute(g, "Clip", rank, number(g, 0, rank), None, spec=rank.spec)
        result = g.node("GatherElements", ascending, rank, spec=result_spec, axis=place)
        hollow = apply(g, "Equal", present, number(g, 0, present), dtype=DType.BOOL)
        result = select(g, hollow, number(g, math.nan, result), result)
    else:
        result = g.node("Gather", ascending, g.size((length - 1) // 2), spec=result_spec, axis=place)
        if missing is not None:
            result = select(g, any_of(g, missing, (place,), True), number(g, math.nan, result), result)
    same = apply(g, "Equal", values, result, dtype=DType.BOOL)
    if missing is not None:
        same = apply(g, "Or", same, apply(g, "And", missing, apply(g, "IsNaN", result, dtype=DType.BOOL)))
    indices = g.node("ArgMax", g.cast(same, DType.UINT8), spec=TensorSpec(DType.INT64, kept), axis=place, keepdims=1)
    result = g.cast(in_order(g, result) if x.dtype is DType.UINT64 else result, x.dtype)
    if keepdims:
        return result, indices
    shape = reduced(x.shape, (place,), False)
    axes = g.constant([place])
    return (g.node("Squeeze", result, axes, spec=TensorSpec(x.dtype, shape)),
            g.node("Squeeze", indices, axes, spec=TensorSpec(DType.INT64, shape)))
