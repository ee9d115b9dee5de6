"""Whether runtimes, files and recordings are one model: cases in, a `Report` out."""

from __future__ import annotations

import importlib.metadata
import os
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from converter import discovery
from converter.equivalence.compare import is_exact
from converter.equivalence.dumped import Outputs, judge_dumps, named_dumps
from converter.equivalence.inputs import COUNT
from converter.equivalence.memory import MEMORY, Kept
from converter.equivalence.models import compare_inputs, compare_models, compare_parameters
from converter.equivalence.pairing import paired
from converter.equivalence.preparing import given_cases, prepare
from converter.equivalence.report import Report
from converter.equivalence.stages import (
    allowances_of,
    count_errors,
    is_session,
    judge_as_it_stands,
    judge_structure,
    nothing_compared,
    open_session,
)
from converter.equivalence.truth import Judge, Prepared, Source, first_line
from converter.equivalence.variants import Variant, Variants, narrower
from converter.errors import ConverterError, MissingDependencyError
from converter.ir import Model
from converter.loading import file_session, load_with

Runtimes = Sequence[str] | Mapping[str, Any] | None

SOURCE, KERNELS = "the source", "reference kernels"
"""What set the budget, in histograms: PyTorch live or as recorded, and the reference in the model's own dtypes."""

LOCATE_SECONDS = 20.0
"""How long the first node that is wrong is looked for."""

DEFAULT_RUNTIMES = ("numpy", "onnxruntime")


def verify(model: Any, runtimes: Runtimes = None, *, source: Source | None = None,
           inputs: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None, seed: int = 0, cases: int = COUNT,
           label: str | None = None, memory: int = MEMORY, locate: bool = True, trace: bool = False,
           parts: str | Path | None = None, nonfinite: bool = False, locate_seconds: float = LOCATE_SECONDS,
           outputs: Outputs | None = None, dtype: str | None = None, quantisation: float | None = None) -> Report:
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
        outputs: what something else computed, as a mapping from names to arrays or the path of an .npz file, or several: inputs, and
            outputs or values between (see `dumped`). Inputs that it lacks are those of `inputs`, one set for all or one for each.
        quantisation: how far the outputs of a variant in integers (one of the models, with fewer bits than the first) may be from
            the first model's, as a share of their size. None: that is measured, and left open.
        dtype: the floats that `outputs` were computed in, where the arrays do not say so.

    Raises:
        MissingDependencyError: a runtime that was named is not installed.
        ConverterError: an unknown runtime, inputs that do not fit, or a graph that breaks the operators' rules.
    """
    start = time.perf_counter()
    dumps = {} if outputs is None else named_dumps(outputs)
    things = _labelled(model, label, {name for arrays in dumps.values() for name in arrays})
    name, standard = next(iter(things.items()))
    if not isinstance(standard, Model):
        raise ConverterError("the first of several must be a model", where=name, expected="a Model", received=type(standard).__name__)
    from converter.format import model_digest

    read = standard.parameters
    standard = standard.with_parameters(Kept(read, memory // 2))
    report = Report(name, model_digest(standard), seed=seed)
    sessions = _sessions(runtimes, report)
    variants: dict[str, Variant] = {}
    for other, thing in list(things.items())[1:]:
        if isinstance(thing, Variant) or isinstance(thing, Model) and narrower(standard, thing):
            variants[other] = thing if isinstance(thing, Variant) else Variant(thing)
        elif isinstance(thing, Model):
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
        judge_structure(judge, report, prepared)
    allowances = allowances_of(judge, report, prepared)
    for item in prepared:
        for name, own in (item.own or {}).items():
            if name in item.truth and name in judge.dtypes:
                count_errors(judge, report, item, SOURCE, name, own)
    for runtime, thing in sessions.items():
        judge_as_it_stands(judge, report, prepared, runtime, thing, allowances)
    for item in prepared:
        for name, kernels in (item.kernels or {}).items():
            if name in item.truth and not is_exact(judge.dtypes[name]):
                count_errors(judge, report, item, KERNELS, name, kernels)
    nothing_compared(judge, report, [*sessions], source is not None)
    limit = locate_seconds if parts is None else None
    if trace or (locate and report.failures):
        _place(judge, report, prepared, sessions, trace, locate, parts, limit)
    if variants:
        alone = partial(verify, runtimes=runtimes, cases=0, memory=memory, locate=locate, locate_seconds=locate_seconds)
        judging = Variants(judge, prepared, report, quantisation, alone, cases)
        for other, variant in variants.items():
            judging.add(other, variant)
    if dumps:
        given = [inputs] if isinstance(inputs, Mapping) else list(inputs or ())
        judge_dumps(standard, dumps, given, report, dtype=dtype, seed=seed, cases=cases, memory=memory, locate=locate, seconds=limit,
                    parts=parts)
    report.versions |= _versions([*sessions], source)
    report.seconds |= judge.seconds
    report.seconds["all"] = time.perf_counter() - start
    return report


# What is judged ----------------------------------------------------------------------------------------------------------


def _labelled(model: Any, label: str | None, values: Collection[str] = ()) -> dict[str, Any]:
    if isinstance(model, Mapping):
        things = dict(model)
    elif isinstance(model, Sequence) and not isinstance(model, str):
        names = [_file_name(thing) or f"model {index}" for index, thing in enumerate(model)]
        things = {name if names.count(name) == 1 else f"model {index}": thing
                  for index, (name, thing) in enumerate(zip(names, model, strict=True))}
    else:
        things = {label or (model.graph.name if isinstance(model, Model) else _file_name(model) or "model"): model}
    first = next(iter(things.values()), None)
    beside = {f"{label or _file_name(first)} as it lies": file_session(first)} if values and isinstance(first, (str, Path)) else {}
    things = {name: load_with(thing, values) if _file_name(thing) else thing for name, thing in things.items()}
    things |= {name: session for name, session in beside.items() if session is not None}
    if not things:
        raise ConverterError("nothing to verify", expected="at least one model")
    for name, thing in things.items():
        if not isinstance(thing, (Model, Variant)) and not hasattr(thing, "run"):
            raise ConverterError("neither a model nor a session", where=name, expected="a Model, a path, or an object with run(inputs)",
                                 received=type(thing).__name__)
    return things


def _file_name(thing: Any) -> str | None:
    """The name of a file that is given by its path."""
    return os.path.basename(thing) or os.fspath(thing) if isinstance(thing, (str, os.PathLike)) else None


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


def _place(judge: Judge, report: Report, prepared: list[Prepared], sessions: Mapping[str, Any], trace: bool, locate: bool,
           parts: str | Path | None, seconds: float | None) -> None:
    """Adds where it goes wrong, and the error along the graph."""
    from converter.equivalence.locate import Locator

    start = time.perf_counter()
    factories = {name: partial(open_session, thing) for name, thing in sessions.items() if not is_session(thing)}
    locator = Locator(judge, report, prepared, factories, verify, seconds, sessions)
    if locate and report.failures:
        locator.locate(parts is not None)
        if parts is not None:
            locator.write(parts)
    if trace:
        locator.trace()
    report.seconds["looking into nodes"] = time.perf_counter() - start


def _versions(labels: list[str], source: Any) -> dict[str, str]:
    found = {}
    known = discovery.runtimes()
    ran = [known[name].distribution for name in (label.partition(":")[0] for label in labels) if name in known]
    for name in (discovery.PACKAGE, "numpy", *filter(None, ran)):
        with suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found | dict(getattr(source, "versions", {}) or {})


