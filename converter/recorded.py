"""What a recorded example holds in place of many values: a sample of an output, and how an input was drawn."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from converter.errors import FormatError
from converter.generator import Generator, stream_seed
from converter.ir import Array, DType

SAMPLED = 16_384
"""An output of more values than this is recorded as a sample."""

SAMPLE = 4_096
"""How many values a sample has."""

DRAWN = 256
"""A drawn input of more values than this is recorded by its seed."""

MAX_DRAWN = 1 << 24
"""How many values the inputs of a file's examples may have that are drawn when it is read."""

STATISTICS = ("finite", "mean", "rms", "min", "max")


@dataclass(frozen=True)
class Sample:
    """Some values of an output, and statistics of all.

    `values` (one axis) stand at `positions()` of the flattened output of `shape`. `statistics` are those of `statistics_of`.
    """

    shape: tuple[int, ...]
    seed: int
    values: Array
    statistics: Mapping[str, float] = field(default_factory=dict)

    @property
    def nbytes(self) -> int:
        return int(self.values.nbytes)

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(self.values.dtype)

    def positions(self) -> Array:
        """int64 indices into the flattened output, in the order of `values`; one may come twice."""
        return Generator(self.seed).integers(0, math.prod(self.shape), self.values.shape)

    def filled(self, truth: Array) -> Array:
        """`truth` in the sample's dtype, with the recorded values in their places; where shapes differ, zeros of the sample's own."""
        if truth.shape != self.shape or not truth.size:
            return np.broadcast_to(np.zeros((), self.dtype), self.shape)
        with np.errstate(all="ignore"):
            whole = truth.astype(self.dtype).reshape(-1)
        whole[self.positions()] = self.values
        return whole.reshape(self.shape)


def sampled(output: Array, name: str, limit: int = SAMPLED, count: int = SAMPLE) -> Array | Sample:
    """An output as it is, or a sample of it where it has more than `limit` values. The seed is that of the output's name."""
    if output.size <= limit:
        return output
    seed = stream_seed(0, "sample", name)
    places = Generator(seed).integers(0, output.size, (count,))
    return Sample(output.shape, seed, output.reshape(-1)[places], statistics_of(output))


def statistics_of(values: Array) -> dict[str, float]:
    """Of the finite values, in float64: how many, their mean, root mean square, smallest and largest. Complex: of both parts."""
    if values.dtype.kind == "c":
        values = np.stack([values.real, values.imag])
    wide = values.astype(np.float64).reshape(-1)
    wide = wide[np.isfinite(wide)]
    if not wide.size:
        return {"finite": 0}
    peak = float(np.abs(wide).max()) or 1.0
    mean, rms = float(np.mean(wide / peak)), math.sqrt(float(np.mean(np.square(wide / peak))))
    return {"finite": int(wide.size), "mean": mean * peak, "rms": rms * peak,
            "min": float(wide.min()), "max": float(wide.max())}


@dataclass(frozen=True, slots=True)
class Draw:
    """How the values of an input were drawn: see `docs/equivalence.md`, *The generator*.

    `normal`: as it comes; `uniform`: low + (high - low) · u; `integers`: in [low, high). Then rounded to the input's dtype.
    """

    kind: Literal["normal", "uniform", "integers"]
    seed: int
    low: float = 0
    high: float = 0

    def array(self, dtype: DType, shape: tuple[int, ...]) -> Array:
        """The values. Raises `FormatError` for a range that is none."""
        generator = Generator(self.seed)
        if self.kind == "normal":
            return np.asarray(generator.normal(shape)).astype(dtype.numpy)
        if not self.low < self.high:
            raise FormatError("not a range", expected="low < high", received=f"{self.low} to {self.high}")
        if self.kind == "uniform":
            return np.asarray(self.low + (self.high - self.low) * generator.uniform(shape)).astype(dtype.numpy)
        return generator.integers(int(self.low), int(self.high), shape).astype(dtype.numpy)


KINDS = ("normal", "uniform", "integers")
