"""Gradients that forward itself asks for (forces of a potential, Jacobians), traced as the operators that compute them.

`torch.export` traces above autograd, where the gradient is not computed yet. Where a module asks for one, it is traced
below, where the backward operators are like any other. So are functions under `vmap` that cannot be traced above.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
import torch.utils._pytree as pytree
from torch.export import ExportedProgram

from adapters.torch.patches.batching import linear_by_product

GRADIENTS = ((torch.autograd, "grad"), (torch.autograd, "backward"), (torch._functorch.eager_transforms, "grad_increment_nesting"),
             (torch._functorch.eager_transforms, "jvp_increment_nesting"))
"""What forward calls, or what torch.func calls for it, when it asks for a gradient."""

VMAP = (torch._functorch.vmap, "vmap_increment_nesting")


@contextmanager
def noticed() -> Iterator[list[str]]:
    """While active, the list that is given gains the name of each function of `GRADIENTS` and `VMAP` that is called."""
    asked: list[str] = []

    def noting(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            asked.append(name)
            return function(*args, **kwargs)

        return call

    with ExitStack() as stack:
        for owner, name in (*GRADIENTS, VMAP):
            stack.enter_context(patch.object(owner, name, noting(name, getattr(owner, name))))
        yield asked


def _jacobian(function: Callable[..., Any], argnums: Any = 0, has_aux: bool = False, *, randomness: str = "error") -> Callable[..., Any]:
    return torch.func.jacrev(function, argnums, has_aux=has_aux)


PLAIN = ((F, "linear", linear_by_product), (torch._functorch.eager_transforms, "jacfwd", _jacobian))
"""What asks for a size as a number, which would fix it, where functorch wraps its operands; `hessian` calls the second."""


def _detached(forward: Callable[..., Any]) -> Callable[..., Any]:
    """`forward` whose results ask for no gradient, an energy beside its forces, say: the tracer would ask for it a second time."""

    @functools.wraps(forward)
    def call(*args: Any, **kwargs: Any) -> Any:
        return pytree.tree_map(lambda leaf: leaf.detach() if isinstance(leaf, torch.Tensor) else leaf, forward(*args, **kwargs))

    return call


def exported_below_autograd(module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], shapes: Any) -> ExportedProgram:
    """`torch.export.export` with autograd's own operators in the graph."""
    from torch.export._trace import _export

    with ExitStack() as stack:
        for owner, name, function in PLAIN:
            stack.enter_context(patch.object(owner, name, function))
        stack.enter_context(patch.object(module, "forward", _detached(module.forward)))
        return _export(module, args, kwargs, dynamic_shapes=shapes, strict=False, pre_dispatch=False)
