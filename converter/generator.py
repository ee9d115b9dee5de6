"""Random numbers that any language can repeat: SplitMix64 streams, and draws made of integer arithmetic alone.

No draw calls a logarithm or a cosine, whose last bit differs between libraries: a normal value is a sum of uniform
integers. `docs/equivalence.md` gives the algorithm step by step, with test values.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

GOLDEN = 0x9E3779B97F4A7C15
MASK = (1 << 64) - 1
FNV_OFFSET, FNV_PRIME = 0xCBF29CE484222325, 0x100000001B3
NORMAL_DRAWS = 4
BLOCK = 1 << 18
"""Values that are drawn at a time, to bound memory; the stream is the same whatever it is."""
_CENTRE = (12 * 0xFFFF << 31) + (1 << 31)


def stream_seed(seed: int, *labels: str | int) -> int:
    """The seed of a named stream: FNV-1a (64 bits) over the UTF-8 of `seed` and the labels, joined by '/'."""
    value = FNV_OFFSET
    for byte in "/".join(map(str, (seed, *labels))).encode("utf-8"):
        value = (value ^ byte) * FNV_PRIME & MASK
    return value


class Generator:
    """One SplitMix64 stream (Steele, Lea, Flood, 2014: "Fast splittable pseudorandom number generators")."""

    def __init__(self, seed: int) -> None:
        self.state = seed & MASK

    def integers64(self, count: int) -> Array:
        """The next `count` values, uint64[count]."""
        result = np.empty(count, np.uint64)
        for start in range(0, count, BLOCK):
            result[start:start + BLOCK] = self._block(min(BLOCK, count - start))
        return result

    def _block(self, count: int) -> Array:
        steps = np.arange(1, count + 1, dtype=np.uint64)
        with np.errstate(over="ignore"):
            value = np.uint64(self.state) + steps * np.uint64(GOLDEN)
            value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        self.state = (self.state + count * GOLDEN) & MASK
        return value ^ (value >> np.uint64(31))

    def integers(self, low: int, high: int, shape: tuple[int, ...]) -> Array:
        """int64 values in [low, high), high > low: the stream's value modulo the width, plus `low`."""
        drawn = self.integers64(math.prod(shape)) % np.uint64(high - low)
        return (drawn.astype(np.int64) + np.int64(low)).reshape(shape)

    def uniform(self, shape: tuple[int, ...]) -> Array:
        """float64 values in [0, 1), multiples of 2^-53."""
        return ((self.integers64(math.prod(shape)) >> np.uint64(11)).astype(np.float64) * 2.0**-53).reshape(shape)

    def normal(self, shape: tuple[int, ...]) -> Array:
        """float64 values of mean 0 and variance 1 within ±6: the sum of twelve uniform ones less six (Irwin-Hall).

        Each value takes four draws a, b, c, d. S = the sum of the twelve 16-bit parts of a, b and c;
        the value is (S · 2^32 + (d >> 32) - 12 · 65535 · 2^31 - 2^31) · 2^-48, exact in float64.
        """
        count = math.prod(shape)
        result = np.empty(count, np.float64)
        for start in range(0, count, BLOCK):
            result[start:start + BLOCK] = self._normal(min(BLOCK, count - start))
        return result.reshape(shape)

    def _normal(self, count: int) -> Array:
        drawn = self.integers64(count * NORMAL_DRAWS).reshape(-1, NORMAL_DRAWS)
        total = np.zeros(len(drawn), np.int64)
        for column in range(3):
            for shift in (0, 16, 32, 48):
                total += ((drawn[:, column] >> np.uint64(shift)) & np.uint64(0xFFFF)).astype(np.int64)
        whole = (total << 32) + (drawn[:, 3] >> np.uint64(32)).astype(np.int64) - _CENTRE
        return whole.astype(np.float64) * 2.0**-48
