"""Arithmetic and rounding."""

from __future__ import annotations

import math

import numpy as np
import torch

from tests.op_cases import Case, Input, boolean, f32, f64, i32, i64, positive


def edges(*shape: int | str) -> Input:
    """float32 values with NaN, infinities, zeros of both signs and halves among them."""
    special = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 0.5, -0.5, 1.5, 2.5, -2.5, 1e-30, -3e38], np.float32)

    def make(rng: np.random.Generator, size: tuple[int, ...]) -> np.ndarray:
        values = rng.standard_normal(size).astype(np.float32)
        return np.where(rng.random(size) < 0.7, rng.choice(special, size), values)

    return Input(shape, make)


def u8(*shape: int | str) -> Input:
    """Any uint8 values."""
    return Input(shape, lambda rng, size: rng.integers(0, 256, size).astype(np.uint8))


def nonzero_i64(*shape: int | str) -> Input:
    """int64 values in ±[1, 5]."""
    return Input(shape, lambda rng, size: rng.integers(1, 6, size) * rng.choice([-1, 1], size))


CASES = [
    Case("add", torch.add, f32("batch", 4), f32(4)),
    Case("add", lambda x: x + 2.5, f32("batch", 4), name="literal"),
    Case("add", lambda x, y: torch.add(x, y, alpha=-2), f32("batch", 4), f32("batch", 1), name="alpha"),
    Case("add", lambda x, y: torch.add(x, y, alpha=3), i64("batch", 4), i64(4), name="alpha integers"),
    Case("add", torch.add, f32("batch", 4), i64(4), name="promotion"),
    Case("add", torch.add, boolean("batch", 4), boolean(4), name="booleans"),
    Case("add", lambda x, y: x + y + 1, i32("batch", 4), f32("batch", 1), name="int32 and float32"),
    Case("add", lambda x: x + x.shape[0], f32("batch", 4), name="size"),
    Case("add", lambda x: torch.add(x, x, alpha=-3) + 200, u8("batch", 9), name="uint8 wraps"),
    Case("logical_and", torch.clamp_max, boolean("batch", 4), boolean(4), name="clamp of booleans"),
    Case("subtract", torch.sub, f32("batch", "time"), f32("time")),
    Case("subtract", lambda x: 1 - x, f32("batch", 4), name="literal first"),
    Case("subtract", lambda x: torch.rsub(x, 5, alpha=2), i64("batch", 4), name="rsub"),
    Case("subtract", lambda x: 1.5 - x, i64("batch", 4), name="integer from float"),
    Case("multiply", torch.mul, f32("batch", 1, 4), f32("time", 1)),
    Case("multiply", lambda x: x * 2, i64("batch"), name="integers"),
    Case("multiply", torch.mul, boolean("batch", 4), boolean(4), name="booleans"),
    Case("multiply", lambda x: x * 0.1, f64("batch", 3), name="float64"),
    Case("divide", torch.div, f32("batch", 4), positive(4)),
    Case("divide", torch.div, i64("batch", 4), nonzero_i64(4), name="integers"),
    Case("divide", lambda x: x / 3, i64("batch", 4), name="integer by number"),
    Case("reciprocal", lambda x: 1 / x, f64("batch", 4), name="number by float64"),
    Case("divide", lambda x: x / math.sqrt(x.shape[0]), f32("batch", 4), name="by a root of a size"),
    Case("multiply", lambda x: x * (0.15 / x.shape[0] + 2.5) - (x.shape[0] - 0.5) ** 2, f32("batch", 4), name="by a share of a size"),
    Case("divide", lambda x: torch.full((2,), x.shape[0] / 3) + x.mean(), f32("batch", 4), name="filled with a part of a size"),
    Case("divide", lambda x, y: torch.nn.functional.cross_entropy(x, y % 1, label_smoothing=0.15), f32("batch", "time", 3),
         i64("batch", 3, low=0, high=2), name="label smoothing"),
    Case("divide", lambda x: x / 0, f32("batch", 4), name="zero"),
    Case("floor_divide", torch.floor_divide, f32("batch", 4), positive(4)),
    Case("floor_divide", lambda x: (x * 8) // 0.75, f32("batch", 4), name="float by literal"),
    Case("floor_divide", lambda x: x // -3, i64("batch", 4), name="negative literal"),
    Case("floor_divide", torch.floor_divide, i64("batch", 4), nonzero_i64("batch", 4), name="integers"),
    Case("floor_divide", lambda x, y: torch.div(x, y, rounding_mode="trunc"), i64("batch", 4), nonzero_i64(4), name="trunc integers"),
    Case("floor_divide", lambda x, y: torch.div(x, y, rounding_mode="floor"), edges("batch", 40), edges(40), name="edges"),
    Case("trunc", lambda x, y: torch.div(x, y, rounding_mode="trunc"), f32("batch", 4), positive(4), name="div trunc"),
    Case("remainder", torch.remainder, f32("batch", 4), f32(4)),
    Case("remainder", lambda x: x % 1.5, f32("batch", 4), name="literal"),
    Case("remainder", lambda x: x % -1.5, f32("batch", 4), name="negative literal"),
    Case("remainder", torch.remainder, i64("batch", 4), nonzero_i64("batch", 4), name="integers"),
    Case("remainder", lambda x: 7 % x, nonzero_i64("batch", 4), name="of a number"),
    Case("fmod", torch.fmod, f32("batch", 4), f32(4)),
    Case("fmod", torch.fmod, i64("batch", 4), nonzero_i64(4), name="integers"),
    Case("gcd", torch.gcd, i64("batch", 4, low=-60, high=60), i64(4, low=-60, high=60)),
    Case("gcd", torch.gcd, i64("batch", 4, low=-(1 << 62), high=1 << 62), i64("batch", 1, low=-(1 << 62), high=1 << 62), name="large"),
    Case("gcd", torch.gcd, i32("batch", 4), i32(4), name="int32"),
    Case("gcd", torch.lcm, i64("batch", 4), i64(4), name="lcm"),
    Case("power", torch.pow, positive("batch", 4), f32(4)),
    Case("power", lambda x: x**3, f32("batch", 4), name="cube"),
    Case("power", lambda x: x**-1.7, positive("batch", 4), name="fraction"),
    Case("power", lambda x: 2**x, f32("batch", 4), name="of a number"),
    Case("power", lambda x: x**5, i64("batch", 4, low=-3000, high=3000), name="integer literal"),
    Case("power", torch.pow, i64("batch", 4, low=-12, high=13), i64("batch", 4, low=0, high=17), name="integers"),
    Case("power", torch.pow, i64("batch", 9, low=-2, high=3), i64("batch", 9), name="negative exponents"),
    Case("square", lambda x: x**2, f32("batch", 4)),
    Case("square", torch.square, i64("batch", 4), name="integers"),
    Case("sqrt", lambda x: x**0.5, positive("batch", 4), name="power"),
    Case("negative", torch.neg, f32("batch", 4)),
    Case("negative", torch.neg, i32("batch", 4), name="integers"),
    Case("abs", torch.abs, f32("batch", 4)),
    Case("abs", torch.abs, i64("batch", 4), name="integers"),
    Case("sign", torch.sign, edges("batch", 9)),
    Case("sign", torch.sign, i64("batch", 9), name="integers"),
    Case("reciprocal", torch.reciprocal, positive("batch", 4)),
    Case("reciprocal", torch.reciprocal, nonzero_i64("batch", 4), name="integers"),
    Case("maximum", torch.maximum, edges("batch", 9), edges(9)),
    Case("maximum", torch.max, i32("batch", 4), i32(4), name="integers"),
    Case("maximum", torch.maximum, boolean("batch", 4), boolean(4), name="booleans"),
    Case("minimum", torch.minimum, edges("batch", 9), edges(9)),
    Case("minimum", torch.min, f32("batch", 4), i64(4), name="promotion"),
    Case("fmax", torch.fmax, edges("batch", 9), edges(9)),
    Case("fmin", torch.fmin, edges("batch", 9), edges(9)),
    Case("clip", lambda x: x.clamp(-0.5, 0.5), edges("batch", 9)),
    Case("clip", lambda x: x.clamp(min=0.1), f64("batch", 4), name="below"),
    Case("clip", lambda x: torch.clamp_max(x, 3), i64("batch", 4), name="above integers"),
    Case("clip", lambda x: x.clamp(1, -1), f32("batch", 4), name="crossed"),
    Case("clip", lambda x: x.clamp(-1.5, 2.5), i64("batch", 4), name="integers by floats"),
    Case("clip", torch.clamp, f32("batch", 4), f32(4), f32("batch", 1), name="tensors"),
    Case("where", torch.where, boolean("batch", 4), f32("batch", 1), f32(4)),
    Case("where", lambda c, x: torch.where(c, x, 0.0), boolean("batch", 4), f32("batch", 4), name="literal"),
    Case("where", lambda c, x: torch.where(c, -1, x), boolean("batch", 4), i64("batch", 4), name="literal first"),
    Case("where", lambda c: torch.where(c, 1.0, 2.0), boolean("batch", 4), name="literals"),
    Case("where", torch.where, boolean("batch", 4), boolean(4), boolean("batch", 4), name="booleans"),
    Case("where", torch.where, boolean("batch", 4), f32(4), i64("batch", 4), name="promotion"),
    Case("lerp", lambda x, y: torch.lerp(x, y, 0.25), f32("batch", 4), f32(4), name="low"),
    Case("lerp", lambda x, y: torch.lerp(x, y, 0.75), f32("batch", 4), f32(4), name="high"),
    Case("lerp", torch.lerp, f32("batch", 4), f32(4), f32("batch", 4)),
    Case("copysign", torch.copysign, f32("batch", 9), edges(9)),
    Case("copysign", lambda x: torch.copysign(x, -1), f32("batch", 4), name="literal"),
    Case("heaviside", torch.heaviside, edges("batch", 9), f32(9)),
    Case("heaviside", torch.heaviside, i64("batch", 9), i64(9), name="integers"),
    Case("floor", torch.floor, edges("batch", 9)),
    Case("ceil", torch.ceil, edges("batch", 9)),
    Case("trunc", torch.trunc, edges("batch", 9)),
    Case("frac", torch.frac, f32("batch", 9)),
    Case("round", torch.round, edges("batch", 9)),
    Case("round", lambda x: torch.round(x * 10, decimals=1), f64("batch", 4), name="decimals"),
    Case("round", lambda x: torch.round(x * 100, decimals=-1), f32("batch", 4), name="tens"),
    Case("nan_to_num", torch.nan_to_num, edges("batch", 9), name="infinities"),
    Case("nan_to_num", lambda x: torch.nan_to_num(x, 7.0, 8.0, -9.0), edges("batch", 9), name="given"),
    Case("multiply", lambda x, y, z: torch.addcmul(x, y, z, value=0.5), f32("batch", 4), f32(4), f32("batch", 1), name="addcmul"),
    Case("divide", lambda x, y, z: torch.addcdiv(x, y, z, value=2), f32("batch", 4), f32(4), positive("batch", 1), name="addcdiv"),
    Case("logical_or", lambda x, low: torch.clamp(x, min=low), boolean("batch", 9), boolean(9), name="clamp of booleans"),
    Case("multiply", lambda x, y: x * y.sum().item(), f32("batch", 4), f32(3), name="by a number read from a tensor"),
]
