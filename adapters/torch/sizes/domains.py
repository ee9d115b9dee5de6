"""The sizes at which a trace holds: where every decision that the module's code took goes the way it was traced.

A decision is a condition on sizes with the answer it got. Each size keeps a range `min, min + step, … max` around the
traced one; while a condition cannot be shown to hold all over the ranges of its sizes, they are made narrower: first from
below, then from above, then to a step, then from both ends. At the traced sizes themselves it holds.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import sympy
from torch.utils._sympy.value_ranges import ValueRanges, bound_sympy

from adapters.torch.dtypes import to_dim
from adapters.torch.sizes.decisions import Decisions
from adapters.torch.sizes.envelopes import holds_by_planes
from adapters.torch.sizes.requirements import failing, fails_seldom, plain, requirements, tester
from adapters.torch.tracing.unions import Condition, size_symbol, unite
from converter.conditions import Condition as Requirement
from converter.conditions import strongest
from converter.dims import symbol as size
from converter.errors import ConverterError
from converter.intervals import interval
from converter.ir import DimRange

HIGHEST = 1 << 24
"""A range that holds to here is taken to have no upper end where the condition holds without one, and ends below it otherwise."""

LARGEST_STEP = 256

FEW = 64
"""Sizes that are tried one by one."""

FAR = 4
"""A range is compared with the sizes at which its condition holds up to this many times the traced size."""


@dataclass(frozen=True)
class Domain:
    """The ranges at which a trace holds, the sizes of 1 that only a trial can tell, and what narrowed each.

    `relations` gives a size that must be another one and a constant, which then has no range of its own. `conditions` are
    those of all decisions, with their places, over the graph's symbols; `doubtful` those that were left out because they
    fail at sizes that are to be kept, where a trial has to show that they do not matter. `requires` holds what no ranges can
    say, with the places.
    """

    ranges: Mapping[str, DimRange]
    trials: frozenset[str]
    reasons: Mapping[str, str]
    relations: Mapping[str, tuple[str, int]]
    conditions: tuple[Condition, ...] = ()
    doubtful: tuple[Any, ...] = ()
    requires: Mapping[Requirement, str] = field(default_factory=dict)


def domain_of(decisions: Decisions, names: Mapping[str, str], traced: Mapping[str, int], ranges: Mapping[str, DimRange],
              kept: Mapping[str, int] | None = None, others: Sequence[Condition] = ()) -> Domain:
    """Narrows `ranges` to where the decisions hold.

    Args:
        names: torch's symbols to the graph's.
        traced: the size of each of the graph's symbols in the trace.
        ranges: the ranges before. A lowest size of 1 may stand for sizes that were not looked at (the tracer takes 1 for a
            constant): a decision that fails at 1 alone puts the symbol among `trials`.
        kept: sizes that are not to be lost: decisions that fail there are `doubtful`.
        others: where `kept` is given, the conditions of a trace made there, over the graph's symbols.
    """
    own_conditions = list(conditions_of(decisions, names, traced))
    wanted, doubtful = (own_conditions, []) if kept is None else unite(own_conditions, kept, others)
    found = dict(ranges)
    for item in (item for condition in doubtful for item in condition.free_symbols):
        if kept is not None and kept[str(item)] not in found[str(item)]:  # the tracer's own range follows from that decision
            found[str(item)] = DimRange()
    narrowing = _Narrowing(found, traced)
    for place, condition in wanted:
        narrowing.hold(place, condition)
    return narrowing.domain(tuple(own_conditions), tuple(doubtful))


def narrowed_by(domain: Domain, conditions: Iterable[Condition], traced: Mapping[str, int], ranges: Mapping[str, DimRange]) -> Domain:
    """A domain, with other ranges, in which more conditions hold. Sizes that are free stay sizes of their own."""
    narrowing = _Narrowing(dict(ranges), traced)
    narrowing.trials, narrowing.reasons, narrowing.relations = set(domain.trials), dict(domain.reasons), dict(domain.relations)
    narrowing.requires = dict(domain.requires)
    more = tuple(conditions)
    for place, condition in more:
        narrowing.hold(place, condition, relate=False)
    return narrowing.domain((*domain.conditions, *more), domain.doubtful)


class _Narrowing:
    """Ranges while conditions narrow them, one after another."""

    def __init__(self, found: dict[str, DimRange], traced: Mapping[str, int]) -> None:
        self.found, self.traced = found, traced
        self.trials: set[str] = set()
        self.reasons: dict[str, str] = {}
        self.relations: dict[str, tuple[str, int]] = {}
        self.requires: dict[Requirement, str] = {}

    def domain(self, conditions: tuple[Condition, ...], doubtful: tuple[Any, ...]) -> Domain:
        trials = {self.relations.get(name, (name, 0))[0] for name in self.trials}
        sizes = {name: size(other) + more for name, (other, more) in self.relations.items()}
        requires = {condition: place for item, place in self.requires.items()
                    if isinstance(condition := item.substituted(sizes), Requirement)
                    and not (condition.relation == ">=" and interval(condition.difference, self.found)[0] >= 0)}
        needed = strongest(requires)
        return Domain(self.found, frozenset(name for name in trials if name in self.found and self.found[name].min == 1), self.reasons,
                      self.relations, conditions, doubtful, {item: place for item, place in requires.items() if item in needed})

    def hold(self, place: str, condition: Any, relate: bool = True) -> None:
        """Narrows the ranges to where a condition holds; a condition between sizes that no range can say is required."""
        found, traced = self.found, self.traced
        condition = plain(_related(condition, self.relations))
        if condition is sympy.true:
            return
        if isinstance(condition, sympy.And):
            for part in condition.args:
                self.hold(place, part, relate)
            return
        own = sorted(str(item) for item in condition.free_symbols)
        if _holds(condition, found, own):
            if not _holds(condition, {name: DimRange() for name in own}, own):  # the tracer itself has made them narrower
                for name in own:
                    if found[name].max is not None:
                        self.reasons.setdefault(name, place)
            return
        above = {name: replace(found[name], min=found[name].min + found[name].step) if found[name].min == 1 and traced[name] > 1
                 else found[name] for name in own}
        if _holds(condition, above, own):
            self.trials |= {name for name in own if above[name] != found[name]}
            return
        if relate and isinstance(condition, sympy.Eq) and self._relate(place, condition, own, above):
            return
        if len(own) > 1 and self._require(place, condition, above):
            return
        narrowed = _narrowed(condition, {**found, **above}, own, traced)
        ended = len(own) == 1 and narrowed[own[0]].max is not None and found[own[0]].max is None
        stepped = len(own) == 1 and narrowed[own[0]].step != found[own[0]].step
        if (ended or stepped) and self._require(place, condition, above, narrowed):
            return
        for name in own:
            if narrowed[name].min == above[name].min != found[name].min and narrowed[name].step == 1:
                # What was narrowed is another end: 1 stays in question.
                narrowed[name] = replace(narrowed[name], min=found[name].min)
        if not _holds(condition, narrowed, own):
            self.trials |= {name for name in own if narrowed[name].min == 1}
        for name in own:
            if narrowed[name] != found[name]:
                found[name] = narrowed[name]
                self.reasons.setdefault(name, place)

    def _relate(self, place: str, condition: Any, own: list[str], above: Mapping[str, DimRange]) -> bool:
        """Makes one size another and a constant, where that is what an equation says."""
        found, traced = self.found, self.traced
        relation = _relation(condition, {**found, **above}, own, traced)
        if relation is None:
            return False
        name, other, more = relation
        self.relations = {key: (other, by + more) if base == name else (base, by) for key, (base, by) in self.relations.items()}
        self.relations[name] = (other, more)
        looked = _shifted_meet(found[other], found.pop(name), more)
        # The tracer looks at sizes from 2 on: both ends may say no more than that.
        found[other] = replace(looked, min=1) if found[other].min == 1 and looked.min == 2 < traced[other] else looked
        self.trials |= {other} if found[other].min == 1 else set()
        self.reasons.setdefault(name, place)
        return True

    def _require(self, place: str, condition: Any, above: Mapping[str, DimRange], narrowed: Mapping[str, DimRange] | None = None) -> bool:
        """Leaves a condition to be checked at the door, where it can be said in sizes and a range would take more than it rules out."""
        needed = requirements(condition)
        if needed is None:
            return False
        if narrowed is not None:
            (name, span), = ((name, narrowed[name]) for name in above)
            holds = tester(condition)
            beyond = (count for count in range(1, FAR * self.traced[name] + 64) if count not in span and count in above[name])
            if not any(holds({name: count}) for count in beyond):
                return False
        if not fails_seldom(condition) and not failing(condition, above, self.traced):
            self.trials |= {name for name, span in above.items() if span != self.found[name]}
            return True
        for item in needed:
            self.requires.setdefault(item, place)
        return True


def _related(condition: Any, relations: Mapping[str, tuple[str, int]]) -> Any:
    return condition.subs({size_symbol(name): size_symbol(other) + more for name, (other, more) in relations.items()}, simultaneous=True)


def _relation(condition: Any, ranges: Mapping[str, DimRange], names: list[str], traced: Mapping[str, int]) -> tuple[str, str, int] | None:
    """(a, b, c) where the condition holds at every size once a is b + c, as it was in the trace; None where that is not so."""
    for name, other in itertools.permutations(reversed(names), 2):
        more = traced[name] - traced[other]
        if more < 0 or ranges[name].step != 1 or ranges[other].step != 1:
            continue
        related = _related(condition, {name: (other, more)})
        if related is sympy.true or related is not sympy.false and _holds(related, ranges, names):
            return name, other, more
    return None


def _shifted_meet(own: DimRange, other: DimRange, more: int) -> DimRange:
    """The sizes in `own` that lie in `other` once `more` is added."""
    highs = [high for high in (own.max, None if other.max is None else other.max - more) if high is not None]
    return DimRange(max(own.min, other.min - more), min(highs) if highs else None)


def conditions_of(decisions: Decisions, names: Mapping[str, str], traced: Mapping[str, int]) -> Iterable[Condition]:
    """Each decision once, as a condition over the graph's symbols that held in the trace."""
    seen = set()
    renamed = {sympy.Symbol(old): size_symbol(new) for old, new in names.items()}
    for decision in decisions.found:
        expression = decision.environment.replace(decision.condition)
        condition = (expression if decision.answer else sympy.Not(expression)) if isinstance(decision.answer, bool) else \
            sympy.Eq(expression, decision.answer)
        symbols = {symbol: renamed.get(sympy.Symbol(str(symbol))) for symbol in condition.free_symbols}
        if None in symbols.values():
            continue  # a number that only the data decide: the tracer itself refuses what depends on it
        condition = condition.xreplace(symbols)
        if condition.free_symbols and condition not in seen and all(str(item) in traced for item in condition.free_symbols):
            seen.add(condition)
            yield decision.place, condition


def _holds(condition: Any, ranges: Mapping[str, DimRange], names: list[str]) -> bool:
    """Whether a condition can be shown to hold at every size in the ranges."""
    steps: dict[Any, ValueRanges[Any]] = {}
    sizes = {}
    for symbol in condition.free_symbols:
        span = ranges[str(symbol)]
        if span.min == span.max:
            sizes[symbol] = sympy.Integer(span.min)
            continue
        count = sympy.Symbol(f"_{symbol}", integer=True, nonnegative=True)
        most = sympy.oo if span.max is None else (span.max - span.min) // span.step
        steps[count] = ValueRanges(0, HIGHEST if most is sympy.oo else most)
        sizes[symbol] = span.min + span.step * count
    try:
        if isinstance(condition, sympy.Or) and any(_holds(part, ranges, names) for part in condition.args):
            return True
        placed = condition.subs(sizes, simultaneous=True)
        if placed in (sympy.true, sympy.false):
            return bool(placed)
        return (_exactly(placed) or any(_certain(form, steps) for form in _forms(placed)) or _everywhere(placed, steps)
                or holds_by_planes(condition, ranges))
    except (TypeError, ValueError, AssertionError, NotImplementedError, ZeroDivisionError, AttributeError, RecursionError, KeyError):
        return False


def _forms(condition: Any) -> Iterable[Any]:
    yield condition
    if isinstance(condition, sympy.core.relational.Relational):
        yield condition.func(sympy.expand(condition.lhs - condition.rhs), 0)


def _exactly(condition: Any) -> bool:
    """Whether a comparison holds by the bounds of the difference of its sides, in the normal form of size expressions, where
    each symbol is 0 or more."""
    if not isinstance(condition, sympy.core.relational.Relational):
        return False
    try:
        low, high = interval(to_dim(condition.lhs) - to_dim(condition.rhs), {})
    except ConverterError:
        return False
    shown = {"==": low == high == 0, "!=": low > 0 or high < 0, ">=": low >= 0, ">": low > 0, "<=": high <= 0, "<": high < 0}
    return shown[condition.rel_op]


def _everywhere(condition: Any, steps: Mapping[Any, Any]) -> bool:
    """Whether a condition holds at each of a few sizes."""
    spans = [(symbol, int(span.upper) + 1) for symbol, span in steps.items() if symbol in condition.free_symbols]
    if math.prod(count for _, count in spans) > FEW:
        return False
    places = itertools.product(*(range(count) for _, count in spans))
    return all(condition.subs(dict(zip((symbol for symbol, _ in spans), place, strict=True))) == sympy.true for place in places)


def _certain(condition: Any, steps: Mapping[Any, Any]) -> bool:
    if condition in (sympy.true, sympy.false):
        return bool(condition)
    found = bound_sympy(condition, dict(steps))
    return bool(found.is_singleton() and found.lower in (True, sympy.true))


def _narrowed(condition: Any, ranges: Mapping[str, DimRange], names: list[str], traced: Mapping[str, int]) -> dict[str, DimRange]:
    result = dict(ranges)

    def holds(changed: Mapping[str, DimRange]) -> bool:
        return _holds(condition, {**result, **changed}, names)

    raised = {name: replace(ranges[name], min=traced[name]) for name in names}
    lowered = {name: replace(ranges[name], max=traced[name]) for name in names}
    if holds(raised):
        return {**result, **_lowest(holds, ranges, names, traced)}
    if holds(lowered) and any(lowered[name].min < traced[name] for name in names):
        return {**result, **_highest(holds, ranges, names, traced)}
    for step in _steps(condition):
        stepped = {}
        for name in names:
            wide = math.lcm(ranges[name].step, step)
            low = ranges[name].min
            stepped[name] = replace(ranges[name], min=low + (traced[name] - low) % wide, step=wide)
        if any(span.max is not None and max(span.max - traced[name], traced[name] - span.min) < span.step
               for name, span in stepped.items()):
            continue  # that would leave the traced size alone
        if holds({name: replace(span, min=traced[name]) for name, span in stepped.items()}):
            return {**result, **_lowest(holds, stepped, names, traced)}
    ended = {name: replace(ranges[name], max=traced[name]) for name in names}
    lowest = _lowest(holds, ended, names, traced)
    return {**result, **_highest(holds, {name: replace(lowest[name], max=ranges[name].max) for name in names}, names, traced)}


def _lowest(holds: Any, ranges: Mapping[str, DimRange], names: list[str], traced: Mapping[str, int]) -> dict[str, DimRange]:
    """The ranges from the least sizes at which a condition holds, given that it does from the traced ones on."""
    def at(place: int) -> dict[str, DimRange]:
        return {name: replace(ranges[name], min=min(ranges[name].min + ranges[name].step * place, traced[name])) for name in names}

    worst, best = -1, max((traced[name] - ranges[name].min) // ranges[name].step for name in names)
    while best - worst > 1:
        middle = (worst + best) // 2
        worst, best = (worst, middle) if holds(at(middle)) else (middle, best)
    return at(best)


def _highest(holds: Any, ranges: Mapping[str, DimRange], names: list[str], traced: Mapping[str, int]) -> dict[str, DimRange]:
    """The ranges to the largest sizes at which a condition holds, given that it does up to the traced ones."""
    def at(more: int) -> dict[str, DimRange]:
        return {name: replace(ranges[name], max=min(traced[name] + ranges[name].step * more, *(
            () if ranges[name].max is None else (ranges[name].max,)), HIGHEST)) for name in names}

    best, worst = 0, HIGHEST + 1
    while worst - best > 1:
        middle = (worst + best) // 2 if worst <= HIGHEST or 2 * best > HIGHEST else max(1, 2 * best)
        best, worst = (middle, worst) if holds(at(middle)) else (best, middle)
    return at(best)


def _steps(condition: Any) -> list[int]:
    """Steps worth a try: products of the integers in a condition."""
    numbers = {abs(int(item)) for item in condition.atoms(sympy.Integer)} - {0, 1}
    products, new = {1}, {1}
    while new:
        new = {item * number for item in new for number in sorted(numbers)[:8] if item * number <= LARGEST_STEP} - products
        products |= new
    return sorted(products - {1})


def meet(first: DimRange, second: DimRange) -> DimRange:
    """The sizes in both ranges, of which `second` alone may have a step."""
    highs = [high for high in (first.max, second.max) if high is not None]
    low = second.nearest(first.min) if first.min > second.min else second.min
    return DimRange(low, min(highs) if highs else None, second.step)
