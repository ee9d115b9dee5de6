"""What the compiled models compute: the conformance files, a few of each kind at once and all of them at length."""

from __future__ import annotations

from pathlib import Path

import pytest

import converter
from converter.attributes import graphs_in
from converter.checking import check
from converter.conformance import outcome
from converter.ir import Model

FOLDER = Path(__file__).parent.parent.parent / "fixtures" / "conformance"
FILES = sorted(FOLDER.glob("*.json"))
FEW = {
    "linear-no_bias",
    "cummax-plain",
    "convolution-1d",
    "unique-rows",
    "nonzero-where",
    "topk-largest",
    "scatter-mean_with_self",
    "lstm-initial_states",
    "while_loop-plain",
    "cond-nested",
    "einsum-attention_scores",
    "index_put-accumulate",
    "bincount-weights",
    "pad-negative",
    "frexp-float16",
    "power-integer_literal",
}
"""One of each kind of code: products, folds, orders, places that data name, sizes that data decide, branches and loops."""


def holds_complex(model: Model) -> bool:
    specs = check(model.graph, model.parameters)
    return any(spec.dtype.is_complex for spec in specs.values()) or any(
        port.spec.dtype.is_complex for node in model.graph.nodes for graph in graphs_in(node) for port in graph.inputs
    )


def test_the_few_are_there() -> None:
    assert {path.stem for path in FILES} >= FEW


@pytest.mark.parametrize("path", [pytest.param(path, id=path.stem, marks=[] if path.stem in FEW else [pytest.mark.long]) for path in FILES])
def test_compiled_models_conform(path: Path) -> None:
    assert outcome(path, "c") == ("refused" if holds_complex(converter.load(path)) else "equivalent")
