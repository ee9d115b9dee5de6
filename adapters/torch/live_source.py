"""A module itself as the source of a proof, in its own dtypes or in wider ones, where no trace of it holds at every size."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.utils._pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from adapters.torch.dtypes import TO_TORCH, from_torch_dtype
from adapters.torch.state.memory import CONVERTING
from adapters.torch.tracing.programs import Program
from adapters.torch.tracing.record import run_module
from converter.errors import RunError
from converter.ir import Array, DType
from converter.sizes import promote


def run_live(program: Program, cases: Sequence[Mapping[str, Any]], target: DType | None) -> list[dict[str, Array]]:
    """What the module of a program with rolled loops gives, with the parameters of the conversion.

    Args:
        cases: arrays by graph input.
        target: the dtype of every float; None leaves all as they are.

    Raises `RunError` where the module cannot be copied, or fails.
    """
    with CONVERTING, _default_dtype(target):  # one process has one default dtype
        return _run(program, cases, target)


@contextmanager
def _default_dtype(target: DType | None) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(before if target is None else TO_TORCH[target])
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _run(program: Program, cases: Sequence[Mapping[str, Any]], target: DType | None) -> list[dict[str, Array]]:
    try:
        module = copy.deepcopy(program.module)
        module.load_state_dict(program.exported.state_dict, strict=False)
        own = replace(program, module=module)
        if target is None:
            return [run_module(own, program.unrolled or {}, inputs) for inputs in cases]
        module._apply(lambda tensor: promoted(tensor, target))
        with Promoting(target):
            return [run_module(own, program.unrolled or {}, {name: _promoted(array, target) for name, array in inputs.items()})
                    for inputs in cases]
    except Exception as error:  # a module may raise anything at a size that it does not allow
        raise RunError("the module fails", where=type(program.module).__name__,
                       received=f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0][:200]}") from error


def _promoted(array: Any, target: DType) -> Array:
    array = np.asarray(array)
    return array.astype(promote(DType.of(array.dtype), target).numpy, copy=False)


def promoted(tensor: torch.Tensor, target: DType) -> torch.Tensor:
    return tensor.to(TO_TORCH[promote(from_torch_dtype(tensor.dtype), target)])


class Promoting(TorchDispatchMode):
    """While active, each operator takes floats, and the dtypes that it is given, as ones of the target."""

    def __init__(self, target: DType) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.target = target

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        def change(item: Any) -> Any:
            if isinstance(item, torch.dtype):
                return TO_TORCH[promote(from_torch_dtype(item), self.target)]
            narrow = isinstance(item, torch.Tensor) and (item.is_floating_point() or item.is_complex())
            return promoted(item, self.target) if narrow and not func._schema.is_mutable else item

        return func(*pytree.tree_map(change, tuple(args)), **pytree.tree_map(change, dict(kwargs or {})))
