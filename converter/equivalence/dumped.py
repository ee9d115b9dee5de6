"""Arrays that another runtime or a device computed, by name: inputs, outputs and values between, held against the float64 truth."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from converter.checking import check
from converter.equivalence.bisect import Clock, Divergence, OutOfTime, statistics
from converter.equivalence.compare import Comparison, compare, compare_within, is_exact
from converter.equivalence.conditioning import measure_moves
from converter.equivalence.inputs import Case, given
from converter.equivalence.preparing import prepare
from converter.equivalence.reduction import Reduced, between, nodes_behind, write
from converter.equivalence.report import Location, Report
from converter.equivalence.stages import allowances_of, judge_runtime, nothing_compared
from converter.equivalence.truth import Judge
from converter.errors import ConverterError, FormatError, RunError
from converter.ir import Array, DType, GraphOutput, Model
from converter.npz import read_npz
from converter.reference import run
from converter.sizes import promote

PathLike = str | os.PathLike[str]
Outputs = Mapping[str, Any] | PathLike | Sequence[Mapping[str, Any] | PathLike]
LISTED = 12
ALONE = "only what was dumped can be looked at: it holds no values between"
GATHERED = "no value adds more than its own rounding: the error has gathered along the graph, most of it at {}"


def named_dumps(outputs: Outputs) -> dict[str, dict[str, Array]]:
    """Dumps by label: of files their names, of mappings "the given outputs"; a mapping of mappings has its labels already.

    Raises `FormatError` for a file that cannot be read.
    """
    if isinstance(outputs, Mapping) and outputs and all(isinstance(item, Mapping) for item in outputs.values()):
        return {label: {name: np.asarray(array) for name, array in arrays.items()} for label, arrays in outputs.items()}
    items = [outputs] if isinstance(outputs, (Mapping, str, os.PathLike)) else list(outputs)
    found: dict[str, dict[str, Array]] = {}
    for place, item in enumerate(items):
        if isinstance(item, Mapping):
            label, arrays = "the given outputs" if len(items) == 1 else f"given outputs {place}", dict(item)
        else:
            label, arrays = os.path.basename(item) or os.fspath(item), read_npz(os.fspath(item))
        if label in found:
            label = f"{label} ({place})"
        found[label] = {name: np.asarray(array) for name, array in arrays.items()}
    return found


@dataclass(frozen=True)
class Dump:
    """One run of something else: its case, and what it gave, by the names of outputs or else of the graph's values."""

    case: Case
    values: Mapping[str, Array]


def judge_dumps(model: Model, dumps: Mapping[str, Mapping[str, Array]], inputs: Sequence[Mapping[str, Any]], report: Report, *,
                dtype: str | None = None, seed: int = 0, cases: int, memory: int, locate: bool = True, seconds: float | None = None,
                parts: str | Path | None = None) -> None:
    """Adds the rows of what was dumped, and where it goes wrong.

    The truth is the graph's own run in float64 on the same inputs. How far a value may stray is what the reference strays in the stated
    dtype, on these inputs and on drawn ones.

    Args:
        model: the graph that was run.
        dumps: arrays by label and by name: inputs, outputs, and values of the graph.
        inputs: those that dumps lack: one set for all, or one for each dump.
        report: gains the rows.
        dtype: the floats that were computed in; None: those of the arrays, where they are narrower than the model's, else the model's.
        seed, cases: of the drawn inputs that say how far rounding strays.
        memory: as for `verify`.
        locate: whether to look for the first node that adds error, for at most `seconds`.
        parts: a directory for the part that shows it, with what went in and what came out.

    Raises:
        ConverterError: a dump that lacks inputs, or holds no value of the graph.
    """
    for place, (label, arrays) in enumerate(dumps.items()):
        dump = _dump(model, label, arrays, inputs[min(place, len(inputs) - 1)] if inputs else {}, report)
        whole = with_values(model, dump.values)
        stated = _stated(whole, dump, dtype)
        judge = Judge(whole, None, memory, stated)
        aside = Report(report.model, report.digest)
        prepared = prepare(judge, aside, [dump.case], seed, cases)
        report.add(row for row in aside.rows if row.case == label)
        judge.settle(prepared)
        allowances = allowances_of(judge, aside, prepared)
        values = {name: _fitting(dump.values[name], wanted) for name, wanted in judge.dtypes.items()}
        own = [item for item in prepared if item.case is dump.case]
        before = len(report.failures)
        judge_runtime(judge, report, own, label, Replay(values), allowances)
        nothing_compared(judge, report, [label], False)
        report.notes.append(f"{label} is held against the rounding of {stated or 'the model' + chr(39) + 's own dtypes'}, "
                            f"on its inputs and {len(prepared) - len(own)} drawn ones")
        if locate and len(report.failures) > before and own:
            arrays_of = {output.value: values[output.name] for output in whole.graph.outputs}
            location, part = locate_in_arrays(model, {**dump.case.inputs, **arrays_of}, stated, Clock(seconds))
            location = replace(location, subject=label, case=label, sizes=dump.case.sizes)
            if part is not None and parts is not None:
                folder = Path(parts) / label.removesuffix(".npz") if len(dumps) > 1 else Path(parts)
                write(part, folder, ["--outputs", "inputs.npz", *(["--dtype", stated.value] if stated else [])], str(location))
                location = replace(location, part=f"{folder} ({len(part.nodes)} node{'s' * (len(part.nodes) != 1)})")
            report.locations.append(location)


class Replay:
    """A session that gives what was computed once."""

    def __init__(self, values: Mapping[str, Array]) -> None:
        self.values = values

    def run(self, inputs: Mapping[str, Any]) -> dict[str, Array]:
        """The outputs by name, whatever the inputs."""
        del inputs
        return dict(self.values)


def _dump(model: Model, label: str, arrays: Mapping[str, Array], beside: Mapping[str, Any], report: Report) -> Dump:
    graph = model.graph
    ports = {port.name: port.spec.dtype.numpy for port in graph.inputs}
    held = {name: _fitting(np.asarray({**beside, **arrays}[name]), ports[name]) for name in ports if name in arrays or name in beside}
    missing = [name for name in ports if name not in held]
    if missing:
        raise FormatError("it lacks inputs that its values were computed from", where=label, received=", ".join(arrays) or "no arrays",
                          expected=", ".join(ports), fix="save them in the same file, under these names; or give them by --input-file")
    known = {output.name for output in graph.outputs} | graph.makers.keys()
    values = {name: array for name, array in arrays.items() if name in known and name not in ports}
    unknown = [name for name in arrays if name not in known and name not in ports]
    if not values:
        near = [name for text in unknown[:LISTED] for name in difflib.get_close_matches(text, known, 1)]
        raise FormatError("no array in it has the name of an output, or of a value of the graph", where=label,
                          received=", ".join(unknown[:LISTED]) or "inputs only", fix="name the arrays after the graph's: convert inspect",
                          expected=", ".join(dict.fromkeys([*(output.name for output in graph.outputs), *near])))
    for name, array in values.items():
        try:
            DType.of(array.dtype)
        except ConverterError as error:
            raise FormatError("an array that holds no numbers", where=f"{label}, array {name!r}", received=f"dtype {array.dtype}",
                              expected="numbers, or truth values", fix="save what was computed, not its text") from error
    if unknown:
        more = f", and {len(unknown) - LISTED} more" if len(unknown) > LISTED else ""
        report.notes.append(f"{label}: not compared, since no value of the graph has the name: {', '.join(unknown[:LISTED])}{more}")
    try:
        return Dump(given(graph, held, label), values)
    except RunError as error:
        raise error.within(label) from error


def _fitting(array: Array, dtype: np.dtype[Any]) -> Array:
    """An array in a dtype, where integers and booleans lose nothing by it; wider floats are rounded. Else as it is."""
    if array.dtype == dtype or array.dtype.kind not in "biufV":
        return array
    with np.errstate(all="ignore"):
        cast = array.astype(dtype)
        if is_exact(dtype) or is_exact(array.dtype):
            return cast if bool(np.all(cast.astype(np.float64) == array.astype(np.float64))) else array
        return cast


def _stated(whole: Model, dump: Dump, dtype: str | None) -> DType | None:
    """The floats that a dump was computed in, or None for the model's own."""
    if dtype is not None:
        found = DType.of(dtype)
        if not found.is_float:
            raise ConverterError("no dtype of floats", where="--dtype", received=dtype, expected="float32, float16, bfloat16, …")
        return found
    narrow = [kind for output in whole.graph.outputs if (kind := DType.of(dump.values[output.name].dtype)).is_float
              and output.spec.dtype.is_float and kind.bits < output.spec.dtype.bits]
    return min(narrow, key=lambda kind: kind.bits, default=None)


def with_values(model: Model, names: Collection[str]) -> Model:
    """The model whose outputs are these, outputs by their names and other values by theirs, without recorded examples."""
    graph = model.graph
    specs = check(graph, model.parameters)
    own = tuple(output for output in graph.outputs if output.name in names)
    taken = {output.name for output in own}
    made = (name for name in graph.makers if name in names and name not in taken)
    return replace(model, graph=replace(graph, outputs=(*own, *(GraphOutput(name, specs[name], name) for name in made))), examples=())


# Where -------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Addition:
    """What the nodes behind one array add: `verdict` on it beside the truth of the arrays that they read."""

    found: Divergence
    nodes: tuple[int, ...]
    part: Model
    inputs: Mapping[str, Array]
    share: float


def additions(model: Model, arrays: Mapping[str, Array], dtype: DType | None = None, clock: Clock | None = None) -> Iterable[Addition]:
    """For each array in the graph's order, the error that is its own: the nodes behind it, as far as the next arrays, run in float64 on
    those. Its budget is that of the same run in the stated dtype.

    Args:
        model: the graph.
        arrays: inputs and values by the graph's names.
        dtype: the floats that they were computed in; None: the model's own.
        clock: how long it may take: raises `OutOfTime` after that.
    """
    graph, clock = model.graph, clock or Clock()
    specs = check(graph, model.parameters)
    for index, node in enumerate(graph.nodes):
        for name in node.outputs:
            if name is None or name not in arrays:
                continue
            clock.check()
            nodes = nodes_behind(graph, name, arrays.keys())
            try:
                part = between(model, nodes, name, specs)
                inputs = {item.name: _fitting(arrays[item.name], item.spec.dtype.numpy) for item in part.graph.inputs}
                truth, own = run(part, inputs, float_dtype="float64")[name], run(part, inputs, float_dtype=dtype)[name]
            except (ConverterError, KeyError):
                continue  # sizes that only the rest of the graph binds
            verdict = compare(arrays[name], truth, own)
            if not verdict:
                verdict = _conditioned(part, inputs, name, arrays[name], truth, dtype, verdict, clock)
            share = verdict.error / verdict.allowed if verdict.allowed else 0.0 if verdict else float("inf")
            yield Addition(Divergence(index, node, name, specs[name], verdict, statistics(arrays[name], truth)), tuple(nodes), part,
                           inputs, share)


def _conditioned(part: Model, inputs: Mapping[str, Array], name: str, actual: Array, truth: Array, dtype: DType | None,
                 verdict: Comparison, clock: Clock) -> Comparison:
    kind = promote(part.graph.outputs[0].spec.dtype, dtype).numpy
    if is_exact(kind) or actual.shape != truth.shape or not np.isfinite(verdict.error):
        return verdict
    moved = measure_moves(part, inputs, {name: truth}, clock.check, dtype).get(name)
    wider = None if moved is None else compare_within(actual, truth, {}, dtype=kind, moves=moved)
    return wider if wider else verdict


def locate_in_arrays(model: Model, arrays: Mapping[str, Array], dtype: DType | None = None, clock: Clock | None = None,
                     fails: Callable[[Addition], bool] = lambda item: not item.found.comparison) -> tuple[Location, Reduced | None]:
    """The first node that adds error, and the part that shows it, with what went in and what came out as its arrays."""
    most: Addition | None = None
    try:
        for item in additions(model, arrays, dtype, clock):
            if fails(item):
                return _at(item), Reduced(item.part, {**item.inputs, item.found.value: arrays[item.found.value]}, item.nodes)
            if most is None or item.share > most.share:
                most = item
    except OutOfTime:
        return Location("rounding", "", "", {}, "the search for the place was cut: --locate-seconds gives it more"), None
    reason = ALONE if most is None else GATHERED.format(f"node {most.found.index}, {most.found.node.op} -> {most.found.value}")
    return Location("rounding", "", "", {}, reason), None


def _at(item: Addition) -> Location:
    found, reason = item.found, item.found.comparison.reason
    if len(item.nodes) > 1:
        read = ", ".join(port.name for port in item.part.graph.inputs)
        reason += f" (it, or one of the {len(item.nodes) - 1} nodes between {read or 'the parameters'} and it)"
    return Location("rounding", "", "", {}, reason, found.index, found.node.op, found.value, str(found.spec), found.node.source,
                    found.statistics)
