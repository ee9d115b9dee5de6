"""Integers and booleans that rounding decides: the float operands that an output was chosen from, and what a tie is.

An `argmax` over two values that are closer than their rounding errors may give either. So for an output that such an
operator makes, the operands are looked at in the float64 run: a difference is a tie when the margin there is within
what both values may stray.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from converter.ir import Array, Graph, Node, TensorSpec
from converter.opset import facts_of, lookup
from converter.resolved import resolve


@dataclass(frozen=True, slots=True)
class TieRule:
    """How to judge one output: the node that chose it, and the names of the float values it chose from.

    `selected`: of the places along its axis that the node chose, the output has one. `exact` names the operands that no
    rounding touches: what the caller gives, parameters, and what only moves or compares them.
    """

    node: Node
    operands: tuple[str | float, ...]
    selected: bool = False
    exact: frozenset[str] = frozenset()

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(operand for operand in self.operands if isinstance(operand, str))

    def excuses(self, actual: Array, truth: Array, values: Mapping[str, Array], tolerance: Mapping[str, Array]) -> Array:
        """Where a difference is a tie, bool in the output's shape.

        Args:
            actual, truth: the output of a runtime and of the float64 run.
            values: the operands in the float64 run.
            tolerance: how far each element of an operand may stray, same shapes.
        """
        operands = [values[item] if isinstance(item, str) else np.asarray(item, np.float64) for item in self.operands]
        strays = [tolerance[item] if isinstance(item, str) else np.zeros((), np.float64) for item in self.operands]
        attributes = resolve(self.node).attributes
        chooses = facts_of(self.node.op).chooses
        if not chooses:
            if all(item in self.exact for item in self.names):
                return np.zeros(truth.shape, bool)
            margin = np.abs(operands[0] - operands[1])
            tied = np.broadcast_to(margin <= strays[0] + strays[1], np.broadcast_shapes(operands[0].shape, operands[1].shape))
            return tied.reshape(truth.shape) if tied.size == truth.size else np.zeros(truth.shape, bool)
        choice = _several if chooses == "several" and not self.selected else _one
        return choice(actual, truth, operands[0], strays[0], attributes)


def tie_rules(graph: Graph, specs: Mapping[str, TensorSpec]) -> dict[str, TieRule]:
    """The rule of each output that has one."""
    makers = {name: (node, position) for node in graph.nodes for position, name in enumerate(node.outputs) if name is not None}
    made = _rounded(graph, specs)
    rules = {}
    for output in graph.outputs:
        if output.spec.dtype.is_float or output.spec.dtype.is_complex:
            continue
        name = output.value
        selections: list[Node] = []
        while name in makers and not specs[name].dtype.is_float and (facts_of(makers[name][0].op).flat or makers[name][0].op == "select"):
            maker, _ = makers[name]
            selections += [maker] if maker.op == "select" else []
            name = maker.names[0]
        if name not in makers:
            continue
        node, position = makers[name]
        facts = facts_of(node.op)
        chosen = facts.chooses and position == len(lookup(node.op).outputs or ()) - 1
        if selections and not _selects(selections, node):
            continue
        if facts.compares or chosen:
            operands = tuple(item for item in node.inputs[:2 if facts.compares else 1]
                             if isinstance(item, (str, int, float)))
            if operands and all(specs[item].dtype.is_float for item in operands if isinstance(item, str)):
                rules[output.name] = TieRule(node, operands, bool(selections), frozenset(operands) - made)  # type: ignore[arg-type]
    return rules


def gives_exact(node: Node, specs: Mapping[str, TensorSpec]) -> bool:
    """Whether a node gives some of its operands' values as they are, or with another sign: of complex ones, the modulus is computed."""
    facts = facts_of(node.op)
    return facts.mirrors and not any(specs[name].dtype.is_complex for name in node.names) or bool(facts.carries) and node.op != "astype"


def _rounded(graph: Graph, specs: Mapping[str, TensorSpec]) -> set[str]:
    """The values that some rounding may have touched."""
    found: set[str] = set()
    for node in graph.nodes:
        if not gives_exact(node, specs) or found & set(node.names):
            found.update(name for name in node.outputs if name is not None)
    return found


def _selects(selections: list[Node], node: Node) -> bool:
    """Whether all that is selected is one of the places that a `topk` or `sort` chose, those of the other axes staying."""
    if len(selections) != 1 or facts_of(node.op).chooses != "several":
        return False
    axes = [resolve(item).attributes["axis"] for item in (*selections, node)]
    # A negative axis cannot be told from another one here, but for the last.
    return axes[0] == axes[1]


def _one(actual: Array, truth: Array, x: Array, stray: Array, attributes: Mapping[str, Any]) -> Array:
    """argmax, argmin, median, one place of several: the value at the chosen place is that at the true one."""
    axis = attributes.get("axis")
    if axis is None:
        x, stray, axis = x.reshape(-1), stray.reshape(-1), 0
    x, stray = np.moveaxis(x, axis, -1), np.moveaxis(stray, axis, -1)
    lead = (*x.shape[:-1], 1)
    if truth.size != math.prod(lead):
        return np.zeros(truth.shape, bool)
    return _as_extreme(actual.reshape(lead), truth.reshape(lead), x, stray).reshape(truth.shape)


def _several(actual: Array, truth: Array, x: Array, stray: Array, attributes: Mapping[str, Any]) -> Array:
    """topk and sort: the value at each chosen place is that at the true one, and no place is chosen twice."""
    axis = attributes["axis"] % x.ndim
    shape = list(x.shape)
    shape[axis] = truth.size // max(1, x.size // max(1, shape[axis]))
    if truth.size != math.prod(shape):
        return np.zeros(truth.shape, bool)
    chosen = np.moveaxis(actual.reshape(shape), axis, -1)
    wanted = np.moveaxis(truth.reshape(shape), axis, -1)
    tied = _as_extreme(chosen, wanted, np.moveaxis(x, axis, -1), np.moveaxis(stray, axis, -1))
    ordered = np.sort(chosen, axis=-1)
    distinct = np.all(ordered[..., 1:] != ordered[..., :-1], axis=-1, keepdims=True)
    return np.asarray(np.moveaxis(tied & distinct, -1, axis).reshape(truth.shape))


def _as_extreme(actual: Array, truth: Array, x: Array, stray: Array) -> Array:
    """Where x at `actual` is within both strays of x at `truth`. The last axis of all is the one chosen from."""
    places, wanted = actual.astype(np.int64), truth.astype(np.int64)
    inside = (places >= 0) & (places < x.shape[-1])
    places = np.where(inside, places, 0)
    margin = np.abs(np.take_along_axis(x, places, -1) - np.take_along_axis(x, wanted, -1))
    allowed = np.take_along_axis(stray, places, -1) + np.take_along_axis(stray, wanted, -1)
    return np.asarray(inside & (margin <= allowed))
