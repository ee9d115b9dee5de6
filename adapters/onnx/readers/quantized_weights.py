"""Weights of 2, 4 or 8 bits in blocks that share a scale, packed into bytes: as ONNX Runtime's tools for language models write them."""

from __future__ import annotations

from adapters.onnx.reading.items import Item
from adapters.onnx.reading.reader import Reader
from adapters.onnx.registry import reads
from converter.builder import Value
from converter.ir import DType


def unpacked(g: Reader, x: Item | Value, bits: int, axis: int) -> Value:
    """Bytes as the numbers of fewer bits in them, the lowest bits first, along an axis that becomes as many times longer."""
    value = g.tensor(x)
    if bits == 8:
        return value
    if bits not in (2, 4):
        raise g.refuse(f"weights of {bits} bits")
    place = axis % value.rank
    low = g.like((1 << bits) - 1, value)
    parts = [g.op("bitwise_and", g.op("bitwise_right_shift", value, g.like(start, value)) if start else value, low)
             for start in range(0, 8, bits)]
    shape = tuple(size * len(parts) if at == place else size for at, size in enumerate(value.shape))
    return g.op("reshape", g.op("stack", *parts, axis=place + 1), shape=shape)


@reads("com.microsoft.MatMulNBits")
def matmul_nbits(g: Reader, a: Item, b: Item, scales: Item, zeros: Item | None = None, group: Item | None = None,
                 bias: Item | None = None, *, K: int, N: int, bits: int = 4, block_size: int, accuracy_level: int = 0,
                 weight_prepacked: int = 0) -> Value:
    """a · ((b - zero point) · scale)ᵀ: uint8 [N, blocks, bytes of a block], a scale for each row and block; N and K are the text's names.

    How exactly a kernel may compute it is no part of what it is.
    """
    if weight_prepacked:
        raise g.refuse("weights in the layout of one processor")
    blocks = -(-K // block_size)
    whole = g.op("reshape", unpacked(g, b, bits, -1), shape=(N, blocks, block_size))
    kind = g.dtype(scales)
    steps = g.op("reshape", scales, shape=(N, blocks, 1))
    if zeros is None:
        zero = g.op("full", shape=(), fill_value=float(1 << bits - 1), dtype=kind)
    elif g.dtype(zeros) is DType.UINT8:
        points = unpacked(g, g.op("reshape", zeros, shape=(N, -(-blocks * bits // 8))), bits, 1)
        points = g.op("slice", points, axes=(1,), starts=(0,), stops=(blocks,))
        zero = g.cast(g.op("reshape", points, shape=(N, blocks, 1)), kind)
    else:
        zero = g.cast(g.op("reshape", zeros, shape=(N, blocks, 1)), kind)
    if group is not None:
        # A column's block is the one that it is said to belong to.
        index = g.cast(group, DType.INT64)
        flat = g.op("slice", g.op("reshape", whole, shape=(N, blocks * block_size)), axes=(1,), starts=(0,), stops=(K,))
        steps, zero = (g.op("take", g.op("reshape", item, shape=(N, blocks)), index, axis=1) if item.rank else item
                       for item in (steps, zero))
        weight = g.op("multiply", g.op("subtract", g.cast(flat, kind), zero), steps)
    else:
        weight = g.op("multiply", g.op("subtract", g.cast(whole, kind), zero), steps)
        weight = g.op("slice", g.op("reshape", weight, shape=(N, blocks * block_size)), axes=(1,), starts=(0,), stops=(K,))
    return g.op("linear", a, g.cast(weight, g.dtype(a)), bias)


@reads("com.microsoft.GatherBlockQuantized")
def gather_block_quantized(g: Reader, data: Item, indices: Item, scales: Item, zeros: Item | None = None, *, bits: int = 4,
                           block_size: int = 128, gather_axis: int = 0, quantize_axis: int = 1) -> Value:
    """Rows of a table of blocks as the numbers that they stand for."""
    if g.dtype(data) is not DType.UINT8:
        raise g.refuse(f"a table of {g.dtype(data)}")
    rank = g.rank(data)
    along, place = g.axis(quantize_axis, rank), g.axis(gather_axis, rank)
    if along != rank - 1 or place == along:
        raise g.refuse("blocks along another axis than the last, or rows along it")
    index = g.cast(indices, DType.INT64)
    values = unpacked(g, g.op("take", data, index, axis=place), bits, -1)
    steps = g.op("take", scales, index, axis=place)
    zero = g.like(1 << bits - 1, steps)
    if zeros is not None:
        points = unpacked(g, g.op("take", zeros, index, axis=place), bits, -1)
        points = g.op("slice", points, axes=(points.rank - 1,), starts=(0,), stops=(steps.shape[-1],))
        zero = _spread(g, g.cast(points, steps.dtype), block_size, values)
    return g.op("multiply", g.op("subtract", g.cast(values, steps.dtype), zero), _spread(g, steps, block_size, values))


def _spread(g: Reader, steps: Value, block: int, values: Value) -> Value:
    """One number for each block as one for each element along the last axis."""
    found = g.op("repeat_interleave", steps, repeats=block, axis=steps.rank - 1)
    size = values.shape[-1]
    return found if found.shape[-1] == size else g.op("slice", found, axes=(found.rank - 1,), starts=(0,), stops=(size,))
