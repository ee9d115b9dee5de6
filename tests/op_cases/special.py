"""Special functions."""

from __future__ import annotations

import numpy as np
import torch

from tests.op_cases import Case, Input, f32, f64, positive, unit
from tests.op_cases.elementwise import edges
from tests.op_cases.transcendental import small, unit64


def wide(*shape: int | str, dtype: type = np.float32) -> Input:
    """Values in [-6, 6)."""
    return Input(shape, lambda rng, size: rng.uniform(-6, 6, size).astype(dtype))


def probabilities(*shape: int | str, dtype: type = np.float32) -> Input:
    """Values in (0, 1)."""
    return Input(shape, lambda rng, size: rng.uniform(1e-3, 0.999, size).astype(dtype))


CASES = [
    Case("erf", torch.erf, wide("batch", 40)),
    Case("erf", torch.erf, wide("batch", 40, dtype=np.float64), name="float64"),
    Case("erf", torch.erf, small("batch", 9), name="near zero"),
    Case("erf", torch.erf, edges("batch", 9), name="edges"),
    Case("erfc", torch.erfc, wide("batch", 40)),
    Case("erfc", torch.erfc, wide("batch", 40, dtype=np.float64), name="float64"),
    Case("erfc", torch.erfc, edges("batch", 9), name="edges"),
    Case("erfc", lambda x: torch.erfc(x.abs() + 3), f32("batch", 9), name="tail"),
    Case("erf", torch.special.ndtr, f32("batch", 9), name="ndtr"),
    Case("erfinv", torch.erfinv, unit("batch", 40)),
    Case("erfinv", torch.erfinv, unit64("batch", 40), name="float64"),
    Case("erfinv", lambda x: torch.erfinv(torch.sign(x)), f32("batch", 4), name="ends"),
    Case("erfcx", torch.special.erfcx, wide("batch", 40)),
    Case("erfcx", torch.special.erfcx, wide("batch", 40, dtype=np.float64), name="float64"),
    Case("erfcx", torch.special.erfcx, edges("batch", 16), name="edges"),
    Case("erfcx", torch.special.log_ndtr, wide("batch", 40, dtype=np.float64), name="log_ndtr"),
    Case("erfcx", lambda x: torch.special.log_ndtr(10 * x), wide("batch", 40), name="log_ndtr, far"),
    Case("ndtri", torch.special.ndtri, probabilities("batch", 40)),
    Case("ndtri", torch.special.ndtri, probabilities("batch", 40, dtype=np.float64), name="float64"),
    Case("ndtri", lambda x: torch.special.ndtri(x ** 40), probabilities("batch", 40, dtype=np.float64), name="tail"),
    Case("ndtri", torch.special.ndtri, edges("batch", 16), name="edges"),
    Case("xlogy", torch.xlogy, f32("batch", 9), positive(9)),
    Case("xlogy", torch.xlogy, edges("batch", 16), edges(16), name="edges"),
    Case("xlogy", torch.special.entr, edges("batch", 16), name="entr"),
    Case("log1p", torch.special.xlog1py, f32("batch", 9), positive(9), name="xlog1py"),
    Case("xlogy", lambda x: torch.xlogy(x, 2.5), f64("batch", 9), name="literal"),
]
