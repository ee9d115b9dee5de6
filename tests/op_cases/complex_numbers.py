"""Complex numbers."""

from __future__ import annotations

import numpy as np
import torch

from tests.op_cases import Case, Input, f32, f64


def c64(*shape: int | str) -> Input:
    """complex64 values."""
    return Input(shape, lambda rng, size: (rng.standard_normal(size) + 1j * rng.standard_normal(size)).astype(np.complex64))



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
]
