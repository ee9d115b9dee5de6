"""What a caller may give a session by mistake: one clear error in every runtime."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import converter
from converter import GraphBuilder, InMemoryParameters, Model, RunError

RUNTIMES = ("reference", "numpy", "onnxruntime", "torch")


class Broken:
    """What fails when it is made an array."""

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise RuntimeError("no values on this device")


@pytest.fixture(scope="module")
def model() -> Model:
    """[batch, 3] float32 and [batch] int64 -> their sum."""
    builder = GraphBuilder("sum")
    x, n = builder.input("x", "float32", ["batch", 3]), builder.input("n", "int64", ["batch"])
    builder.output("y", builder.op("add", x, builder.op("expand_dims", builder.op("astype", n, dtype="float32"), axis=[1])))
    return Model(builder.graph(), InMemoryParameters({}), ())


X, N = np.ones((2, 3), np.float32), np.arange(2)


@pytest.mark.parametrize(("given", "part"), [
    pytest.param(None, "no mapping", id="none"),
    pytest.param(X, "no mapping", id="array"),
    pytest.param([X, N], "no mapping", id="list"),
    pytest.param((X,), "no mapping", id="tuple"),
    pytest.param({0: X, 1: N}, "names do not fit", id="integer names"),
    pytest.param({"x": X, "n": N, None: X}, "names do not fit", id="another name"),
    pytest.param({"x": X}, "names do not fit", id="missing"),
    pytest.param({"x": [[1.0, 2.0], [3.0]], "n": N}, "not an array", id="ragged"),
    pytest.param({"x": Broken(), "n": N}, "no values on this device", id="broken"),
    pytest.param({"x": None, "n": N}, "wrong dtype", id="none inside"),
    pytest.param({"x": "text", "n": N}, "wrong dtype", id="text"),
    pytest.param({"x": X.astype(">f4"), "n": N}, "wrong dtype", id="big-endian"),
    pytest.param({"x": X[0], "n": N}, "number of axes", id="rank"),
    pytest.param({"x": X, "n": np.arange(3)}, "wrong shape", id="sizes"),
    pytest.param({"x": np.ma.array(X, mask=X > 0), "n": N}, "hides values", id="masked"),
    pytest.param({"x": [np.ma.array(X[0], mask=[True, False, False]), X[1]], "n": N}, "hides values", id="masked rows in a list"),
    pytest.param({"x": X, "n": [np.ma.array(1, mask=True), 2]}, "hides values|not an array", id="masked inside a list"),
])
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_what_is_no_set_of_inputs_is_refused(model: Model, runtime: str, given: Any, part: str) -> None:
    with pytest.raises(RunError, match=part):
        converter.session(model, runtime).run(given)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_masked_array_that_hides_nothing_and_lists_are_taken(model: Model, runtime: str) -> None:
    session = converter.session(model, runtime)
    for given in ({"x": np.ma.array(X, mask=False), "n": N}, {"x": X, "n": [0, 1]}, {"n": N, "x": X[::-1]}):
        np.testing.assert_array_equal(session.run(given)["y"], [[1, 1, 1], [2, 2, 2]])
