"""Linear layers that quantise their input by its own range at each call, and give floats."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from adapters.torch.quantized.packed import Packed
from adapters.torch.quantized.values import computing, fused, refused, single

SMALL = single(6.1e-5)
"""The least scale that torch chooses."""


def chosen(x: Tensor, highest: int) -> tuple[Tensor, Tensor]:
    """The scale and the zero point, both float64 [], that steps 0 to `highest` have for the range of x with zero in it.

    The zero point is counted from that end of the range from which there is less to count.
    """
    low, high = x.amin().clamp(max=0), x.amax().clamp(min=0)
    scale = (high.to(torch.float64) - low) / highest
    narrow = scale.to(torch.float32)
    scale = torch.where((narrow == 0) | torch.isinf(1.0 / narrow), 0.1, scale)
    grown = torch.where(scale < SMALL, SMALL / scale.to(torch.float32), 1.0)
    scale = scale.clamp(min=SMALL)
    below, above = ((end * grown).to(torch.float64) / scale for end in (low, high))
    return scale, torch.round(torch.where(-below.abs() < highest - above.abs(), -below, highest - above)).clamp(0, highest)


@dataclass(frozen=True)
class Product:
    """x · weightᵀ + bias of floats, x in steps of 0 to `highest` of its own range.

    `weight` is float64 [out, in] and whole, `scale` float32 [] or [out]. `together`: a sum times its scale and the bias are
    rounded as one.
    """

    weight: Tensor
    scale: Tensor
    bias: Tensor | None
    highest: int
    together: bool

    @classmethod
    def of(cls, packed: Packed, highest: int, together: bool) -> Product:
        """With packed weights."""
        weight = packed.weight.to(torch.float64)
        if packed.zero_point is not None:
            weight = weight - packed.along(packed.zero_point, 2, packed.axis)
        return cls(weight, packed.scale, packed.bias, highest, together)

    def __call__(self, x: Tensor) -> Tensor:
        scale, zero_point = chosen(x, self.highest)
        narrow = scale.to(torch.float32)
        whole = torch.round(fused(x, (1.0 / narrow).to(torch.float64), zero_point)).to(torch.float64).clamp(0, 255) - zero_point
        total, factor = F.linear(whole, self.weight).to(torch.float32), narrow * self.scale
        if self.bias is None:
            return total * factor
        return fused(total, factor.to(torch.float64), self.bias) if self.together else total * factor + self.bias


def product(operator: Any, packed: Any, reduce_range: bool) -> Callable[[Tensor], Tensor]:
    """What a layer computes: FBGEMM's way or QNNPACK's, found by running its kernel. Raises `UnsupportedError` where it is neither."""
    if not isinstance(packed, Packed):
        raise refused(str(operator), "its weights are not the module's")
    if packed.weight.dtype is torch.float16:
        return lambda x: F.linear(x, packed.weight.to(torch.float32), packed.bias)
    left = [(127, True), (255, False)] if reduce_range else [(255, True), (255, False)]
    with computing():
        real, draw = packed.real(), torch.Generator().manual_seed(0)
        for _ in range(24):
            x = torch.randn((8, real.weight.shape[1]), generator=draw)
            found = operator(x, packed.original, reduce_range)
            left = [way for way in left if torch.equal(Product.of(real, *way)(x), found)]
    if not left:
        raise refused(str(operator), "its kernel on this machine rounds in another way than FBGEMM and QNNPACK")
    return Product.of(packed, *left[0])


def linear(relu: bool) -> Callable[..., Tensor]:
    """What stands in for an operator of `torch.ops.quantized` that takes floats and packed weights."""

    def compute(X: Tensor, W_prepack: Any, reduce_range: bool = False) -> Tensor:
        y = product(torch.ops.quantized.linear_dynamic, W_prepack, reduce_range)(X)
        return y.relu() if relu else y

    return compute
