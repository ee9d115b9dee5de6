"""Where it goes wrong: the first node whose error leaves its budget, with few intermediate values held at a time.

The nodes are taken in windows, in order. For each window the reference runs twice (in float64, and in the model's own
dtypes for the budget) and keeps only the window's values, and the runtime runs a graph that ends with them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from converter import reference
from converter.checking import check
from converter.equivalence.compare import Comparison, compare, compare_within, is_exact
from converter.equivalence.conditioning import measure_moves
from converter.errors import GraphError
from converter.ir import Array, Graph, GraphOutput, Model, Node, TensorSpec
from converter.opset import lookup
from converter.parameters import ParameterStore, ParameterView, places_in
from converter.sizes import check_inputs

Factory = Callable[[Model], Any]

WINDOW_BYTES = 256 << 20


class OutOfTime(Exception):
    """A search has used the seconds that it had."""


class Clock:
    """The seconds of a search: once they are over, `check` raises `OutOfTime`. None: as long as it takes."""

    def __init__(self, seconds: float | None = None) -> None:
        self.seconds = seconds
        self._end = None if seconds is None else time.monotonic() + seconds

    def check(self, *_: Any) -> None:
        if self._end is not None and time.monotonic() > self._end:
            raise OutOfTime


@dataclass(frozen=True, slots=True)
class Divergence:
    """A node that leaves its budget.

    `index` counts the graph's nodes from 0; `value` is the output of the node that does; the statistics are of it.
    """

    index: int
    node: Node
    value: str
    spec: TensorSpec
    comparison: Comparison
    statistics: Mapping[str, float]

    def __str__(self) -> str:
        source = f", from {self.node.source}" if self.node.source else ""
        return f"node {self.index} ({self.node}), value {self.value!r} ({self.spec}){source}: {self.comparison.reason}"


@dataclass(frozen=True, slots=True)
class Step:
    """One value of a graph: what a runtime made of it, and the verdict on it."""

    index: int
    node: Node
    value: str
    comparison: Comparison
    actual: Array
    truth: Array

    @property
    def share(self) -> float:
        """How much of its allowance the value uses; infinite where it is wrong in another way than by its error."""
        if self.comparison.allowed:
            return self.comparison.error / self.comparison.allowed
        return 0.0 if self.comparison else float("inf")


def first_divergence(model: Model, inputs: Mapping[str, Any], factory: Factory, *, window_bytes: int = WINDOW_BYTES,
                     clock: Clock | None = None) -> Divergence | None:
    """The first node at which a runtime leaves the budget, or None when every node is within it.

    The budget of a node's output is the reference's own error there, in the model's own dtypes; where rounding is magnified
    (see `conditioning`) it is what data one ulp away would give.

    Args:
        model: the model.
        inputs: arrays by input name.
        factory: makes the runtime's session of a model.
        window_bytes: about how many bytes of intermediate values to hold for each of the three runs.
        clock: how long it may take.

    Raises:
        OutOfTime: it takes longer.
        RunError: the inputs do not fit, or the reference cannot run on them. What `factory` or its session raises.
    """
    arrays, _ = check_inputs(model.graph, inputs)
    specs = check(model.graph, model.parameters)
    clock = clock or Clock()
    for step in walk(model, arrays, factory, window_bytes=window_bytes, clock=clock):
        verdict = step.comparison if step.comparison else _conditioned(model, arrays, specs, step, clock)
        if not verdict:
            return Divergence(step.index, step.node, step.value, specs[step.value], verdict, statistics(step.actual, step.truth))
    return None


def walk(model: Model, inputs: Mapping[str, Any], factory: Factory, *, window_bytes: int = WINDOW_BYTES,
         clock: Clock | None = None) -> Iterator[Step]:
    """Every value that a graph's nodes make, in order, as a runtime computes it beside the float64 truth.

    Arguments and errors are those of `first_divergence`.
    """
    arrays, _ = check_inputs(model.graph, inputs)
    specs = check(model.graph, model.parameters)
    clock = clock or Clock()
    for window in windows(model, arrays, window_bytes, clock):
        names = [name for index in window for name in model.graph.nodes[index].outputs if name is not None]
        truth = observed(model, arrays, names, "float64", clock)
        own = observed(model, arrays, names, None, clock)
        found = factory(ending_with(model, names, specs)).run(arrays)
        for index in window:
            node = model.graph.nodes[index]
            for name in node.outputs:
                clock.check()
                if name is not None:
                    actual = np.asarray(found[name])
                    yield Step(index, node, name, compare(actual, truth[name], own[name]), actual, truth[name])


def _conditioned(model: Model, inputs: Mapping[str, Array], specs: Mapping[str, TensorSpec], step: Step,
                 clock: Clock) -> Comparison:
    """The verdict on a float value beyond its budget, with what data one ulp away would give."""
    dtype = specs[step.value].dtype.numpy
    if is_exact(dtype) or step.actual.shape != step.truth.shape or not np.isfinite(step.comparison.error):
        return step.comparison
    moved = measure_moves(ending_with(model, [step.value], specs), inputs, {step.value: step.truth}, clock.check).get(step.value)
    if moved is None:
        return step.comparison
    verdict = compare_within(step.actual, step.truth, {}, dtype=dtype, moves=moved)
    return verdict if verdict else step.comparison


def observed(model: Model, inputs: Mapping[str, Array], names: list[str], float_dtype: str | None,
             clock: Clock | None = None) -> dict[str, Array]:
    """The named intermediate values of a reference run."""
    wanted = set(names)
    kept: dict[str, Array] = {}
    clock = clock or Clock()

    def observe(node: Node, results: tuple[Array, ...]) -> None:
        clock.check()
        kept.update((name, result) for name, result in zip(node.outputs, results, strict=False) if name in wanted)

    reference.run(ending_with(model, names), inputs, float_dtype=float_dtype, observe=observe)
    return kept


def windows(model: Model, inputs: Mapping[str, Array], limit: int, clock: Clock | None = None) -> Iterator[list[int]]:
    """The numbers of consecutive nodes whose float64 values take about `limit` bytes; the sizes come from one run that keeps nothing."""
    sizes: list[int] = []
    clock = clock or Clock()

    def observe(node: Node, results: tuple[Array, ...]) -> None:
        clock.check()
        sizes.append(sum(8 * result.size for result in results))

    reference.run(model, inputs, observe=observe)
    window: list[int] = []
    held = 0
    for index, size in enumerate(sizes):
        if window and held + size > limit:
            yield window
            window, held = [], 0
        window.append(index)
        held += size
    if window:
        yield window


def ending_with(model: Model, names: list[str], specs: Mapping[str, TensorSpec] | None = None) -> Model:
    """The part of a model that computes the named values, which become its outputs.

    All inputs stay, since they bind the sizes. Raises `GraphError` for a name that no node makes.
    """
    graph = model.graph
    specs = specs or check(graph, model.parameters)
    made = graph.makers
    unknown = [name for name in names if name not in made]
    if unknown:
        raise GraphError(f"no node makes the value {unknown[0]!r}", where=f"graph {graph.name!r}")
    needed = set(names)
    # Sizes that a node binds are used by name only, so a node that binds one is kept.
    kept = []
    for node in reversed(graph.nodes):
        if any(name in needed for name in node.outputs) or _binds(node):
            kept.append(node)
            needed.update(node.names)
    outputs = tuple(GraphOutput(name, specs[name], name) for name in names)
    part: Graph = replace(graph, outputs=outputs, nodes=tuple(reversed(kept)))
    return replace(model, graph=part, parameters=subset(model.parameters, needed), examples=())


def _binds(node: Node) -> bool:
    return any(attribute in node.attributes for attribute in lookup(node.op).binds)


def subset(store: ParameterStore, names: set[str]) -> ParameterStore:
    """Those parameters of a store that a part of its graph reads."""
    return ParameterView(places_in(store, (name for name in store.names() if name in names)))


def statistics(actual: Array, truth: Array) -> dict[str, float]:
    """What a person wants to know of a value that went wrong: its size, and how it differs from the truth."""
    if actual.shape != truth.shape or not actual.size:
        return {"values": float(actual.size)}
    wide = np.complex128 if "c" in (truth.dtype.kind, actual.dtype.kind) else np.float64
    left, right = actual.astype(wide), truth.astype(wide)
    finite = np.isfinite(left) & np.isfinite(right)
    with np.errstate(all="ignore"):
        error = np.abs(left - right)[finite]
        size = np.abs(right)[finite]
    return {
        "values": float(actual.size), "not finite": float(actual.size - np.count_nonzero(finite)),
        "differing": float(np.count_nonzero(left != right)),
        "largest error": float(error.max(initial=0.0)), "mean error": float(error.mean()) if error.size else 0.0,
        "largest value": float(size.max(initial=0.0)), "mean value": float(size.mean()) if size.size else 0.0,
    }
