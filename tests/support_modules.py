"""Modules converted at one set of sizes and compared with what they give themselves, at others too, in every runtime."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.utils._pytree as pytree
from torch import nn

import converter
from converter.ir import Model

RUNTIMES = ("reference", "numpy", "onnxruntime", "torch")


class Calls(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *x: torch.Tensor) -> Any:
        return self.function(*x)


def assert_same(module: nn.Module | Callable[..., Any], *calls: Sequence[torch.Tensor], tolerance: float = 1e-5, exact: bool = False,
                runtimes: Sequence[str] = RUNTIMES, dims: Any = "auto") -> Model:
    """Converts the module at the first call and holds every runtime, at every call, to what the module itself gives.

    Args:
        module: a module, or a function that is wrapped into one.
        calls: the arguments of each call, tensors all.
        tolerance: of the largest value of an output; `exact` asks for the same bits.
        dims: as `converter.from_torch` takes it.
    """
    owner = module.eval() if isinstance(module, nn.Module) else Calls(module)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = converter.from_torch(owner, tuple(calls[0]), dims=dims)
    names = [port.name for port in model.graph.inputs]
    for runtime in runtimes:
        session = converter.session(model, runtime=runtime)
        for call in calls:
            with torch.no_grad():
                wanted = [leaf.detach().numpy() for leaf in pytree.tree_leaves(owner(*call)) if isinstance(leaf, torch.Tensor)]
            found = list(session.run({name: item.numpy() for name, item in zip(names, call, strict=True)}).values())
            assert len(found) == len(wanted)
            for one, other in zip(found, wanted, strict=True):
                where = f"{runtime} at {[tuple(item.shape) for item in call]}"
                assert (one.dtype, one.shape) == (other.dtype, other.shape), where
                if exact or other.dtype.kind in "biu":
                    np.testing.assert_array_equal(one, other, err_msg=where)
                else:
                    scale = float(np.abs(other[np.isfinite(other)]).max(initial=0.0)) or 1.0
                    np.testing.assert_allclose(one, other, rtol=tolerance, atol=tolerance * scale, err_msg=where)
    return model
