"""Runs a traced module in PyTorch, in its own dtypes or with every float in float64: the other side of the proof."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.utils._pytree as pytree
from torch.export.graph_signature import InputKind, OutputKind

from adapters.torch.dtypes import TO_TORCH, from_torch_dtype, to_numpy, to_tensor
from adapters.torch.export import Program
from converter.ir import DType
from converter.sizes import promote

Array = np.ndarray[Any, Any]


def run_exported(program: Program, inputs: Mapping[str, Any], *, float_dtype: Any = None) -> dict[str, Array]:
    """The traced program's outputs by the neutral graph's names.

    Args:
        program: from `adapters.torch.export.trace`.
        inputs: arrays by graph input.
        float_dtype: the dtype for every float tensor, parameter and dtype argument; None leaves all as they are.
    """
    target = None if float_dtype is None else DType.of(float_dtype)
    exported = program.exported
    constants = {**exported.constants, **exported.state_dict}
    names = iter(program.input_names)
    arguments: list[Any] = []
    for spec in exported.graph_signature.input_specs:
        if spec.kind is InputKind.USER_INPUT:
            name = next(names)
            arguments.append(_cast(to_tensor(np.asarray(inputs[name])), target) if name is not None else getattr(spec.arg, "value", None))
        elif spec.target in constants and isinstance(constants[spec.target], torch.Tensor):
            arguments.append(_cast(constants[spec.target].detach(), target))
        else:
            arguments.append(constants.get(spec.target))
    with torch.no_grad():
        results = _Promoting(exported.graph_module, target).run(*arguments, enable_io_processing=False)
    flat = [item for item in pytree.tree_leaves(results, is_leaf=lambda leaf: leaf is None)]
    user = [item for spec, item in zip(exported.graph_signature.output_specs, flat, strict=True) if spec.kind is OutputKind.USER_OUTPUT]
    return {name: to_numpy(item if isinstance(item, torch.Tensor) else torch.tensor(item))
            for name, item in zip(program.output_names, user, strict=True) if name is not None}


class ProgramSource:
    """A traced program as the source that `converter.verify(model, source=…)` compares with.

    `model` is the neutral model that the trace gave, so that a model read from a file is compared with it too.
    """

    def __init__(self, program: Program) -> None:
        self.program = program
        self.model = program.model
        self.versions = {"torch": str(torch.__version__)}

    def run(self, inputs: Mapping[str, Any], float_dtype: Any = None) -> dict[str, Array]:
        """The program's outputs by the neutral graph's names; see `run_exported`."""
        return run_exported(self.program, inputs, float_dtype=float_dtype)


def _cast(tensor: torch.Tensor, target: DType | None) -> torch.Tensor:
    dtype = from_torch_dtype(tensor.dtype)
    # A copy in every case: an in-place operator in the traced program must not reach the module's parameters.
    return tensor.to(TO_TORCH[promote(dtype, target)], copy=True)


class _Promoting(torch.fx.Interpreter):
    """Runs a traced graph with each dtype argument promoted and the checks of the traced dtypes left out."""

    def __init__(self, module: torch.fx.GraphModule, target: DType | None) -> None:
        super().__init__(module)
        self.target = target

    def call_function(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if self.target is None:
            return super().call_function(target, args, kwargs)
        if target is torch.ops.aten._assert_tensor_metadata.default:
            return None

        def change(item: Any) -> Any:
            return TO_TORCH[promote(from_torch_dtype(item), self.target)] if isinstance(item, torch.dtype) else item

        args, kwargs = pytree.tree_map(change, (args, kwargs))
        with _default_dtype(self.target):
            return super().call_function(target, args, kwargs)


class _default_dtype:
    """torch's default dtype, which creation functions and integer division use, for the duration."""

    def __init__(self, dtype: DType) -> None:
        self.dtype = TO_TORCH[dtype]

    def __enter__(self) -> None:
        self.before = torch.get_default_dtype()
        torch.set_default_dtype(self.dtype)

    def __exit__(self, *_: object) -> None:
        torch.set_default_dtype(self.before)
