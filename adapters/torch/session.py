"""Runs a neutral model in PyTorch, through the module that it is rebuilt as."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.utils._pytree as pytree

from adapters.torch.dtypes import to_numpy, to_tensor
from adapters.torch.rebuilding.rebuild import build
from converter.errors import ConverterError, RunError, UnsupportedError
from converter.footprint import check_memory
from converter.ir import Array, Model
from converter.sizes import check_inputs


class TorchSession:
    """`run(inputs) -> {name: array}`. Raises `UnsupportedError` when built, for operators without a torch function."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.module = build(model, [name for name in model.parameters.names() if name in model.graph.uses])

    def run(self, inputs: Mapping[str, Any]) -> dict[str, Array]:
        """The outputs by name. Raises `RunError` for inputs that do not fit the graph, and for values that do not fit in memory;
        `UnsupportedError` for an operator that PyTorch has, and not for this dtype."""
        arrays, sizes = check_inputs(self.model.graph, inputs)
        check_memory(self.model, sizes)
        with torch.no_grad():
            try:
                # Not the module itself, which prints the line of its code that fails.
                result = self.module.forward(*(to_tensor(arrays[port.name]) for port in self.model.graph.inputs))
            except (ConverterError, MemoryError):
                raise
            except NotImplementedError as error:
                raise UnsupportedError(f"PyTorch has no kernel for this here ({str(error).strip().partition(chr(10))[0][:300]})",
                                       where=f"graph {self.model.graph.name!r}", fix="run the model in another runtime") from error
            except (RuntimeError, ValueError, IndexError, TypeError, ZeroDivisionError) as error:
                raise RunError(f"cannot run on these inputs ({type(error).__name__}: {str(error).strip().partition(chr(10))[0][:300]})",
                               where=f"graph {self.model.graph.name!r}") from error
        return {port.name: to_numpy(tensor) for port, tensor in
                zip(self.model.graph.outputs, pytree.tree_leaves(result), strict=True)}
