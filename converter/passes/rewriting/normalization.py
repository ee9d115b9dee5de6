"""Rules that recognise a normalization in the arithmetic that spells it out."""

from __future__ import annotations

from converter.ir import Node, Operand
from converter.passes.rewriting.rewriter import Rewriter, rule


@rule("multiply", "divide")
def _root_mean_square(r: Rewriter, node: Node) -> Node | None:
    """x · 1/√(mean(x²) + eps) over the last axis, and x / √(…)."""
    pairs = [(node.inputs[0], node.inputs[1])]
    if node.op == "multiply":
        pairs.append((node.inputs[1], node.inputs[0]))
    for x, scale in pairs:
        root = r.maker(scale, "rsqrt" if node.op == "multiply" else "sqrt")
        total = r.maker(root.inputs[0], "add") if root is not None else None
        if not isinstance(x, str) or total is None:
            continue
        for mean, eps in ((total.inputs[0], total.inputs[1]), (total.inputs[1], total.inputs[0])):
            number = r.uniform(eps)
            if isinstance(number, float) and number >= 0 and _is_mean_square(r, mean, x):
                return r.like(node, "rms_norm", (x,), {"normalized_shape": (r.shape(x)[-1],), "eps": number})
    return None


def _is_mean_square(r: Rewriter, operand: Operand, x: str) -> bool:
    """Whether a value is the mean of x² over x's last axis, which is kept."""
    mean = r.maker(operand, "mean")
    if mean is None or not mean.attributes.get("keepdims", False):
        return False
    axis, rank = mean.attributes.get("axis"), len(r.shape(x))
    if axis is None or len(axis) != 1 or not rank or axis[0] % rank != rank - 1:
        return False
    square = r.maker(mean.inputs[0], "square", "power", "multiply")
    if square is None or square.inputs[0] != x:
        return False
    return square.op == "square" or (square.inputs[1] == x if square.op == "multiply" else r.uniform(square.inputs[1]) == 2)


@rule("multiply")
def _weighted(r: Rewriter, node: Node) -> Node | None:
    """A normalization times a weight for each place of the axis."""
    for normal, weight in ((node.inputs[0], node.inputs[1]), (node.inputs[1], node.inputs[0])):
        inner = r.maker(normal, "rms_norm")
        if inner is None or len(inner.inputs) > 1 or not isinstance(weight, str):
            continue
        if r.shape(weight) == inner.attributes["normalized_shape"]:
            return r.like(node, "rms_norm", (inner.inputs[0], weight), inner.attributes)
    return None
