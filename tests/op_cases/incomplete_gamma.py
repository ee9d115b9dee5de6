"""The regularized incomplete gamma functions. torch's float64 values are exact to 3e-10 only, so that rows are float32."""

from __future__ import annotations

import numpy as np
import torch

from tests.op_cases import Case, Input
from tests.op_cases.elementwise import edges


def shapes(*shape: int | str, low: float = -4, high: float = 5) -> Input:
    """Positive float32 values of sizes between powers of ten."""
    return Input(shape, lambda rng, size: (10 ** rng.uniform(low, high, size)).astype(np.float32))


def beside(a: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Arguments within a few widths of the density."""
    return (a + 3 * a.sqrt() * x).abs()


CASES = [
    row for name, function in (("igamma", torch.special.gammainc), ("igammac", torch.special.gammaincc)) for row in (
        Case(name, function, shapes("batch", 40, high=1.3), shapes(40, high=1.5)),
        Case(name, function, shapes("batch", 40), shapes("batch", 40), name="of every size"),
        Case(name, lambda a, x, function=function: function(a, beside(a, x)), shapes("batch", 40),
             Input(("batch", 40), lambda rng, size: rng.standard_normal(size).astype(np.float32)), name="in the middle"),
        Case(name, function, edges("batch", 16), edges("batch", 16), name="edges"),
        Case(name, lambda x, function=function: function(torch.tensor(0.0), x), edges("batch", 16), name="of 0"),
        Case(name, lambda a, function=function: function(a, torch.tensor(float("inf"))), edges("batch", 16), name="of infinity"),
    )
]
