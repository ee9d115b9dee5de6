"""`--input 'tokens:int64[batch,time]{0..30000}'`: what a module takes, written on a command line."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from converter.dims import Dim, Expr, evaluate, substitute, symbols
from converter.errors import ConverterError, FormatError
from converter.ir import Array, DimRange, Example, TensorSpec
from converter.npz import read_npz, unreadable, with_text
from converter.side_files import require_plain

PATTERN = re.compile(r"(?P<name>[^:\[\]{}]+):(?P<dtype>\w+)\[(?P<shape>[^\[\]]*)\](?:\{(?P<low>-?\d+)\.\.(?P<high>-?\d+)\})?\Z")
EXAMPLE = "'tokens:int64[batch,time]', or 'tokens:int64[batch,time]{0..30000}' to draw from a range"
BATCH = (2, 3)
"""Sizes for the names of first axes before others, in the order in which they are named; then as for all others."""

SIZES = ((37, 67, 101, 139, 173, 211), (64, 96, 160, 128, 192, 224), (224, 256, 288, 320, 352, 384), (12, 20, 28, 44, 52, 60),
         (5, 7, 11, 13, 17, 19), (4001, 4507, 5003, 5501, 6007, 6509), (192, 96, 48, 24, 12, 6), (6, 12, 24, 48, 96, 192),
         *((side,) * 6 for side in (224, 256, 384, 32, 64, 28)))
"""Sizes for all other names in the order they are named, tried one row after the other.

The first are prime and far apart: what a strided net makes of them is never 1, and two are not equal by chance. The next are
for modules that cut images into windows; then come small ones, for short tables of positions; long ones, for sound;
multiples of one another, for heads that share their keys; and last equal ones, for modules that take one size of image alone.
"""

MOST = 1 << 24
"""Elements of an argument: rows with more are left out."""


@dataclass(frozen=True, slots=True)
class InputSpec:
    """One argument of a module: its spec, the range of its integers, and the ranges of its sizes."""

    name: str
    spec: TensorSpec
    span: tuple[int, int] | None
    ends: Mapping[str, DimRange] = field(default_factory=dict)
    """The ranges of free sizes that `--fix NAME=LOW..HIGH` gives, by name."""

    @property
    def axes(self) -> list[str | int]:
        """The axes as `dims=` takes them: names of free sizes, expressions of names, integers for fixed ones."""
        return [size if isinstance(size, int) else str(size) for size in self.spec.shape]


def parse_input(text: str) -> InputSpec:
    """Raises `ConverterError` for a text that is not of the form above."""
    where = f"--input {text!r}"
    found = PATTERN.match(text.strip())
    if found is None:
        raise ConverterError("not an input", where=where, expected=EXAMPLE, received=repr(text))
    sizes: list[int | str] = []
    for part in filter(None, (piece.strip() for piece in found["shape"].split(","))):
        sizes.append(int(part) if re.fullmatch(r"\d+", part) else part)
    try:
        spec = TensorSpec.of(found["dtype"], sizes)
    except ConverterError as error:
        raise error.within(where) from error
    for size in spec.shape:
        if isinstance(size, int) and size < 0:
            raise ConverterError("a size of an input must not be negative", where=where, received=str(size), expected=EXAMPLE)
    span = None
    if found["low"] is not None:
        span = (int(found["low"]), int(found["high"]))
        if not spec.dtype.is_integer:
            raise ConverterError("a range is for integers", where=where, received=str(spec.dtype))
        lowest, highest = spec.dtype.limits
        if not lowest <= span[0] <= span[1] <= highest:
            raise ConverterError("not a range", where=where, expected=f"lowest..highest within {spec.dtype}",
                                 received=f"{span[0]}..{span[1]}")
    return InputSpec(found["name"].strip(), spec, span)


def parse_inputs(texts: Sequence[str]) -> tuple[InputSpec, ...]:
    """All of them. Raises `ConverterError` for one that is not an input, or for a name given twice."""
    inputs = tuple(map(parse_input, texts))
    names = [item.name for item in inputs]
    for name in names:
        if names.count(name) > 1:
            raise ConverterError(f"the input {name!r} is given twice", where="--input")
    return inputs


ENDS = re.compile(r"(?P<low>[1-9]\d*)?\.\.(?P<high>[1-9]\d*)?")


def fixed_sizes(texts: Sequence[str], inputs: Sequence[InputSpec]) -> tuple[InputSpec, ...]:
    """The inputs with sizes as `NAME=SIZE` fixes and `NAME=LOW..HIGH` bounds them, either end left out.

    Raises `ConverterError` for another text, or a name that no input has.
    """
    sizes: dict[str, Dim] = {}
    ends: dict[str, DimRange] = {}
    names = _size_names(inputs)
    for text in texts:
        name, _, number = (part.strip() for part in text.partition("="))
        bounds = ENDS.fullmatch(number)
        low, high = (int(bounds[end]) if bounds and bounds[end] else None for end in ("low", "high"))
        if name not in names or not (re.fullmatch(r"[1-9]\d*", number) or low or high) or low and high and high < low:
            raise ConverterError("not a size of an input", where=f"--fix {text!r}", received=repr(text),
                                 expected="NAME=SIZE or NAME=LOW..HIGH, of " + (", ".join(names) or "a name that --input gives"))
        if bounds:
            ends[name] = DimRange(low or 1, high)
        else:
            sizes[name] = int(number)
    return tuple(replace(item, ends=ends, spec=TensorSpec(item.spec.dtype, tuple(substitute(size, sizes) for size in item.spec.shape)))
                 for item in inputs)


def _size_names(inputs: Sequence[InputSpec]) -> list[str]:
    """The names of sizes, those that stand alone before those of expressions."""
    sizes = [size for item in inputs for size in item.spec.shape if isinstance(size, Expr)]
    alone = [size.symbol for size in sizes if size.symbol is not None]
    return list(dict.fromkeys([*alone, *(name for size in sizes for name in sorted(symbols(size)))]))


def draw_examples(inputs: Sequence[InputSpec]) -> Iterator[dict[str, Array]]:
    """Example arguments at one row of sizes after the other: every name of a size gets its own."""
    names = _size_names(inputs)
    batches = [name for name in names if any(str(item.spec.shape[0]) == name and item.spec.rank > 1 for item in inputs if item.spec.rank)]
    own = dict(zip(batches, BATCH, strict=False))
    others = [name for name in names if name not in own]
    ends = {name: span for item in inputs for name, span in item.ends.items()}
    for row in SIZES if others else SIZES[:1]:
        sizes = {**own, **{name: row[index] if index < len(row) else row[-1] + 2 * index for index, name in enumerate(others)}}
        sizes = {name: size if name not in ends else _within(ends[name], size) for name, size in sizes.items()}
        shapes = [_shape(item, sizes) for item in inputs]
        if row is not SIZES[0] and max(map(math.prod, shapes)) > MOST or min((size for shape in shapes for size in shape), default=0) < 0:
            continue
        generator = np.random.default_rng(0)
        yield {item.name: _draw(item, sizes, generator) for item in inputs}


def _shape(item: InputSpec, sizes: Mapping[str, int]) -> tuple[int, ...]:
    return tuple(evaluate(size, sizes) for size in item.spec.shape)


def _within(span: DimRange, size: int) -> int:
    """A size in a range: the size itself, or one that is as far beyond the range's low end as the range lets it."""
    return size if size in span else span.min + size if span.max is None else max(span.min, min(size, span.max))


def _draw(item: InputSpec, sizes: Mapping[str, int], generator: np.random.Generator) -> Array:
    shape = _shape(item, sizes)
    dtype = item.spec.dtype
    if dtype.is_integer:
        low, high = item.span or (0, 1)
        return np.asarray(generator.integers(low, high, shape, endpoint=True)).astype(dtype.numpy)
    if dtype.is_float or dtype.is_complex:
        values = np.asarray(generator.standard_normal(shape))
        return (values + 1j * generator.standard_normal(shape) if dtype.is_complex else values).astype(dtype.numpy)
    return np.asarray(generator.integers(0, 2, shape)).astype(bool)


def read_recorded(path: str | Path) -> tuple[Example, ...]:
    """Recorded runs of an .npz file with the entries `0/inputs/NAME` and `0/outputs/NAME`, `1/inputs/NAME`, …

    An entry `made_by` says what made them. Raises `FormatError` for other entries, a run without outputs, or no run.
    """
    expected = "entries 0/inputs/NAME and 0/outputs/NAME, 1/inputs/NAME and so on"
    arrays = read_npz(path)
    made_by = str(arrays.pop("made_by", "a recording"))
    runs: dict[int, dict[str, dict[str, Array]]] = {}
    for entry, array in arrays.items():
        number, _, rest = entry.partition("/")
        kind, _, name = rest.partition("/")
        if not (number.isascii() and number.isdecimal() and len(number) <= 9) or kind not in ("inputs", "outputs") or not name:
            raise FormatError("an entry that is no input or output of a recorded run", where=str(path), expected=expected,
                              received=repr(entry)[:100])
        runs.setdefault(int(number), {"inputs": {}, "outputs": {}})[kind][name] = array
    if not runs or not all(run["outputs"] for run in runs.values()):
        raise FormatError("a recorded run has no outputs" if runs else "no recorded runs", where=str(path), expected=expected)
    return tuple(Example(runs[number]["inputs"], runs[number]["outputs"], made_by) for number in sorted(runs))


def read_array(path: str | Path) -> Array:
    """The array of an .npy file. Raises `FormatError`; never unpickles."""
    path = Path(path)
    require_plain(path, "an .npy file")
    try:
        content = np.load(path, allow_pickle=False)
    except Exception as error:
        raise unreadable(path, error) from error
    if not isinstance(content, np.ndarray):
        content.close()
        raise FormatError("several arrays, where one is needed", where=str(path), expected="an .npy file",
                          fix="give the .npz by itself: --input-file")
    return with_text(content, str(path))
