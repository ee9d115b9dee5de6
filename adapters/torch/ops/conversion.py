"""Conversion between dtypes, and what computes nothing: copies, views of the same thing, dropout in evaluation mode."""

from __future__ import annotations

from typing import Any

import torch

from adapters.torch.dtypes import TO_TORCH
from adapters.torch.registry import imports, rebuilds
from adapters.torch.tracing.importer import Importer
from converter.builder import Value
from converter.ir import DType
from converter.ops.conversion import LARGEST


@imports("aten.to.dtype", "aten.to.device", "aten.to.other", "aten.to.dtype_layout", "aten.to.prim_Device", "aten.to.prim_dtype",
         "aten._to_copy.default", "aten.type_as.default", "prims.convert_element_type.default")
def to(g: Importer, self: Value, *arguments: Any, **options: Any) -> Value:
    if not isinstance(self, Value):  # a number of the code's that vmap has made a tensor of
        return g.tensor(self, g.result_dtype())
    return g.cast(self, g.result_dtype())


@imports("aten.clone.default", "aten.contiguous.default", "aten.alias.default", "aten.detach.default", "aten.detach_.default",
         "aten.lift.default", "aten.lift_fresh.default", "aten.lift_fresh_copy.default", "aten.alias_copy.default",
         "aten.detach_copy.default", "aten._to_cpu.default", "aten.pin_memory.default")
def same(g: Importer, self: Value, *arguments: Any, **options: Any) -> Value:
    return self


@imports("aten.dropout.default", "aten.feature_dropout.default", "aten.alpha_dropout.default", "aten.feature_alpha_dropout.default")
def dropout(g: Importer, input: Value, p: float, train: bool) -> Value:
    if train and p != 0:
        raise g.refuse("random: dropout in training mode", "random")
    return input


@imports("aten.native_dropout.default")
def native_dropout(g: Importer, input: Value, p: float, train: bool | None) -> tuple[Value, Value]:
    if train is not False and p != 0:
        raise g.refuse("random: dropout in training mode", "random")
    return input, g.op("full", shape=input.shape, fill_value=True, dtype=DType.BOOL)


@rebuilds("astype")
def rebuild_astype(x: torch.Tensor, *, dtype: DType) -> torch.Tensor:
    if x.is_complex() and not dtype.is_complex and dtype is not DType.BOOL:
        x = x.real
    return x.to(TO_TORCH[dtype])


@imports("aten.copy.default")
def copy(g: Importer, self: Value, src: Value, non_blocking: bool = False) -> Value:
    """`src` in the dtype and the shape of `self`, whose values do not matter."""
    cast = g.cast(src, g.result_dtype())
    return cast if cast.shape == g.result_shape() else g.op("broadcast_to", cast, shape=g.result_shape())


@imports("aten.fill.Tensor")
def fill_with(g: Importer, self: Value, value: Value) -> Value:
    return copy(g, self, value)


@rebuilds("size_of")
def rebuild_size_of(x: torch.Tensor, *, least: int = 0, most: int = LARGEST) -> torch.Tensor:
    within = (x >= least) & (x <= most)
    torch._assert_async(within, f"a number of the data is not between {least} and {most}")
    return x.to(torch.int64)
