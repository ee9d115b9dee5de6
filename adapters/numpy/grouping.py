"""Which nodes of a graph run as one step: chains of element-wise operators, and the layer whose result such a chain begins with.

A chain has one result; whatever else its operators make is read within the chain alone and has the result's shape.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass

from adapters.numpy.registry import takes_tail
from converter.attributes import attribute_symbols
from converter.ir import DType, Graph, TensorSpec
from converter.resolved import ResolvedNode


@dataclass(frozen=True, slots=True)
class Group:
    """Nodes by position. `chain` is in running order, its last one gives the result; `layer` comes before it, if one does.

    A node that is no element-wise operator is a group by itself: `chain` is empty, `layer` the node.
    """

    layer: int | None
    chain: tuple[int, ...]

    @property
    def last(self) -> int:
        (last,) = self.chain[-1:] or (self.layer,)
        assert last is not None
        return last


def is_fixed(node: ResolvedNode) -> bool:
    """Whether no size is among what the node is called with, and none is bound by it."""
    return not (node.binds or any(attribute_symbols(value) for value in node.given.values()))


def decided(nodes: Sequence[ResolvedNode], parameters: Container[str]) -> set[int]:
    """The nodes that neither inputs nor sizes have a part in."""
    found: set[int] = set()
    made: set[str] = set()
    for index, node in enumerate(nodes):
        if not node.graphs and is_fixed(node) and all(name in parameters or name in made for name in node.node.names):
            found.add(index)
            made.update(name for name in node.node.outputs if name is not None)
    return found


def groups(graph: Graph, nodes: Sequence[ResolvedNode], specs: Mapping[str, TensorSpec], parameters: Container[str]) -> list[Group]:
    """Every node in one group, in an order in which they can run."""
    once = decided(nodes, parameters)
    readers: dict[str, set[int]] = {}
    for index, node in enumerate(nodes):
        for name in node.node.names:
            readers.setdefault(name, set()).add(index)
    given = {output.value for output in graph.outputs}
    member: dict[int, int] = {}

    def joins(index: int) -> int | None:
        """The chain in which alone the node's result is read, in its shape."""
        name = nodes[index].node.outputs[0]
        if name is None or name in given:
            return None
        roots = {member.get(reader) for reader in readers.get(name, ())}
        root = roots.pop() if len(roots) == 1 else None
        return root if root is not None and specs[name].shape == _result(nodes[root], specs).shape else None

    for index in reversed(range(len(nodes))):
        node = nodes[index]
        if index not in once and node.operator.facts.elementwise and len(node.node.outputs) == 1 and is_fixed(node) \
                and node.node.outputs[0] is not None:
            root = joins(index)
            member[index] = index if root is None else root
    layers: dict[int, int] = {}
    for index, node in enumerate(nodes):
        if index not in once and index not in member and takes_tail(node.node.op) and len(node.node.outputs) == 1:
            root = joins(index)
            if root is not None and specs[str(node.node.outputs[0])].dtype is _result(nodes[root], specs).dtype is DType.FLOAT32:
                layers[root] = index
    chains: dict[int, list[int]] = {}
    for index in sorted(member):
        chains.setdefault(member[index], []).append(index)
    found = [Group(layers.get(root), tuple(chain)) for root, chain in chains.items()]
    taken = {*member, *layers.values()}
    found += [Group(index, ()) for index in range(len(nodes)) if index not in taken]
    return sorted(found, key=lambda group: group.last)


def _result(node: ResolvedNode, specs: Mapping[str, TensorSpec]) -> TensorSpec:
    return specs[str(node.node.outputs[0])]
