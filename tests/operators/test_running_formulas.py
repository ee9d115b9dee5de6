"""Running products and extremes, and products of complex numbers, by formulas: every dtype, any number of elements, NaN and infinities."""

from __future__ import annotations

import numpy as np
import pytest

from adapters.onnx.session import OnnxRuntimeSession
from converter import reference
from converter.builder import GraphBuilder
from converter.ir import DimRange, DType, Model
from converter.parameters import InMemoryParameters
from converter.passes.decomposing import to_core

ROWS = [("cumulative_prod", 1, dtype) for dtype in ("float32", "bfloat16", "int32", "uint8", "complex64")] + [
    (operator, 1, dtype) for operator in ("cummax", "cummin") for dtype in ("float32", "float16", "int8", "uint64", "bool")] + [
    ("logcumsumexp", 1, "float32"), ("logcumsumexp", 1, "complex64"), ("prod", (1,), "complex64")]


@pytest.mark.parametrize(("operator", "axis", "dtype"), ROWS, ids=lambda item: str(item))
def test_free_axes_that_may_be_empty(operator: str, axis: object, dtype: str) -> None:
    b = GraphBuilder("g")
    b.dims["n"] = DimRange(0, None)
    for index, value in enumerate(b.add(operator, [b.input("x", dtype, [2, "n"])], {"axis": axis})):
        b.output(f"y{index}", value)
    model = Model(b.graph(), InMemoryParameters())
    core, onnx = to_core(model), OnnxRuntimeSession(model)
    for count in (0, 1, 5):
        x = np.random.default_rng(count).uniform(-2, 3, (2, count))
        if count == 5 and DType(dtype).is_float:
            x[0, 2], x[1, 1], x[1, 3] = np.nan, np.inf, -np.inf
        with np.errstate(invalid="ignore"):
            x = x.astype(DType(dtype).numpy)
        wanted = reference.run(model, {"x": x})
        for found in (reference.run(core, {"x": x}), onnx.run({"x": x})):
            for name, array in wanted.items():
                assert (found[name].shape, found[name].dtype) == (array.shape, array.dtype)
                np.testing.assert_allclose(found[name].astype(complex), array.astype(complex), rtol=1e-2 if "16" in dtype else 1e-6)
