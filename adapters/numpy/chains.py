"""Chains of a graph as kernels: by themselves, or as the tail of the layer before them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from adapters.numpy.links import Link, Links, Tail
from adapters.numpy.registry import find_block
from converter.ir import Array, DType, TensorSpec
from converter.resolved import ResolvedNode

Operands = list[Any]


def make_chain(nodes: Sequence[ResolvedNode], specs: Mapping[str, TensorSpec], held: str | None = None,
               shift: str | None = None) -> tuple[Links, Operands] | None:
    """The chain, and its operands: names, and numbers as arrays. `held` is the one in whose memory the result is to be: the first.
    `shift`, the second, is added to it before all else.

    None for a single operator that has no function of blocks and gains nothing in blocks.
    """
    operands: Operands = [name for name in (held, shift) if name is not None]
    known = {*operands, *(node.node.outputs[0] for node in nodes)}
    for node in nodes:
        for operand in node.operands:
            if isinstance(operand, str):
                if operand not in known:
                    operands.append(operand)
                    known.add(operand)
            elif operand is not None:
                operands.append(np.asarray(operand, node.number_dtype(specs).numpy))
    places: dict[Any, int] = {operand: place for place, operand in enumerate(operands) if isinstance(operand, str)}
    numbers = iter([place for place, operand in enumerate(operands) if not isinstance(operand, str)])
    links = []
    if shift is not None:
        links.append(Link(find_block("add"), (0, 1), {}, np.dtype(np.float32), True))  # type: ignore[arg-type]
        places[held] = len(operands)
    for node in nodes:
        taken = [places[operand] if isinstance(operand, str) else next(numbers) for operand in node.operands if operand is not None]
        function = _block(node, specs)
        absent = [place for place, operand in enumerate(node.operands) if operand is None]
        links.append(Link(_without(function or node.operator.kernel, absent, function is not None), tuple(taken), node.given,
                          _spec(node, specs).dtype.numpy, function is not None))
        places[node.node.outputs[0]] = len(operands) + len(links) - 1
    if held is None and len(links) == 1 and not links[0].writes and nodes[0].operator.formula is None:
        return None
    return Links(links, len(operands), None if held is None else 0), operands


def _spec(node: ResolvedNode, specs: Mapping[str, TensorSpec]) -> TensorSpec:
    return specs[str(node.node.outputs[0])]


def _block(node: ResolvedNode, specs: Mapping[str, TensorSpec]) -> Callable[..., Any] | None:
    dtype = _spec(node, specs).dtype
    same = all(specs[name].dtype is dtype for name in node.node.names)
    return find_block(node.node.op) if same and dtype in (DType.FLOAT32, DType.FLOAT64) else None


def _without(function: Callable[..., Any], absent: Sequence[int], writes: bool) -> Callable[..., Any]:
    """The function of the operands that are there."""
    if not absent:
        return function

    def call(*arrays: Any, **attributes: Any) -> Any:
        full = list(arrays)
        for place in absent:
            full.insert(place + writes, None)
        return function(*full, **attributes)

    return call


def with_tail(kernel: Callable[..., Any], count: int, links: Links) -> Callable[..., Any]:
    """A kernel of the layer's `count` operands and of those that its tail has beside the layer's result."""

    def call(*operands: Array, **attributes: Any) -> Array:
        result: Array = kernel(*operands[:count], tail=Tail(links, operands[count:]), **attributes)
        return result

    return call
