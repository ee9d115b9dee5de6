"""The floats of 16 bits and fewer, by table: their shortest digits, and the nearest one to any number."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from converter.ir import Array, DType

SMALL_FLOATS = frozenset(dtype for dtype in DType if dtype.is_float and dtype.itemsize <= 2)


@dataclass(frozen=True)
class FloatTable:
    """Every value of a small float dtype.

    Attributes:
        unsigned: the unsigned integer dtype of the same width.
        values: float64, by bit pattern.
        ordered: the finite values, ascending, each once (0.0 for both zeros), float64.
        codes: the bit patterns of `ordered`.
        middles: float64, halfway between neighbours of `ordered`, with the ends of the range before and after: a
            number at or beyond an end does not fit the dtype. All are exact.
        special: the bit patterns of NaN, Infinity, -Infinity and -0.0 where the dtype has them.
    """

    unsigned: np.dtype[Any]
    values: Array
    ordered: Array
    codes: Array
    middles: Array
    special: dict[str, int]

    def nearest(self, numbers: Array) -> tuple[Array, Array, Array]:
        """Bit patterns of the nearest values to float64 numbers: (patterns, which tie, which do not fit).

        A number halfway between two neighbours gets the even pattern and is marked as a tie, as the text that it was
        read from may lie to one side. NaN and infinities are for the caller.
        """
        place = np.searchsorted(self.middles, numbers, side="left")
        place = np.clip(place, 1, len(self.middles) - 1)
        outside = ~((numbers > self.middles[0]) & (numbers < self.middles[-1]))
        tie = (self.middles[place] == numbers) & ~outside
        index = place - 1
        codes = self.codes[index]
        upper = self.codes[np.minimum(index + 1, len(self.codes) - 1)]
        codes = np.where(tie & (codes % 2 == 1), upper, codes)
        if "-0.0" in self.special:
            codes = np.where((self.values[codes] == 0) & np.signbit(numbers), self.special["-0.0"], codes)
        return codes.astype(self.unsigned), tie, outside

    def neighbours(self, middle: float) -> tuple[int, int]:
        """The patterns below and above a number halfway between them."""
        index = int(np.searchsorted(self.middles, middle))
        lower, upper = int(self.codes[index - 1]), int(self.codes[index])
        if "-0.0" in self.special and self.values[upper] == 0:
            upper = self.special["-0.0"]
        return lower, upper


@cache
def float_table(dtype: DType) -> FloatTable:
    """The table of a dtype of `SMALL_FLOATS`."""
    unsigned = np.dtype(f"u{dtype.itemsize}")
    patterns = np.arange(1 << dtype.bits).astype(unsigned)
    with np.errstate(all="ignore"):
        values = patterns.view(dtype.numpy).astype(np.float64)
    finite = np.flatnonzero(np.isfinite(values) & ~((values == 0) & np.signbit(values)))
    finite = finite[np.argsort(values[finite], kind="stable")]
    ordered = values[finite]
    special: dict[str, int] = {}
    for name, found in (("Infinity", values == np.inf), ("-Infinity", values == -np.inf),
                        ("-0.0", (values == 0) & np.signbit(values))):
        if found.any():
            special[name] = int(np.flatnonzero(found)[0])
    if np.isnan(values).any():
        special["NaN"] = int(np.array([np.nan]).astype(dtype.numpy).view(unsigned)[0])
    inner = (ordered[:-1] + ordered[1:]) / 2
    low = ordered[0] - (ordered[1] - ordered[0]) / 2
    high = ordered[-1] + (ordered[-1] - ordered[-2]) / 2
    return FloatTable(unsigned, values, ordered, finite, np.concatenate([[low], inner, [high]]), special)


@cache
def shortest_digits(dtype: DType) -> Array:
    """The text of every bit pattern: the fewest digits that round to it, or `"NaN"` and its kind. object[2^bits].

    float8_e8m0fnu, which holds nothing but powers of two, is written in full: 16 must not read as 20.
    """
    table = float_table(dtype)
    texts = np.full(len(table.values), '"NaN"', dtype=object)
    positive = table.codes[table.ordered > 0]
    pending = positive
    for digits in range(0 if dtype is not DType.FLOAT8_E8M0FNU else 17, 18):
        written = [f"{value:.{digits}e}" for value in table.values[pending].tolist()]
        numbers = np.array([float(text) for text in written])
        codes, tie, outside = table.nearest(numbers)
        good = (codes == pending) & ~tie & ~outside | (numbers == table.values[pending])
        texts[pending[good]] = [repr(float(text)) for text, fits in zip(written, good, strict=True) if fits]
        pending = pending[~good]
        if not len(pending):
            break
    for index in np.flatnonzero(np.isfinite(table.values)):
        value = table.values[index]
        if value == 0:
            texts[index] = "-0.0" if np.signbit(value) else "0.0"
        elif value < 0:
            texts[index] = "-" + texts[table.codes[len(table.ordered) - 1 - np.searchsorted(table.ordered, value)]]
    for name in ("Infinity", "-Infinity"):
        if name in table.special:
            texts[table.special[name]] = f'"{name}"'
    return texts
