"""Products of groups of rows with a matrix each, and the counts that make the groups: mixtures of experts."""

from __future__ import annotations

from typing import Any

import torch

from adapters.torch.registry import imports, rebuilds
from adapters.torch.tracing.importer import Importer
from converter.builder import Value
from converter.ir import DType


# The operator of `transformers` is registered by that library where its experts are traced.
@imports("aten._grouped_mm.default", "transformers.grouped_mm_fallback.default")
def grouped_mm(g: Importer, self: Value, mat2: Value, offs: Value | None = None, bias: Value | None = None,
               out_dtype: torch.dtype | None = None) -> Value:
    if offs is None or self.rank != 2 or mat2.rank != 3:
        raise g.refuse("a grouped product other than of rows [rows, size] with matrices [groups, size, width]")
    y = g.op("grouped_matmul", self, mat2, offs)
    y = y if bias is None else g.op("add", y, g.cast(bias, y.dtype))
    return g.cast(y, g.result_dtype())


@imports("aten.histc.default")
def histc(g: Importer, self: Value, bins: int = 100, min: Any = 0, max: Any = 0) -> Value:
    """Bin i counts the values of [min + i·w, min + (i + 1)·w), w = (max - min) / bins; the last one those of max too.

    Equal ends stand for the least and the largest value, and where those are equal, for 1 less and 1 more.
    """
    if not isinstance(min, (int, float)) or not isinstance(max, (int, float)):
        raise g.refuse("a histogram whose ends depend on a free size")
    if not self.dtype.is_float:
        raise g.refuse(f"a histogram of {self.dtype}")
    x = g.op("reshape", self, shape=(_count(self),))
    low, high, width = _ends(g, x, float(min), float(max))
    inside = g.op("logical_and", g.op("greater_equal", x, low), g.op("less_equal", x, high))
    # In torch's order of operations: (x - min) · bins / (max - min), its fraction cut off.
    place = g.op("divide", g.op("multiply", g.op("subtract", x, low), float(bins)), width)
    place = g.op("where", inside, place, -1.0)
    place = g.op("minimum", g.op("astype", g.op("trunc", place), dtype=DType.INT64), bins - 1)
    equal = g.op("equal", g.op("expand_dims", place, axis=(1,)), g.op("arange", start=0, stop=bins, dtype=DType.INT64))
    return g.op("sum", g.op("astype", equal, dtype=g.result_dtype()), axis=(0,))


def _ends(g: Importer, x: Value, low: float, high: float) -> tuple[Any, Any, Any]:
    """The ends of a histogram and their distance: numbers, or tensors of no axes where the data give them."""
    if low < high:
        return low, high, high - low
    if low > high:
        raise g.refuse("a histogram whose upper end lies below its lower one")
    least, most = g.op("min", x), g.op("max", x)
    flat = g.op("equal", least, most)
    least, most = (g.op("where", flat, g.op(op, value, 1.0), value) for op, value in (("subtract", least), ("add", most)))
    return least, most, g.op("subtract", most, least)


def _count(x: Value) -> Any:
    size: Any = 1
    for item in x.shape:
        size = size * item
    return size


@rebuilds("grouped_matmul")
def rebuild_grouped_matmul(x: torch.Tensor, weight: torch.Tensor, ends: torch.Tensor) -> torch.Tensor:
    starts = torch.cat([ends.new_zeros(1), ends[:-1]])
    rows = torch.arange(x.shape[0], device=x.device)[:, None]
    chosen = (rows >= starts) & (rows < ends)
    parts = [torch.where(chosen[:, index, None], x, 0) @ matrix for index, matrix in enumerate(weight.unbind(0))]
    return torch.stack(parts).sum(0)
