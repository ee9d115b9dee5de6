"""Operators of the domain com.microsoft that ONNX has too, or nearly."""

from __future__ import annotations

from typing import Any

import numpy as np

from adapters.onnx.readers.convolution import max_pool
from adapters.onnx.readers.indexing import gather_nd, unique
from adapters.onnx.readers.manipulation import arange, pad, trilu
from adapters.onnx.readers.quantization import dequantize_linear, qlinear_conv, quantize_linear
from adapters.onnx.readers.quantized_layers import channels_at_end, channels_first
from adapters.onnx.readers.resize import grid_sample
from adapters.onnx.reading.items import Item
from adapters.onnx.reading.reader import Reader
from adapters.onnx.registry import forwards, reads
from converter.builder import Value

for _name, _reader in (("Trilu", trilu), ("Pad", pad), ("GatherND", gather_nd), ("GridSample", grid_sample),
                       ("QuantizeLinear", quantize_linear), ("DequantizeLinear", dequantize_linear)):
    reads(f"com.microsoft.{_name}")(_reader)


@reads("com.microsoft.Range")
def steps(g: Reader, start: Item, limit: Item, delta: Item | None = None) -> Value:
    return arange(g, start, limit, delta if delta is not None else Item(start.dtype, (), None, np.ones((), start.dtype.numpy)))


@reads("com.microsoft.Inverse")
def inverse(g: Reader, x: Item) -> Value:
    return g.op("inv", x)


@reads("com.microsoft.ExpandDims")
def expand_dims(g: Reader, x: Item, axis: Item) -> Value:
    (place,) = g.integers(axis, "an axis")
    return g.op("expand_dims", x, axis=(g.axis(place, g.rank(x) + 1),))


@reads("com.microsoft.CDist")
def cdist(g: Reader, x: Item, y: Item, *, metric: str = "sqeuclidean") -> Value:
    if metric not in ("euclidean", "sqeuclidean"):
        raise g.refuse(f"the distance {metric}")
    found = g.op("cdist", x, y)
    return found if metric == "euclidean" else g.op("square", found)


@reads("com.microsoft.Unique")
def unique_in_order(g: Reader, x: Item) -> tuple[Value, ...]:
    """The distinct elements in the order of their first places, where each element is among them, and how often."""
    values, _, places, counts = unique(g, x, sorted=0)
    return values, places, counts


@reads("com.microsoft.QLinearConv")
@forwards(qlinear_conv)
def convolution(g: Reader, x: Item, *more: Item, channels_last: int = 0, **options: Any) -> Value:
    if not channels_last:
        return qlinear_conv(g, x, *more, **options)
    return channels_at_end(g, qlinear_conv(g, Item.of(channels_first(g, x)), *more, **options))


@reads("com.microsoft.NhwcMaxPool")
@forwards(max_pool)
def max_pool_of_channels_last(g: Reader, x: Item, **options: Any) -> Value:
    return channels_at_end(g, max_pool(g, Item.of(channels_first(g, x)), **options)[0])
