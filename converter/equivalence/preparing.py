"""The cases of a report: recorded, given and drawn, each with its truth; what cannot run is a failing row or a note."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from converter.equivalence.budget import MIN_SAMPLES, independent
from converter.equivalence.inputs import PLAIN, RECORDED, Case, Planner, given
from converter.equivalence.memory import peak_bytes
from converter.equivalence.report import Report, Row, Stage, failure
from converter.equivalence.truth import Judge, Prepared, Recorded, Refused, first_line
from converter.errors import RunError
from converter.ir import Model
from converter.sizes import bind

EXTRA_CASES = 64
SPOILED = 3
GROWTHS = 6
GROWN = 64
"""Larger sizes are tried as long as the values of a case take at most this part of the memory limit."""


def given_cases(model: Model, inputs: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None, seed: int) -> list[Case]:
    """The caller's cases, those that lack inputs completed."""
    sets = [] if inputs is None else [inputs] if isinstance(inputs, Mapping) else list(inputs)
    found = []
    names = {port.name for port in model.graph.inputs}
    for index, arrays in enumerate(sets):
        text = "given" if len(sets) == 1 else f"given {index}"
        if names - arrays.keys():
            planner = Planner(model.graph, model.parameters, seed, typical=_typical(model), overrides=dict(arrays))
            arrays = planner.case(0).inputs
        found.append(given(model.graph, arrays, text))
    return found


def _typical(model: Model) -> dict[str, int]:
    """The sizes of the first recorded example; none when there is none."""
    sizes: dict[str, int] = {}
    for example in model.examples[:1]:
        for port in model.graph.inputs:
            if port.name in example.inputs and example.inputs[port.name].ndim == port.spec.rank:
                bind(port.spec, example.inputs[port.name].shape, sizes)
    return sizes


def prepare(judge: Judge, report: Report, own: list[Case], seed: int, count: int, nonfinite: bool = False) -> list[Prepared]:
    """Recorded, given and drawn cases with their truth. What cannot run is a failing row, or a note on the range.

    `nonfinite` adds `SPOILED` cases with NaN and infinities, which have the sizes of the first plain ones that were drawn.
    """
    model = judge.model
    stage: Stage = "structure" if judge.source is not None else "rounding"
    found: list[Prepared] = []
    known: list[Recorded] = []
    for index, example in enumerate(model.examples):
        try:
            known.append((given(model.graph, example.inputs, f"example {index} ({example.made_by})", RECORDED), example.outputs))
        except RunError as error:
            report.add([_unusable(index, error)])
    known += [(case, None) for case in own]
    planner = Planner(model.graph, model.parameters, seed, typical=_typical(model))
    drawn = _planned(planner, range(count))
    results = judge.prepare_all([*known, *((case, None) for case in drawn.values())])
    for (case, _), item in zip(known, results, strict=False):
        if isinstance(item, Prepared):
            found.append(item)
        elif case.profile == RECORDED:
            report.add([_unusable(int(case.label.split()[1]), item)])
        else:
            report.add([failure(stage, item.by, "", f"cannot run: {item}", case.label, case.sizes)])
    found += _drawn(judge, report, planner, range(count), drawn, results[len(known):])
    if count:
        _extra(judge, report, planner, found, count)
    if nonfinite:
        found += _spoiled(judge, report, planner, [item.case for item in found if item.case.profile == PLAIN])
    return found


def _spoiled(judge: Judge, report: Report, planner: Planner, drawn: Sequence[Case]) -> list[Prepared]:
    cases = [case for case in map(planner.spoiled, drawn[:SPOILED]) if case is not None]
    if not cases:
        report.notes.append("no input takes NaN or infinities: those asked for were not tried")
    found = []
    for case, item in zip(cases, judge.prepare_all([(case, None) for case in cases]), strict=True):
        if isinstance(item, Prepared):
            found.append(item)
        else:
            stage: Stage = "structure" if judge.source is not None else "rounding"
            report.add([failure(stage, item.by, "", f"cannot run: {item}", case.label, case.sizes)])
    return found


def _unusable(index: int, error: Exception) -> Row:
    return failure("recorded", f"example {index}", "", f"the recorded inputs cannot be run: {first_line(error)}")


def _planned(planner: Planner, indices: Iterable[int]) -> dict[int, Case]:
    """The cases of these numbers at the sizes planned for them; those that have no such sizes are left out."""
    found = {}
    for index in indices:
        with contextlib.suppress(RunError):
            found[index] = planner.case(index)
    return found


def _drawn(judge: Judge, report: Report, planner: Planner, indices: Iterable[int], cases: Mapping[int, Case],
           results: Sequence[Prepared | Refused]) -> list[Prepared]:
    """Those cases that ran, and for each that did not another at sizes that can."""
    ran = dict(zip(cases, results, strict=True))
    found = []
    for index in indices:
        item = ran.get(index)
        if not isinstance(item, Prepared):
            item = _draw(judge, report, planner, index)
        if item is not None:
            found.append(item)
    return found


def _draw(judge: Judge, report: Report, planner: Planner, index: int) -> Prepared | None:
    """Case `index`, at larger sizes where the graph and its source both refuse its own, or at smaller ones (`_smaller`)."""
    sizes: dict[str, int] | None = planner.sizes(index)
    refusal: Refused | RunError | None = None
    for _ in range(GROWTHS):
        if sizes is None:
            break
        try:
            return judge.prepare(planner.case(index, sizes))
        except (Refused, RunError) as error:
            written = ", ".join(f"{name}={size}" for name, size in sizes.items()) or "its only sizes"
            if isinstance(error, Refused) and error.by == "graph" and _source_runs(judge, planner.case(index, sizes)):
                report.add([failure("structure", "graph", "", f"cannot run what the source runs: {error}", f"case {index}", sizes)])
                return None
            if refusal is None:
                by = error.by if isinstance(error, Refused) else "graph"
                report.notes.append(f"the {by} cannot run at {written}, which the ranges of its sizes allow: {first_line(error)}")
            refusal = error
            sizes = planner.sizing.grown(sizes)
            if sizes is not None and (peak_bytes(judge.model.graph, judge.specs, sizes) or 0) > judge.memory // GROWN:
                break
    smaller = _smaller(judge, planner, index)
    if smaller is not None:
        return smaller
    report.add([failure("structure" if judge.source is not None else "rounding", "graph", "",
                        f"cannot run at any size tried: {refusal}", f"case {index}")])
    return None


def _smaller(judge: Judge, planner: Planner, index: int) -> Prepared | None:
    """Case `index` at smaller sizes, where the graph runs at each of its sizes with all others at their least.

    Ranges say nothing of several sizes together: words and those of a cache before them share the positions that there are.
    """
    sizes: dict[str, int] | None = planner.sizes(index)
    try:
        for single in planner.sizing.apart(planner.sizes(index)):
            judge.prepare(planner.case(index, single))
    except (Refused, RunError):
        return None
    for _ in range(GROWTHS):
        sizes = None if sizes is None else planner.sizing.shrunk(sizes)
        if sizes is None:
            break
        with contextlib.suppress(Refused, RunError):
            return judge.prepare(planner.case(index, sizes))
    return None


def _source_runs(judge: Judge, case: Case) -> bool:
    if judge.source is None:
        return False
    try:
        judge.source.run(case.inputs)
    except Exception:  # a traced program raises anything, from any depth
        return False
    return True


def _extra(judge: Judge, report: Report, planner: Planner, found: list[Prepared], count: int) -> None:
    """More drawn cases, while some output has given too few values, of some profile, to tell how far rounding strays."""
    profiles = {planner.profile(case) for case in range(count)}
    rest = list(range(count, count + EXTRA_CASES))
    while rest:
        missing = _missing(judge, found, profiles)
        # As many cases at once as the fewest that can do, going by what a case of the profile gave so far.
        chosen = [index for index in rest if missing.get(planner.profile(index))]
        wanted: list[int] = []
        for index in chosen:
            if missing[planner.profile(index)] <= 0 and wanted:
                break
            missing[planner.profile(index)] -= 1
            wanted.append(index)
        if not wanted:
            return
        rest = [index for index in rest if index > wanted[-1]]
        cases = _planned(planner, wanted)
        drawn = _drawn(judge, report, planner, wanted, cases, judge.prepare_all([(case, None) for case in cases.values()]))
        found += drawn
        if len(drawn) < len(wanted):
            return


def _missing(judge: Judge, found: list[Prepared], profiles: set[str]) -> dict[str, int]:
    """How many more cases of each profile every output needs at least, as far as can be told."""
    missing: dict[str, int] = {}
    for profile in profiles:
        cases = [item for item in found if item.case.profile == profile]
        for name in judge.floats():
            values = [independent(item.truth[name]) for item in cases if name in item.truth]
            lacking = MIN_SAMPLES - sum(values)
            if lacking > 0:
                missing[profile] = max(missing.get(profile, 0), math.ceil(lacking / max(1, *values, 1)))
    return missing
