"""Complex numbers."""

from __future__ import annotations

import numpy as np
import torch

from tests.op_cases import Case, Input, f32, f64, i64


def c64(*shape: int | str) -> Input:
    """complex64 values."""
    return Input(shape, lambda rng, size: (rng.standard_normal(size) + 1j * rng.standard_normal(size)).astype(np.complex64))


def c128(*shape: int | str) -> Input:
    """complex128 values."""
    return Input(shape, lambda rng, size: rng.standard_normal(size) + 1j * rng.standard_normal(size))


def wide(*shape: int | str) -> Input:
    """complex64 values of many sizes, real and imaginary ones among them."""
    def make(rng: np.random.Generator, size: tuple[int, ...]) -> np.ndarray:
        parts = [rng.standard_normal(size) * 10.0 ** rng.integers(-3, 2, size) * rng.integers(0, 4, size).clip(max=1) for _ in range(2)]
        return (parts[0] + 1j * parts[1] + 1e-3).astype(np.complex64)

    return Input(shape, make)


def unbounded(*shape: int | str) -> Input:
    """complex64 values of a few rows: log 0, sums of infinite numbers, and NaN among them."""
    def make(rng: np.random.Generator, size: tuple[int, ...]) -> np.ndarray:
        x = (rng.standard_normal(size) + 1j * rng.standard_normal(size)).astype(np.complex64)
        x.real[0, :3] = x.real[1, 1:4] = -np.inf
        x.real[2, 2] = x.real[3, 2] = x.real[3, 4] = np.inf
        x.imag[3, 4] = 0.0
        x.real[4, 3] = x.imag[5, 3] = np.nan
        x[6, 1] = x[6, 0] + 1j * np.pi
        return x

    return Input(shape, make)


FUNCTIONS = ("expm1", "log1p", "exp2", "sigmoid", "tanh", "tan", "asin", "acos", "asinh", "acosh", "atan", "atanh")

CASES = [
    Case("real", torch.real, c64("batch", 4)),
    Case("imag", torch.imag, c64("batch", 4)),
    Case("conj", lambda x: torch.conj(x).resolve_conj() * 2, c64("batch", 4)),
    Case("angle", torch.angle, c64("batch", 4)),
    Case("angle", torch.angle, f32("batch", 4), name="floats"),
    Case("complex", torch.complex, f32("batch", 4), f32(4)),
    Case("complex", torch.polar, f64("batch", 4), f64("batch", 4), name="polar"),
    Case("view_as_complex", lambda x, y: torch.view_as_real(torch.view_as_complex(x) * torch.view_as_complex(y)), f32("batch", 4, 2),
         f32("batch", 4, 2)),
    Case("abs", torch.abs, c64("batch", 4), name="complex"),
    Case("sign", torch.sgn, c64("batch", 4), name="complex"),
    Case("exp", torch.exp, c64("batch", 4), name="complex"),
    Case("sum", lambda x: x.sum(1), c64("batch", 4), name="complex"),
    Case("var", lambda x: x.var(1), c64("batch", 4), name="complex"),
    Case("vector_norm", lambda x: torch.linalg.vector_norm(x, dim=1), c64("batch", 4), name="complex"),
    Case("pad", lambda x: torch.nn.functional.pad(x, (1, 2), value=3.0), c64("batch", 4), name="complex"),
    Case("multiply", lambda x, y: torch.view_as_real(torch.view_as_complex(x) * y), f32("batch", 4, 2), c64(4), name="rotary"),
    Case("divide", lambda x, y: x / y, c64("batch", 4), c64(4), name="complex"),
    Case("matmul", lambda x, y: x @ y, c64("batch", 3, 4), c64(4, 5), name="complex"),
    Case("sqrt", torch.sqrt, c64("batch", 9), name="complex"),
    Case("log", torch.log, c64("batch", 9), name="complex"),
    Case("cos", torch.cos, c64("batch", 9), name="complex"),
    Case("sinh", torch.sinh, c64("batch", 9), name="complex"),
    Case("rsqrt", torch.rsqrt, c64("batch", 9), name="complex"),
    Case("equal", lambda x: x == x.flip(1), c64("batch", 3), name="complex"),
    Case("concat", lambda x, y: torch.cat([x, y.to(torch.complex64)], 1).transpose(0, 1)[1:], c64("batch", 3), f32("batch", 2),
         name="complex"),
    *(Case(op, getattr(torch, op), c64("batch", 9), name="complex") for op in FUNCTIONS),
    Case("logcumsumexp", lambda x: x.logcumsumexp(1), wide("batch", "time"), name="complex"),
    Case("logcumsumexp", lambda x: x.logcumsumexp(0), c128("batch", 5, "time"), name="complex128"),
    Case("logcumsumexp", lambda x: torch.view_as_real(x.logcumsumexp(-1)), unbounded(8, 6), name="complex, infinities"),
    Case("logcumsumexp", lambda x: x.logcumsumexp(0), c64("batch"), name="complex, vector"),
    *(Case(op, getattr(torch, op), c128("batch", 9), name="complex128") for op in FUNCTIONS),
    *(Case(op, getattr(torch, op), wide("batch", 40), name="complex of many sizes") for op in FUNCTIONS[4:]),
    Case("silu", torch.nn.functional.silu, c64("batch", 9), name="complex"),
    Case("power", torch.pow, c64("batch", 9), c64(9), name="complex"),
    Case("power", lambda x: x**3, c64("batch", 9), name="complex cube"),
    Case("power", lambda x: x**-1.5, c64("batch", 9), name="complex fraction"),
    Case("lerp", torch.lerp, c64("batch", 9), c64(9), c64(9), name="complex"),
    Case("lerp", lambda x, y: torch.lerp(x, y, 0.4), c64("batch", 9), c64(9), name="complex, by a number"),
    Case("std", lambda x: x.std(1), c64("batch", 4), name="complex"),
    Case("prod", lambda x: x.prod(1), c64("batch", 4), name="complex"),
    Case("prod", lambda x: x.prod(0, keepdim=True), c64("batch", 4), name="complex kept"),
    Case("cumulative_prod", lambda x: x.cumprod(1), c64("batch", 4), name="complex"),
    Case("cross", lambda x, y: torch.linalg.cross(x, y), c64("batch", 3), c64("batch", 3), name="complex"),
    Case("count_nonzero", lambda x: torch.count_nonzero(x * (x.real > 0), 1), c64("batch", 6), name="complex"),
    Case("convolution", torch.nn.functional.conv1d, c64("batch", 3, 5), c64(4, 3, 2), c64(4), name="complex"),
    Case("convolution_transpose", torch.nn.functional.conv_transpose1d, c64("batch", 3, 5), c64(3, 4, 2), c64(4), name="complex"),
    Case("vector_norm", lambda x, y: torch.dist(x, y), c64("batch", 4), c64(4), name="complex dist"),
    Case("vector_norm", torch.nn.functional.pairwise_distance, c64("batch", 4), c64("batch", 4), name="complex pairs"),
    Case("log", lambda x: torch.logsumexp(x, 1), c64("batch", 5), name="complex logsumexp"),
    Case("log", lambda x: torch.logsumexp(x, (0, 1), True), c64("batch", 5), name="complex logsumexp kept"),
    Case("log1p", torch.logaddexp, c64("batch", 5), c64(5), name="complex logaddexp"),
    Case("rms_norm", lambda x, w: torch.nn.functional.rms_norm(x, (5,), w), c64("batch", 5), c64(5), name="complex rms_norm"),
    Case("scatter", lambda x, i, v: x.scatter_reduce(1, i, v, "sum"), c64("batch", 3), i64("batch", 4, low=0, high=3), c64("batch", 4),
         name="complex sum"),
    Case("scatter", lambda x, i, v: x.scatter_reduce(1, i, v, "prod"), c64("batch", 3), i64("batch", 4, low=0, high=3), c64("batch", 4),
         name="complex product", xfail={"onnxruntime": "products of complex numbers at one place are refused"}),
]
