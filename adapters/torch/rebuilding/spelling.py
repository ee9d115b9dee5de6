"""How an operator is written in a rebuilt module's code where PyTorch has its own words for it: `x + 1`, `x.reshape(…)`.

An operator without an entry is a call of `adapters.torch.rebuilding.functions`.
"""

from __future__ import annotations

import operator as python
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch.fx import Graph, Node

Spelling = Callable[[Graph, tuple[Any, ...], dict[str, Any]], Node]


def _infix(function: Any) -> Spelling:
    return lambda graph, operands, attributes: graph.call_function(function, operands)


def _method(name: str, *names: str) -> Spelling:
    """`x.name(attribute, …)`."""
    return lambda graph, operands, attributes: graph.call_method(name, (*operands, *(attributes[key] for key in names)))


def _call(function: Callable[..., Any], names: tuple[str, ...] = (), **renamed: str) -> Spelling:
    """`function(operands, attribute, …, keyword=attribute)`; an attribute that is not named goes under its own name."""

    def spell(graph: Graph, operands: tuple[Any, ...], attributes: dict[str, Any]) -> Node:
        keywords = {renamed.get(key, key): value for key, value in attributes.items() if key not in names}
        return graph.call_function(function, (*operands, *(attributes[key] for key in names)), keywords)

    return spell


def _norm(function: Callable[..., Any], shape: str) -> Spelling:
    """Norms take their shape before the weights."""

    def spell(graph: Graph, operands: tuple[Any, ...], attributes: dict[str, Any]) -> Node:
        rest = {key: value for key, value in attributes.items() if key != shape}
        return graph.call_function(function, (operands[0], attributes[shape], *operands[1:]), rest)

    return spell


def _astype(graph: Graph, operands: tuple[Any, ...], attributes: dict[str, Any]) -> Node:
    return graph.call_method("to", (operands[0], attributes["dtype"]))


def _expand_dims(graph: Graph, operands: tuple[Any, ...], attributes: dict[str, Any]) -> Node | None:
    axis = attributes["axis"]
    return graph.call_method("unsqueeze", (operands[0], axis[0])) if len(axis) == 1 else None


def _slice(graph: Graph, operands: tuple[Any, ...], attributes: dict[str, Any]) -> Node | None:
    axes, steps = attributes["axes"], attributes["steps"] or (1,) * len(attributes["axes"])
    if min(axes, default=-1) < 0:
        return None
    key = [slice(None)] * (max(axes) + 1)
    for axis, start, stop, step in zip(axes, attributes["starts"], attributes["stops"], steps, strict=True):
        key[axis] = slice(None if isinstance(start, int) and start == 0 else start, stop, None if step == 1 else step)
    return graph.call_function(python.getitem, (operands[0], tuple(key)))


def _where(graph: Graph, operands: tuple[Any, ...], attributes: dict[str, Any]) -> Node | None:
    # Two numbers would take torch's default dtype.
    return graph.call_function(torch.where, operands) if any(isinstance(item, Node) for item in operands[1:]) else None


def _joined(function: Callable[..., Any]) -> Spelling:
    return lambda graph, operands, attributes: graph.call_function(function, (list(operands),), {"dim": attributes["axis"]})


SPELLINGS: Mapping[str, Callable[..., Node | None]] = {
    **{name: _infix(function) for name, function in {
        "add": python.add, "subtract": python.sub, "multiply": python.mul, "divide": python.truediv, "power": python.pow,
        "matmul": python.matmul, "negative": python.neg, "less": python.lt, "less_equal": python.le, "greater": python.gt,
        "greater_equal": python.ge, "equal": python.eq, "not_equal": python.ne}.items()},
    "reshape": _method("reshape", "shape"), "permute_dims": _method("permute", "axes"),
    "broadcast_to": _method("broadcast_to", "shape"), "astype": _astype, "expand_dims": _expand_dims, "where": _where,
    "slice": _slice, "select": _method("select", "axis", "index"),
    "linear": _call(F.linear), "layer_norm": _norm(F.layer_norm, "normalized_shape"),
    "softmax": _call(torch.softmax, axis="dim"), "log_softmax": _call(torch.log_softmax, axis="dim"),
    "concat": _joined(torch.cat), "stack": _joined(torch.stack),
    **{name: _call(function) for name, function in {
        "relu": torch.relu, "sigmoid": torch.sigmoid, "tanh": torch.tanh, "silu": F.silu, "exp": torch.exp, "log": torch.log,
        "sqrt": torch.sqrt, "rsqrt": torch.rsqrt, "sin": torch.sin, "cos": torch.cos, "abs": torch.abs}.items()},
}
"""An entry that answers None leaves the node to `adapters.torch.rebuilding.functions`."""
