"""The cases of a report: recorded, given and drawn, each with its truth. What cannot run is a failing row, a note on the ranges of sizes,
or not judged: inputs that the source refuses as well, or that the graph refuses at sizes at which it runs on others."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from converter.equivalence.budget import MIN_SAMPLES, independent
from converter.equivalence.inputs import PLAIN, RECORDED, Case, Planner, given
from converter.equivalence.report import Report, Row, Stage, Unjudged, failure
from converter.equivalence.truth import Judge, Prepared, Recorded, Refused, first_line
from converter.errors import EndlessLoopError, RunError
from converter.footprint import SMALL, known_bytes, peak_bytes
from converter.ir import Model
from converter.memory import shown_bytes
from converter.sizes import bind

EXTRA_CASES = 64
FEWEST = 2
"""Cases that are drawn however large their inputs and outputs are."""

SPOILED = 3
GROWTHS = 6
REDRAWS = 3
REDRAWN = 1000
"""Case i is drawn again as cases i + 1000, i + 2000, … where its values are refused: the same profile, other values."""

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
    most = _affordable(judge, planner, count + EXTRA_CASES if count else 0)
    if most < count:
        limit = shown_bytes(max(SMALL, judge.memory))
        report.notes.append(f"{most} cases are drawn, not {count}: the inputs and outputs of more take over {limit} (--memory)")
        count = most
    drawn = _planned(planner, range(count))
    results = judge.prepare_all([*known, *((case, None) for case in drawn.values())])
    for (case, _), item in zip(known, results, strict=False):
        if isinstance(item, Prepared):
            found.append(item)
        elif case.profile == RECORDED:
            report.add([_unusable(int(case.label.split()[1]), item)])
        else:
            report.add([failure(stage, item.by, "", f"cannot run: {item}", case.label, case.sizes)])
    if not planner.symbols and any(port.spec.shape for port in model.graph.inputs):
        report.notes.append("no size of this model is free: it was made at one size of each input, and is judged at that alone")
    report.tried = count
    found += _drawn(judge, report, planner, range(count), drawn, results[len(known):], found)
    if count:
        _extra(judge, report, planner, found, range(count, most))
    if nonfinite:
        found += _spoiled(judge, report, planner, [item.case for item in found if item.case.profile == PLAIN])
    return found


def _spoiled(judge: Judge, report: Report, planner: Planner, drawn: Sequence[Case]) -> list[Prepared]:
    cases = [case for case in map(planner.spoiled, drawn[:SPOILED]) if case is not None]
    if not cases:
        report.notes.append("no input takes NaN or infinities: those asked for were not tried")
    found = []
    for case, item in zip(cases, judge.prepare_all([(case, None) for case in cases]), strict=True):
        report.tried += 1
        if isinstance(item, Prepared):
            found.append(item)
        elif item.by == "graph" and _source_runs(judge, case):
            report.add([failure("structure", "graph", "", f"cannot run what the source runs: {item}", case.label, case.sizes)])
        else:
            report.unjudged.append(Unjudged(case.label, dict(case.sizes), item.by, str(item)))
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


def _affordable(judge: Judge, planner: Planner, count: int) -> int:
    """How many of the first `count` cases have inputs and outputs that fit in `judge.memory` together; at least `FEWEST`."""
    graph = judge.model.graph
    specs = [*(port.spec for port in graph.inputs), *(port.spec for port in graph.outputs)]
    total = 0
    for index in range(count):
        sizes = planner.sizes(index)
        total += sum(known_bytes(spec, sizes) for spec in specs)
        if total > max(SMALL, judge.memory) and index >= FEWEST:
            return index
    return count


def _drawn(judge: Judge, report: Report, planner: Planner, indices: Iterable[int], cases: Mapping[int, Case],
           results: Sequence[Prepared | Refused], before: Sequence[Prepared]) -> list[Prepared]:
    """Those cases that ran, and for each that did not another at sizes that can. `before`: cases that ran already."""
    ran = dict(zip(cases, results, strict=True))
    found = []
    able = [item.case.sizes for item in (*before, *ran.values()) if isinstance(item, Prepared)]
    for index in indices:
        item = ran.get(index)
        if not isinstance(item, Prepared):
            item = _draw(judge, report, planner, index, able)
        if item is not None:
            found.append(item)
    return found


def _draw(judge: Judge, report: Report, planner: Planner, index: int, able: Sequence[Mapping[str, int]]) -> Prepared | None:
    """Case `index`, at larger sizes where the graph and its source both refuse its own, or at smaller ones (`_smaller`), or with other
    values, or at multiples of sizes at which other inputs ran (`able`).

    Where all refuse, it is not judged if the source does so too, or if the graph refuses any of it at the very sizes of others: that lies
    in its values. Else the ranges of the graph are wrong, which is a failing row.
    """
    label, planned = f"seed {planner.seed}, case {index}", planner.sizes(index)
    refusals: list[Refused | RunError] = []
    found = None
    for number, sizes in _tries(judge, planner, index, able):
        try:
            found = judge.prepare(planner.case(number, sizes)) if sizes is not None else _smaller(judge, planner, index)
        except (Refused, RunError) as error:
            if isinstance(error, Refused) and error.by == "graph" and _source_runs(judge, planner.case(number, sizes)):
                report.add([failure("structure", "graph", "", f"cannot run what the source runs: {error}", label, sizes)])
                return None
            refusals.append(error)
            if isinstance(error.__cause__, EndlessLoopError):
                break  # each try takes as long as a run may
        if found is not None:
            break
    by = next((error.by for error in refusals if isinstance(error, Refused)), "graph")
    reason = (str if isinstance(refusals[0], Refused) else first_line)(refusals[0]) if refusals else "no input has such sizes"
    if found is not None:
        if refusals:
            written = ", ".join(f"{name}={size}" for name, size in planned.items()) or "its only sizes"
            report.notes.append(f"the {by} cannot run at {written}, which the ranges of its sizes allow: {reason}")
        return found
    if judge.source is None and able and all(_runs(judge, planner, number, able[0]) for number in _draws(index)):
        report.add([failure("rounding", "graph", "", f"cannot run at any size tried but those of other inputs: {reason}", label)])
    else:
        report.unjudged.append(Unjudged(label, planned, by, reason))
    return None


def _tries(judge: Judge, planner: Planner, index: int, able: Sequence[Mapping[str, int]]) -> Iterator[tuple[int, dict[str, int] | None]]:
    """Numbers of cases and sizes: those planned, larger ones, None where smaller ones are to be looked for, the planned ones with other
    values, and multiples of sizes that ran."""
    planned = planner.sizes(index)
    sizes: dict[str, int] | None = planned
    for _ in range(GROWTHS):
        if sizes is None:
            break
        yield index, sizes
        sizes = planner.sizing.grown(sizes)
        if sizes is not None and (peak_bytes(judge.model.graph, judge.specs, sizes) or 0) > judge.memory // GROWN:
            break
    yield index, None
    for number in _draws(index)[1:]:
        yield number, planned
    for sizes in planner.sizing.multiples(able[0]) if able else ():
        yield index, sizes


def _draws(index: int) -> range:
    """The numbers of a case and of those that have other values instead."""
    return range(index, index + (REDRAWS + 1) * REDRAWN, REDRAWN)


def _runs(judge: Judge, planner: Planner, index: int, sizes: Mapping[str, int]) -> bool:
    try:
        judge.prepare(planner.case(index, sizes))
    except (Refused, RunError):
        return False
    return True


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


def _extra(judge: Judge, report: Report, planner: Planner, found: list[Prepared], indices: range) -> None:
    """More drawn cases, while some output has given too few values, of some profile, to tell how far rounding strays."""
    profiles = {planner.profile(case) for case in range(indices.start)}
    rest = list(indices)
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
        drawn = _drawn(judge, report, planner, wanted, cases, judge.prepare_all([(case, None) for case in cases.values()]), found)
        report.tried += len(wanted)
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
