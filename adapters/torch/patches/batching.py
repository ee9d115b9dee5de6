"""What `vmap` does to operators for which torch's own rules ask for sizes as numbers, which would fix them.

While `free_batches()` is active, these operators have rules in Python: the mapped axis of every operand that has one is moved to
the front, where it is one axis more, or is folded into the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
import torch._functorch.apis as apis
import torch.nn.functional as F
import torch.utils._pytree as pytree
from torch import Tensor
from torch._C import DispatchKey, DispatchKeySet, _ExcludeDispatchKeyGuard
from torch._C._functorch import _add_batch_dim, _unwrap_batched, is_batchedtensor, maybe_current_level
from torch._functorch.vmap import vmap_impl

aten = torch.ops.aten
Rule = Callable[..., Any]


def _front(value: Any, level: int) -> tuple[Tensor, bool]:
    """A tensor without the mapped axis of the level, which stands in front where there is one."""
    if not isinstance(value, Tensor):
        return value, False
    plain, axis = _unwrap_batched(value, level)
    return (plain, False) if axis is None else (plain.movedim(axis, 0) if axis else plain, True)


def _mapped(rule: Rule) -> Rule:
    """A kernel for batched tensors from a rule that takes plain ones, each followed in `mapped` by whether axis 0 is the mapped one."""

    def kernel(*args: Any, **kwargs: Any) -> Any:
        level = maybe_current_level() or 0
        with _ExcludeDispatchKeyGuard(DispatchKeySet(DispatchKey.FuncTorchBatched)):
            leaves, structure = pytree.tree_flatten((args, kwargs))
            pairs = [_front(leaf, level) for leaf in leaves]
            count = next(leaf.shape[0] for leaf, is_mapped in pairs if is_mapped)
            plain, named = pytree.tree_unflatten([leaf for leaf, _ in pairs], structure)
            mapped, _ = pytree.tree_unflatten([flag for _, flag in pairs], structure)
            results = rule(mapped, count, *plain, **named)
        return pytree.tree_map(lambda item: _add_batch_dim(item, 0, level) if isinstance(item, Tensor) else item, results)

    return kernel


def _all(tensors: Sequence[Tensor], mapped: Sequence[bool], count: Any) -> list[Tensor]:
    """Tensors that all have the mapped axis."""
    return [item if has else item.unsqueeze(0).expand(count, *item.shape) for item, has in zip(tensors, mapped, strict=True)]


def _axis(axis: int) -> int:
    return axis + 1 if axis >= 0 else axis


def _cat(mapped: Any, count: Any, tensors: Any, dim: int = 0) -> Tensor:
    return torch.cat(_all(tensors, mapped[0], count), _axis(dim))


def _along(operator: Any) -> Rule:
    """gather and the scatters: (x, axis, index, …) of one rank each; numbers have no axis."""

    def rule(mapped: Any, count: Any, x: Tensor, dim: int, *rest: Any, **options: Any) -> Tensor:
        tensors = [item for item in rest if isinstance(item, Tensor)]
        flags = [flag for item, flag in zip(rest, mapped[2:], strict=True) if isinstance(item, Tensor)]
        full = _all([x, *tensors], [mapped[0], *flags], count)
        narrow = full[0].dim() == 1
        full = [item.unsqueeze(1) if item.dim() == 1 else item for item in full]
        others = iter(full[1:])
        y = operator(full[0], _axis(dim), *(next(others) if isinstance(item, Tensor) else item for item in rest), **options)
        return y.squeeze(1) if narrow else y

    return rule


def _layer_norm(mapped: Any, count: Any, x: Tensor, normalized_shape: Any, weight: Any, bias: Any, eps: float) -> tuple[Tensor, ...]:
    x, = _all([x], mapped[:1], count)
    y, mean, rstd = aten.native_layer_norm(x, normalized_shape, None, None, eps)

    def spread(item: Tensor, has: bool) -> Tensor:
        return item.reshape(count, *[1] * (x.dim() - item.dim()), *item.shape[1:]) if has else item

    if weight is not None:
        y = y * spread(weight, mapped[2])
    return y if bias is None else y + spread(bias, mapped[3]), mean, rstd


def _batch_norm(mapped: Any, count: Any, x: Tensor, weight: Any, bias: Any, mean: Any, var: Any, training: bool, momentum: float,
                eps: float) -> tuple[Tensor, ...]:
    x, = _all([x], mapped[:1], count)
    if training:
        axes = (1, *range(3, x.dim()))
        mean, var = x.mean(axes), x.var(axes, unbiased=False)
        mapped = [*mapped[:3], True, True]

    def spread(item: Tensor, has: bool) -> Tensor:
        return item.reshape(count if has else 1, 1, -1, *[1] * (x.dim() - 3))

    y = (x - spread(mean, mapped[3])) * torch.rsqrt(spread(var, mapped[4]) + eps)
    y = y if weight is None else y * spread(weight, mapped[1])
    y = y if bias is None else y + spread(bias, mapped[2])
    return y, y.new_empty((count, 0)), y.new_empty((count, 0))


def _folded(operator: Any) -> Rule:
    """Operators that treat each element of axis 0 alike, and whose other operands are not mapped."""

    def rule(mapped: Any, count: Any, x: Tensor, *rest: Any, **options: Any) -> Any:
        x, = _all([x], mapped[:1], count)
        results = operator(x.flatten(0, 1), *rest, **options)
        return pytree.tree_map(lambda item: item.unflatten(0, (count, -1)), results)

    return rule


RULES: dict[str, Rule] = {
    "cat": _cat, "gather": _along(torch.gather), "scatter.src": _along(torch.scatter), "scatter.value": _along(torch.scatter),
    "scatter_add": _along(torch.scatter_add), "scatter_reduce.two": _along(torch.scatter_reduce),
    "native_layer_norm": _layer_norm, "native_batch_norm": _batch_norm,
    "group_norm": _folded(aten.group_norm),
    "max_pool2d_with_indices": _folded(aten.max_pool2d_with_indices),
    **{f"{name}.vec": _folded(getattr(aten, name).vec) for name in ("upsample_nearest1d", "upsample_nearest2d", "upsample_nearest3d",
       "upsample_linear1d", "upsample_bilinear2d", "upsample_bicubic2d", "upsample_trilinear3d")},
}


def linear_by_product(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """torch.nn.functional.linear as a product and a sum, whose rules ask for no size."""
    product = torch.matmul(input, weight.transpose(-1, -2) if weight.dim() > 1 else weight)
    return product if bias is None else product + bias


def _linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    function = linear_by_product if isinstance(weight, Tensor) and is_batchedtensor(weight) else LINEAR
    return function(input, weight, bias)


LINEAR = F.linear


@contextmanager
def free_batches() -> Iterator[None]:
    """While active, the operators of `RULES` are mapped without a look at their sizes."""
    # A loop over chunks would fix their number, and gives what one call gives.
    whole = patch.object(apis, "vmap_impl", lambda function, in_dims, out_dims, randomness, chunk_size, *args, **kwargs: vmap_impl(
        function, in_dims, out_dims, randomness, None, *args, **kwargs))
    with whole, patch.object(F, "linear", _linear), torch.library._scoped_library("aten", "IMPL") as library:
        for name, rule in RULES.items():
            library.impl(name, _mapped(rule), "FuncTorchBatched", allow_override=True)
        yield
