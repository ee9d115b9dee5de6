"""Rotary positions, as model code spells them out."""

from __future__ import annotations

from collections.abc import Callable

import torch

from tests.op_cases import Case, f32, f64

Tensor = torch.Tensor


def halves(x: Tensor) -> Tensor:
    a, b = x[..., : x.shape[-1] // 2], x[..., x.shape[-1] // 2 :]
    return torch.cat((-b, a), -1)


def pairs(x: Tensor) -> Tensor:
    return torch.stack((-x[..., 1::2], x[..., ::2]), -1).flatten(-2)


def twice(angle: Tensor) -> Tensor:
    return torch.cat((angle, angle), -1)


def beside(angle: Tensor) -> Tensor:
    return angle.repeat_interleave(2, -1)


def rotary(exchange: Callable[[Tensor], Tensor], double: Callable[[Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    """x · cos + exchanged x · sin in the first part of the last axis."""

    def function(x: Tensor, angle: Tensor) -> Tensor:
        angle = double(angle)
        size = angle.shape[-1]
        turned, kept = x[..., :size], x[..., size:]
        turned = turned * (angle.cos() * 0.5) + exchange(turned) * (angle.sin() * 0.5)
        return turned if size == x.shape[-1] else torch.cat((turned, kept), -1)

    return function


def apart(x: Tensor, angle: Tensor) -> Tensor:
    a, b = x.chunk(2, -1)
    return torch.cat((a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin()), -1)


X = ("batch", 3, "time", 8)

CASES = [
    *(Case("rotary_embedding", rotary(*way), f32(*X), f32(*angles, size), name=f"{name}, {places}, {size} of 4")
      for name, way in (("halves", (halves, twice)), ("pairs", (pairs, beside)))
      for places, angles in (("each its own", ("batch", 1, "time")), ("by time", ("time",)), ("one for all", ()),
                             ("each head", (3, "time")))
      for size in (4, 3)),
    Case("rotary_embedding", apart, f32(*X), f32(1, 1, "time", 4), name="the halves apart"),
    Case("rotary_embedding", rotary(halves, twice), f64(*X), f64("time", 4), name="float64"),
    Case("rotary_embedding", rotary(pairs, beside), f32("batch", "time", 2, 8), f32("batch", "time", 1, 3), name="heads last"),
    Case("rotary_embedding", rotary(halves, twice), f32("time", 8), f32("time", 4), name="no heads"),
    Case("rotary_embedding", lambda x, angle: rotary(halves, twice)(x.bfloat16(), angle.bfloat16()).float(), f32(*X), f32("time", 4),
         name="bfloat16"),
]
