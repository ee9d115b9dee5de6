"""A runtime of a few operators, by NumPy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from converter.attributes import concrete_attributes
from converter.ir import Model
from converter.ports.refusals import refuse_unknown
from converter.resolved import resolve
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


class ExampleSession:
    """Runs a graph of known operators node by node."""

    def __init__(self, model: Model) -> None:
        refuse_unknown(model.graph, KERNELS, "operators that this runtime lacks", "not in this runtime")
        self.model = model
        self._constants = {name: model.parameters.read(name) for name in model.parameters.names()}

    def run(self, inputs: Mapping[str, Any]) -> dict[str, Array]:
        """The outputs by name. Raises `RunError` for inputs that do not fit the graph."""
        graph = self.model.graph
        arrays, sizes = check_inputs(graph, inputs)
        values = {**self._constants, **arrays}
        for node in graph.nodes:
            resolved = resolve(node)
            operands = [values[item] if isinstance(item, str) else item for item in resolved.operands]
            values[str(node.outputs[0])] = KERNELS[node.op](*operands, **concrete_attributes(resolved.given, sizes))
        return {port.name: values[port.value] for port in graph.outputs}
