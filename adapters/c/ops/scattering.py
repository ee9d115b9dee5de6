"""Elements replaced, accumulated or counted at places that data name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from adapters.c.bounds import bind
from adapters.c.elementwise import conversion, expression
from adapters.c.fusion import Number, store
from adapters.c.ops.indexing import indexed, picked
from adapters.c.registry import lowers
from adapters.c.types import ctype
from adapters.c.views import View
from adapters.c.writer import BAD_DATA, Lowered, Writer, joined
from converter.ir import DType, TensorSpec
from converter.ops.scattering import identity

OPERATORS = {"add": "add", "mean": "add", "multiply": "multiply", "maximum": "maximum", "minimum": "minimum"}


def accumulated(g: Writer, spec: TensorSpec, y: View, place: str, value: str, reduction: str) -> list[str]:
    """The code that puts a scalar at a place of y."""
    made = expression(OPERATORS[reduction], [g.variable("a"), g.variable("a")], [spec.dtype] * 2, spec.dtype)
    assert made is not None
    g.helpers.update(made.helpers)
    names = [f"a{g.counter - 1}", f"a{g.counter}"]
    scalar = ctype(spec.dtype).scalar
    return [
        f"const {scalar} {names[0]} = {g.read(y, place)}, {names[1]} = {value};",
        f"{y.buffer.name}[{place}] = {g.written(spec.dtype, made.text)};",
    ]


def _put(
    g: Writer,
    node: Lowered,
    x: View,
    write: Callable[[View, Callable[[View, str], list[str]]], None],
    value_reduction: str,
    include_self: bool,
    read: Callable[[], str],
) -> View:
    """x with what `write` puts there. 16-bit floats accumulate in float32."""
    spec, narrow = node.spec, ctype(node.spec.dtype).narrow
    wide = TensorSpec(DType.FLOAT32, spec.shape) if narrow and value_reduction != "none" else spec
    y = g.new(wide, node.names[0])
    if wide is spec:
        g.copy(y, x)
    else:
        _converted(g, x, y)
    if value_reduction == "none":
        write(y, lambda target, place: [f"{target.buffer.name}[{place}] = {read()};"])
        return y
    if not include_self:
        least = identity(value_reduction, wide.dtype.numpy)
        text = g.number(float(least) if wide.dtype.is_float else int(least), wide.dtype)
        write(y, lambda target, place: [f"{target.buffer.name}[{place}] = {text};"])
    write(y, lambda target, place: accumulated(g, wide, target, place, f"{read()}", value_reduction))
    if value_reduction == "mean":
        counts = g.new(TensorSpec(DType.INT64, spec.shape), "counts")
        store(g, Number(int(include_self), DType.INT64, spec.shape), counts)
        write(counts, lambda target, place: [f"++{target.buffer.name}[{place}];"])
        at = g.loops(spec.shape, [y, counts])
        divisor = f"({ctype(wide.dtype).scalar})({at.element(1)} > 1 ? {at.element(1)} : 1)"
        made = expression("divide" if wide.dtype.is_float else "floor_divide", [at.element(0), divisor], [wide.dtype] * 2, wide.dtype)
        assert made is not None
        g.helpers.update(made.helpers)
        g.emit(at.around([f"{at.element(0)} = {made.text};"]), [y, counts], [y])
    if wide is spec:
        return y
    narrowed = g.new(spec, node.names[0])
    _converted(g, y, narrowed)
    return narrowed


def _converted(g: Writer, source: View, target: View) -> None:
    at = g.loops(target.shape, [target, source])
    made = conversion(at.read(1), source.dtype, target.dtype)
    g.helpers.update(made.helpers)
    g.emit(at.around([f"{at.element(0)} = {g.written(target.dtype, made.text)};"]), [source], [target])


@lowers("scatter")
def scatter(g: Writer, node: Lowered, x: View, indices: View, values: View) -> View:
    given: Any = node.attributes
    place = given["axis"] % len(x.shape)
    for other, (size, wanted, taken) in enumerate(zip(x.shape, indices.shape, values.shape, strict=True)):
        g.same(taken, wanted)
        if other != place and not isinstance(gap := size - wanted, int):
            g.require(f"{g.size(gap)} < 0", 1)
    held: list[str] = [""]

    def write(y: View, put: Callable[[View, str], list[str]]) -> None:
        strides = tuple(0 if other == place else stride for other, stride in enumerate(y.strides))
        at = g.loops(indices.shape, [View(y.buffer, indices.shape, strides, y.offset), indices, values])
        name, code = picked(g, at.element(1), x.shape[place])
        held[0] = at.read(2)
        g.emit(at.around([*code, *put(y, f"{at.place(0)} + {name} * {g.size(y.strides[place])}")]), [indices, values, y], [y])

    def value() -> str:
        return held[0] if given["reduction"] != "none" or not ctype(values.dtype).narrow else g.written(values.dtype, held[0])

    return _put(g, node, x, write, given["reduction"], given["include_self"], value)


@lowers("index_put")
def index_put(g: Writer, node: Lowered, x: View, values: View, *indices: View | None) -> View:
    given: Any = node.attributes
    from converter.ops.indexing import index_shape

    specs = tuple(None if item is None else TensorSpec(item.dtype, item.shape) for item in indices)
    shape = index_shape(TensorSpec(x.dtype, x.shape), specs)
    for size, wanted in zip(values.shape, shape[len(shape) - len(values.shape) :], strict=True):
        if size != 1:
            g.same(size, wanted)
    held: list[str] = [""]

    def write(y: View, put: Callable[[View, str], list[str]]) -> None:
        target, wide, sizes = indexed(g, y, indices, shape)
        steps = [y.strides[place] for place, item in enumerate(indices) if item is not None]
        at = g.loops(shape, [target, values.broadcast(shape), *wide])
        code, terms = [], []
        for which, (size, step) in enumerate(zip(sizes, steps, strict=True)):
            name, lines = picked(g, at.element(2 + which), size)
            code += lines
            terms.append((name, step))
        held[0] = at.read(1)
        g.emit(at.around([*code, *put(y, f"{at.place(0)} + {joined(g, 0, terms)}")]), [values, *wide, y], [y])

    def value() -> str:
        return held[0] if given["accumulate"] or not ctype(values.dtype).narrow else g.written(values.dtype, held[0])

    return _put(g, node, x, write, "add" if given["accumulate"] else "none", True, value)


@lowers("bincount")
def bincount(g: Writer, node: Lowered, x: View, weights: View | None = None) -> View:
    """The number of counts is the largest number and 1, or `minlength`."""
    size: Any = node.attributes["size"]
    least: Any = node.attributes["minlength"]
    name = bind(g, node, (1 << 31) - 1)
    assert name is not None
    y = g.new(node.spec, node.names[0])
    limit = g.known[size.symbol].max
    first = g.loops(x.shape, [x])
    number = g.variable("k")
    unsigned = x.dtype.value.startswith("u")
    wrong = [] if unsigned else [f"if ({first.element(0)} < 0) {{ return {BAD_DATA}; }}"]
    g.emit(
        [
            f"{name} = {least};",
            *first.around(
                [
                    *wrong,
                    f"if ((uint64_t){first.element(0)} >= (uint64_t){limit}) {{ return 1; }}",
                    f"if ((ptrdiff_t){first.element(0)} >= {name}) {{ {name} = (ptrdiff_t){first.element(0)} + 1; }}",
                ]
            ),
            f"if ({name} > {limit}) {{ return 1; }}",
        ],
        [x],
        [y],
    )
    store(g, Number(0 if node.spec.dtype.is_integer else 0.0, node.spec.dtype, node.spec.shape), y)
    if weights is not None:
        g.same(weights.shape[0], x.shape[0])
    at = g.loops(x.shape, [x, *([weights] if weights is not None else [])])
    added = at.read(1) if weights is not None else "1"
    wide = TensorSpec(DType.FLOAT64, node.spec.shape)
    target = g.new(wide, "sums") if weights is not None and node.spec.dtype is not DType.FLOAT64 else y
    if target is not y:
        store(g, Number(0.0, DType.FLOAT64, node.spec.shape), target)
    g.emit(
        at.around([f"const ptrdiff_t {number} = (ptrdiff_t){at.element(0)};", f"{target.buffer.name}[{number}] += {added};"]),
        [x, target, *([weights] if weights is not None else [])],
        [target],
    )
    if target is not y:
        _converted(g, target, y)
    return y
