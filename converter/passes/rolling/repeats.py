"""Where a list of nodes repeats itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from converter.ir import Node, TensorSpec

LEAST = 3
"""A loop repeats at least as often in a trace, or it is none."""

LARGEST = 400
"""Nodes of a body, at most."""


@dataclass(frozen=True)
class Repeat:
    """`count` copies of a body of `period` nodes from `start` on, and as much of a further copy as there is until `stop`.
    `body` says what the nodes of a copy are."""

    start: int
    stop: int
    period: int
    body: tuple[Any, ...]

    @property
    def count(self) -> int:
        return (self.stop - self.start) // self.period


def signature(node: Node, specs: Mapping[str, TensorSpec]) -> tuple[Any, ...]:
    """What is alike in a node of one step and that of the next: all but names and numbers."""
    kinds = tuple(None if name is None or name not in specs else (specs[name].dtype, specs[name].rank) for name in node.outputs)
    return node.op, node.source, tuple(type(item) for item in node.inputs), kinds, tuple(sorted(node.attributes))


def repeats(nodes: Sequence[Node], specs: Mapping[str, TensorSpec], single: frozenset[str]) -> Iterator[Repeat]:
    """Every stretch of nodes that repeats, by period and then by place. Nodes that make a value of `single` repeat nothing."""
    known: dict[Any, int] = {}
    ids = np.empty(len(nodes), np.int64)
    for place, node in enumerate(nodes):
        alone = any(name in single for name in node.outputs)
        ids[place] = known.setdefault(("alone", place) if alone else signature(node, specs), len(known))
    for period in range(1, min(LARGEST, len(nodes) // LEAST) + 1):
        same = np.concatenate([[0], (ids[:-period] == ids[period:]).astype(np.int8), [0]])
        edges = np.flatnonzero(np.diff(same))
        for start, stop in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
            found = Repeat(start, stop + period, period, tuple(signature(node, specs) for node in nodes[start:start + period]))
            if found.count >= LEAST:
                yield found
