"""The gamma function's kin."""

from __future__ import annotations

import numpy as np
import torch

from tests.op_cases import Case, Input
from tests.op_cases.elementwise import edges
from tests.op_cases.special import wide


def far(*shape: int | str, dtype: type = np.float64) -> Input:
    """Positive values of every size from 1e-8 to 1e8."""
    return Input(shape, lambda rng, size: (10 ** rng.uniform(-8, 8, size)).astype(dtype))


def exponents(*shape: int | str, dtype: type = np.float64) -> Input:
    """Values in [1.1, 12)."""
    return Input(shape, lambda rng, size: rng.uniform(1.1, 12.0, size).astype(dtype))


CASES = [
    Case("lgamma", torch.lgamma, wide("batch", 40)),
    Case("lgamma", torch.lgamma, wide("batch", 40, dtype=np.float64), name="float64"),
    Case("lgamma", torch.lgamma, edges("batch", 16), name="edges"),
    Case("lgamma", torch.lgamma, far("batch", 40), name="every size"),
    Case("lgamma", lambda x: torch.lgamma(1 + x * 1e-3), wide("batch", 40, dtype=np.float64), name="around its zero"),
    Case("lgamma", lambda x: torch.mvlgamma(x + 3, 4), far("batch", 5), name="mvlgamma"),
    Case("digamma", torch.digamma, wide("batch", 40)),
    Case("digamma", torch.digamma, wide("batch", 40, dtype=np.float64), name="float64"),
    Case("digamma", torch.digamma, edges("batch", 16), name="edges"),
    Case("digamma", torch.digamma, far("batch", 40), name="every size"),
    Case("zeta", torch.special.zeta, exponents("batch", 9), far(9)),
    Case("zeta", torch.special.zeta, exponents("batch", 9, dtype=np.float32), far(9, dtype=np.float32), name="float32"),
    Case("zeta", lambda q: torch.special.zeta(3.0, q), wide("batch", 40, dtype=np.float64), name="negative, integer exponent"),
    Case("zeta", lambda q: torch.special.zeta(2.5, q), wide("batch", 9), name="negative, another exponent"),
    Case("zeta", lambda s: torch.special.zeta(s, 0.5), edges("batch", 16), name="edges"),
    # torch's own is exact to 1e-11 only, which float64 would show.
    Case("zeta", lambda x: torch.special.polygamma(1, x), wide("batch", 40), name="trigamma"),
    Case("zeta", lambda x: torch.special.polygamma(3, x), far("batch", 40), name="polygamma"),
]
