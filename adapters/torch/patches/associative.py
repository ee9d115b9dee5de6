"""`associative_scan` in any number of steps: torch's own recursion halves the sequence in Python, which fixes its length."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any
from unittest.mock import patch

import torch
import torch.utils._pytree as pytree
from torch import Tensor

MODULE = import_module("torch._higher_order_ops.associative_scan")


def one_after_another(operator: Callable[..., Any], leaves: Sequence[Tensor], dim: int = 0, additional_inputs: Any = ()) -> list[Tensor]:
    """The running combination of [steps, …] tensors along axis 0 by `scan`, whose state is what came before.

    operator: torch's wrapper of the function, which maps it over many elements at once; here it is called for one at a time.
    """
    from torch._higher_order_ops.scan import scan

    options = operator.keywords  # type: ignore[attr-defined]
    single, spec = inspect.getclosurevars(options["combine_fn"]).nonlocals["func"], options["spec"]

    def step(state: tuple[Tensor, ...], elements: tuple[Tensor, ...]) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        begun, *before = state
        joined = pytree.tree_leaves(single(pytree.tree_unflatten(before, spec), pytree.tree_unflatten(list(elements), spec)))
        now = [torch.where(begun, both, own) for both, own in zip(joined, elements, strict=True)]
        return (torch.ones_like(begun), *now), tuple(item.clone() for item in now)

    start = (torch.zeros((), dtype=torch.bool), *(torch.zeros_like(item[0]) for item in leaves))
    _, rows = scan(step, start, tuple(leaves))
    return list(rows)


@contextmanager
def free_associative_scans() -> Iterator[None]:
    """While active, `associative_scan` of the generic mode is traced as one loop."""
    with patch.object(MODULE, "generic_associative_scan", one_after_another):
        yield
