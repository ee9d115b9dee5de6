"""Batch normalizations folded into the layers before them: the same outputs to rounding, fewer nodes, nothing folded that may not be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import converter
from converter import GraphBuilder, Model, reference
from converter.passes.folding import fold

CHANNELS = 4
GENERATOR = np.random.default_rng(0)


def vectors(builder: GraphBuilder, name: str, channels: int = CHANNELS, dtype: str = "float32") -> list[Any]:
    return [builder.parameter(f"{name}.{part}", dtype, [channels]) for part in ("running_mean", "running_var", "weight", "bias")]


def filled(builder: GraphBuilder) -> Model:
    values = {}
    for name, spec in builder.parameters.items():
        drawn = GENERATOR.standard_normal(spec.shape)
        values[name] = (np.abs(drawn) + 0.1 if name.endswith("running_var") else drawn).astype(spec.dtype.numpy)
    return Model(builder.graph(), converter.InMemoryParameters(values))


def convolved(*, bias: bool = True, affine: bool = True, groups: int = 1, dtype: str = "float32") -> GraphBuilder:
    builder = GraphBuilder("net")
    x = builder.input("x", dtype, ["batch", 4, "height", "width"])
    weight = builder.parameter("conv.weight", dtype, [CHANNELS, 4 // groups, 3, 3])
    y = builder.op("convolution", x, weight, *([builder.parameter("conv.bias", dtype, [CHANNELS])] if bias else []), groups=groups)
    mean, variance, scale, shift = vectors(builder, "norm", dtype=dtype)
    builder.output("y", builder.op("relu", builder.op("batch_norm", y, mean, variance, *([scale, shift] if affine else []), eps=1e-3)))
    return builder


def outputs(model: Model, **inputs: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    (port,) = model.graph.inputs
    given = {name: array.astype(port.spec.dtype.numpy) for name, array in inputs.items()}
    return next(iter(reference.run(model, given, float_dtype="float64").values()))


@pytest.mark.parametrize("options", [{}, {"bias": False}, {"groups": 2}, {"dtype": "float64"}], ids=str)
def test_a_convolution(options: dict[str, Any], tmp_path: Path) -> None:
    model = filled(convolved(**options))
    folded = fold(model)
    assert [node.op for node in folded.graph.nodes] == ["convolution", "relu"]
    assert folded.parameters.names() == ("conv.weight", "conv.bias")
    x = GENERATOR.standard_normal((2, 4, 7, 6))
    rounding = np.finfo(model.parameters.spec("conv.weight").dtype.numpy).eps
    np.testing.assert_allclose(outputs(folded, x=x), outputs(model, x=x), rtol=0, atol=40 * rounding)
    assert folded.metadata["folded"] == {"from": converter.model_digest(model), "batch_norms": 1}
    converter.save(folded, tmp_path / "folded.json")
    again = converter.load(tmp_path / "folded.json")
    assert np.array_equal(again.parameters.read("conv.bias"), folded.parameters.read("conv.bias"))


def test_without_weight_and_bias_of_its_own() -> None:
    builder = GraphBuilder("net")
    x = builder.input("x", "float32", ["batch", 3])
    y = builder.op("linear", x, builder.parameter("fc.weight", "float32", [CHANNELS, 3]))
    builder.output("y", builder.op("batch_norm", y, *vectors(builder, "norm")[:2]))
    model = filled_used(builder)
    folded = fold(model)
    assert [node.op for node in folded.graph.nodes] == ["linear"]
    x = GENERATOR.standard_normal((5, 3))
    np.testing.assert_allclose(outputs(folded, x=x), outputs(model, x=x), rtol=0, atol=1e-5)


def filled_used(builder: GraphBuilder) -> Model:
    """`filled` with only the parameters that a node reads."""
    model = filled(builder)
    used = {name for node in model.graph.nodes for name in node.names}
    return model.with_parameters(converter.InMemoryParameters({name: model.parameters.read(name) for name in model.parameters
                                                               if name in used}))


def shared_result() -> GraphBuilder:
    builder = GraphBuilder("net")
    x = builder.input("x", "float32", ["batch", 4, "height", "width"])
    y = builder.op("convolution", x, builder.parameter("conv.weight", "float32", [CHANNELS, 4, 1, 1]))
    builder.output("y", builder.op("add", y, builder.op("batch_norm", y, *vectors(builder, "norm"))))
    return builder


def shared_weight() -> GraphBuilder:
    builder = GraphBuilder("net")
    y = builder.input("x", "float32", ["batch", 4, "height", "width"])
    weight = builder.parameter("conv.weight", "float32", [CHANNELS, 4, 1, 1])
    for name in ("first", "second"):
        y = builder.op("batch_norm", builder.op("convolution", y, weight), *vectors(builder, name))
    builder.output("y", y)
    return builder


def given_out() -> GraphBuilder:
    builder = GraphBuilder("net")
    x = builder.input("x", "float32", ["batch", 4, "height", "width"])
    y = builder.op("convolution", x, builder.parameter("conv.weight", "float32", [CHANNELS, 4, 1, 1]))
    builder.output("y", builder.op("batch_norm", y, *vectors(builder, "norm")))
    builder.output("before", y)
    return builder


def of_the_batch() -> GraphBuilder:
    builder = GraphBuilder("net")
    x = builder.input("x", "float32", ["batch", 4, "height", "width"])
    y = builder.op("convolution", x, builder.parameter("conv.weight", "float32", [CHANNELS, 4, 1, 1]))
    builder.output("y", builder.op("batch_norm", y))
    return builder


def other_axis() -> GraphBuilder:
    """A linear layer on [batch, channels, width]: its last axis is not the one that is normalized."""
    builder = GraphBuilder("net")
    x = builder.input("x", "float32", ["batch", CHANNELS, CHANNELS])
    y = builder.op("linear", x, builder.parameter("fc.weight", "float32", [CHANNELS, CHANNELS]))
    builder.output("y", builder.op("batch_norm", y, *vectors(builder, "norm")))
    return builder


@pytest.mark.parametrize("make", [shared_result, shared_weight, given_out, of_the_batch, other_axis,
                                  lambda: convolved(dtype="float16")],
                         ids=["shared result", "shared weight", "given out", "of the batch", "other axis", "float16"])
def test_what_may_not_be_folded(make: Any) -> None:
    model = filled(make())
    assert fold(model) is model


def test_a_tied_weight() -> None:
    model = filled(convolved())
    store = converter.InMemoryParameters({**{name: model.parameters.read(name) for name in model.parameters},
                                          "other": model.parameters.read("conv.weight")}, aliases={"other": "conv.weight"})
    assert fold(model.with_parameters(store)).parameters is store


def test_from_the_command_line(tmp_path: Path) -> None:
    from click.testing import CliRunner

    from converter.cli.main import cli

    path, made, other = tmp_path / "model.json", tmp_path / "folded.onnx", tmp_path / "other.json"
    model = filled(convolved())
    converter.save(model, path)
    run = CliRunner().invoke(cli, ["json-to-onnx", str(path), "-o", str(made), "--fold"])
    assert run.exit_code == 0, run.output
    assert "1 batch normalization folded" in run.output
    assert "2 nodes" in run.output
    run = CliRunner().invoke(cli, ["verify", str(path), str(made), "--runtime", "numpy"])
    assert run.exit_code == 0, run.output
    converter.save(filled(convolved()), other)
    run = CliRunner().invoke(cli, ["verify", str(other), str(made), "--runtime", "numpy"])
    assert run.exit_code == 1, run.output
