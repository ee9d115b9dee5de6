"""Windows over the last axes of images, laid out so that every tap of a window is read along the memory.

The columns of a padded image lie in `stride` phases one after another: those at 0, s, 2s, … then those at 1, s + 1, …; what all
windows of a row have at one place is then a run of neighbours, whatever the stride.
"""

from __future__ import annotations

from typing import Any

from adapters.numpy.buffers import empty
from converter.ir import Array
from converter.ops._spatial import window_counts


class Windows:
    """The windows of images of some spatial sizes; `counts` is how many there are along each axis."""

    def __init__(self, sizes: tuple[int, ...], kernel: tuple[int, ...], stride: tuple[int, ...], pads: tuple[tuple[int, int], ...],
                 dilation: tuple[int, ...], ceil_mode: bool = False) -> None:
        self.counts = window_counts(sizes, kernel, stride, pads, dilation, ceil_mode)
        self.sizes, self.kernel, self.stride, self.dilation = sizes, kernel, stride, dilation
        self.before = tuple(before for before, _ in pads)
        spans = [(count - 1) * s + d * (k - 1) + 1 for count, s, d, k in zip(self.counts, stride, dilation, kernel, strict=True)]
        self.padded = tuple(max(span, before + size) for span, before, size in zip(spans, self.before, sizes, strict=True))
        self.plain = self.padded == sizes and stride[-1] == 1
        self.columns = -(-self.padded[-1] // stride[-1])

    def lay_out(self, images: Array, fill: float) -> Array:
        """[count, *sizes] as [count, *padded rows, phases, columns of a phase], `fill` outside of the images."""
        if self.plain:
            return images.reshape(*images.shape[:-1], 1, images.shape[-1])
        step = self.stride[-1]
        laid = empty((len(images), *self.padded[:-1], step, self.columns), images.dtype)
        laid.fill(fill)
        rows: list[Any] = [slice(before, before + size) for before, size in zip(self.before[:-1], self.sizes[:-1], strict=True)]
        for phase in range(step):
            first = (phase - self.before[-1]) % step
            column = (first + self.before[-1]) // step
            part = images[..., first::step]
            index: Any = (slice(None), *rows, phase, slice(column, column + part.shape[-1]))
            laid[index] = part
        return laid

    def tap(self, laid: Array, position: tuple[int, ...], rows: slice | None = None) -> Array:
        """[count, *counts]: what every window has at `position`; of the first spatial axis `rows` of the windows alone."""
        index: list[Any] = [slice(None)]
        rest = zip(position[:-1], self.counts[:-1], self.stride[:-1], self.dilation[:-1], strict=True)
        for axis, (place, count, s, d) in enumerate(rest):
            low, high = (rows.start, rows.stop) if rows is not None and axis == 0 else (0, count)
            index.append(slice(place * d + low * s, place * d + (high - 1) * s + 1, s))
        column = position[-1] * self.dilation[-1]
        low, high = (rows.start, rows.stop) if rows is not None and len(position) == 1 else (0, self.counts[-1])
        start = column // self.stride[-1]
        return laid[(*index, column % self.stride[-1], slice(start + low, start + high))]
