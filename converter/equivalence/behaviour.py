"""Whether two models that differ compute the same, and from which node on they do not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from converter.equivalence.bisect import ending_with
from converter.equivalence.report import Report
from converter.equivalence.roles import roles
from converter.equivalence.verify import verify
from converter.errors import ConverterError
from converter.ir import Model
from converter.loading import session
from converter.matched_graphs import paired_values
from converter.reference import run

Array = np.ndarray[Any, Any]


def behaviour(a: Model, b: Model, same: Mapping[str, str]) -> dict[str, Any]:
    """Whether b computes what a does, by b's NumPy session beside a's float64 truth, at inputs drawn for a.

    Args:
        a, b: the models. Inputs and outputs are matched by name where both have the same, else by their places.
        same: parameters of a by the name that b has for them.

    Returns: `verdict` "the same", "different" or "not compared", with `reason` in words where it is not the first; `hidden`, where both
        compute the same but in rows of which a mask hides everything: the names of such masks; `node`, where they begin to differ.
    """
    if any(len(getattr(a.graph, side)) != len(getattr(b.graph, side)) for side in ("inputs", "outputs")):
        return {"verdict": "not compared", "reason": "the numbers of inputs or outputs differ"}
    other = _ByPlace(a, b, same)
    report = verify({"A": a, "B": other}, [])
    if not report.failures:
        return {"verdict": "the same"} if report else {"verdict": "not compared", "reason": _first(report)}
    masks = [name for name, role in roles(a.graph, a.parameters).items() if role.mask]
    if masks and verify({"A": a, "B": _WhereSeen(other, session(a), masks)}, [], locate=False):
        return {"verdict": "the same", "hidden": masks, "reason": _first(report)}
    found = next((place for place in report.locations if place.index is not None), None)
    return {"verdict": "different", "reason": _first(report), **({"node": str(found).partition(": ")[2]} if found else {})}


def _first(report: Report) -> str:
    rows = [*report.failures, *report.left_open]
    if not rows:
        return "nothing was compared"
    why = f" ({report.unjudged[0]})" if report.unjudged and not report.failures else ""
    return f"{rows[0].output}: {rows[0].reason}{why}"


def in_words(found: Mapping[str, Any]) -> str:
    """What `behaviour` found, in a sentence."""
    if found["verdict"] == "the same":
        hidden = found.get("hidden")
        return "the same within rounding" if not hidden else \
            f"the same within rounding, but where {' or '.join(hidden)} hides a whole row: there {found['reason']}"
    where = f"; first at {found['node']}" if "node" in found else ""
    return f"{found['verdict']}: {found['reason']}{where}"


class _ByPlace:
    """A model that is run with another's names of inputs and outputs, by name where it has them too, else by place."""

    def __init__(self, named: Model, model: Model, same: Mapping[str, str]) -> None:
        self.session, self.model = session(model), model
        self.input_names = _pairs([port.name for port in named.graph.inputs], [port.name for port in model.graph.inputs])
        self.output_names = _pairs([port.name for port in named.graph.outputs], [port.name for port in model.graph.outputs])
        self.values = paired_values(named.graph, model.graph, same)
        self.values |= {ours.value: next(item.value for item in model.graph.outputs if item.name == self.output_names[ours.name])
                        for ours in named.graph.outputs}

    def run(self, inputs: Mapping[str, Any]) -> dict[str, Array]:
        """The outputs by the other's names."""
        found = self.session.run(self._given(inputs))
        return {name: found[other] for name, other in self.output_names.items()}

    def observe(self, inputs: Mapping[str, Any], names: list[str]) -> dict[str, Array]:
        """Values between, of nodes that both graphs have, by the other's names."""
        made = {name for node in self.model.graph.nodes for name in node.outputs}
        wanted = {name: self.values[name] for name in names if self.values.get(name) in made}
        try:
            found = run(ending_with(self.model, list(dict.fromkeys(wanted.values()))), self._given(inputs))
        except ConverterError:
            return {}
        return {name: found[other] for name, other in wanted.items()}

    def _given(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        return {other: inputs[name] for name, other in self.input_names.items()}


class _WhereSeen:
    """A session that gives another's results in those rows of which a mask hides everything."""

    def __init__(self, judged: _ByPlace, standard: Any, masks: list[str]) -> None:
        self.judged, self.standard, self.masks = judged, standard, masks

    def run(self, inputs: Mapping[str, Any]) -> dict[str, Array]:
        """The outputs by name."""
        found, expected = self.judged.run(inputs), self.standard.run(inputs)
        for mask in (np.asarray(inputs[name]) for name in self.masks):
            if mask.ndim < 2 or not mask.size:
                continue
            hidden = (~mask.astype(bool).any(-1)).reshape(len(mask), -1).any(1)
            for name, array in found.items():
                if hidden.any() and array.shape[:1] == hidden.shape and array.shape == expected[name].shape:
                    found[name] = np.where(hidden.reshape(-1, *[1] * (array.ndim - 1)), expected[name], array)
        return found


def _pairs(names: list[str], others: list[str]) -> dict[str, str]:
    return {name: name for name in names} if set(names) == set(others) else dict(zip(names, others, strict=True))
