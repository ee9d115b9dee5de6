"""Functions of torch's that look at values while they run, as tensor arithmetic that a trace can hold.

`torch.equal` and `torch.allclose` answer with a Python bool, `item` with a Python complex number, `torch.narrow` reads where
to start, `combinations` how many of them, and `torch.cov` asks whether its weights are positive. While `answers_as_tensors()` is
active, the answers are tensors without axes, the combinations are found at once, and the weights are taken as they are. What
branches on an answer still fails to trace.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import reduce
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

import adapters.torch.patches.quantization as quantization
from adapters.torch.patches.tables import holds_sizes


def _equal(input: Tensor, other: Tensor) -> Tensor:
    """Whether both have one shape and equal values."""
    if input.dim() != other.dim() or any(mine != yours for mine, yours in zip(input.shape, other.shape, strict=True)):
        return torch.zeros((), dtype=torch.bool)
    return (input == other).all()


def _allclose(input: Tensor, other: Tensor, rtol: float = 1e-05, atol: float = 1e-08, equal_nan: bool = False) -> Tensor:
    return torch.isclose(input, other, rtol, atol, equal_nan).all()


def _item(input: Tensor) -> Any:
    return input.reshape(()).to(torch.complex128) if input.is_complex() else Tensor.item(input)


def _narrow(input: Tensor, dim: int, start: int | Tensor, length: int) -> Tensor:
    if not isinstance(start, Tensor):
        return torch.narrow(input, dim, start, length)
    first = torch.where(start < 0, start + input.shape[dim], start)
    return input.index_select(dim, first + torch.arange(length))


def _cov(input: Tensor, *, correction: int = 1, fweights: Tensor | None = None, aweights: Tensor | None = None) -> Tensor:
    """torch.cov, [variables, observations] -> [variables, variables]: Σ w (x - x̄)(x - x̄)ᴴ over Σ w - correction · Σ w a / Σ w."""
    x = input.reshape(1, -1) if input.dim() < 2 else input
    weights = fweights if aweights is None else aweights if fweights is None else fweights * aweights
    if weights is None:
        weighted, total = x, torch.scalar_tensor(x.shape[1], dtype=torch.int64)
    else:
        weighted, total = x * weights, weights.sum()
    freedom = total - correction
    if aweights is not None and weights is not None and correction != 0:
        freedom = total - correction * (weights * aweights).sum() / total
    centred = x - (weighted.sum(1) / total).unsqueeze(1)
    product = centred @ (centred if weights is None else centred * weights).t().conj()
    return torch.true_divide(product, freedom.clamp(min=0)).squeeze()


def _corrcoef(input: Tensor) -> Tensor:
    c = _cov(input)
    if c.dim() == 0:
        return c / c
    variances = c.diagonal()
    deviations = (variances.real if c.is_complex() else variances).sqrt()
    c = c / deviations.reshape(-1, 1) / deviations.reshape(1, -1)
    return torch.complex(c.real.clip(-1, 1), c.imag.clip(-1, 1)) if c.is_complex() else c.clip(-1, 1)


def _combinations(input: Tensor, r: int = 2, with_replacement: bool = False) -> Tensor:
    """[n] -> [count, r]: where r indices ascend, in row-major order; torch selects each of the r columns by itself."""
    if r < 2 or input.dim() != 1:
        return torch.combinations(input, r, with_replacement)
    places = torch.arange(input.shape[0])
    grids = [places.reshape([-1 if axis == column else 1 for axis in range(r)]) for column in range(r)]
    ascends = torch.le if with_replacement else torch.lt
    chosen = reduce(torch.logical_and, (ascends(low, high) for low, high in pairwise(grids)))
    return input[chosen.nonzero()]


def _numbers(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """torch.tensor or torch.as_tensor; numbers of sizes, which a trace with a dtype would fix, become a tensor before its dtype."""
    def make(data: Any, *, dtype: torch.dtype | None = None, **options: Any) -> Tensor:
        data = list(data) if isinstance(data, torch.Size) else data
        if not holds_sizes(data) or options.get("requires_grad"):
            return function(data, dtype=dtype, **options)
        made = torch.tensor(data)
        return made if dtype is None else made.to(dtype)

    return make


_TRACEABLE: Mapping[Any, Callable[..., Any]] = {
    torch.equal: _equal, Tensor.equal: _equal, torch.allclose: _allclose, Tensor.allclose: _allclose, Tensor.item: _item,
    torch.tensor: _numbers(torch.tensor), torch.narrow: _narrow, Tensor.narrow: _narrow,
    torch.ops.aten._local_scalar_dense.default: _item, torch.combinations: _combinations,
    **quantization.FUNCTIONS, torch.cov: _cov, Tensor.cov: _cov, torch.corrcoef: _corrcoef, Tensor.corrcoef: _corrcoef,
}


class _Answers(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _TRACEABLE.get(func, func)(*args, **(kwargs or {}))


@contextmanager
def answers_as_tensors() -> Iterator[None]:
    """While active, the functions above are traced as what they compute."""
    as_tensor = torch.as_tensor
    torch.as_tensor = _numbers(as_tensor)  # no mode sees it
    try:
        with _Answers():
            yield
    finally:
        torch.as_tensor = as_tensor
