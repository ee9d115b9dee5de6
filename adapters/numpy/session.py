"""The NumPy runtime: a graph is planned once, when the session is made, and run many times.

The plan resolves everything that does not depend on the inputs: kernels, slots for values, literal numbers as arrays,
attributes without symbols, and after which step each value is dropped. What depends on sizes alone is resolved once
for each combination of sizes and kept.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from adapters.numpy.registry import kernels
from converter.errors import ConverterError, RunError
from converter.ir import Model, Node
from converter.opset import (
    attribute_symbols,
    bind_operands,
    check,
    concrete_attributes,
    literal_dtype,
    lookup,
    normalize_attributes,
)
from converter.sizes import check_inputs

Array = np.ndarray[Any, Any]
KEPT_PLANS = 64


@dataclass(frozen=True, slots=True)
class Step:
    """One node, resolved. `operands` are slots (None: absent); `drop` lists slots that nothing reads later."""

    node: Node
    kernel: Callable[..., Any]
    operands: tuple[int | None, ...]
    attributes: Mapping[str, Any]
    sized: Mapping[str, Any]
    binds: tuple[tuple[str, int, int], ...]
    outputs: tuple[int | None, ...]
    drop: tuple[int, ...]


class NumpySession:
    """`run(inputs) -> {name: array}` in NumPy alone.

    Parameters are read once, when the session is made (mapped, where the store maps them).
    """

    def __init__(self, model: Model) -> None:
        self.model = model
        specs = check(model.graph, model.parameters)
        slots: dict[str, int] = {}

        def slot(name: str) -> int:
            return slots.setdefault(name, len(slots))

        self._inputs = {port.name: slot(port.name) for port in model.graph.inputs}
        used = {name for node in model.graph.nodes for name in node.names} | {out.value for out in model.graph.outputs}
        constants: dict[int, Array] = {}
        loaded: dict[str, Array] = {}
        for name in model.parameters.names():
            if name in used:
                target = model.parameters.alias_of(name) or name
                if target not in loaded:
                    loaded[target] = model.parameters.read(target)
                constants[slot(name)] = loaded[target]
        last: dict[str, int] = {}
        for index, node in enumerate(model.graph.nodes):
            for name in (*node.names, *filter(None, node.outputs)):
                last[name] = index
        kept = {out.value for out in model.graph.outputs} | set(model.parameters.names())
        self._steps: list[Step] = []
        for index, node in enumerate(model.graph.nodes):
            operator = lookup(node.op)
            dtype = literal_dtype(node.inputs, specs)
            operands: list[int | None] = []
            for operand in bind_operands(operator, node.inputs):
                if operand is None or isinstance(operand, str):
                    operands.append(None if operand is None else slot(operand))
                else:
                    place = slot(f"\0{len(slots)}")
                    constants[place] = np.asarray(operand, dtype.numpy)  # type: ignore[union-attr]
                    operands.append(place)
            normal = normalize_attributes(operator, node.attributes)
            binds = tuple((normal.pop(name).symbol, *operator.binds[name]) for name in operator.binds if name in normal)
            sized = {name: value for name, value in normal.items() if attribute_symbols(value)}
            names = (*node.names, *filter(None, node.outputs))
            drop = tuple({slot(name) for name in names if last[name] == index and name not in kept})
            self._steps.append(Step(node, kernels().get(node.op, operator.kernel), tuple(operands),
                                    {name: value for name, value in normal.items() if name not in sized}, sized, binds,
                                    tuple(None if name is None else slot(name) for name in node.outputs), drop))
        self._outputs = [(out.name, slot(out.value)) for out in model.graph.outputs]
        self._values: list[Array | None] = [constants.get(index) for index in range(len(slots))]
        self._plans: dict[tuple[int, ...], list[Mapping[str, Any]]] = {}

    def run(self, inputs: Mapping[str, Any]) -> dict[str, Array]:
        """The outputs by name, in the graph's order.

        Raises:
            RunError: the inputs do not fit the graph, or a node fails on them.
        """
        arrays, bindings = check_inputs(self.model.graph, inputs)
        values = list(self._values)
        for name, slot in self._inputs.items():
            values[slot] = arrays[name]
        key = tuple(bindings.values())
        plan = self._plans.get(key)
        fresh: list[Mapping[str, Any]] | None = [] if plan is None else None
        dynamic = False
        step = None
        try:
            with np.errstate(all="ignore"):
                for index, step in enumerate(self._steps):
                    if plan is not None and not dynamic:
                        attributes = plan[index]
                    else:
                        attributes = {**step.attributes, **concrete_attributes(step.sized, bindings)} if step.sized else step.attributes
                        if fresh is not None:
                            fresh.append(attributes)
                    result = step.kernel(*(None if slot is None else values[slot] for slot in step.operands), **attributes)
                    if not isinstance(result, tuple):
                        result = (result,)
                    for slot, array in zip(step.outputs, result, strict=False):
                        if slot is not None:
                            values[slot] = array
                    for symbol, output, axis in step.binds:
                        bindings[symbol] = result[output].shape[axis]
                        dynamic = True
                    for slot in step.drop:
                        values[slot] = None
        except ConverterError as error:
            raise error.within(f"node {step.node}" if step else "the plan") from error
        except (ValueError, IndexError, TypeError, ZeroDivisionError, np.exceptions.AxisError, MemoryError) as error:
            raise RunError(f"cannot run on these operands ({type(error).__name__}: {error})",
                           where=f"node {step.node}" if step else None) from error
        if fresh is not None and not dynamic:
            if len(self._plans) >= KEPT_PLANS:
                self._plans.pop(next(iter(self._plans)))
            self._plans[key] = fresh
        return {name: np.asarray(values[slot]) for name, slot in self._outputs}
