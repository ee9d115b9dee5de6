"""What the compiled models compute: the conformance files, a few of each kind at once and all of them at length."""

from __future__ import annotations

from pathlib import Path

import pytest

from converter.conformance import outcome

FOLDER = Path(__file__).parent.parent.parent / "fixtures" / "conformance"
FILES = sorted(FOLDER.glob("*.json"))
FEW = {
    "fftn-two_axes__forward",
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


REFUSED = ("eig-", "scatter-complex_product")
"""What has neither code nor a formula: the eigenvalues of general matrices, and products of complex numbers that meet at one place."""


def test_the_few_are_there() -> None:
    assert {path.stem for path in FILES} >= FEW


@pytest.mark.parametrize("path", [pytest.param(path, id=path.stem, marks=[] if path.stem in FEW else [pytest.mark.long]) for path in FILES])
def test_compiled_models_conform(path: Path) -> None:
    assert outcome(path, "c") == ("refused" if path.stem.startswith(REFUSED) else "equivalent")
