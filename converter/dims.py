"""Size expressions: integers, symbols, and arithmetic over symbols, in a normal form.

A size is an `int` or an `Expr`. Expressions are integer polynomials over *atoms*; an atom is a symbol or one of
`//`, `%`, `max`, `min` whose operands are sizes. Two expressions that differ only in how they were written compare
equal, so `(batch * time * 64) // 64` *is* `batch*time`.
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterator, Mapping
from typing import Any

from converter.errors import GraphError

SYMBOL = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
RESERVED = frozenset({"max", "min"})
MAX_TERMS = 500
MAX_NODES = 10_000
"""Symbols and functions in one expression, each counted as often as it would be written."""

# An atom is ("symbol", name) or (function, left, right); a monomial is a sorted tuple of (atom, power).
Atom = tuple[Any, ...]
Monomial = tuple[tuple[Atom, int], ...]


class Expr:
    """An immutable size expression that is not a plain integer. Build with `symbol`, `parse` and arithmetic."""

    __slots__ = ("_hash", "_text", "nodes", "terms")
    terms: dict[Monomial, int]
    nodes: int
    """How large it is: its symbols and functions, each counted as often as it would be written."""

    def __init__(self, terms: dict[Monomial, int]) -> None:
        self.nodes = sum(power * _weight(atom) for monomial in terms for atom, power in monomial)
        if self.nodes > MAX_NODES:
            raise GraphError("a size expression grows too large", expected=f"at most {MAX_NODES} symbols and functions",
                             received=str(self.nodes))
        self.terms = terms
        self._text: str | None = None
        self._hash = hash(frozenset(terms.items()))

    def __add__(self, other: Dim) -> Dim:
        return _combine(self, other, 1)

    __radd__ = __add__

    def __sub__(self, other: Dim) -> Dim:
        return _combine(self, other, -1)

    def __rsub__(self, other: Dim) -> Dim:
        return _combine(other, self, -1)

    def __neg__(self) -> Dim:
        return _combine(0, self, -1)

    def __mul__(self, other: Dim) -> Dim:
        return _multiply(self, other)

    __rmul__ = __mul__

    def __floordiv__(self, other: Dim) -> Dim:
        return floor_divide(self, other)

    def __rfloordiv__(self, other: Dim) -> Dim:
        return floor_divide(other, self)

    def __mod__(self, other: Dim) -> Dim:
        return remainder(self, other)

    def __rmod__(self, other: Dim) -> Dim:
        return remainder(other, self)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Expr) and self.terms == other.terms

    def __hash__(self) -> int:
        return self._hash

    def __str__(self) -> str:
        return _format(self)

    def __repr__(self) -> str:
        return f"Expr({_format(self)!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return Expr, (self.terms,)

    @property
    def symbol(self) -> str | None:
        """The symbol's name when the expression is a bare symbol, else None."""
        if len(self.terms) == 1:
            (monomial, coefficient), = self.terms.items()
            if coefficient == 1 and len(monomial) == 1 and monomial[0][1] == 1 and monomial[0][0][0] == "symbol":
                return str(monomial[0][0][1])
        return None


Dim = int | Expr


def symbol(name: str) -> Expr:
    """The symbol `name`. Raises `GraphError` when that is no identifier."""
    if not SYMBOL.match(name) or name in RESERVED or keyword.iskeyword(name):
        raise GraphError("not a name for a size", expected="letters, digits and underscores, not starting with a digit",
                         received=repr(name))
    return Expr({((("symbol", name), 1),): 1})


def _weight(atom: Atom) -> int:
    return 1 + sum(operand.nodes for operand in atom[1:] if isinstance(operand, Expr))


def _terms(value: Dim) -> dict[Monomial, int]:
    if isinstance(value, Expr):
        return value.terms
    return {(): int(value)} if value else {}


def _normal(terms: dict[Monomial, int]) -> Dim:
    terms = {monomial: coefficient for monomial, coefficient in terms.items() if coefficient}
    if not terms:
        return 0
    if len(terms) == 1 and () in terms:
        return terms[()]
    return Expr(terms)


def _combine(left: Dim, right: Dim, sign: int) -> Dim:
    terms = dict(_terms(left))
    for monomial, coefficient in _terms(right).items():
        terms[monomial] = terms.get(monomial, 0) + sign * coefficient
    return _normal(terms)


def _atom_key(item: tuple[Atom, int]) -> str:
    return _format_atom(item[0])


def _multiply(left: Dim, right: Dim) -> Dim:
    terms: dict[Monomial, int] = {}
    for a, ca in _terms(left).items():
        for b, cb in _terms(right).items():
            powers: dict[Atom, int] = dict(a)
            for atom, power in b:
                powers[atom] = powers.get(atom, 0) + power
            monomial = tuple(sorted(powers.items(), key=_atom_key))
            terms[monomial] = terms.get(monomial, 0) + ca * cb
        if len(terms) > MAX_TERMS:
            raise GraphError("a size expression multiplies out to too many terms", expected=f"at most {MAX_TERMS}")
    return _normal(terms)


def _atom(function: str, left: Dim, right: Dim) -> Expr:
    return Expr({(((function, left, right), 1),): 1})


def _divide_exactly(terms: dict[Monomial, int], divisor: tuple[Monomial, int]) -> dict[Monomial, int] | None:
    """Each term over one monomial, or None when a term does not hold it."""
    result = {}
    for monomial, coefficient in terms.items():
        powers: dict[Atom, int] = dict(monomial)
        for atom, power in divisor[0]:
            powers[atom] = powers.get(atom, 0) - power
            if powers[atom] < 0:
                return None
        if coefficient % divisor[1]:
            return None
        result[tuple(item for item in sorted(powers.items(), key=_atom_key) if item[1])] = coefficient // divisor[1]
    return result


def floor_divide(left: Dim, right: Dim) -> Dim:
    """`left // right`. Raises `GraphError` on a division by zero."""
    if isinstance(right, int) and right == 0:
        raise GraphError("a size is divided by zero", received=f"{left} // 0")
    if isinstance(left, int) and isinstance(right, int):
        return left // right
    if left == right or right == 1:
        return 1 if left == right else left
    over, under = _terms(left), _terms(right)
    if len(under) == 1:
        whole = _divide_exactly(over, next(iter(under.items())))
        if whole is not None:
            return _normal(whole)
    elif len(under) > 1:
        quotient = _quotient(left, right)
        if quotient is not None:
            return quotient
    if isinstance(right, int):
        # floor((c*A + B) / c) = A + floor(B / c)
        whole = {m: c // right for m, c in over.items() if m and c % right == 0}
        rest = {m: c for m, c in over.items() if not (m and c % right == 0)}
        if () in rest and not 0 <= rest[()] < abs(right) and right > 0:
            whole[()] = rest[()] // right
            rest[()] = rest[()] % right
        remaining = _normal(rest)
        if whole:
            return _combine(_normal(whole), floor_divide(remaining, right), 1)
        nested = _nested_floor(left)
        if nested is not None and right > 0:
            # ((x // a) + b) // c = (x + a*b) // (a*c) for positive a and c
            inner, divisor, constant = nested
            return floor_divide(inner + divisor * constant, divisor * right)
    return _atom("//", left, right)


def _nested_floor(value: Dim) -> tuple[Dim, int, int] | None:
    """(x, a, b) when `value` is `x // a + b` with integers a > 0 and b."""
    rest = dict(_terms(value))
    constant = rest.pop((), 0)
    if len(rest) != 1:
        return None
    (monomial, coefficient), = rest.items()
    if coefficient != 1 or len(monomial) != 1 or monomial[0][1] != 1:
        return None
    atom = monomial[0][0]
    if atom[0] != "//" or not isinstance(atom[2], int) or atom[2] <= 0:
        return None
    return atom[1], atom[2], constant


def _quotient(left: Dim, right: Dim) -> Dim | None:
    """Exact division by a sum, tried by the leading term only: enough for `(a*b + a*c) // (b + c)`."""
    remaining: Dim = left
    result: Dim = 0
    lead = max(_terms(right).items(), key=lambda item: (sum(p for _, p in item[0]), str(item[0])))
    for _ in range(8):
        if remaining == 0:
            return result
        step = None
        for monomial, coefficient in _terms(remaining).items():
            step = _divide_exactly({monomial: coefficient}, lead)
            if step is not None:
                break
        if step is None:
            return None
        part = _normal(step)
        result = result + part
        remaining = remaining - part * right
    return None


def remainder(left: Dim, right: Dim) -> Dim:
    """`left % right`. Raises `GraphError` on a division by zero."""
    quotient = floor_divide(left, right)
    if isinstance(quotient, int) or not _holds_atom(quotient, ("//", left, right)):
        if isinstance(left, int) and isinstance(right, int):
            return left % right
        return left - quotient * right
    return _atom("%", left, right)


def _holds_atom(value: Dim, atom: Atom) -> bool:
    return any(item == atom for monomial in _terms(value) for item, _ in monomial)


def maximum(left: Dim, right: Dim) -> Dim:
    """The larger of two sizes."""
    return _extreme("max", left, right)


def minimum(left: Dim, right: Dim) -> Dim:
    """The smaller of two sizes."""
    return _extreme("min", left, right)


def _extreme(function: str, left: Dim, right: Dim) -> Dim:
    difference = left - right
    if isinstance(difference, int):
        return left if (difference >= 0) == (function == "max") else right
    if str(left) > str(right):
        left, right = right, left
    return _atom(function, left, right)


FUNCTIONS = {"//": floor_divide, "%": remainder, "max": maximum, "min": minimum}


def fixed(size: Dim) -> int:
    """A size that is a number. Raises `GraphError` for one that is free."""
    if isinstance(size, Expr):
        raise GraphError("a size that has to be a number is free", received=str(size))
    return int(size)


def evaluate(value: Dim, bindings: Mapping[str, int]) -> int:
    """The integer that `value` is under `bindings` (symbol -> integer). Raises `GraphError` for an unbound symbol."""
    result = substitute(value, bindings)
    if isinstance(result, Expr):
        missing = sorted(symbols(result))
        raise GraphError("a size has no value yet", where=str(value), expected="every symbol bound by an input's shape",
                         received=f"no value for {', '.join(missing)}")
    return result


def substitute(value: Dim, bindings: Mapping[str, Dim]) -> Dim:
    """`value` with symbols replaced by other sizes; symbols not in `bindings` stay."""
    if isinstance(value, int):
        return value
    total: Dim = 0
    for monomial, coefficient in value.terms.items():
        product: Dim = coefficient
        for atom, power in monomial:
            if atom[0] == "symbol":
                factor = bindings.get(atom[1])
                if factor is None:
                    factor = symbol(atom[1])
            else:
                factor = FUNCTIONS[atom[0]](substitute(atom[1], bindings), substitute(atom[2], bindings))
            for _ in range(power):
                product = product * factor
        total = total + product
    return total


def symbols(value: Dim) -> set[str]:
    """The names of all symbols in a size."""
    return set(_symbols(value))


def _symbols(value: Dim) -> Iterator[str]:
    for monomial in _terms(value):
        for atom, _ in monomial:
            if atom[0] == "symbol":
                yield atom[1]
            else:
                yield from _symbols(atom[1])
                yield from _symbols(atom[2])


def _format_atom(atom: Atom) -> str:
    if atom[0] == "symbol":
        return str(atom[1])
    if atom[0] in ("max", "min"):
        return f"{atom[0]}({_format(atom[1])}, {_format(atom[2])})"
    return f"({_operand(atom[1])} {atom[0]} {_operand(atom[2])})"


def _operand(value: Dim) -> str:
    text = _format(value)
    bare = isinstance(value, int) and value >= 0 or isinstance(value, Expr) and value.symbol is not None
    return text if bare or text.startswith(("max(", "min(")) and len(_terms(value)) == 1 else f"({text})"


def _format(value: Dim) -> str:
    """Terms of higher degree first, then by name, the constant last: one text for one expression."""
    if isinstance(value, int):
        return str(value)
    if value._text is None:
        value._text = _written(value)
    return value._text


def _written(value: Expr) -> str:
    written = []
    for monomial, coefficient in value.terms.items():
        factors = [_format_atom(atom) for atom, power in monomial for _ in range(power)]
        written.append((-len(factors), factors, coefficient))
    written.sort(key=lambda item: (item[0], item[1]))
    if written[0][2] < 0:
        # A leading minus reads badly: put a positive term first where there is one.
        written.sort(key=lambda item: item[2] < 0)
    text = ""
    for position, (_, factors, coefficient) in enumerate(written):
        magnitude = abs(coefficient)
        body = "*".join(([str(magnitude)] if magnitude != 1 or not factors else []) + factors)
        sign = "-" if coefficient < 0 else ("" if position == 0 else "+")
        text += f" {sign} {body}" if position else f"{sign}{body}"
    if len(written) == 1 and len(written[0][1]) == 1 and text.startswith("("):
        return text[1:-1]
    return text


def product(sizes: tuple[Dim, ...] | list[Dim]) -> Dim:
    """The product of sizes; 1 for none."""
    result: Dim = 1
    for size in sizes:
        result = result * size
    return result
