"""Max pooling over windows whose places given random numbers decide."""

from typing import Any

import numpy as np
import torch.nn.functional as F

from tests.op_cases import Case, Input, f32


def uniform(*shape: int | str) -> Input:
    """float32 values in [0, 1)."""
    return Input(shape, lambda rng, size: rng.random(size, np.float32))


def pooled(function: Any, kernel: Any, size: Any, indices: bool = False) -> Any:
    return lambda x, samples: function(x, kernel, size, return_indices=indices, _random_samples=samples)


CASES = [
    Case("fractional_max_pool", pooled(F.fractional_max_pool2d, 2, (4, 3)), f32("batch", 3, 9, 8), uniform("batch", 3, 2), name="2d"),
    Case("fractional_max_pool", pooled(F.fractional_max_pool2d, (3, 2), (5, 1), True), f32("batch", 3, 9, 8), uniform("batch", 3, 2),
         name="indices"),
    Case("fractional_max_pool", pooled(F.fractional_max_pool3d, 2, (2, 4, 3), True), f32(2, 2, 4, 9, 8), uniform(2, 2, 3), name="3d"),
    Case("fractional_max_pool", pooled(F.fractional_max_pool2d, (2, 3), (4, 3), True), f32("batch", 2, "height", "width"),
         uniform("batch", 2, 2), name="free sizes"),
    Case("fractional_max_pool", pooled(F.fractional_max_pool3d, 2, (2, 4, 3), True), f32(2, 5, 8, 9), uniform(3, 2, 3),
         name="3d, one volume"),
]
