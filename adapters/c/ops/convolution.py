"""Windows times a kernel: four channels and sixteen places at a time, without a copy of the input."""

from __future__ import annotations

from typing import Any

from adapters.c.registry import lowers
from adapters.c.views import View
from adapters.c.writer import Lowered, Writer
from converter.dims import Dim, product
from converter.ops._spatial import filled, padding_pairs


@lowers("convolution")
def convolution(g: Writer, node: Lowered, x: View, weight: View, bias: View | None = None) -> View:
    given: Any = node.attributes
    axes, groups = len(weight.shape) - 2, given["groups"]
    stride, dilation = (filled(given[name], axes, 1, name, 1) for name in ("stride", "dilation"))
    before = [pair[0] for pair in padding_pairs(given["padding"], axes)]
    x, weight = g.contiguous(x), g.contiguous(weight)
    bias = None if bias is None else g.contiguous(bias)
    y = g.new(node.spec, node.names[0])
    batch = x.shape[0] if len(x.shape) == axes + 2 else 1
    g.same(x.shape[-axes - 1], weight.shape[1] * groups)
    for size in node.spec.shape[-axes:]:
        if not isinstance(size, int):
            g.require(f"{g.size(size)} < 1", 1)

    def three(values: Any, neutral: int) -> list[Dim]:
        return [neutral] * (3 - axes) + list(values)

    sizes = [
        batch,
        groups,
        weight.shape[1],
        weight.shape[0] // groups,
        *three(x.shape[-axes:], 1),
        *three(weight.shape[2:], 1),
        *three(node.spec.shape[-axes:], 1),
        *three(stride, 1),
        *three(dilation, 1),
        *three(before, 0),
    ]
    name = g.variable("n")
    numbers = [g.size(size) for size in sizes]
    pointers = [
        f"{item.buffer.name} + {g.size(item.offset)}" if item.offset != 0 else item.buffer.name
        for item in (x, weight, *([bias] if bias else []))
    ]
    constant = all(isinstance(size, int) for size in sizes)
    fields = [f"{name}[{place}] = {text};" for place, text in enumerate(numbers)]
    head = [f"static const ptrdiff_t {name}[22] = {{{', '.join(numbers)}}};"] if constant else [f"ptrdiff_t {name}[22];", *fields]
    call = f"{g.kernel('convolution', x.dtype)}({pointers[0]}, {pointers[1]}, {pointers[2] if bias else 'NULL'}, {y.buffer.name}, {name});"
    work = batch * product(node.spec.shape[-axes - 1 :]) * weight.shape[1] * product(weight.shape[2:])
    g.emit(["{", *(f"  {line}" for line in (*head, call)), "}"], [x, weight, *([bias] if bias else [])], [y], products=work)
    return y
