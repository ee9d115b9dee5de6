"""Images to another size."""

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from tests.op_cases import Case, f32, f64

WORDS = {1: "linear", 2: "bilinear", 3: "trilinear"}


def sized(size: Any, mode: str, **options: Any) -> Any:
    return lambda x: F.interpolate(x, size=size, mode=mode, **options)


def scaled(factor: Any, mode: str, **options: Any) -> Any:
    return lambda x: F.interpolate(x, scale_factor=factor, mode=mode, **options)


def like(x: Tensor, other: Tensor) -> Tensor:
    return F.interpolate(x, size=other.shape[-2:], mode="bilinear", align_corners=False)


IMAGE = ("batch", 3, "height", "width")

CASES = [
    Case("interpolate", scaled(2, "nearest"), f32(*IMAGE), name="nearest twice"),
    Case("interpolate", scaled(3, "nearest"), f32("batch", 3, "length"), name="nearest 1d"),
    Case("interpolate", scaled(2, "nearest"), f32("batch", 2, 3, "height", "width"), name="nearest 3d"),
    Case("interpolate", scaled(0.6, "nearest"), f32(*IMAGE), name="nearest down"),
    Case("interpolate", scaled(1.7, "nearest"), f32(2, 3, 7, 9), name="nearest by 1.7"),
    Case("interpolate", sized((7, 11), "nearest"), f32(*IMAGE), name="nearest sizes"),
    Case("interpolate", sized((7, 11), "nearest"), f32("batch", 3, 6, 5), name="nearest fixed sizes"),
    Case("interpolate", sized((5, 12), "nearest-exact"), f32(*IMAGE), name="nearest-exact"),
    Case("interpolate", scaled(2, "nearest-exact"), f32("batch", 3, "length"), name="nearest-exact twice"),
    Case("interpolate", sized((7, 11), "nearest"), f64(*IMAGE), name="nearest float64"),
    Case("interpolate", sized(12, "linear"), f32("batch", 3, "length"), name="linear 1d"),
    Case("interpolate", sized((7, 11), "bilinear"), f32(*IMAGE), name="bilinear"),
    Case("interpolate", sized((7, 11), "bilinear", align_corners=True), f32(*IMAGE), name="bilinear corners"),
    Case("interpolate", sized((1, 1), "bilinear", align_corners=True), f32(*IMAGE), name="corners to one"),
    Case("interpolate", sized((1, 3), "bilinear"), f32(*IMAGE), name="bilinear to one"),
    Case("interpolate", scaled(2, "bilinear"), f32(*IMAGE), name="bilinear twice"),
    Case("interpolate", scaled((1.5, 0.6), "bilinear"), f32(*IMAGE), name="bilinear scales"),
    Case("interpolate", scaled((1.5, 0.7), "bilinear", recompute_scale_factor=True), f32(2, 3, 7, 9), name="scales recomputed"),
    Case("interpolate", scaled(2, "bilinear", align_corners=True), f32(*IMAGE), name="corners twice"),
    Case("interpolate", sized((4, 5, 9), "trilinear"), f32("batch", 2, 3, "height", "width"), name="trilinear"),
    Case("interpolate", like, f32(*IMAGE), f32(2, 2, "length", "time"), name="like another",
         sizes=({}, {"batch": 1, "length": 16, "time": 6}, {"height": 6, "width": 4, "length": 3, "time": 12})),
    Case("interpolate", sized((7, 11), "bicubic"), f32(*IMAGE), name="bicubic"),
    Case("interpolate", sized((7, 11), "bicubic", align_corners=True), f32(*IMAGE), name="bicubic corners"),
    Case("interpolate", scaled(2.5, "bicubic"), f32(*IMAGE), name="bicubic scale"),
    Case("interpolate", sized((4, 5), "bilinear", antialias=True), f32(*IMAGE), name="antialias"),
    Case("interpolate", sized((4, 15), "bicubic", antialias=True), f32(*IMAGE), name="bicubic antialias"),
    Case("interpolate", scaled((2, 0.5), "bilinear"), f64("batch", 3, 6, 8), name="bilinear float64"),
    Case("interpolate", scaled(2, "bilinear"), f64(*IMAGE), name="bilinear float64 twice"),
    Case("interpolate", scaled((2, 0.5), "bicubic"), f64("batch", 3, 6, 8), name="bicubic float64"),
    Case("interpolate", sized((3, 4), "bilinear", antialias=True), f64("batch", 3, 6, 8), name="antialias float64"),
    Case("adaptive_avg_pool", sized((3, 4), "area"), f32(*IMAGE), name="area"),
]
