"""Numbers that a module computes from sizes, and numbers that it reads from tensors: `1 / math.sqrt(x.shape[-1])`, `lengths.max().item()`.

A trace holds them as expressions over symbols. Where an operand may stand, the neutral graph computes them: integers in
int64, floats in float64, as Python does. Where a size stands, one that size expressions cannot say is a new symbol, to
which `size_of` gives the computed value. Where only a fixed number may stand, such as an operator's attribute, they are
refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NoReturn

import sympy
import torch
from torch.utils._sympy.numbers import int_oo
from torch.utils._sympy.value_ranges import ValueRanges, bound_sympy

from adapters.torch.dtypes import to_dim
from converter.builder import Value
from converter.dims import Dim, maximum, minimum, symbol
from converter.errors import UnsupportedError
from converter.ir import DimRange, DType
from converter.ops.conversion import LARGEST

if TYPE_CHECKING:
    from adapters.torch.tracing.importer import Importer

Number = Value | bool | int | float

FLOATS = {"sqrt": "sqrt", "exp": "exp", "log": "log", "log2": "log2", "sin": "sin", "cos": "cos", "tan": "tan", "tanh": "tanh",
          "sinh": "sinh", "cosh": "cosh", "asin": "asin", "acos": "acos", "atan": "atan"}
"""Functions of one float."""

ROUNDINGS = {"TruncToInt": "trunc", "FloorToInt": "floor", "CeilToInt": "ceil", "RoundToInt": "round", "floor": "floor", "ceiling": "ceil"}
"""Functions from a float to an integer."""

FOLDS = {"Add": "add", "Mul": "multiply", "Max": "maximum", "Min": "minimum", "FloorDiv": "floor_divide", "CleanDiv": "floor_divide",
         "Mod": "remainder", "PythonMod": "remainder", "And": "logical_and", "Or": "logical_or"}
QUOTIENTS = frozenset({"IntTrueDiv", "FloatTrueDiv"})
POWERS = frozenset({"Pow", "FloatPow", "PowByNatural"})
COMPARISONS = {"StrictGreaterThan": "greater", "GreaterThan": "greater_equal", "StrictLessThan": "less", "LessThan": "less_equal",
               "Equality": "equal", "Unequality": "not_equal"}


class SizeNumber:
    """A number or a truth value that is an expression over sizes. It is no Python number: what takes it for one refuses."""

    __slots__ = ("expression",)

    def __init__(self, expression: Any) -> None:
        self.expression = expression

    def _refuse(self) -> NoReturn:
        raise UnsupportedError("a number computed from sizes or read from a tensor stands where only a fixed one may",
                               received=str(self.expression), fix="fix the sizes it is computed from with dims=")

    def __float__(self) -> float:
        self._refuse()

    def __int__(self) -> int:
        self._refuse()

    def __index__(self) -> int:
        self._refuse()

    def __bool__(self) -> bool:
        self._refuse()

    def __complex__(self) -> complex:
        self._refuse()


# Values --------------------------------------------------------------------------------------------------------------------


def emit(g: Importer, number: SizeNumber) -> Value:
    """The number as a tensor without axes: int64, float64 or bool. Raises `UnsupportedError` for functions without a counterpart."""
    return _tensor(g, _value(g, number.expression))


def _tensor(g: Importer, number: Number, dtype: DType | None = None) -> Value:
    own = _dtype(number)
    if isinstance(number, Value):
        return g.cast(number, dtype or own)
    return g.tensor(number, dtype or own)


def _dtype(number: Number) -> DType:
    if isinstance(number, Value):
        return number.dtype
    return DType.BOOL if isinstance(number, bool) else DType.INT64 if isinstance(number, int) else DType.FLOAT64


def _value(g: Importer, expression: Any) -> Number:
    if expression in (sympy.true, sympy.false):
        return bool(expression)
    if expression.is_number:
        return int(expression) if expression.is_Integer else float(expression)
    kind = type(expression).__name__.removeprefix("OpaqueUnaryFn_")
    if expression.is_Symbol and str(expression) in g.numbers:
        value = g.numbers[str(expression)]
        return g.cast(value, DType.FLOAT64 if value.dtype.is_float else DType.INT64)
    if expression.is_Symbol or expression.is_integer and not any(str(item) in g.numbers for item in expression.free_symbols):
        size = _plain_size(g, expression)
        if size is not None:
            return g.op("full", shape=(), fill_value=size, dtype=DType.INT64)
    if kind == "ToFloat":
        inner = expression.args[0]
        size = None if any(str(item) in g.numbers for item in inner.free_symbols) else _plain_size(g, inner)
        if size is not None:
            return g.op("full", shape=(), fill_value=size, dtype=DType.FLOAT64)
        return _tensor(g, _value(g, inner), DType.FLOAT64)
    if kind == "Piecewise":
        return _chosen(g, expression.args)
    parts = [_value(g, item) for item in expression.args]
    if kind == "Identity":
        return parts[0]
    if kind == "Not":
        return g.op("logical_not", _tensor(g, parts[0]))
    if kind in ROUNDINGS:
        return g.op("astype", g.op(ROUNDINGS[kind], _tensor(g, parts[0], DType.FLOAT64)), dtype=DType.INT64)
    if kind in FLOATS:
        return g.op(FLOATS[kind], _tensor(g, parts[0], DType.FLOAT64))
    if kind in FOLDS:
        result = parts[0]
        for item in parts[1:]:
            result = _pair(g, FOLDS[kind], result, item)
        return result
    if kind in QUOTIENTS:
        return _pair(g, "divide", parts[0], parts[1], DType.FLOAT64)
    if kind in COMPARISONS:
        return _pair(g, COMPARISONS[kind], parts[0], parts[1])
    if kind in POWERS:
        return g.op("sqrt", _tensor(g, parts[0], DType.FLOAT64)) if parts[1] == 0.5 else _pair(g, "power", parts[0], parts[1])
    raise g.refuse(f"{kind} of a number computed from sizes")


def _pair(g: Importer, operator: str, x: Number, y: Number, dtype: DType | None = None) -> Value:
    """An operator of two numbers in the wider dtype; a number that is known stays a literal on the right."""
    kinds = {_dtype(x), _dtype(y)}
    dtype = dtype or next((item for item in (DType.FLOAT64, DType.INT64) if item in kinds), DType.BOOL)
    left = _tensor(g, x, dtype)
    return g.op(operator, left, _tensor(g, y, dtype) if isinstance(y, Value) or dtype is DType.BOOL else g.operand(y, dtype))


def _chosen(g: Importer, pieces: Any) -> Number:
    """A value by cases, the first that holds."""
    (value, condition), *rest = pieces
    if condition is sympy.true:
        return _value(g, value)
    if not rest:
        raise g.refuse("a number that has no value at some sizes")
    first, other = _value(g, value), _chosen(g, rest)
    kinds = {_dtype(first), _dtype(other)}
    dtype = next((item for item in (DType.FLOAT64, DType.INT64) if item in kinds), DType.BOOL)
    return g.op("where", _tensor(g, _value(g, condition), DType.BOOL), _tensor(g, first, dtype), _tensor(g, other, dtype))


def _plain_size(g: Importer, expression: Any) -> Dim | None:
    """The expression as a size, None where size expressions cannot say it."""
    try:
        return to_dim(expression, dict(g.symbols))
    except UnsupportedError:
        return None


# Sizes ---------------------------------------------------------------------------------------------------------------------


class Symbols(Mapping[str, "str | Dim"]):
    """What torch's symbols are in the neutral graph. A number read from a tensor becomes a size where it is first looked up."""

    def __init__(self, g: Importer, known: Mapping[str, str | Dim]) -> None:
        self._g, self._known = g, known
        self._own: dict[str, str | Dim] = {}
        self._computed: dict[Any, Dim] = {}

    def __getitem__(self, name: str) -> str | Dim:
        if name not in self._own and name in self._g.numbers:
            self._own[name] = self._defined(self._g.cast(self._g.numbers[name], DType.INT64), *self._bounds(name), name)
        return self._own[name] if name in self._own else self._known[name]

    def __setitem__(self, name: str, size: Dim) -> None:
        self._own[name] = size

    def __iter__(self) -> Iterator[str]:
        return iter({**dict.fromkeys(self._known), **self._own})

    def __len__(self) -> int:
        return len(set(self._known) | set(self._own))

    def __contains__(self, name: object) -> bool:
        return name in self._own or name in self._g.numbers or name in self._known

    def computed(self, expression: Any) -> Dim:
        """The size that an expression is which size expressions cannot say."""
        if expression not in self._computed:
            ranges = {item: ValueRanges(1 if str(item) in self._known else -LARGEST, int_oo) for item in expression.free_symbols}
            try:
                least = bound_sympy(expression, ranges).lower
                low = max(int(least), -LARGEST)
            except (TypeError, ValueError, AssertionError, NotImplementedError, OverflowError, AttributeError, KeyError):
                low = -LARGEST
            value = self._g.cast(emit(self._g, SizeNumber(expression)), DType.INT64)
            self._computed[expression] = self._defined(value, min(low, 0), LARGEST, "n")
        return self._computed[expression]

    def _defined(self, value: Value, least: Dim, most: Dim, stem: str) -> Dim:
        """A new symbol for a value; one that lies outside the bounds is refused where the model runs."""
        builder = self._g.builder
        taken, count, name = self._taken(), 0, stem
        while name in taken:
            count += 1
            name = f"{stem}_{count}"
        builder.dims[name] = DimRange(least if isinstance(least, int) else -LARGEST, most if isinstance(most, int) else LARGEST)
        bounds: dict[str, Any] = {key: bound for key, bound, usual in (("least", least, 0), ("most", most, LARGEST)) if bound != usual}
        scalar = value if value.rank == 0 else self._g.op("reshape", value, shape=())
        self._g.op("size_of", scalar, size=symbol(name), **bounds)
        return symbol(name)

    def _taken(self) -> set[str]:
        """The names of sizes that something binds already."""
        from converter.opset import lookup

        builder = self._g.builder
        inputs = {size.symbol for port in builder._inputs for size in port.spec.shape if not isinstance(size, int)}
        binds = [(node, attribute) for node in builder._nodes for attribute in lookup(node.op).binds if attribute in node.attributes]
        return {name for name in inputs if name is not None} | {node.attributes[attribute].symbol for node, attribute in binds}

    def _bounds(self, name: str) -> tuple[Dim, Dim]:
        """The least and the greatest value of a number that the trace's own checks allow, as far as they bound it alone."""
        span = self._g.builder.dims.get(name, DimRange(-LARGEST))
        least: Dim = max(span.min, -LARGEST)
        most: Dim = LARGEST if span.max is None else min(span.max, LARGEST)
        for condition in self._g.checked:
            own = next((item for item in condition.free_symbols if str(item) == name), None)
            if own is None or any(str(item) not in self._own and str(item) not in self._known for item in condition.free_symbols - {own}):
                continue
            difference = sympy.expand(condition.lhs - condition.rhs)
            factor = difference.coeff(own)
            if factor not in (1, -1) or own in (difference - factor * own).free_symbols:
                continue
            kind = type(condition).__name__
            bound = to_dim(-factor * (difference - factor * own), self)
            upper = kind == "Equality" or (kind in ("LessThan", "StrictLessThan")) == (factor == 1)
            strict = kind.startswith("Strict")
            if upper:
                most = minimum(most, bound - 1 if strict else bound)
            if not upper or kind == "Equality":
                least = maximum(least, bound + 1 if strict else bound)
        return least, most


def checked_conditions(graph: torch.fx.Graph) -> list[Any]:
    """What a trace's own checks hold numbers to, as comparisons."""
    from adapters.torch.tracing.importer import CHECKS, target_name

    found = []
    for node in graph.nodes:
        given = node.args[0] if node.op == "call_function" and target_name(node.target) in CHECKS and node.args else None
        value = given.meta.get("val") if isinstance(given, torch.fx.Node) else None
        if isinstance(value, torch.SymBool) and type(value.node.expr).__name__ in COMPARISONS and not isinstance(value.node.expr, sympy.Ne):
            found.append(value.node.expr)
    return found
