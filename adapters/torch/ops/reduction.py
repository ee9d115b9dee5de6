"""Reductions over axes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from adapters.torch.ops.complex_numbers import logsumexp
from adapters.torch.registry import imports, rebuilds
from adapters.torch.tracing.importer import Importer
from converter.builder import Value
from converter.ir import DType
from converter.ops.complex_numbers import COMPLEX_OF

Axes = Sequence[int] | int | None


def axes_of(dim: Axes, rank: int) -> tuple[int, ...] | None:
    """The `axis` attribute of a `dim` argument: None for all, as torch means by an empty list too."""
    if dim is None or isinstance(dim, (list, tuple)) and not dim:
        return None
    axes = (dim,) if isinstance(dim, int) else tuple(dim)
    # torch lets axis 0 or -1 name the one element of a tensor without axes.
    return None if rank == 0 else axes


def reduce(g: Importer, op: str, x: Value, dim: Axes, keepdim: bool, dtype: DType | None = None, **attributes: Any) -> Value:
    """One reduction, on `x` in `dtype`."""
    return g.op(op, g.cast(x, dtype), axis=axes_of(dim, x.rank), keepdims=keepdim if x.rank else False, **attributes)


# In the result's dtype: torch makes int64 of booleans and narrow integers, or whatever `dtype` says.
PLAIN = {
    "sum": ("sum.default", "sum.dim_IntList"), "mean": ("mean.default", "mean.dim"), "prod": ("prod.default", "prod.dim_int"),
    "max": ("max.default", "amax.default"), "min": ("min.default", "amin.default"),
    "logsumexp": ("logsumexp.default", "special_logsumexp.default"),
}
for _op, _targets in PLAIN.items():

    def _importer(g: Importer, self: Value, dim: Axes = None, keepdim: bool = False, *, dtype: Any = None, _op: str = _op) -> Value:
        if _op == "logsumexp" and self.dtype.is_complex:
            return logsumexp(g, self, axes_of(dim, self.rank), keepdim and self.rank > 0)
        return reduce(g, _op, self, dim, keepdim, g.result_dtype())

    imports(*(f"aten.{target}" for target in _targets))(_importer)


@imports("aten.any.default", "aten.any.dim", "aten.any.dims", "aten.all.default", "aten.all.dim", "aten.all.dims")
def any_or_all(g: Importer, self: Value, dim: Axes = None, keepdim: bool = False) -> Value:
    op = g.schema.name.removeprefix("aten::")
    if dim == [] and self.rank:
        # Unlike everywhere else, no axes.
        return g.cast(g.cast(self, DType.BOOL), g.result_dtype())
    return g.cast(reduce(g, op, self, dim, keepdim, DType.BOOL), g.result_dtype())


@imports("aten.argmax.default", "aten.argmin.default")
def position(g: Importer, self: Value, dim: int | None = None, keepdim: bool = False) -> Value:
    op = g.schema.name.removeprefix("aten::")
    return _position(g, op, self, dim, keepdim)


def _position(g: Importer, op: str, x: Value, dim: int | None, keepdim: bool) -> Value:
    return g.op(op, x, axis=dim if x.rank else None, keepdims=keepdim if x.rank else False)


@imports("aten.max.dim", "aten.min.dim")
def extreme_with_position(g: Importer, self: Value, dim: int, keepdim: bool = False) -> tuple[Value, Value]:
    op = g.schema.name.removeprefix("aten::")
    return reduce(g, op, self, dim, keepdim), _position(g, f"arg{op}", self, dim, keepdim)


@imports("aten.aminmax.default")
def aminmax(g: Importer, self: Value, *, dim: int | None = None, keepdim: bool = False) -> tuple[Value, Value]:
    return reduce(g, "min", self, dim, keepdim), reduce(g, "max", self, dim, keepdim)


def _spread(g: Importer, op: str, x: Value, arguments: tuple[Any, ...], options: dict[str, Any]) -> Value:
    """var and std in all three forms: (unbiased), (dim, unbiased, keepdim), (dim, *, correction, keepdim)."""
    dim, keepdim, correction = None, bool(options.get("keepdim", False)), options.get("correction")
    correction = 1.0 if correction is None else correction
    overload = g.schema.overload_name
    if not overload:
        unbiased = arguments[0] if arguments else options.get("unbiased", True)
        correction = 1.0 if unbiased else 0.0
    else:
        dim = arguments[0] if arguments else options.get("dim")
        if overload == "dim":
            unbiased = arguments[1] if len(arguments) > 1 else options.get("unbiased", True)
            keepdim = arguments[2] if len(arguments) > 2 else keepdim
            correction = 1.0 if unbiased else 0.0
    if isinstance(correction, Value) or not isinstance(correction, (int, float)):
        raise g.refuse("a correction that is no number")
    if op == "mean":
        return reduce(g, "mean", x, dim, keepdim)
    return reduce(g, op, x, dim, keepdim, correction=float(correction))


@imports("aten.var.default", "aten.var.dim", "aten.var.correction")
def var(g: Importer, self: Value, *arguments: Any, **options: Any) -> Value:
    return _spread(g, "var", self, arguments, options)


@imports("aten.std.default", "aten.std.dim", "aten.std.correction")
def std(g: Importer, self: Value, *arguments: Any, **options: Any) -> Value:
    return _spread(g, "std", self, arguments, options)


@imports("aten.var_mean.default", "aten.var_mean.dim", "aten.var_mean.correction")
def var_mean(g: Importer, self: Value, *arguments: Any, **options: Any) -> tuple[Value, Value]:
    return _spread(g, "var", self, arguments, options), _spread(g, "mean", self, arguments, options)


@imports("aten.std_mean.default", "aten.std_mean.dim", "aten.std_mean.correction")
def std_mean(g: Importer, self: Value, *arguments: Any, **options: Any) -> tuple[Value, Value]:
    return _spread(g, "std", self, arguments, options), _spread(g, "mean", self, arguments, options)


@imports("aten.linalg_vector_norm.default")
def vector_norm(g: Importer, self: Value, ord: float = 2, dim: Axes = None, keepdim: bool = False, *, dtype: Any = None) -> Value:
    x = g.cast(self, dtype) if dtype is not None else self
    return reduce(g, "vector_norm", x, dim, keepdim, ord=float(ord))


@imports("aten.norm.Scalar", "aten.norm.ScalarOpt_dim", "aten.norm.ScalarOpt_dim_dtype", "aten.norm.ScalarOpt_dtype")
def norm(g: Importer, self: Value, p: float | None = 2, dim: Axes = None, keepdim: bool = False, *, dtype: Any = None) -> Value:
    return vector_norm(g, self, 2 if p is None else p, dim, keepdim, dtype=dtype)


@imports("aten.frobenius_norm.dim")
def frobenius_norm(g: Importer, self: Value, dim: Axes, keepdim: bool = False) -> Value:
    return vector_norm(g, self, 2, dim, keepdim)


def operands_dtype(g: Importer, x: Value, y: Value) -> DType:
    """The dtype in which operands of a norm meet: the result's, and the complex one of its width where either is complex."""
    dtype = g.result_dtype()
    return COMPLEX_OF.get(dtype, dtype) if x.dtype.is_complex or y.dtype.is_complex else dtype


@imports("aten.dist.default")
def dist(g: Importer, self: Value, other: Value, p: float = 2) -> Value:
    dtype = operands_dtype(g, self, other)
    return g.op("vector_norm", g.op("subtract", g.cast(self, dtype), g.cast(other, dtype)), ord=float(p))


@imports("aten.count_nonzero.default", "aten.count_nonzero.dim_IntList")
def count_nonzero(g: Importer, self: Value, dim: Axes = None) -> Value:
    return reduce(g, "count_nonzero", self, dim, False)


def _without_nan(g: Importer, x: Value) -> Value:
    return g.op("where", g.op("isnan", x), g.tensor(0.0, x.dtype), x) if x.dtype.is_float else x


@imports("aten.nansum.default")
def nansum(g: Importer, self: Value, dim: Axes = None, keepdim: bool = False, *, dtype: Any = None) -> Value:
    return reduce(g, "sum", _without_nan(g, self), dim, keepdim, g.result_dtype())


@imports("aten.nanmean.default")
def nanmean(g: Importer, self: Value, dim: Axes = None, keepdim: bool = False, *, dtype: Any = None) -> Value:
    result = g.result_dtype()
    present = g.op("logical_not", g.op("isnan", self))
    count = reduce(g, "sum", present, dim, keepdim, result)
    return g.op("divide", reduce(g, "sum", _without_nan(g, self), dim, keepdim, result), count)


@imports("aten.median.default", "aten.nanmedian.default")
def median(g: Importer, self: Value) -> Value:
    flat = self if self.rank == 1 else g.op("reshape", self, shape=(_size(self),))
    return g.op("median", flat, axis=0, ignore_nan="nan" in g.schema.name)


def _size(x: Value) -> Any:
    from converter.dims import product

    return product(x.shape)


@imports("aten.median.dim", "aten.nanmedian.dim")
def median_along(g: Importer, self: Value, dim: int, keepdim: bool = False) -> tuple[Value, Value]:
    if self.rank == 0:
        return self, g.op("full", shape=(), fill_value=0, dtype=DType.INT64)
    values, indices = g.add("median", self, axis=dim, keepdims=keepdim,
                            ignore_nan="nan" in g.schema.name)
    return values, indices


# Rebuilding -------------------------------------------------------------------------------------------------------------


def _all(x: torch.Tensor, axis: tuple[int, ...] | None) -> tuple[int, ...]:
    return tuple(range(x.dim())) if axis is None else axis


REBUILT = {"sum": torch.sum, "mean": torch.mean, "max": torch.amax, "min": torch.amin, "any": torch.any, "all": torch.all,
           "logsumexp": torch.logsumexp}


def _rebuild_reduction(op: str, function: Any) -> None:
    @rebuilds(op)
    def rebuilt(x: torch.Tensor, *, axis: tuple[int, ...] | None = None, keepdims: bool = False) -> torch.Tensor:
        axes = _all(x, axis)
        options = {"dtype": x.dtype} if op == "sum" else {}
        return x if not axes else function(x, axes, keepdims, **options)


for _op, _function in REBUILT.items():
    _rebuild_reduction(_op, _function)


@rebuilds("prod")
def rebuild_prod(x: torch.Tensor, *, axis: tuple[int, ...] | None = None, keepdims: bool = False) -> torch.Tensor:
    for place in sorted((item % x.dim() for item in _all(x, axis)), reverse=True):
        x = torch.prod(x, place, keepdims, dtype=x.dtype)
    return x


for _op, _function in {"argmax": torch.argmax, "argmin": torch.argmin}.items():

    def _rebuilt(x: torch.Tensor, *, axis: int | None = None, keepdims: bool = False, _function: Any = _function) -> torch.Tensor:
        return _function(x.to(torch.uint8) if x.dtype is torch.bool else x, axis, keepdims)

    rebuilds(_op)(_rebuilt)


@rebuilds("count_nonzero")
def rebuild_count_nonzero(x: torch.Tensor, *, axis: tuple[int, ...] | None = None, keepdims: bool = False) -> torch.Tensor:
    return (x != 0).sum(_all(x, axis), keepdims) if x.dim() else (x != 0).long()


@rebuilds("var")
def rebuild_var(x: torch.Tensor, *, axis: tuple[int, ...] | None = None, keepdims: bool = False, correction: float = 0.0) -> torch.Tensor:
    return torch.var(x, _all(x, axis), correction=correction, keepdim=keepdims)


@rebuilds("std")
def rebuild_std(x: torch.Tensor, *, axis: tuple[int, ...] | None = None, keepdims: bool = False, correction: float = 0.0) -> torch.Tensor:
    return torch.std(x, _all(x, axis), correction=correction, keepdim=keepdims)


@rebuilds("vector_norm")
def rebuild_vector_norm(x: torch.Tensor, *, axis: tuple[int, ...] | None = None, keepdims: bool = False, ord: float = 2.0) -> torch.Tensor:
    return torch.linalg.vector_norm(x, ord, _all(x, axis), keepdims)


@rebuilds("median")
def rebuild_median(x: torch.Tensor, *, axis: int, keepdims: bool = False, ignore_nan: bool = False) -> Any:
    values, places = (torch.nanmedian if ignore_nan else torch.median)(x, axis, keepdims)
    if not x.dim():
        return values, places
    # torch promises no order of equal elements.
    wanted = values if keepdims else values.unsqueeze(axis)
    return values, ((x == wanted) | (x != x) & (wanted != wanted)).to(torch.uint8).argmax(axis, keepdims)
