"""A part of the fault campaign (`python -m campaigns.faults`): every kind of fault once or more, and what the whole of it found."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache, partial
from typing import Any

import numpy as np
import pytest

from campaigns.fault_checks import CHECKERS, MISSED, WITHIN, Honest, by_recording, effect, judged
from campaigns.fault_edits import with_array
from campaigns.fault_kinds import KINDS, faults
from campaigns.faults import fixture, row, run_honest
from converter.equivalence import verify
from converter.ir import Model
from docs.faults import SUMMARY
from tests.test_ops import CASES, label

Array = np.ndarray[Any, Any]

SUBJECTS = (
    "fixture/mlp_digits", "fixture/elman", "row/leaky_relu-slope", "row/lstm-plain", "row/layer_norm-plain",
    "row/gelu-plain", "row/softmax-last axis", "row/topk-kthvalue",
    "row/convolution-2d padded", "row/batch_norm-vectors", "row/relu-float64", "row/less-edges", "row/subtract-rsub",
    "row/reshape-flatten two", "row/divide-plain", "row/max_pool-indices", "row/scaled_dot_product_attention-plain",
)
"""Between them, every kind of fault."""


@cache
def honest(name: str) -> Honest:
    kind, _, rest = name.partition("/")
    if kind == "fixture":
        return Honest(name, fixture(rest))
    return Honest(name, row(next(index for index, case in enumerate(CASES) if label(case) == rest)))


def some(name: str) -> Iterator[tuple[str, str, Model]]:
    for kind in KINDS:
        for what, model in faults(honest(name).subject, kind, np.random.default_rng(1), 1):
            yield kind, what, model


@pytest.mark.parametrize("name", SUBJECTS)
def test_faults_are_found(name: str) -> None:
    """Whatever shows is found, in every way of judging; what is right is not."""
    subject = honest(name)
    assert verify(subject.model, ["numpy"], source=subject.source, locate=False)
    checkers = [checker for checker in CHECKERS if checker != "torch"]
    for kind, what, model in some(name):
        found = judged(subject, model, checkers)
        assert not [checker for checker in checkers if found.get(checker) == MISSED], (kind, what, found)


@pytest.mark.parametrize("label_of_row", [
    "lu_factor-plain", "zeta-polygamma", "gelu-plain", "instance_norm-2d", "hardshrink-bfloat16", "eig-values", "topk-largest",
])
def test_what_is_right_is_accepted(label_of_row: str) -> None:
    """Rows with jumps, infinities, ties, matrices that must not be singular, and digits that cancel."""
    index = next(index for index, case in enumerate(CASES) if label(case) == label_of_row)
    result = run_honest(f"row/{label_of_row}", partial(row, index))
    assert [report["alarms"] for report in result["reports"]] == [[], []]


def test_a_graph_that_loses_its_digits_is_not_proven_by_its_own_errors() -> None:
    """A weight of 2^127: in float32 nothing is left of the outputs, neither in PyTorch nor in the kernels that set the budget."""
    subject = honest("fixture/tied_lm")

    def flip(values: Array) -> Array:
        values.reshape(-1).view(np.uint32)[568] ^= np.uint32(1 << 30)
        return values

    assert by_recording(subject, with_array(subject.model, "block.mlp.0.weight", flip))


def test_every_kind_of_fault_is_tried() -> None:
    assert {kind for name in SUBJECTS for kind, _, _ in some(name)} == set(KINDS)


def test_what_a_fault_does_is_measured_apart_from_verify() -> None:
    subject = honest("fixture/mlp_digits")
    assert effect(subject, subject.model).size < 1e-12
    weight = next(iter(subject.model.parameters))
    (what, model), = faults(subject.subject, "a weight by 1e-3", np.random.default_rng(0), 1)
    assert weight.partition(".")[0] in what or "+ 1e-3" in what
    assert 1e-9 < effect(subject, model).size < 1
    (_, model), = faults(subject.subject, "NaN inserted", np.random.default_rng(0), 1)
    assert effect(subject, model).plain


def test_the_campaign_is_whole() -> None:
    """`docs/faults.json`: at least 1,000 faults, none missed; at least 1,000 honest reports, no alarm."""
    summary: dict[str, Any] = json.loads(SUMMARY.read_text(encoding="utf-8"))
    assert set(summary["kinds"]) == set(KINDS)
    assert sum(counts["faults"] for counts in summary["kinds"].values()) >= 1000
    assert summary["missed"] == []
    assert summary["honest"]["reports"] >= 1000
    assert summary["false alarms"] == []
    # Faults that are found by every way of judging would tell nothing of how fine they are.
    assert sum(counts["recorded"][WITHIN] for counts in summary["kinds"].values()) > 0
