"""Floats that a module computes from sizes: `1 / math.sqrt(x.shape[-1])`.

A trace holds them as expressions over symbols. In the neutral graph they are computed in float64, as Python does; where
only a fixed number may stand, such as an operator's attribute, they are refused.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import TYPE_CHECKING, Any, NoReturn

from adapters.torch.dtypes import to_dim
from converter.builder import Value
from converter.errors import UnsupportedError
from converter.ir import DType

if TYPE_CHECKING:
    from adapters.torch.importer import Importer

FUNCTIONS = {"sqrt": "sqrt", "exp": "exp", "log": "log", "log2": "log2", "sin": "sin", "cos": "cos", "tan": "tan", "tanh": "tanh",
             "sinh": "sinh", "cosh": "cosh", "asin": "asin", "acos": "acos", "atan": "atan"}
FOLDS = {"Add": "add", "Mul": "multiply", "Max": "maximum", "Min": "minimum"}
QUOTIENTS = frozenset({"IntTrueDiv", "FloatTrueDiv"})
POWERS = frozenset({"Pow", "FloatPow", "PowByNatural"})


class SizeNumber:
    """A float that is an expression over sizes. It is no Python number: what takes it for one refuses."""

    __slots__ = ("expression",)

    def __init__(self, expression: Any) -> None:
        self.expression = expression

    def _refuse(self) -> NoReturn:
        raise UnsupportedError("a number computed from sizes stands where only a fixed one may", received=str(self.expression),
                               fix="fix the sizes it is computed from with dims=")

    def __float__(self) -> float:
        self._refuse()

    def __int__(self) -> int:
        self._refuse()

    def __bool__(self) -> bool:
        self._refuse()

    def __complex__(self) -> complex:
        self._refuse()


def emit(g: Importer, number: SizeNumber) -> Value:
    """The number as a float64 tensor without axes. Raises `UnsupportedError` for functions that have no counterpart here."""
    result = _value(g, number.expression)
    return result if isinstance(result, Value) else g.op("full", shape=(), fill_value=result, dtype=DType.FLOAT64)


def _value(g: Importer, expression: Any) -> Value | float:
    if expression.is_number:
        return float(expression)
    kind = type(expression).__name__
    if expression.is_Symbol or expression.is_integer or kind == "ToFloat":
        size = to_dim(expression.args[0] if kind == "ToFloat" else expression, g.symbols)
        return g.op("full", shape=(), fill_value=size, dtype=DType.FLOAT64)
    name = kind.removeprefix("OpaqueUnaryFn_")
    if kind in FOLDS or kind in QUOTIENTS or kind in POWERS or name in FUNCTIONS:
        parts = [_value(g, item) for item in expression.args]
        if kind in FOLDS:
            return reduce(_pair(g, FOLDS[kind]), parts)
        if kind in QUOTIENTS:
            return _pair(g, "divide")(*parts)
        if kind in POWERS:
            return g.op("sqrt", parts[0]) if parts[1] == 0.5 and isinstance(parts[0], Value) else _pair(g, "power")(*parts)
        return g.op(FUNCTIONS[name], g.tensor(parts[0], DType.FLOAT64))
    raise g.refuse(f"{name} of a number computed from sizes")


def _pair(g: Importer, operator: str) -> Callable[[Value | float, Value | float], Value]:
    def apply(x: Value | float, y: Value | float) -> Value:
        return g.op(operator, x if isinstance(y, Value) else g.tensor(x, DType.FLOAT64), y)

    return apply
