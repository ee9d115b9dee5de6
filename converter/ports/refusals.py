"""Why things cannot be converted, all of it in one error."""

from __future__ import annotations

from collections.abc import Callable, Container

from converter.attributes import graphs_in
from converter.errors import ConverterError, UnsupportedError
from converter.ir import Graph, Node
from converter.resolved import ResolvedNode, resolve


class Refusals:
    """Collects refusals. Those that are equal in `keys` are told once, with a count, and with the `facts` of the first."""

    def __init__(self, keys: tuple[str, ...] = ("operator", "reason"), facts: tuple[str, ...] = ("cause", "source")) -> None:
        self._keys, self._facts = keys, facts
        self._items: dict[tuple[object, ...], dict[str, object]] = {}

    def __bool__(self) -> bool:
        return bool(self._items)

    def add(self, error: UnsupportedError, operator: str, source: str | None = None) -> None:
        """What an error lists; one without a list is of `operator`. `source` is where it stands, unless the list says so."""
        for item in error.items or [{"operator": operator, "reason": error.message, "cause": error.cause}]:
            told = {**item, "source": item.get("source") or source}
            told = {name: told[name] for name in ("operator", "reason", *self._facts) if told.get(name) is not None}
            entry = self._items.setdefault(tuple(told.get(name) for name in self._keys), {**told, "count": 0})
            entry["count"] = int(str(entry["count"])) + int(str(item.get("count", 1)))

    def walk(self, graph: Graph, lower: Callable[[ResolvedNode], None], stand_in: Callable[[Node], None] = lambda node: None) -> None:
        """Lowers every node of a graph. One that is refused is collected, and what `stand_in` gives for it lets the walk go on."""
        for node in graph.nodes:
            try:
                lower(resolve(node))
            except UnsupportedError as error:
                self.add(error, node.op)
                stand_in(node)
            except ConverterError as error:
                raise error.within(f"node {node}") from error

    def told(self) -> list[dict[str, object]]:
        """What was collected so far."""
        return [dict(item) for item in self._items.values()]

    def forget(self, told: list[dict[str, object]]) -> None:
        """Goes back to what `told` gave."""
        self._items = {tuple(item.get(name) for name in self._keys): dict(item) for item in told}

    def error(self, message: Callable[[int], str], fix: str | None = None, where: str | None = None) -> UnsupportedError:
        """The error that lists all; `message` is given how many operators there are."""
        items = self.told()
        return UnsupportedError(message(len({item["operator"] for item in items})), items=items, fix=fix, where=where)


def refuse_unknown(graph: Graph, known: Container[str], message: str, reason: str) -> None:
    """Raises `UnsupportedError` that lists every operator of a graph, and of its sub-graphs, that is not `known`."""
    refusals, waiting = Refusals(), [graph]
    while waiting:
        for node in waiting.pop().nodes:
            waiting += graphs_in(node)
            if node.op not in known:
                refusals.add(UnsupportedError(reason), node.op)
    if refusals:
        raise refusals.error(lambda count: message)
