"""Pooling to a given number of windows."""

from __future__ import annotations

from collections.abc import Sequence

from adapters.onnx.lowering.context import Lowering, Tensor
from adapters.onnx.lowering.nan import with_nan
from adapters.onnx.lowering.through_float32 import through_float32
from adapters.onnx.ops.convolution import batched, like_input
from adapters.onnx.ops.pooling import keep_padding
from adapters.onnx.registry import lowers
from converter.dims import Dim, maximum, product
from converter.ir import DType, TensorSpec
from converter.ops.adaptive_pooling import windows


def _kernel(x: Tensor, size: tuple[Dim, ...]) -> list[int] | None:
    """The window of each axis where all of its windows are equal, else None."""
    kernel = []
    for incoming, outgoing in zip(x.shape[-len(size):], size, strict=True):
        if incoming == outgoing:
            kernel.append(1)
        elif isinstance(incoming, int) and isinstance(outgoing, int) and incoming % outgoing == 0:
            kernel.append(incoming // outgoing)
        else:
            return None
    return kernel


def _replaced(x: Tensor, axis: int, *sizes: Dim, dtype: DType | None = None) -> TensorSpec:
    return TensorSpec(dtype or x.dtype, (*x.shape[:axis], *sizes, *x.shape[axis + 1:]))


def _windows(g: Lowering, size: Dim, count: Dim) -> tuple[Tensor, Tensor | None, Dim]:
    """(places [count, widest], held [count, widest] or None where windows are equal, widest) of an axis."""
    if isinstance(size, int) and isinstance(count, int):
        fixed, inside = windows(size, count)
        return g.constant(fixed), None if inside.all() else g.constant(inside, DType.BOOL), fixed.shape[1]
    divisor = maximum(count, 1)  # there may be no window at all
    widest = (size - 1) // divisor + 2
    index = g.node("Range", g.constant(0), g.scalar_size(count), g.constant(1), spec=TensorSpec(DType.INT64, (count,)))
    index = g.node("Unsqueeze", index, g.constant([1]), spec=TensorSpec(DType.INT64, (count, 1)))
    total, number = g.size(size), g.size(divisor)
    column = index.spec
    start = g.node("Div", g.node("Mul", index, total, spec=column), number, spec=column)
    # ceil((i + 1)·n / m) = (i·n + n + m - 1) // m
    end = g.node("Div", g.node("Add", g.node("Mul", index, total, spec=column), g.size(size + count - 1), spec=column), number, spec=column)
    table = TensorSpec(DType.INT64, (count, widest))
    offsets = g.node("Range", g.constant(0), g.scalar_size(widest), g.constant(1), spec=TensorSpec(DType.INT64, (widest,)))
    places = g.node("Add", start, offsets, spec=table)
    held = g.node("Less", places, end, spec=TensorSpec(DType.BOOL, table.shape))
    last = g.node("Sub", end, g.constant([1]), spec=column)
    return g.node("Min", places, last, spec=table), held, widest


@lowers("adaptive_avg_pool")
@through_float32
def adaptive_avg_pool(g: Lowering, x: Tensor, *, size: tuple[Dim, ...]) -> Tensor:
    axes = len(size)
    shape = x.shape[:-axes] + size
    ones = [x.rank - axes + axis for axis, count in enumerate(size) if count == 1 and x.shape[axis - axes] != 1]
    kernel = _kernel(x, size)
    if kernel is not None and len(ones) < axes and any(k > 1 for k in kernel) and x.dtype is not DType.FLOAT64:
        pooled = batched(g, x, axes)
        spec = TensorSpec(x.dtype, (*pooled.shape[:2], *size))
        return like_input(g, g.node("AveragePool", pooled, spec=spec, kernel_shape=kernel, strides=kernel), x)
    y = x
    if ones:
        if len(ones) == axes and x.rank == axes + 2 and x.dtype is not DType.FLOAT64:
            return g.node("GlobalAveragePool", x, spec=TensorSpec(x.dtype, shape))
        reduced = tuple(1 if axis in ones else length for axis, length in enumerate(y.shape))
        y = g.node("ReduceMean", y, g.constant(ones), spec=TensorSpec(x.dtype, reduced), keepdims=1)
    for axis, count in zip(range(x.rank - axes, x.rank), size, strict=True):
        if y.shape[axis] == count:
            continue
        places, held, widest = _windows(g, y.shape[axis], count)
        gathered = g.node("Gather", y, places, spec=_replaced(y, axis, count, widest), axis=axis)
        target = _replaced(y, axis, count)
        if held is None:
            y = g.node("ReduceMean", gathered, g.constant([axis + 1]), spec=target, keepdims=0)
            continue
        tail = [1] * (y.rank - 1 - axis)
        mask = g.reshape(held, (count, widest, *tail))
        kept = g.node("Where", mask, gathered, g.constant(0, x.dtype), spec=gathered.spec)
        total = g.node("ReduceSum", kept, g.constant([axis + 1]), spec=target, keepdims=0)
        lengths = g.node("ReduceSum", g.cast(mask, x.dtype), g.constant([1]), spec=TensorSpec(x.dtype, (count, *tail)), keepdims=0)
        y = g.node("Div", total, lengths, spec=target)
    return y


@lowers("adaptive_max_pool")
@through_float32
def adaptive_max_pool(g: Lowering, x: Tensor, *, size: tuple[Dim, ...]) -> Tensor | tuple[Tensor, ...]:
    dtype = x.dtype
    if dtype not in (DType.FLOAT32, DType.FLOAT64, DType.FLOAT16):
        if dtype.is_integer and dtype.itemsize < 8:
            x = g.cast(x, DType.FLOAT64)
        else:
            raise g.refuse(f"ONNX Runtime has no {dtype} max pooling")
    y, *places = with_nan(g, x, lambda item: _largest(g, item, size))
    y = g.cast(y, dtype)
    return (y, places[0]) if places else y


def _largest(g: Lowering, x: Tensor, size: tuple[Dim, ...]) -> Sequence[Tensor]:
    """The largest element of every window, and its place where that is wanted; NaN is passed over."""
    axes = len(size)
    kernel = _kernel(x, size)
    if kernel is not None:
        pooled = batched(g, x, axes)
        shape = (*pooled.shape[:2], *size)
        specs = [TensorSpec(x.dtype, shape), TensorSpec(DType.INT64, shape)]
        keep_padding(g, pooled)
        y, *indices = g.nodes_out("MaxPool", pooled, specs=specs if g.wants(1) else specs[:1], kernel_shape=kernel, strides=kernel)
        indices = [g.node("Mod", item, g.size(product(x.shape[-axes:])), spec=item.spec) for item in indices]
        return [like_input(g, item, x) for item in (y, *indices)]
    if g.wants(1):
        return _with_indices(g, x, size)
    for axis, count in zip(range(x.rank - axes, x.rank), size, strict=True):
        if x.shape[axis] == count:
            continue
        if count == 1:
            x = g.node("ReduceMax", x, g.constant([axis]), spec=_replaced(x, axis, 1), keepdims=1)
            continue
        places, _, widest = _windows(g, x.shape[axis], count)
        gathered = g.node("Gather", x, places, spec=_replaced(x, axis, count, widest), axis=axis)
        x = g.node("ReduceMax", gathered, g.constant([axis + 1]), spec=_replaced(x, axis, count), keepdims=0)
    return [x]


def _with_indices(g: Lowering, x: Tensor, size: tuple[Dim, ...]) -> tuple[Tensor, Tensor]:
    """Every window gathered whole, its largest element found, and the place where that came from looked up."""
    axes, lead = len(size), x.rank - len(size)
    sizes = x.shape[lead:]
    values = x
    flat: Tensor | None = None
    widths: list[Dim] = []
    for axis, count in enumerate(size):
        places, _, widest = _windows(g, sizes[axis], count)
        widths.append(widest)
        values = g.node("Gather", values, places, spec=_replaced(values, lead + 2 * axis, count, widest), axis=lead + 2 * axis)
        if flat is None:
            flat = places
            continue
        stretched = g.node("Mul", flat, g.size(sizes[axis]), spec=flat.spec)
        stretched = g.node("Unsqueeze", stretched, g.constant([2 * axis, 2 * axis + 1]), spec=TensorSpec(DType.INT64, (*flat.shape, 1, 1)))
        flat = g.node("Add", stretched, places, spec=TensorSpec(DType.INT64, (*flat.shape, count, widest)))

    within = product(widths)
    order = [*range(0, 2 * axes, 2), *range(1, 2 * axes, 2)]
    values = g.transpose(values, [*range(lead), *(lead + axis for axis in order)])
    values = g.reshape(values, (*x.shape[:lead], *size, within))
    flat = g.reshape(g.transpose(flat, order), (*size, within))  # type: ignore[arg-type]
    shape = (*x.shape[:lead], *size)
    best = g.node("ArgMax", values, spec=TensorSpec(DType.INT64, (*shape, 1)), axis=x.rank, keepdims=1)
    y = g.node("GatherElements", values, best, spec=TensorSpec(values.dtype, (*shape, 1)), axis=x.rank)
    spread = g.node("Expand", flat, g.sizes([*shape, within]), spec=TensorSpec(DType.INT64, (*shape, within)))
    indices = g.node("GatherElements", spread, best, spec=TensorSpec(DType.INT64, (*shape, 1)), axis=x.rank)
    squeeze = g.constant([x.rank])
    return (g.node("Squeeze", y, squeeze, spec=TensorSpec(values.dtype, shape)),
            g.node("Squeeze", indices, squeeze, spec=TensorSpec(DType.INT64, shape)))
