"""Rules about values that are known before a run: uniform tensors, counts, neutral elements."""

from __future__ import annotations

from dataclasses import replace

from converter.ir import DType, Node, Operand
from converter.opset import Operator, operators_that
from converter.passes.rewriting.rewriter import Rewriter, rule
from converter.passes.rewriting.shapes import RESHAPES


def _moves_only(operator: Operator) -> bool:
    facts = operator.facts
    return facts.carries == facts.linear == (0,) and not facts.fills and operator.outputs == ("y",) and not operator.binds


@rule(*operators_that(_moves_only))
def _rearranged_uniform(r: Rewriter, node: Node) -> Node | None:
    value = r.uniform(node.inputs[0])
    if value is None:
        return None
    spec = r.specs[node.output]
    return r.like(node, "full", (), {"shape": spec.shape, "fill_value": value, "dtype": spec.dtype})


@rule("logical_and", "bitwise_and", "logical_or", "bitwise_or")
def _neutral_boolean(r: Rewriter, node: Node) -> str | Node | None:
    neutral = node.op.endswith("and")
    out = node.outputs[0]
    if out is None or r.specs[out].dtype is not DType.BOOL:
        return None
    for operand, other in ((node.inputs[0], node.inputs[1]), (node.inputs[1], node.inputs[0])):
        if r.uniform(operand) is neutral and isinstance(other, str):
            return other if r.specs[other] == r.specs[out] else r.like(node, "broadcast_to", (other,), {"shape": r.shape(out)})
    return None


@rule("greater_equal")
def _index_is_not_negative(r: Rewriter, node: Node) -> Node | None:
    """`arange(…) >= 0` holds everywhere."""
    source, bound = node.inputs
    value = r.uniform(bound)
    while True:
        inner = r.maker(source, *RESHAPES, "broadcast_to")
        if inner is None:
            break
        source = inner.inputs[0]
    start = counts_from(r, source)
    if start is None or not isinstance(value, (int, float)) or value > start:
        return None
    return r.like(node, "full", (), {"shape": r.shape(node.outputs[0]), "fill_value": True, "dtype": DType.BOOL})


def counts_from(r: Rewriter, operand: Operand) -> int | None:
    """The start of an ascending `arange`, or None."""
    node = r.maker(operand, "arange")
    if node is None:
        return None
    start, step = node.attributes.get("start", 0), node.attributes.get("step", 1)
    return start if isinstance(start, int) and isinstance(step, int) and step > 0 else None


@rule("where")
def _where_known(r: Rewriter, node: Node) -> str | None:
    condition = r.uniform(node.inputs[0])
    if not isinstance(condition, bool):
        return None
    chosen = node.inputs[1] if condition else node.inputs[2]
    return chosen if isinstance(chosen, str) and r.specs[chosen] == r.specs[node.output] else None


@rule("add", "subtract", "multiply", "divide")
def _neutral_arithmetic(r: Rewriter, node: Node) -> str | None:
    """x + 0 and x - 0 of integers (a float's -0.0 would change), x * 1 and x / 1."""
    operands = [(node.inputs[0], node.inputs[1])]
    if node.op in ("add", "multiply"):
        operands.append((node.inputs[1], node.inputs[0]))
    for x, other in operands:
        if isinstance(x, str) and not isinstance(other, str) and r.specs[x] == r.specs[node.output]:
            additive = node.op in ("add", "subtract")
            if other == (0 if additive else 1) and not isinstance(other, bool) and (not additive or r.specs[x].dtype.is_integer):
                return x
    return None


@rule("scaled_dot_product_attention")
def _no_mask(r: Rewriter, node: Node) -> Node | None:
    if len(node.inputs) > 3 and r.uniform(node.inputs[3]) is True:
        return replace(node, inputs=node.inputs[:3])
    return None


@rule("index")
def _grid_of_positions(r: Rewriter, node: Node) -> Node | None:
    """`x[arange(a)[:, None], arange(b)[None, :]]` is x itself, with axes of size 1 between its own."""
    x, *indices = node.inputs
    shape, rank = r.shape(x), len(r.shape(node.outputs[0]))
    if len(indices) != len(shape) or rank < len(shape):
        return None
    place = -1
    for size, index in zip(shape, indices, strict=True):
        if index is None:
            return None
        source: Operand = index
        found = r.shape(index)
        own = [axis - len(found) + rank for axis, item in enumerate(found) if item != 1]
        inner = r.maker(source, *RESHAPES)
        if inner is not None:
            source = inner.inputs[0]
        counter = r.maker(source, "arange")
        if (counter is None or counts_from(r, source) != 0 or counter.attributes.get("step", 1) != 1
                or r.shape(source) != (size,) or len(own) != 1 or own[0] <= place):
            return None
        place = own[0]
    return r.like(node, "reshape", (x,), {"shape": r.shape(node.outputs[0])})


@rule("embedding")
def _one_row_for_all(r: Rewriter, node: Node) -> Node | None:
    """The same index everywhere needs one look-up."""
    index = r.uniform(node.inputs[0])
    if not isinstance(index, int) or isinstance(index, bool) or not isinstance(node.inputs[0], str):
        return None
    if node.attributes or node.outputs[0] is None or not r.shape(node.inputs[0]):
        return None
    row = r.emit("select", (node.inputs[1],), {"axis": 0, "index": index}, stem=f"{node.outputs[0]}_row", source=node.source)
    return r.like(node, "broadcast_to", (row,), {"shape": r.shape(node.outputs[0])})
