"""A normal form for quotients and remainders of sizes by integers, and torch's own expressions brought to it while it traces.

An image that is padded to whole windows of 7 has `h + (7 - h % 7) % 7` rows, which is `7 * ((h + 6) // 7)`. In the first
form torch's expressions grow with every layer, and its general simplification takes minutes; in the second they stay small.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import sympy
from torch.utils._sympy.functions import FloorDiv, Max, Min, Mod, PythonMod

from adapters.torch.patches.exchanging import exchanged
from converter import dims
from converter.dims import Dim, Expr
from converter.errors import ConverterError
from converter.size_writer import SizeWriter

_FUNCTIONS: Mapping[str, Any] = {"+": sympy.Add, "-": operator.sub, "*": sympy.Mul, "//": FloorDiv, "%": PythonMod, "max": Max, "min": Min}
_INNER = (FloorDiv, Mod, PythonMod)


def floor_divide(left: Dim, right: Dim) -> Dim:
    """`left // right`; by a positive integer, the same size for all ways to write it that shift, scale or negate `left`."""
    if not isinstance(left, Expr) or not isinstance(right, int) or right < 2:
        return dims.floor_divide(left, right)
    constant = left.terms.get((), 0)
    whole = {monomial: count // right for monomial, count in left.terms.items() if monomial and count % right == 0}
    rest = {monomial: count for monomial, count in left.terms.items() if monomial and count % right}
    shared = math.gcd(right, *rest.values())
    beyond = _size({**whole, (): constant // right})
    if not rest or shared == right:
        return beyond
    # floor((s*A + c) / (s*b)) = floor((A + floor(c / s)) / b)
    inner, under = _size({**{m: c // shared for m, c in rest.items()}, (): constant % right // shared}), right // shared
    if max(rest.items(), key=lambda item: (sum(power for _, power in item[0]), str(item[0])))[1] < 0:
        return beyond - floor_divide(under - 1 - inner, under)
    return beyond + dims.floor_divide(inner, under)


def remainder(left: Dim, right: Dim) -> Dim:
    """`left % right`; by a positive integer without a remainder in it: `left - right * (left // right)`."""
    if not isinstance(left, Expr) or not isinstance(right, int) or right < 2:
        return dims.remainder(left, right)
    return left - right * floor_divide(left, right)


def _size(terms: dict[Any, int]) -> Dim:
    total: Dim = terms.get((), 0)
    kept = {monomial: count for monomial, count in terms.items() if monomial and count}
    return total + Expr(kept) if kept else total


def expression(value: Dim, symbols: Mapping[str, Any]) -> Any:
    """A size in torch's own terms. `symbols` has its symbols by name."""
    return _Sympy(symbols).size(value)


class _Sympy(SizeWriter[Any]):
    def __init__(self, symbols: Mapping[str, Any]) -> None:
        super().__init__()
        self.symbols = symbols

    def number(self, value: int) -> Any:
        return sympy.Integer(value)

    def symbol(self, name: str) -> Any:
        return self.symbols[name]

    def combine(self, function: str, left: Any, right: Any) -> Any:
        return _FUNCTIONS[function](left, right)


@contextmanager
def small_quotients() -> Iterator[None]:
    """While active, torch brings quotients and remainders of what holds such already to the normal form."""
    normal = ((FloorDiv, _floor), (Mod, _mod), (PythonMod, _mod))
    with exchanged(*((kind, "eval", classmethod(_quick(kind.__dict__["eval"].__func__, function))) for kind, function in normal)):
        yield


def _quick(original: Callable[..., Any], normal: Callable[[Any, int], Any]) -> Callable[..., Any]:
    def evaluated(cls: Any, left: Any, right: Any) -> Any:
        if getattr(right, "is_Integer", False) and right > 1 and left.has(*_INNER):
            try:
                found = normal(left, int(right))
            except (ConverterError, KeyError, RecursionError):
                found = None
            if found is not None:
                return found
        return original(cls, left, right)

    return evaluated


def _floor(left: Any, right: int) -> Any:
    """The quotient in its normal form, or None where `left // right` is that already."""
    over = _dim(left)
    value = floor_divide(over, right)
    if isinstance(value, Expr) and len(value.terms) == 1:
        (monomial, coefficient), = value.terms.items()
        if coefficient == 1 and monomial == ((("//", over, right), 1),):
            return None
    return expression(value, _symbols(left))


def _mod(left: Any, right: int) -> Any:
    """The remainder of a smaller expression, with no multiples of `right`, or None where there is none."""
    over = _dim(left)
    if isinstance(over, int):
        return sympy.Integer(over % right)
    rest = _size({monomial: count % right if not monomial else count for monomial, count in over.terms.items() if count % right})
    return None if rest == over else PythonMod(expression(rest, _symbols(left)), sympy.Integer(right))


def _dim(value: Any) -> Dim:
    from adapters.torch.dtypes import to_dim

    return to_dim(value)


def _symbols(value: Any) -> dict[str, Any]:
    return {str(item): item for item in value.free_symbols}
