"""Parts of a tensor that sizes alone decide: slices, borders, diagonals; and the same parts replaced."""

from __future__ import annotations

import builtins
from collections.abc import Sequence
from typing import Any

import torch

from adapters.torch.ops.manipulation import inverse, last_axes, permuted, reshaped
from adapters.torch.registry import imports, rebuilds
from adapters.torch.tracing.importer import Importer, target_name
from adapters.torch.tracing.known_sizes import is_undefined, never_negative, require_at_least, require_bound
from converter import dims
from converter.builder import Value
from converter.conditions import Condition, compare
from converter.dims import Dim, maximum, minimum
from converter.ir import DType
from converter.ops.slicing import slice_length

Tensor = torch.Tensor
MODES = {"constant": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}
TORCH_MODES = {mode: name for name, mode in MODES.items()}
ITEMS = frozenset({"aten.item.default", "aten._local_scalar_dense.default"})
END = 2**62  # torch writes an open end as 2**63 - 1


# Slices --------------------------------------------------------------------------------------------------------------------


def _counted(g: Importer, bound: Dim, size: Dim) -> Dim:
    """A bound counted from the front: a negative one counts from the end of its axis."""
    if never_negative(g, bound):
        return bound
    backwards = 1 if never_negative(g, -1 - bound) else maximum(0, minimum(1, 0 - bound))  # whether it counts from the end
    return bound + size * backwards


def _within(g: Importer, bound: Dim, size: Dim) -> Dim:
    """A bound counted from the front and clamped to its axis, with as few clamps as the ranges of sizes leave in doubt."""
    value = _counted(g, bound, size)
    above = value if never_negative(g, size - value) else size if never_negative(g, value - size) else minimum(value, size)
    return above if never_negative(g, value) else 0 if never_negative(g, 0 - value) else maximum(0, above)


def resolve(g: Importer, size: Dim, start: Dim | None, stop: Dim | None) -> tuple[Dim, Dim | None]:
    """A slice's bounds as `slice` takes them: inside the axis at every size, and the stop not before the start.

    PyTorch clamps bounds: a negative one counts from the end, what lies outside the axis is at its end.
    """
    require_bound(g, start, stop)
    begin = 0 if start is None or start == 0 else _within(g, start, size)
    end = size if stop is None or isinstance(stop, int) and stop >= END else _within(g, stop, size)
    if end == size:
        return begin, None
    return begin, end if never_negative(g, end - begin) else begin if never_negative(g, begin - end) else maximum(begin, end)


def _cut(g: Importer, x: Value, axis: int, start: Dim | None, stop: Dim | None, step: Dim, name: str) -> Value:
    """A slice between numbers that only the data decide; torch's symbol `name` for its length is what the bounds leave."""
    begin, end = resolve(g, x.shape[axis], start, stop)
    g.symbols[name] = slice_length(x.shape[axis], begin, end, step)
    return g.op("slice", x, axes=(axis,), starts=(begin,), stops=(end,), steps=None if step == 1 else (step,))


def sliced(g: Importer, x: Value, axis: int, start: Dim | None, stop: Dim | None, step: Dim) -> Value:
    """One slice of `x`; joined with the slice of another axis that `x` itself is, where nothing else uses that one."""
    begin, end = resolve(g, x.shape[axis], start, stop)
    if begin == 0 and end is None and step == 1:
        return x
    return _joined(g, x, axis, begin, end, step) or g.op("slice", x, axes=(axis,), starts=(begin,), stops=(end,),
                                                         steps=None if step == 1 else (step,))


def _joined(g: Importer, x: Value, axis: int, begin: Dim, end: Dim | None, step: Dim) -> Value | None:
    last = g.builder._nodes[-1] if g.builder._nodes else None
    source = g.node.args[0]
    if last is None or last.op != "slice" or last.outputs != (x.name,) or axis in last.attributes["axes"]:
        return None
    if not isinstance(source, torch.fx.Node) or len(source.users) != 1:
        return None
    given = last.attributes
    steps = given.get("steps") or (1,) * len(given["axes"])
    inner = Value(last.inputs[0], g.builder.specs[last.inputs[0]])  # type: ignore[arg-type,index]
    joined = (*steps, step)
    return g.op("slice", inner, axes=(*given["axes"], axis), starts=(*given["starts"], begin), stops=(*given["stops"], end),
                steps=None if all(item == 1 for item in joined) else joined)


@imports("aten.slice.Tensor", "aten.slice_copy.Tensor")
def slice_(g: Importer, self: Value, dim: int = 0, start: Dim | None = None, end: Dim | None = None, step: Dim = 1) -> Value:
    axis = dim % self.rank
    length = g.node.meta["val"].shape[axis]
    if isinstance(length, torch.SymInt) and length.node.expr.is_Symbol and is_undefined(g, str(length.node.expr)):
        return _cut(g, self, axis, start, end, step, str(length.node.expr))
    return sliced(g, self, axis, start, end, step)


@imports("aten.narrow.default", "aten.narrow_copy.default")
def narrow(g: Importer, self: Value, dim: int, start: Dim, length: Dim) -> Value:
    axis = dim % self.rank
    size = self.shape[axis]
    begin = size + start if isinstance(start, int) and start < 0 else start
    return sliced(g, self, axis, begin, begin + length, 1)


@imports("aten.select.int", "aten.select_copy.int")
def select(g: Importer, self: Value, dim: int, index: Dim) -> Value:
    axis = dim % self.rank
    source = g.node.args[2]
    if isinstance(source, torch.fx.Node) and target_name(source.target) in ITEMS:
        place = g.environment[source.args[0]]  # type: ignore[index]
        return g.op("take", self, reshaped(g, g.cast(place, DType.INT64), ()), axis=axis)
    require_bound(g, index)
    if self.shape[axis] == 1:
        return g.op("squeeze", self, axis=(axis,))
    return g.op("select", self, axis=axis, index=index)


@imports("aten.slice_scatter.default")
def slice_scatter(g: Importer, self: Value, src: Value, dim: int = 0, start: Dim | None = None, end: Dim | None = None,
                  step: Dim = 1) -> Value:
    axis = dim % self.rank
    src = g.cast(src, self.dtype)
    begin, stop = resolve(g, self.shape[axis], start, end)
    if begin == 0 and stop is None and step == 1:
        return src
    length, given = slice_length(self.shape[axis], begin, stop, step), src.shape[axis]
    if length != given:
        if isinstance(given, int):
            require_at_least(g, length, given)
        same = compare(length, "==", given)
        if isinstance(same, Condition) and not never_negative(g, given - length):
            g.builder.require(same)
    return g.op("slice_scatter", self, src, axis=axis, start=begin, stop=stop, step=step)


@imports("aten.select_scatter.default")
def select_scatter(g: Importer, self: Value, src: Value, dim: int, index: Dim) -> Value:
    axis = dim % self.rank
    row = g.op("expand_dims", g.cast(src, self.dtype), axis=(axis,))
    begin = _counted(g, index, self.shape[axis])
    require_at_least(g, begin, 0)
    require_at_least(g, self.shape[axis], begin + 1)
    return g.op("slice_scatter", self, row, axis=axis, start=begin, stop=begin + 1)


# Borders -------------------------------------------------------------------------------------------------------------------


def padded(g: Importer, x: Value, pad: Sequence[Dim], mode: str, value: object = 0) -> Value:
    """`x` with torch's pads: pairs from the last axis to the first."""
    pairs = list(zip(pad[::2], pad[1::2], strict=True))
    pads = ((0, 0),) * (x.rank - len(pairs)) + tuple(reversed(pairs))
    if all(pair == (0, 0) for pair in pads):
        return x
    attributes: dict[str, Any] = {} if mode == "constant" else {"mode": MODES[mode]}
    fill = g.operand(value or 0, x.dtype)
    if isinstance(fill, complex) and not fill.imag:
        fill = fill.real
    if isinstance(fill, (Value, complex)):
        raise g.refuse("a border of a value that is no real number")
    if fill:
        attributes["value"] = fill
    if mode in ("circular", "reflect"):
        for size, pair in zip(x.shape, pads, strict=True):
            for width in pair:
                if isinstance(width, int) and width > 0:
                    require_at_least(g, size, width + (mode == "reflect"))
    return g.op("pad", x, pads=pads, **attributes)


@imports("aten.pad.default")
def pad(g: Importer, self: Value, pad: list[Dim], mode: str = "constant", value: object = None) -> Value:
    return padded(g, self, pad, mode, value)


@imports("aten.constant_pad_nd.default")
def constant_pad(g: Importer, self: Value, pad: list[Dim], value: object = 0) -> Value:
    return padded(g, self, pad, "constant", value)


@imports("aten.reflection_pad1d.default", "aten.reflection_pad2d.default", "aten.reflection_pad3d.default")
def reflection_pad(g: Importer, self: Value, padding: list[Dim]) -> Value:
    return padded(g, self, padding, "reflect")


@imports("aten.replication_pad1d.default", "aten.replication_pad2d.default", "aten.replication_pad3d.default")
def replication_pad(g: Importer, self: Value, padding: list[Dim]) -> Value:
    return padded(g, self, padding, "replicate")


# Diagonals -----------------------------------------------------------------------------------------------------------------


@imports("aten.diagonal.default", "aten.diagonal_copy.default", "aten.linalg_diagonal.default")
def diagonal(g: Importer, self: Value, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Value:
    return g.op("diagonal", self, offset=offset, axis1=dim1 % self.rank, axis2=dim2 % self.rank)


@imports("aten.diag.default")
def diag(g: Importer, self: Value, diagonal: int = 0) -> Value:
    return g.op("diagonal" if self.rank == 2 else "diag_embed", self, offset=diagonal)


@imports("aten.diag_embed.default")
def diag_embed(g: Importer, self: Value, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Value:
    rank = self.rank + 1
    first, second = dim1 % rank, dim2 % rank
    axes: dict[str, Any] = {} if (first, second) == (rank - 2, rank - 1) else {"axis1": first, "axis2": second}
    return g.op("diag_embed", self, offset=offset, **axes)


@imports("aten.diagflat.default")
def diagflat(g: Importer, self: Value, offset: int = 0) -> Value:
    return g.op("diag_embed", reshaped(g, self, (dims.product(self.shape),)), offset=offset)


@imports("aten.diagonal_scatter.default")
def diagonal_scatter(g: Importer, self: Value, src: Value, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Value:
    """A diagonal is a slice of the flattened plane, one row and one element at a step."""
    first, second = dim1 % self.rank, dim2 % self.rank
    rows, columns = self.shape[first], self.shape[second]
    start: Dim = offset if offset >= 0 else columns * -offset
    if src.shape[-1] == 0:
        return self
    axes = last_axes(self.rank, (first, second))
    plane = permuted(g, self, axes)
    flat = reshaped(g, plane, (*plane.shape[:-2], rows * columns))
    last = start + (src.shape[-1] - 1) * (columns + 1)
    result = g.op("slice_scatter", flat, g.cast(src, self.dtype), axis=flat.rank - 1, start=start, stop=last + 1, step=columns + 1)
    return permuted(g, reshaped(g, result, plane.shape), inverse(axes))


# PyTorch again -------------------------------------------------------------------------------------------------------------


@rebuilds("slice")
def rebuild_slice(x: Tensor, *, axes: tuple[int, ...], starts: tuple[int, ...], stops: tuple[int | None, ...],
                  steps: tuple[int, ...] | None = None) -> Tensor:
    key: list[builtins.slice] = [builtins.slice(None)] * x.dim()
    for axis, start, stop, step in zip(axes, starts, stops, steps or (1,) * len(axes), strict=True):
        key[axis] = builtins.slice(start, stop, step)
    return x[tuple(key)]


@rebuilds("select")
def rebuild_select(x: Tensor, *, axis: int, index: int) -> Tensor:
    return x.select(axis, index)


@rebuilds("slice_scatter")
def rebuild_slice_scatter(x: Tensor, values: Tensor, *, axis: int, start: int, stop: int | None, step: int = 1) -> Tensor:
    return torch.slice_scatter(x, values, axis, start, stop, step)


@rebuilds("pad")
def rebuild_pad(x: Tensor, *, pads: tuple[tuple[int, int], ...], mode: str = "constant", value: float = 0) -> Tensor:
    if mode == "constant":
        return torch.constant_pad_nd(x, [side for pair in reversed(pads) for side in pair], value)
    if mode == "wrap":
        x = _cropped(x, pads)
    for axis, (before, after) in enumerate(pads):
        # torch pads the last axes of a batch only: the axis goes last, beside two others.
        if (before > 0 or after > 0) and x.numel():
            moved = x.movedim(axis, -1)
            wide = moved.reshape(1, -1, moved.shape[-1])
            done = torch.nn.functional.pad(wide, (max(before, 0), max(after, 0)), TORCH_MODES[mode])
            x = done.reshape(*moved.shape[:-1], -1).movedim(-1, axis)
        elif before > 0 or after > 0:
            x = torch.cat([x, x.new_zeros([max(before, 0) + max(after, 0) if place == axis else size for place, size in
                                           enumerate(x.shape)])], axis)
    return x if mode == "wrap" else _cropped(x, pads)


def _cropped(x: Tensor, pads: tuple[tuple[int, int], ...]) -> Tensor:
    for axis, (before, after) in enumerate(pads):
        x = x.narrow(axis, max(-before, 0), x.shape[axis] + min(before, 0) + min(after, 0))
    return x


@rebuilds("diagonal")
def rebuild_diagonal(x: Tensor, *, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Tensor:
    return torch.diagonal(x, offset, axis1, axis2)


@rebuilds("diag_embed")
def rebuild_diag_embed(x: Tensor, *, offset: int = 0, axis1: int = -2, axis2: int = -1) -> Tensor:
    return torch.diag_embed(x, offset, axis1, axis2)
