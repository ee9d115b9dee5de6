"""Layers of 8-bit integers, as ONNX Runtime's quantizer writes them: integers as the numbers they stand for, and back.

Sums of products are exact in int32. Where a kernel rescales by other roundings than the text of its operator says, results differ from its
by one step where the exact one lies half-way between two.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from adapters.onnx.readers.convolution import average_pool
from adapters.onnx.readers.elementwise import softmax_since
from adapters.onnx.readers.fused_attention import attention_of
from adapters.onnx.readers.linear import centred
from adapters.onnx.readers.quantization import dynamic_quantize, rounded
from adapters.onnx.reading.items import Item
from adapters.onnx.reading.reader import Reader
from adapters.onnx.registry import forwards, reads
from converter.builder import Value
from converter.dims import product
from converter.ir import DType


def _one(g: Reader, item: Item | Value) -> Value:
    """A scale or zero point that there is one of, without axes."""
    value = g.tensor(item)
    return g.op("reshape", value, shape=()) if value.rank else value


def _scaled(g: Reader, total: Value, *scales: Item | Value) -> Value:
    """int32 sums as the floats that they stand for; a scale for each column, or one."""
    factor: Value | None = None
    for item in scales:
        value = g.tensor(item)
        own = value if value.rank == 1 and value.shape != (1,) else _one(g, value)
        factor = own if factor is None else g.op("multiply", factor, own)
    if factor is None:
        raise g.refuse("no scale")
    return g.op("multiply", g.cast(total, factor.dtype), factor)


# Arithmetic ----------------------------------------------------------------------------------------------------------------


def _of_two(op: str) -> Callable[..., Value]:
    def read(g: Reader, a: Item, a_scale: Item, a_zero: Item | None, b: Item, b_scale: Item, b_zero: Item | None, scale: Item,
             zero: Item | None = None) -> Value:
        left, right = _floats(g, a, a_scale, a_zero), _floats(g, b, b_scale, b_zero)
        return _quantized(g, g.op(op, left, right), scale, zero, g.dtype(a))

    return read


reads("com.microsoft.QLinearAdd")(_of_two("add"))
reads("com.microsoft.QLinearMul")(_of_two("multiply"))


def _floats(g: Reader, x: Item, scale: Item, zero: Item | None) -> Value:
    """The numbers that integers stand for."""
    return _scaled(g, centred(g, x, zero, None), scale)


def _quantized(g: Reader, x: Value, scale: Item, zero: Item | None, dtype: DType) -> Value:
    """x in steps of a scale, of the dtype that the operands have."""
    quotient = g.op("divide", x, _one(g, scale))
    return rounded(g, quotient, None if zero is None else _one(g, zero), dtype)


def _of_one(g: Reader, x: Item, x_scale: Item, x_zero: Item | None, scale: Item, zero: Item | None, op: str, **attributes: Any) -> Value:
    return _quantized(g, g.op(op, _floats(g, x, x_scale, x_zero), **attributes), scale, zero, g.dtype(x))


@reads("com.microsoft.QLinearSigmoid")
def qlinear_sigmoid(g: Reader, x: Item, x_scale: Item, x_zero: Item | None, scale: Item, zero: Item | None = None) -> Value:
    return _of_one(g, x, x_scale, x_zero, scale, zero, "sigmoid")


@reads("com.microsoft.QLinearLeakyRelu")
def qlinear_leaky_relu(g: Reader, x: Item, x_scale: Item, x_zero: Item | None, scale: Item, zero: Item | None = None, *,
                       alpha: float = 0.01) -> Value:
    return _of_one(g, x, x_scale, x_zero, scale, zero, "leaky_relu", negative_slope=alpha)


@reads("com.microsoft.QLinearSoftmax")
def qlinear_softmax(g: Reader, x: Item, x_scale: Item, x_zero: Item | None, scale: Item, zero: Item, *, opset: int,
                    axis: int = -1) -> Value:
    found = softmax_since(g, "softmax", _floats(g, x, x_scale, x_zero), axis, opset)
    return _quantized(g, found, scale, zero, g.dtype(x))


@reads("com.microsoft.QLinearConcat")
def qlinear_concat(g: Reader, scale: Item, zero: Item, *parts: Item, axis: int) -> Value:
    found = [_quantized(g, _floats(g, *parts[place:place + 3]), scale, zero, g.dtype(zero)) for place in range(0, len(parts), 3)]
    return found[0] if len(found) == 1 else g.op("concat", *found, axis=g.axis(axis, found[0].rank))


@reads("com.microsoft.QLinearWhere")
def qlinear_where(g: Reader, condition: Item, x: Item, x_scale: Item, x_zero: Item, y: Item, y_scale: Item, y_zero: Item, scale: Item,
                  zero: Item) -> Value:
    both = [_quantized(g, _floats(g, *part), scale, zero, g.dtype(zero)) for part in ((x, x_scale, x_zero), (y, y_scale, y_zero))]
    return g.op("where", condition, *both)


# Pools ---------------------------------------------------------------------------------------------------------------------


def channels_first(g: Reader, x: Item | Value) -> Value:
    """[batch, *rest, channels] as [batch, channels, *rest]."""
    rank = g.rank(x)
    return g.op("permute_dims", x, axes=(0, rank - 1, *range(1, rank - 1)))


def channels_at_end(g: Reader, x: Value) -> Value:
    """[batch, channels, *rest] as [batch, *rest, channels]."""
    return g.op("permute_dims", x, axes=(0, *range(2, x.rank), 1))


@reads("com.microsoft.QLinearAveragePool")
@forwards(average_pool)
def qlinear_average_pool(g: Reader, x: Item, x_scale: Item, x_zero: Item | None, scale: Item, zero: Item | None = None, *,
                         channels_last: int = 0, **options: Any) -> Value:
    value = _floats(g, x, x_scale, x_zero)
    found = average_pool(g, Item.of(channels_first(g, value) if channels_last else value), **options)
    return _quantized(g, channels_at_end(g, found) if channels_last else found, scale, zero, g.dtype(x))


@reads("com.microsoft.QLinearGlobalAveragePool")
def qlinear_global_average(g: Reader, x: Item, x_scale: Item, x_zero: Item, scale: Item, zero: Item, *, channels_last: int = 0) -> Value:
    """Sums of integers times the scale over the result's and over how many they are."""
    rank = g.rank(x)
    axes = tuple(range(1, rank - 1)) if channels_last else tuple(range(2, rank))
    total = g.op("sum", centred(g, x, x_zero, None), axis=axes, keepdims=True)
    count = g.cast(g.op("full", shape=(), fill_value=product([g.shape(x)[axis] for axis in axes]), dtype=DType.INT64), DType.FLOAT32)
    factor = g.op("divide", _one(g, x_scale), g.op("multiply", _one(g, scale), count))
    return rounded(g, g.op("multiply", g.cast(total, DType.FLOAT32), factor), _one(g, zero), g.dtype(x))


# Products ------------------------------------------------------------------------------------------------------------------


def _product(g: Reader, a: Item | Value, a_zero: Item | Value | None, b: Item, b_zero: Item | None) -> Value:
    return g.op("matmul", centred(g, a, a_zero, None), centred(g, b, b_zero, -1))


@reads("com.microsoft.DynamicQuantizeMatMul")
def dynamic_quantize_matmul(g: Reader, a: Item, b: Item, b_scale: Item, b_zero: Item | None = None, bias: Item | None = None) -> Value:
    """a in 8 bits by its own range, times b."""
    values, scale, zero = dynamic_quantize(g, a)
    found = _scaled(g, _product(g, values, zero, b, b_zero), scale, b_scale)
    return found if bias is None else g.op("add", found, bias)


@reads("com.microsoft.MatMulIntegerToFloat")
def matmul_integer_to_float(g: Reader, a: Item, b: Item, a_scale: Item, b_scale: Item, a_zero: Item | None = None,
                            b_zero: Item | None = None, bias: Item | None = None) -> Value:
    found = _scaled(g, _product(g, a, a_zero, b, b_zero), a_scale, b_scale)
    return found if bias is None else g.op("add", found, bias)


@reads("com.microsoft.MatMulInteger16")
def matmul_integer_16(g: Reader, a: Item, b: Item) -> Value:
    return _product(g, a, None, b, None)


@reads("com.microsoft.QGemm")
def qgemm(g: Reader, a: Item, a_scale: Item, a_zero: Item, b: Item, b_scale: Item, b_zero: Item, c: Item | None = None,
          scale: Item | None = None, zero: Item | None = None, *, alpha: float = 1.0, transA: int = 0, transB: int = 0) -> Value:
    """alpha · a · b + c, c in int32 in steps of alpha · a's scale · b's; in floats where no scale of the result is given."""
    left, right = centred(g, a, a_zero, None), centred(g, b, b_zero, 0 if transB else -1)
    turned = [g.op("permute_dims", item, axes=(1, 0)) if turn else item for item, turn in ((left, transA), (right, transB))]
    total = g.op("matmul", *turned)
    if c is not None:
        total = g.op("add", total, c)
    factors: list[Item | Value] = [a_scale, b_scale]
    if alpha != 1:
        factors.insert(0, g.like(alpha, a_scale))
    if scale is None:
        return _scaled(g, total, *factors)
    factors.append(g.op("reciprocal", _one(g, scale)))
    return rounded(g, _scaled(g, total, *factors), None if zero is None else _one(g, zero), g.dtype(a) if zero is None else g.dtype(zero))


@reads("com.microsoft.QAttention")
def quantized_attention(g: Reader, x: Item, weight: Item, bias: Item, x_scale: Item, w_scale: Item, mask: Item | None = None,
                        x_zero: Item | None = None, w_zero: Item | None = None, past: Item | None = None, *, num_heads: int,
                        unidirectional: int = 0, scale: float | None = None, mask_filter_value: float = -10000.0, do_rotary: int = 0,
                        past_present_share_buffer: int = 0, qkv_hidden_sizes: Sequence[int] | None = None) -> tuple[Value, ...]:
    """The product of integers as floats plus bias, then attention of floats."""
    if do_rotary or past_present_share_buffer:
        raise g.refuse("rotary positions, or a past of a fixed length")
    found = g.op("add", _scaled(g, _product(g, x, x_zero, weight, w_zero), x_scale, w_scale), bias)
    return attention_of(g, found, mask, past, None, num_heads, unidirectional, scale, mask_filter_value, qkv_hidden_sizes)
