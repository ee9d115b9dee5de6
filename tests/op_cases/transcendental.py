"""Exponentials, logarithms, roots, trigonometric and hyperbolic functions."""

from __future__ import annotations

import numpy as np
import torch

from tests.op_cases import Case, Input, f32, f64, i64, positive, unit
from tests.op_cases.elementwise import edges

ANY = ("exp", "expm1", "exp2", "sin", "cos", "tan", "atan", "sinh", "cosh", "tanh", "asinh", "sigmoid")
POSITIVE = ("log", "log2", "log10", "sqrt", "rsqrt")
UNIT = ("asin", "acos", "atanh", "log1p")


def small(*shape: int | str, dtype: type = np.float32) -> Input:
    """Values so near 0 that 1 + x rounds most of their digits away."""
    return Input(shape, lambda rng, size: (rng.standard_normal(size) * 10.0 ** rng.uniform(-9, -3, size)).astype(dtype))


def above_one(*shape: int | str, dtype: type = np.float32) -> Input:
    """Values in [1, 6)."""
    return Input(shape, lambda rng, size: rng.uniform(1, 6, size).astype(dtype))


def positive64(*shape: int | str) -> Input:
    """float64 values in [0.1, 3)."""
    return Input(shape, lambda rng, size: rng.uniform(0.1, 3.0, size))


def unit64(*shape: int | str) -> Input:
    """float64 values in (-1, 1)."""
    return Input(shape, lambda rng, size: rng.uniform(-0.99, 0.99, size))


def signed_zeros(*shape: int | str) -> Input:
    """Zeros, ones and infinities of both signs."""
    values = np.array([0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, np.nan], np.float32)
    return Input(shape, lambda rng, size: rng.choice(values, size))


CASES = [
    *(Case(op, getattr(torch, op), f32("batch", 9)) for op in ANY),
    *(Case(op, getattr(torch, op), f64("batch", 9), name="float64") for op in ANY),
    *(Case(op, getattr(torch, op), i64("batch", 9), name="integers") for op in ANY),
    *(Case(op, getattr(torch, op), positive("batch", 9)) for op in POSITIVE),
    *(Case(op, getattr(torch, op), positive64("batch", 9), name="float64") for op in POSITIVE),
    *(Case(op, getattr(torch, op), unit("batch", 9)) for op in UNIT),
    *(Case(op, getattr(torch, op), unit64("batch", 9), name="float64") for op in UNIT),
    *(Case(op, getattr(torch, op), edges("batch", 16), name="edges") for op in (*ANY[:3], *ANY[6:], *POSITIVE, *UNIT)),
    *(Case(op, getattr(torch, op), small("batch", 9), name="near zero") for op in ("expm1", "log1p", "sinh", "asinh", "atanh", "asin")),
    *(Case(op, getattr(torch, op), small("batch", 9, dtype=np.float64), name="near zero float64")
      for op in ("expm1", "log1p", "sinh", "asinh", "atanh", "asin", "atan")),
    Case("acosh", torch.acosh, above_one("batch", 9)),
    Case("acosh", torch.acosh, above_one("batch", 9, dtype=np.float64), name="float64"),
    Case("atan2", torch.atan2, f32("batch", 9), f32(9)),
    Case("atan2", torch.atan2, f64("batch", 9), f64(9), name="float64"),
    Case("atan2", torch.atan2, signed_zeros("batch", 40), signed_zeros(40), name="edges"),
    Case("hypot", torch.hypot, f32("batch", 9), f32(9)),
    Case("hypot", torch.hypot, f64("batch", 9), f64(9), name="float64"),
    Case("hypot", lambda x, y: torch.hypot(x * 1e30, y * 1e30), f32("batch", 9), f32(9), name="large"),
    Case("logaddexp", torch.logaddexp, f32("batch", 9), f32(9)),
    Case("logaddexp", torch.logaddexp, edges("batch", 16), edges(16), name="edges"),
    Case("logaddexp", torch.logaddexp2, f32("batch", 9), f32(9), name="base two"),
    Case("sin", torch.sinc, f32("batch", 9), name="sinc"),
    Case("sin", lambda x: torch.sinc(x.half()).float(), f32("batch", 9), name="sinc in half"),
    Case("log", torch.logit, Input(("batch", 9), lambda rng, size: rng.uniform(0.1, 0.9, size).astype(np.float32)), name="logit"),
    Case("log", lambda x: torch.logit(x, 0.2), unit("batch", 9), name="logit clipped"),
    Case("exp", torch.exp, f32(), name="scalar"),
]
