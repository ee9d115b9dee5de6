"""Rules about indices: those that are nowhere negative need no end to count from, and one of parts side by side is that part."""

from __future__ import annotations

import math

from converter.dims import Expr
from converter.ir import Node, Operand
from converter.opset import facts_of, lookup
from converter.passes.rewriting.known import counts_from
from converter.passes.rewriting.rewriter import SMALL, Rewriter, rule


@rule("where", lifting=True)
def _counted_from_the_front(r: Rewriter, node: Node) -> str | None:
    """`where(x < 0, x + n, x)` is x where x is nowhere negative."""
    test, other = r.maker(node.inputs[0], "less"), r.maker(node.inputs[1], "add")
    if test is None or other is None or test.inputs[0] != other.inputs[0] or r.uniform(test.inputs[1]) != 0:
        return None
    index, wide = test.inputs[0], r.maker(test.inputs[0], "broadcast_to")
    if not isinstance(index, str) or r.specs[index] != r.specs[node.output]:
        return None
    same = node.inputs[2] in (index, wide.inputs[0] if wide is not None else None)
    return index if same and _never_negative(r, index) else None


def _never_negative(r: Rewriter, operand: Operand, depth: int = 0) -> bool:
    if not isinstance(operand, str) or depth > 20:
        return isinstance(operand, (int, float)) and operand >= 0
    if operand in r.constants:
        size = math.prod(r.specs[operand].sizes)
        return size <= SMALL and r.specs[operand].dtype.is_integer and bool((r.parameters.read(operand) >= 0).all())
    node = r.makers.get(operand)
    if node is None:
        return False
    if node.op == "full":
        value = node.attributes["fill_value"]
        return isinstance(value, Expr) and all(factor >= 0 for factor in value.terms.values()) or not isinstance(value, Expr) and value >= 0
    if node.op == "arange":
        start = counts_from(r, operand)
        return start is not None and start >= 0
    facts, (first, *_) = facts_of(node.op), node.outputs
    moved = facts.carries and not facts.fills and node.op != "astype" and (operand == first or lookup(node.op).outputs is None)
    if not moved and node.op not in ("add", "multiply"):
        return False
    return all(_never_negative(r, item, depth + 1) for position, item in enumerate(node.inputs) if not moved or position in facts.carries)


@rule("select", lifting=True)
def _one_of_several(r: Rewriter, node: Node) -> Node | None:
    """Place i of tensors joined along an axis, where each has one place on it."""
    joined = r.maker(node.inputs[0], "concat", "stack")
    axis, index = node.attributes["axis"], node.attributes["index"]
    if joined is None or not isinstance(index, int):
        return None
    rank = len(r.shape(node.inputs[0]))
    if joined.attributes.get("axis", 0) % rank != axis % rank or not -len(joined.inputs) <= index < len(joined.inputs):
        return None
    if joined.op == "concat" and any(r.shape(item)[axis % rank] != 1 for item in joined.inputs):
        return None
    return r.like(node, "reshape", (joined.inputs[index],), {"shape": r.shape(node.outputs[0])})


@rule("index", lifting=True)
def _indices_broadcast_themselves(r: Rewriter, node: Node) -> Node | None:
    for place, operand in enumerate(node.inputs[1:], 1):
        wide = r.maker(operand, "broadcast_to")
        if wide is not None:
            found = r.like(node, "index", (*node.inputs[:place], wide.inputs[0], *node.inputs[place + 1:]), node.attributes)
            if found is not None:
                return found
    return None
