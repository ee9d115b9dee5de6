"""A session with names of its own for a model's inputs and outputs: they go by their places."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from converter.equivalence.report import Report
from converter.ir import Array, Graph


class ByPlace:
    """A session whose inputs or outputs are called otherwise than the model's, as many as the model has."""

    def __init__(self, session: Any, inputs: Mapping[str, str], outputs: Sequence[str] | None) -> None:
        self.session, self.inputs, self.outputs = session, inputs, outputs

    @property
    def unoptimised(self) -> Any:
        """The session's own, with the same names; None where it has none."""
        plain = getattr(self.session, "unoptimised", None)
        return None if plain is None else lambda: ByPlace(plain(), self.inputs, self.outputs)

    def run(self, inputs: Mapping[str, Any]) -> dict[str, Array]:
        """The outputs, by the model's names."""
        results = self.session.run({self.inputs.get(name, name): array for name, array in inputs.items()})
        return dict(results) if self.outputs is None else dict(zip(self.outputs, results.values(), strict=True))


def paired(session: Any, graph: Graph, label: str, report: Report) -> Any:
    """The session, or one that renames where a file that somebody else wrote shares no name with the model.

    Inputs and outputs are looked at apart, and only where there are as many: what shares a name is meant by its name. The
    report notes what was paired.
    """
    theirs = [list(getattr(session, kind, None) or ()) for kind in ("inputs", "outputs")]
    ours = [[port.name for port in ports] for ports in (graph.inputs, graph.outputs)]
    renamed = [dict(zip(mine, others, strict=True)) if len(mine) == len(others) and not set(mine) & set(others) else {}
               for mine, others in zip(ours, theirs, strict=True)]
    if not any(renamed):
        return session
    for kind, names in zip(("inputs", "outputs"), renamed, strict=True):
        if names:
            pairs = ", ".join(f"{other} for {name}" for name, other in names.items())
            report.notes.append(f"{label} has other names for its {kind}, which go by their places: {pairs}")
    return ByPlace(session, renamed[0], ours[1] if renamed[1] else None)
