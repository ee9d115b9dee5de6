"""Graphs within a graph, whose complex values are two real ones on the way in and out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from converter.formulas import Space, Term
from converter.ir import Graph
from converter.passes.complex_numbers.pairs import Pair, Pairs, on_pairs, parts_of
from converter.passes.complex_numbers.replacing import real_body

Kinds = list[bool]
"""Which of several terms are pairs."""


def _kinds(terms: Sequence[Any]) -> Kinds:
    return [isinstance(item, Pair) for item in terms]


def _terms(parts: Sequence[Term], kinds: Kinds) -> tuple[Any, ...]:
    """Parts put together again."""
    rest = iter(parts)
    return tuple(Pair(next(rest), next(rest)) if is_pair else next(rest) for is_pair in kinds)


class _Body:
    """A sub-graph, as a graph or as a function, on parts. `results` says which of its results are pairs, of a function once it ran."""

    def __init__(self, body: Graph | Callable[..., Any], operands: Kinds) -> None:
        self.results: Kinds = []
        if isinstance(body, Graph):
            self.results = [output.spec.dtype.is_complex for output in body.outputs]
            self.real: Any = real_body(body)
        else:
            self.real = self._on_parts(body, operands)

    def _on_parts(self, body: Callable[..., Any], operands: Kinds) -> Callable[..., Any]:
        def real(f: Space, *parts: Term) -> tuple[Term, ...]:
            space = Pairs(f)
            terms = _terms(parts, operands)
            for item in terms:
                if isinstance(item, Pair):
                    item.space = space
            results = body(space, *terms)
            self.results = _kinds(results)
            return tuple(parts_of(results))

        return real


@on_pairs("cond")
def cond(f: Space, predicate: Term, *operands: Any, then_branch: Any, else_branch: Any) -> tuple[Any, ...]:
    branches = [_Body(branch, _kinds(operands)) for branch in (then_branch, else_branch)]
    results = f.cond(predicate, *parts_of(operands), then_branch=branches[0].real, else_branch=branches[1].real)
    return _terms(results, branches[0].results)


@on_pairs("while_loop")
def while_loop(f: Space, *values: Any, carried: int, condition: Any, body: Any) -> tuple[Any, ...]:
    bodies, kinds = [_Body(item, _kinds(values)) for item in (condition, body)], _kinds(values[:carried])
    results = f.while_loop(*parts_of(values), carried=len(parts_of(values[:carried])), condition=bodies[0].real, body=bodies[1].real)
    return _terms(results, kinds)


@on_pairs("scan")
def scan(f: Space, *values: Any, states: int, sequences: int, body: Any) -> tuple[Any, ...]:
    inner = _Body(body, _kinds(values))
    counts = [len(parts_of(values[start:stop])) for start, stop in ((0, states), (states, states + sequences))]
    results = f.scan(*parts_of(values), states=counts[0], sequences=counts[1], body=inner.real)
    return _terms(results, inner.results)
