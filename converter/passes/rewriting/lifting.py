"""Rules that read layers out of the arithmetic that exporters write them as."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

from converter.ir import DType, Node, Operand
from converter.passes.rewriting.rewriter import Rewriter, rule


def _both(node: Node) -> Iterator[tuple[Operand, Operand]]:
    """The operands of a node that commutes, in both orders."""
    yield node.inputs[0], node.inputs[1]
    yield node.inputs[1], node.inputs[0]


@rule("add", lifting=True)
def _bias(r: Rewriter, node: Node) -> Node | None:
    """A linear layer or a convolution without bias, and a vector of one number for each of its outputs."""
    for layer, bias in _both(node):
        inner = r.maker(layer, "linear")
        if inner is not None and len(inner.inputs) == 2 and isinstance(bias, str) and bias in r.parameters:
            if r.shape(bias) == (r.shape(inner.inputs[1])[0],) and len(r.shape(inner.inputs[1])) == 2:
                return r.like(node, "linear", (*inner.inputs, bias))
    return None


@rule("multiply", lifting=True)
def _silu(r: Rewriter, node: Node) -> Node | None:
    for x, gate in _both(node):
        inner = r.maker(gate, "sigmoid")
        if inner is not None and inner.inputs[0] == x and isinstance(x, str):
            return r.like(node, "silu", (x,))
    return None


@rule("reciprocal", "divide", lifting=True)
def _reciprocal_root(r: Rewriter, node: Node) -> Node | None:
    if node.op == "divide" and r.uniform(node.inputs[0]) != 1:
        return None
    inner = r.maker(node.inputs[-1], "sqrt")
    return None if inner is None else r.like(node, "rsqrt", (inner.inputs[0],))


@rule("multiply", "divide", lifting=True)
def _times_one(r: Rewriter, node: Node) -> str | None:
    for x, other in _both(node) if node.op == "multiply" else [(node.inputs[0], node.inputs[1])]:
        one = r.uniform(other)
        if isinstance(x, str) and one == 1 and not isinstance(one, bool) and r.specs[x] == r.specs[node.output]:
            return x
    return None


@rule("lstm", lifting=True)
def _states_of_zeros(r: Rewriter, node: Node) -> Node | None:
    """States to start from that are zeros need not be given."""
    lengths = 1 if node.attributes.get("lengths") else 0
    each = (4 if node.attributes.get("bias", True) else 2) * (2 if node.attributes.get("bidirectional") else 1)
    operands, ends = node.inputs[1:len(node.inputs) - lengths], node.inputs[len(node.inputs) - lengths:]
    if each == 2 or len(operands) % each != 2 or any(r.uniform(item) != 0 for item in operands[-2:]):
        return None
    return replace(node, inputs=(node.inputs[0], *operands[:-2], *ends))


@rule("lstm", "gru", "rnn", lifting=True)
def _batch_first(r: Rewriter, node: Node) -> Node | None:
    """Sequences whose first two axes were swapped for the layer alone; the swap back meets the one after it."""
    turn = r.maker(node.inputs[0], "permute_dims")
    if turn is None or tuple(turn.attributes["axes"]) != (1, 0, 2) or node.attributes.get("batch_first") or len(node.outputs) > 1:
        return None
    own = r.emit(node.op, (turn.inputs[0], *node.inputs[1:]), {**node.attributes, "batch_first": True}, stem=f"{node.outputs[0]}_layer",
                 source=node.source)
    return r.like(node, "permute_dims", (own,), {"axes": (1, 0, 2)})


# Normalizations ------------------------------------------------------------------------------------------------------------


@rule("rms_norm", lifting=True)
def _layer_norm(r: Rewriter, node: Node) -> Node | None:
    """x less its mean over the last axis, and that to a mean square of 1."""
    centred = r.maker(node.inputs[0], "subtract")
    mean = r.maker(centred.inputs[1], "mean") if centred is not None else None
    if centred is None or mean is None or len(node.inputs) > 1 or mean.inputs[0] != centred.inputs[0]:
        return None
    rank, axis = len(r.shape(centred.inputs[0])), mean.attributes.get("axis")
    shape = node.attributes.get("normalized_shape", ())
    if not mean.attributes.get("keepdims") or axis is None or len(axis) != 1 or axis[0] % rank != rank - 1 or len(shape) != 1:
        return None
    return r.like(node, "layer_norm", (centred.inputs[0],), node.attributes)


@rule("multiply", "add", lifting=True)
def _weights_of_layer_norm(r: Rewriter, node: Node) -> Node | None:
    """Times a weight, then plus a bias, each a number for each place of the last axis."""
    for normal, vector in _both(node):
        inner = r.maker(normal, "layer_norm")
        if inner is None or not isinstance(vector, str) or r.shape(vector) != inner.attributes["normalized_shape"]:
            continue
        if node.op == "multiply" and len(inner.inputs) == 1:
            return r.like(node, "layer_norm", (inner.inputs[0], vector), inner.attributes)
        if node.op == "add" and len(inner.inputs) == 2 and inner.inputs[1] is not None:
            return r.like(node, "layer_norm", (*inner.inputs, vector), inner.attributes)
    return None


@rule("reshape", lifting=True)
def _group_norm(r: Rewriter, node: Node) -> Node | None:
    """Groups of channels side by side, each to mean 0 and variance 1, and apart again."""
    normal = r.maker(node.inputs[0], "instance_norm")
    grouped = r.maker(normal.inputs[0], "reshape") if normal is not None and not any(normal.inputs[1:]) else None
    if normal is None or grouped is None:
        return None
    shape, groups = r.shape(grouped.inputs[0]), r.shape(normal.inputs[0])
    if len(shape) < 2 or len(groups) < 3 or r.shape(node.outputs[0]) != shape or groups[0] != shape[0]:
        return None
    return r.like(node, "group_norm", (grouped.inputs[0],), {"num_groups": groups[1], **normal.attributes})


@rule("multiply", "add", lifting=True)
def _weights_of_group_norm(r: Rewriter, node: Node) -> Node | None:
    """Times a weight, then plus a bias, each a number for each channel."""
    for normal, vector in _both(node):
        inner = r.maker(normal, "group_norm")
        if inner is None or not isinstance(vector, str) or vector not in r.parameters or len(inner.inputs) != 1 + (node.op == "add"):
            continue
        channels, *rest = r.shape(normal)[1:]
        along = (channels, *(1 for _ in rest))
        if r.shape(vector) in (along, (1, *along)):
            flat = r.emit("reshape", (vector,), {"shape": (channels,)}) if len(r.shape(vector)) > 1 else vector
            return r.like(node, "group_norm", (*inner.inputs, flat), inner.attributes)
    return None


# Attention -----------------------------------------------------------------------------------------------------------------


@rule("where", lifting=True)
def _safe_softmax(r: Rewriter, node: Node) -> Node | None:
    """A softmax whose rows that see nothing, NaN there, are 0."""
    condition, zero, weights = node.inputs
    test, inner = r.maker(condition, "isnan"), r.maker(weights, "softmax")
    if test is None or inner is None or test.inputs[0] != weights or r.uniform(zero) != 0:
        return None
    return r.like(node, "safe_softmax", (inner.inputs[0],), inner.attributes)


@rule("matmul", lifting=True)
def _attention(r: Rewriter, node: Node) -> Node | None:
    """softmax(scale · q · kᵀ + mask) · v.

    A row whose scores are all -infinity is NaN of a plain softmax and 0 of attention: one that has a mask which may hold infinities
    stays as it is.
    """
    weights = r.maker(node.inputs[0], "softmax", "safe_softmax")
    if weights is None or weights.attributes.get("axis", -1) not in (-1, len(r.shape(weights.inputs[0])) - 1):
        return None
    scores, mask = weights.inputs[0], None
    total = r.maker(scores, "add")
    if total is not None:
        found = next(((a, b) for a, b in _both(total) if _product(r, a) is not None), None)
        if found is None or not isinstance(found[1], str):
            return None
        scores, mask = found
        if weights.op == "softmax" and not _is_finite(r, mask):
            return None
        mask = _as_truth(r, mask)
    product = _product(r, scores)
    if product is None or not isinstance(node.inputs[1], str):
        return None
    query, key, scale = product
    source = _turned(r, key)
    if source is None:
        return None
    rank = len(r.shape(query))
    if rank < 3 or mask is not None and len(r.shape(mask)) > rank:
        return None
    inputs = (query, source, node.inputs[1], *([] if mask is None else [mask]))
    return r.like(node, "scaled_dot_product_attention", inputs, {"scale": scale})


def _as_truth(r: Rewriter, mask: Operand) -> Operand:
    """The truth values of a mask that is 0 where they hold and -infinity elsewhere."""
    node = r.maker(mask, "where")
    if node is None or r.uniform(node.inputs[1]) != 0 or r.uniform(node.inputs[2]) != -math.inf or r.shape(node.inputs[0]) != r.shape(mask):
        return mask
    return node.inputs[0]


@rule("reshape", lifting=True)
def _turned_rows(r: Rewriter, node: Node) -> Node | None:
    """A swap of the last two axes, with those before made one for the while."""
    turn = r.maker(node.inputs[0], "permute_dims")
    flat = r.maker(turn.inputs[0], "reshape") if turn is not None else None
    if turn is None or flat is None or tuple(turn.attributes["axes"]) not in ((0, 2, 1), (0, -1, -2)):
        return None
    before, after = r.shape(flat.inputs[0]), r.shape(node.outputs[0])
    rows = before[-2:]
    if len(before) < 4 or len(after) < 4 or (*rows[::-1],) != after[-2:] or r.shape(turn.inputs[0])[1:] != rows:
        return None
    source = flat.inputs[0]
    if before[:-2] != after[:-2]:
        source = r.emit("reshape", (source,), {"shape": (*after[:-2], *rows)}, stem=f"{node.outputs[0]}_rows", source=node.source)
    return r.like(node, "permute_dims", (source,), {"axes": (*range(len(after) - 2), len(after) - 1, len(after) - 2)})


@rule("permute_dims", lifting=True)
def _only_ones_move(r: Rewriter, node: Node) -> Node | None:
    """A permutation that leaves the axes that are not 1 in their order is a reshape."""
    shape = r.shape(node.inputs[0])
    moved = [int(axis) % len(shape) for axis in node.attributes["axes"] if shape[axis] != 1]
    return r.like(node, "reshape", node.inputs, {"shape": r.shape(node.outputs[0])}) if moved == sorted(moved) else None


def _product(r: Rewriter, operand: Operand) -> tuple[Operand, Operand, float] | None:
    """(q, kᵀ, scale) when a value is scale · q · kᵀ, wherever the parts of the scale stand."""
    inner, scale = _without_scale(r, operand)
    product = r.maker(inner, "matmul")
    if product is None:
        return None
    query, first = _without_scale(r, product.inputs[0])
    key, second = _without_scale(r, product.inputs[1])
    return query, key, scale * first * second


def _without_scale(r: Rewriter, operand: Operand) -> tuple[Operand, float]:
    """x and c when a value is c · x or x / (1 / c) for a number c."""
    node = r.maker(operand, "multiply", "divide")
    if node is None:
        return operand, 1.0
    for x, other in _both(node) if node.op == "multiply" else [(node.inputs[0], node.inputs[1])]:
        number = r.uniform(other)
        if isinstance(number, (int, float)) and not isinstance(number, bool) and number and math.isfinite(number) and isinstance(x, str):
            if r.shape(x) == r.shape(operand):
                return x, float(number) if node.op == "multiply" else 1 / float(number)
    return operand, 1.0


def _turned(r: Rewriter, operand: Operand) -> Operand:
    """The key whose last two axes are swapped in a value, or None."""
    node = r.maker(operand, "permute_dims")
    if node is None or not isinstance(node.inputs[0], str):
        return None
    axes = tuple(int(axis) % len(node.attributes["axes"]) for axis in node.attributes["axes"])
    back = (*axes[:-2], axes[-1], axes[-2])
    if back == tuple(range(len(back))):
        return node.inputs[0]
    return r.emit("permute_dims", (node.inputs[0],), {"axes": back}, stem=f"{node.outputs[0]}_key", source=node.source)


def _is_finite(r: Rewriter, mask: Operand) -> bool:
    """Whether a mask to be added is known to hold no infinity: numbers chosen or multiplied, or a truth value as a number."""
    node = r.maker(mask, "where", "multiply", "subtract", "astype", "expand_dims", "reshape", "broadcast_to", "slice")
    if node is None:
        value = r.uniform(mask)
        return isinstance(value, (int, float)) and math.isfinite(value)
    if node.op == "astype":
        source = node.inputs[0]
        return isinstance(source, str) and (r.specs[source].dtype is DType.BOOL or r.specs[source].dtype.is_integer)
    operands = node.inputs[1:] if node.op == "where" else node.inputs
    return all(_is_finite(r, item) if isinstance(item, str) else isinstance(item, (int, float)) and math.isfinite(item)
               for item in operands)
