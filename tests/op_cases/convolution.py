"""Convolutions and their transposes."""

import torch
import torch.nn.functional as F
from torch import nn

from tests.op_cases import Case, f32, f64

LONG = ({"batch": 3, "length": 9, "height": 10, "width": 11}, {"batch": 1, "length": 12, "height": 9, "width": 14})

CASES = [
    Case("convolution", nn.Conv1d(4, 6, 3), f32("batch", 4, "length"), name="1d", sizes=LONG),
    Case("convolution", nn.Conv2d(3, 5, 3, padding=1), f32("batch", 3, "height", "width"), name="2d padded"),
    Case("convolution", nn.Conv2d(3, 8, 7, stride=2, padding=3, bias=False), f32("batch", 3, "height", "width"),
         name="2d stem", sizes=LONG),
    Case("convolution", nn.Conv3d(2, 4, (1, 3, 2), stride=(1, 2, 1), padding=(0, 1, 1)), f32("batch", 2, 4, "height", "width"), name="3d"),
    Case("convolution", nn.Conv2d(4, 8, 3, groups=2, dilation=(2, 1)), f32("batch", 4, "height", "width"),
         name="groups dilation", sizes=LONG),
    Case("convolution", nn.Conv2d(6, 12, 3, groups=6, padding=1), f32("batch", 6, "height", "width"), name="depthwise"),
    Case("convolution", nn.Conv2d(6, 4, 1), f32("batch", 6, "height", "width"), name="pointwise"),
    Case("convolution", nn.Conv1d(4, 6, 4, padding="same"), f32("batch", 4, "length"), name="1d same even"),
    Case("convolution", nn.Conv2d(3, 6, (3, 4), padding="same", dilation=(1, 3)), f32("batch", 3, "height", "width"),
         name="2d same dilated", sizes=LONG),
    Case("convolution", nn.Conv1d(4, 6, 3, padding="valid"), f32("batch", 4, "length"), name="1d valid", sizes=LONG),
    Case("convolution", nn.Conv1d(4, 6, 3, padding=2, padding_mode="circular"), f32(2, 4, 9), name="circular"),
    Case("convolution", nn.Conv2d(3, 5, 3), f32(3, "height", "width"), name="unbatched", sizes=LONG),
    Case("convolution", F.conv2d, f32("batch", 3, "height", "width"), f32(4, 3, 2, 2), f32(4), name="weight is an input"),
    Case("convolution", lambda x, w: F.conv1d(x, w, stride=2, groups=2), f64("batch", 4, "length"), f64(6, 2, 3), name="float64"),
    Case("convolution", nn.Conv2d(4, 6, (3, 2), padding=(1, 0), stride=2, groups=2).double(), f64("batch", 4, "height", "width"),
         name="float64 2d"),
    Case("convolution", lambda x: F.conv2d(x.relu(), torch.ones(1, 1, 3, 3) / 9, padding=1), f32("batch", 1, "height", "width"),
         name="constant weight"),
    Case("convolution", lambda x, w: F.conv2d(x.bfloat16(), w.bfloat16()).float(), f32("batch", 3, "height", "width"), f32(4, 3, 2, 2),
         name="bfloat16"),
    Case("convolution_transpose", nn.ConvTranspose1d(4, 6, 3, stride=2), f32("batch", 4, "length"), name="1d"),
    Case("convolution_transpose", nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1),
         f32("batch", 4, "height", "width"), name="2d"),
    Case("convolution_transpose", nn.ConvTranspose2d(4, 6, (2, 3), groups=2, dilation=(1, 2), bias=False),
         f32("batch", 4, "height", "width"), name="groups"),
    Case("convolution_transpose", nn.ConvTranspose3d(2, 3, 2, stride=(1, 2, 2)), f32("batch", 2, 3, "height", "width"), name="3d"),
    Case("convolution_transpose", nn.ConvTranspose2d(4, 6, 2), f32(4, "height", "width"), name="unbatched"),
    Case("convolution_transpose", nn.ConvTranspose1d(4, 6, 4, stride=3, padding=1, output_padding=2, groups=2).double(),
         f64("batch", 4, "length"), name="float64"),
    Case("convolution_transpose", nn.ConvTranspose1d(4, 6, 2, stride=2, dilation=4, output_padding=3), f32("batch", 4, "length"),
         name="output padding past the stride"),
]
