"""Sizes in C, and the most that they can be."""

from __future__ import annotations

from collections.abc import Mapping

from converter.dims import Dim, Expr
from converter.errors import UnsupportedError
from converter.size_writer import SizeWriter

Interval = tuple[int, int]


class CSizes(SizeWriter[str]):
    """Sizes as expressions of type `ptrdiff_t`; `names` has an identifier for each symbol, `used` the helpers that they call."""

    def __init__(self, names: Mapping[str, str]) -> None:
        super().__init__()
        self.names = names
        self.used: set[str] = set()

    def number(self, value: int) -> str:
        return str(value)

    def symbol(self, name: str) -> str:
        return self.names[name]

    def combine(self, function: str, left: str, right: str) -> str:
        if function in ("+", "-", "*"):
            return f"({left} {function} {right})"
        helper = {"//": "size_quotient", "%": "size_rest", "max": "size_max", "min": "size_min"}[function]
        self.used.add(helper)
        return f"{helper}({left}, {right})"


def interval(value: Dim, known: Mapping[str, Interval]) -> Interval:
    """The least and the most that a size can be where symbols lie in intervals. Raises `UnsupportedError` for an unknown symbol."""
    if not isinstance(value, Expr):
        return value, value
    low = high = 0
    for monomial, coefficient in value.terms.items():
        least = most = coefficient
        for atom, power in monomial:
            for _ in range(power):
                products = [a * b for a in (least, most) for b in _atom(atom, known)]
                least, most = min(products), max(products)
        low, high = low + least, high + most
    return low, high


def _atom(atom: tuple[object, ...], known: Mapping[str, Interval]) -> Interval:
    if atom[0] == "symbol":
        if atom[1] not in known:
            raise UnsupportedError(f"nothing says how large {atom[1]!r} may be", fix=f"give --max {atom[1]}=SIZE")
        return known[str(atom[1])]
    (a, b), (c, d) = (interval(item, known) for item in atom[1:])  # type: ignore[arg-type]
    if atom[0] == "max":
        return max(a, c), max(b, d)
    if atom[0] == "min":
        return min(a, c), min(b, d)
    divisors = [item for item in {c, d, *(item for item in (-1, 1) if c <= item <= d)} if item]
    if atom[0] == "//":
        quotients = [item // divisor for item in (a, b) for divisor in divisors] or [0]
        return min(quotients), max(quotients)
    return (min(0, c + 1), max(0, d - 1)) if a < 0 or c <= 0 else (0, min(b, d - 1))
