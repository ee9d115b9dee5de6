"""Order, search and sets."""

from __future__ import annotations

import numpy as np

from adapters.onnx.lowering.context import Lowering, Tensor
from adapters.onnx.lowering.kernels import in_order
from adapters.onnx.registry import lowers
from converter.dims import Dim, product
from converter.ir import DType, TensorSpec

# What ONNX Runtime cannot order or compare, and what stands in for it.
WIDER = {DType.BOOL: DType.INT32, DType.INT8: DType.INT32, DType.INT16: DType.INT32, DType.UINT8: DType.INT32,
         DType.UINT16: DType.INT32, DType.UINT32: DType.INT64, DType.FLOAT16: DType.FLOAT32, DType.BFLOAT16: DType.FLOAT32}


def _wide(g: Lowering, x: Tensor) -> Tensor:
    return g.cast(x, WIDER.get(x.dtype, x.dtype))


def _ranked(g: Lowering, x: Tensor, k: Dim, axis: int, largest: bool) -> tuple[Tensor, Tensor]:
    """The first k in order. ONNX gives NaN no place: numbers stand in for it and for infinity, and the values are looked up."""
    place = axis % x.rank
    shape = (*x.shape[:place], k, *x.shape[place + 1:])
    wide = _wide(g, x)
    key = wide
    if x.dtype is DType.UINT64:
        key = in_order(g, x)
    if wide.dtype.is_float:
        missing = g.node("IsNaN", wide, spec=TensorSpec(DType.BOOL, x.shape))
        # Infinity comes before NaN: a float64 beyond float32's stands in for it; float64's own largest number is taken for equal to it.
        most = g.constant(1e300 if wide.dtype is not DType.FLOAT64 else np.finfo(np.float64).max, DType.FLOAT64)
        key = g.cast(wide, DType.FLOAT64)
        key = g.node("Where", missing, g.constant(np.inf, DType.FLOAT64), g.node("Min", key, most, spec=key.spec), spec=key.spec)
    values, indices = g.nodes_out("TopK", key, g.size(k), specs=[TensorSpec(key.dtype, shape), TensorSpec(DType.INT64, shape)],
                                  axis=place, largest=int(largest), sorted=1)
    if wide.dtype.is_float or key.dtype is not wide.dtype:
        return g.node("GatherElements", x, indices, spec=TensorSpec(x.dtype, shape), axis=place), indices
    return g.cast(values, x.dtype), indices


@lowers("sort")
def sort(g: Lowering, x: Tensor, *, axis: int, descending: bool) -> tuple[Tensor, Tensor]:
    return _ranked(g, x, x.shape[axis], axis, descending)


@lowers("topk")
def topk(g: Lowering, x: Tensor, *, k: Dim, axis: int, largest: bool) -> tuple[Tensor, Tensor]:
    return _ranked(g, x, k, axis, largest)


UNIQUE = frozenset({DType.FLOAT32, DType.FLOAT64, DType.INT64, DType.INT8})


@lowers("unique")
def unique(g: Lowering, x: Tensor, *, axis: int | None, size: Dim) -> tuple[Tensor, Tensor, Tensor]:
    inner = x.dtype if x.dtype in UNIQUE else DType.FLOAT32 if x.dtype.is_float else DType.INT64
    counts = TensorSpec(DType.INT64, (size,))
    length = product(x.shape) if axis is None else x.shape[0]
    values = TensorSpec(inner, (size,) if axis is None else (size, *x.shape[1:]))
    found, _, inverse, count = g.nodes_out("Unique", g.cast(x, inner), specs=[values, counts, TensorSpec(DType.INT64, (length,)), counts],
                                           axis=axis, sorted=1)
    return g.cast(found, x.dtype), g.reshape(inverse, x.shape) if axis is None else inverse, count


@lowers("unique_consecutive")
def unique_consecutive(g: Lowering, x: Tensor, *, size: Dim) -> tuple[Tensor, Tensor, Tensor]:
    length, rest = x.shape[0], x.shape[1:]
    wide = _wide(g, x)
    shorter = TensorSpec(wide.dtype, (length - 1, *rest))
    behind = g.node("Slice", wide, g.constant([1]), g.constant([2**63 - 1]), g.constant([0]), spec=shorter)
    ahead = g.node("Slice", wide, g.constant([0]), g.constant([-1]), g.constant([0]), spec=shorter)
    flag, vector = TensorSpec(DType.BOOL, (length - 1,)), TensorSpec(DType.INT64, (length,))
    changes = g.node("Not", g.node("Equal", behind, ahead, spec=TensorSpec(DType.BOOL, shorter.shape)),
                     spec=TensorSpec(DType.BOOL, shorter.shape))
    if rest:
        numbers = g.node("ReduceMax", g.cast(changes, DType.INT32), g.constant(list(range(1, x.rank))),
                         spec=TensorSpec(DType.INT32, flag.shape), keepdims=0)
        changes = g.cast(numbers, DType.BOOL)
    starts = g.node("Concat", g.constant([True], DType.BOOL), changes, spec=TensorSpec(DType.BOOL, (length,)), axis=0)
    if g.may_be_empty((length,)):
        starts = g.node("Slice", starts, g.constant([0]), g.size(length), g.constant([0]), spec=starts.spec)
    # ONNX's Compress takes no bfloat16, whose values `wide` holds too.
    kept = wide if x.dtype is DType.BFLOAT16 else x
    values = g.cast(g.node("Compress", kept, starts, spec=TensorSpec(kept.dtype, (size, *rest)), axis=0), x.dtype)
    runs = g.node("CumSum", g.cast(starts, DType.INT64), g.constant(0), spec=vector)
    inverse = g.node("Sub", runs, g.constant([1]), spec=vector)
    count = TensorSpec(DType.INT64, (size,))
    places = g.node("Squeeze", g.node("NonZero", starts, spec=TensorSpec(DType.INT64, (1, size))), g.constant([0]), spec=count)
    after = g.node("Slice", places, g.constant([1]), g.constant([2**63 - 1]), g.constant([0]), spec=TensorSpec(DType.INT64, (size - 1,)))
    ends = g.node("Concat", after, g.size(length), spec=count, axis=0)
    return values, inverse, g.node("Sub", ends, places, spec=count)
