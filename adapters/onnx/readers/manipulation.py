"""Shapes: reshape, transpose, join, cut, pad; constants and ranges."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from adapters.onnx.load import FROM_ONNX
from adapters.onnx.reading.items import Item, is_numeric
from adapters.onnx.reading.reader import Reader
from adapters.onnx.registry import reads
from converter.builder import Value
from converter.dims import Dim, Expr, maximum, minimum, product, symbol
from converter.equal_sizes import differ
from converter.ir import Array, DType


@reads("Constant")
def constant(g: Reader, *, value: Array | None = None, sparse_value: Array | None = None, **given: Any) -> Item:
    """A tensor, or numbers as a tensor."""
    value = sparse_value if value is None else value
    if value is None:
        ((name, held),) = given.items()
        kinds = {"value_float": np.float32, "value_floats": np.float32, "value_int": np.int64, "value_ints": np.int64}
        if name not in kinds:
            raise g.refuse(f"a constant given as {name}")
        value = np.asarray(held, kinds[name])
    if value.dtype.kind in "OUS":
        raise g.refuse("text")
    return g.constant_item(value)


@reads("ConstantOfShape")
def constant_of_shape(g: Reader, shape: Item, *, value: Array | None = None) -> Value:
    filled = np.zeros(1, np.float32) if value is None else value
    return g.op("full", shape=tuple(g.sizes(shape, "a shape")), fill_value=filled.reshape(-1)[0].item(), dtype=DType.of(filled.dtype))


@reads("Range")
def arange(g: Reader, start: Item, limit: Item, delta: Item) -> Value:
    ends = [known.reshape(-1)[0] for item in (start, limit, delta) if (known := g.known(item)) is not None]
    if len(ends) < 3:
        return _counted(g, start, limit, delta)
    first, last, step = ends
    numbers = [item if isinstance(item, Expr) else item.item() if hasattr(item, "item") else item for item in (first, last, step)]
    return g.op("arange", start=numbers[0], stop=numbers[1], step=numbers[2], dtype=g.dtype(start))


def _counted(g: Reader, start: Item, limit: Item, delta: Item) -> Value:
    """start + i · delta for each i below (limit - start) / delta, whose number the data decide."""
    first, last, step = (g.op("reshape", item, shape=()) for item in (start, limit, delta))
    wide = DType.FLOAT64 if first.dtype.is_float else DType.INT64
    apart = g.op("subtract", g.cast(last, wide), g.cast(first, wide))
    by = g.cast(step, wide)
    number = g.op("ceil", g.op("divide", apart, by)) if wide is DType.FLOAT64 else g.op("negative", g.op("floor_divide", g.op(
        "negative", apart), by))
    size = symbol(g.size_symbol("range"))
    whole = g.cast(number, DType.INT64)
    g.op("size_of", g.op("maximum", whole, g.like(0, whole)), size=size)
    places = g.op("arange", start=0, stop=size, step=1, dtype=first.dtype)
    return g.op("add", g.op("multiply", places, step), first)


@reads("EyeLike")
def eye_like(g: Reader, x: Item, *, dtype: int | None = None, k: int = 0) -> Value:
    rows, columns = g.shape(x)
    kind = g.dtype(x) if dtype is None else FROM_ONNX[dtype]
    if k == 0:
        return g.op("eye", rows=rows, columns=columns, dtype=kind)
    down = g.op("expand_dims", g.op("arange", start=0, stop=rows, step=1, dtype=DType.INT64), axis=(1,))
    along = g.op("arange", start=-k, stop=columns - k, step=1, dtype=DType.INT64)
    return g.cast(g.op("equal", down, along), kind)


def reshaped(g: Reader, x: Item | Value, sizes: Sequence[Dim], allowzero: bool = False) -> Value:
    """x in another shape: 0 keeps a size unless zeros are meant, -1 takes what is left."""
    before = g.shape(x)
    shape: list[Dim] = []
    for place, size in enumerate(sizes):
        if size == 0 and not allowzero:
            if place >= len(before):
                raise g.refuse("a shape that keeps an axis which there is not")
            shape.append(before[place])
        else:
            shape.append(size)
    if -1 in shape:
        place = shape.index(-1)
        others = list(shape[:place] + shape[place + 1:])
        left = list(before)
        for size in [item for item in others if item in left]:
            if size in left:
                left.remove(size)
                others.remove(size)
        divisor = product(others)
        if divisor == 0:
            raise g.refuse("a shape of no elements whose sizes are left open")
        shape[place] = product(left) // divisor
    differ(product(before), product(shape), exact=True)
    return g.op("reshape", x, shape=tuple(shape))


@reads("Reshape")
def reshape(g: Reader, x: Item, sizes: Item | None = None, *, shape: Sequence[int] | None = None, allowzero: int = 0,
            consumed_inputs: Any = None) -> Value:
    found = list(shape or ()) if sizes is None else g.sizes(sizes, "a shape")
    return reshaped(g, x, found, bool(allowzero))


@reads("Flatten")
def flatten(g: Reader, x: Item, *, axis: int = 1) -> Value:
    shape = g.shape(x)
    place = axis + len(shape) if axis < 0 else axis
    return g.op("reshape", x, shape=(product(shape[:place]), product(shape[place:])))


def _places(g: Reader, item: Item | None, given: Sequence[int] | None, what: str) -> tuple[int, ...] | None:
    return tuple(given) if item is None and given is not None else None if item is None else tuple(g.integers(item, what))


@reads("Squeeze")
def squeeze(g: Reader, x: Item, item: Item | None = None, *, axes: Sequence[int] | None = None) -> Value:
    places = _places(g, item, axes, "axes")
    if places is None:
        if any(isinstance(size, Expr) for size in g.shape(x)):
            raise g.refuse("axes of one element that are to be found in free sizes")
        places = tuple(place for place, size in enumerate(g.shape(x)) if size == 1)
    return g.op("squeeze", x, axis=tuple(sorted(g.axis(place, g.rank(x)) for place in places)))


@reads("Unsqueeze")
def unsqueeze(g: Reader, x: Item, item: Item | None = None, *, axes: Sequence[int] | None = None) -> Value:
    places = _places(g, item, axes, "axes") or ()
    return g.op("expand_dims", x, axis=tuple(sorted(g.axis(place, g.rank(x) + len(places)) for place in places)))


@reads("Transpose")
def transpose(g: Reader, x: Item, *, perm: Sequence[int] | None = None) -> Value:
    return g.op("permute_dims", x, axes=tuple(range(g.rank(x)))[::-1] if perm is None else tuple(perm))


@reads("Expand")
def expand(g: Reader, x: Item, shape: Item) -> Value:
    """Broadcast both ways: a size of 1 in the shape keeps x's."""
    return broadcast(g, x, g.sizes(shape, "a shape"))


def broadcast(g: Reader, x: Item | Value, sizes: Sequence[Dim]) -> Value:
    before, wanted = g.shape(x), tuple(sizes)
    rank = max(len(before), len(wanted))
    before, wanted = (1,) * (rank - len(before)) + before, (1,) * (rank - len(wanted)) + wanted
    shape = tuple(old if new == 1 else new for old, new in zip(before, wanted, strict=True))
    return g.op("broadcast_to", x, shape=shape)


@reads("Tile")
def tile(g: Reader, x: Item, repeats: Item, *more: Item) -> Value:
    return g.op("tile", x, repetitions=tuple(g.sizes(repeats, "repetitions")))


@reads("Concat")
def concat(g: Reader, *items: Item, axis: int = 1) -> Value:
    return g.tensor(items[0]) if len(items) == 1 else g.op("concat", *items, axis=g.axis(axis, g.rank(items[0])))


@reads("Split")
def split(g: Reader, x: Item, item: Item | None = None, *, axis: int = 0, split: Sequence[int] | None = None,
          num_outputs: int | None = None) -> tuple[Any, ...]:
    """By given sizes, or into equal parts of which the last may be smaller."""
    place = g.axis(axis, g.rank(x))
    total, count = g.shape(x)[place], num_outputs or len(g.node.output)
    sizes: list[Dim] = list(split) if split is not None else g.sizes(item, "sizes of parts") if item is not None else []
    known = g.known(x)
    if not sizes:
        part = (total + count - 1) // count
        sizes = [*[part] * (count - 1), total - part * (count - 1)]
        if isinstance(part, Expr) and num_outputs is None:
            part = total // count
            sizes = [part] * count
    if known is not None and not any(isinstance(size, Expr) for size in sizes):
        parts = np.split(known, np.cumsum([int(str(size)) for size in sizes])[:-1], place)
        return tuple(Item(x.dtype, item.shape, None, item) for item in parts)
    return g.add("split", x, sizes=tuple(sizes), axis=place)


@reads("Slice")
def slice_(g: Reader, x: Item, first: Item | None = None, last: Item | None = None, places: Item | None = None, strides: Item | None = None,
           *, starts: Sequence[int] = (), ends: Sequence[int] = (), axes: Sequence[int] | None = None) -> Value:
    """Operands since version 10, attributes before."""
    begin: list[Dim] = list(starts) if first is None else g.sizes(first, "a slice's start")
    end: list[Dim] = list(ends) if last is None else g.sizes(last, "a slice's end")
    along = axes if places is None else g.integers(places, "axes")
    steps = [1] * len(begin) if strides is None else g.integers(strides, "steps")
    rank = g.rank(x)
    found = [g.axis(int(axis), rank) for axis in (range(len(begin)) if along is None else along)]
    value, shape = g.tensor(x), g.shape(x)
    ahead = [item for item in zip(found, begin, end, steps, strict=True) if item[3] > 0]
    back = [item for item in zip(found, begin, end, steps, strict=True) if item[3] < 0]
    if len(ahead) + len(back) != len(found):
        raise g.refuse("a step of 0")
    for axis, start, stop, step in back:
        # Backwards is forwards in the flipped tensor: place i is place size - 1 - i there.
        size = shape[axis]
        value = g.op("flip", value, axis=(axis,))
        start = _place(g, start, size, size - 1, -1)
        stop = _place(g, stop, size, size - 1, -1)
        ahead.append((axis, size - 1 - start, size - 1 - stop, -step))
    if not ahead:
        return value
    ahead.sort(key=lambda item: item[0])
    first_places = tuple(_clamped(start, value.shape[axis]) for axis, start, _, _ in ahead)
    stops = tuple(None if isinstance(stop, int) and stop >= FAR else _clamped(stop, value.shape[axis]) for axis, _, stop, _ in ahead)
    return g.op("slice", value, axes=tuple(axis for axis, _, _, _ in ahead), starts=first_places, stops=stops,
                steps=tuple(step for _, _, _, step in ahead))


def _clamped(at: Dim, size: Dim) -> Dim:
    """A bound of a slice that goes ahead, within its axis. A size is 1 at least, so that -1 is always in it."""
    if isinstance(at, int) and at < 0:
        return at if at == -1 else maximum(size + at, 0)
    return at if at == 0 or at == size else minimum(at, size)


FAR = (1 << 31) - 1
"""What means "to the end" in files, and more."""


def _place(g: Reader, at: Dim, size: Dim, most: Dim, least: int) -> Dim:
    """A start or an end of a slice that goes back, counted from the front and clamped."""
    if isinstance(at, int) and at >= FAR:
        return most
    if isinstance(at, int) and at <= -FAR:
        return least
    if isinstance(at, int) and at < 0:
        at = at + size
    return maximum(minimum(at, most), least)


@reads("Pad")
def pad(g: Reader, x: Item, amounts: Item | None = None, fill: Item | None = None, places: Item | None = None, *,
        pads: Sequence[int] | None = None, mode: str = "constant", value: float = 0.0, paddings: Sequence[int] | None = None) -> Value:
    """Operands since version 11, attributes before."""
    found: list[Dim] = list(pads or paddings or ()) if amounts is None else g.sizes(amounts, "pads")
    rank = g.rank(x)
    along = range(rank) if places is None else [g.axis(axis, rank) for axis in g.integers(places, "axes")]
    each: list[tuple[Dim, Dim]] = [(0, 0)] * rank
    for number, axis in enumerate(along):
        each[axis] = (found[number], found[number + len(found) // 2])
    filled = value
    if fill is not None and (g.known(fill) is None or not is_numeric(g.known(fill))):
        if mode != "constant":
            raise g.refuse(f"a padding value that only a run knows, in the mode {mode}")
        inside = g.op("pad", g.op("full", shape=g.shape(x), fill_value=True, dtype=DType.BOOL), pads=tuple(each), value=False)
        zero = g.op("pad", x, pads=tuple(each), value=False if g.dtype(x) is DType.BOOL else 0)
        return g.op("where", inside, zero, g.op("reshape", fill, shape=()))
    if fill is not None:
        filled = g.numbers(fill, "a padding value").reshape(-1)[0].item()
    if not g.dtype(x).is_float:
        return g.op("pad", x, pads=tuple(each), mode=mode, value=bool(filled) if g.dtype(x) is DType.BOOL else int(filled))
    return g.op("pad", x, pads=tuple(each), mode=mode, value=filled)


@reads("DepthToSpace")
def depth_to_space(g: Reader, x: Item, *, blocksize: int, mode: str = "DCR") -> Value:
    batch, channels, height, width = g.shape(x)
    own = channels // (blocksize * blocksize)
    if mode == "CRD":
        return g.op("pixel_shuffle", x, factor=blocksize)
    parts = g.op("reshape", x, shape=(batch, blocksize, blocksize, own, height, width))
    parts = g.op("permute_dims", parts, axes=(0, 3, 4, 1, 5, 2))
    return g.op("reshape", parts, shape=(batch, own, height * blocksize, width * blocksize))


@reads("SpaceToDepth")
def space_to_depth(g: Reader, x: Item, *, blocksize: int, mode: str = "DCR") -> Value:
    if mode == "CRD":
        return g.op("pixel_unshuffle", x, factor=blocksize)
    batch, channels, height, width = g.shape(x)
    rows, columns = height // blocksize, width // blocksize
    parts = g.op("reshape", x, shape=(batch, channels, rows, blocksize, columns, blocksize))
    parts = g.op("permute_dims", parts, axes=(0, 3, 5, 1, 2, 4))
    return g.op("reshape", parts, shape=(batch, channels * blocksize * blocksize, rows, columns))


@reads("Trilu")
def trilu(g: Reader, x: Item, k: Item | None = None, *, upper: int = 1) -> Value:
    offset = 0 if k is None else g.sizes(k, "a diagonal")[0]
    return g.op("triu" if upper else "tril", x, k=offset)


@reads("CenterCropPad")
def center_crop_pad(g: Reader, x: Item, shape: Item, *, axes: Sequence[int] | None = None) -> Value:
    """Axes that are too long are cut, those that are too short get zeros, as much on both sides; the odd one after."""
    sizes = g.sizes(shape, "a shape")
    rank, value = g.rank(x), g.tensor(x)
    for axis, size in zip(range(rank) if axes is None else (g.axis(axis, rank) for axis in axes), sizes, strict=True):
        before = value.shape[axis]
        if isinstance(before, Expr) or isinstance(size, Expr):
            raise g.refuse("a crop or padding of free sizes")
        if size < before:
            start = (before - size) // 2
            value = g.op("slice", value, axes=(axis,), starts=(start,), stops=(start + size,))
        elif size > before:
            start = (size - before) // 2
            value = g.op("pad", value, pads=tuple((start, size - before - start) if at == axis else (0, 0) for at in range(rank)))
    return value


@reads("Shape", "Size")
def shape_of(g: Reader, x: Item, **attributes: int) -> Item:
    raise g.refuse("a shape of no tensor")  # known of every tensor: never asked


@reads("SequenceConstruct")
def sequence(g: Reader, *items: Item) -> list[Item]:
    return list(items)


@reads("SequenceEmpty")
def sequence_empty(g: Reader, *, dtype: int = 1) -> list[Item]:
    return []


def _position(g: Reader, position: Item, items: list[Item], insert: bool = False) -> int:
    place = g.integers(position, "a place in a sequence")[0]
    if not -len(items) <= place < len(items) + insert:
        raise g.refuse(f"place {place} of a sequence of {len(items)}")
    return place + len(items) if place < 0 else place


@reads("SequenceAt")
def sequence_at(g: Reader, items: list[Item], position: Item) -> Item:
    return items[_position(g, position, items)]


@reads("SequenceInsert")
def sequence_insert(g: Reader, items: list[Item], item: Item, position: Item | None = None) -> list[Item]:
    place = len(items) if position is None else _position(g, position, items, True)
    return [*items[:place], item, *items[place:]]


@reads("SequenceErase")
def sequence_erase(g: Reader, items: list[Item], position: Item | None = None) -> list[Item]:
    place = len(items) - 1 if position is None else _position(g, position, items)
    return [*items[:place], *items[place + 1:]]


@reads("SequenceLength")
def sequence_length(g: Reader, items: list[Item]) -> Item:
    return Item(DType.INT64, (), None, np.asarray(len(items)))


@reads("ConcatFromSequence")
def concat_from_sequence(g: Reader, items: list[Item], *, axis: int, new_axis: int = 0) -> Value:
    rank = g.rank(items[0]) + new_axis
    return g.op("stack" if new_axis else "concat", *items, axis=g.axis(axis, rank))


MOST_PARTS = 10_000
"""Tensors of a sequence."""


@reads("SplitToSequence")
def split_to_sequence(g: Reader, x: Item, parts: Item | None = None, *, axis: int = 0, keepdims: int = 1) -> list[Value]:
    place = g.axis(axis, g.rank(x))
    size = g.shape(x)[place]
    if isinstance(size, Expr):
        raise g.refuse("a sequence whose length only a run knows")
    given = [1] if parts is None else g.integers(parts, "sizes of parts")
    if parts is None or g.rank(parts) == 0:
        if given[0] < 1 or size > MOST_PARTS * given[0]:
            raise g.refuse(f"a sequence of parts of {given[0]}, or of more than {MOST_PARTS}")
        given = [min(given[0], size - start) for start in range(0, size, given[0])]
    found = g.add("split", x, sizes=tuple(given), axis=place)
    return [g.op("squeeze", item, axis=(place,)) for item in found] if parts is None and not keepdims else list(found)
