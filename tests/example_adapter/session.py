"""A runtime of a few operators, by NumPy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np

from converter.attributes import concrete_attributes, normalize_attributes
from converter.errors import UnsupportedError
from converter.ir import Graph, Model
from converter.opset import lookup
from converter.sizes import check_inputs

Array = np.ndarray[Any, Any]


def linear(x: Array, weight: Array, bias: Array | None = None) -> Array:
    y = x @ weight.T
    return y if bias is None else y + bias


def relu(x: Array) -> Array:
    return np.maximum(x, x.dtype.type(0))


def reshape(x: Array, *, shape: tuple[int, ...]) -> Array:
    return x.reshape(shape)


KERNELS: dict[str, Callable[..., Array]] = {"linear": linear, "relu": relu, "reshape": reshape}


def refuse_unknown(graph: Graph, known: Collection[str]) -> None:
    """Raises `UnsupportedError` that names every operator of a graph that is not `known`, with how often it stands there."""
    lacking = Counter(node.op for node in graph.nodes if node.op not in known)
    if lacking:
        items: list[dict[str, object]] = [{"operator": name, "reason": "not in this runtime", "count": count}
                                          for name, count in lacking.items()]
        raise UnsupportedError("operators that this runtime lacks", where=graph.name, items=items)


class ExampleSession:
    """Runs a graph of known operators node by node."""

    def __init__(self, model: Model) -> None:
        refuse_unknown(model.graph, KERNELS.keys())
        self.model = model
        self._constants = {name: model.parameters.read(name) for name in model.parameters.names()}

    def run(self, inputs: Mapping[str, Any]) -> dict[str, Array]:
        """The outputs by name. Raises `RunError` for inputs that do not fit the graph."""
        graph = self.model.graph
        arrays, sizes = check_inputs(graph, inputs)
        values = {**self._constants, **arrays}
        for node in graph.nodes:
            operands = [values[item] if isinstance(item, str) else item for item in node.inputs]
            attributes = concrete_attributes(normalize_attributes(lookup(node.op), node.attributes), sizes)
            values[str(node.outputs[0])] = KERNELS[node.op](*operands, **attributes)
        return {port.name: values[port.value] for port in graph.outputs}
