"""Sizes that a file calls by other names, or declares to be free, and that what it computes takes to be equal, or to be numbers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from math import gcd

from converter.dims import Dim, Expr, substitute, symbol, symbols


def solved(equal: Iterable[tuple[Dim, Dim]], own: set[str]) -> dict[str, Dim]:
    """Symbols by what they are where these pairs are equal: one that is a sum or a product of others, another name of one, or a number.

    Args:
        own: the symbols that inputs have; one that only the data decide is not solved for.
    """
    found: dict[str, Dim] = {}
    for pair in equal:
        left, right = (substitute(size, found) for size in pair)
        for name, rest in _alone(left, right):
            terms = rest.terms.values() if isinstance(rest, Expr) else (rest,)
            if name in own and symbols(rest) <= own and all(factor >= 0 for factor in terms):
                found = {other: substitute(size, {name: rest}) for other, size in found.items()} | {name: rest}
                break
    return found


def _alone(left: Dim, right: Dim) -> Iterator[tuple[str, Dim]]:
    """Each symbol that stands once, by itself, in left = right, and what it is then."""
    difference = left - right
    if isinstance(difference, int):
        return
    shared = gcd(*difference.terms.values())
    difference = Expr({monomial: factor // shared for monomial, factor in difference.terms.items()})
    for monomial, factor in sorted(difference.terms.items(), key=str, reverse=True):
        own = Expr({monomial: 1}).symbol
        if own is not None and factor in (1, -1):
            rest = symbol(own) - difference if factor == 1 else symbol(own) + difference
            if own not in symbols(rest):
                yield own, rest
