"""Pooling over windows of a fixed size."""

import torch
import torch.nn.functional as F
from torch import nn

from tests.op_cases import Case, f32, f64, i64

LONG = ({"batch": 3, "length": 9, "height": 10, "width": 11}, {"batch": 1, "length": 12, "height": 13, "width": 14})


def unpool(x: torch.Tensor) -> torch.Tensor:
    y, indices = F.max_pool2d(x, 2, return_indices=True)
    return F.max_unpool2d(y, indices, 2, output_size=x.shape[-2:])


def unpool1d(x: torch.Tensor) -> torch.Tensor:
    y, indices = F.max_pool1d(x, 3, return_indices=True)
    return F.max_unpool1d(y, indices, 3)


CASES = [
    Case("max_pool", nn.MaxPool1d(2), f32("batch", 4, "length"), name="1d"),
    Case("max_pool", nn.MaxPool2d(3, stride=2, padding=1), f32("batch", 4, "height", "width"), name="2d"),
    Case("max_pool", nn.MaxPool2d((3, 2), stride=(2, 1), dilation=(1, 2)), f32("batch", 4, "height", "width"), name="dilated", sizes=LONG),
    Case("max_pool", nn.MaxPool3d((1, 2, 2)), f32("batch", 2, 3, "height", "width"), name="3d"),
    Case("max_pool", nn.MaxPool2d(3, stride=2, ceil_mode=True), f32(2, 4, 8, 7), name="ceil static"),
    Case("max_pool", nn.MaxPool2d(2, stride=3, padding=1, ceil_mode=True), f32(2, 4, 6, 10), name="ceil drops the last window"),
    Case("max_pool", nn.MaxPool2d(3, stride=2, padding=1, return_indices=True), f32("batch", 4, "height", "width"), name="indices"),
    Case("max_pool", nn.MaxPool1d(3, dilation=2, return_indices=True), f32("batch", 4, "length"), name="indices 1d", sizes=LONG),
    Case("max_pool", lambda x: F.max_pool2d(F.pad(-x.abs() - 1, (1, 1, 1, 1)), 3), f32("batch", 4, "height", "width"), name="after zeros"),
    Case("max_pool", nn.MaxPool2d(2), f32(4, "height", "width"), name="unbatched"),
    Case("max_pool", nn.MaxPool2d(2, return_indices=True), f32(4, "height", "width"), name="unbatched indices"),
    Case("max_pool", lambda x: F.max_pool2d(x, 3, 2, 1), f64("batch", 4, "height", "width"), name="float64"),
    Case("max_pool", lambda x: F.max_pool2d(x, 2), i64("batch", 4, "height", "width"), name="int64"),
    Case("max_pool", lambda x: F.max_pool2d(x.bfloat16(), 2).float(), f32("batch", 4, "height", "width"), name="bfloat16"),
    Case("max_pool", nn.MaxPool2d(2, 3, 1, ceil_mode=True), f32("batch", 4, "height", "width"), name="ceil"),
    Case("avg_pool", nn.AvgPool2d(3, 2, 1, ceil_mode=True, count_include_pad=False), f32("batch", 4, "height", "width"), name="ceil"),
    Case("avg_pool", nn.LPPool2d(2, 3, stride=2), f32("batch", 4, "height", "width"), name="norm"),
    Case("avg_pool", nn.AvgPool1d(3, stride=2, padding=1), f32("batch", 4, "length"), name="1d"),
    Case("avg_pool", nn.AvgPool2d(2), f32("batch", 4, "height", "width"), name="2d"),
    Case("avg_pool", nn.AvgPool2d(3, stride=2, padding=1, count_include_pad=False), f32("batch", 4, "height", "width"),
         name="without padding"),
    Case("avg_pool", nn.AvgPool2d((2, 3), stride=2, divisor_override=5), f32("batch", 4, "height", "width"), name="divisor"),
    Case("avg_pool", nn.AvgPool2d(3, stride=2, padding=1, divisor_override=2), f32("batch", 4, "height", "width"),
         name="divisor and padding"),
    Case("avg_pool", nn.AvgPool3d(2, stride=1), f32("batch", 2, 3, "height", "width"), name="3d"),
    Case("avg_pool", nn.AvgPool2d(3, stride=2, ceil_mode=True), f32(2, 4, 8, 7), name="ceil static"),
    Case("avg_pool", nn.AvgPool2d(3, stride=2, padding=1, ceil_mode=True), f32(2, 4, 8, 7), name="ceil and padding"),
    Case("avg_pool", nn.AvgPool2d((3, 2), stride=(2, 3), padding=1, ceil_mode=True, count_include_pad=False), f32(2, 4, 8, 7),
         name="ceil without padding"),
    Case("avg_pool", nn.AvgPool2d(3, stride=2, ceil_mode=True, divisor_override=4), f32(2, 4, 8, 7), name="ceil and divisor"),
    Case("avg_pool", nn.AvgPool2d(2), f32(4, "height", "width"), name="unbatched"),
    Case("avg_pool", lambda x: F.avg_pool2d(x, 3, 2, 1, count_include_pad=False), f64("batch", 4, "height", "width"), name="float64"),
    Case("avg_pool", lambda x: F.local_response_norm(x, 3, alpha=0.2, beta=0.6, k=1.5), f32("batch", 7, "height", "width"),
         name="response norm"),
    Case("max_unpool", unpool, f32(2, 3, 8, 6), name="2d"),
    Case("max_unpool", unpool1d, f32(2, 3, 9), name="1d"),
    Case("avg_pool", lambda x: F.avg_pool2d(x, 2, padding=1), i64("batch", 2, 6, 5), name="integers"),
    Case("max_pool", lambda x: F.max_pool2d(x, (3, 2), (2, 1), 1, return_indices=True), i64("batch", 2, "height", "width", low=-2, high=3),
         name="integers and their places"),
    Case("max_pool", lambda x: F.max_pool2d(x, 3, 2, 1, 2, ceil_mode=True, return_indices=True), i64("batch", 2, 8, 9, low=-2, high=3),
         name="integers, ceil mode"),
    Case("max_pool", lambda x: F.max_pool3d(x, 2, 1, return_indices=True), i64(2, 3, 4, 3), name="integers in 3d"),
]
