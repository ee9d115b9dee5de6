"""Sign, fraction, exponent and neighbours of floating-point numbers."""

from __future__ import annotations

import numpy as np
import torch

from tests.op_cases import Case, Input, f32, f64, i64
from tests.op_cases.elementwise import edges


def spread(*shape: int | str, dtype: type = np.float32) -> Input:
    """Values of every size, subnormal ones, powers of two, zeros, infinities and NaN among them."""
    limits = np.finfo(dtype)
    special = np.array([0.0, -0.0, 1.0, -1.0, 0.5, 4.0, limits.max, -limits.max, limits.tiny, limits.smallest_subnormal,
                        -3 * limits.smallest_subnormal, np.inf, -np.inf, np.nan], dtype)

    def make(rng: np.random.Generator, size: tuple[int, ...]) -> np.ndarray:
        values = np.ldexp(rng.standard_normal(size), rng.integers(int(limits.minexp), int(limits.maxexp) - 2, size)).astype(dtype)
        return np.where(rng.random(size) < 0.5, rng.choice(special, size), values)

    return Input(shape, make)


def f16(*shape: int | str) -> Input:
    return Input(shape, lambda rng, size: (rng.standard_normal(size) * 10.0 ** rng.integers(-6, 4, size)).astype(np.float16))


CASES = [
    Case("signbit", torch.signbit, edges("batch", 20)),
    Case("signbit", torch.signbit, f64("batch", 4), name="float64"),
    Case("less", torch.signbit, i64("batch", 4), name="signbit of integers"),
    Case("frexp", torch.frexp, spread("batch", 40)),
    Case("frexp", torch.frexp, spread("batch", 40, dtype=np.float64), name="float64"),
    Case("frexp", torch.frexp, f16("batch", 9), name="float16"),
    Case("nextafter", torch.nextafter, spread("batch", 40), spread(40)),
    Case("nextafter", torch.nextafter, spread("batch", 40, dtype=np.float64), spread("batch", 1, dtype=np.float64), name="float64"),
    Case("power", torch.ldexp, f32("batch", 4), i64(4), name="ldexp"),
    Case("power", torch.ldexp, f32("batch", 4), f32("batch", 1), name="ldexp by floats"),
]
