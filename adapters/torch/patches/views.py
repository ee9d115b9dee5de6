"""Shapes of views while a module is traced, found by the normal form of size expressions.

torch finds the result of a `view` by asking one question after another about the divisibility of sizes, each of which goes
through a general simplification. Where a tensor is contiguous and the numbers of elements are equal in normal form, the
result is known without a question. The windows of an image of free size (Swin) are otherwise most of a trace's time.
An image that has to be whole windows (`x.view(b, h // 7, 7, …)`) takes one question for each of its axes, whether 7 divides it;
from then on `h` is `7 * (h // 7)`.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import sympy
import torch
from torch._prims_common import is_contiguous_or_false

from adapters.torch.dtypes import to_dim
from adapters.torch.sizes.quotients import expression, floor_divide
from converter import dims
from converter.dims import Atom, Dim, Expr, Monomial, evaluate
from converter.errors import ConverterError

ORIGINAL = torch._refs._reshape_view_helper

MOST = 3
"""So many questions of divisibility are asked for one view."""


@contextmanager
def quick_views() -> Iterator[None]:
    """While active, fake tensors of symbolic shapes are viewed by `_viewed` where that knows the answer."""

    def helper(a: torch.Tensor, *shape: Any, allow_copy: bool) -> torch.Tensor:
        found = _viewed(a, shape[0] if len(shape) == 1 and isinstance(shape[0], (list, tuple, torch.Size)) else shape)
        return ORIGINAL(a, *shape, allow_copy=allow_copy) if found is None else found

    torch._refs._reshape_view_helper = helper
    try:
        yield
    finally:
        torch._refs._reshape_view_helper = ORIGINAL


def _viewed(a: torch.Tensor, shape: Any) -> torch.Tensor | None:
    """`a` in another shape, or None where only the general way can tell."""
    before: list[Any] = list(a.shape)
    symbolic: list[Any] = [size for size in before if isinstance(size, torch.SymInt)]
    if not symbolic or not shape or not a.dim() or not is_contiguous_or_false(a):
        return None
    environment = symbolic[0].node.shape_env
    if any(isinstance(size, torch.SymInt) and (size.node.hint is None or size.node.shape_env is not environment)
           for size in (*before, *shape)):
        return None
    opened = [axis for axis, size in enumerate(shape) if _is_open(size)]
    try:
        rest = _rest([_dim(size) for size in before], [_dim(size) for size in shape if not _is_open(size)], environment, not opened)
    except (ConverterError, KeyError):
        return None
    if rest is None or len(opened) > 1 or not opened and rest != 1:
        return None
    sizes = list(shape)
    if opened:
        symbols = {str(item): item for size in symbolic for item in size.node.expr.free_symbols}
        hint = _hint(before) // _hint(shape)
        sizes[opened[0]] = rest if isinstance(rest, int) else environment.create_symintnode(expression(rest, symbols), hint=hint)
    strides: list[Any] = [1]
    for size in sizes[:0:-1]:
        strides.insert(0, strides[0] * size)
    return torch.as_strided(a, sizes, strides)


# Products of atoms, and what they are known to be.
Facts = dict[frozenset[Atom], Dim]
_KNOWN: WeakKeyDictionary[Any, Facts] = WeakKeyDictionary()


@dataclass(frozen=True)
class _Fact:
    """What would be known of a product of atoms if two sizes were equal, as they are in the trace."""

    product: frozenset[Atom]
    value: Dim
    equal: tuple[Dim, Dim]


def _rest(before: Sequence[Dim], known: Sequence[Dim], environment: Any, whole: bool) -> Dim | None:
    """By how much the product of sizes is that of the known ones; None where it is no whole multiple in normal form.

    Of what such a multiple needs to hold, as it does in the trace, no more is asked than it takes. Raises `KeyError` for a
    symbol without a size in the trace.

    Args:
        whole: whether both products have to be equal.
    """
    facts = _KNOWN.setdefault(environment, {})
    rest = _whole(before, known, facts)
    if rest is not None:
        return rest
    hints = {str(item): int(value) for item, value in environment.backed_var_to_val.items()}
    asked = [fact for fact in _divisors([_total([size], facts) for size in (*before, *known)]) if _agree(fact.equal, hints)]
    chosen = next((some for count in range(1, MOST + 1) for some in itertools.combinations(asked, count)
                   if _whole(before, known, {**facts, **{fact.product: fact.value for fact in some}}) is not None), ())
    if not chosen and whole:
        found = _constant(_total(before, facts), _total(known, facts))
        chosen = (found,) if found is not None and _agree(found.equal, hints) else ()
    symbols = {str(item): item for item in environment.backed_var_to_val}
    for fact in chosen:
        left, right = (expression(side, symbols) for side in fact.equal)
        if not environment.evaluate_expr(sympy.Eq(left, right), hint=sympy.true):
            return None
        facts[fact.product] = fact.value
    return _whole(before, known, facts)


def _whole(before: Sequence[Dim], known: Sequence[Dim], facts: Facts) -> Dim | None:
    total, over = _total(before, facts), _total(known, facts)
    if over == 0:
        return None
    rest = floor_divide(total, over)
    return rest if rest * over == total else None


def _total(sizes: Sequence[Dim], facts: Facts) -> Dim:
    """The product of sizes with what is known of products of their atoms; what stands within an atom is left as it is."""
    size = dims.product(list(sizes))
    while isinstance(size, Expr):
        held = next((fact for fact in facts for monomial in size.terms if fact <= {atom for atom, _ in monomial}), None)
        if held is None:
            break
        size = sum(_with(monomial, coefficient, held, facts[held]) for monomial, coefficient in size.terms.items())
    return size


def _with(monomial: Monomial, coefficient: int, held: frozenset[Atom], value: Dim) -> Dim:
    powers = dict(monomial)
    if not held <= powers.keys():
        return Expr({monomial: coefficient}) if monomial else coefficient
    rest = [_value(atom) for atom, power in powers.items() for _ in range(power - (atom in held))]
    return dims.product([coefficient, value, *rest])


def _divisors(sizes: Sequence[Dim]) -> list[_Fact]:
    """What quotients among sizes say if they are whole: an atom is a value where a size is divided by an integer. The quotient of
    a quotient is one quotient in normal form: `h // 4 // 7` is `h // 28`, and `h // 4` is 7 times that."""
    found: list[_Fact] = []
    atoms = {atom: None for size in sizes if isinstance(size, Expr) for monomial in size.terms for atom, _ in monomial}
    quotients = [atom for atom in atoms if atom[0] == "//" and isinstance(atom[1], Expr) and isinstance(atom[2], int)]
    for quotient in quotients:
        _, size, by = quotient
        for atom in quotients:
            if atom[2] < by and by % atom[2] == 0 and dims.symbols(atom[1]) == dims.symbols(size):
                count = by // atom[2]
                whole = (dims.remainder(_value(atom), count), 0) if atom[1] == size else (_value(atom), count * _value(quotient))
                found.append(_Fact(frozenset({atom}), count * _value(quotient), whole))
        for monomial, coefficient in size.terms.items():
            if len(monomial) == 1 and monomial[0][1] == 1 and coefficient == 1 and monomial[0][0] in atoms:
                own = _value(monomial[0][0])
                found.append(_Fact(frozenset({monomial[0][0]}), by * _value(quotient) - (size - own), (dims.remainder(size, by), 0)))
    return found


def _constant(total: Dim, over: Dim) -> _Fact | None:
    """What two equal products say of the one that is left once they are divided by what they share, where the other is a number."""
    (left, count), (right, number) = map(_factors, (total, over))
    if left <= right:
        (left, count), (right, number) = (right, number), (left, count)
    atoms = left - right
    if not right < left or not count or set(atoms.values()) != {1} or number % count:
        return None
    return _Fact(frozenset(atoms), number // count, (dims.product([_value(atom) for atom in atoms]), number // count))


def _factors(size: Dim) -> tuple[Counter[Atom], int]:
    """The atoms of a product, and its number; 0 for what is no product."""
    terms = size.terms if isinstance(size, Expr) else {(): size}
    (monomial, number), *more = terms.items()
    return Counter(dict(monomial)), 0 if more else number


def _agree(sides: tuple[Dim, Dim], hints: Mapping[str, int]) -> bool:
    return evaluate(sides[0], hints) == evaluate(sides[1], hints)


def _value(atom: Atom) -> Expr:
    return Expr({((atom, 1),): 1})


def _is_open(size: Any) -> bool:
    return isinstance(size, int) and size == -1


def _hint(shape: Any) -> int:
    total = 1
    for size in shape:
        if not _is_open(size):
            total *= size.node.hint if isinstance(size, torch.SymInt) else size
    return total


def _dim(size: Any) -> Dim:
    return to_dim(size.node.shape_env.replace(size.node.expr)) if isinstance(size, torch.SymInt) else int(size)
