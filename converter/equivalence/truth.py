"""The float64 truth of each case, and the runs that set the budget: the source's, recorded ones, the reference's own."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np

from converter import reference
from converter.attributes import graphs_in
from converter.checking import check
from converter.equivalence.budget import Budget, typical_size
from converter.equivalence.compare import FACTOR, FLOOR, ROUNDINGS, STRUCTURE, WHOLE, eps_of, is_exact, scales
from converter.equivalence.conditioning import measure_moves
from converter.equivalence.inputs import PLAIN, Case
from converter.equivalence.memory import MEMORY, groups
from converter.equivalence.ties import TieRule, tie_rules
from converter.errors import ConverterError, EndlessLoopError, UnsupportedError
from converter.footprint import peak_bytes
from converter.ir import Array, DType, Model, Node
from converter.recorded import Sample
from converter.sizes import promote

Outputs = Mapping[str, Array]
Recorded = tuple[Case, "Mapping[str, Array | Sample] | None"]
"""A case, and what PyTorch gave for it once."""


class Source(Protocol):
    """What a model came from, able to run: `float_dtype="float64"` replaces every float dtype in it.

    One that has `run_cases(list of inputs, float_dtype)` too is asked for several at once.
    """

    def run(self, inputs: Mapping[str, Any], float_dtype: Any = None) -> Mapping[str, Array]:
        """The outputs by the neutral graph's names."""
        ...


class Refused(Exception):
    """A case that something cannot run. `by` is "graph" or "source"."""

    def __init__(self, by: str, error: BaseException) -> None:
        super().__init__(first_line(error))
        self.by = by


@dataclass
class Prepared:
    """A case with its truth.

    `own` is what the source, or the recording, gave in the model's own dtypes; `kernels` what the reference gave, once it is
    asked for (`Judge.complete`); `samples` has those recorded outputs of which only some values are known: in `own` the others
    are the truth's. `operands` are the float64 values that tie rules look at, `rough` the same in the model's own dtypes;
    `single` is what the reference gave in float32, where the model's own dtype is float64.
    """

    case: Case
    graph: Outputs
    truth: Outputs
    own: Outputs | None = None
    kernels: Outputs | None = None
    operands: Mapping[str, Array] = field(default_factory=dict)
    rough: Mapping[str, Array] = field(default_factory=dict)
    samples: Mapping[str, Sample] = field(default_factory=dict)
    single: Outputs = field(default_factory=dict)


class Judge:
    """Runs cases through the reference and the source, and pools the errors that make the budget."""

    def __init__(self, model: Model, source: Source | None = None, memory: int = MEMORY, float_dtype: DType | None = None) -> None:
        """
        Args:
            model: the model.
            source: what it came from.
            memory: about how many bytes to hold at a time.
            float_dtype: what stands in for the model's own float dtypes in the runs that set the budget, and in what is judged.
        """
        self.model, self.source, self.memory, self.float_dtype = model, source, memory, float_dtype
        self.specs = check(model.graph, model.parameters)
        self.dtypes = {output.name: promote(output.spec.dtype, float_dtype).numpy for output in model.graph.outputs}
        self.ties = tie_rules(model.graph, self.specs)
        self.typical: dict[str, dict[str, float]] = {}
        self.seconds: dict[str, float] = {}
        self.ran = False
        self._moves: dict[int, dict[str, Array]] = {}

    def prepare(self, case: Case, recorded: Mapping[str, Array | Sample] | None = None) -> Prepared:
        """The truth of a case. Raises `Refused` when the graph or the source cannot run it.

        Args:
            case: the inputs.
            recorded: what PyTorch gave for them once.
        """
        (found,) = self.prepare_all([(case, recorded)])
        if isinstance(found, Refused):
            raise found
        return found

    def prepare_all(self, cases: Sequence[Recorded]) -> list[Prepared | Refused]:
        """`prepare` for several cases, so that each parameter is read and promoted once for as many as memory allows."""
        sizes = [peak_bytes(self.model.graph, self.specs, case.sizes) for case, _ in cases]
        if not self.ran and any(graphs_in(node) for node in self.model.graph.nodes):
            sizes[:1] = [None] * len(sizes[:1])  # by itself: a loop that does not end is found in one run
        found: list[Prepared | Refused] = []
        for group in groups(cases, sizes, self.memory // 4):
            found += self._group(group)
        return found

    def _group(self, cases: Sequence[Recorded]) -> list[Prepared | Refused]:
        observed: list[dict[str, Array]] = [{} for _ in cases]
        try:
            graphs = self._reference([case for case, _ in cases], "float64", observed)
        except ConverterError as error:
            if len(cases) > 1:
                return [found for case in cases for found in self._group([case])]
            if isinstance(error, EndlessLoopError) and not self.ran:
                raise EndlessLoopError(f"{error.message}", where=error.where,
                                       fix="give inputs on which it ends: --input-file FILE.npz --cases 0, or verify(…, inputs=…, cases=0)"
                                       ) from error
            refused = Refused("graph", error)
            refused.__cause__ = error
            return [refused]
        self.ran = True
        found: list[Prepared | Refused] = []
        for (case, recorded), graph, operands in zip(cases, graphs, observed, strict=True):
            samples = {name: item for name, item in (recorded or {}).items() if isinstance(item, Sample)}
            whole = None if recorded is None else {name: _whole(item, graph.get(name)) for name, item in recorded.items()}
            found.append(Prepared(case, graph, graph, whole, operands=operands, samples=samples))
        if self.source is not None:
            found = self._with_source([item for item in found if isinstance(item, Prepared)])
        if self.source is not None and any(self._is_double(name) for name in self.floats()):
            self._add_single([case for case, _ in cases], found)
        return found

    def complete(self, items: Iterable[Prepared]) -> None:
        """Runs the reference in the model's own dtypes on those cases that were not run so yet. What it cannot run gives nothing."""
        missing = [item for item in items if item.kernels is None]
        sizes = [peak_bytes(self.model.graph, self.specs, item.case.sizes) for item in missing]
        for group in groups(missing, sizes, self.memory // 4):
            rough: list[dict[str, Array]] = [{} for _ in group]
            try:
                outputs = self._reference([item.case for item in group], self.float_dtype, rough)
            except ConverterError:
                if len(group) == 1:
                    group[0].kernels = {}
                for item in group:
                    self.complete([item])
                continue
            for item, kernels, operands in zip(group, outputs, rough, strict=True):
                item.kernels, item.rough = kernels, operands

    def _add_single(self, cases: Sequence[Case], found: Sequence[Prepared | Refused]) -> None:
        with contextlib.suppress(ConverterError):
            for item, outputs in zip(found, self._reference(cases, "float32", [{} for _ in cases]), strict=True):
                if isinstance(item, Prepared):
                    item.single = outputs

    def _with_source(self, items: Sequence[Prepared]) -> list[Prepared | Refused]:
        """Adds what the source gives, in float64 and in the model's own dtypes; the cases that it cannot run are refused."""
        cases = [item.case for item in items]
        try:
            truths = self._timed("source in float64", lambda: self._source("float64", cases))
            owns = self._timed("source", lambda: self._source(None, cases))
        except Exception as error:  # a traced program raises anything, from any depth
            if len(items) > 1:
                return [found for item in items for found in self._with_source([item])]
            refused = Refused("source", error)
            refused.__cause__ = error
            return [refused]
        for item, truth, own in zip(items, truths, owns, strict=True):
            item.truth, item.own = truth, own
        return list(items)

    def _source(self, float_dtype: str | None, cases: Sequence[Case]) -> list[Outputs]:
        assert self.source is not None
        inputs = [case.inputs for case in cases]
        together = getattr(self.source, "run_cases", None)
        results = [self.source.run(item, float_dtype=float_dtype) for item in inputs] if together is None else \
            together(inputs, float_dtype=float_dtype)
        return [{name: np.asarray(value) for name, value in result.items()} for result in results]

    def _reference(self, cases: Sequence[Case], float_dtype: DType | str | None,
                   operands: Sequence[dict[str, Array]]) -> list[dict[str, Array]]:
        wanted = {name for rule in self.ties.values() for name in rule.names}
        model = self.model
        for case, kept in zip(cases, operands, strict=True):
            for name in wanted:
                if name in case.inputs:
                    kept[name] = np.asarray(case.inputs[name])
                elif name in model.parameters:
                    kept[name] = model.parameters.read(name)
        label = "reference in float64" if float_dtype == "float64" else "reference"
        observers = [_keeper(kept, wanted) if wanted else None for kept in operands]
        outputs: list[dict[str, Array]] = self._timed(label, lambda: reference.run_cases(
            model, [case.inputs for case in cases], float_dtype=float_dtype, observers=observers))
        return outputs

    def _timed(self, label: str, function: Any) -> Any:
        start = time.perf_counter()
        result = function()
        self.seconds[label] = self.seconds.get(label, 0.0) + time.perf_counter() - start
        return result

    def settle(self, prepared: list[Prepared]) -> None:
        """Learns the outputs' typical sizes, once every case has its truth."""
        for name in self.floats():
            sizes = {profile: typical_size(item.truth[name] for item in prepared if item.case.profile == profile and name in item.truth)
                     for profile in {item.case.profile for item in prepared}}
            self.typical[name] = {profile: max(size, sizes.get(PLAIN, 0.0)) for profile, size in sizes.items()}

    # Budgets -------------------------------------------------------------------------------------------------------------

    def source_budget(self, prepared: Iterable[Prepared], name: str) -> Budget:
        """The source's errors on one output, in ulps.

        Where the model's own dtype is float64 its run is the truth itself, and shows none. Then as many ulps are taken as the
        graph loses in float32, beside its own run in float64: rounding grows alike in both.
        """
        budget = Budget(self.dtypes[name], self.typical.get(name, {}))
        for item in prepared:
            if item.own is None or name not in item.own or name not in item.truth:
                continue
            budget.add(item.own[name], item.truth[name], item.case.profile)
            if name in item.single:
                single = item.single[name]
                coarse = Budget(single.dtype, self.typical.get(name, {}))
                coarse.add(single, item.graph[name], item.case.profile)
                budget = budget.joined(replace(coarse, dtype=budget.dtype, counts={}))
        return budget

    def kernel_budget(self, prepared: Iterable[Prepared], name: str) -> Budget:
        """The reference's errors, in the model's own dtypes, on one output."""
        budget = Budget(self.dtypes[name], self.typical.get(name, {}))
        prepared = list(prepared)
        self.complete(prepared)
        for item in prepared:
            kernels = item.kernels or {}
            if name in item.truth and name in kernels:
                budget.add(kernels[name], item.truth[name], item.case.profile)
        return budget

    def _dtype(self, value: str) -> np.dtype[Any]:
        return promote(self.specs[value].dtype, self.float_dtype).numpy

    def _is_double(self, name: str) -> bool:
        return not is_exact(self.dtypes[name]) and eps_of(self.dtypes[name]) <= float(np.finfo(np.float64).eps)

    def moves(self, item: Prepared, name: str) -> Array | None:
        """How far an output of a case moves when the data move by an ulp; None when that cannot be run."""
        key = id(item)
        if key not in self._moves:
            try:
                self._moves[key] = self._timed("conditioning", lambda: measure_moves(self.model, item.case.inputs, item.graph,
                                                                             dtype=self.float_dtype))
            except ConverterError:
                self._moves[key] = {}
        return self._moves[key].get(name)

    def typical_in(self, item: Prepared, name: str) -> float:
        """The typical size of an output in cases like this one."""
        return self.typical.get(name, {}).get(item.case.profile, 0.0)

    def floats(self) -> list[str]:
        """The names of the outputs that rounding touches."""
        return [name for name, dtype in self.dtypes.items() if not is_exact(dtype)]

    # Ties ----------------------------------------------------------------------------------------------------------------

    def rounding_ties(self, prepared: list[Prepared], name: str) -> dict[str, float]:
        """For each operand of an output's tie rule: how many ulps of the whole it may stray in the model's own dtypes."""
        rule = self.ties.get(name)
        self.complete(prepared)
        strays: dict[str, float] = {}
        for operand in () if rule is None else rule.names:
            budget = Budget(self._dtype(operand))
            for item in prepared:
                if operand in item.operands and operand in item.rough:
                    budget.add(item.rough[operand], item.operands[operand], PLAIN)
            strays[operand] = budget.allowed(PLAIN).get(WHOLE, 0.0) + FLOOR
        return strays

    def excused(self, item: Prepared, name: str, actual: Array, strays: Mapping[str, float] | None) -> Array | None:
        """Where an integer or boolean output differs by a tie; None when no rule applies. `strays` None: float64 runs."""
        rule: TieRule | None = self.ties.get(name)
        truth = item.truth.get(name)
        if rule is None or truth is None or actual.shape != truth.shape or any(operand not in item.operands for operand in rule.names):
            return None
        values, tolerance = {}, {}
        for operand in rule.names:
            values[operand] = value = np.asarray(item.operands[operand]).astype(np.float64)
            if operand in rule.exact:
                tolerance[operand] = np.zeros(value.shape)
                continue
            dtype = np.dtype(np.float64) if strays is None else self._dtype(operand)
            roundings = ROUNDINGS if strays is None else strays[operand]
            tolerance[operand] = scales(value, dtype)[WHOLE] * eps_of(dtype) * roundings
            if strays is None:
                tolerance[operand] = tolerance[operand] + STRUCTURE * np.abs(value)
        return rule.excuses(actual, truth, values, tolerance)


def _whole(recorded: Array | Sample, truth: Array | None) -> Array:
    if not isinstance(recorded, Sample):
        return recorded
    return recorded.filled(np.empty(0) if truth is None else truth)


def _keeper(kept: dict[str, Array], wanted: set[str]) -> Callable[[Node, tuple[Array, ...]], None]:
    """An observer that keeps the wanted values."""
    def observe(node: Node, results: tuple[Array, ...]) -> None:
        kept.update((name, result) for name, result in zip(node.outputs, results, strict=False) if name in wanted)

    return observe


def first_line(error: BaseException) -> str:
    """An error in one line."""
    text = str(error).strip()
    if isinstance(error, UnsupportedError):
        named = ", ".join(dict.fromkeys(str(item.get("operator")) for item in error.items))
        text = f"{error.message}: {named}"
    name = "" if isinstance(error, ConverterError) else f"{type(error).__name__}: "
    return f"{name}{text.splitlines()[0][:300] if text else ''}"


DESCRIBED = f"times {FACTOR:g}, plus {FLOOR:g} ulps"
