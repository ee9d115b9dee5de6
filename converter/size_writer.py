"""Size expressions in the terms of a target: nodes that compute them, lines of code, bounds."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Generic, TypeVar

from converter.dims import Dim, Expr, Monomial, symbol

T = TypeVar("T")


class SizeWriter(ABC, Generic[T]):
    """Walks expressions, each of which is made once; a target says what numbers, symbols and functions of two are.

    Terms that are added come before those that are taken away.
    """

    def __init__(self) -> None:
        self.made: dict[Expr, T] = {}

    @abstractmethod
    def number(self, value: int) -> T:
        """An integer."""

    @abstractmethod
    def symbol(self, name: str) -> T:
        """A symbol."""

    @abstractmethod
    def combine(self, function: str, left: T, right: T) -> T:
        """`+ - * // % max min` of two sizes; `//` floors, and `%` has the sign of `right`, as in Python."""

    def size(self, value: Dim) -> T:
        """A size."""
        if not isinstance(value, Expr):
            return self.number(value)
        if value not in self.made:
            self.made[value] = self.sum(value) if value.symbol is None else self.symbol(value.symbol)
        return self.made[value]

    def sum(self, value: Expr) -> T:
        """An expression that is no symbol."""
        total: T | None = None
        for monomial, coefficient in sorted(value.terms.items(), key=lambda item: item[1] < 0):
            count = coefficient if total is None else abs(coefficient)
            term = self.product(monomial) if monomial else self.number(count)
            if monomial and count != 1:
                term = self.combine("*", self.number(count), term)
            total = term if total is None else self.combine("+" if coefficient > 0 else "-", total, term)
        assert total is not None
        return total

    def product(self, monomial: Monomial) -> T:
        """Symbols and functions multiplied, one or more."""
        total: T | None = None
        for atom, power in monomial:
            factor = self.size(symbol(atom[1])) if atom[0] == "symbol" else self.combine(atom[0], *map(self.size, atom[1:]))
            for _ in range(power):
                total = factor if total is None else self.combine("*", total, factor)
        assert total is not None
        return total
