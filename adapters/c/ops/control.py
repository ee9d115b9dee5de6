"""Branches and loops: what is within them stands in a block of its own, in the code and in the plan of the memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from adapters.c.fusion import Number, Pending, Value, placed, store
from adapters.c.lowering import Lowering
from adapters.c.registry import lowers
from adapters.c.views import Buffer, View
from adapters.c.writer import ENDLESS, Lowered, Writer
from converter.dims import Dim, symbol
from converter.ir import DimRange, TensorSpec
from converter.ops.control import MAX_STEPS


def settle(g: Writer, values: Sequence[Value], held: Sequence[Buffer]) -> list[Value]:
    """Values that are to be written over `held`, none of which reads it any more."""
    found: list[Value] = []
    for value in values:
        place = value if isinstance(value, Number) else placed(g, value)
        if isinstance(place, View) and place.buffer in held:
            copy = g.new(TensorSpec(place.dtype, place.shape), "next")
            g.copy(copy, place)
            place = copy
        found.append(place)
    return found


def _carry(g: Writer, states: Sequence[View], values: Sequence[Value]) -> None:
    """Gives states their next values."""
    held = [state.buffer for state in states]
    changed = [
        (state, value)
        for state, value in zip(states, values, strict=True)
        if not (isinstance(value, View) and value.buffer is state.buffer and value == state)
    ]
    following = settle(g, [value for _, value in changed], held)
    for (state, _), value in zip(changed, following, strict=True):
        store(g, value, state)


def _states(g: Writer, node: Lowered, operands: Sequence[View]) -> list[View]:
    states = [
        g.new(TensorSpec(item.dtype, item.shape), hint)
        for item, hint in zip(operands, (*node.names, *[f"{node.names[0]}_state"] * len(operands)), strict=False)
    ]
    for state, item in zip(states, operands, strict=True):
        g.copy(state, item)
    return states


@lowers("while_loop")
def while_loop(f: Lowering, node: Lowered, sizes: dict[str, Dim], *operands: View) -> list[View]:
    g, given = f.g, node.attributes
    carried: Any = given["carried"]
    condition: Any = given["condition"]
    body: Any = given["body"]
    label = g.label
    states = _states(g, node, operands[:carried])
    values = [*states, *operands[carried:]]
    steps = g.variable("n")
    g.begin(f"for (ptrdiff_t {steps} = 0;; ++{steps}) {{", values, states)
    flag = placed(g, f.body(condition, values, sizes)[0])
    g.label = label
    g.emit([f"if (!{flag.buffer.name}[{g.at(flag, [])}]) {{ break; }}", f"if ({steps} >= {MAX_STEPS}) {{ return {ENDLESS}; }}"], [flag])
    _carry(g, states, f.body(body, values, sizes))
    g.label = label
    g.end(reads=states)
    return states


@lowers("scan")
def scan(f: Lowering, node: Lowered, sizes: dict[str, Dim], *operands: View) -> list[View]:
    g, given = f.g, node.attributes
    count: Any = given["states"]
    sequences: Any = given["sequences"]
    body: Any = given["body"]
    label = g.label
    states = _states(g, node, operands[:count])
    scanned, rest = operands[count : count + sequences], operands[count + sequences :]
    length = scanned[0].shape[0]
    for item in scanned[1:]:
        g.same(item.shape[0], length)
    if not isinstance(length, int):
        g.require(f"{g.size(length)} < 1", 1)
    rows = [g.new(spec, name) for spec, name in zip(node.specs[count:], (*node.names[count:], *["rows"] * len(node.specs)), strict=False)]
    step = g.variable("n")
    index = symbol(f"step_{step}")
    g.symbols[f"step_{step}"], g.known[f"step_{step}"] = step, DimRange(0, max(0, g.most(length) - 1))
    g.begin(f"for (ptrdiff_t {step} = 0; {step} < {g.size(length)}; ++{step}) {{", [*states, *scanned, *rest], [*states, *rows])
    results = f.body(body, [*states, *(_row(item, index) for item in scanned), *rest], sizes)
    read = (*node.resolved.node.outputs, *[None] * len(node.specs))
    for place, (row, value) in enumerate(zip(rows, results[count:], strict=True)):
        if read[count + place] is None:
            continue
        target = _row(row, index)
        if isinstance(value, Pending) and value.uses > 1:
            value = placed(g, value)
        store(g, value, target)
    _carry(g, states, results[:count])
    g.label = label
    g.end(reads=[*states, *rows])
    return [*states, *rows]


def _row(item: View, index: Dim) -> View:
    """The element of a sequence at an index along its axis 0."""
    return replace(item, shape=item.shape[1:], strides=item.strides[1:], offset=item.offset + index * item.strides[0])


@lowers("cond")
def cond(f: Lowering, node: Lowered, sizes: dict[str, Dim], predicate: View, *operands: View) -> list[View]:
    g, label = f.g, f.g.label
    results = [g.new(spec, name) for spec, name in zip(node.specs, (*node.names, *["result"] * len(node.specs)), strict=False)]
    for head, branch in (
        (f"if ({predicate.buffer.name}[{g.at(predicate, [])}]) {{", node.attributes["then_branch"]),
        ("else {", node.attributes["else_branch"]),
    ):
        g.begin(head, [predicate, *operands], results)
        graph: Any = branch
        for target, value in zip(results, f.body(graph, operands, sizes), strict=True):
            store(g, value, target)
        g.label = label
        g.end(reads=results)
    return results
