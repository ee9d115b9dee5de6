"""Gather, scatter, select, sort, search."""

from __future__ import annotations

from adapters.onnx.readers.linear import table
from adapters.onnx.reading.items import Item
from adapters.onnx.reading.reader import Reader
from adapters.onnx.registry import reads
from converter.builder import Value
from converter.dims import Dim, product, symbol
from converter.ir import DType


def wrapped(g: Reader, indices: Item | Value, size: Dim) -> Value:
    """Indices counted from the front, as int64. Those known not to be negative stay as they are."""
    known = g.known(indices)
    value = g.cast(indices, DType.INT64)
    if known is not None and known.dtype != object and (known >= 0).all():
        return value
    return g.op("where", g.op("less", value, g.like(0, value)), g.op("add", value, _size(g, size)), value)


def _size(g: Reader, size: Dim) -> Value:
    return g.op("full", shape=(), fill_value=size, dtype=DType.INT64)


@reads("Gather")
def gather(g: Reader, x: Item, indices: Item, *, axis: int = 0) -> Value:
    place = g.axis(axis, g.rank(x))
    known = g.known(indices)
    if known is not None and known.ndim == 0 and known.dtype != object:
        return g.op("select", x, axis=place, index=int(known))
    if place == 0 and g.rank(x) == 2 and g.dtype(x).is_float and x.initializer is not None and known is None:
        return g.op("embedding", g.cast(indices, DType.INT64), table(g, x))  # a layer, which says so where an index is negative
    found = wrapped(g, indices, g.shape(x)[place])
    if place == 0 and g.rank(x) == 2 and g.dtype(x).is_float:
        return g.op("embedding", found, x)
    if found.rank == 1:
        return g.op("take", x, found, axis=place)
    shape = g.shape(x)
    flat = g.op("take", x, g.op("reshape", found, shape=(product(found.shape),)), axis=place)
    return g.op("reshape", flat, shape=(*shape[:place], *found.shape, *shape[place + 1:]))


@reads("GatherElements")
def gather_elements(g: Reader, x: Item, indices: Item, *, axis: int = 0) -> Value:
    place = g.axis(axis, g.rank(x))
    index = wrapped(g, indices, g.shape(x)[place])
    value = g.tensor(x)
    others = [at for at in range(value.rank) if at != place and value.shape[at] != index.shape[at]]
    if others:  # of the other axes as much as there are indices
        value = g.op("slice", value, axes=tuple(others), starts=(0,) * len(others), stops=tuple(index.shape[at] for at in others))
    return g.op("take_along_axis", value, index, axis=place)


@reads("GatherND")
def gather_nd(g: Reader, x: Item, indices: Item, *, batch_dims: int = 0) -> Value:
    """The last axis of the indices is a place along the axes after the batch's."""
    depth = g.shape(indices)[-1]
    if not isinstance(depth, int):
        raise g.refuse("places of a free number of axes")
    return g.op("index", x, *_places(g, x, indices, depth, batch_dims))


def _places(g: Reader, x: Item, indices: Item, depth: int, batch: int = 0) -> list[Value]:
    shape, found = g.shape(x), g.tensor(indices)
    rank = found.rank - 1
    places = []
    for axis in range(batch):
        counts = g.op("arange", start=0, stop=shape[axis], step=1, dtype=DType.INT64)
        places.append(g.op("reshape", counts, shape=tuple(shape[axis] if at == axis else 1 for at in range(rank))))
    return [*places, *(wrapped(g, g.op("select", found, axis=rank, index=at), shape[batch + at]) for at in range(depth))]


REDUCTIONS = {"none": "none", "add": "add", "mul": "multiply", "max": "maximum", "min": "minimum"}


@reads("ScatterElements", "Scatter")
def scatter_elements(g: Reader, x: Item, indices: Item, updates: Item, *, axis: int = 0, reduction: str = "none") -> Value:
    place = g.axis(axis, g.rank(x))
    index = wrapped(g, indices, g.shape(x)[place])
    return g.op("scatter", x, index, updates, axis=place, reduction=REDUCTIONS[reduction])


@reads("ScatterND")
def scatter_nd(g: Reader, x: Item, indices: Item, updates: Item, *, reduction: str = "none") -> Value:
    depth = g.shape(indices)[-1]
    if not isinstance(depth, int):
        raise g.refuse("places of a free number of axes")
    places = _places(g, x, indices, depth)
    if reduction in ("none", "add"):
        return g.op("index_put", x, updates, *places, accumulate=reduction == "add")
    # Other reductions: along one axis of all places, a row of what is updated for each.
    shape = g.shape(x)
    flat: Value = places[0]
    for axis in range(1, depth):
        flat = g.op("add", g.op("multiply", flat, _size(g, shape[axis])), places[axis])
    count, width = product(flat.shape), product(shape[depth:])
    rows = g.op("reshape", x, shape=(product(shape[:depth]), width))
    index = g.op("broadcast_to", g.op("reshape", flat, shape=(count, 1)), shape=(count, width))
    found = g.op("scatter", rows, index, g.op("reshape", updates, shape=(count, width)), axis=0, reduction=REDUCTIONS[reduction])
    return g.op("reshape", found, shape=shape)


@reads("TensorScatter")
def tensor_scatter(g: Reader, past: Item, update: Item, write: Item | None = None, *, axis: int = -2, mode: str = "linear") -> Value:
    """The update in the place of what the past holds from each batch row's own place on."""
    place = g.axis(axis, g.rank(past))
    size, count, shape = g.shape(past)[place], g.shape(update)[place], g.shape(update)
    ones = [1] * len(shape)
    step = g.op("arange", start=0, stop=count, step=1, dtype=DType.INT64)
    step = g.op("reshape", step, shape=tuple(count if at == place else 1 for at in range(len(shape))))
    if write is not None:
        start = g.op("reshape", g.cast(write, DType.INT64), shape=(shape[0], *ones[1:]))
        step = g.op("add", step, start)
    if mode == "circular":
        step = g.op("remainder", step, _size(g, size))
    return g.op("scatter", past, g.op("broadcast_to", step, shape=shape), update, axis=place)


@reads("OneHot")
def one_hot(g: Reader, indices: Item, depth: Item, values: Item, *, axis: int = -1) -> Value:
    (count,) = g.sizes(depth, "a depth")
    rank = g.rank(indices) + 1
    place = g.axis(axis, rank)
    index = g.cast(indices, DType.INT64)
    index = g.op("where", g.op("less", index, g.like(0, index)), g.op("add", index, _size(g, count)), index)
    classes = g.op("arange", start=0, stop=count, step=1, dtype=DType.INT64)
    classes = g.op("reshape", classes, shape=tuple(count if at == place else 1 for at in range(rank)))
    hot = g.op("equal", g.op("expand_dims", index, axis=(place,)), classes)
    return g.op("where", hot, g.op("select", values, axis=0, index=1), g.op("select", values, axis=0, index=0))


@reads("NonZero")
def non_zero(g: Reader, x: Item) -> Value:
    size = symbol(g.size_symbol("nonzero"))
    found = g.op("nonzero", x, size=size)
    return g.op("permute_dims", found, axes=(1, 0))


@reads("Compress")
def compress(g: Reader, x: Item, condition: Item, *, axis: int | None = None) -> Value:
    """Where the condition holds; it may be shorter than what it chooses from."""
    value = g.tensor(x)
    if axis is None:
        value, place = g.op("reshape", value, shape=(product(value.shape),)), 0
    else:
        place = g.axis(axis, value.rank)
    size = symbol(g.size_symbol("chosen"))
    places = g.op("reshape", g.op("nonzero", condition, size=size), shape=(size,))
    return g.op("take", value, places, axis=place)


@reads("TopK")
def top_k(g: Reader, x: Item, count: Item | None = None, *, k: int | None = None, axis: int = -1, largest: int = 1,
          sorted: int = 1) -> tuple[Value, ...]:
    number = k if count is None else g.sizes(count, "k")[0]
    return g.add("topk", x, k=number, axis=g.axis(axis, g.rank(x)), largest=bool(largest))


@reads("Unique")
def unique(g: Reader, x: Item, *, axis: int | None = None, sorted: int = 1) -> tuple[Value, ...]:
    """Values, first places, places of each element among them, and counts."""
    size = symbol(g.size_symbol("unique"))
    value = g.tensor(x)
    place = None if axis is None else g.axis(axis, value.rank)
    front = () if not place else (place, *(at for at in range(value.rank) if at != place))
    if front:
        value = g.op("permute_dims", value, axes=front)
    values, inverse, counts = g.add("unique", value, axis=None if place is None else 0, size=size)
    if front:
        values = g.op("permute_dims", values, axes=tuple(front.index(at) for at in range(value.rank)))
    flat = g.op("reshape", inverse, shape=(product(inverse.shape),))
    places = g.op("arange", start=0, stop=flat.shape[0], step=1, dtype=DType.INT64)
    start = g.op("full", shape=(size,), fill_value=flat.shape[0], dtype=DType.INT64)
    first = g.op("scatter", start, flat, places, axis=0, reduction="minimum")
    if not sorted:  # in the order of their first places
        _, order = g.add("sort", first, axis=0)
        _, rank = g.add("sort", order, axis=0)
        values = g.op("take", values, order, axis=0 if place is None else place)
        first, flat, counts = (g.op("take", *pair, axis=0) for pair in ((first, order), (rank, flat), (counts, order)))
    return values, first, flat, counts


@reads("ReverseSequence")
def reverse_sequence(g: Reader, x: Item, lengths: Item, *, batch_axis: int = 1, time_axis: int = 0) -> Value:
    """Each row's first elements in reverse, the others where they are."""
    shape = g.shape(x)
    rank, time = len(shape), shape[time_axis]
    steps = g.op("arange", start=0, stop=time, step=1, dtype=DType.INT64)
    steps = g.op("reshape", steps, shape=tuple(time if at == time_axis else 1 for at in range(rank)))
    ends = g.op("reshape", g.cast(lengths, DType.INT64), shape=tuple(shape[batch_axis] if at == batch_axis else 1 for at in range(rank)))
    back = g.op("subtract", g.op("subtract", ends, g.like(1, ends)), steps)
    index = g.op("where", g.op("less", steps, ends), back, steps)
    return g.op("take_along_axis", x, g.op("broadcast_to", index, shape=shape), axis=time_axis)
