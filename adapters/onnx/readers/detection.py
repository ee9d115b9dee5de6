"""Boxes and regions of images: suppression, means of regions, convolutions whose taps are moved."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from adapters.onnx.reading.items import Item
from adapters.onnx.reading.reader import Reader
from adapters.onnx.registry import reads
from converter.builder import GraphBuilder, Value
from converter.dims import Dim, minimum, symbol
from converter.ir import DType, Graph

Ints = Sequence[int]
MOST_TAPS = 1 << 14
"""Places of a filter that are moved."""


def _scalar(g: Reader, item: Item | None, default: float, dtype: DType) -> Value:
    if item is None:
        return g.op("full", shape=(), fill_value=default, dtype=dtype)
    return g.op("reshape", item, shape=())


@reads("NonMaxSuppression")
def non_max_suppression(g: Reader, boxes: Item, scores: Item, most: Item | None = None, overlap: Item | None = None,
                        least: Item | None = None, *, center_point_box: int = 0) -> Value:
    """int64 [chosen, 3]: image, class and box. Again and again the box of the highest score is chosen, and what it overlaps by more
    than the threshold is struck out."""
    counts = [0] if most is None else g.sizes(most, "a number of boxes")
    number = g.shape(scores)[2]
    limit = counts[0]
    if isinstance(limit, int) and limit <= 0:
        return g.op("full", shape=(0, 3), fill_value=0, dtype=DType.INT64)
    steps = limit if isinstance(limit, int) and isinstance(number, int) and limit < number else minimum(limit, number)
    corners = _corners(g, g.tensor(boxes), bool(center_point_box))
    value = g.tensor(scores)
    lowest = g.op("full", shape=(), fill_value=-np.inf, dtype=value.dtype)
    start = value if least is None else g.op("where", g.op("greater", value, _scalar(g, least, 0.0, value.dtype)), value, lowest)
    threshold = _scalar(g, overlap, 0.0, corners.dtype)
    number_of = g.op("arange", start=0, stop=steps, step=1, dtype=DType.INT64)
    body = _choose(start, corners, threshold)
    _, place, there = g.add("scan", start, number_of, corners, threshold, states=1, sequences=1, body=body)
    place, there = (g.op("permute_dims", item, axes=(1, 2, 0)) for item in (place, there))
    size = symbol(g.size_symbol("chosen"))
    found = g.op("nonzero", there, size=size)
    image, kind, _ = (g.op("reshape", item, shape=(size,)) for item in g.add("split", found, sizes=(1, 1, 1), axis=1))
    box = g.op("index", place, *(g.op("select", found, axis=1, index=axis) for axis in range(3)))
    return g.op("stack", image, kind, box, axis=1)


def _corners(g: Reader, boxes: Value, centred: bool) -> Value:
    """[batch, boxes, 4]: the lower ends along both axes, then the upper ones."""
    first, second = g.add("split", boxes, sizes=(2, 2), axis=2)
    if centred:
        half = g.op("multiply", second, g.like(0.5, second))
        first, second = g.op("subtract", first, half), g.op("add", first, half)
    return g.op("concat", g.op("minimum", first, second), g.op("maximum", first, second), axis=2)


def _choose(scores: Value, corners: Value, threshold: Value) -> Graph:
    """A step of the suppression: the box that is chosen in each image and class, and whether there is one."""
    b = GraphBuilder("choose")
    left = b.input("scores", scores.dtype, scores.shape)
    b.input("step", DType.INT64, ())
    boxes = b.input("boxes", corners.dtype, corners.shape)
    most = b.input("threshold", threshold.dtype, ())
    batch, classes, number = scores.shape
    place = b.op("argmax", left, axis=2)
    best = b.op("max", left, axis=(2,))
    there = b.op("greater", best, float("-inf"))
    index = b.op("broadcast_to", b.op("reshape", place, shape=(batch, classes, 1)), shape=(batch, classes, 4))
    own = b.op("expand_dims", b.op("take_along_axis", boxes, index, axis=1), axis=(2,))
    others = b.op("expand_dims", boxes, axis=(1,))

    def ends(value: Value) -> tuple[Value, Value]:
        return (b.op("slice", value, axes=(3,), starts=(0,), stops=(2,)), b.op("slice", value, axes=(3,), starts=(2,), stops=(4,)))

    def area(low: Value, high: Value) -> Value:
        return b.op("prod", b.op("maximum", b.op("subtract", high, low), 0.0), axis=(3,))

    (low, high), (other_low, other_high) = ends(own), ends(others)
    common = area(b.op("maximum", low, other_low), b.op("minimum", high, other_high))
    both = b.op("subtract", b.op("add", area(low, high), area(other_low, other_high)), common)
    over = b.op("greater", b.op("divide", common, b.op("where", b.op("greater", both, 0.0), both, 1.0)), most)
    itself = b.op("equal", b.op("reshape", b.op("arange", start=0, stop=number, step=1, dtype=DType.INT64), shape=(1, 1, number)),
                  b.op("reshape", place, shape=(batch, classes, 1)))
    gone = b.op("full", shape=(), fill_value=float("-inf"), dtype=left.dtype)
    b.output("next", b.op("where", b.op("logical_or", over, itself), gone, left))
    b.output("place", place)
    b.output("there", there)
    return b.graph()


@reads("RoiAlign")
def roi_align(g: Reader, x: Item, regions: Item, images: Item, *, coordinate_transformation_mode: str | None = None, mode: str = "avg",
              output_height: int = 1, output_width: int = 1, sampling_ratio: int = 0, spatial_scale: float = 1.0) -> Value:
    """[regions, channels, rows, columns]: the mean, or the maximum, of bilinear samples of each bin.

    Along each side there are `sampling_ratio` of them; 0: one for each unit of the bin's side, rounded up.
    """
    shifted = (coordinate_transformation_mode or ("half_pixel" if g.version >= 16 else "output_half_pixel")) == "half_pixel"
    value, boxes = g.tensor(x), g.tensor(regions)
    _, channels, height, width = value.shape
    count = boxes.shape[0]
    edges = g.op("subtract", g.op("multiply", boxes, g.like(spatial_scale, boxes)), g.like(0.5 if shifted else 0, boxes))
    left, top, right, bottom = g.add("split", edges, sizes=(1, 1, 1, 1), axis=1)

    def along(low: Value, high: Value, bins: int) -> tuple[Value, Value, Dim]:
        """[regions, bins · samples] coordinates, how many of the samples [regions, 1] count, and how many there are."""
        extent = g.op("subtract", high, low)
        if not shifted:
            extent = g.op("maximum", extent, g.like(1, extent))
        size = g.op("divide", extent, g.like(bins, extent))
        samples: Dim = sampling_ratio
        if sampling_ratio > 0:
            number = g.op("full", shape=(count, 1), fill_value=float(sampling_ratio), dtype=extent.dtype)
        else:
            number = g.op("ceil", size)
            samples = symbol(g.size_symbol("samples"))
            one = g.op("full", shape=(1, 1), fill_value=1.0, dtype=extent.dtype)
            g.op("size_of", g.cast(g.op("max", g.op("concat", number, one, axis=0)), DType.INT64), size=samples)
        step = g.op("arange", start=0, stop=samples, step=1, dtype=extent.dtype)
        inside = g.op("divide", g.op("reshape", g.op("add", step, g.like(0.5, step)), shape=(1, 1, samples)),
                      g.op("reshape", g.op("maximum", number, g.like(1, number)), shape=(count, 1, 1)))
        places = g.op("reshape", g.op("arange", start=0, stop=bins, step=1, dtype=extent.dtype), shape=(1, bins, 1))
        whole = g.op("multiply", g.op("reshape", size, shape=(count, 1, 1)), g.op("add", places, inside))
        found = g.op("add", g.op("reshape", low, shape=(count, 1, 1)), whole)
        return g.op("reshape", found, shape=(count, bins * samples)), number, samples

    (y, tall, down_samples), (x_, wide, across_samples) = along(top, bottom, output_height), along(left, right, output_width)
    rows, columns = output_height * down_samples, output_width * across_samples
    (y_low, y_high, dy, y_in), (x_low, x_high, dx, x_in) = _between(g, y, height), _between(g, x_, width)
    image = g.op("reshape", g.cast(images, DType.INT64), shape=(count, 1, 1))
    flat = g.op("reshape", g.op("permute_dims", value, axes=(0, 2, 3, 1)), shape=(value.shape[0] * height * width, channels))

    def corner(row: Value, column: Value, down: Value, right_: Value) -> Value:
        """[regions, rows, columns, channels], weighed; nothing outside of the image."""
        line = g.op("add", g.op("multiply", image, _size(g, height)), g.op("reshape", row, shape=(count, rows, 1)))
        place = g.op("add", g.op("multiply", line, _size(g, width)), g.op("reshape", column, shape=(count, 1, columns)))
        found = g.op("take", flat, g.op("reshape", place, shape=(count * rows * columns,)), axis=0)
        weight = g.op("multiply", g.op("reshape", down, shape=(count, rows, 1, 1)), g.op("reshape", right_, shape=(count, 1, columns, 1)))
        inside = g.op("logical_and", g.op("reshape", y_in, shape=(count, rows, 1, 1)), g.op("reshape", x_in, shape=(count, 1, columns, 1)))
        weighed = g.op("multiply", g.op("reshape", found, shape=(count, rows, columns, channels)), g.cast(weight, value.dtype))
        return g.op("where", inside, weighed, g.like(0, weighed))

    up, before = g.op("subtract", g.like(1, dy), dy), g.op("subtract", g.like(1, dx), dx)
    parts = [corner(row, column, down, right_) for row, down in ((y_low, up), (y_high, dy))
             for column, right_ in ((x_low, before), (x_high, dx))]
    total = parts[0]
    for part in parts[1:]:
        total = g.op("add" if mode == "avg" else "maximum", total, part)
    bins = g.op("reshape", total, shape=(count, output_height, down_samples, output_width, across_samples, channels))
    if sampling_ratio > 0:
        found = g.op("mean" if mode == "avg" else "max", bins, axis=(2, 4))
        return g.op("permute_dims", found, axes=(0, 3, 1, 2))
    counts = g.op("logical_and", _first(g, down_samples, tall, (count, 1, down_samples, 1, 1, 1)),
                  _first(g, across_samples, wide, (count, 1, 1, 1, across_samples, 1)))
    amount = g.op("reshape", g.cast(g.op("multiply", tall, wide), value.dtype), shape=(count, 1, 1, 1))
    if mode == "avg":
        found = g.op("sum", g.op("where", counts, bins, g.like(0, bins)), axis=(2, 4))
        found = g.op("divide", found, g.op("maximum", amount, g.like(1, amount)))
    else:
        found = g.op("max", g.op("where", counts, bins, g.op("full", shape=(), fill_value=-np.inf, dtype=bins.dtype)), axis=(2, 4))
        found = g.op("where", g.op("greater", amount, g.like(0, amount)), found, g.like(0, found))
    return g.op("permute_dims", found, axes=(0, 3, 1, 2))


def _first(g: Reader, size: Dim, number: Value, shape: tuple[Dim, ...]) -> Value:
    """Which of the places 0 to size - 1 are below a number of each region, in a shape to broadcast."""
    step = g.op("reshape", g.op("arange", start=0, stop=size, step=1, dtype=number.dtype), shape=(1, size))
    return g.op("reshape", g.op("less", step, number), shape=shape)


def _size(g: Reader, size: Dim) -> Value:
    return g.op("full", shape=(), fill_value=size, dtype=DType.INT64)


def _between(g: Reader, x: Value, size: Dim) -> tuple[Value, Value, Value, Value]:
    """The places before and after coordinates, how far each is from the first, and whether it lies in the image or next to it."""
    last = g.cast(_size(g, size), x.dtype)
    end = g.op("subtract", last, g.like(1, last))
    inside = g.op("logical_and", g.op("greater_equal", x, g.like(-1, x)), g.op("less_equal", x, last))
    held = g.op("minimum", g.op("maximum", x, g.like(0, x)), end)
    low = g.op("floor", held)
    high = g.op("minimum", g.op("add", low, g.like(1, low)), end)
    return g.cast(low, DType.INT64), g.cast(high, DType.INT64), g.op("subtract", held, low), inside


@reads("DeformConv")
def deform_conv(g: Reader, x: Item, weight: Item, offset: Item, bias: Item | None = None, mask: Item | None = None, *,
                dilations: Ints | None = None, group: int = 1, kernel_shape: Ints | None = None, offset_group: int = 1,
                pads: Ints | None = None, strides: Ints | None = None) -> Value:
    """A convolution of images whose taps are moved by `offset` [n, 2 · groups · taps, rows, columns], y before x, and weighed by `mask`.
    Zhu et al., Deformable ConvNets v2, 2018."""
    value, moves = g.tensor(x), g.tensor(offset)
    if value.rank != 4:
        raise g.refuse("moved taps of other than images")
    count, _, height, width = value.shape
    fixed = [size for size in (value.shape[1], *g.shape(weight)) if isinstance(size, int)]
    if len(fixed) != 5:
        raise g.refuse("a weight of a free size")
    channels, outputs, _, down, across = fixed
    if down * across > MOST_TAPS:
        raise g.refuse(f"more than {MOST_TAPS} taps")
    taps, rows, columns = down * across, moves.shape[2], moves.shape[3]
    dilation, stride, padding = dilations or (1, 1), strides or (1, 1), pads or (0, 0, 0, 0)
    moved = g.op("reshape", moves, shape=(count, offset_group, taps, 2, rows, columns))
    own = channels // offset_group

    def coordinates(part: int, size: Dim, tap: np.ndarray[tuple[int, ...], np.dtype[np.int64]], axis: int) -> Value:
        steps = g.cast(g.op("arange", start=0, stop=size, step=1, dtype=DType.INT64), moves.dtype)
        base = g.op("multiply", steps, g.like(stride[axis], steps))
        base = g.op("reshape", base, shape=(1, 1, 1, size, 1) if axis == 0 else (1, 1, 1, 1, size))
        base = g.op("add", base, g.constant((tap * dilation[axis] - padding[axis]).reshape(1, 1, -1, 1, 1).astype(moves.dtype.numpy)))
        return g.op("add", g.op("select", moved, axis=3, index=part), base)

    numbers = np.arange(taps)
    y, x_ = coordinates(0, rows, numbers // across, 0), coordinates(1, columns, numbers % across, 1)
    y_low, x_low = g.op("floor", y), g.op("floor", x_)
    dy, dx = g.op("subtract", y, y_low), g.op("subtract", x_, x_low)
    places = taps * rows * columns
    flat = g.op("reshape", value, shape=(count, offset_group, own, height * width))
    tall, wide = (g.cast(_size(g, size), moves.dtype) for size in (height, width))

    def corner(row: Value, column: Value, share: Value) -> Value:
        inside = _all(g, g.op("greater_equal", row, g.like(0, row)), g.op("less", row, tall),
                      g.op("greater_equal", column, g.like(0, column)), g.op("less", column, wide))
        place = g.op("add", g.op("multiply", row, wide), column)
        place = g.cast(g.op("where", inside, place, g.like(0, place)), DType.INT64)
        index = g.op("reshape", place, shape=(count, offset_group, 1, places))
        index = g.op("broadcast_to", index, shape=(count, offset_group, own, places))
        held = g.op("where", inside, share, g.like(0, share))
        return g.op("multiply", g.op("take_along_axis", flat, index, axis=3), g.op("reshape", held, shape=(count, offset_group, 1, places)))

    one = g.like(1, dy)
    up, before = g.op("subtract", one, dy), g.op("subtract", one, dx)
    y_high, x_high = g.op("add", y_low, one), g.op("add", x_low, one)
    sampled = corner(y_low, x_low, g.op("multiply", up, before))
    for part in (corner(y_low, x_high, g.op("multiply", up, dx)), corner(y_high, x_low, g.op("multiply", dy, before)),
                 corner(y_high, x_high, g.op("multiply", dy, dx))):
        sampled = g.op("add", sampled, part)
    if mask is not None:
        sampled = g.op("multiply", sampled, g.op("reshape", mask, shape=(count, offset_group, 1, places)))
    depth = channels // group * taps
    filters = g.op("reshape", weight, shape=(group, outputs // group, depth))
    product = g.op("matmul", filters, g.op("reshape", sampled, shape=(count, group, depth, rows * columns)))
    found = g.op("reshape", product, shape=(count, outputs, rows, columns))
    return found if bias is None else g.op("add", found, g.op("reshape", bias, shape=(1, outputs, 1, 1)))


def _all(g: Reader, *conditions: Value) -> Value:
    found = conditions[0]
    for condition in conditions[1:]:
        found = g.op("logical_and", found, condition)
    return found


