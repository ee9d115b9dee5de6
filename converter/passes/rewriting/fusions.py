"""Rules that recognise a layer in the arithmetic that spells it out."""

from __future__ import annotations

import math

import numpy as np

from converter.ir import Node, Operand
from converter.passes.rewriting.rewriter import Rewriter, rule

# How closely a spelled-out constant must match the one of the formula.
CLOSE = 1e-12


def _with_number(r: Rewriter, operand: Operand, op: str, number: float) -> Operand:
    """x when `operand` is `op(x, number)`, in either order for what commutes; else None."""
    node = r.maker(operand, op)
    if node is None:
        return None
    pairs = [(node.inputs[0], node.inputs[1])]
    if op in ("add", "multiply"):
        pairs.append((node.inputs[1], node.inputs[0]))
    for x, other in pairs:
        value = r.uniform(other)
        if isinstance(value, (int, float)) and not isinstance(value, bool) and _is(value, number):
            return x
    return None


def _is(value: float, number: float) -> bool:
    """Whether a spelled-out constant is the formula's, or that rounded to float32, as files of float32 hold it."""
    return math.isclose(value, number, rel_tol=CLOSE) or value == float(np.float32(number))


def _cube_of(r: Rewriter, operand: Operand) -> Operand:
    x = _with_number(r, operand, "power", 3.0)
    if x is not None:
        return x
    node = r.maker(operand, "multiply")
    for square, other in ((node.inputs[0], node.inputs[1]), (node.inputs[1], node.inputs[0])) if node is not None else ():
        inner = r.maker(square, "multiply")
        if inner is not None and inner.inputs[0] == inner.inputs[1] == other:
            return other
    return None


@rule("multiply")
def _gelu(r: Rewriter, node: Node) -> Node | None:
    """x/2 · (1 + erf(x / √2)), and with tanh(√(2/π) · (x + 0.044715·x³)), in the orders that people write."""
    for half, gate in ((node.inputs[0], node.inputs[1]), (node.inputs[1], node.inputs[0])):
        x = _with_number(r, half, "multiply", 0.5) or _with_number(r, half, "divide", 2.0)
        gated = _with_number(r, gate, "add", 1.0)
        if x is None or gated is None:
            # x · ((1 + f(x)) / 2), or 0.5 · (x · (1 + f(x)))
            x, gated = half, _with_number(r, _halved(r, gate), "add", 1.0)
        if isinstance(x, str) and gated is not None:
            form = _gelu_form(r, gated, x)
            if form is not None:
                return r.like(node, "gelu", (x,), form)
    return _gelu_halved_last(r, node)


def _halved(r: Rewriter, operand: Operand) -> Operand:
    return _with_number(r, operand, "multiply", 0.5) or _with_number(r, operand, "divide", 2.0)


def _gelu_halved_last(r: Rewriter, node: Node) -> Node | None:
    for number, inner in ((node.inputs[0], node.inputs[1]), (node.inputs[1], node.inputs[0])):
        product = r.maker(inner, "multiply")
        value = r.uniform(number)
        if product is None or isinstance(value, bool) or not isinstance(value, (int, float)) or value != 0.5:
            continue
        for x, gate in ((product.inputs[0], product.inputs[1]), (product.inputs[1], product.inputs[0])):
            gated = _with_number(r, gate, "add", 1.0)
            form = _gelu_form(r, gated, x) if isinstance(x, str) and gated is not None else None
            if form is not None:
                return r.like(node, "gelu", (x,), form)
    return None


def _gelu_form(r: Rewriter, gated: Operand, x: str) -> dict[str, str] | None:
    """The attributes of the gelu whose inner function `gated` is, or None."""
    error = r.maker(gated, "erf")
    if error is not None:
        inner = error.inputs[0]
        scaled = _with_number(r, inner, "divide", math.sqrt(2)) or _with_number(r, inner, "multiply", math.sqrt(0.5))
        return {} if scaled == x else None
    tanh = r.maker(gated, "tanh")
    if tanh is None:
        return None
    total = r.maker(_with_number(r, tanh.inputs[0], "multiply", math.sqrt(2 / math.pi)), "add")
    if total is None:
        return None
    for plain, cubic in ((total.inputs[0], total.inputs[1]), (total.inputs[1], total.inputs[0])):
        scaled = _with_number(r, cubic, "multiply", 0.044715)
        if plain == x and scaled is not None and _cube_of(r, scaled) == x:
            return {"approximate": "tanh"}
    return None
