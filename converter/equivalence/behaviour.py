"""Whether two models that differ compute the same, and from which node on they do not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from converter.equivalence.bisect import Clock, ending_with
from converter.equivalence.compare import compare_within, is_exact, structure
from converter.equivalence.dumped import locate_in_arrays
from converter.equivalence.inputs import COUNT
from converter.equivalence.preparing import prepare
from converter.equivalence.report import Report
from converter.equivalence.roles import roles
from converter.equivalence.truth import Judge, Prepared, first_line
from converter.errors import ConverterError
from converter.ir import Array, Model
from converter.matched_graphs import paired_values
from converter.reference import run


def behaviour(a: Model, b: Model, same: Mapping[str, str], seconds: float = 20.0) -> dict[str, Any]:
    """Whether b computes what a does, both in float64, at inputs drawn for a.

    Where they differ by more than float64 rounds, by as much is still the same as a's outputs move when its data and results move by an ulp
    of their own dtypes: exporters fold constants in these.

    Args:
        a, b: the models. Inputs and outputs are matched by name where both have the same, else by their places.
        same: parameters of a by the name that b has for them.
        seconds: how long to look for the first node that adds to a difference.

    Returns: `verdict` "the same", "different" or "not compared", with `reason` in words where it is not the first; `hidden`, where both
        compute the same but in rows of which a mask hides everything: the names of such masks; `node`, where they begin to differ.
    """
    if any(len(getattr(a.graph, side)) != len(getattr(b.graph, side)) for side in ("inputs", "outputs")):
        return {"verdict": "not compared", "reason": "the numbers of inputs or outputs differ"}
    judge, aside, other = Judge(replace(a, examples=())), Report("", ""), _ByPlace(a, b, same)
    prepared = prepare(judge, aside, [], 0, COUNT)
    judge.settle(prepared)
    if not prepared:
        why = str(aside.unjudged[0]) if aside.unjudged else "A runs at no inputs that were drawn"
        return {"verdict": "not compared", "reason": why}
    masks = [name for name, role in roles(a.graph, a.parameters).items() if role.mask]
    first = hidden = None
    for item in prepared:
        try:
            outputs = other.run(item.case.inputs)
        except ConverterError as error:
            return {"verdict": "different", "reason": f"B does not run on {item.case.label}: {first_line(error)}"}
        reason = _difference(judge, item, outputs)
        if reason and not _difference(judge, item, _where_seen(item, outputs, masks)):
            hidden = hidden or reason
        elif reason and first is None:
            first = (item, reason)
    if first is None:
        return {"verdict": "the same", **({"hidden": masks, "reason": hidden} if hidden else {})}
    item, reason = first
    arrays = other.observe(item.case.inputs, [name for node in a.graph.nodes for name in node.outputs if name is not None])
    place, _ = locate_in_arrays(a, {**item.case.inputs, **arrays}, None, Clock(seconds))
    found = {"verdict": "different", "reason": reason}
    if place.index is not None:
        found["node"] = str(place).partition(": ")[2].removeprefix("first at ")
    return found


def _difference(judge: Judge, item: Prepared, outputs: Mapping[str, Array]) -> str:
    """How the first output that differs does; nothing where none does."""
    for name, dtype in judge.dtypes.items():
        actual, truth = outputs[name], item.truth[name]
        found = structure(actual, truth, {}, ties=judge.excused(item, name, actual, None), typical=judge.typical_in(item, name))
        if not found and not is_exact(dtype) and actual.shape == truth.shape:
            with np.errstate(all="ignore"):
                found = compare_within(actual.astype(dtype), truth, {}, dtype=dtype, typical=judge.typical_in(item, name),
                               moves=judge.moves(item, name))
        if not found:
            return f"{name}, {item.case.label}: {found.reason}"
    return ""


def _where_seen(item: Prepared, outputs: Mapping[str, Array], masks: list[str]) -> dict[str, Array]:
    """The outputs, with the truth in those rows of which a mask hides everything."""
    found = dict(outputs)
    for mask in (np.asarray(item.case.inputs[name]) for name in masks):
        if mask.ndim < 2 or not mask.size:
            continue
        hidden = (~mask.astype(bool).any(-1)).reshape(len(mask), -1).any(1)
        for name, array in found.items():
            if array.shape[:1] == hidden.shape and array.shape == item.truth[name].shape:
                found[name] = np.where(hidden.reshape(-1, *[1] * (array.ndim - 1)), item.truth[name], array)
    return found


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
        self.model = model
        self.input_names = _pairs([port.name for port in named.graph.inputs], [port.name for port in model.graph.inputs])
        self.output_names = _pairs([port.name for port in named.graph.outputs], [port.name for port in model.graph.outputs])
        values = {item.name: item.value for item in model.graph.outputs}
        self.values = paired_values(named.graph, model.graph, same)
        self.values |= {item.value: values[self.output_names[item.name]] for item in named.graph.outputs}

    def run(self, inputs: Mapping[str, Any]) -> dict[str, Array]:
        """The outputs in float64, by the other's names."""
        found = run(self.model, self._given(inputs), float_dtype="float64")
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


def _pairs(names: list[str], others: list[str]) -> dict[str, str]:
    return {name: name for name in names} if set(names) == set(others) else dict(zip(names, others, strict=True))
