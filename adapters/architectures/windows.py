"""Windows of a map of words, as Swin has them (Liu et al. 2021): moved, masked, and the offset of two words of one.

Moving rolls the map; words that the roll made neighbours must not see each other, which a mask of -100 sees to.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from adapters.architectures.net import NetBuilder
from converter.builder import Value
from converter.dims import Dim
from converter.ir import Array, DType

APART = -100.0
FURTHEST = 8  # distances within a window go from -8 to 8 before their logarithm is taken


@dataclass(frozen=True, slots=True)
class Windows:
    """A map of `height` x `width` words in windows of `sides`: `rows` x `columns` of them, moved by `shifts`."""

    height: Dim
    width: Dim
    sides: tuple[int, int]
    shifts: tuple[Dim, Dim]

    @property
    def rows(self) -> Dim:
        return (self.height + self.sides[0] - 1) // self.sides[0]

    @property
    def columns(self) -> Dim:
        return (self.width + self.sides[1] - 1) // self.sides[1]


def complete(net: NetBuilder, x: Value, windows: Windows) -> Value:
    """The map [batch, height, width, features], with zeros to whole windows."""
    below, beside = windows.rows * windows.sides[0] - windows.height, windows.columns * windows.sides[1] - windows.width
    return net.op("pad", x, pads=((0, 0), (0, below), (0, beside), (0, 0)))


def roll(net: NetBuilder, x: Value, windows: Windows, back: bool = False) -> Value:
    """The map, moved up and left by `shifts`, or back."""
    shifts = windows.shifts if back else tuple(-shift for shift in windows.shifts)
    return net.op("roll", x, shift=shifts, axis=(1, 2))


def crop(net: NetBuilder, x: Value, windows: Windows) -> Value:
    """The map without what `complete` added."""
    return net.op("slice", x, axes=(1, 2), starts=(0, 0), stops=(windows.height, windows.width), steps=(1, 1))


def join(net: NetBuilder, x: Value, windows: Windows) -> Value:
    """[batch, windows, heads, words, size] as a map of whole windows, [batch, height, width, heads · size]."""
    (batch, _, heads, _, size), (high, wide), rows, columns = x.shape, windows.sides, windows.rows, windows.columns
    x = net.op("reshape", x, shape=(batch, rows, columns, heads, high, wide, size))
    x = net.op("permute_dims", x, axes=(0, 1, 4, 2, 5, 3, 6))
    return net.op("reshape", x, shape=(batch, rows * high, columns * wide, heads * size))


def merge(net: NetBuilder, x: Value) -> Value:
    """Four neighbours' features beside each other; an odd row or column is completed with zeros."""
    batch, height, width, features = x.shape
    rows, columns = (height + 1) // 2, (width + 1) // 2
    x = net.op("pad", x, pads=((0, 0), (0, 2 * rows - height), (0, 2 * columns - width), (0, 0)))
    x = net.op("permute_dims", net.op("reshape", x, shape=(batch, rows, 2, columns, 2, features)), axes=(0, 1, 3, 4, 2, 5))
    return net.op("reshape", x, shape=(batch, rows, columns, 4 * features))


def _regions(net: NetBuilder, count: Dim, shift: Dim, side: int) -> Value:
    """0 for the last `shift` of `count` windows' positions along an axis, which the roll brought there; -1 for the others."""
    return net.op("clip", net.op("arange", start=shift - count * side, stop=shift, dtype=DType.INT64), -1, 0)


def mask_of(net: NetBuilder, windows: Windows) -> Value:
    """-100 between words of a window that are no neighbours in the image: [windows, 1, words, words]."""
    high, wide = windows.sides
    words, count = high * wide, windows.rows * windows.columns
    down, right = windows.shifts
    rows = net.op("reshape", _regions(net, windows.rows, down, high), shape=(windows.rows, 1, high, 1))
    columns = net.op("reshape", _regions(net, windows.columns, right, wide), shape=(1, windows.columns, 1, wide))
    region = net.op("add", net.op("multiply", rows, 2), columns)
    query, key = (net.op("reshape", region, shape=(count, 1, *shape)) for shape in ((words, 1), (1, words)))
    return net.op("multiply", net.cast(net.op("not_equal", query, key)), APART)


def pairs(sides: tuple[int, int]) -> Array:
    """Which row of a table of offsets two words of a window have: int64 [words, words]."""
    high, wide = sides
    rows, columns = np.divmod(np.arange(high * wide), wide)
    down, right = (place[:, None] - place[None, :] + side - 1 for place, side in ((rows, high), (columns, wide)))
    found: Array = (down * (2 * wide - 1) + right).astype(np.int64)
    return found


def offsets(net: NetBuilder, table: Value, index: Value, words: int) -> Value:
    """What is added to the scores of two words: [heads, words, words]. table: [rows, heads]; index: int64 [words · words]."""
    found = net.op("reshape", net.op("embedding", index, table), shape=(words, words, table.shape[-1]))
    return net.op("permute_dims", found, axes=(2, 0, 1))


def distances(sides: tuple[int, int], trained: int) -> Array:
    """How far apart two words are along each axis, by a logarithm, as float32 gives it: float32 [2 · height - 1, 2 · width - 1, 2].

    `trained`: the side of the windows with which the network that takes them was trained; 0: these.
    """
    axes = [np.arange(1 - side, side, dtype=np.float32) / np.float32(max((trained or side) - 1, 1)) * np.float32(FURTHEST)
            for side in sides]
    table = np.stack(np.meshgrid(*axes, indexing="ij"), -1)
    # NumPy's own logarithm in float32 differs from machine to machine; PyTorch's is the nearest float32.
    logarithms = np.log2(np.abs(table) + np.float32(1), dtype=np.float64).astype(np.float32)
    found: Array = np.sign(table) * logarithms / np.float32(3)
    return found
