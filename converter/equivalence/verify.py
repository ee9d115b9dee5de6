"""Whether runtimes, files and recordings are one model: cases in, a `Report` out."""

from __future__ import annotations

import importlib.metadata
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from converter import discovery
from converter.equivalence.budget import MIN_SAMPLES, Budget, factor_of
from converter.equivalence.compare import FACTOR, WHOLE, Comparison, floor_of, is_exact, structure, ulps, within
from converter.equivalence.inputs import COUNT, RECORDED
from converter.equivalence.memory import MEMORY, Kept
from converter.equivalence.models import compare_inputs, compare_models, compare_parameters
from converter.equivalence.pairing import paired
from converter.equivalence.preparing import given_cases, prepare
from converter.equivalence.recording import sample_verdict, settled
from converter.equivalence.report import Report, Row, Stage, failure, row
from converter.equivalence.truth import DESCRIBED, Judge, Outputs, Prepared, Source, first_line
from converter.errors import ConverterError, FormatError, MissingDependencyError
from converter.ir import Model

Array = np.ndarray[Any, Any]
Runtimes = Sequence[str] | Mapping[str, Any] | None

NO_VALUE = "no value was compared: each is empty, not finite, or loses all its digits to rounding"

SOURCE, KERNELS = "the source", "reference kernels"
"""What set the budget, in histograms: PyTorch live or as recorded, and the reference in the model's own dtypes."""

LOCATE_SECONDS = 20.0
"""How long the first node that is wrong is looked for."""

DEFAULT_RUNTIMES = ("numpy", "onnxruntime")


def verify(model: Any, runtimes: Runtimes = None, *, source: Source | None = None,
           inputs: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None, seed: int = 0, cases: int = COUNT,
           label: str | None = None, memory: int = MEMORY, locate: bool = True, trace: bool = False,
           parts: str | Path | None = None, nonfinite: bool = False, locate_seconds: float = LOCATE_SECONDS) -> Report:
    """Judges whether runtimes compute a model, and whether several models are one.

    Args:
        model: a model, or the path of its file; or several that claim to be the same, as a sequence or a mapping from labels, of
            which the first is the standard. One that is no `Model` but has `run(inputs)` is judged as a runtime is.
        runtimes: names of runtimes (`"numpy"`, `"onnxruntime"`, `"torch"`, `"reference"`), or a mapping from a label to a
            name, a session, or a function that makes a session of a model. None: numpy and onnxruntime where installed.
        source: what the model came from. Its float64 run is the truth, its own run the budget. Without it the truth is
            the reference in float64, and the model's recorded examples set the budget after they are judged themselves.
        inputs: the caller's own: one set, or several. A set that lacks some inputs has those drawn.
        seed: of the drawn cases.
        cases: how many to draw.
        label: what to call the model in the report.
        memory: about how many bytes to hold at a time, beside inputs, outputs and what the runtimes hold themselves.
        locate: whether to look for the first node that is wrong, where something is (`report.locations`).
        trace: whether to measure the error of every node in one case (`report.traces`), which takes a few runs more.
        nonfinite: whether to try NaN and infinities too: outputs must be NaN and infinite where the truth is.
        locate_seconds: how long to look for it; where the smallest part is asked for, as long as it takes.
        parts: a directory for the smallest part of the model that fails by itself, with its inputs, where something fails.

    Raises:
        MissingDependencyError: a runtime that was named is not installed.
        ConverterError: an unknown runtime, inputs that do not fit, or a graph that breaks the operators' rules.
    """
    start = time.perf_counter()
    things = _labelled(model, label)
    name, standard = next(iter(things.items()))
    if not isinstance(standard, Model):
        raise ConverterError("the first of several must be a model", where=name, expected="a Model", received=type(standard).__name__)
    from converter.format import model_digest

    read = standard.parameters
    standard = standard.with_parameters(Kept(read, memory // 2))
    report = Report(name, model_digest(standard), seed=seed)
    sessions = _sessions(runtimes, report)
    for other, thing in list(things.items())[1:]:
        if isinstance(thing, Model):
            report.add(compare_models(standard, thing, other))
        else:
            sessions[other] = paired(thing, standard.graph, other, report)
    origin = getattr(source, "model", None)
    if isinstance(origin, Model):
        theirs = standard.parameters if origin.parameters is read else origin.parameters
        report.add(compare_parameters(theirs, standard.parameters, "source", origin.constants | standard.constants))
        report.add([compare_inputs(origin.graph, standard.graph, "source")])
    judge = Judge(standard, source, memory)
    prepared = prepare(judge, report, given_cases(standard, inputs, seed), seed, cases, nonfinite)
    judge.settle(prepared)
    if source is not None:
        _structure(judge, report, prepared)
    allowances = _allowances(judge, report, prepared)
    for item in prepared:
        for name, own in (item.own or {}).items():
            if name in item.truth and name in judge.dtypes:
                _count(judge, report, item, SOURCE, name, own)
    for runtime, thing in sessions.items():
        _judge_runtime(judge, report, prepared, runtime, thing, allowances)
    for item in prepared:
        for name, kernels in (item.kernels or {}).items():
            if name in item.truth and not is_exact(judge.dtypes[name]):
                _count(judge, report, item, KERNELS, name, kernels)
    _nothing_compared(judge, report, [*sessions], source is not None)
    if trace or (locate and report.failures):
        _place(judge, report, prepared, sessions, trace, locate, parts, locate_seconds if parts is None else None)
    report.versions |= _versions([*sessions], source)
    report.seconds |= judge.seconds
    report.seconds["all"] = time.perf_counter() - start
    return report


# What is judged ----------------------------------------------------------------------------------------------------------


def _labelled(model: Any, label: str | None) -> dict[str, Any]:
    if isinstance(model, Mapping):
        things = dict(model)
    elif isinstance(model, Sequence) and not isinstance(model, str):
        names = [_file_name(thing) or f"model {index}" for index, thing in enumerate(model)]
        things = {name if names.count(name) == 1 else f"model {index}": thing
                  for index, (name, thing) in enumerate(zip(names, model, strict=True))}
    else:
        things = {label or (model.graph.name if isinstance(model, Model) else _file_name(model) or "model"): model}
    things = {name: _read(thing) if _file_name(thing) else thing for name, thing in things.items()}
    if not things:
        raise ConverterError("nothing to verify", expected="at least one model")
    for name, thing in things.items():
        if not isinstance(thing, Model) and not hasattr(thing, "run"):
            raise ConverterError("neither a model nor a session", where=name, expected="a Model, a path, or an object with run(inputs)",
                                 received=type(thing).__name__)
    return things


def _file_name(thing: Any) -> str | None:
    """The name of a file that is given by its path."""
    return os.path.basename(thing) or os.fspath(thing) if isinstance(thing, (str, os.PathLike)) else None


def _read(path: Any) -> Model:
    from converter.loading import load

    return load(path)


def _sessions(runtimes: Runtimes, report: Report) -> dict[str, Any]:
    """What runs the model, by label: names and functions are kept until their turn."""
    if isinstance(runtimes, Mapping):
        return dict(runtimes)
    if runtimes is not None:
        return {name: name for name in ([runtimes] if isinstance(runtimes, str) else runtimes)}
    found: dict[str, Any] = {}
    for name in DEFAULT_RUNTIMES:
        try:
            runtime = discovery.runtime(name)
            discovery.resolve(runtime.session, runtime.extra)
            found[name] = name
        except MissingDependencyError as error:
            report.notes.append(f"{name} was not judged: {first_line(error)}")
    return found


def _open(thing: Any, model: Model) -> Any:
    if isinstance(thing, str):
        from converter.loading import session

        name, _, provider = thing.partition(":")
        return session(model, name, **({"providers": provider.split(",")} if provider else {}))
    return thing if _is_session(thing) else thing(model)


def _is_session(thing: Any) -> bool:
    return not isinstance(thing, str) and hasattr(thing, "run") and not isinstance(thing, type)


def _place(judge: Judge, report: Report, prepared: list[Prepared], sessions: Mapping[str, Any], trace: bool, locate: bool,
           parts: str | Path | None, seconds: float | None) -> None:
    """Adds where it goes wrong, and the error along the graph."""
    from converter.equivalence.locate import Locator

    start = time.perf_counter()
    factories = {name: partial(_open, thing) for name, thing in sessions.items() if not _is_session(thing)}
    locator = Locator(judge, report, prepared, factories, verify, seconds)
    if locate and report.failures:
        locator.locate(parts is not None)
        if parts is not None:
            locator.write(parts)
    if trace:
        locator.trace()
    report.seconds["looking into nodes"] = time.perf_counter() - start


# Stages ------------------------------------------------------------------------------------------------------------------


def _structure(judge: Judge, report: Report, prepared: list[Prepared]) -> None:
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


def _allowances(judge: Judge, report: Report, prepared: list[Prepared]) -> Allowances:
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
                found = _compare(judge, recorded, item, name, settled(outputs[name], item.truth[name]), None, allowances)
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


def _judge_runtime(judge: Judge, report: Report, prepared: list[Prepared], runtime: str, thing: Any, allowances: Allowances) -> None:
    """Stage 2 for one runtime."""
    start = time.perf_counter()
    try:
        session = _open(thing, judge.model)
    except MissingDependencyError:
        raise
    except Exception as error:  # a runtime raises anything, from any depth
        _refuse_verdict(runtime, error)
        report.add([failure("rounding", runtime, "", f"cannot load the model: {first_line(error)}")])
        return
    report.seconds[f"{runtime} load"] = time.perf_counter() - start
    report.seconds[runtime] = 0.0
    for item in prepared:
        start = time.perf_counter()
        try:
            outputs = {name: np.asarray(value) for name, value in session.run(item.case.inputs).items()}
        except Exception as error:  # as above
            _refuse_verdict(runtime, error)
            report.add([failure("rounding", runtime, "", f"cannot run: {first_line(error)}", item.case.label, item.case.sizes)])
            continue
        report.seconds[runtime] += time.perf_counter() - start
        report.add(_names("rounding", runtime, item, outputs, judge, ordered=True))
        for name in judge.dtypes:
            if name in outputs and name in item.truth:
                found = _compare(judge, prepared, item, name, outputs[name], item.own, allowances)
                report.add([row("rounding", runtime, name, item.case.label, item.case.sizes, found)])
                _count(judge, report, item, runtime, name, outputs[name])


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


def _count(judge: Judge, report: Report, item: Prepared, subject: str, name: str, actual: Array) -> None:
    truth, dtype = item.truth[name], judge.dtypes[name]
    if not is_exact(dtype) and actual.shape == truth.shape and actual.dtype == dtype:
        report.count(subject, name, ulps(actual, truth, dtype, judge.typical_in(item, name))[WHOLE])


def _compare(judge: Judge, prepared: list[Prepared], item: Prepared, name: str, actual: Array, own: Outputs | None,
             allowances: Allowances) -> Comparison:
    """The verdict on an output. `own` is what PyTorch gave; where that is None, the reference in the model's own dtypes stands in."""
    dtype, truth = judge.dtypes[name], item.truth[name]
    # With a source the structure is shown already. Without one, an allowance that zeros would pass shows nothing.
    judged = partial(within, actual, truth, dtype=dtype, typical=judge.typical_in(item, name), telling=judge.source is None)
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


def _nothing_compared(judge: Judge, report: Report, runtimes: list[str], structured: bool) -> None:
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


def _versions(labels: list[str], source: Any) -> dict[str, str]:
    found = {}
    known = discovery.runtimes()
    ran = [known[name].distribution for name in (label.partition(":")[0] for label in labels) if name in known]
    for name in (discovery.PACKAGE, "numpy", *filter(None, ran)):
        with suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found | dict(getattr(source, "versions", {}) or {})


