"""Running sums, products and extremes along one axis."""

from __future__ import annotations

from typing import Any

import torch

from adapters.torch.registry import imports, rebuilds
from adapters.torch.tracing.importer import Importer
from converter.builder import Value
from converter.ir import DType

OPERATORS = {"cumsum": "cumulative_sum", "cumprod": "cumulative_prod", "logcumsumexp": "logcumsumexp"}


@imports("aten.cumsum.default", "aten.cumprod.default", "aten.logcumsumexp.default")
def cumulative(g: Importer, self: Value, dim: int, *, dtype: Any = None) -> Value:
    x = g.cast(self, g.result_dtype())
    return g.op(OPERATORS[g.schema.name.removeprefix("aten::")], x, axis=dim) if x.rank else x


@imports("aten.cummax.default", "aten.cummin.default")
def extreme(g: Importer, self: Value, dim: int) -> tuple[Value, Value]:
    if not self.rank:
        return self, g.op("full", shape=(), fill_value=0, dtype=DType.INT64)
    values, indices = g.add(g.schema.name.removeprefix("aten::"), self, axis=dim)
    return values, indices


@rebuilds("cumulative_sum")
def rebuild_cumulative_sum(x: torch.Tensor, *, axis: int) -> torch.Tensor:
    return torch.cumsum(x, axis, dtype=x.dtype)


@rebuilds("cumulative_prod")
def rebuild_cumulative_prod(x: torch.Tensor, *, axis: int) -> torch.Tensor:
    return torch.cumprod(x, axis, dtype=x.dtype)


@rebuilds("logcumsumexp")
def rebuild_logcumsumexp(x: torch.Tensor, *, axis: int) -> torch.Tensor:
    return torch.logcumsumexp(x, axis)


@rebuilds("cummax")
def rebuild_cummax(x: torch.Tensor, *, axis: int) -> Any:
    return torch.cummax(x, axis)


@rebuilds("cummin")
def rebuild_cummin(x: torch.Tensor, *, axis: int) -> Any:
    return torch.cummin(x, axis)
