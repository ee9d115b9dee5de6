"""Where torch gave up a free size while it traced: which operator, and which line of the module's code, made it a number or gave it
an upper end."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.fx.experimental.symbolic_shapes import ShapeEnv

from adapters.torch.patches.exchanging import exchanged
from adapters.torch.sizes.decisions import frames_within, place_in

Axis = tuple[str, int]
"""An axis of an input, by the input's name."""


@dataclass(frozen=True)
class Place:
    """What a size was given up for: an operator, `aten.view`, and a line, `net.py:12 in forward`, where they are known."""

    operator: str | None
    line: str | None

    def __str__(self) -> str:
        return " at ".join(part for part in (self.operator, self.line) if part)


@dataclass
class Specializations:
    """The places at which the symbols of traces were given up, by environment and symbol."""

    found: dict[tuple[int, str], Place] = field(default_factory=dict)
    environments: list[ShapeEnv] = field(default_factory=list)

    def add(self, environment: ShapeEnv, symbol: Any) -> None:
        """Keeps the last place: the one that decided."""
        self.environments.append(environment)  # so that no other one gets its id
        self.found[id(environment), str(symbol)] = _place(sys._getframe(2))

    def places(self, exported: ExportedProgram, names: list[str]) -> dict[Axis, Place]:
        """The places by the axes of the inputs that have `names`, in order."""
        values = [node.meta.get("val") for node in exported.graph.nodes if node.op == "placeholder"]
        environment = next((item.fake_mode.shape_env for item in values if hasattr(item, "fake_mode")), None)
        if environment is None:
            return {}
        axes: dict[Axis, Place] = {}
        for symbol, sources in environment.var_to_sources.items():
            place = self.found.get((id(environment), str(symbol)))
            for source in sources if place is not None else ():
                text = source.name if isinstance(source.name, str) else source.name()
                axis = _axis(text, names)
                if axis is not None and place is not None:
                    axes[axis] = place
        return axes


def _axis(source: str, names: list[str]) -> Axis | None:
    """`L['x'].size()[1]` as ("x", 1)."""
    path, found, axis = source.rpartition(".size()[")
    if not found or not axis.rstrip("]").isdecimal():
        return None
    parts = [part.strip("'\"]") for part in path.split("[")[1:]]
    matching = [name for name in names if ".".join(parts) == name or ".".join(parts[1:]) == name]
    return (matching[0], int(axis.rstrip("]"))) if matching else None


def _place(frame: FrameType | None) -> Place:
    operator = None
    for inner in frames_within(frame):
        own = inner.f_locals.get("func")
        if operator is None and isinstance(own, torch._ops.OpOverload):
            operator = str(own.overloadpacket)
        line = place_in(inner)
        if line is not None:
            return Place(operator, line)
    return Place(operator, None)


@contextmanager
def recorded_places() -> Iterator[Specializations]:
    """While active, the places at which sizes are given up are collected."""
    found = Specializations()
    replace, narrow = ShapeEnv._set_replacement, ShapeEnv._update_var_to_range

    def replaced(self: ShapeEnv, a: Any, tgt: Any, msg: str) -> None:
        replace(self, a, tgt, msg)
        found.add(self, a)

    def narrowed(self: ShapeEnv, symbol: Any, *args: Any, **kwargs: Any) -> None:
        before = self.var_to_range.get(symbol)
        narrow(self, symbol, *args, **kwargs)
        after = self.var_to_range.get(symbol)
        if before is not None and after is not None and before.upper != after.upper:
            found.add(self, symbol)

    with exchanged((ShapeEnv, "_set_replacement", replaced), (ShapeEnv, "_update_var_to_range", narrowed)):
        yield found
