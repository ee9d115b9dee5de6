"""Lists of what the steps of a loop gave, joined where they are used."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from converter.ir import Node, TensorSpec
from converter.passes.rolling.listing import Element, Listing, part


def joined(listing: Listing, nodes: Iterable[Node]) -> list[Node]:
    """The nodes, where lists of elements that are put together are taken from their sequences."""
    result: list[Node] = []
    for node in nodes:
        if node.op in ("stack", "concat") and any(name in listing.elements for name in node.names):
            _join(listing, result, node)
        else:
            result.append(node)
    return result


def _join(listing: Listing, into: list[Node], node: Node) -> None:
    runs = _runs([(name, listing.elements.get(name)) for name in node.names])
    if all(len(run) == 1 for run in runs):
        into.append(node)
        return
    axis = node.attributes["axis"]
    pieces: list[str] = []
    for run in runs:
        name, first = run[0]
        if len(run) == 1:
            pieces.append(name if node.op == "concat" else listing.add(into, "expand_dims", name, axis=(axis,)))
            continue
        second = run[1][1]
        assert first is not None
        assert second is not None
        whole = part(listing, into, first, second.index - first.index, len(run))
        rank = listing.specs[whole].rank
        place = axis % (rank if node.op == "stack" else rank - 1)
        order = (*range(1, place + 1), 0, *range(place + 1, rank))
        whole = listing.add(into, "permute_dims", whole, axes=order) if place else whole
        if node.op == "concat":
            shape = listing.specs[whole].shape
            whole = listing.add(into, "reshape", whole, shape=(*shape[:place], shape[place] * shape[place + 1], *shape[place + 2:]))
        pieces.append(whole)
    # The name of the result goes to the node that gives it.
    if len(pieces) == 1 and into and into[-1].outputs == (pieces[0],):
        last = into.pop()
        into.append(Node(last.op, last.inputs, node.outputs, last.attributes, node.source))
    elif len(pieces) == 1:
        into.append(Node("reshape", (pieces[0],), node.outputs, {"shape": listing.specs[pieces[0]].shape}, node.source))
    else:
        into.append(Node("concat", tuple(pieces), node.outputs, {"axis": axis}, node.source))


def _runs(items: Sequence[tuple[str, Element | None]]) -> list[list[tuple[str, Element | None]]]:
    """Elements of one sequence that follow each other, upwards or downwards."""
    runs: list[list[tuple[str, Element | None]]] = []
    for name, element in items:
        last = runs[-1] if runs else []
        before = last[-1][1] if last else None
        if element is not None and before is not None and (before.sequence, before.axis) == (element.sequence, element.axis):
            step, earlier = element.index - before.index, last[-2][1] if len(last) > 1 else None
            if step in (1, -1) and (earlier is None or step == before.index - earlier.index):
                last.append((name, element))
                continue
        runs.append([(name, element)])
    return runs


def unstacked(nodes: Iterable[Node], specs: Mapping[str, TensorSpec]) -> dict[str, Element]:
    """The values that are elements of a tensor that is taken apart."""
    return {name: Element(node.inputs[0], node.attributes["axis"] % specs[node.inputs[0]].rank, index) for node in nodes
            if node.op == "unstack" and isinstance(node.inputs[0], str) for index, name in enumerate(node.outputs) if name is not None}
