"""A variant of a model with fewer bits: how far its numbers are from the model's, apart from how far runtimes are from the variant."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from converter import reference
from converter.equivalence.dumped import Replay
from converter.equivalence.inputs import GIVEN, PLAIN, RECORDED, given
from converter.equivalence.preparing import prepare
from converter.equivalence.report import Report, Row, failure
from converter.equivalence.stages import allowances_of, judge_runtime
from converter.equivalence.truth import Judge, Prepared, first_line
from converter.errors import ConverterError, RunError
from converter.ir import Array, DType, Model
from converter.sizes import check_inputs

LIMIT = "how much is too much only its user can say: --quantisation 2%, or verify(…, quantisation=0.02)"


@dataclass(frozen=True)
class Variant:
    """A model that is another one with fewer bits; `sessions` by label run its file."""

    model: Model
    sessions: Mapping[str, Any] = field(default_factory=dict)


def narrower(base: Model, other: Model) -> frozenset[DType]:
    """The dtypes of the other's parameters that have fewer bits than the floats of the first, which has none of them.

    Empty for what is no variant: other numbers of inputs or outputs, or no such parameter.
    """
    if any(len(getattr(base.graph, side)) != len(getattr(other.graph, side)) for side in ("inputs", "outputs")):
        return frozenset()
    own, found = _dtypes(base), _dtypes(other)
    widest = max((dtype.bits for dtype in own if dtype.is_float), default=0)
    return frozenset(dtype for dtype in found - own if dtype.bits < widest and dtype is not DType.BOOL)


def _dtypes(model: Model) -> set[DType]:
    return {spec.dtype for name in model.parameters.names() if (spec := model.parameters.spec(name)).shape}


class Variants:
    """Judges variants of one model on the cases that it was judged on: how far their numbers are from its own on the inputs that were given
    or recorded, else on the plain ones that were drawn, since a variant in integers holds the range of the data that it was made with.

    Args:
        judge, prepared: of the model.
        report: gains the rows.
        limit: how far the outputs of a variant in integers may be, as a share of their size; None: that stays open.
        verify: judges a variant by itself, on given inputs.
        count: how many more inputs to draw where the rounding of narrow floats is measured.
    """

    def __init__(self, judge: Judge, prepared: Sequence[Prepared], report: Report, limit: float | None, verify: Any, count: int) -> None:
        self.judge, self.prepared, self.report, self.limit, self.verify, self.count = judge, prepared, report, limit, verify, count

    def add(self, label: str, variant: Variant) -> None:
        """Adds the rows of one variant: *rounding* for what runs it, beside its own truth, and *quantisation* for that truth."""
        ours, theirs = self.judge.model.graph, variant.model.graph
        names = dict(zip((port.name for port in ours.inputs), theirs.inputs, strict=True))
        cases, feeds = [], []
        for item in self.prepared:
            with np.errstate(all="ignore"):
                arrays = {names[name].name: array.astype(names[name].spec.dtype.numpy) for name, array in item.case.inputs.items()}
            try:
                check_inputs(theirs, arrays)
            except RunError as error:
                self.report.notes.append(f"{label} does not take the inputs of {item.case.label}: {first_line(error)}")
                continue
            cases.append(item)
            feeds.append(arrays)
        if not cases:
            self.report.add([failure("quantisation", label, "", "it takes none of the inputs of the model")])
            return
        found = self.verify({label: variant.model, **variant.sessions}, inputs=feeds)
        own = {name: name if name in variant.sessions else f"{label} in {name}" for name in {row.subject for row in found.rows}}
        self.report.add(replace(row, subject=own[row.subject]) for row in found.rows)
        self.report.locations += [replace(item, subject=own.get(item.subject, item.subject)) for item in found.locations]
        self.report.notes += [note for note in found.notes if note not in self.report.notes]
        try:
            results = reference.run_cases(variant.model, feeds, float_dtype="float64")
        except ConverterError as error:
            self.report.add([failure("quantisation", label, "", f"cannot run in float64: {first_line(error)}")])
            return
        chosen = [GIVEN, RECORDED] if any(item.case.profile in (GIVEN, RECORDED) for item in cases) else [PLAIN]
        pairs = [(item, dict(zip((port.name for port in ours.outputs), result.values(), strict=True)))
                 for item, result in zip(cases, results, strict=True) if item.case.profile in chosen]
        kinds = narrower(self.judge.model, variant.model)
        whole = all(kind.is_float for kind in kinds)
        for name in self.judge.floats():
            self._measure(label, name, pairs, judged=not whole)
        if whole:
            self._against_rounding(label, min(kinds, key=lambda kind: kind.bits), pairs)

    def _measure(self, label: str, name: str, pairs: Sequence[tuple[Prepared, Mapping[str, Array]]], *, judged: bool) -> None:
        """The distance of an output over all cases: a row, where it is `judged`, and what it amounts to in words."""
        error = size = 0.0
        largest, agree, count, compared = 0.0, 0, 0, 0
        for item, found in pairs:
            truth, actual = item.truth[name], found[name]
            if truth.shape != actual.shape:
                self.report.add([failure("quantisation", label, name, f"shape {list(actual.shape)}, expected {list(truth.shape)}",
                                         item.case.label, item.case.sizes)])
                return
            both = np.isfinite(truth) & np.isfinite(actual)
            gap = np.abs(np.where(both, actual - truth, 0.0))
            error, size = error + float(np.square(gap).sum()), size + float(np.square(np.abs(np.where(both, truth, 0.0))).sum())
            largest, compared = max(largest, float(gap.max(initial=0.0))), compared + int(both.sum())
            if truth.ndim > 1 and truth.shape[-1] > 1 and truth.size and truth.dtype.kind == "f":
                agree, count = agree + int((truth.argmax(-1) == actual.argmax(-1)).sum()), count + truth.size // truth.shape[-1]
        share = math.sqrt(error / size) if size else math.inf if error else 0.0
        words = f"{label}, {name}: {100 * share:.3g} % of the output's size from the model's" + \
            (f" ({-20 * math.log10(share):.3g} dB)" if 0 < share < math.inf else "") + f", at most {largest:.3g}" + \
            (f"; the largest of the last axis is the same in {agree:,} of {count:,} rows" if count else "")
        self.report.notes.append(words)
        if judged:
            allowed = math.inf if self.limit is None else self.limit
            reason = "" if share <= allowed < math.inf else LIMIT if allowed == math.inf else \
                f"{100 * share:.3g} % of the output's size, {100 * allowed:.3g} % allowed"
            self.report.add([Row("quantisation", label, name, "", {}, share, allowed, "of its size", compared, reason,
                                 allowed == math.inf)])

    def _against_rounding(self, label: str, dtype: DType, pairs: Sequence[tuple[Prepared, Mapping[str, Array]]]) -> None:
        """Floats of fewer bits: as far as the model itself strays in them is what they may differ by."""
        model = replace(self.judge.model, examples=())
        judge = Judge(model, None, self.judge.memory, dtype)
        aside = Report("", "")
        own = [given(model.graph, item.case.inputs, item.case.label) for item, _ in pairs]
        prepared = prepare(judge, aside, own, self.report.seed, self.count)
        judge.settle(prepared)
        allowances = allowances_of(judge, aside, prepared)
        for case, (_, found) in zip(own, pairs, strict=True):
            with np.errstate(all="ignore"):
                values = {name: found[name].astype(wanted) for name, wanted in judge.dtypes.items()}
            judge_runtime(judge, self.report, [item for item in prepared if item.case is case], label, Replay(values), allowances,
                          "quantisation")
        self.report.notes.append(f"{label} may stray as far as the model itself does in {dtype}")
