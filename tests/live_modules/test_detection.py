"""torchvision's operators against straightforward loops; their own kernels are not needed here."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import converter
from tests import support_torchvision

pytestmark = pytest.mark.skipif(not support_torchvision.INSTALLED, reason=support_torchvision.REASON)
RUNTIMES = ("reference", "numpy", "onnxruntime", "torch")
Array = np.ndarray[Any, Any]


def loops_nms(boxes: Array, scores: Array, threshold: float) -> list[int]:
    kept: list[int] = []
    for place in np.argsort(-scores, kind="stable"):
        for other in kept:
            low, high = np.maximum(boxes[place, :2], boxes[other, :2]), np.minimum(boxes[place, 2:], boxes[other, 2:])
            common = np.prod(np.maximum(high - low, 0))
            if common / (np.prod(boxes[place, 2:] - boxes[place, :2]) + np.prod(boxes[other, 2:] - boxes[other, :2]) - common) > threshold:
                break
        else:
            kept.append(int(place))
    return kept


def bilinear(image: Array, y: float, x: float) -> Array:
    """A sample of [c, h, w], as roi_align clamps it at the edges."""
    height, width = image.shape[1:]
    if y < -1 or y > height or x < -1 or x > width:
        return np.zeros(image.shape[0])
    y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
    top, left = int(y), int(x)
    bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
    dy, dx = y - top, x - left
    return ((1 - dy) * (1 - dx) * image[:, top, left] + (1 - dy) * dx * image[:, top, right]
            + dy * (1 - dx) * image[:, bottom, left] + dy * dx * image[:, bottom, right])


def loops_roi_align(x: Array, rois: Array, scale: float, size: tuple[int, int], ratio: int, aligned: bool, by_bin: bool = False) -> Array:
    out = np.zeros((len(rois), x.shape[1] // (size[0] * size[1] if by_bin else 1), *size))
    for k, (image, *edges) in enumerate(rois):
        x1, y1, x2, y2 = (edge * scale - 0.5 * aligned for edge in edges)
        width, height = (x2 - x1, y2 - y1) if aligned else (max(x2 - x1, 1), max(y2 - y1, 1))
        rows, columns = (ratio, ratio) if ratio > 0 else (int(np.ceil(height / size[0])), int(np.ceil(width / size[1])))
        for i, j, a, b in np.ndindex(*size, rows, columns):
            values = x[int(image), i * size[1] + j::size[0] * size[1]] if by_bin else x[int(image)]
            out[k, :, i, j] += bilinear(values, y1 + (i + (a + 0.5) / rows) * height / size[0],
                                        x1 + (j + (b + 0.5) / columns) * width / size[1]) / (rows * columns)
    return out


def rounded(value: float) -> int:
    """Half away from 0, as C rounds."""
    return int(np.sign(value) * np.floor(abs(value) + 0.5))


def loops_pool(x: Array, rois: Array, scale: float, size: tuple[int, int], by_bin: bool) -> tuple[Array, Array]:
    """The maxima of bins and their places, or the means of bins that have channels of their own, and which."""
    _, channels, *image_size = x.shape
    depth = channels // (size[0] * size[1]) if by_bin else channels
    out, places = np.zeros((len(rois), depth, *size)), np.full((len(rois), depth, *size), -1)
    for k, (image, *edges) in enumerate(rois):
        left, top, right, bottom = (rounded(edge * scale) for edge in edges)
        starts, lengths = (top, left), [max(end - start + (not by_bin), 1) for start, end in ((top, bottom), (left, right))]
        for i, j in np.ndindex(*size):
            spans = []
            for start, length, bin_, bins, limit in zip(starts, lengths, (i, j), size, image_size, strict=True):
                most = limit - by_bin
                low, high = int(np.floor(bin_ * length / bins)) + start, int(np.ceil((bin_ + 1) * length / bins)) + start
                spans.append(slice(min(max(low, 0), most), min(max(high, 0), most)))
            for c in range(depth):
                source = (c * size[0] + i) * size[1] + j if by_bin else c
                part = x[int(image), source][tuple(spans)]
                if by_bin:
                    places[k, c, i, j] = source
                    out[k, c, i, j] = part.mean() if part.size else 0.0
                elif part.size:
                    row, column = np.unravel_index(part.argmax(), part.shape)
                    out[k, c, i, j] = part[row, column]
                    places[k, c, i, j] = (row + spans[0].start) * image_size[1] + column + spans[1].start
    return out, places


def loops_deform(x: Array, offset: Array, mask: Array, weight: Array, bias: Array, stride: int, pad: int, dilation: int) -> Array:
    count, _, height, width = x.shape
    outputs, per_group, kh, kw = weight.shape
    groups, parts = x.shape[1] // per_group, offset.shape[1] // (2 * kh * kw)
    out = np.zeros((count, outputs, *offset.shape[2:]))
    for n, o, r, c in np.ndindex(out.shape):
        total = bias[o]
        for channel, i, j in np.ndindex(per_group, kh, kw):
            source = o // (outputs // groups) * per_group + channel
            part = source // (x.shape[1] // parts)
            tap = (part * kh + i) * kw + j
            y = r * stride - pad + i * dilation + offset[n, 2 * tap, r, c]
            z = c * stride - pad + j * dilation + offset[n, 2 * tap + 1, r, c]
            top, left = math.floor(y), math.floor(z)
            for row, column in ((top, left), (top, left + 1), (top + 1, left), (top + 1, left + 1)):
                if 0 <= row < height and 0 <= column < width:
                    share = (1 - abs(y - row)) * (1 - abs(z - column)) * mask[n, tap, r, c]
                    total += weight[o, channel, i, j] * share * x[n, source, row, column]
        out[n, o, r, c] = total
    return out


def assert_computes(module: nn.Module, calls: Sequence[tuple[Tensor, ...]], wanted: Any) -> None:
    """Every runtime gives what loops give, at sizes not traced too; nothing is recorded, as torch has no kernel to run."""
    support_torchvision.models()
    model = converter.from_torch(module.eval(), calls[0], examples=False)
    names = [port.name for port in model.graph.inputs]
    for runtime in RUNTIMES:
        session = converter.session(model, runtime=runtime)
        for call in calls:
            arrays = [item.numpy() for item in call]
            found, = session.run(dict(zip(names, arrays, strict=True))).values()
            truth = np.asarray(wanted(*arrays))
            assert found.shape == truth.shape, runtime
            np.testing.assert_allclose(found, truth, rtol=1e-4, atol=1e-4, err_msg=runtime)


class Kept(nn.Module):
    def forward(self, boxes: Tensor, scores: Tensor) -> Tensor:
        return torch.ops.torchvision.nms(boxes, scores, 0.4)


def boxes(count: int) -> tuple[Tensor, Tensor]:
    corner = torch.rand(count, 2) * 6
    return torch.cat([corner, corner + torch.rand(count, 2) * 6 + 0.5], 1), torch.rand(count).mul(20).round() / 20


def test_nms() -> None:
    torch.manual_seed(0)
    assert_computes(Kept(), [boxes(12), boxes(60), boxes(1)], lambda b, s: loops_nms(b, s, 0.4))


class Regions(nn.Module):
    def __init__(self, aligned: bool, ratio: int = 2) -> None:
        super().__init__()
        self.aligned, self.ratio = aligned, ratio

    def forward(self, x: Tensor, rois: Tensor) -> Tensor:
        return torch.ops.torchvision.roi_align(x, rois, 0.5, 3, 2, self.ratio, self.aligned)


def regions(images: int, count: int, height: int, width: int, channels: int = 4) -> tuple[Tensor, Tensor]:
    corner = torch.rand(count, 2) * 12 - 3
    rois = torch.cat([torch.randint(0, images, (count, 1)).float(), corner, corner + torch.rand(count, 2) * 24], 1)
    return torch.randn(images, channels, height, width), rois


@pytest.mark.parametrize("aligned", [pytest.param(False, marks=pytest.mark.long), True])
def test_roi_align(aligned: bool) -> None:
    torch.manual_seed(0)
    assert_computes(Regions(aligned), [regions(2, 5, 8, 9), regions(3, 7, 6, 11)],
                    lambda x, rois: loops_roi_align(x, rois, 0.5, (3, 2), 2, aligned))


@pytest.mark.parametrize("aligned", [False, pytest.param(True, marks=pytest.mark.long)])
def test_roi_align_with_as_many_samples_as_a_region_needs(aligned: bool) -> None:
    torch.manual_seed(0)
    assert_computes(Regions(aligned, -1), [regions(2, 5, 8, 9), regions(3, 7, 6, 11), regions(1, 1, 4, 5)],
                    lambda x, rois: loops_roi_align(x, rois, 0.5, (3, 2), 0, aligned))


class Pooled(nn.Module):
    """One of torchvision's poolings of regions, with both of its results."""

    def __init__(self, name: str, *ratio: int) -> None:
        super().__init__()
        self.function, self.ratio = getattr(torch.ops.torchvision, name), ratio

    def forward(self, x: Tensor, rois: Tensor) -> Tensor:
        values, places = self.function(x, rois, 0.5, 3, 2, *self.ratio)
        return torch.stack([values, places.to(values.dtype)])


@pytest.mark.parametrize("ratio", [2, pytest.param(0, marks=pytest.mark.long)])
def test_ps_roi_align(ratio: int) -> None:
    torch.manual_seed(0)
    support_torchvision.models()

    def wanted(x: Array, rois: Array) -> Array:
        found = loops_roi_align(x, rois, 0.5, (3, 2), ratio, True, by_bin=True)
        return np.stack([found, np.broadcast_to(np.arange(x.shape[1]).reshape(found.shape[1:]), found.shape)])

    assert_computes(Pooled("ps_roi_align", ratio), [regions(2, 5, 8, 9, 12), regions(3, 7, 6, 11, 12)], wanted)


@pytest.mark.parametrize("name", ["roi_pool", "ps_roi_pool"])
def test_poolings_of_regions(name: str) -> None:
    torch.manual_seed(0)
    support_torchvision.models()
    calls = [regions(2, 5, 8, 9, 12), regions(3, 7, 6, 11, 12), regions(1, 6, 4, 3, 12)]
    calls[1][1][:, 1:] = calls[1][1][:, 1:].round()  # halves, once they are scaled
    calls[2][1][0, 1:] = torch.tensor([40.0, 40.0, 50.0, 50.0])  # outside of the image
    calls[2][1][1, 1:] = torch.tensor([5.0, 5.0, -7.0, -3.0])  # right of its own right side
    assert_computes(Pooled(name), calls, lambda x, rois: np.stack(loops_pool(x, rois, 0.5, (3, 2), name != "roi_pool")))


class Deformed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(4, 2, 3, 3)), nn.Parameter(torch.randn(4))

    def forward(self, x: Tensor, offset: Tensor, mask: Tensor) -> Tensor:
        return torch.ops.torchvision.deform_conv2d(x, self.weight, offset, mask, self.bias, 2, 2, 1, 1, 1, 1, 2, 2, True)


def taps(count: int, height: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    size = ((height - 1) // 2 + 1, (width - 1) // 2 + 1)
    return torch.randn(count, 4, height, width), torch.randn(count, 36, *size) * 2, torch.rand(count, 18, *size)


def test_deform_conv2d() -> None:
    torch.manual_seed(0)
    module = Deformed()
    weight, bias = module.weight.detach().numpy(), module.bias.detach().numpy()
    assert_computes(module, [taps(2, 6, 7), taps(1, 8, 5)], lambda x, offset, mask: loops_deform(x, offset, mask, weight, bias, 2, 1, 1))
