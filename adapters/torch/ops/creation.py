"""Tensors made from sizes and numbers, and the triangles of matrices. What draws random numbers is refused."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from adapters.torch.dtypes import TO_TORCH
from adapters.torch.registry import imports, rebuilds
from adapters.torch.sizes.size_numbers import SizeNumber, emit
from adapters.torch.tracing.importer import Importer
from converter.builder import Value
from converter.dims import Dim, Expr
from converter.ir import DType


def full(g: Importer, fill_value: Any) -> Value:
    """A tensor of the current node's dtype and shape."""
    dtype = g.result_dtype()
    if isinstance(fill_value, SizeNumber):
        fill_value = emit(g, fill_value)
    if isinstance(fill_value, Value):
        value, shape = g.cast(fill_value, dtype), g.result_shape()
        return g.op("broadcast_to", value, shape=shape) if shape else value
    if dtype is DType.BOOL:
        fill_value = fill_value if isinstance(fill_value, Expr) else bool(fill_value)
    elif not isinstance(fill_value, Expr) and dtype.is_integer:
        # As torch writes it: 2.7 as 2, -1 as 255 in uint8.
        fill_value = int(torch.full((), fill_value, dtype=TO_TORCH[dtype]).item())
    elif not isinstance(fill_value, (Expr, complex)):
        fill_value = float(fill_value)
    return g.op("full", shape=g.result_shape(), fill_value=fill_value, dtype=dtype)


# Memory that holds anything is filled with zeros: a program whose result depends on it has no right answer.
CONSTANT = {
    "aten.zeros.default": 0, "aten.zeros_like.default": 0, "aten.new_zeros.default": 0, "aten.ones.default": 1,
    "aten.ones_like.default": 1, "aten.new_ones.default": 1, "aten.empty.memory_format": 0, "aten.empty_like.default": 0,
    "aten.new_empty.default": 0, "aten.empty_strided.default": 0, "aten.new_empty_strided.default": 0,
    "aten.empty_permuted.default": 0, "aten.zero.default": 0,
}


@imports(*CONSTANT)
def constant(g: Importer, *arguments: Any, **options: Any) -> Value:
    from adapters.torch.tracing.importer import target_name

    return full(g, CONSTANT[target_name(g.node.target)])


@imports("aten.full.default")
def full_of(g: Importer, size: Sequence[Dim], fill_value: Any, **options: Any) -> Value:
    return full(g, fill_value)


@imports("aten.full_like.default")
def full_like(g: Importer, self: Value, fill_value: Any, **options: Any) -> Value:
    return full(g, fill_value)


@imports("aten.new_full.default")
def new_full(g: Importer, self: Value, size: Sequence[Dim], fill_value: Any, **options: Any) -> Value:
    return full(g, fill_value)


@imports("aten.scalar_tensor.default")
def scalar_tensor(g: Importer, s: Any, **options: Any) -> Value:
    return full(g, s)


@imports("aten.fill.Scalar")
def fill(g: Importer, self: Value, value: Any) -> Value:
    return full(g, value)


@imports("aten.arange.default")
def arange_to(g: Importer, end: Any, **options: Any) -> Value:
    return arange(g, 0, end)


@imports("aten.arange.start", "aten.arange.start_step")
def arange(g: Importer, start: Any, end: Any, step: Any = 1, **options: Any) -> Value:
    for bound in (start, end, step):
        if isinstance(bound, SizeNumber):
            raise g.refuse("a bound computed from sizes by float arithmetic")
    return g.op("arange", start=start, stop=end, step=step, dtype=g.result_dtype())


MOST_LITERAL = 1 << 20
"""Up to this many numbers a sequence may be written out."""


@imports("aten.linspace.default")
def linspace(g: Importer, start: Any, end: Any, steps: Dim, **options: Any) -> Value:
    dtype = g.result_dtype()
    literal = all(type(item) in (int, float, complex, bool) for item in (start, end))
    if not dtype.is_float and literal and isinstance(steps, int) and steps <= MOST_LITERAL:
        # PyTorch computes integers differently from one machine to the next: what counts is what this one gives.
        return g.constant(torch.linspace(start, end, steps, dtype=TO_TORCH[dtype]), "linspace")
    if dtype.is_complex or isinstance(start, (complex, SizeNumber)) or isinstance(end, (complex, SizeNumber)):
        raise g.refuse("linspace of anything but real numbers")
    if dtype.is_integer:
        raise g.refuse("linspace of integers, which PyTorch computes differently from one machine to the next")
    return g.op("linspace", start=start, stop=end, num=steps, dtype=dtype)


@imports("aten.eye.default", "aten.eye.m")
def eye(g: Importer, n: Dim, m: Dim | None = None, **options: Any) -> Value:
    return g.op("eye", rows=n, columns=n if m is None else m, dtype=g.result_dtype())


@imports("aten.tril.default")
def tril(g: Importer, self: Value, diagonal: Dim = 0) -> Value:
    return g.op("tril", self, k=diagonal)


@imports("aten.triu.default")
def triu(g: Importer, self: Value, diagonal: Dim = 0) -> Value:
    return g.op("triu", self, k=diagonal)


@imports("aten.tril_indices.default", "aten.triu_indices.default")
def triangle_indices(g: Importer, row: int, col: int, offset: int = 0, **options: Any) -> Value:
    if any(isinstance(item, Expr) for item in (row, col, offset)):
        raise g.refuse("the indices of a triangle whose size is free")
    op = g.schema.name.removeprefix("aten::")
    return g.op(op, rows=row, columns=col, k=offset, dtype=g.result_dtype())


RANDOM = (
    "rand.default", "rand.generator", "rand_like.default", "rand_like.generator", "randn.default",
    "randn.generator", "randn_like.default", "randn_like.generator", "randint.default", "randint.generator",
    "randint.low", "randint.low_generator", "randint_like.default", "randint_like.low_dtype", "randint_like.Tensor",
    "randperm.default", "randperm.generator", "bernoulli.default", "bernoulli.p", "bernoulli.Tensor",
    "normal.Tensor_float", "normal.float_Tensor", "normal.Tensor_Tensor", "normal.float_float",
    "normal_functional.default", "uniform.default", "exponential.default", "geometric.default",
    "log_normal.default", "cauchy.default", "poisson.default", "binomial.default", "multinomial.default",
    "_sample_dirichlet.default", "_standard_gamma.default", "random.default", "random.from", "random.to",
)


@imports(*(f"aten.{name}" for name in RANDOM))
def random(g: Importer, *arguments: Any, **options: Any) -> Value:
    raise g.refuse("random", "random")


# Rebuilding -------------------------------------------------------------------------------------------------------------


@rebuilds("full")
def rebuild_full(*, shape: tuple[int, ...], fill_value: Any, dtype: DType) -> torch.Tensor:
    return torch.full(shape, fill_value, dtype=TO_TORCH[dtype])


@rebuilds("arange")
def rebuild_arange(*, start: Any = 0, stop: Any, step: Any = 1, dtype: DType) -> torch.Tensor:
    return torch.arange(start, stop, step, dtype=TO_TORCH[dtype])


@rebuilds("linspace")
def rebuild_linspace(*, start: Any, stop: Any, num: int, dtype: DType) -> torch.Tensor:
    return torch.linspace(start, stop, num, dtype=TO_TORCH[dtype])


@rebuilds("eye")
def rebuild_eye(*, rows: int, columns: int, dtype: DType) -> torch.Tensor:
    return torch.eye(rows, columns, dtype=TO_TORCH[dtype])


@rebuilds("tril")
def rebuild_tril(x: torch.Tensor, *, k: int = 0) -> torch.Tensor:
    return torch.tril(x, k)


@rebuilds("triu")
def rebuild_triu(x: torch.Tensor, *, k: int = 0) -> torch.Tensor:
    return torch.triu(x, k)


@rebuilds("tril_indices")
def rebuild_tril_indices(*, rows: int, columns: int, k: int = 0, dtype: DType = DType.INT64) -> torch.Tensor:
    return torch.tril_indices(rows, columns, k, dtype=TO_TORCH[dtype])


@rebuilds("triu_indices")
def rebuild_triu_indices(*, rows: int, columns: int, k: int = 0, dtype: DType = DType.INT64) -> torch.Tensor:
    return torch.triu_indices(rows, columns, k, dtype=TO_TORCH[dtype])
