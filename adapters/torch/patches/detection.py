"""torchvision's operators in the terms of torch's own, as their kernels compute them.

torchvision computes these in C++, which no trace looks into. `BODIES` holds, by the operator's name, what is traced instead.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor


def nms(dets: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """Greedy suppression: boxes [n, 4] as x1, y1, x2, y2 and scores [n] -> int64 [kept], by falling score.

    A box stays unless one that stays before it overlaps it by more than the threshold. That is the only fixed point of
    striking out what the boxes that stay overlap, and is reached after as many rounds as the longest chain of overlaps.
    """
    from torch._higher_order_ops.while_loop import while_loop

    torch._check(dets.shape[0] == scores.shape[0])
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
    stays, _ = while_loop(lambda a, b: differs(a, b, struck), lambda a, b: round_(a, b, struck), (start, torch.zeros_like(start)))
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
    `sampling_ratio`² bilinear samples of each bin, or of one for each unit of its sides. He et al., Mask R-CNN, 2017."""
    image = rois[:, 0].to(torch.int64)[:, None, None, None, None]
    edges = rois[:, 1:] * spatial_scale - (0.5 if aligned else 0.0)
    extent = edges[:, 2:] - edges[:, :2]
    return _means(lambda y, x: input[image, :, y, x], input.shape[2:], edges, extent if aligned else extent.clamp(min=1.0),
                  (pooled_height, pooled_width), sampling_ratio, 1.0)


def ps_roi_align(input: Tensor, rois: Tensor, spatial_scale: float, pooled_height: int, pooled_width: int,
                 sampling_ratio: int) -> tuple[Tensor, Tensor]:
    """`roi_align` in which each bin has channels of its own: [n, c · pooled_height · pooled_width, h, w] and [k, 5] ->
    [k, c, pooled_height, pooled_width], and which channel each value is of."""
    parts = _by_bin(input, pooled_height, pooled_width)
    image = rois[:, 0].to(torch.int64)[:, None, None, None, None]
    row, column = torch.arange(pooled_height)[:, None, None, None], torch.arange(pooled_width)[:, None, None]
    edges = rois[:, 1:] * spatial_scale - 0.5
    found = _means(lambda y, x: parts[image, :, row, column, y, x], input.shape[2:], edges, edges[:, 2:] - edges[:, :2],
                   (pooled_height, pooled_width), sampling_ratio, None)
    return found, _channels(input, rois, pooled_height, pooled_width)


def _by_bin(input: Tensor, rows: int, columns: int) -> Tensor:
    count, channels, height, width = input.shape
    return input.reshape(count, channels // (rows * columns), rows, columns, height, width)


def _channels(input: Tensor, rois: Tensor, rows: int, columns: int) -> Tensor:
    own = torch.arange(input.shape[1]).to(torch.int32).reshape(1, -1, rows, columns)
    return own.expand(rois.shape[0], -1, -1, -1)


def _means(values: Callable[[Tensor, Tensor], Tensor], image: Any, edges: Tensor, extent: Tensor, bins: tuple[int, int], ratio: int,
           least: float | None) -> Tensor:
    """The mean of the samples in each bin, [k, c, rows, columns].

    Args:
        values: what stands at rows and columns [k, rows, columns, samples, samples], with the channels as the last axis.
        image: the height and the width.
        edges: left, top, right and bottom of each region.
        extent: its width and its height.
        bins: rows and columns.
        ratio: samples along each side of a bin; 0 or less: as many as it is long, rounded up.
        least: the least number that is divided by, where a bin has no sample.
    """
    def samples(axis: int) -> tuple[Tensor, Tensor, Tensor]:
        """[k, bins, samples] coordinates along x (0) or y (1), which of [k, samples] count, and how many of [k] do."""
        count = bins[1 - axis]
        size = extent[:, axis, None, None] / count
        places = torch.arange(count, dtype=edges.dtype)[:, None]
        if ratio > 0:
            number, most = torch.full_like(edges[:, 0], ratio), ratio
        else:
            number = torch.ceil(extent[:, axis] / count)
            most = torch.cat([number, number.new_zeros(1)]).max().to(torch.int64).item()  # type: ignore[assignment]
        step = torch.arange(most, dtype=edges.dtype)
        inside = (step + 0.5) / number.clamp(min=1.0)[:, None, None]
        return edges[:, axis, None, None] + (places + inside) * size, step < number[:, None], number

    height, width = image
    (y, rows, tall), (x, columns, wide) = samples(1), samples(0)
    y, x = y[:, :, None, :, None], x[:, None, :, None, :]
    counts = rows[:, None, None, :, None] & columns[:, None, None, None, :]
    counts = counts & (y >= -1) & (y <= height) & (x >= -1) & (x <= width)
    y_low, y_high, dy = _corners(y.clamp(min=0), height)
    x_low, x_high, dx = _corners(x.clamp(min=0), width)
    dy, dx = dy[..., None], dx[..., None]
    found = ((1 - dy) * ((1 - dx) * values(y_low, x_low) + dx * values(y_low, x_high))
             + dy * ((1 - dx) * values(y_high, x_low) + dx * values(y_high, x_high)))
    total = torch.where(counts[..., None], found, 0.0).sum((3, 4)).permute(0, 3, 1, 2)
    count = tall * wide if least is None else (tall * wide).clamp(min=least)
    return total / count[:, None, None, None]


def _members(rois: Tensor, scale: float, axis: int, bins: int, size: Any, more: int, last: Any) -> Tensor:
    """Which of the places 0 to size - 1 along x (0) or y (1) are in each bin of each region: bool [k, bins, size].

    Regions are rounded to whole places, half away from 0, and are `more` longer than from one to the other; bins end at `last`.
    """
    ends = rois[:, 1:] * scale
    wide = ends.to(torch.float64)
    whole = torch.where(wide < 0, torch.ceil(wide - 0.5), torch.floor(wide + 0.5))
    start = whole[:, axis, None]
    step = (whole[:, 2 + axis, None] - start + more).clamp(min=1.0).to(rois.dtype) / bins
    places = torch.arange(bins, dtype=rois.dtype)
    low = (torch.floor(places * step) + start).clamp(min=0).clamp(max=last)
    high = (torch.ceil((places + 1) * step) + start).clamp(min=0).clamp(max=last)
    along = torch.arange(size, dtype=torch.float64)
    return (along >= low[..., None]) & (along < high[..., None])


FLOOR = -torch.finfo(torch.float32).max
"""What no maximum of torchvision's is below, in float64 too."""


def roi_pool(input: Tensor, rois: Tensor, spatial_scale: float, pooled_height: int, pooled_width: int) -> tuple[Tensor, Tensor]:
    """[n, c, h, w] and rois [k, 5], of which the first column is the image -> [k, c, pooled_height, pooled_width]: the maximum of
    each bin, 0 of an empty one, and its place h · width + w in the image, or -1. Girshick, Fast R-CNN, 2015."""
    height, width = input.shape[2:]
    rows = _members(rois, spatial_scale, 1, pooled_height, height, 1, height)[:, None]
    columns = _members(rois, spatial_scale, 0, pooled_width, width, 1, width)[:, None]
    values = input[rois[:, 0].to(torch.int64)]
    values = torch.where(values > FLOOR, values, -torch.inf)
    across = [torch.where(columns[:, :, None, bin_], values, -torch.inf) for bin_ in range(pooled_width)]
    best, place = torch.stack([item.amax(3) for item in across], 3), torch.stack([item.argmax(3) for item in across], 3)
    down = [torch.where(rows[:, :, bin_, :, None], best, -torch.inf) for bin_ in range(pooled_height)]
    found, row = torch.stack([item.amax(2) for item in down], 2), torch.stack([item.argmax(2) for item in down], 2)
    empty = ~(rows.any(3)[..., None] & columns.any(3)[:, :, None])
    index = row * width + place.gather(2, row)
    return (torch.where(empty, 0.0, found.clamp(min=FLOOR)), torch.where(torch.isneginf(found), -1, index).to(torch.int32))


def ps_roi_pool(input: Tensor, rois: Tensor, spatial_scale: float, pooled_height: int, pooled_width: int) -> tuple[Tensor, Tensor]:
    """The mean of each bin, which has channels of its own: [n, c · pooled_height · pooled_width, h, w] and [k, 5] ->
    [k, c, pooled_height, pooled_width], and which channel each value is of. The last row and column are in no bin, as in
    torchvision. Dai et al., R-FCN, 2016."""
    height, width = input.shape[2:]
    rows = _members(rois, spatial_scale, 1, pooled_height, height, 0, height - 1)[:, None, :, None, :, None]
    columns = _members(rois, spatial_scale, 0, pooled_width, width, 0, width - 1)[:, None, None, :, None, :]
    inside = rows & columns
    values = _by_bin(input, pooled_height, pooled_width)[rois[:, 0].to(torch.int64)]
    area = inside.to(input.dtype).sum((4, 5))
    total = torch.where(inside, values, 0.0).sum((4, 5))
    return total / area.clamp(min=1.0), _channels(input, rois, pooled_height, pooled_width)


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
    "torchvision::nms": nms, "torchvision::roi_align": roi_align, "torchvision::ps_roi_align": ps_roi_align,
    "torchvision::roi_pool": roi_pool, "torchvision::ps_roi_pool": ps_roi_pool, "torchvision::deform_conv2d": deform_conv2d,
}
