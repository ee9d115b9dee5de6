"""Rules that recognise rotary positions in the arithmetic that spells them out.

Model code holds the cosine of each angle twice, once for each element of its pair, and computes x · cosines +
(-b, a) · sines; or it holds them once and computes the two halves apart.
"""

from __future__ import annotations

from typing import Any

from converter.ir import Node, Operand
from converter.opset import operators_that
from converter.passes.rewriting.rewriter import Rewriter, rule

HALVES, PAIRS = "halves", "pairs"
"""How an axis is cut in two: its first and second half, or its even and odd places."""

ALONE = operators_that(lambda operator: operator.facts.elementwise and len(operator.operands) == 1 and operator.outputs == ("y",))
SCALED = ("multiply", "divide")


@rule("add")
def _rotated(r: Rewriter, node: Node) -> Node | None:
    """x · C + (-b, a) · S, where C and S hold every number twice."""
    products = [r.maker(item, "multiply") for item in node.inputs]
    if None in products:
        return None
    for straight, crossed in (products, products[::-1]):
        for turned, sines in _orders(crossed):
            found = _crossed(r, turned)
            if found is None:
                continue
            x, way = found
            for same, cosines in _orders(straight):
                if same != x:
                    continue
                halves = _once(r, cosines, way), _once(r, sines, way)
                if None not in halves:
                    return r.like(node, "rotary_embedding", (x, *halves), {"interleaved": way == PAIRS})
    return None


@rule("concat")
def _rotated_apart(r: Rewriter, node: Node) -> Node | None:
    """(a · c - b · s, b · c + a · s) along the last axis."""
    if len(node.inputs) != 2 or not _is_last(r, node, node.inputs[0]):
        return None
    first, second = r.maker(node.inputs[0], "subtract"), r.maker(node.inputs[1], "add")
    if first is None or second is None:
        return None
    ac, bs = (r.maker(item, "multiply") for item in first.inputs)
    sums = [r.maker(item, "multiply") for item in second.inputs]
    if ac is None or bs is None:
        return None
    for a, cosine in _orders(ac):
        for b, sine in _orders(bs):
            x = _both(r, a, b)
            wanted = [{b, cosine}, {a, sine}]
            if x is not None and x[1] == HALVES and [set(item.inputs) for item in sums if item] in (wanted, wanted[::-1]):
                return r.like(node, "rotary_embedding", (x[0], cosine, sine))
    return None


@rule("concat")
def _rotated_in_part(r: Rewriter, node: Node) -> Node | None:
    """A rotated first part of the axis beside the rest of it."""
    if len(node.inputs) != 2 or not _is_last(r, node, node.inputs[0]):
        return None
    turned = r.maker(node.inputs[0], "rotary_embedding")
    whole = _range(r, node.inputs[1])
    part = _range(r, turned.inputs[0]) if turned is not None else None
    if turned is None or whole is None or part is None or whole[0] != part[0]:
        return None
    x, start, stop, step = whole
    if (step, part[3]) != (1, 1) or part[1:3] != (0, start) or stop != r.shape(x)[-1]:
        return None
    return r.like(node, "rotary_embedding", (x, *turned.inputs[1:]), turned.attributes)


def _orders(node: Any) -> tuple[tuple[Operand, Operand], tuple[Operand, Operand]]:
    a, b = node.inputs
    return (a, b), (b, a)


def _is_last(r: Rewriter, node: Node, operand: Operand) -> bool:
    rank = len(r.shape(operand))
    return rank > 0 and node.attributes.get("axis", 0) % rank == rank - 1


def _crossed(r: Rewriter, operand: Operand) -> tuple[str, str] | None:
    """The x of a (-b, a), and how it is cut into a and b."""
    whole = r.maker(operand, "concat")
    if whole is not None and not _is_last(r, whole, operand):
        return None
    if whole is None:
        joined = r.maker(operand, "reshape")
        whole = r.maker(joined.inputs[0], "stack") if joined is not None else None
        rank = len(r.shape(operand))
        if whole is None or whole.attributes.get("axis", 0) not in (-1, rank):
            return None
    if len(whole.inputs) != 2:
        return None
    opposite = r.maker(whole.inputs[0], "negative")
    found = _both(r, whole.inputs[1], opposite.inputs[0]) if opposite is not None else None
    wanted = HALVES if whole.op == "concat" else PAIRS
    return found if found is not None and found[1] == wanted and r.shape(found[0]) == r.shape(operand) else None


def _both(r: Rewriter, first: Operand, second: Operand) -> tuple[str, str] | None:
    """The value whose last axis was cut into these two, and how."""
    a, b = _range(r, first), _range(r, second)
    if a is None or b is None or a[0] != b[0]:
        return None
    size = r.shape(a[0])[-1]
    if not isinstance(size, int) or size % 2 or not size:
        return None
    if (a[1:], b[1:]) == ((0, size // 2, 1), (size // 2, size, 1)):
        return a[0], HALVES
    if a[1::2] == (0, 2) and b[1::2] == (1, 2) and a[2] >= size - 1 and b[2] >= size:
        return a[0], PAIRS
    return None


def _range(r: Rewriter, operand: Operand) -> tuple[str, int, int, int] | None:
    """(x, start, stop, step) of a part of x's last axis."""
    node = r.maker(operand, "slice", "split")
    if node is None or not isinstance(node.inputs[0], str):
        return None
    x = node.inputs[0]
    rank, size = len(r.shape(x)), r.shape(x)[-1]
    if not isinstance(size, int):
        return None
    if node.op == "split":
        sizes = node.attributes["sizes"]
        if node.attributes.get("axis", 0) % rank != rank - 1 or not all(isinstance(item, int) for item in sizes):
            return None
        place = node.outputs.index(operand)
        return x, sum(sizes[:place]), sum(sizes[:place + 1]), 1
    axes = node.attributes["axes"]
    if len(axes) != 1 or axes[0] % rank != rank - 1:
        return None
    (start,), (stop,), (step,) = node.attributes["starts"], node.attributes["stops"], node.attributes.get("steps") or (1,)
    stop = size if stop is None else stop
    if not all(isinstance(item, int) for item in (start, stop, step)) or step < 1:
        return None
    start, stop = (min(item + size if item < 0 else item, size) for item in (start, stop))
    return (x, start, stop, step) if start >= 0 else None


def _once(r: Rewriter, operand: Operand, way: str) -> str | None:
    """A value whose last axis holds every number twice, `way` apart, with each once; None where that is not known."""
    key = ("once", operand, way)
    if key not in r.memory:
        r.memory[key] = _find_once(r, operand, way)
    found = r.memory[key]
    return None if found is None else str(found)


def _find_once(r: Rewriter, operand: Operand, way: str) -> str | None:
    node = r.maker(operand, "concat", "repeat_interleave", "expand_dims", "reshape", *ALONE, *SCALED)
    if node is None:
        return None
    first = node.inputs[0] if isinstance(node.inputs[0], str) else None
    if node.op == "concat":
        same = len(node.inputs) == 2 and first == node.inputs[1]
        return first if same and way == HALVES and _is_last(r, node, operand) else None
    if node.op == "repeat_interleave":
        doubled = way == PAIRS and node.attributes["repeats"] == 2 and _is_last(r, node, operand)
        return first if doubled else None
    attributes = dict(node.attributes)
    if node.op == "expand_dims":
        rank = len(r.shape(operand))
        if any(axis % rank == rank - 1 for axis in attributes["axis"]):
            return None
    if node.op == "reshape":
        if r.shape(node.inputs[0])[-1:] != r.shape(operand)[-1:]:
            return None
        attributes["shape"] = (*attributes["shape"][:-1], r.shape(operand)[-1] // 2)
    places = [place for place, item in enumerate(node.inputs) if isinstance(item, str) and r.uniform(item) is None]
    if len(places) != 1:
        return None
    inner = _once(r, node.inputs[places[0]], way)
    if inner is None:
        return None
    inputs = tuple(inner if place == places[0] else item for place, item in enumerate(node.inputs))
    if any(isinstance(item, str) and r.shape(item) for place, item in enumerate(inputs) if place != places[0]):
        return None
    return r.emit(node.op, inputs, attributes, source=node.source)
