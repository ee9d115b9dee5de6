"""Conditions on sizes as torch's expressions and as a graph's: from one to the other, tested at sizes, and sizes at which they fail."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import reduce
from typing import Any

import sympy

from adapters.torch.dtypes import to_dim
from converter.conditions import Condition, compare
from converter.dims import Dim, maximum, minimum
from converter.errors import ConverterError
from converter.ir import DimRange

RELATIONS = {sympy.Eq: "==", sympy.Ne: "!=", sympy.Ge: ">=", sympy.Gt: ">", sympy.Le: "<=", sympy.Lt: "<"}
SMALL = (1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 16, 17, 24, 31, 32, 33, 47, 48, 64, 100)
FEW = {1: 24, 2: 14, 3: 9, 4: 5}
DRAWS = 500
"""Sizes drawn at random for conditions on several."""
MOST = 6
"""Of so many symbols, this many sizes each are combined; of at most `MOST` symbols."""


def plain(condition: Any) -> Any:
    """A condition without the comparisons of a minimum or maximum with one of what it is of: `Min(a, b) == a` is `a <= b`."""
    if isinstance(condition, (sympy.And, sympy.Or)):
        return condition.func(*map(plain, condition.args))
    if not isinstance(condition, (sympy.Eq, sympy.Ne)):
        return condition
    for extreme, other in (condition.args, condition.args[::-1]):
        kind = type(extreme).__name__
        if kind in ("Min", "Max") and other in extreme.args:
            comparison = sympy.Le if kind == "Min" else sympy.Ge
            found = sympy.And(*(comparison(other, item) for item in extreme.args if item != other))
            return found if isinstance(condition, sympy.Eq) else sympy.Not(found)
    left, right = condition.args
    common = sympy.gcd(left, right) if left.is_Mul and right.is_Mul else sympy.Integer(1)
    if common != 1 and all(item.is_positive for item in common.free_symbols):
        divided = condition.func(sympy.cancel(left / common), sympy.cancel(right / common))
        return divided if divided in (sympy.true, sympy.false) else plain(divided)
    return condition


def requirements(condition: Any) -> list[Condition] | None:
    """A condition of torch's, over a graph's sizes, as conditions that a graph can require; None where its sizes cannot say it."""
    try:
        if isinstance(condition, sympy.And):
            parts = [requirements(part) for part in condition.args]
            return None if None in parts else [item for part in parts for item in part or ()]
        if type(condition) in RELATIONS:
            left, right = map(to_dim, condition.args)
            return _kept(compare(left, RELATIONS[type(condition)], right))
        return _kept(compare(_measure(condition), ">=", 0))
    except (ConverterError, KeyError):
        return None


def _kept(found: Condition | bool) -> list[Condition] | None:
    if isinstance(found, Condition):
        return [found]
    return [] if found else None


def _measure(condition: Any) -> Dim:
    """A size that is 0 or more exactly where a condition holds. Raises `KeyError` for what is no condition on sizes."""
    if isinstance(condition, sympy.Or):
        return reduce(maximum, map(_measure, condition.args))
    if isinstance(condition, sympy.And):
        return reduce(minimum, map(_measure, condition.args))
    if isinstance(condition, sympy.Not):
        return -1 - _measure(condition.args[0])
    relation = RELATIONS[type(condition)]
    left, right = map(to_dim, condition.args)
    more = left - right
    return {"==": lambda: minimum(more, 0 - more), "!=": lambda: maximum(more - 1, -1 - more), ">=": lambda: more, ">": lambda: more - 1,
            "<=": lambda: 0 - more, "<": lambda: -1 - more}[relation]()


_FUNCTIONS = {
    "FloorDiv": lambda a, b: a // b, "CleanDiv": lambda a, b: a // b, "Mod": lambda a, b: a % b, "PythonMod": lambda a, b: a % b,
    "Max": max, "Min": min, "IntTrueDiv": lambda a, b: a / b, "FloatTrueDiv": lambda a, b: a / b, "ToFloat": float,
    "CeilToInt": lambda a: -int(-a // 1), "FloorToInt": lambda a: int(a // 1), "TruncToInt": int, "PowByNatural": pow,
    "RoundToInt": round,
    "Identity": lambda a: a,
    "ModularIndexing": lambda a, b, c: a // b % c,
}


def tester(condition: Any) -> Callable[[Mapping[str, int]], bool]:
    """A function that says whether a condition holds at sizes; where it cannot be computed it does not."""
    symbols = sorted(condition.free_symbols, key=str)
    try:
        function = sympy.lambdify(symbols, condition, modules=[_FUNCTIONS, "math"])
    except Exception:  # sympy prints what it can into code
        function = None

    def holds(sizes: Mapping[str, int]) -> bool:
        try:
            values = [sizes[str(item)] for item in symbols]
            if function is None:
                return condition.subs(dict(zip(symbols, values, strict=True))) is sympy.true
            return bool(function(*values))
        except Exception:  # a division by zero, or a function that only sympy knows
            return False

    return holds


def probes(condition: Any, ranges: Mapping[str, DimRange], traced: Mapping[str, int]) -> Iterator[dict[str, int]]:
    """Sizes in the ranges to test a condition at, small ones first: combinations of the least sizes, of those around the traced ones
    and of those around the condition's constants; one size alone is taken further."""
    names = sorted(str(item) for item in condition.free_symbols)
    constants = sorted({abs(int(item)) for item in condition.atoms(sympy.Integer)} - {0, 1})[:12]
    products = sorted({a * b for a in (1, *constants) for b in (1, *constants) if a * b < 1 << 20})
    spans = [ranges.get(name, DimRange()) for name in names]
    few = FEW.get(len(names), 3)
    near = [[size for size in _sizes(span, traced[name], constants) if size in span][:few] for name, span in zip(names, spans, strict=True)]
    seen: set[tuple[int, ...]] = set()
    for sizes in sorted(itertools.product(*near[:MOST]), key=sum):
        full = (*sizes, *(traced[name] for name in names[len(sizes):]))
        seen.add(full)
        yield dict(zip(names, full, strict=True))
    draw = random.Random(0)
    for _ in range(DRAWS if len(names) > 1 else 0):
        drawn = tuple(span.nearest(span.min + int(2 ** draw.uniform(0, draw.choice((4, 7, 12)))) - 1) for span in spans)
        if drawn not in seen and all(size in span for size, span in zip(drawn, spans, strict=True)):
            seen.add(drawn)
            yield dict(zip(names, drawn, strict=True))
    for index, (name, span) in enumerate(zip(names, spans, strict=True)):
        for size in sorted({value + more for value in (*products, traced[name]) for more in (-1, 0, 1)} | set(SMALL)):
            full = tuple(size if place == index else traced[other] for place, other in enumerate(names))
            if size in span and full not in seen:
                seen.add(full)
                yield dict(zip(names, full, strict=True))


def _sizes(span: DimRange, traced: int, constants: Iterable[int]) -> list[int]:
    """Sizes of one symbol, those first that tell most: the least ones, some around the traced one, then by constants further on."""
    least = span.min
    first = [least + span.step * count for count in range(3)] + [traced, traced + span.step, traced - span.step]
    further = [least + value for value in constants] + [2 * traced, least + 3 * span.step, least + 4 * span.step]
    return [size for size in dict.fromkeys((*first, *further)) if size > 0]


def fails_seldom(condition: Any) -> bool:
    """Whether a condition says that sizes differ, which fails at so few sizes that to test some shows nothing."""
    return bool(condition.atoms(sympy.Ne)) or any(item.args[0].atoms(sympy.Eq) for item in condition.atoms(sympy.Not))


def failing(condition: Any, ranges: Mapping[str, DimRange], traced: Mapping[str, int], others: Iterable[Any] = ()) -> list[dict[str, int]]:
    """Sizes in the ranges at which a condition fails and the others hold, small ones first."""
    holds, rest = tester(condition), [(item, tester(item)) for item in others]
    found = []
    for sizes in probes(condition, ranges, traced):
        if not holds(sizes) and all(test({**traced, **sizes}) for _, test in rest):
            found.append(sizes)
    return found
