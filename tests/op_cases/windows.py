"""Sliding windows and blocks of images."""

import torch
import torch.nn.functional as F

from tests.op_cases import Case, f32, f64, i64

SIZES = ({"length": 9, "height": 8, "width": 9}, {"length": 6, "height": 11, "width": 7}, {"length": 12, "height": 5, "width": 13})

CASES = [
    Case("unfold", lambda x: x.unfold(1, 3, 2), f32("batch", 8), name="fixed"),
    Case("unfold", lambda x: x.unfold(1, 4, 1), i64("batch", "length", 2), name="free", sizes=SIZES),
    Case("unfold", lambda x: x.unfold(-1, 2, 2), f32("batch", "length"), name="last", sizes=SIZES),
    Case("im2col", lambda x: F.unfold(x, 3), f32("batch", 2, "height", "width"), name="plain", sizes=SIZES),
    Case("im2col", lambda x: F.unfold(x, (2, 3), dilation=(2, 1), padding=(1, 2), stride=(2, 1)), f64("batch", 3, 7, 6), name="all"),
    Case("im2col", lambda x: F.unfold(x, 2, stride=2), f32(3, "height", 6), name="one image", sizes=SIZES),
    Case("col2im", lambda x: F.fold(x, (6, 7), 3), f32("batch", 18, 20), name="plain"),
    Case("col2im", lambda x: F.fold(x, (5, 6), (2, 3), dilation=(2, 1), padding=(1, 2), stride=(2, 1)), f64("batch", 6, 24), name="all"),
    Case("col2im", lambda x: F.fold(x, (4, 4), 2, stride=2), f32(8, 4), name="one image"),
    Case("col2im", lambda x, y: F.fold(x, y.shape, 1), f64("batch", 6, "length"), i64("length", 1), name="free"),
    Case("pixel_shuffle", torch.nn.PixelShuffle(2), f32("batch", 8, "height", "width")),
    Case("pixel_shuffle", lambda x: F.pixel_shuffle(x, 3), i64("batch", 2, 9, "height", 2), name="five axes"),
    Case("pixel_unshuffle", torch.nn.PixelUnshuffle(2), f32("batch", 3, 4, 6)),
    Case("pixel_unshuffle", lambda x: F.pixel_unshuffle(x, 2), f32("batch", 1, 4, 6), name="one channel"),
    Case("channel_shuffle", torch.nn.ChannelShuffle(3), f32("batch", 6, "height", "width")),
    Case("im2col", lambda x: torch.nn.functional.unfold(x.transpose(1, 2).unsqueeze(-1), (3, 1), padding=(1, 0)),
         f32("batch", "time", 4), name="of a transposed input"),
]
