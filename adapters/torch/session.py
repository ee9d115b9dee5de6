"""Runs a neutral model in PyTorch, operator by operator, through the rebuilders."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from adapters.torch.dtypes import to_numpy, to_tensor
from adapters.torch.registry import rebuilders
from converter.errors import UnsupportedError
from converter.ir import Model
from converter.opset import bind_operands, concrete_attributes, lookup, normalize_attributes
from converter.sizes import check_inputs

Array = np.ndarray[Any, Any]


class TorchSession:
    """`run(inputs) -> {name: array}`. Raises `UnsupportedError` when built, for operators without a torch function."""

    def __init__(self, model: Model) -> None:
        self.model = model
        missing = sorted({node.op for node in model.graph.nodes} - rebuilders().keys())
        if missing:
            raise UnsupportedError("operators that PyTorch cannot run here",
                                   items=[{"operator": name, "reason": "no torch function"} for name in missing])
        used = {name for node in model.graph.nodes for name in node.names} | {item.value for item in model.graph.outputs}
        self.parameters = {name: to_tensor(model.parameters.read(name)) for name in model.parameters.names() if name in used}

    def run(self, inputs: Mapping[str, Any]) -> dict[str, Array]:
        """The outputs by name. Raises `RunError` for inputs that do not fit the graph."""
        arrays, bindings = check_inputs(self.model.graph, inputs)
        values = {name: to_tensor(array) for name, array in arrays.items()} | self.parameters
        uses = Counter(name for node in self.model.graph.nodes for name in node.names)
        uses.update(item.value for item in self.model.graph.outputs)
        with torch.no_grad():
            for node in self.model.graph.nodes:
                operator = lookup(node.op)
                operands = bind_operands(operator, node.inputs)
                tensors = [values[item] for item in operands if isinstance(item, str)]
                arguments = [values[item] if isinstance(item, str) else item if item is None
                             else torch.tensor(item, dtype=tensors[-1].dtype) for item in operands]
                attributes = normalize_attributes(operator, node.attributes)
                binds = {name: attributes.pop(name) for name in operator.binds if name in attributes}
                result = rebuilders()[node.op](*arguments, **concrete_attributes(attributes, bindings))
                results = tuple(result) if isinstance(result, (tuple, list)) else (result,)
                for name, size in binds.items():
                    output, axis = operator.binds[name]
                    bindings[size.symbol] = results[output].shape[axis]
                for name, tensor in zip(node.outputs, results, strict=False):
                    if name is not None:
                        values[name] = tensor
                for name in node.names:
                    uses[name] -= 1
                    if not uses[name] and name not in self.parameters:
                        del values[name]
        return {item.name: to_numpy(values[item.value]) for item in self.model.graph.outputs}


