"""Python loops over a size: traced at several lengths, and rolled into scans whose length is free."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from adapters.torch.sizes.requirements import tester
from adapters.torch.tracing.effort import require_time
from adapters.torch.tracing.free_sizes import Names, Shortfall, takes
from adapters.torch.tracing.inputs import Unnamed, identifier, resize_arguments
from adapters.torch.tracing.programs import Roll, Traced
from adapters.torch.tracing.specializing import Axis
from adapters.torch.tracing.trials import agrees_at
from converter.builder import GraphBuilder
from converter.dims import Expr
from converter.errors import ConverterError, UnsupportedError
from converter.ir import DimRange, Graph, Node, TensorSpec
from converter.passes.rolling import Unrolled, repeated, rolled

LENGTHS = ((5, 6, 8), (9, 10, 12), (17, 18, 20))
"""Lengths to trace at, as many at once: a step and then two more; the first that the module takes."""

LONGER = (1, 7, 20, 120)
"""A rolled loop is tried at as many steps more than it was traced with, and at the least."""

LARGEST = 300
"""What a module decided from a length is looked at up to this one, and at the numbers that it compares with."""


SHORTER = 3
"""A loop leaves out as many steps of a length, at most."""


class Attempt(Protocol):
    """Traces the module at an example; `roll` gives the graph in place of the builder's own."""

    def __call__(self, example: dict[str, Any], *, roll: Roll | None = None) -> Traced: ...


class _Seen(ConverterError):
    """Ends a trace of which only the nodes are wanted."""


def with_scans(module: Any, traced: Traced, short: Sequence[Shortfall], attempt: Attempt) -> Traced | None:
    """A trace whose loops over a fixed size are scans of free length; None where there are none, or none that can be rolled.

    Args:
        traced: at an example that the module takes.
        short: the sizes that are to be free and are not.
    """
    graph, names = traced.program.model.graph, traced.program.input_names
    for items in _together([item for item in short if isinstance(item.size, int) and _may_loop(graph, item.at)]):
        axes = {axis for item in items for axis in item.axes} | _as_long(graph, items[0].at)
        examples = _examples(module, traced.example, names, axes)
        if examples is None:
            continue
        found = _rolled(traced.made if items[0].at < examples[0][0] else (), examples, axes, _symbol(items), attempt)
        if found is not None:
            checked = _checked(module, examples[-1][1], found, _symbol(items), examples[-1][0])
            if checked is not None:
                return checked
    return None


def _may_loop(graph: Graph, length: int) -> bool:
    """Whether some line of code made as many nodes as a loop of this length does."""
    return any(count >= max(length - SHORTER, 1) for count in _lines(graph.nodes).values())


def _lines(nodes: Iterable[Node]) -> Counter[tuple[str, str | None]]:
    """How many nodes of an operator each line of code made."""
    return Counter((node.op, node.source) for node in nodes)


def _together(items: Sequence[Shortfall]) -> Iterator[tuple[Shortfall, ...]]:
    """Sizes that may be one length: all that are equal, then each alone."""
    by_size: dict[int, list[Shortfall]] = {}
    for item in items:
        by_size.setdefault(item.at, []).append(item)
    for group in by_size.values():
        yield tuple(group)
    for group in by_size.values():
        if len(group) > 1:
            yield from ((item,) for item in group)


def _as_long(graph: Graph, length: int) -> set[Axis]:
    """The axes that a loop of a fixed length reads along: their sizes start at about that length."""
    return {(port.name, axis) for port in graph.inputs for axis, size in enumerate(port.spec.shape)
            if isinstance(size, Expr) and size.symbol is not None and size.symbol in graph.dims
            and length - 1 <= graph.dims[size.symbol].min > 2}


def _symbol(items: Sequence[Shortfall]) -> str:
    named = next((item.name for item in items if item.name is not None and not isinstance(item.name, Unnamed)), None)
    name, axis = items[0].axes[0]
    return named or f"{identifier(name)}_{axis}"


def _examples(module: Any, arguments: dict[str, Any], names: Names, axes: set[Axis]) -> list[tuple[int, dict[str, Any]]] | None:
    """The arguments at lengths that the module takes."""
    for lengths in LENGTHS:
        examples = [(length, resize_arguments(arguments, names, dict.fromkeys(axes, length))) for length in lengths]
        if all(example is not None and takes(module, example) for _, example in examples):
            return examples  # type: ignore[return-value]
    return None


def _rolled(shorter: tuple[Node, ...], examples: Sequence[tuple[int, dict[str, Any]]], axes: set[Axis], length: str,
            attempt: Attempt) -> Traced | None:
    """A trace at the last example with its loops rolled. `shorter` are the nodes at a shorter length, which a loop has fewer of."""
    unrolled: list[Unrolled] = []

    def look(at: int) -> Roll:
        def roll(builder: GraphBuilder) -> tuple[Graph, dict[str, TensorSpec]]:
            unrolled.append(Unrolled(at, builder))
            raise _Seen("only the nodes are wanted")

        return roll

    def last(builder: GraphBuilder) -> tuple[Graph, dict[str, TensorSpec]]:
        found = rolled([*unrolled, Unrolled(examples[-1][0], builder)], length, lambda name, axis: (name, axis) in axes)
        if found is None:
            raise UnsupportedError("no loop over the size was found")
        return found

    for position, (at, example) in enumerate(examples[:-1]):
        try:
            attempt(example, roll=look(at))
        except _Seen:
            pass
        except ConverterError:
            return None
        if len(unrolled) != position + 1 or not (position or _grows(shorter, unrolled[0])) or not repeated(unrolled):
            return None
    try:
        return attempt(examples[-1][1], roll=last)
    except ConverterError:
        return None


def _grows(shorter: Iterable[Node], unrolled: Unrolled) -> bool:
    """Whether some line made more nodes than at a shorter length, as a loop does."""
    before = _lines(shorter)
    return any(count > before[line] for line, count in _lines(unrolled.builder.made).items())


def _checked(module: Any, example: Mapping[str, Any], found: Traced, length: str, traced: int) -> Traced | None:
    """The trace with the lengths at which it computes what the module does: all from some least on.

    Raises `EffortSpent` where there is no time to try them.
    """
    program = found.program
    model = program.model
    span = model.graph.dims.get(length)
    if span is None:
        return None

    def agrees(size: int) -> bool | None:
        require_time()
        return agrees_at(model, {length: size}, module, example, program.input_names, program.output_names)

    high = _end(found, traced)
    high = span.max if high is None else high if span.max is None else min(high, span.max)
    longer = [traced + more for more in LONGER if high is None or traced + more <= high]
    if any(agrees(size) is False for size in longer):
        return None
    low = max((size + 1 for size in range(span.min, traced) if agrees(size) is False), default=span.min)
    least = next((size for size in range(low, traced + 1) if agrees(size)), None)
    if least is None:
        return None
    graph = replace(model.graph, dims={**model.graph.dims, length: DimRange(least, high, span.step)})
    note = (f"the loop over {length} is a scan: it was found in traces of up to {traced} steps, and tried at up to "
            f"{max(longer, default=traced)}")
    return replace(found, program=replace(program, notes=(*program.notes, note), unrolled=dict(example), model=replace(model, graph=graph)))


def _end(found: Traced, traced: int) -> int | None:
    """The last length at which the module decides what it decided in the trace, where there is one. Each shorter one is tried."""
    high = None
    for decision in found.decided.found:
        fixed = {item: value for item, value in decision.environment.replacements.items() if value == traced}
        involved = [item for item in decision.condition.free_symbols if item in fixed] if isinstance(decision.answer, bool) else []
        if not involved:
            continue
        known = decision.environment.backed_var_to_val
        others = {str(item): known.get(item) for item in decision.condition.free_symbols if item not in fixed}
        if None in others.values():
            continue
        holds = tester(decision.condition)
        near = {int(number) + more for number in decision.condition.atoms() if number.is_Integer for more in (-1, 0, 1)}
        for size in sorted({*range(traced, LARGEST), *(number for number in near if number > traced)}):
            if holds({**others, **dict.fromkeys(map(str, involved), size)}) is not decision.answer:
                high = size - 1 if high is None else min(high, size - 1)
                break
    return high
