"""A graph planned for many runs: what the sizes do not decide is resolved once, what they do once for each of them.

The plan holds slots for values, literal numbers as arrays, steps with their kernels, and sub-graphs as plans of their own. For sizes
that it has met before, a run calls kernels with prepared arguments, and does nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np

from adapters.numpy.chains import make_chain, with_tail
from adapters.numpy.grouping import Group, groups
from adapters.numpy.profile import PlannedStep, planned
from adapters.numpy.registry import find_kernel, find_preparation
from adapters.numpy.steps import ABSENT, ERRORS, NOWHERE, Call, Step, Values, failure
from converter.attributes import attribute_symbols
from converter.checking import check
from converter.footprint import Footprint
from converter.ir import Array, Graph
from converter.parameters import InMemoryParameters, ParameterStore
from converter.resolved import ResolvedNode, resolve
from converter.sizes import bind_body

KEPT_SIZES = 64
Watch = Callable[[Step, Callable[..., Any]], Callable[..., Any]]
KEPT_BYTES = 2 << 30
"""Of what parameters alone decide (weights that are unpacked, scaled, cast): computed in the first run and kept where it takes no more."""


class Plan:
    """A graph with its parameters, read once. `outer` names the symbols that the graph around a sub-graph binds."""

    def __init__(self, graph: Graph, parameters: ParameterStore, outer: Iterable[str] = ()) -> None:
        self.graph = graph
        self._slots: dict[str, int] = {"\0absent": ABSENT, "\0nowhere": NOWHERE}
        self._constants: dict[int, Array] = {}
        self._specs = check(graph, parameters, outer=outer)
        self._footprint = Footprint(graph, self._specs)
        self._inputs = [self._slot(port.name) for port in graph.inputs]
        self._read(parameters)
        nodes = [resolve(node) for node in graph.nodes]
        names = set(parameters.names())
        self._steps = [self._step(group, nodes) for group in groups(graph, nodes, self._specs, names)]
        self._outputs = [self._slot(out.value) for out in graph.outputs]
        self._steps = self._dropping(self._steps)
        self._once = self._decided()
        self._values: Values = [self._constants.get(index) for index in range(len(self._slots))]
        self._known: dict[tuple[int, ...], list[Call]] = {}
        self._dynamic = any(step.resolved.binds for step in self._steps)

    def _slot(self, name: str | None) -> int:
        return NOWHERE if name is None else self._slots.setdefault(name, len(self._slots))

    def _read(self, parameters: ParameterStore) -> None:
        loaded: dict[str, Array] = {}
        for name in parameters.names():
            if name in self.graph.uses:
                target = parameters.alias_of(name) or name
                if target not in loaded:
                    loaded[target] = parameters.mapped(target)
                self._constants[self._slot(name)] = loaded[target]

    @property
    def constants(self) -> tuple[Array, ...]:
        """The arrays that every run reads."""
        return tuple(self._constants.values())

    def _operand(self, operand: Any, node: ResolvedNode) -> int:
        """The slot of a value, or of a number, which becomes a constant; `node`: the one that takes it."""
        if operand is None or isinstance(operand, str):
            return ABSENT if operand is None else self._slot(operand)
        return self._constant(np.asarray(operand, node.number_dtype(self._specs).numpy))

    def _constant(self, array: Array) -> int:
        place = self._slot(f"\0{len(self._slots)}")
        self._constants[place] = array
        return place

    def _step(self, group: Group, nodes: Sequence[ResolvedNode]) -> Step:
        layer = None if group.layer is None else nodes[group.layer]
        first = None if layer is None else self._single(layer)
        if first is not None and not group.chain:
            return first
        chain = [nodes[index] for index in group.chain]
        members = [self._single(node) for node in chain]
        held = None if layer is None else layer.node.outputs[0]
        shift = layer.operands[2] if layer is not None and layer.operator.name == "linear" else None
        made = make_chain(chain, self._specs, held, shift)  # type: ignore[arg-type]
        if made is None:
            return members[0]
        links, operands = made
        slots = tuple(self._slot(operand) if isinstance(operand, str) else self._constant(operand) for operand in operands)
        kernel: Callable[..., Any] = links
        if first is not None:
            members = [first, *members]
            begun = first.operands if shift is None else (*first.operands[:2], ABSENT)
            kernel, slots = with_tail(first.kernel, len(begun), links), (*begun, *slots[1:])
        attributes = {} if first is None else first.attributes
        way = "blocks" if first is None else first.way
        return Step(chain[-1], kernel, slots, members[-1].outputs, way, attributes=attributes, members=tuple(members))

    def _single(self, resolved: ResolvedNode) -> Step:
        node = resolved.node
        operands = tuple(self._operand(operand, resolved) for operand in resolved.operands)
        plans = {name: Plan(value, InMemoryParameters(), attribute_symbols(value)) for name, value in resolved.graphs.items()}
        sized = {name: value for name, value in resolved.given.items() if attribute_symbols(value) and name not in plans}
        plain = {name: value for name, value in resolved.given.items() if name not in sized and name not in plans}
        kernel = find_kernel(node.op, first=not any(name in self.graph.uses for name in node.outputs[1:]))
        prepare = None if sized or plans else find_preparation(node.op)
        prepared = prepare([self._constants.get(slot) for slot in operands], plain) if prepare else None
        if prepared is not None:
            plain = {}
        way = "packed" if prepared else "kernel" if kernel else "reference"
        return Step(resolved, prepared or kernel or resolved.operator.kernel, operands, tuple(map(self._slot, node.outputs)), way,
                    attributes=plain, sized=sized, plans=plans)

    def _dropping(self, steps: Sequence[Step]) -> list[Step]:
        """The steps, each with the slots that nothing reads after it."""
        last = {slot: index for index, step in enumerate(steps) for slot in (*step.operands, *step.outputs)}
        kept = {*self._constants, *self._outputs, ABSENT}
        drop: list[list[int]] = [[] for _ in steps]
        for slot, index in last.items():
            if slot not in kept:
                drop[index].append(slot)
        return [replace(step, drop=tuple(slots)) for step, slots in zip(steps, drop, strict=True)]

    def _decided(self) -> list[Step]:
        """The steps that neither inputs nor sizes have a part in."""
        known, found = {ABSENT, *self._constants}, []
        for step in self._steps:
            free = step.sized or step.plans or step.resolved.binds
            if not free and known.issuperset(step.operands):
                found.append(step)
                known.update(step.outputs)
        return found

    def _decide(self) -> None:
        """Computes those steps, and keeps what others read of them, or leaves them to every run where that is too much."""
        once, self._once = self._once, []
        chosen = set(map(id, once))
        rest = [step for step in self._steps if id(step) not in chosen]
        read = {slot for step in rest for slot in step.operands} | set(self._outputs)
        values, held = list(self._values), 0
        for step in once:
            replace(step, drop=()).call({}).run(values)
            held += sum(values[slot].nbytes for slot in step.outputs if slot in read)
            if held > KEPT_BYTES:
                return
            for slot in set(step.drop) - read:
                values[slot] = None
        for step in once:
            for slot in step.outputs:
                if slot in read:
                    self._values[slot] = array = np.asarray(values[slot]).view()
                    array.flags.writeable = False
        self._steps = rest

    def function(self, bindings: Mapping[str, int]) -> Callable[..., tuple[Array, ...]]:
        """A sub-graph as its operator's kernel calls it, in the sizes around it."""

        def call(*arrays: Array) -> tuple[Array, ...]:
            return tuple(self.run(arrays, bind_body(self.graph, arrays, bindings)))

        return call

    def steps(self) -> list[PlannedStep]:
        """What a run does, in order, and before it what the first run does."""
        once = set(map(id, self._once))
        return [planned(step, "once" if id(step) in once else None) for step in self._steps]

    def run(self, inputs: Sequence[Array], bindings: dict[str, int], watch: Watch | None = None) -> list[Array]:
        """The outputs for inputs that were checked, in the graph's order. `bindings` gains the sizes that nodes bind.

        `watch` gives the function to call in place of a step's. Raises `RunError` when a node fails, and for values that do not fit in
        memory.
        """
        key = tuple(bindings.values())
        if key not in self._known:
            self._footprint.check(bindings)
        with np.errstate(all="ignore"):
            if self._once:
                with suppress(*ERRORS):  # the run meets the same error, and says of which node
                    self._decide()
            steps = self._steps  # first: what other steps leave out is among the values by then
            values = self._values.copy()
            for place, given in zip(self._inputs, inputs, strict=True):
                values[place] = given
            if self._dynamic:
                self._run_dynamic(steps, values, bindings, watch)
            else:
                calls = self._known.get(key)
                if calls is None:
                    calls = self._prepare(steps, bindings, key)
                if watch is not None:
                    calls = [call._replace(function=watch(call.step, call.function)) for call in calls]
                run_calls(calls, values)
            return [np.asarray(values[slot]) for slot in self._outputs]

    def _prepare(self, steps: Sequence[Step], bindings: Mapping[str, int], key: tuple[int, ...]) -> list[Call]:
        try:
            calls = []
            for step in steps:
                calls.append(step.call(bindings))
        except ERRORS as error:
            raise failure(f"node {step.resolved.node}", error) from error
        if steps is self._steps:
            if len(self._known) >= KEPT_SIZES:
                self._known.pop(next(iter(self._known)), None)
            self._known[key] = calls
        return calls

    def _run_dynamic(self, steps: Sequence[Step], values: Values, bindings: dict[str, int], watch: Watch | None) -> None:
        """Steps some of which bind sizes that others are called with."""
        for step in steps:
            try:
                call = replace(step, drop=()).call(bindings)
            except ERRORS as error:
                raise failure(f"node {step.resolved.node}", error) from error
            if watch is not None:
                call = call._replace(function=watch(step, call.function))
            call.run(values)
            if step.resolved.binds:
                step.resolved.bind([values[slot] for slot in step.outputs], bindings)
                self._footprint.check(bindings)
            for slot in step.drop:
                values[slot] = None


def run_calls(calls: Sequence[Call], values: Values) -> None:
    """Runs steps in known sizes."""
    call = None
    try:
        for call in calls:
            function, operands, outputs, drop, _ = call
            result = function(*[values[slot] for slot in operands])
            if type(result) is tuple:
                for slot, array in zip(outputs, result, strict=False):
                    values[slot] = array
            else:
                values[outputs[0]] = result
            for slot in drop:
                values[slot] = None
    except ERRORS as error:
        if call is None:
            raise
        call.step.explain(error, values)
        run_calls(calls[calls.index(call) + 1:], values)
