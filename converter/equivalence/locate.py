"""From a failing report to the place: which node, and which part of the model fails by itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from converter.discovery import runtimes
from converter.equivalence.bisect import Clock, Divergence, Factory, OutOfTime, ending_with, first_divergence, statistics, walk, windows
from converter.equivalence.budget import Budget
from converter.equivalence.compare import Comparison, compare, is_exact, structure
from converter.equivalence.dumped import locate_in_arrays
from converter.equivalence.reduction import Reduced, reduce, with_example, write
from converter.equivalence.report import Location, Point, Report, Row, Trace
from converter.equivalence.truth import Judge, Prepared, first_line
from converter.ir import Array, Example, Model
from converter.reference import run

Verify = Callable[..., Report]

FUSED = "every node computes what it should when its value is looked at: the runtime goes wrong where it computes several at once"
RECORDED_ONLY = "only inputs and outputs are recorded: --module, with --source and --input, looks for the node beside the live program"
SPENT = "the search for the place was cut at {:g} s: --locate-seconds gives it more"
AGREES = "computes what the graph says: it is the graph that differs"


class Locator:
    """Finds where the failing rows of a report begin.

    Args:
        judge: the model, its source, and the limit on memory.
        report: which gains `locations` and `traces`.
        prepared: the cases that ran.
        factories: what makes a session of a part of the model, by runtime; one that is a session already has none.
        verify: judges a part by itself.
        seconds: how long the search for places may take; None: as long as it takes.
        sessions: those that were given, by label; one that has `observe(inputs, names)` shows values of the graph by name.
    """

    def __init__(self, judge: Judge, report: Report, prepared: Sequence[Prepared], factories: Mapping[str, Factory],
                 verify: Verify, seconds: float | None = None, sessions: Mapping[str, Any] | None = None) -> None:
        self.judge, self.report, self.factories, self.verify, self.sessions = judge, report, factories, verify, dict(sessions or {})
        self.cases = {item.case.label: item for item in prepared}
        self.values = {output.name: output.value for output in judge.model.graph.outputs}
        self.clock, self.seconds = Clock(), seconds
        self.reduced: list[tuple[Location, Reduced, list[str]]] = []
        self.shown: dict[str, Reduced] = {}
        """Parts that hold what a session made of them, by its label."""

    def locate(self, parts: bool = False) -> None:
        """Adds a location for every stage and runtime that fails; with `parts`, looks for the smallest part that fails too."""
        self.clock = Clock(self.seconds)
        firsts: dict[tuple[str, str], Row] = {}
        for row in self.report.failures:
            if row.stage in ("structure", "recorded", "rounding") and row.output in self.values and row.case in self.cases:
                known = firsts.get((row.stage, row.subject))
                if known is None or _size(self.cases[row.case]) < _size(self.cases[known.case]):
                    firsts[row.stage, row.subject] = row
        for row in firsts.values():
            item = self.cases[row.case]
            try:
                found = self._structure(row, item) if row.stage == "structure" else self._runtime(row, item) \
                    if row.stage == "rounding" else _nowhere(row, RECORDED_ONLY)
            except OutOfTime:
                found = _nowhere(row, SPENT.format(self.seconds))
            except Exception as error:  # a runtime raises anything, from any depth, on a part of the graph as on the whole
                found = _nowhere(row, f"the place was not found: {first_line(error)}")
            self.report.locations.append(found)
            if parts:
                self._part(row, item, found)

    def trace(self) -> None:
        """Adds the error along the graph, of every runtime that can run parts of it: in the case that failed, else the first."""
        for subject, factory in self.factories.items():
            failed = [row.case for row in self.report.failures if row.subject == subject and row.case in self.cases]
            item = self.cases.get(failed[0]) if failed else next(iter(self.cases.values()), None)
            if item is None:
                continue
            points: list[Point] = []
            try:
                for step in walk(self.judge.model, item.case.inputs, factory, window_bytes=self.judge.memory // 4):
                    node, found = step.node, step.comparison
                    points.append(Point(step.index, node.op, step.value, found.error, found.allowed, step.share, node.source))
            except Exception as error:  # as above
                self.report.notes.append(f"{subject}: no error along the graph: {first_line(error)}")
            if points:
                self.report.traces.append(Trace("rounding", subject, item.case.label, item.case.sizes, tuple(points)))

    # Runtimes ------------------------------------------------------------------------------------------------------------

    def _runtime(self, row: Row, item: Prepared) -> Location:
        factory = self.factories.get(row.subject)
        model = self.judge.model
        if factory is None:
            observe = getattr(self.sessions.get(row.subject), "observe", None)
            if observe is None:
                return _nowhere(row, "the place cannot be found: it is a session already, and runs no parts of the model")
            return self._observed(row, item, observe)
        found = first_divergence(model, item.case.inputs, factory, window_bytes=self.judge.memory // 4, clock=self.clock)
        if found is not None:
            return _at(row, found)
        whole = {name: np.asarray(value) for name, value in factory(model).run(item.case.inputs).items()}
        self.judge.complete([item])
        if row.output in whole and compare(whole[row.output], item.graph[row.output], (item.kernels or {}).get(row.output)):
            return _nowhere(row, AGREES)
        return _nowhere(row, FUSED)

    def _observed(self, row: Row, item: Prepared, observe: Callable[..., Mapping[str, Array]]) -> Location:
        """The first node that adds error, by the values that a session shows."""
        model, inputs = self.judge.model, item.case.inputs
        seen = observe(inputs, list(model.graph.makers))
        arrays = {**{value: seen[name] for name, value in self.values.items() if name in seen}, **seen, **inputs}
        found, part = locate_in_arrays(model, arrays, None, self.clock)
        found = replace(found, subject=row.subject, case=row.case, sizes=row.sizes)
        if part is not None:
            self.shown[row.subject] = part
        return found

    # Structure -----------------------------------------------------------------------------------------------------------

    def _structure(self, row: Row, item: Prepared) -> Location:
        """The first value, of those that the source's program has by the same name, that differs in float64."""
        observe = getattr(self.judge.source, "observe", None)
        if observe is None:
            return _nowhere(row, "the place cannot be found: the source shows no intermediate values")
        model, inputs = self.judge.model, item.case.inputs
        for index, name, verdict, actual, truth in self._structural(model, inputs, observe):
            self.clock.check()
            if not verdict:
                node = model.graph.nodes[index]
                return _at(row, Divergence(index, node, name, self.judge.specs[name], verdict, statistics(actual, truth)))
        return _nowhere(row, "every value that graph and source have in common is the same: the difference lies behind the last of them")

    def _structural(self, model: Model, inputs: Mapping[str, Array], observe: Callable[..., Mapping[str, Array]]
                    ) -> Iterator[tuple[int, str, Comparison, Array, Array]]:
        for window in windows(model, inputs, self.judge.memory // 4, self.clock):
            names = [name for index in window for name in model.graph.nodes[index].outputs if name is not None]
            truths, owns = observe(inputs, names, "float64"), observe(inputs, names)
            self.clock.check()
            shared = [name for name in names if name in truths and name in owns]
            kept: dict[str, Array] = {}
            if shared:
                part = ending_with(model, shared, self.judge.specs)
                kept = run(part, inputs, float_dtype="float64")
            for index in window:
                for name in model.graph.nodes[index].outputs:
                    if name not in kept or name is None:
                        continue
                    truth, actual, dtype = truths[name], kept[name], self.judge.specs[name].dtype.numpy
                    if truth.dtype != actual.dtype or truth.size != actual.size or owns[name].dtype != dtype:
                        continue  # a rewrite has given the name to something else
                    truth = truth.reshape(actual.shape)
                    noise = {}
                    if not is_exact(dtype):
                        budget = Budget(dtype)
                        budget.add(owns[name].reshape(actual.shape), truth, "plain")
                        noise = budget.worst("plain")
                    yield index, name, structure(actual, truth, noise), actual, truth

    # Parts ---------------------------------------------------------------------------------------------------------------

    def _part(self, row: Row, item: Prepared, found: Location) -> None:
        value = found.value or self.values[row.output]
        inputs = item.case.inputs
        if row.stage == "structure":
            self._part_of_structure(found, value, inputs)
            return
        if row.subject in self.shown:
            self.reduced.append((found, self.shown[row.subject], ["--outputs", "inputs.npz"]))
            return
        factory = self.factories.get(row.subject)
        if factory is None or found.reason == AGREES:
            return

        def fails(part: Model, arrays: Mapping[str, Array]) -> bool:
            return not self.verify(part, {row.subject: factory}, inputs=arrays, cases=0, locate=False)

        reduced = reduce(self.judge.model, inputs, value, fails) or reduce(self.judge.model, inputs, self.values[row.output], fails)
        if reduced is not None:
            runtime = ["--runtime", row.subject] if row.subject.partition(":")[0] in runtimes() else []
            if not runtime:
                reduced = replace(reduced, notes=(f"It fails in {row.subject!r}, which was given to converter.verify(model, runtimes=…).",))
            self.reduced.append((found, reduced, [*runtime, "--input-file", "inputs.npz", "--cases", "0"]))

    def _part_of_structure(self, found: Location, value: str, inputs: Mapping[str, Array]) -> None:
        observe = getattr(self.judge.source, "observe", None)
        if observe is None or found.index is None:
            return
        made_by = ", ".join(f"{name} {version}" for name, version in (getattr(self.judge.source, "versions", None) or {}).items())
        right = observe(inputs, [value])

        def recorded(part: Model) -> Model:
            return replace(part, examples=(Example(self._cut(part, inputs), right, made_by or "the source"),))

        def fails(part: Model, arrays: Mapping[str, Array]) -> bool:
            del arrays
            return not self.verify(recorded(part), [], cases=0, locate=False)

        reduced = reduce(self.judge.model, inputs, value, fails, lambda names: observe(inputs, names))
        if reduced is not None:
            reduced = with_example(reduced, right, made_by or "the source")
            self.reduced.append((found, reduced, ["--cases", "0"]))

    def _cut(self, part: Model, inputs: Mapping[str, Array]) -> dict[str, Array]:
        names = [port.name for port in part.graph.inputs if port.name not in inputs]
        cut = self.judge.source.observe(inputs, names) if names else {}  # type: ignore[union-attr]
        return {port.name: cut[port.name] if port.name in cut else inputs[port.name] for port in part.graph.inputs}

    def write(self, directory: str | Path) -> list[Path]:
        """Writes the parts that were found, each into a folder of its own where there are several."""
        written: list[Path] = []
        for location, reduced, command in self.reduced:
            folder = Path(directory) / _folder(location) if len(self.reduced) > 1 else Path(directory)
            written += write(reduced, folder, command, str(location))
            place = self.report.locations.index(location)
            nodes = len(reduced.nodes)
            self.report.locations[place] = replace(location, part=f"{folder} ({nodes} node{'s' * (nodes != 1)})")
        return written


def _folder(location: Location) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in f"{location.stage}-{location.subject}")[:80]


def _size(item: Prepared) -> int:
    return sum(array.size for array in item.case.inputs.values())


def _nowhere(row: Row, reason: str) -> Location:
    return Location(row.stage, row.subject, row.case, row.sizes, reason)


def _at(row: Row, found: Divergence) -> Location:
    return Location(row.stage, row.subject, row.case, row.sizes, found.comparison.reason, found.index, found.node.op, found.value,
                    str(found.spec), found.node.source, found.statistics)
