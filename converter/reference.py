"""Runs a graph through the reference kernels: the truth, not the fast path.

With `float_dtype="float64"` every float in the model (parameters, inputs, and the dtypes that nodes name) becomes
float64, which is how a translation is told apart from rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from converter.attributes import attribute_symbols, concrete_attributes
from converter.errors import ConverterError, RunError
from converter.footprint import Footprint, check_memory
from converter.ir import Array, DType, Graph, Model, Node
from converter.opset import lookup
from converter.parameters import ParameterStore
from converter.resolved import ResolvedNode, resolve
from converter.sizes import bind_body, check_inputs, promote

Observer = Callable[[Node, tuple[Array, ...]], "tuple[Array, ...] | None"]
"""Called with a node and its outputs; what it gives, if anything, stands in for them."""


def run(model: Model, inputs: Mapping[str, Any], *, float_dtype: Any = None, observe: Observer | None = None) -> dict[str, Array]:
    """The graph's outputs by name, in its order.

    Args:
        model: the model; parameters are read as they are needed and dropped after their last use.
        inputs: arrays by input name, of the declared dtypes.
        float_dtype: the dtype that stands in for every float dtype, or None for the model's own.
        observe: called with every node and its outputs as they are made.

    Raises:
        RunError: the inputs do not fit, the values do not fit in memory, or a node fails on them.
    """
    arrays, bindings = check_inputs(model.graph, inputs)
    dtype = None if float_dtype is None else DType.of(float_dtype)
    footprint = check_memory(model, bindings, dtype)
    (outputs,) = _run_together(model.graph, model.parameters, [(arrays, bindings)], dtype, [observe], footprint)
    return outputs


def run_cases(model: Model, cases: Sequence[Mapping[str, Any]], *, float_dtype: Any = None,
              observers: Sequence[Observer | None] | None = None) -> list[dict[str, Array]]:
    """`run` on several inputs at once, node by node, so that each parameter is read, and promoted, once for all of them.

    `observers`, one for each case, are called as `run` calls its own.

    Raises:
        RunError: as `run`, for the first case that fails.
    """
    checked = [check_inputs(model.graph, inputs) for inputs in cases]
    dtype = None if float_dtype is None else DType.of(float_dtype)
    footprint = None
    for _, bindings in checked:
        footprint = check_memory(model, bindings, dtype)
    return _run_together(model.graph, model.parameters, checked, dtype, observers or [None] * len(checked), footprint)


def run_graph(graph: Graph, parameters: ParameterStore, inputs: Mapping[str, Array], bindings: dict[str, int],
              float_dtype: DType | None = None, observe: Observer | None = None) -> dict[str, Array]:
    """`run` on inputs that were checked already."""
    (outputs,) = _run_together(graph, parameters, [(inputs, bindings)], float_dtype, [observe])
    return outputs


def _run_together(graph: Graph, parameters: ParameterStore, cases: Sequence[tuple[Mapping[str, Array], dict[str, int]]],
                  float_dtype: DType | None, observers: Sequence[Observer | None],
                  footprint: Footprint | None = None) -> list[dict[str, Array]]:
    uses = graph.uses.copy()
    names = set(parameters.names())
    shared: dict[str, Array] = {}
    values: list[dict[str, Array]] = [{name: _cast(array, float_dtype) for name, array in inputs.items()} for inputs, _ in cases]

    def reader(own: dict[str, Array]) -> Callable[[str], Array]:
        def value(name: str) -> Array:
            if name in own:
                return own[name]
            if name not in shared and name in names:
                shared[name] = _cast(parameters.read(name), float_dtype)
            return shared[name]

        return value

    with np.errstate(all="ignore"):
        for node in graph.nodes:
            for own, (_, bindings), observe in zip(values, cases, observers, strict=True):
                results = run_node(node, reader(own), bindings, float_dtype)
                if footprint is not None and lookup(node.op).binds:
                    footprint.check(bindings, float_dtype)
                if observe is not None:
                    results = observe(node, results) or results
                for name, result in zip(node.outputs, results, strict=False):
                    if name is not None and uses[name]:
                        own[name] = result
            for name in node.names:
                uses[name] -= 1
                if not uses[name]:
                    shared.pop(name, None)
                    for own in values:
                        own.pop(name, None)
        return [{output.name: reader(own)(output.value) for output in graph.outputs} for own in values]


def run_node(node: Node, value: Callable[[str], Array], bindings: dict[str, int],
             float_dtype: DType | None = None) -> tuple[Array, ...]:
    """One node through its reference kernel. `bindings` gains the symbols that its outputs bind."""
    try:
        resolved = resolve(node)
    except ConverterError as error:
        raise error.within(f"node {node}") from error
    return _apply(resolved, value, bindings, float_dtype)


def _apply(resolved: ResolvedNode, value: Callable[[str], Array], bindings: dict[str, int], float_dtype: DType | None,
           attributes: Mapping[str, Any] | None = None) -> tuple[Array, ...]:
    """`run_node` for a node that was resolved, and on attributes that were worked out already where they are given."""
    try:
        arrays = [value(operand) if isinstance(operand, str) else operand for operand in resolved.operands]
        tensors = [array for array in arrays if isinstance(array, np.ndarray)]
        arguments = [np.asarray(array, tensors[-1].dtype) if operand is not None and not isinstance(operand, str) else array
                     for operand, array in zip(resolved.operands, arrays, strict=True)]
        if attributes is None:
            attributes = _attributes(resolved, bindings, float_dtype)
        result = resolved.operator.kernel(*arguments, **attributes)
    except ConverterError as error:
        raise error.within(f"node {resolved.node}") from error
    except (ValueError, IndexError, TypeError, ZeroDivisionError, np.exceptions.AxisError, MemoryError) as error:
        shapes = ", ".join(f"{array.dtype}{list(array.shape)}" for array in tensors)
        raise RunError(f"cannot run on these operands ({type(error).__name__}: {error})", where=f"node {resolved.node}",
                       received=shapes) from error
    results = tuple(np.asarray(item) for item in (result if isinstance(result, tuple) else (result,)))
    resolved.bind(results, bindings)
    return results


def _attributes(resolved: ResolvedNode, bindings: Mapping[str, int], float_dtype: DType | None) -> dict[str, Any]:
    return {name: promote(item, float_dtype) if isinstance(item, DType) else
            _Body(item, bindings, float_dtype) if isinstance(item, Graph) else item
            for name, item in concrete_attributes(resolved.given, bindings).items()}


class _Body:
    """A sub-graph as its operator's kernel calls it, once or at each step of a loop: what all steps share is worked out once."""

    def __init__(self, graph: Graph, outer: Mapping[str, int], float_dtype: DType | None) -> None:
        self.graph, self.outer, self.float_dtype = graph, outer, float_dtype

    @cached_property
    def steps(self) -> list[tuple[ResolvedNode, Mapping[str, Any] | None, list[str]]]:
        """Each node, its attributes where no size is among them, and the values that nothing reads after it."""
        nodes = [resolve(node) for node in self.graph.nodes]
        last = {name: place for place, item in enumerate(nodes) for name in (*item.node.names, *filter(None, item.node.outputs))}
        kept = {output.value for output in self.graph.outputs}
        drops: list[list[str]] = [[] for _ in nodes]
        for name, place in last.items():
            if name not in kept:
                drops[place].append(name)
        plain = [not item.graphs and not attribute_symbols(tuple(item.given.values())) for item in nodes]
        return [(item, _attributes(item, {}, self.float_dtype) if known else None, drop)
                for item, known, drop in zip(nodes, plain, drops, strict=True)]

    def __call__(self, *arrays: Array) -> tuple[Array, ...]:
        bindings = bind_body(self.graph, arrays, self.outer)
        values = {port.name: array for port, array in zip(self.graph.inputs, arrays, strict=True)}
        for resolved, attributes, drop in self.steps:
            results = _apply(resolved, values.__getitem__, bindings, self.float_dtype, attributes)
            for name, result in zip(resolved.node.outputs, results, strict=False):
                if name is not None:
                    values[name] = result
            for name in drop:
                del values[name]
        return tuple(values[output.value] for output in self.graph.outputs)


def _cast(array: Array, float_dtype: DType | None) -> Array:
    target = promote(DType.of(array.dtype), float_dtype)
    return array if target.numpy == array.dtype else array.astype(target.numpy)
