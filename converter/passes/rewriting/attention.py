"""Rules that read attention out of what surrounds it: repeated heads, and masks that are causal."""

from __future__ import annotations

from converter.ir import DType, Node, Operand
from converter.passes.rewriting.known import counts_from
from converter.passes.rewriting.rewriter import Rewriter, rule
from converter.passes.rewriting.shapes import RESHAPES


@rule("scaled_dot_product_attention")
def _repeated_heads_are_groups(r: Rewriter, node: Node) -> Node | None:
    """Keys and values whose heads are each repeated n times in a row are grouped heads."""
    if node.attributes.get("enable_gqa") or len(r.shape(node.inputs[0])) != 4:
        return None
    found = [_repeated(r, operand) for operand in node.inputs[1:3]]
    if found[0] is None or found[1] is None or found[0][1] != found[1][1]:
        return None
    if r.shape(node.inputs[0])[1] != r.shape(node.inputs[1])[1] or r.shape(node.inputs[0])[0] != r.shape(node.inputs[1])[0]:
        return None
    inputs = (node.inputs[0], found[0][0], found[1][0], *node.inputs[3:])
    return r.like(node, node.op, inputs, {**node.attributes, "enable_gqa": True})


def _repeated(r: Rewriter, operand: Operand) -> tuple[str, int] | None:
    """(x, n) when a value [batch, heads · n, length, size] is x with each of its heads n times in a row."""
    outer = r.maker(operand, "reshape")
    wide = r.maker(outer.inputs[0], "broadcast_to") if outer is not None else None
    inner = r.maker(wide.inputs[0], *RESHAPES) if wide is not None else None
    if outer is None or wide is None or inner is None or not isinstance(inner.inputs[0], str):
        return None
    before, after, shape = r.shape(inner.inputs[0]), r.shape(operand), r.shape(wide.outputs[0])
    if len(before) != 4 or len(after) != 4 or len(shape) != 5:
        return None
    batch, heads, length, size = before
    times = shape[2]
    repeats = (r.shape(wide.inputs[0]) == (batch, heads, 1, length, size) and shape == (batch, heads, times, length, size)
               and isinstance(times, int) and times > 1 and after == (batch, heads * times, length, size))
    return (inner.inputs[0], times) if repeats and isinstance(times, int) else None


@rule("scaled_dot_product_attention")
def _causal_mask(r: Rewriter, node: Node) -> Node | None:
    """A mask that shows position i the positions to i is `is_causal`; one that says more than that keeps the rest."""
    mask = node.inputs[3] if len(node.inputs) > 3 else None
    if not isinstance(mask, str) or r.specs[mask].dtype is not DType.BOOL or node.attributes.get("is_causal"):
        return None
    sizes = (r.shape(node.inputs[0])[-2], r.shape(node.inputs[1])[-2])
    rest: list[str] = []
    if not _split_causal(r, mask, sizes, rest):
        return None
    inputs = node.inputs[:3]
    if rest:
        mask = rest[0]
        for other in rest[1:]:
            mask = r.emit("logical_and", (mask, other), stem=f"{node.outputs[0]}_mask", source=node.source)
        inputs = (*inputs, mask)
    return r.like(node, node.op, inputs, {**node.attributes, "is_causal": True})


def _split_causal(r: Rewriter, mask: str, sizes: tuple[object, object], rest: list[str]) -> bool:
    """Whether a causal mask is among the parts that a mask holds at once; the other parts go to `rest`."""
    if _is_causal(r, mask, sizes):
        return True
    both = r.maker(mask, "logical_and", "bitwise_and")
    if both is None or not all(isinstance(item, str) for item in both.inputs):
        return False
    left, right = (str(item) for item in both.inputs)
    for part, other in ((left, right), (right, left)):
        found: list[str] = []
        if _split_causal(r, part, sizes, found):
            rest += [*found, other]
            return True
    return False


def _is_causal(r: Rewriter, mask: str, sizes: tuple[object, object]) -> bool:
    """Whether a mask is `key position <= query position`, counted from 0 along its last two axes."""
    node = r.maker(mask, "less_equal", "greater_equal")
    if node is None or r.shape(mask)[-2:] != sizes or any(size != 1 for size in r.shape(mask)[:-2]):
        return False
    low, high = node.inputs if node.op == "less_equal" else reversed(node.inputs)
    return _positions(r, low, -1, sizes[1]) and _positions(r, high, -2, sizes[0])


def _positions(r: Rewriter, operand: Operand, axis: int, size: object) -> bool:
    """Whether a value counts 0, 1, … along one axis, and has no other."""
    if not isinstance(operand, str):
        return False
    shape = r.shape(operand)
    if len(shape) < -axis or any(item != (size if place - len(shape) == axis else 1) for place, item in enumerate(shape)):
        return False
    inner = r.maker(operand, *RESHAPES)
    source = operand if inner is None else inner.inputs[0]
    counted = r.maker(source, "arange")
    return counted is not None and counts_from(r, source) == 0 and counted.attributes.get("step", 1) == 1


