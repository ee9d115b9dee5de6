"""What a reader of another's graph need not write itself: emitting nodes, refusing, and going on to find all that is refused."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from converter.builder import GraphBuilder, Value
from converter.errors import UnsupportedError
from converter.ir import DType
from converter.ports.refusals import Refusals


class GraphImporter(ABC):
    """Emits neutral nodes for the operators of another graph, one after the other.

    `builder` holds the graph that is made, `refusals` what could not be expressed.
    """

    def __init__(self, builder: GraphBuilder, refusals: Refusals) -> None:
        self.builder, self.refusals = builder, refusals

    @property
    @abstractmethod
    def operator(self) -> str:
        """What the current operator is called where it comes from."""

    @property
    @abstractmethod
    def source(self) -> str | None:
        """Where the current operator stands, in the words of whoever wrote it."""

    def op(self, op: str, *inputs: Any, name: str | None = None, **attributes: Any) -> Value:
        """Emits a node of which one output matters, called `name` or after the operator."""
        return self.add(op, *inputs, names=None if name is None else (name,), **attributes)[0]

    def add(self, op: str, *inputs: Any, names: tuple[str | None, ...] | None = None, **attributes: Any) -> tuple[Value, ...]:
        """Emits a node and gives all its outputs."""
        return self.builder.add(op, tuple(map(self.taken, inputs)), attributes, names=names, source=self.source)

    def taken(self, value: Any) -> Any:
        """A value as the builder takes it."""
        return value

    def cast(self, value: Any, dtype: DType) -> Value:
        """`value` in `dtype`; no node when it is so already."""
        found: Value = self.taken(value)
        return found if found.dtype is dtype else self.op("astype", found, dtype=dtype)

    def refuse(self, reason: str, cause: str | None = None) -> UnsupportedError:
        """The error of what cannot be expressed: `raise g.refuse("why")`. `cause` is one of `errors.CAUSES`."""
        item: dict[str, object] = {"operator": self.operator, "reason": reason, "source": self.source}
        return UnsupportedError(reason, items=[item if cause is None else {**item, "cause": cause}])
