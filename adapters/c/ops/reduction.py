"""Folds along axes. What is folded is computed on the way, where nothing else reads it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from adapters.c.elementwise import conversion
from adapters.c.fusion import Fused, Value
from adapters.c.registry import fuses, lowers
from adapters.c.types import ctype, number, sum_type
from adapters.c.views import View
from adapters.c.writer import Lowered, Writer
from converter.dims import Dim
from converter.ir import DType
from converter.ops._rules import axes_of
from converter.ops.scattering import identity


def fold(
    g: Writer,
    node: Lowered,
    x: Value,
    start: str,
    step: Callable[[str, str], list[str]],
    accumulator: str,
    result: Callable[[str], str],
    counter: bool = False,
) -> View:
    """The loops of a reduction. `step` is given the accumulator and an element; with `counter` the number of the element is `e` + it."""
    axis: Any = node.attributes["axis"]
    places = axes_of(axis, len(x.shape))
    kept = [place for place in range(len(x.shape)) if place not in places]
    order = [*kept, *places]
    y = g.new(node.spec, node.names[0])
    fused = Fused(g, [x], x.shape)
    views = [view.broadcast(x.shape).permuted(order) for view in fused.views]
    shape: list[Dim] = [x.shape[place] for place in order]
    outer_shape = tuple(shape[: len(kept)])
    flat = y.reshaped(outer_shape)
    assert flat is not None
    outer = g.loops(outer_shape, [flat, *(View(view.buffer, outer_shape, view.strides[: len(kept)], view.offset) for view in views)])
    inner_shape = tuple(shape[len(kept) :])
    still = View(y.buffer, inner_shape, (0,) * len(inner_shape))
    inner = g.loops(
        inner_shape, [still, *(View(view.buffer, inner_shape, view.strides[len(kept) :], view.offset) for view in views)], outer
    )
    code, (element,) = fused.lines(inner, 1)
    total = g.variable("s")
    lines = [f"{accumulator} {total} = {start};"]
    if counter:
        lines += [f"ptrdiff_t e{total} = 0, k{total} = 0;"]
    lines += inner.around([*code, *step(total, element)])
    lines += [f"{outer.element(0)} = {result(total)};"]
    g.emit(
        outer.around(lines) if outer.indices else ["{", *(f"  {line}" for item in lines for line in item.split("\n")), "}"],
        fused.reads,
        [y, *fused.writes],
    )
    fused.settle()
    return y


def _accumulated(operator: str, start: str) -> Callable[[Writer, Lowered, Value], View]:
    def lower(g: Writer, node: Lowered, x: Value) -> View:
        """Floats in float64, rounded once; integers wrap around."""
        dtype = node.spec.dtype
        wide = "double" if dtype.is_float else sum_type(dtype)
        made = conversion("{}", DType.FLOAT64, dtype).text if dtype.is_float else f"({ctype(dtype).scalar}){{}}"
        if dtype.is_float:
            g.helpers.update(conversion("", DType.FLOAT64, dtype).helpers)
        return fold(
            g,
            node,
            x,
            start,
            lambda total, element: [f"{total} {operator}= ({wide}){element};"],
            wide,
            lambda total: g.written(dtype, made.format(total)),
        )

    return lower


fuses(lowers("sum")(_accumulated("+", "0")))
fuses(lowers("prod")(_accumulated("*", "1")))


def _lowest(dtype: DType, largest: bool) -> str:
    return (
        number(identity("maximum" if largest else "minimum", dtype.numpy), dtype)
        if not dtype.is_float
        else ("-INFINITY" if largest else "INFINITY")
    )


def _extreme(largest: bool) -> Callable[[Writer, Lowered, Value], View]:
    def lower(g: Writer, node: Lowered, x: Value) -> View:
        dtype = node.spec.dtype

        def step(total: str, element: str) -> list[str]:
            name = g.variable("a")
            wrong = f" || {name} != {name}" if dtype.is_float else ""
            return [
                f"const {ctype(dtype).scalar} {name} = {element};",
                f"{total} = {name} {'>' if largest else '<'} {total}{wrong} ? {name} : {total};",
            ]

        return fold(g, node, x, _lowest(dtype, largest), step, ctype(dtype).scalar, lambda total: g.written(dtype, total))

    return lower


fuses(lowers("max")(_extreme(True)))
fuses(lowers("min")(_extreme(False)))


@fuses
@lowers("argmax")
def argmax(g: Writer, node: Lowered, x: Value) -> View:
    """The first of the largest, NaN being the largest."""
    dtype = x.dtype

    def step(total: str, element: str) -> list[str]:
        name = g.variable("a")
        larger = f"{name} > {total}" + (f" || ({name} != {name} && {total} == {total})" if dtype.is_float else "")
        return [
            f"const {ctype(dtype).scalar} {name} = {element};",
            f"if (e{total} == 0 || {larger}) {{",
            f"  {total} = {name};",
            f"  k{total} = e{total};",
            "}",
            f"++e{total};",
        ]

    return fold(g, node, x, _lowest(dtype, True), step, ctype(dtype).scalar, lambda total: f"k{total}", counter=True)
