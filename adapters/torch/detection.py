"""torchvision's operators in the terms of torch's own, as their kernels compute them.

torchvision computes these in C++, which no trace looks into. `BODIES` holds, by the operator's name, what is traced instead.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from converter.errors import UnsupportedError


def nms(dets: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """Greedy suppression: boxes [n, 4] as x1, y1, x2, y2 and scores [n] -> int64 [kept], by falling score.

    A box stays unless one that stays before it overlaps it by more than the threshold. That is the only fixed point of
    striking out what the boxes that stay overlap, and is reached after as many rounds as the longest chain of overlaps.
    """
    from torch._higher_order_ops.while_loop import while_loop

    torch._check(dets.shape[0] == scores.shape[0])  # type: ignore[no-untyped-call]
    order = torch.argsort(scores, descending=True, stable=True)
    boxes = dets[order]
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    low = torch.maximum(boxes[:, None, :2], boxes[None, :, :2])
    high = torch.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
    common = (high - low).clamp(min=0).prod(-1)
    over = (common / (areas[:, None] + areas[None] - common)).to(torch.float64) > iou_threshold
    places = torch.arange(order.shape[0])
    struck = over & (places[:, None] < places[None])

    def differs(stays: Tensor, before: Tensor, struck: Tensor) -> Tensor:
        return (stays != before).any()

    def round_(stays: Tensor, before: Tensor, struck: Tensor) -> tuple[Tensor, Tensor]:
        return ~(struck & stays[:, None]).any(0), stays.clone()

    start = torch.ones_like(order, dtype=torch.bool)
    stays, _ = while_loop(lambda a, b: differs(a, b, struck), lambda a, b: round_(a, b, struck), (start, torch.zeros_like(start)))  # type: ignore[no-untyped-call]
    return order[stays]


def _corners(x: Tensor, size: Any) -> tuple[Tensor, Tensor, Tensor]:
    """The places before and after coordinates that lie in 0 to size - 1, and how far each is from the first."""
    low = x.floor().clamp(max=size - 1)
    x = torch.minimum(x, low + 1)
    at_end = low >= size - 1
    return low.to(torch.int64), torch.where(at_end, low, low + 1).to(torch.int64), torch.where(at_end, 0.0, x - low)


def roi_align(input: Tensor, rois: Tensor, spatial_scale: float, pooled_height: int, pooled_width: int, sampling_ratio: int,
              aligned: bool) -> Tensor:
    """[n, c, h, w] and rois [k, 5], of which the first column is the image -> [k, c, pooled_height, pooled_width]: the mean of
    `sampling_ratio`² bilinear samples of each bin. He et al., Mask R-CNN, 2017."""
    if sampling_ratio <= 0:
        raise UnsupportedError("roi_align whose number of samples depends on the regions", where="torchvision.roi_align",
                               expected="sampling_ratio of 1 or more", received=str(sampling_ratio))
    edges = rois[:, 1:] * spatial_scale - (0.5 if aligned else 0.0)
    extent = edges[:, 2:] - edges[:, :2]
    extent = extent if aligned else extent.clamp(min=1.0)
    steps = (torch.arange(sampling_ratio, dtype=rois.dtype) + 0.5) / sampling_ratio

    def samples(axis: int, bins: int) -> Tensor:
        """[k, bins, sampling_ratio] coordinates along x (0) or y (1)."""
        places = torch.arange(bins, dtype=rois.dtype)[:, None] + steps
        return edges[:, axis, None, None] + places * (extent[:, axis, None, None] / bins)

    height, width = input.shape[2:]
    y, x = samples(1, pooled_height)[:, :, None, :, None], samples(0, pooled_width)[:, None, :, None, :]
    inside = (y >= -1) & (y <= height) & (x >= -1) & (x <= width)
    y_low, y_high, dy = _corners(y.clamp(min=0), height)
    x_low, x_high, dx = _corners(x.clamp(min=0), width)
    image = rois[:, 0].to(torch.int64)[:, None, None, None, None]
    dy, dx = dy[..., None], dx[..., None]
    values = ((1 - dy) * ((1 - dx) * input[image, :, y_low, x_low] + dx * input[image, :, y_low, x_high])
              + dy * ((1 - dx) * input[image, :, y_high, x_low] + dx * input[image, :, y_high, x_high]))
    return torch.where(inside[..., None], values, 0.0).mean((3, 4)).permute(0, 3, 1, 2)


def deform_conv2d(input: Tensor, weight: Tensor, offset: Tensor, mask: Tensor, bias: Tensor, stride_h: int, stride_w: int, pad_h: int,
                  pad_w: int, dilation_h: int, dilation_w: int, groups: int, offset_groups: int, use_mask: bool) -> Tensor:
    """A convolution whose taps are moved by `offset` [n, 2 · offset_groups · kh · kw, oh, ow], y before x, and weighed by `mask`.

    Zhu et al., Deformable ConvNets v2, 2018.
    """
    count, channels, height, width = input.shape
    outputs, _, kernel_h, kernel_w = weight.shape
    rows, columns = offset.shape[2:]
    taps = kernel_h * kernel_w
    moved = offset.reshape(count, offset_groups, taps, 2, rows, columns)

    def coordinates(size: Any, stride: int, pad: int, kernel: Tensor, dilation: int) -> Tensor:
        return torch.arange(size) * stride - pad + (kernel * dilation)[:, None]

    tap = torch.arange(taps)
    y = moved[:, :, :, 0] + coordinates(rows, stride_h, pad_h, tap // kernel_w, dilation_h)[:, :, None]
    x = moved[:, :, :, 1] + coordinates(columns, stride_w, pad_w, tap % kernel_w, dilation_w)[:, None, :]
    low_y, low_x = y.floor(), x.floor()
    dy, dx = y - low_y, x - low_x
    flat = input.reshape(count, offset_groups, channels // offset_groups, height * width)

    def corner(row: Tensor, column: Tensor, share: Tensor) -> Tensor:
        inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
        place = (row.clamp(0, height - 1) * width + column.clamp(0, width - 1)).to(torch.int64).reshape(count, offset_groups, 1, -1)
        values = flat.gather(3, place.expand(-1, -1, channels // offset_groups, -1))
        return values * torch.where(inside, share, 0.0).reshape(count, offset_groups, 1, -1)

    sampled = (corner(low_y, low_x, (1 - dy) * (1 - dx)) + corner(low_y, low_x + 1, (1 - dy) * dx)
               + corner(low_y + 1, low_x, dy * (1 - dx)) + corner(low_y + 1, low_x + 1, dy * dx))
    if use_mask:
        sampled = sampled * mask.reshape(count, offset_groups, 1, -1)
    filters = weight.reshape(groups, outputs // groups, channels // groups * taps)
    product = filters @ sampled.reshape(count, groups, channels // groups * taps, rows * columns)
    return product.reshape(count, outputs, rows, columns) + bias[:, None, None]


BODIES: Mapping[str, Callable[..., Any]] = {
    "torchvision::nms": nms, "torchvision::roi_align": roi_align, "torchvision::deform_conv2d": deform_conv2d,
}
