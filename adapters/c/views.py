"""Tensors in memory: a buffer, and where in it the elements lie. Moving axes, cutting and repeating cost nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from converter.dims import Dim, product
from converter.ir import Array, DType


@dataclass(eq=False)
class Buffer:
    """Memory of `size` elements: of the caller ("input", "output"), constant ("constant", whose `array` is known), or in the arena."""

    name: str
    dtype: DType
    size: Dim
    kind: str = "arena"
    array: Array | None = None
    first: int = -1
    last: int = -1
    offset: int = 0
    nbytes: int = 0
    shares: Buffer | None = field(default=None, repr=False)

    @property
    def owner(self) -> Buffer:
        """The buffer whose memory it has taken over, or itself."""
        return self if self.shares is None else self.shares.owner


@dataclass(frozen=True, slots=True)
class View:
    """Element [i, j, …] lies at offset + i · strides[0] + j · strides[1] + …, counted in elements."""

    buffer: Buffer
    shape: tuple[Dim, ...]
    strides: tuple[Dim, ...]
    offset: Dim = 0

    @property
    def dtype(self) -> DType:
        return self.buffer.dtype

    @property
    def is_contiguous(self) -> bool:
        """Whether the elements lie one after the other in row-major order."""
        return all(
            size == 1 or stride == wanted for size, stride, wanted in zip(self.shape, self.strides, row_major(self.shape), strict=True)
        )

    @property
    def is_whole(self) -> bool:
        """Whether it is its buffer in row-major order."""
        return self.offset == 0 and self.is_contiguous and product(self.shape) == self.buffer.size

    def permuted(self, axes: Sequence[int]) -> View:
        """With axis i the one that was axes[i]."""
        return replace(self, shape=tuple(self.shape[axis] for axis in axes), strides=tuple(self.strides[axis] for axis in axes))

    def broadcast(self, shape: Sequence[Dim]) -> View:
        """Repeated along axes of size 1 and new leading ones."""
        extra = len(shape) - len(self.shape)
        strides = [
            0 if size == 1 and wanted != 1 else stride for size, stride, wanted in zip(self.shape, self.strides, shape[extra:], strict=True)
        ]
        return replace(self, shape=tuple(shape), strides=(*[0] * extra, *strides))

    def sliced(self, axis: int, start: Dim, size: Dim, step: Dim = 1) -> View:
        """`size` elements along an axis."""
        shape, strides = list(self.shape), list(self.strides)
        shape[axis], strides[axis] = size, strides[axis] * step
        return replace(self, shape=tuple(shape), strides=tuple(strides), offset=self.offset + start * self.strides[axis])

    def reshaped(self, shape: tuple[Dim, ...]) -> View | None:
        """In another shape; None where the elements do not lie so that it could be."""
        if self.is_contiguous:
            return replace(self, shape=shape, strides=row_major(shape))
        kept = [(size, stride) for size, stride in zip(self.shape, self.strides, strict=True) if size != 1]
        if [size for size, _ in kept] != [size for size in shape if size != 1]:
            return None
        rest = iter(kept)
        return replace(self, shape=shape, strides=tuple(0 if size == 1 else next(rest)[1] for size in shape))


def row_major(shape: Sequence[Dim]) -> tuple[Dim, ...]:
    """The strides of elements in row-major order."""
    strides: list[Dim] = []
    step: Dim = 1
    for size in reversed(shape):
        strides.append(step)
        step = step * size
    return tuple(reversed(strides))


def collapsed(shape: Sequence[Dim], strides: Sequence[Sequence[Dim]]) -> tuple[list[Dim], list[list[Dim]]]:
    """The fewest axes that say the same: those of size 1 go, and neighbours become one where all tensors walk them in one stride."""
    axes = [(size, [item[place] for item in strides]) for place, size in enumerate(shape) if size != 1]
    merged: list[tuple[Dim, list[Dim]]] = []
    for size, steps in axes:
        if merged and all(outer == inner * size for outer, inner in zip(merged[-1][1], steps, strict=True)):
            merged[-1] = (merged[-1][0] * size, steps)
        else:
            merged.append((size, steps))
    return [size for size, _ in merged], [[steps[item] for _, steps in merged] for item in range(len(strides))]
