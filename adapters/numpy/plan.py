"""A graph planned for many runs: what the sizes do not decide is resolved once, what they do once for each of them.

The plan holds kernels, slots for values, literal numbers as arrays, attributes without symbols, sub-graphs as plans of
their own, and after which step each value is dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

from adapters.numpy.registry import find_kernel, find_preparation
from converter.attributes import attribute_symbols, concrete_attributes
from converter.checking import check
from converter.errors import ConverterError, RunError
from converter.ir import Array, Graph, Node
from converter.parameters import InMemoryParameters, ParameterStore
from converter.resolved import ResolvedNode, resolve
from converter.sizes import bind_body

Attributes = Mapping[str, Any]
KEPT_SIZES = 64
ERRORS = (ConverterError, ValueError, IndexError, TypeError, ZeroDivisionError, np.exceptions.AxisError, MemoryError)
KEPT_BYTES = 2 << 30
"""Of what parameters alone decide (weights that are unpacked, scaled, cast): computed in the first run and kept where it takes no more."""


@dataclass(frozen=True, slots=True)
class Step:
    """One node, resolved. `operands` are slots (None: absent); `drop` lists slots that nothing reads later."""

    resolved: ResolvedNode
    kernel: Callable[..., Any]
    operands: tuple[int | None, ...]
    attributes: Attributes
    sized: Attributes
    plans: Mapping[str, Plan]
    outputs: tuple[int | None, ...]
    drop: tuple[int, ...]

    def filled(self, bindings: Mapping[str, int]) -> Attributes:
        """The attributes as the kernel takes them."""
        if not self.sized and not self.plans:
            return self.attributes
        return {**self.attributes, **concrete_attributes(self.sized, bindings),
                **{name: plan.function(bindings) for name, plan in self.plans.items()}}

    def call(self, values: Sequence[Array | None], attributes: Attributes) -> tuple[Array, ...]:
        """The node's results."""
        result = self.kernel(*(None if slot is None else values[slot] for slot in self.operands), **attributes)
        return result if isinstance(result, tuple) else (result,)


class Plan:
    """A graph with its parameters, read once. `outer` names the symbols that the graph around a sub-graph binds."""

    def __init__(self, graph: Graph, parameters: ParameterStore, outer: Iterable[str] = ()) -> None:
        self.graph = graph
        self._slots: dict[str, int] = {}
        self._constants: dict[int, Array] = {}
        specs = check(graph, parameters, outer=outer)
        self._inputs = [self._slot(port.name) for port in graph.inputs]
        self._read(parameters)
        last = {name: index for index, node in enumerate(graph.nodes) for name in (*node.names, *filter(None, node.outputs))}
        kept = {out.value for out in graph.outputs} | set(parameters.names())
        self._steps: list[Step] = []
        for index, node in enumerate(graph.nodes):
            drop = {name for name in (*node.names, *filter(None, node.outputs)) if last[name] == index and name not in kept}
            self._steps.append(self._step(node, specs, drop))
        self._outputs = [self._slot(out.value) for out in graph.outputs]
        self._once = self._decided()
        self._values: list[Array | None] = [self._constants.get(index) for index in range(len(self._slots))]
        self._known: dict[tuple[int, ...], list[Attributes]] = {}

    def _slot(self, name: str) -> int:
        return self._slots.setdefault(name, len(self._slots))

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

    def _step(self, node: Node, specs: Mapping[str, Any], drop: set[str]) -> Step:
        resolved = resolve(node)
        dtype = resolved.literal_dtype(specs)
        operands: list[int | None] = []
        for operand in resolved.operands:
            if operand is None or isinstance(operand, str):
                operands.append(None if operand is None else self._slot(operand))
            else:
                place = self._slot(f"\0{len(self._slots)}")
                self._constants[place] = np.asarray(operand, dtype.numpy)  # type: ignore[union-attr]
                operands.append(place)
        plans = {name: Plan(value, InMemoryParameters(), attribute_symbols(value)) for name, value in resolved.graphs.items()}
        sized = {name: value for name, value in resolved.given.items() if attribute_symbols(value) and name not in plans}
        plain = {name: value for name, value in resolved.given.items() if name not in sized and name not in plans}
        outputs = tuple(None if name is None else self._slot(name) for name in node.outputs)
        kernel = find_kernel(node.op, first=not any(name in self.graph.uses for name in node.outputs[1:]))
        prepare = None if sized or plans else find_preparation(node.op)
        prepared = prepare([None if slot is None else self._constants.get(slot) for slot in operands], plain) if prepare else None
        if prepared is not None:
            plain = {}
        return Step(resolved, prepared or kernel or resolved.operator.kernel, tuple(operands), plain, sized, plans, outputs,
                    tuple(map(self._slot, drop)))

    def _decided(self) -> list[Step]:
        """The steps that neither inputs nor sizes have a part in."""
        known, found = set(self._constants), []
        for step in self._steps:
            free = step.sized or step.plans or step.resolved.binds
            if not free and known.issuperset(slot for slot in step.operands if slot is not None):
                found.append(step)
                known.update(slot for slot in step.outputs if slot is not None)
        return found

    def _decide(self) -> None:
        """Computes those steps, and keeps what others read of them, or leaves them to every run where that is too much."""
        once, self._once = self._once, []
        chosen = set(map(id, once))
        rest = [step for step in self._steps if id(step) not in chosen]
        read = {slot for step in rest for slot in step.operands} | set(self._outputs)
        values, held = list(self._values), 0
        for step in once:
            for slot, array in zip(step.outputs, step.call(values, step.attributes), strict=False):
                if slot is not None:
                    values[slot] = array
                    held += array.nbytes if slot in read else 0
            if held > KEPT_BYTES:
                return
            for slot in set(step.drop) - read:
                values[slot] = None
        for step in once:
            for slot in step.outputs:
                if slot is not None and slot in read:
                    self._values[slot] = array = np.asarray(values[slot]).view()
                    array.flags.writeable = False
        self._steps = rest

    def function(self, bindings: Mapping[str, int]) -> Callable[..., tuple[Array, ...]]:
        """A sub-graph as its operator's kernel calls it, in the sizes around it."""

        def call(*arrays: Array) -> tuple[Array, ...]:
            return tuple(self.run(arrays, bind_body(self.graph, arrays, bindings)))

        return call

    def run(self, inputs: Sequence[Array], bindings: dict[str, int]) -> list[Array]:
        """The outputs for inputs that were checked, in the graph's order. `bindings` gains the sizes that nodes bind.

        Raises `RunError` when a node fails.
        """
        key = tuple(bindings.values())
        known = self._known.get(key)
        fresh: list[Attributes] | None = [] if known is None else None
        dynamic = False
        step = None
        try:
            with np.errstate(all="ignore"):
                if self._once:
                    with suppress(*ERRORS):  # the run meets the same error, and says of which node
                        self._decide()
                steps = self._steps  # first: what other steps leave out is among the values by then
                values = list(self._values)
                for place, given in zip(self._inputs, inputs, strict=True):
                    values[place] = given
                for index, step in enumerate(steps):
                    attributes = known[index] if known is not None and not dynamic else step.filled(bindings)
                    if fresh is not None:
                        fresh.append(attributes)
                    result = step.call(values, attributes)
                    for slot, array in zip(step.outputs, result, strict=False):
                        if slot is not None:
                            values[slot] = array
                    if step.resolved.binds:
                        step.resolved.bind(result, bindings)
                        dynamic = True
                    for slot in step.drop:
                        values[slot] = None
        except ConverterError as error:
            raise error.within(f"node {step.resolved.node}" if step else "the plan") from error
        except ERRORS as error:
            raise RunError(f"cannot run on these operands ({type(error).__name__}: {error})",
                           where=f"node {step.resolved.node}" if step else None) from error
        if fresh is not None and not dynamic and steps is self._steps:
            if len(self._known) >= KEPT_SIZES:
                self._known.pop(next(iter(self._known)))
            self._known[key] = fresh
        return [np.asarray(values[slot]) for slot in self._outputs]
