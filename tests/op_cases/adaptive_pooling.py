"""Pooling to a given number of windows."""

import torch.nn.functional as F
from torch import nn

from tests.op_cases import Case, f32, f64

CASES = [
    Case("adaptive_avg_pool", nn.AdaptiveAvgPool2d(1), f32("batch", 4, "height", "width"), name="global"),
    Case("adaptive_avg_pool", nn.AdaptiveAvgPool1d(1), f32("batch", 4, "length"), name="global 1d"),
    Case("adaptive_avg_pool", nn.AdaptiveAvgPool3d(1), f32("batch", 4, 2, "height", "width"), name="global 3d"),
    Case("adaptive_avg_pool", nn.AdaptiveAvgPool2d((3, 4)), f32("batch", 4, 9, 8), name="divides"),
    Case("adaptive_avg_pool", nn.AdaptiveAvgPool2d((3, 5)), f32("batch", 4, 8, 7), name="does not divide"),
    Case("adaptive_avg_pool", nn.AdaptiveAvgPool2d((3, 5)), f32("batch", 4, "height", "width"), name="any size"),
    Case("adaptive_avg_pool", nn.AdaptiveAvgPool2d((None, 1)), f32("batch", 4, "height", "width"), name="one axis"),
    Case("adaptive_avg_pool", nn.AdaptiveAvgPool2d((1, 4)), f32("batch", 4, "height", "width"), name="one axis to one"),
    Case("adaptive_avg_pool", nn.AdaptiveAvgPool1d(6), f32("batch", 4, "length"), name="also larger"),
    Case("adaptive_avg_pool", nn.AdaptiveAvgPool3d((2, 3, 5)), f32("batch", 2, 3, "height", "width"), name="3d"),
    Case("adaptive_avg_pool", nn.AdaptiveAvgPool2d(2), f32(4, "height", "width"), name="unbatched"),
    Case("adaptive_avg_pool", lambda x: F.adaptive_avg_pool2d(x, (2, 3)), f64("batch", 4, "height", "width"), name="float64"),
    Case("adaptive_avg_pool", lambda x: F.adaptive_avg_pool2d(x, 1), f64("batch", 4, 6, 6), name="float64 global"),
    Case("adaptive_avg_pool", lambda x: F.adaptive_avg_pool2d(x, 2), f64("batch", 4, 6, 6), name="float64 divides"),
    Case("adaptive_max_pool", nn.AdaptiveMaxPool2d(1), f32("batch", 4, "height", "width"), name="global"),
    Case("adaptive_max_pool", nn.AdaptiveMaxPool2d((3, 5)), f32("batch", 4, "height", "width"), name="any size"),
    Case("adaptive_max_pool", nn.AdaptiveMaxPool2d((3, 4)), f32("batch", 4, 9, 8), name="divides"),
    Case("adaptive_max_pool", nn.AdaptiveMaxPool1d(3, return_indices=True), f32("batch", 4, "length"), name="indices 1d"),
    Case("adaptive_max_pool", nn.AdaptiveMaxPool2d((3, 2), return_indices=True), f32("batch", 4, "height", "width"), name="indices"),
    Case("adaptive_max_pool", nn.AdaptiveMaxPool2d((3, 4), return_indices=True), f32("batch", 4, 9, 8), name="indices divides"),
    Case("adaptive_max_pool", nn.AdaptiveMaxPool3d((2, 3, 2), return_indices=True), f32("batch", 2, 3, "height", "width"),
         name="indices 3d"),
    Case("adaptive_max_pool", nn.AdaptiveMaxPool2d(2, return_indices=True), f32(4, "height", "width"), name="unbatched"),
]
