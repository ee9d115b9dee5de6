"""What a family of architectures declares, and the trial of a checkpoint against each of its published variants."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from adapters.architectures.torchvision.layers import Layers, Mismatch
from converter.builder import Value
from converter.ir import Graph, TensorSpec

Specs = Mapping[str, TensorSpec]


@dataclass(frozen=True, slots=True)
class Family:
    """Architectures that one function builds.

    A checkpoint that has all the names in `marks` may be one of them. `variants` holds what tells one from another, under
    torchvision's name for it; `build(net, variant)` gives the output, and raises `Mismatch` where the checkpoint differs.
    `ambiguous` says, for variants that names and shapes cannot tell apart, what it is that they differ in.
    """

    title: str
    marks: tuple[str, ...]
    variants: Mapping[str, Any]
    build: Callable[[Layers, Any], Value]
    ambiguous: Mapping[str, str] | None = None

    def marked(self, specs: Specs) -> bool:
        """Whether the checkpoint has the family's names."""
        return all(name in specs for name in self.marks)


@dataclass(frozen=True, slots=True)
class Fit:
    """A published architecture that a checkpoint fits.

    `assumptions`: what the checkpoint does not show.
    """

    name: str
    graph: Graph
    assumptions: tuple[str, ...] = ()


def fits(family: Family, specs: Specs, prefix: str = "") -> tuple[list[Fit], str]:
    """The family's variants that a checkpoint fits; where there is none, the nearest one and what speaks against it.

    `specs` are the checkpoint's with `prefix` taken off their names.
    """
    found, nearest, why = [], -1, ""
    for name, variant in family.variants.items():
        net = Layers(name, specs, prefix)
        try:
            graph = net.graph(family.build(net, variant))
        except Mismatch as error:
            if error.fitted > nearest:
                nearest, why = error.fitted, f"nearest is {name}, but {error}"
            continue
        ambiguous = (family.ambiguous or {}).get(name)
        found.append(Fit(name, graph, (*([ambiguous] if ambiguous else []), *net.assumptions)))
    return found, why
