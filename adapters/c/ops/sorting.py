"""Order: a stable merge sort of places, NaN last."""

from __future__ import annotations

from typing import Any

from adapters.c.bounds import bind
from adapters.c.registry import lowers
from adapters.c.views import View
from adapters.c.writer import Lowered, Writer
from converter.dims import Dim, product
from converter.ir import DType, TensorSpec


def ordered(g: Writer, node: Lowered, x: View, count: Dim, axis: int, descending: bool) -> tuple[View, View]:
    """The first `count` elements in order along an axis, and their places."""
    place = axis % len(x.shape)
    values, indices = (g.new(spec, hint) for spec, hint in zip(node.specs, (*node.names, f"{node.names[0]}_places"), strict=False))
    length = x.shape[place]
    order, spare = (g.new(TensorSpec(DType.INT64, (length,)), "order") for _ in range(2))
    others = [other for other in range(len(x.shape)) if other != place]
    shape = tuple(x.shape[other] for other in others)
    views = (values, indices, x)
    outer = g.loops(shape, [View(item.buffer, shape, tuple(item.strides[other] for other in others), item.offset) for item in views])
    inner = g.loops((count,), [View(item.buffer, (count,), (item.strides[place],), item.offset) for item in views[:2]], None, whole=True)
    index, step = inner.indices[0], g.size(x.strides[place])
    call = (
        f"{g.kernel('order', x.dtype)}({x.buffer.name} + {outer.place(2)}, {step}, 1, {g.size(length)}, {int(descending)}, "
        f"{order.buffer.name}, {spare.buffer.name});"
    )
    steps = [g.size(item.strides[place]) for item in views[:2]]
    lines = [
        call,
        *inner.around(
            [
                f"{values.buffer.name}[{outer.place(0)} + {index} * {steps[0]}] = {x.buffer.name}[{outer.place(2)} + "
                f"(ptrdiff_t){order.buffer.name}[{index}] * {step}];",
                f"{indices.buffer.name}[{outer.place(1)} + {index} * {steps[1]}] = {order.buffer.name}[{index}];",
            ]
        ),
    ]
    g.emit(outer.around(lines), [x], [values, indices, order, spare])
    return values, indices


@lowers("sort")
def sort(g: Writer, node: Lowered, x: View) -> tuple[View, View]:
    given: Any = node.attributes
    if not x.shape:
        x = View(x.buffer, (1,), (1,), x.offset)
        node = Lowered(
            node.resolved, tuple(TensorSpec(spec.dtype, (1,)) for spec in node.specs), node.operands, node.attributes, node.names
        )
        found = ordered(g, node, x, 1, 0, False)
        return View(found[0].buffer, (), ()), View(found[1].buffer, (), ())
    return ordered(g, node, x, x.shape[given["axis"]], given["axis"], given["descending"])


@lowers("topk")
def topk(g: Writer, node: Lowered, x: View) -> tuple[View, View]:
    given: Any = node.attributes
    if not isinstance(gap := x.shape[given["axis"]] - given["k"], int):
        g.require(f"{g.size(gap)} < 0", 1)
    return ordered(g, node, x, given["k"], given["axis"], given["largest"])


def _runs(g: Writer, node: Lowered, x: View, rows: Dim, width: Dim, order: View | None) -> tuple[View, View, View]:
    """Rows, in an order or as they lie, of which equal neighbours become one; the number of each row's run; the runs' lengths."""
    x = g.contiguous(x)
    name = bind(g, node, g.most(rows))
    assert name is not None
    size: Any = node.attributes["size"]
    limit = g.known[size.symbol].max
    hints = (*node.names, "inverse", "counts")
    values, inverse, counts = (g.new(spec, hints[place]) for place, spec in enumerate(node.specs))
    base = x.buffer.name if x.offset == 0 else f"({x.buffer.name} + {g.size(x.offset)})"
    index, row, last, inner, wide = g.variable("i"), g.variable("k"), g.variable("k"), g.variable("i"), g.size(width)
    here = f"(ptrdiff_t){order.buffer.name}[{index}]" if order is not None else index
    g.emit(
        [
            f"{name} = 0;",
            f"for (ptrdiff_t {index} = 0, {last} = 0; {index} < {g.size(rows)}; ++{index}) {{",
            f"  const ptrdiff_t {row} = {here};",
            f"  if ({index} == 0 || !{g.kernel('same_rows', x.dtype)}({base} + {last} * {wide}, {base} + {row} * {wide}, {wide})) {{",
            f"    if ({name} >= {limit}) {{ return 1; }}",
            f"    for (ptrdiff_t {inner} = 0; {inner} < {wide}; ++{inner}) {{",
            f"      {values.buffer.name}[{name} * {wide} + {inner}] = {base}[{row} * {wide} + {inner}];",
            "    }",
            f"    {counts.buffer.name}[{name}] = 0;",
            f"    ++{name};",
            "  }",
            f"  {inverse.buffer.name}[{row}] = {name} - 1;",
            f"  ++{counts.buffer.name}[{name} - 1];",
            f"  {last} = {row};",
            "}",
        ],
        [x, *([order] if order is not None else [])],
        [values, inverse, counts],
    )
    return values, inverse, counts


@lowers("unique")
def unique(g: Writer, node: Lowered, x: View) -> tuple[View, View, View]:
    rows: Dim = product(x.shape) if node.attributes["axis"] is None else x.shape[0]
    width: Dim = 1 if node.attributes["axis"] is None else product(x.shape[1:])
    x = g.contiguous(x)
    order, spare = (g.new(TensorSpec(DType.INT64, (rows,)), "order") for _ in range(2))
    step = g.size(width)
    g.emit(
        f"{g.kernel('order', x.dtype)}({x.buffer.name} + {g.size(x.offset)}, {step}, {step}, {g.size(rows)}, 0, "
        f"{order.buffer.name}, {spare.buffer.name});",
        [x],
        [order, spare],
    )
    return _runs(g, node, x, rows, width, order)


@lowers("unique_consecutive")
def unique_consecutive(g: Writer, node: Lowered, x: View) -> tuple[View, View, View]:
    return _runs(g, node, x, x.shape[0], product(x.shape[1:]), None)
