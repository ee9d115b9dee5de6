"""Elements at places that data name. A negative index counts from the end; one outside its axis ends the run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from adapters.c.bounds import bind
from adapters.c.registry import lowers
from adapters.c.views import View
from adapters.c.writer import BAD_DATA, Lowered, Writer, joined
from converter.dims import Dim, product


def picked(g: Writer, text: str, size: Dim) -> tuple[str, list[str]]:
    """A variable that holds an index within an axis, and the code that makes it."""
    name, limit = g.variable("k"), g.size(size)
    return name, [
        f"ptrdiff_t {name} = (ptrdiff_t){text};",
        f"if ({name} < -{limit} || {name} >= {limit}) {{ return {BAD_DATA}; }}",
        f"if ({name} < 0) {{ {name} += {limit}; }}",
    ]


@lowers("take")
def take(g: Writer, node: Lowered, x: View, indices: View) -> View:
    axis: Any = node.attributes["axis"]
    place = axis % len(x.shape)
    y = g.new(node.spec, node.names[0])
    before, after, count = x.shape[:place], x.shape[place + 1 :], len(indices.shape)
    shape = (*before, *indices.shape, *after)
    source = View(x.buffer, shape, (*x.strides[:place], *[0] * count, *x.strides[place + 1 :]), x.offset)
    where = View(indices.buffer, shape, (*[0] * place, *indices.strides, *[0] * len(after)), indices.offset)
    at = g.loops(shape, [y, source, where])
    name, code = picked(g, at.element(2), x.shape[place])
    step = f" + {name} * {g.size(x.strides[place])}" if x.strides[place] != 1 else f" + {name}"
    g.emit(at.around([*code, f"{at.element(0)} = {x.buffer.name}[{at.place(1)}{step}];"]), [x, indices], [y])
    return y


@lowers("take_along_axis")
def take_along_axis(g: Writer, node: Lowered, x: View, indices: View) -> View:
    axis: Any = node.attributes["axis"]
    place = axis % len(x.shape)
    y = g.new(node.spec, node.names[0])
    for other, (size, wanted) in enumerate(zip(x.shape, indices.shape, strict=True)):
        if other != place and not isinstance(gap := size - wanted, int):
            g.require(f"{g.size(gap)} < 0", 1)
    strides = tuple(0 if other == place else stride for other, stride in enumerate(x.strides))
    at = g.loops(indices.shape, [y, View(x.buffer, indices.shape, strides, x.offset), indices])
    name, code = picked(g, at.element(2), x.shape[place])
    g.emit(
        at.around([*code, f"{at.element(0)} = {x.buffer.name}[{at.place(1)} + {name} * {g.size(x.strides[place])}];"]), [x, indices], [y]
    )
    return y


def indexed(g: Writer, x: View, indices: Sequence[View | None], shape: tuple[Dim, ...]) -> tuple[View, list[View], list[Dim]]:
    """What `index` gives as a shape: x with its axes taken whole there, the index tensors broadcast to it, and the axes that they index."""
    places = [place for place, item in enumerate(indices) if item is not None]
    tensors = [item for item in indices if item is not None]
    count = max(len(item.shape) for item in tensors)
    lead = places[0] if places == list(range(places[0], places[0] + len(places))) else 0
    rest = [stride for place, stride in enumerate(x.strides) if place not in places]
    source = View(x.buffer, shape, (*rest[:lead], *[0] * count, *rest[lead:]), x.offset)
    block = shape[lead : lead + count]
    wide = []
    for item in tensors:
        for size, wanted in zip(item.shape, block[count - len(item.shape) :], strict=True):
            if size != 1:
                g.same(size, wanted)
        part = item.broadcast(block)
        wide.append(View(part.buffer, shape, (*[0] * lead, *part.strides, *[0] * (len(shape) - lead - count)), part.offset))
    return source, wide, [x.shape[place] for place in places]


@lowers("index")
def index(g: Writer, node: Lowered, x: View, *indices: View | None) -> View:
    y = g.new(node.spec, node.names[0])
    source, wide, sizes = indexed(g, x, indices, node.spec.shape)
    steps = [x.strides[place] for place, item in enumerate(indices) if item is not None]
    at = g.loops(node.spec.shape, [y, source, *wide])
    code, terms = [], []
    for which, (size, step) in enumerate(zip(sizes, steps, strict=True)):
        name, lines = picked(g, at.element(2 + which), size)
        code += lines
        terms.append((name, step))
    g.emit(at.around([*code, f"{at.element(0)} = {x.buffer.name}[{at.place(1)} + {joined(g, 0, terms)}];"]), [x, *wide], [y])
    return y


@lowers("masked_select")
def masked_select(g: Writer, node: Lowered, x: View, mask: View) -> View:
    x = g.contiguous(x)
    for size, wanted in zip(mask.shape, x.shape, strict=False):
        g.same(size, wanted)
    most = g.most(product(mask.shape))
    name = bind(g, node, most)
    assert name is not None
    width = product(x.shape[len(mask.shape) :])
    y = g.new(node.spec, node.names[0])
    rows, spread = g.variable("n"), mask
    at = g.loops(mask.shape, [spread])
    inner = g.variable("i")
    source = f"{x.buffer.name}[{g.size(x.offset)} + {rows} * {g.size(width)}"
    limit = g.known[_symbol(node)].max
    g.emit(
        [
            f"{name} = 0;",
            "{",
            f"  ptrdiff_t {rows} = 0;",
            *(
                f"  {line}"
                for line in at.around(
                    [
                        f"if ({at.element(0)}) {{",
                        f"  if ({name} >= {limit}) {{ return 1; }}",
                        f"  for (ptrdiff_t {inner} = 0; {inner} < {g.size(width)}; ++{inner}) {{",
                        f"    {y.buffer.name}[{name} * {g.size(width)} + {inner}] = {source} + {inner}];",
                        "  }",
                        f"  ++{name};",
                        "}",
                        f"++{rows};",
                    ]
                )
            ),
            "}",
        ],
        [x, mask],
        [y],
    )
    return y


@lowers("nonzero")
def nonzero(g: Writer, node: Lowered, x: View) -> View:
    name = bind(g, node, g.most(product(x.shape)))
    assert name is not None
    y = g.new(node.spec, node.names[0])
    at = g.loops(x.shape, [x], whole=True)
    limit = g.known[_symbol(node)].max
    g.emit(
        [
            f"{name} = 0;",
            *at.around(
                [
                    f"if ({at.read(0)} != 0) {{",
                    f"  if ({name} >= {limit}) {{ return 1; }}",
                    *(f"  {y.buffer.name}[{name} * {len(x.shape)} + {place}] = {index};" for place, index in enumerate(at.indices)),
                    f"  ++{name};",
                    "}",
                ]
            ),
        ],
        [x],
        [y],
    )
    return y


def _symbol(node: Lowered) -> str:
    size: Any = node.attributes["size"]
    return str(size.symbol)
