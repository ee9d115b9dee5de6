"""Comparison, logic, and tests for NaN and infinities."""

from __future__ import annotations

from collections.abc import Callable

import torch

from adapters.torch.dtypes import TO_TORCH, from_torch_dtype
from adapters.torch.ops.elementwise import Operand, binary
from adapters.torch.registry import imports, rebuilds
from adapters.torch.tracing.importer import Importer
from converter.builder import Value
from converter.ir import DType

COMPARISONS = {"equal": ("eq",), "not_equal": ("ne", "not_equal"), "less": ("lt", "less"), "less_equal": ("le", "less_equal"),
               "greater": ("gt", "greater"), "greater_equal": ("ge", "greater_equal")}


def _stand_in(value: Operand) -> object:
    """A meta tensor or a number that promotes as the operand does."""
    if isinstance(value, Value):
        return torch.empty((1,) * min(value.rank, 1), dtype=TO_TORCH[value.dtype], device="meta")
    return value if isinstance(value, (bool, int, float, complex)) else 1


def common_dtype(x: Operand, y: Operand) -> DType:
    """The dtype in which PyTorch compares two operands."""
    return from_torch_dtype(torch.result_type(_stand_in(x), _stand_in(y)))  # type: ignore[call-overload]


def _import_comparison(op: str, targets: tuple[str, ...]) -> None:
    @imports(*(f"aten.{target}.{overload}" for target in targets for overload in ("Tensor", "Scalar")))
    def importer(g: Importer, self: Value, other: Operand) -> Value:
        return binary(g, op, self, other, common_dtype(self, other))


for _op, _targets in COMPARISONS.items():
    _import_comparison(_op, _targets)


def truth(g: Importer, value: Value) -> Value:
    """What of a tensor is not zero."""
    return g.cast(value, DType.BOOL)


def _import_logic(op: str) -> None:
    @imports(f"aten.{op}.default")
    def importer(g: Importer, self: Value, other: Value) -> Value:
        return g.op(op, truth(g, self), truth(g, other))


for _op in ("logical_and", "logical_or", "logical_xor"):
    _import_logic(_op)


@imports("aten.logical_not.default")
def logical_not(g: Importer, self: Value) -> Value:
    return g.op("logical_not", truth(g, self))


def _import_test(op: str, of_integers: bool) -> None:
    @imports(f"aten.{op}.default")
    def importer(g: Importer, self: Value) -> Value:
        if self.dtype.is_float or self.dtype.is_complex:
            return g.op(op, self)
        return g.op("full", shape=self.shape, fill_value=of_integers, dtype=DType.BOOL)


_import_test("isnan", False)
_import_test("isinf", False)
_import_test("isfinite", True)


@imports("aten.isposinf.default")
def isposinf(g: Importer, self: Value) -> Value:
    return _infinite(g, self, float("inf"))


@imports("aten.isneginf.default")
def isneginf(g: Importer, self: Value) -> Value:
    return _infinite(g, self, float("-inf"))


def _infinite(g: Importer, x: Value, value: float) -> Value:
    if not x.dtype.is_float:
        return g.op("full", shape=x.shape, fill_value=False, dtype=DType.BOOL)
    return g.op("equal", x, value)


@imports("aten.isclose.default")
def isclose(g: Importer, self: Value, other: Value, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False) -> Value:
    """|x - y| ≤ atol + rtol · |y|, or x = y."""
    exact = not (self.dtype.is_float or self.dtype.is_complex)
    x, y = (g.cast(item, DType.FLOAT32) if exact else item for item in (self, other))
    near = g.op("less_equal", g.op("abs", g.op("subtract", x, y)), g.op("add", g.op("multiply", g.op("abs", y), rtol), atol))
    # An infinite y must not make every finite x close.
    near = g.op("logical_and", near, g.op("isfinite", y))
    close = g.op("logical_or", g.op("equal", self, other), near)
    if equal_nan and not exact:
        close = g.op("logical_or", close, g.op("logical_and", g.op("isnan", x), g.op("isnan", y)))
    return close


REBUILT: dict[str, Callable[..., torch.Tensor]] = {
    "equal": torch.eq, "not_equal": torch.ne, "less": torch.lt, "less_equal": torch.le, "greater": torch.gt,
    "greater_equal": torch.ge, "logical_and": torch.logical_and, "logical_or": torch.logical_or,
    "logical_xor": torch.logical_xor, "logical_not": torch.logical_not, "isnan": torch.isnan, "isinf": torch.isinf,
    "isfinite": torch.isfinite,
}
for _op, _function in REBUILT.items():
    rebuilds(_op)(_function)
