"""Branches and loops: `If`, `Loop`, `Scan`, and optional values that are known to be there or not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx

from adapters.onnx.initializers import embedded_array
from adapters.onnx.load import text_of
from adapters.onnx.reading.bodies import Body, read_body
from adapters.onnx.reading.items import Item, is_numeric
from adapters.onnx.reading.reader import Reader
from adapters.onnx.registry import reads
from converter.builder import GraphBuilder, Value
from converter.dims import Dim, symbol
from converter.equal_sizes import taken_as_equal
from converter.errors import UnsupportedError
from converter.ir import DType


def inlined(g: Reader, graph: onnx.GraphProto, items: Sequence[Any] = ()) -> tuple[Any, ...]:
    """A branch or a body that always runs, on these inputs, as nodes of the graph around it. Its names are its own."""
    outer = dict(g.values)
    if len(graph.input) != len(items):
        raise g.refuse("a body that takes another number of values")
    g.values.update(zip((text_of(item.name) for item in graph.input), items, strict=True))
    g.read_initializers(graph)
    g.walk(graph)
    found = tuple(g.results(graph))
    g.values = outer
    return found


@reads("If")
def if_(g: Reader, condition: Item, *, then_branch: onnx.GraphProto, else_branch: onnx.GraphProto) -> tuple[Any, ...]:
    """A branch alone where the condition is known, else both in a `cond`."""
    known = g.known(condition)
    if known is not None and is_numeric(known):
        return inlined(g, then_branch if bool(known.reshape(-1)[0]) else else_branch)
    with taken_as_equal():  # what holds in a branch that runs says nothing of the sizes at which the other does
        bodies = [read_body(g, branch, []) for branch in (then_branch, else_branch)]
    captured = {name: value for body in bodies for name, value in body.captured.items()}
    graphs = [body.graph([], captured) for body in bodies]
    for place, (first, second) in enumerate(zip(*(body.results for body in bodies), strict=False)):
        if first.spec != second.spec:
            what = "dtype" if first.dtype is not second.dtype else "number of axes" if first.rank != second.rank else "sizes"
            name = text_of(g.node.output[place])
            raise g.refuse(f"branches, chosen by what only a run knows, whose results differ in their {what}: {name} is "
                           f"{first.spec} of then_branch and {second.spec} of else_branch")
    if len(bodies[0].results) != len(bodies[1].results):
        raise g.refuse("branches that give other numbers of results")
    return g.add("cond", _scalar(g, condition), *captured.values(), then_branch=graphs[0], else_branch=graphs[1])


@reads("Scan")
def scan(g: Reader, *items: Item, body: onnx.GraphProto, num_scan_inputs: int, directions: Sequence[int] | None = None,
         **options: Any) -> tuple[Value, ...]:
    if g.version >= 9:
        return _scan(g, *items, body=body, num_scan_inputs=num_scan_inputs, **options)
    return _scan_of_a_batch(g, *items, body=body, count=num_scan_inputs, turned=bool(directions and any(directions)), **options)


def _scan_of_a_batch(g: Reader, lengths: Item | None, *items: Item, body: onnx.GraphProto, count: int, turned: bool) -> tuple[Value, ...]:
    """Version 8: each row of the batch, the first axis of all operands, by itself."""
    if lengths is not None or turned:
        raise g.refuse("Scan of version 8 with lengths of its own, or backwards")
    given = [g.tensor(item) for item in items]
    states = len(given) - count
    inner = read_body(g, body, [(item.dtype, item.shape[1 + (place >= states):]) for place, item in enumerate(given)])
    b = GraphBuilder("row")
    own = [b.input(f"value_{place}", item.dtype, item.shape[1:]) for place, item in enumerate(given)]
    more = [b.input(f"more_{place}", item.dtype, item.shape) for place, item in enumerate(inner.captured.values())]
    found = b.add("scan", (*own, *more), {"states": states, "sequences": count, "body": inner.graph(inner.inputs, inner.captured)})
    for place, item in enumerate(found):
        b.output(f"result_{place}", item)
    return g.add("scan", *given, *inner.captured.values(), states=0, sequences=len(given), body=b.graph())


def _scan(g: Reader, *items: Item, body: onnx.GraphProto, num_scan_inputs: int, scan_input_axes: Sequence[int] | None = None,
          scan_input_directions: Sequence[int] | None = None, scan_output_axes: Sequence[int] | None = None,
          scan_output_directions: Sequence[int] | None = None) -> tuple[Value, ...]:
    states, sequences = items[:len(items) - num_scan_inputs], [g.tensor(item) for item in items[len(items) - num_scan_inputs:]]
    for number, item in enumerate(sequences):
        axis = g.axis(scan_input_axes[number], item.rank) if scan_input_axes else 0
        if axis:
            item = g.op("permute_dims", item, axes=(axis, *(at for at in range(item.rank) if at != axis)))
        if scan_input_directions and scan_input_directions[number]:
            item = g.op("flip", item, axis=(0,))
        sequences[number] = item
    begin = [g.tensor(item) for item in states]
    inner = read_body(g, body, [*((item.dtype, item.shape) for item in begin), *((item.dtype, item.shape[1:]) for item in sequences)])
    found = list(g.add("scan", *begin, *sequences, *inner.captured.values(), states=len(begin), sequences=len(sequences),
                       body=inner.graph(inner.inputs, inner.captured)))
    for number in range(len(begin), len(found)):
        place = number - len(begin)
        if scan_output_directions and scan_output_directions[place]:
            found[number] = g.op("flip", found[number], axis=(0,))
        if scan_output_axes and scan_output_axes[place]:
            rank = found[number].rank
            axis = g.axis(scan_output_axes[place], rank)
            order = [*range(1, rank)]
            order.insert(axis, 0)
            found[number] = g.op("permute_dims", found[number], axes=tuple(order))
    return tuple(found)


@reads("Loop")
def loop(g: Reader, trips: Item | None, condition: Item | None, *items: Any, body: onnx.GraphProto) -> tuple[Value, ...]:
    """A known number of steps whose condition stays true is a `scan`, else, without stacked results, a `while_loop`."""
    known = None if condition is None else g.known(condition)
    steps = None if trips is None else g.known(trips)
    stacked = len(body.output) - 1 - len(items)
    if any(not isinstance(item, Item) for item in items):
        return _unrolled(g, trips, condition, items, body)
    begin = [g.tensor(item) for item in items]
    kinds = [(DType.INT64, ()), (DType.BOOL, ()), *((item.dtype, item.shape) for item in begin)]
    endless = condition is None or known is not None and bool(known.reshape(-1)[0])
    if endless and steps is not None and _stays_true(body):
        (count,) = g.sizes(trips, "a number of steps")
        if isinstance(count, int) and count <= 0:
            made = read_body(g, body, kinds).results[1 + len(begin):]
            return (*begin, *(g.op("broadcast_to", g.like(0, value), shape=(0, *value.shape)) for value in made))
        else:
            told = g.refusals.told()
            try:
                inner = read_body(g, body, kinds)
                _check_carried(g, begin, inner)
            except UnsupportedError:
                if not isinstance(count, int) or count * max(1, len(body.node)) > MOST_STEPS:
                    raise
                # What the number of the step decides is known where each step is written out.
                g.refusals.forget(told)
                return _unrolled(g, trips, condition, items, body)
            number = g.op("arange", start=0, stop=count, step=1, dtype=DType.INT64)
            graph = inner.as_scan()
            return g.add("scan", *begin, number, *inner.captured.values(), states=len(begin), sequences=1, body=graph)
    if stacked and (trips is None or not _stays_true(body)):
        raise g.refuse("a loop whose condition only a run knows, with a result of each step")
    if stacked:
        count = symbol(g.size_symbol("steps"))
        given = g.cast(_scalar(g, trips), DType.INT64)  # type: ignore[arg-type]
        if not endless and condition is not None:  # what it is before the first step it stays
            given = g.op("where", _scalar(g, condition), given, g.like(0, given))
        g.op("size_of", g.op("maximum", given, g.like(0, given)), size=count)
        number = g.op("arange", start=0, stop=count, step=1, dtype=DType.INT64)
        inner = read_body(g, body, kinds)
        _check_carried(g, begin, inner)
        return g.add("scan", *begin, number, *inner.captured.values(), states=len(begin), sequences=1, body=inner.as_scan())
    inner = read_body(g, body, kinds)
    _check_carried(g, begin, inner)
    first = g.op("full", shape=(), fill_value=True, dtype=DType.BOOL) if condition is None else _scalar(g, condition)
    number = g.op("full", shape=(), fill_value=0, dtype=DType.INT64)
    limit = g.op("full", shape=(), fill_value=(1 << 62), dtype=DType.INT64) if trips is None else g.cast(_scalar(g, trips), DType.INT64)
    going, body_graph = inner.as_while()
    found = g.add("while_loop", number, first, *begin, limit, *inner.captured.values(), carried=2 + len(begin), condition=going,
                  body=body_graph)
    return found[2:]


def _check_carried(g: Reader, begin: Sequence[Value], body: Body) -> None:
    """Raises `UnsupportedError` for a value of another dtype or shape after a step than before it, at any sizes but 0."""
    for place, (before, after) in enumerate(zip(begin, body.results[1:], strict=False)):
        if before.dtype is not after.dtype or before.rank != after.rank or any(map(_never_equal, before.shape, after.shape)):
            raise g.refuse(f"a loop that changes the dtype or the shape of what it carries: {text_of(g.node.output[place]) or place} is "
                           f"{before.spec} before a step and {after.spec} after it")


def _never_equal(left: Dim, right: Dim) -> bool:
    difference = left - right
    factors = [difference] if isinstance(difference, int) else list(difference.terms.values())
    return all(factor > 0 for factor in factors) or all(factor < 0 for factor in factors)


MOST_STEPS = 10_000
"""Nodes that the loops of a graph may become where they are written out."""


def _unrolled(g: Reader, trips: Item | None, condition: Item | None, items: Sequence[Any], body: onnx.GraphProto) -> tuple[Any, ...]:
    """A loop that carries sequences, step by step: of a known number, while the condition is known."""
    count = MOST_STEPS + 1 if trips is None else g.integers(trips, "a number of steps of a loop that carries a sequence")[0]
    states, results = list(items), [list[Value]() for _ in range(len(body.output) - 1 - len(items))]
    going: Item | None = condition
    step = 0
    while step < count and (going is None or bool(g.numbers(going, "a condition of a loop that carries a sequence").all())):
        top = g.top()
        top.written_out += max(1, len(body.node))
        if top.written_out > MOST_STEPS:
            raise g.refuse("a loop of too many steps that carries a sequence")
        true = Item(DType.BOOL, (), None, np.asarray(True))
        going, *found = inlined(g, body, [Item(DType.INT64, (), None, np.asarray(step)), true if going is None else going, *states])
        states = found[:len(items)]
        for held, result in zip(results, found[len(items):], strict=True):
            held.append(g.tensor(result))
        step += 1
    if any(not held for held in results):
        raise g.refuse("a loop without a step, with a result of each step")
    return (*states, *(g.op("stack", *held, axis=0) for held in results))


def _scalar(g: Reader, item: Item) -> Value:
    value = g.tensor(item)
    return g.op("reshape", value, shape=()) if value.rank else value


def _stays_true(body: onnx.GraphProto) -> bool:
    """Whether a body gives back the condition that it was given, or a constant that is true."""
    name, given = body.output[0].name, body.input[1].name
    for _ in range(len(body.node)):
        if name == given:
            return True
        makers = [node for node in body.node if name in node.output]
        if not makers or makers[0].op_type not in ("Identity", "Cast", "Constant"):
            break
        if makers[0].op_type == "Constant":
            held = [item for item in makers[0].attribute if item.name == "value"]
            return bool(held) and bool(embedded_array(held[0].t).all())
        name = makers[0].input[0]
    held = [item for item in body.initializer if item.name == name]
    return bool(held) and bool(embedded_array(held[0]).all())


@reads("Optional")
def optional(g: Reader, item: Any = None, *, type: object = None) -> Any:
    return item if item is not None else Absent()


class Absent:
    """An optional value that is not there."""


@reads("OptionalHasElement")
def has_element(g: Reader, item: Any = None) -> Item:
    return Item(DType.BOOL, (), None, np.asarray(item is not None and not isinstance(item, Absent)))


@reads("OptionalGetElement")
def get_element(g: Reader, item: Any) -> Any:
    if isinstance(item, Absent):
        raise g.refuse("the element of an optional value that is not there")
    return item
