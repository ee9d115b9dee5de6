"""Neutral models as PyTorch modules again: a `torch.fx.GraphModule` whose code a person can read, train and export.

    module = to_module(model)
    module.code                      # def forward(self, tokens): …
    module.state_dict().keys()       # the names that the model came with
    module(tokens)

Sizes are computed from the inputs' shapes, so the module works wherever the model does, and refuses those outside of the
model's ranges and conditions. Its arguments are the graph's
inputs, in order, dots and the like replaced by underscores. It returns one tensor where the graph has one output that is
named `output`, a tuple for `output_0`, `output_1`, …, and a dict by name otherwise.
"""

from __future__ import annotations

import keyword
import operator as python
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch.fx import Graph as FxGraph
from torch.fx import GraphModule
from torch.fx import Node as FxNode
from torch.fx.graph import _is_from_torch

from adapters.torch.dtypes import TO_TORCH
from adapters.torch.rebuilding.functions import function, require
from adapters.torch.rebuilding.holding import RebuiltModule, hold
from adapters.torch.rebuilding.spelling import SPELLINGS
from adapters.torch.registry import rebuilders
from converter.attributes import attribute_symbols
from converter.checking import check
from converter.conditions import Condition, compare
from converter.dims import Dim, Expr, symbol
from converter.ir import DType, Graph, Model, Node
from converter.opset import facts_of, lookup
from converter.ports.refusals import refuse_unknown
from converter.resolved import resolve
from converter.size_writer import SizeWriter


def to_module(model: Model) -> GraphModule:
    """The model as a module in evaluation mode, trainable.

    Its state_dict has the names of the source's; tied parameters are one tensor again. Integers, what the source
    held as buffers, and running statistics are buffers; the model's `constants` are buffers outside the state_dict; all
    else is an `nn.Parameter` that requires a gradient. Values are copied.

    Raises:
        UnsupportedError: operators without a torch function; all are listed.
    """
    return build(model, model.parameters.names())


def build(model: Model, names: Iterable[str]) -> GraphModule:
    """`to_module` with those parameters alone."""
    refuse_unknown(model.graph, rebuilders(), "operators that PyTorch cannot run here", "no torch function")
    module = RebuiltModule(torch.nn.Module(), FxGraph(), class_name=_identifier(model.graph.name))
    paths = hold(module, model, list(names), held_as_buffers=buffers(model))
    Emitter(module, model.graph, check(model.graph, model.parameters), paths).emit()
    return module.eval()


# Parameters --------------------------------------------------------------------------------------------------------------


def buffers(model: Model) -> frozenset[str]:
    """The parameters that are no `nn.Parameter`: the source's buffers where the model says which, and what shows as one."""
    noted = model.metadata.get("buffers")
    found = set(model.constants)
    if isinstance(noted, (list, tuple)):
        found |= {name for name in noted if isinstance(name, str)}
    for node in model.graph.nodes:
        found.update(operand for position, operand in enumerate(node.inputs)
                     if position in facts_of(node.op).statistics and isinstance(operand, str))
    for name in model.parameters.names():
        dtype = model.parameters.spec(name).dtype
        if not (dtype.is_float or dtype.is_complex):
            found.add(name)
    return frozenset(found)


# Code --------------------------------------------------------------------------------------------------------------------


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "+": python.add, "-": python.sub, "*": python.mul, "//": python.floordiv, "%": python.mod, "max": torch.sym_max, "min": torch.sym_min}


class Reader(torch.fx.Tracer):
    """Reads a module's code again when it is unpickled: buffers are values of the graph, as parameters are."""

    proxy_buffer_attributes = True


CALLED = frozenset({"self", "getattr", "slice", "range", "torch", "device", "inf", "nan", "NoneType", "fx_pytree", "pytree"})
"""What torch.fx's code calls by name, so that no argument may hide it; names of other values torch.fx chooses itself."""


class Emitter(SizeWriter[FxNode | int]):
    """Writes one graph as the forward of a module that holds its parameters."""

    def __init__(self, module: GraphModule, graph: Graph, specs: Mapping[str, Any], paths: Mapping[str, str]) -> None:
        super().__init__()
        self.module, self.source, self.specs, self.paths = module, graph, specs, paths
        self.graph = FxGraph()
        self.values: dict[str, FxNode] = {}
        self.bound: dict[str, tuple[FxNode, int | None]] = {}
        self.arguments: set[str] = set()

    def emit(self, given: tuple[str, ...] = ()) -> None:
        """Gives the module its code. `given` are sizes that the caller passes after the inputs."""
        for port in self.source.inputs:
            value = self.graph.placeholder(self._argument(port.name))
            self.values[port.name] = value
            for axis, size in enumerate(port.spec.shape):
                if isinstance(size, Expr) and size.symbol:
                    self.bound.setdefault(size.symbol, (value, axis))
        for name in given:
            self.made[symbol(name)] = self.graph.placeholder(self._argument(f"size_{name}"))
        for condition in (*_within_ranges(self.source), *self.source.requires):
            self._require(condition)
        for node in self.source.nodes:
            self._node(node)
        self.graph.output(self._result())
        self.graph.lint()
        self.module.graph = self.graph
        self.module._tracer_cls = Reader

    def _require(self, condition: Condition) -> None:
        """A check that stands before all else, as a model gives wrong values where its sizes do not meet it."""
        left, right = condition.sides
        comparison = {">=": python.ge, "<=": python.le, "==": python.eq, "!=": python.ne}[condition.written]
        met = self.graph.call_function(comparison, (self.size(left), self.size(right)))
        self.graph.call_function(require, (met, str(condition)))

    def _argument(self, name: str) -> str:
        """A name for an argument of forward: an identifier that no other argument has."""
        text = _identifier(name)
        while text in self.arguments or keyword.iskeyword(text) or text in CALLED:
            text += "_"
        self.arguments.add(text)
        return text

    def _result(self) -> Any:
        results = {port.name: self.value(port.value) for port in self.source.outputs}
        names = list(results)
        if names == ["output"]:
            return results["output"]
        if names == [f"output_{position}" for position in range(len(names))]:
            return tuple(results.values())
        return results

    def value(self, name: str) -> FxNode:
        """A value, or a parameter where it is first read."""
        if name not in self.values:
            self.values[name] = self.graph.get_attr(self.paths[name])
        return self.values[name]

    def _node(self, node: Node) -> None:
        resolved = resolve(node)
        operands = [self.value(item) if isinstance(item, str) else item for item in resolved.operands]
        while operands and operands[-1] is None:
            operands.pop()
        name = _identifier(next(filter(None, node.outputs)))
        attributes = {}
        if resolved.graphs:
            needed = tuple(sorted(set().union(*map(attribute_symbols, resolved.graphs.values()))))
            operands += [self.size(symbol(item)) for item in needed]
            attributes = {key: self._module(f"{name}_{key}", value, needed) for key, value in resolved.graphs.items()}
        result = None
        spelling = SPELLINGS.get(node.op)
        if spelling is not None:
            filled = {key: self._written(value) for key, value in {**resolved.filled, **attributes}.items()
                      if key not in resolved.operator.binds}
            result = spelling(self.graph, tuple(operands), filled)
        if result is None:
            written = {key: self._written(value) for key, value in {**resolved.given, **attributes}.items()}
            result = self.graph.call_function(self._target(node.op, operands, written), tuple(operands), written)
        self._outputs(node, result, name)
        for size, output, axis in resolved.binds:
            self.bound[size] = (self.values[node.outputs[output]], axis)  # type: ignore[index]

    def _target(self, op: str, operands: list[Any], attributes: Mapping[str, Any]) -> Callable[..., Any]:
        """torch's own function where the operator is just that, else `adapters.torch.rebuilding.functions`."""
        own = rebuilders()[op]
        plain = not attributes and all(item is None or isinstance(item, FxNode) for item in operands)
        return own if plain and _is_from_torch(own) else function(op)

    def _outputs(self, node: Node, result: FxNode, name: str) -> None:
        if len(node.outputs) == 1 and not self._gives_several(node):
            result._rename(name)
            self.values[node.output] = result
            return
        for position, output in enumerate(node.outputs):
            if output is not None:
                self.values[output] = self.graph.call_function(python.getitem, (result, position))
                self.values[output]._rename(_identifier(output))

    def _gives_several(self, node: Node) -> bool:
        """Whether the torch function gives a tuple, which is so where the shape rule does."""
        from converter.checking import infer_node

        outputs = lookup(node.op).outputs
        return outputs is None or len(outputs) > 1 or len(infer_node(node, self.specs)) > 1

    def _module(self, name: str, graph: Graph, given: tuple[str, ...]) -> FxNode:
        """A sub-graph as a module inside this one; it returns a tuple."""
        inner = GraphModule(torch.nn.Module(), FxGraph(), class_name=_identifier(graph.name))
        emitter = Emitter(inner, graph, check(graph, outer=given), {})
        emitter._result = lambda: tuple(emitter.value(port.value) for port in graph.outputs)  # type: ignore[method-assign]
        emitter.emit(given)
        while hasattr(self.module, name):
            name += "_"
        self.module.add_module(name, inner)
        return self.graph.get_attr(name)

    def _written(self, value: Any) -> Any:
        if isinstance(value, Expr):
            return self.size(value)
        if isinstance(value, tuple):
            return tuple(self._written(item) for item in value)
        return TO_TORCH[value] if isinstance(value, DType) else value

    def number(self, value: int) -> int:
        return value

    def symbol(self, name: str) -> FxNode:
        tensor, axis = self.bound[name]
        result = self.graph.call_method("item", (tensor,)) if axis is None else self.graph.call_method("size", (tensor, axis))
        result._rename(_identifier(name))
        return result

    def combine(self, function: str, left: FxNode | int, right: FxNode | int) -> FxNode:
        return self.graph.call_function(FUNCTIONS[function], (left, right))


def _within_ranges(graph: Graph) -> Iterator[Condition]:
    """The ranges of the sizes that a graph's inputs bind, as conditions; a size of 1 and up needs none."""
    names = {size.symbol for port in graph.inputs for size in port.spec.shape if isinstance(size, Expr) and size.symbol}
    for name, span in graph.dims.items():
        size = symbol(name)
        ends: list[tuple[Dim, str, Dim]] = [(size, ">=", span.min)] if span.min > 1 else []
        if span.max is not None:
            ends.append((size, "<=", span.max))
        if span.step > 1:
            ends.append(((size - span.min) % span.step, "==", 0))
        for end in ends if name in names else ():
            condition = compare(*end)
            if isinstance(condition, Condition):
                yield condition


def _identifier(name: str) -> str:
    text = re.sub(r"\W", "_", name, flags=re.ASCII)
    return f"_{text}" if not text or text[0].isdigit() else text
