"""What each stage of a verdict does with prepared cases: structure, recorded outputs, runtimes; and how far each may stray."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import numpy as np

from converter.equivalence.budget import MIN_SAMPLES, Budget, factor_of
from converter.equivalence.compare import FACTOR, WHOLE, Comparison, compare_within, floor_of, is_exact, structure, ulps
from converter.equivalence.inputs import RECORDED
from converter.equivalence.recording import sample_verdict, settle_infinities
from converter.equivalence.report import Report, Row, Stage, failure, row
from converter.equivalence.truth import DESCRIBED, Judge, Outputs, Prepared, first_line
from converter.errors import ConverterError, FormatError, MissingDependencyError, UnsupportedError
from converter.ir import Array, Model

NO_VALUE = "no value was compared: each is empty, not finite, or loses all its digits to rounding"


def open_session(thing: Any, model: Model) -> Any:
    if isinstance(thing, str):
        from converter.loading import session

        name, _, provider = thing.partition(":")
        return session(model, name, **({"providers": provider.split(",")} if provider else {}))
    return thing if is_session(thing) else thing(model)


def is_session(thing: Any) -> bool:
    return not isinstance(thing, str) and hasattr(thing, "run") and not isinstance(thing, type)


def judge_structure(judge: Judge, report: Report, prepared: list[Prepared]) -> None:
    """Stage 1: the graph in float64 against the source in float64, and the declared outputs against the source's own."""
    budgets = {name: judge.source_budget(prepared, name) for name in judge.floats()}
    for item in prepared:
        case, sizes = item.case.label, item.case.sizes
        report.add(_names("structure", "graph", item, item.truth, judge, ordered=True))
        for name, dtype in judge.dtypes.items():
            if name not in item.truth or item.own is None or name not in item.own:
                continue
            own, truth, actual = item.own[name], item.truth[name], item.graph[name]
            if own.dtype != dtype:
                report.add([failure("structure", "graph", name, f"declared {dtype}, the source gives {own.dtype}", case, sizes)])
                continue
            noise = {} if is_exact(dtype) else budgets[name].worst(item.case.profile)
            ties = judge.excused(item, name, actual, None) if is_exact(dtype) else None
            found = structure(actual, truth, noise, ties=ties, typical=judge.typical_in(item, name))
            report.add([row("structure", "graph", name, case, sizes, found)])


def _names(stage: Stage, subject: str, item: Prepared, outputs: Outputs, judge: Judge, ordered: bool = False) -> list[Row]:
    """Failing rows for outputs that are missing, extra, or in another order than the graph's."""
    rows = []
    for name in judge.dtypes:
        if name not in outputs:
            rows.append(failure(stage, subject, name, "the output is missing", item.case.label, item.case.sizes))
    for name in outputs:
        if name not in judge.dtypes:
            rows.append(failure(stage, subject, name, "an output that the graph does not have", item.case.label, item.case.sizes))
    if ordered and not rows and list(outputs) != list(judge.dtypes):
        reason = f"the outputs are in another order: {', '.join(outputs)}, those of the graph {', '.join(judge.dtypes)}"
        rows.append(failure(stage, subject, "", reason, item.case.label, item.case.sizes))
    return rows


@dataclass(frozen=True)
class Allowances:
    """What a runtime may stray in a case, by output and scale.

    `first` by PyTorch's own errors alone, or None where they rest on too few values; `full` with the reference kernels' beside
    them, which takes another run of the reference. What holds by `first` holds by `full`.
    """

    first: Callable[[Prepared, str], dict[str, float] | None]
    full: Callable[[Prepared, str], dict[str, float]]


def allowances_of(judge: Judge, report: Report, prepared: list[Prepared]) -> Allowances:
    """The budget of every case; judges recorded outputs on the way."""
    floats = judge.floats()

    @cache
    def kernels(name: str) -> Budget:
        return judge.kernel_budget(prepared, name)

    if judge.source is not None:
        source = {name: judge.source_budget(prepared, name) for name in floats}
        report.budget = f"the source's own errors, the reference kernels' beside them as far as they are within, {DESCRIBED}"
        return Allowances(lambda item, name: _enough(source[name], item.case.profile),
                          lambda item, name: source[name].witnessed(kernels(name)).allowed(item.case.profile))
    recorded = [item for item in prepared if item.case.profile == RECORDED]
    if not recorded:
        report.budget = f"no example is recorded: the errors of the reference kernels in the model's own dtypes, {DESCRIBED}"
        report.notes.append("without recorded examples nothing here comes from PyTorch: the runtimes are judged against the graph alone")
        return Allowances(lambda item, name: None, lambda item, name: kernels(name).allowed(item.case.profile))
    beside = {name: judge.kernel_budget(recorded, name) for name in floats}
    proven = _recorded(judge, report, recorded, Allowances(lambda item, name: _enough(beside[name], RECORDED),
                                                           lambda item, name: kernels(name).allowed(RECORDED)))
    own = {name: judge.source_budget([item for item in recorded if proven[item.case.label, name]], name) for name in floats}
    report.budget = f"errors of the recorded outputs and, on other inputs, of the reference kernels, {DESCRIBED}"

    @cache
    def loose(name: str) -> Budget | None:
        if own[name].samples(RECORDED) < MIN_SAMPLES or _holds(kernels(name), own[name]):
            return own[name].joined(kernels(name))
        report.notes.append(f"output {name!r}: the reference kernels stray further than PyTorch did, so only its errors count")
        return None

    def full(item: Prepared, name: str) -> dict[str, float]:
        joined = None if item.case.profile == RECORDED and own[name].samples(RECORDED) >= MIN_SAMPLES else loose(name)
        return own[name].witnessed(kernels(name)).allowed(RECORDED) if joined is None else joined.allowed(item.case.profile)

    return Allowances(lambda item, name: _enough(own[name], RECORDED), full)


def _enough(budget: Budget, profile: str) -> dict[str, float] | None:
    """What a budget allows, unless it rests on so few values that more of them would lower its factor."""
    return budget.allowed(profile) if budget.samples(profile) and factor_of(budget.samples(profile)) <= FACTOR else None


def _holds(kernels: Budget, own: Budget) -> bool:
    """Whether the reference, in the model's own dtypes, strays no further on the recorded inputs than a runtime may."""
    allowed = own.allowed(RECORDED)
    return all(error <= allowed.get(name, 0.0) + floor_of(own.dtype) for name, error in kernels.pools.get(RECORDED, {}).items())


def _recorded(judge: Judge, report: Report, recorded: list[Prepared], allowances: Allowances) -> dict[tuple[str, str], bool]:
    """Judges what was recorded as a runtime is judged, the reference's own errors being its budget."""
    proven = {}
    for item in recorded:
        outputs = item.own or {}
        report.add(_names("recorded", "recording", item, outputs, judge))
        for name in judge.dtypes:
            if name in outputs:
                found = _compare(judge, recorded, item, name, settle_infinities(outputs[name], item.truth[name]), None, allowances)
                if name in item.samples and found:
                    found = _sampled(judge, item, name, found, allowances)
                report.add([row("recorded", "recording", name, item.case.label, item.case.sizes, found)])
                proven[item.case.label, name] = bool(found)
    for name in judge.floats():
        rows = [item for item in report.rows if item.stage == "recorded" and item.output == name]
        if rows and all(item.passed for item in rows) and not sum(item.compared for item in rows) \
                and any(np.any(np.isfinite(item.truth[name])) for item in recorded if name in item.truth):
            report.add([failure("recorded", "recording", name, NO_VALUE, open=True)])
    return {**{(item.case.label, name): False for item in recorded for name in judge.dtypes}, **proven}


def _sampled(judge: Judge, item: Prepared, name: str, known: Comparison, allowances: Allowances) -> Comparison:
    """The verdict on an output of which some values are recorded, and statistics of all: `known`, and what these say."""
    judge.complete([item])
    typical = judge.typical_in(item, name)
    beside = (item.kernels or {}).get(name, item.truth[name])
    found = known
    for allowed in ({},) if is_exact(judge.dtypes[name]) else (allowances.first(item, name), None):
        limits = allowances.full(item, name) if allowed is None else allowed
        found = sample_verdict(known, item.samples[name], item.truth[name], beside, limits, typical)
        if found:
            break
    return found


def judge_runtime(judge: Judge, report: Report, prepared: list[Prepared], runtime: str, thing: Any, allowances: Allowances,
                  stage: Stage = "rounding") -> None:
    """Stage 2 for one runtime, or for what stands in the place of one."""
    start = time.perf_counter()
    try:
        session = open_session(thing, judge.model)
    except MissingDependencyError:
        raise
    except Exception as error:  # a runtime raises anything, from any depth
        _refuse_verdict(runtime, error)
        # What a runtime has no words for says nothing of the model.
        report.add([failure(stage, runtime, "", f"cannot load the model: {first_line(error)}", open=isinstance(error, UnsupportedError))])
        return
    report.seconds[f"{runtime} load"] = time.perf_counter() - start
    report.seconds[runtime] = 0.0
    for item in prepared:
        start = time.perf_counter()
        try:
            outputs = {name: np.asarray(value) for name, value in session.run(item.case.inputs).items()}
        except Exception as error:  # as above
            _refuse_verdict(runtime, error)
            report.add([failure(stage, runtime, "", f"cannot run: {first_line(error)}", item.case.label, item.case.sizes,
                                open=isinstance(error, UnsupportedError))])
            continue
        report.seconds[runtime] += time.perf_counter() - start
        report.add(_names(stage, runtime, item, outputs, judge, ordered=True))
        for name in judge.dtypes:
            if name in outputs and name in item.truth:
                found = _compare(judge, prepared, item, name, outputs[name], item.own, allowances)
                report.add([row(stage, runtime, name, item.case.label, item.case.sizes, found)])
                count_errors(judge, report, item, runtime, name, outputs[name])


def judge_as_it_stands(judge: Judge, report: Report, prepared: list[Prepared], runtime: str, thing: Any, allowances: Allowances) -> None:
    """Stage 2 for a session. Where it strays, and the nodes of its file as they stand do not, these are judged, and that is said: the file
    is right, and what the runtime makes of it by default rounds otherwise."""
    before = len(report.rows)
    judge_runtime(judge, report, prepared, runtime, thing, allowances)
    strays = [item for item in report.rows[before:] if not item.passed and not item.open]
    plain = getattr(thing, "unoptimised", None)
    if plain is None or not any(item.compared for item in strays):
        return
    aside = Report(report.model, report.digest)
    judge_runtime(judge, aside, prepared, runtime, plain(), allowances)
    if aside.failures or not aside:
        return
    report.rows[before:] = aside.rows
    report.strays += strays
    worst = max(strays, key=lambda item: item.error / item.allowed if item.allowed else item.error)
    report.notes.append(f"{runtime}: the nodes as they stand are right, and what the runtime fuses of them by default rounds otherwise, in "
                        f"{worst.output}, {worst.case}: {worst.reason}; with its optimisations off it gives the file's own values")


def _refuse_verdict(runtime: str, error: BaseException) -> None:
    """Raises `ConverterError` where the model is not what a runtime fails on: no disk, no memory, a file that was changed."""
    if isinstance(error, FormatError):
        raise error
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, (OSError, MemoryError)):
            raise ConverterError(f"{runtime} cannot be judged on this machine", received=first_line(cause) or type(cause).__name__,
                                 fix="give it room: on the disk of TMPDIR, or in memory") from error
        cause = cause.__cause__


def count_errors(judge: Judge, report: Report, item: Prepared, subject: str, name: str, actual: Array) -> None:
    truth, dtype = item.truth[name], judge.dtypes[name]
    if not is_exact(dtype) and actual.shape == truth.shape and actual.dtype == dtype:
        report.count(subject, name, ulps(actual, truth, dtype, judge.typical_in(item, name))[WHOLE])


def _compare(judge: Judge, prepared: list[Prepared], item: Prepared, name: str, actual: Array, own: Outputs | None,
             allowances: Allowances) -> Comparison:
    """The verdict on an output. `own` is what PyTorch gave; where that is None, the reference in the model's own dtypes stands in."""
    dtype, truth = judge.dtypes[name], item.truth[name]
    # With a source the structure is shown already. Without one, an allowance that zeros would pass shows nothing.
    judged = partial(compare_within, actual, truth, dtype=dtype, typical=judge.typical_in(item, name), telling=judge.source is None)
    first = {} if is_exact(dtype) else allowances.first(item, name)
    if first is not None:
        found = judged(first, own=None if own is None else own.get(name))
        if found:
            return found
    # Beyond what PyTorch's errors allow: the second witness is asked.
    judge.complete([item])
    beside = ((item.kernels or {}) if own is None else own).get(name)
    if is_exact(dtype):
        tied = actual.shape == truth.shape
        return judged({}, own=beside, ties=judge.excused(item, name, actual, judge.rounding_ties(prepared, name)) if tied else None)
    allowed = allowances.full(item, name)
    found = judged(allowed, own=beside)
    if found or not math.isfinite(found.error):
        return found
    # Beyond the pooled budget: it may be a row in which any rounding is magnified, which is looked at only now.
    moves = judge.moves(item, name)
    return found if moves is None else judged(allowed, own=beside, moves=moves)


def nothing_compared(judge: Judge, report: Report, runtimes: list[str], structured: bool) -> None:
    """An open row for each output of which no value was judged."""
    wanted: list[tuple[Stage, str]] = [("rounding", runtime) for runtime in runtimes]
    wanted += [("structure", "graph")] if structured else []
    for stage, subject in wanted:
        for name in judge.dtypes:
            rows = [item for item in report.rows if (item.stage, item.subject) == (stage, subject) and item.output in (name, "")]
            if all(item.passed for item in rows) and not sum(item.compared for item in rows):
                report.add([failure(stage, subject, name, NO_VALUE if rows else "nothing was compared", open=True)])
    if not wanted and not report.rows:
        report.add([failure("rounding", "", "", "nothing was compared", open=True)])
