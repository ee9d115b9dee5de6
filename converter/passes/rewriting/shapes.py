"""Rules about reshapes, permutations and broadcasts."""

from __future__ import annotations

from dataclasses import replace

from converter.ir import Node
from converter.opset import facts_of, operators_that
from converter.passes.rewriting.rewriter import Rewriter, rule

RESHAPES = tuple(sorted(operators_that(lambda operator: operator.facts.flat) - {"astype"}))


@rule(*RESHAPES)
def _reshape_once(r: Rewriter, node: Node) -> str | Node | None:
    source = node.inputs[0]
    shape = r.shape(node.outputs[0])
    inner = r.maker(source, *RESHAPES)
    if inner is not None:
        source = inner.inputs[0]
    if isinstance(source, str) and r.shape(source) == shape:
        return source
    return r.like(node, "reshape", (source,), {"shape": shape}) if inner is not None else None


@rule("permute_dims")
def _permute_once(r: Rewriter, node: Node) -> str | Node | None:
    axes = node.attributes["axes"]
    if isinstance(node.inputs[0], str) and axes == tuple(range(len(axes))):
        return node.inputs[0]
    inner = r.maker(node.inputs[0], "permute_dims")
    if inner is None:
        return None
    return replace(node, inputs=inner.inputs, attributes={"axes": tuple(inner.attributes["axes"][axis] for axis in axes)})


@rule("broadcast_to")
def _broadcast_once(r: Rewriter, node: Node) -> str | Node | None:
    if isinstance(node.inputs[0], str) and r.shape(node.inputs[0]) == r.shape(node.outputs[0]):
        return node.inputs[0]
    inner = r.maker(node.inputs[0], "broadcast_to")
    return replace(node, inputs=inner.inputs) if inner is not None else None


@rule("astype")
def _cast_once(r: Rewriter, node: Node) -> str | None:
    x = node.inputs[0]
    return x if isinstance(x, str) and r.specs[x] == r.specs[node.output] else None


@rule(*operators_that(lambda operator: operator.facts.elementwise and len(operator.operands) > 1), "scaled_dot_product_attention")
def _no_broadcast_before_broadcasting(r: Rewriter, node: Node) -> Node | None:
    """An operand need not be expanded for an operator that expands it itself."""
    for index, operand in enumerate(node.inputs):
        inner = r.maker(operand, "broadcast_to")
        if inner is None or node.op == "scaled_dot_product_attention" and index != 3:
            continue
        if len(r.shape(inner.inputs[0])) != len(r.shape(operand)) and node.op == "scaled_dot_product_attention":
            continue
        new = r.like(node, node.op, (*node.inputs[:index], inner.inputs[0], *node.inputs[index + 1:]), node.attributes)
        if new is not None:
            return new
    return None


@rule("matmul", "linear", "add", "multiply")
def _rows_need_no_flattening(r: Rewriter, node: Node) -> Node | None:
    """f(x flattened to rows) is f(x) flattened, for what treats each row alike; the reshape then meets the one that undoes it."""
    if len(node.inputs) < 2 or node.outputs[0] is None:
        return None
    others = node.inputs[1:]
    facts = facts_of(node.op)
    allowed = (0, 1) if facts.elementwise else (1, 2) if facts.layer else (2,)
    if any(item is not None and len(r.shape(item)) not in allowed for item in others):
        return None
    flat = r.maker(node.inputs[0], "reshape")
    if flat is None or len(r.shape(node.inputs[0])) != 2:
        return None
    source = flat.inputs[0]
    shape = r.shape(source)
    if len(shape) < 3 or shape[-1] != r.shape(node.inputs[0])[-1]:
        return None
    inner = r.emit(node.op, (source, *others), node.attributes, stem=f"{node.outputs[0]}_rows", source=node.source)
    return r.like(node, "reshape", (inner,), {"shape": r.shape(node.outputs[0])})
