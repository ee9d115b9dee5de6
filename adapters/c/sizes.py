"""Sizes in C, and the most that they can be."""

from __future__ import annotations

from collections.abc import Mapping

from converter.dims import Dim, symbols
from converter.errors import UnsupportedError
from converter.intervals import interval
from converter.ir import DimRange
from converter.size_writer import SizeWriter


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


def most(value: Dim, known: Mapping[str, DimRange]) -> int:
    """The most that a size can be where symbols lie in ranges. Raises `UnsupportedError` where nothing says how large it is."""
    for name in sorted(symbols(value)):
        if name not in known:
            raise UnsupportedError(f"nothing says how large {name!r} may be", fix=f"give --max {name}=SIZE")
    return max(0, int(interval(value, known)[1]))
