"""verify, diff, inspect and run on the command line: verdicts are exit codes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch

import converter
from converter.format import save_graph
from converter.ir import GraphOutput, Model
from converter.parameters import InMemoryParameters
from tests.cli.test_cli_convert import CODE, run


def square_model() -> Model:
    """softmax(x W^T + b) over equal-sized axes, with recorded examples that PyTorch gave: a swap of axes fits everywhere."""

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.layer = torch.nn.Linear(4, 4)
            self.last = torch.nn.Linear(4, 4, bias=False)

        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            hidden = self.layer(x)
            return {"hidden": hidden, "y": self.last(hidden * hidden)}

    return converter.from_torch(Net(), (torch.randn(3, 4, generator=torch.Generator().manual_seed(1)),))


@pytest.fixture(scope="module")
def model() -> Model:
    return square_model()


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: Model) -> Path:
    """A folder with the model in three formats and its checkpoint, and the current directory."""
    monkeypatch.chdir(tmp_path)
    for suffix in ("json", "h5", "onnx", "pt"):
        converter.save(model, f"m.{suffix}")
    return tmp_path


def changed(model: Model, **arrays: Any) -> Model:
    """The model with other values for some parameters, given as functions of the old ones."""
    store = {name: np.array(model.parameters.read(name)) for name in model.parameters}
    for name, change in arrays.items():
        key = name.replace("__", ".")
        store[key] = change(store[key])
    return replace(model, parameters=InMemoryParameters(store))


# verify ------------------------------------------------------------------------------------------------------------------


def test_files_that_are_one_model(here: Path) -> None:
    result = run("verify", "m.json", "m.h5", "m.onnx")
    assert "equivalent" in result.output
    assert "NOT" not in result.output
    assert "m.onnx as it lies" in result.output.replace("\n", " ")


@pytest.mark.parametrize("file", ["m.json", "m.h5", "m.onnx"])
def test_each_file_alone(here: Path, file: str) -> None:
    run("verify", file, "--runtime", "numpy", "--runtime", "torch", "--quiet")


def test_the_report_as_json(here: Path) -> None:
    report = json.loads(run("verify", "m.json", "--json", "--cases", "2", "--seed", "5").stdout)
    assert report["equivalent"] is True
    assert report["digest"] == converter.model_digest(converter.load("m.json"))
    assert {row["subject"] for row in report["rows"]} >= {"numpy", "onnxruntime", "recording"}


def test_a_checkpoint_beside_a_model_is_compared_bit_for_bit(here: Path, model: Model) -> None:
    report = json.loads(run("verify", "m.json", "m.pt", "--json").stdout)
    assert [row["verdict"] for row in report["rows"] if row["subject"] == "m.pt"] == ["pass"]
    converter.save(changed(model, layer__bias=nudge((0,), 1.0000002)), "bad.safetensors")
    run("verify", "m.json", "bad.safetensors", code=1)


def nudge(index: tuple[int, ...], factor: float) -> Any:
    def change(values: np.ndarray) -> np.ndarray:
        values[index] *= factor
        return values
    return change


@pytest.mark.parametrize("name", ["layer__weight", "layer__bias", "last__weight"])
@pytest.mark.parametrize("suffix", ["json", "h5", "onnx"])
def test_a_changed_weight_is_found(here: Path, model: Model, suffix: str, name: str) -> None:
    index = (2, 1) if name.endswith("weight") else (2,)
    bad = changed(model, **{name: nudge(index, 1.001)})
    converter.save(bad, f"bad.{suffix}")
    assert "recorded" in run("verify", f"bad.{suffix}", code=1).output.lower()
    run("verify", "m.json", f"bad.{suffix}", "--quiet", code=1)
    run("verify", f"bad.{suffix}", "--source", "m.pt", "--quiet", code=1)


def test_swapped_axes_are_found(here: Path, model: Model) -> None:
    converter.save(changed(model, last__weight=lambda values: values.T), "bad.json")
    run("verify", "bad.json", code=1)


def test_a_dropped_output_is_found(here: Path, model: Model) -> None:
    outputs = model.graph.outputs[:1]
    examples = tuple(replace(example, outputs={outputs[0].name: example.outputs[outputs[0].name]}) for example in model.examples)
    converter.save(replace(model, graph=replace(model.graph, outputs=outputs), examples=examples), "bad.json")
    run("verify", "m.json", "bad.json", code=1)


def test_swapped_outputs_are_found(here: Path, model: Model) -> None:
    first, second = model.graph.outputs
    outputs = (GraphOutput(first.name, second.spec, second.value), GraphOutput(second.name, first.spec, first.value))
    graph = replace(model.graph, outputs=outputs)
    converter.save(replace(model, graph=graph), "bad.json")
    run("verify", "bad.json", code=1)


def test_a_nan_is_found(here: Path, model: Model) -> None:
    converter.save(changed(model, layer__bias=nudge((0,), float("nan"))), "bad.json")
    run("verify", "bad.json", code=1)


def test_an_edited_text_is_found_by_its_digest(here: Path) -> None:
    text = Path("m.json").read_text()
    document = json.loads(text)
    document["parameters"]["layer.bias"]["values"][0] += 1e-6
    document["examples"] = []
    Path("bad.json").write_text(json.dumps(document))
    output = run("verify", "bad.json", code=1).output
    assert "digest" in output
    document = json.loads(text)
    document["graph"]["nodes"][0]["inputs"].pop()
    Path("bad.json").write_text(json.dumps(document))
    assert "NOT equivalent" in run("verify", "bad.json", code=1).output
    assert json.loads(run("verify", "bad.json", "--json", code=1).stdout)["equivalent"] is False


def test_an_edited_onnx_file_is_judged_by_what_it_computes(here: Path) -> None:
    import onnx

    proto = onnx.load("m.onnx")
    del proto.metadata_props[:]
    onnx.save(proto, "stripped.onnx")
    assert "alone" not in run("verify", "m.json", "stripped.onnx").stderr  # the file says once more what it was made of
    del proto.training_info[:]
    onnx.save(proto, "same.onnx")
    result = run("verify", "m.json", "same.onnx")
    assert "judged by what it computes alone" in result.stderr
    weight = next(item for item in proto.graph.initializer if item.name == "layer.bias")
    weight.raw_data = (np.frombuffer(weight.raw_data, np.float32) * np.float32(1.001)).tobytes()
    onnx.save(proto, "bad.onnx")
    run("verify", "m.json", "bad.onnx", code=1)
    run("verify", "bad.onnx")  # by itself it is a model like others


def test_a_source_of_other_names_and_narrower_floats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a conversion left out, renamed and widened is no difference; a changed value is one."""
    monkeypatch.chdir(tmp_path)
    builder = converter.GraphBuilder("line")
    x = builder.input("x", "float32", ["batch", 3])
    weight, bias = builder.parameter("0.weight", "float32", [2, 3]), builder.parameter("0.bias", "float32", [2])
    builder.output("y", builder.op("linear", x, weight, bias))
    save_graph(builder.graph(), builder.parameters, "graph.json")
    state = {"model.0.weight": torch.arange(6.0).reshape(2, 3).half(), "model.0.bias": torch.ones(2).half()}
    torch.save({"state_dict": {**state, "criterion.weight": torch.ones(5)}}, "w.ckpt")
    run("torch-to-json", "w.ckpt", "--architecture", "graph.json", "-o", "m.json")
    assert "0 failed" in run("verify", "m.json", "--source", "w.ckpt").output
    state["model.0.weight"][1, 1] = 7
    torch.save(state, "w.ckpt")
    run("verify", "m.json", "--source", "w.ckpt", code=1)


def test_a_source_is_named_as_a_conversion_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """--prefix, --rename and --allow-extra; a state_dict in parts is joined; the command that repeats a report says them."""
    monkeypatch.chdir(tmp_path)
    builder = converter.GraphBuilder("line")
    x = builder.input("x", "float32", ["batch", 3])
    hidden = builder.op("linear", x, builder.parameter("encoder.weight", "float32", [2, 3]))
    builder.output("y", builder.op("linear", hidden, builder.parameter("decoder.weight", "float32", [2, 2])))
    save_graph(builder.graph(), builder.parameters, "graph.json")
    first, second = torch.arange(6.0).reshape(2, 3), torch.arange(4.0).reshape(2, 2)
    torch.save({"encoder": {"weight": first}, "decoder": {"weight": second}}, "parts.pt")
    torch.save({"ema.front.weight": first, "ema.decoder.weight": second, "ema.steps": torch.ones(1), "other": torch.ones(2)}, "ema.pt")
    run("torch-to-json", "parts.pt", "--architecture", "graph.json", "-o", "m.json")
    assert "0 failed" in run("verify", "m.json", "--source", "parts.pt", "--runtime", "numpy").output
    told = ("--prefix", "ema", "--rename", "front=encoder", "--allow-extra")
    run("torch-to-json", "ema.pt", "--architecture", "graph.json", *told, "-o", "e.json")
    done = json.loads(run("verify", "e.json", "--source", "ema.pt", *told, "--runtime", "numpy", "--json").output)
    assert done["equivalent"]
    assert all(word in done["command"] for word in told)
    run("verify", "e.json", "--source", "ema.pt", "--runtime", "numpy", code=1)
    run("verify", "e.json", "--source", "ema.pt", "--prefix", "em", "--runtime", "numpy", code=2)
    run("verify", "e.json", "--allow-extra", code=2)
    torch.save({"encoder": {"weight": first}, "decoder": {"weight": second + 1}}, "parts.pt")
    run("verify", "m.json", "--source", "parts.pt", "--runtime", "numpy", code=1)


def test_a_live_module_as_the_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "livecode.py").write_text(CODE)
    spec = ("--module", "livecode:instance", "--input", "x:float32[rows,4]")
    run("torch-to-json", "-o", "m.json", *spec)
    run("json-to-torch", "m.json", "-o", "w.pt")
    output = run("verify", "m.json", "--source", "w.pt", *spec).output
    assert "structure" in output.lower()
    bad = changed(converter.load("m.json"), second__bias=nudge((0,), 1.001))
    converter.save(bad, "bad.json")
    run("verify", "bad.json", *spec, "--quiet", code=1)
    sys.modules.pop("livecode")


def test_given_inputs_are_judged_too(here: Path) -> None:
    np.savez("x.npz", x=np.ones((2, 4), np.float32))
    report = json.loads(run("verify", "m.json", "--input-file", "x.npz", "--cases", "0", "--json").stdout)
    assert "given" in {row["case"] for row in report["rows"]}
    np.savez("bad.npz", x=np.ones((2, 5), np.float32))
    run("verify", "m.json", "--input-file", "bad.npz", code=2)


@pytest.mark.parametrize(("args", "part"), [
    (["missing.json"], "no such file"), (["m.pt"], "no computation"), (["m.json", "m.json"], "given twice"), ([], "Missing argument"),
    (["m.json", "--runtime", "tpu"], "no runtime is called 'tpu'"), (["m.json", "--input", "x:float32[2]"], "belongs to --module"),
    (["m.json", "--cases", "-1"], "not in the range"), (["m.json", "--source", "missing.pt"], "no such file"), (["."], "no computation"),
])
def test_what_cannot_be_judged_exits_with_2(here: Path, args: list[str], part: str) -> None:
    assert part in " ".join(run("verify", *args, code=2).output.split())


# diff --------------------------------------------------------------------------------------------------------------------


def test_the_same_model_in_two_files(here: Path) -> None:
    assert "are the same: graph and parameters, bit for bit" in run("diff", "m.json", "m.onnx").output
    assert "are the same: parameters" in run("diff", "m.json", "m.pt").output
    assert run("diff", "m.json", "m.h5", "--quiet").output == ""


def test_one_bit_is_a_difference(here: Path, model: Model) -> None:
    def flip(values: np.ndarray) -> np.ndarray:
        values.view(np.uint32)[1, 2] ^= 1
        return values

    converter.save(changed(model, layer__weight=flip), "bad.json")
    output = run("diff", "m.json", "bad.json", code=1).output
    assert "layer.weight" in output
    assert "1 of 16 values differ" in output
    found = json.loads(run("diff", "m.json", "bad.json", "--json", code=1).stdout)
    assert found["same"] is False
    assert found["graph"] == []
    assert found["parameters"][0]["count"] == 1
    assert 0 < found["parameters"][0]["max_abs"] < 1e-6


def test_the_sign_of_zero_and_the_bits_of_nan_are_differences(here: Path, model: Model) -> None:
    converter.save(changed(model, layer__bias=lambda values: values * 0), "a.json")
    converter.save(changed(model, layer__bias=lambda values: values * 0 * np.float32(-1)), "b.json")
    assert "0 apart" in run("diff", "a.json", "b.json", code=1).output
    converter.save(changed(model, layer__bias=lambda values: values * np.float32("nan")), "c.json")
    assert "not finite" in run("diff", "a.json", "c.json", code=1).output


def test_graphs_names_shapes_and_aliases_are_compared(here: Path, model: Model) -> None:
    store = {name: model.parameters.read(name) for name in model.parameters}
    arrays = {**store, "extra": np.zeros(2, np.float32)}
    converter.save(replace(model, parameters=InMemoryParameters(arrays)), "extra.json")
    assert "only in B" in run("diff", "m.json", "extra.json", code=1).output
    converter.save(replace(model, parameters=InMemoryParameters(arrays, {"tied": "extra"})), "tied.json")
    arrays["tied"] = arrays["extra"]
    converter.save(replace(model, parameters=InMemoryParameters(arrays)), "untied.json")
    assert "alias: extra in A, none in B" in run("diff", "tied.json", "untied.json", code=1).output
    arrays["extra"] = np.zeros((1, 2), np.float32)
    converter.save(replace(model, parameters=InMemoryParameters(arrays)), "shape.json")
    assert "spec: float32[2] in A, float32[1, 2] in B" in run("diff", "untied.json", "shape.json", code=1).output
    converter.save(replace(model, graph=replace(model.graph, name="other")), "named.json")
    assert "+name: other" in run("diff", "m.json", "named.json", code=1).output


def test_diff_of_what_cannot_be_read(here: Path) -> None:
    run("diff", "m.json", "missing.json", code=2)
    run("diff", "m.json", code=2)


# inspect -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", ["m.json", "m.h5", "m.onnx"])
def test_what_a_person_sees(here: Path, model: Model, file: str) -> None:
    output = run("inspect", file, "--nodes", "--parameters").output
    for part in ("x ", "float32[batch, 4]", "batch 1 and up", "linear", "multiply", "3 tensors", "36 values", "144 B",
                 converter.model_digest(model), f"torch {torch.__version__}", "layer.weight  float32[4, 4]", "= linear(x, layer.weight"):
        assert part in output, part


def test_facts_as_json(here: Path, model: Model) -> None:
    facts = json.loads(run("inspect", "m.json", "--json").stdout)
    assert facts["digest"] == converter.model_digest(model)
    assert facts["operators"] == {"linear": 2, "multiply": 1}
    assert facts["parameters"]["entries"]["layer.bias"] == {"spec": "float32[4]"}
    assert "digest" not in json.loads(run("inspect", "m.json", "--json", "--no-digest").stdout)


def test_a_checkpoint_is_inspected_too(here: Path) -> None:
    assert "3 tensors" in run("inspect", "m.pt").output
    torch.save({"model": torch.load("m.pt", weights_only=True), "epoch": 1}, "c.pt")
    assert "under 'model'" in run("inspect", "c.pt").output
    torch.save({"a": {"w": torch.ones(1)}, "b": {"w": torch.ones(2)}}, "two.pt")
    assert "--key a" in run("inspect", "two.pt", code=2).output
    assert "float32[2]" in run("inspect", "two.pt", "--key", "b", "--parameters").output


def test_inspect_refuses_as_json_too(here: Path) -> None:
    error = json.loads(run("inspect", "missing.json", "--json", code=2).stdout)["error"]
    assert error["kind"] == "FormatError"
    assert error["where"] == "missing.json"


# run ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("runtime", ["numpy", "onnxruntime", "torch", "reference"])
@pytest.mark.parametrize("file", ["m.json", "m.h5", "m.onnx"])
def test_a_model_runs(here: Path, model: Model, runtime: str, file: str) -> None:
    example = model.examples[0]
    np.save("x.npy", example.inputs["x"])
    result = run("run", file, "--input", "x=x.npy", "-o", "y.npz", "--runtime", runtime)
    assert f"with {runtime}" in result.output
    with np.load("y.npz") as outputs:
        assert list(outputs) == ["hidden", "y"]
        np.testing.assert_allclose(outputs["y"], example.outputs["y"], rtol=1e-5, atol=1e-6)


def test_outputs_are_printed_without_a_file(here: Path) -> None:
    np.savez("x.npz", x=np.ones((1, 4), np.float32))
    result = run("run", "m.json", "--input-file", "x.npz")
    assert "y: float32[1, 4]" in result.stdout
    assert "Ran Net" in result.stderr


def test_small_floats_go_in_and_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    builder = converter.GraphBuilder("small")
    x = builder.input("x", "bfloat16", ["batch"])
    builder.output("y", builder.op("add", x, x))
    converter.save(Model(builder.graph(), InMemoryParameters()), "m.json")
    np.save("x.npy", np.arange(3).astype(ml_dtypes.bfloat16))
    run("run", "m.json", "--input", "x=x.npy", "-o", "y.npz")
    with np.load("y.npz") as outputs:
        assert outputs["y"].view(ml_dtypes.bfloat16).astype(float).tolist() == [0, 2, 4]


@pytest.mark.parametrize(("args", "part"), [
    (["m.json"], "names do not fit"),
    (["m.json", "--input", "x"], "NAME=FILE.npy"),
    (["m.json", "--input", "x=missing.npy"], "cannot read"),
    (["m.json", "--input", "x=x.npy", "--input", "x=x.npy"], "given twice"),
    (["m.json", "--input", "x=f64.npy"], "wrong dtype"),
    (["m.json", "--input", "x=x.npy", "-o", "y.txt"], "written as an .npz"),
    (["m.json", "--input", "x=x.npy", "--runtime", "gpu"], "no runtime"),
    (["m.json", "--input", "x=objects.npy"], "cannot read"),
    (["m.json", "--input-file", "x.npy"], "named arrays"),
    (["m.json", "--input", "x=x.npy", "-o", "nowhere/y.npz"], "cannot write"),
    (["m.json", "--input", "x=wide.npy"], "wrong shape"),
    (["m.json", "--input", "x=.."], "not a plain file"),
    (["m.pt", "--input", "x=x.npy"], "no computation"),
    (["m.json", "--input", "x=all.npz"], "several arrays"),
])
def test_a_run_that_cannot_be(here: Path, args: list[str], part: str) -> None:
    np.save("x.npy", np.ones((1, 4), np.float32))
    np.save("f64.npy", np.ones((1, 4)))
    np.save("wide.npy", np.ones((1, 5), np.float32))
    np.save("objects.npy", np.array([{}], object))
    np.savez("all.npz", x=np.ones((1, 4), np.float32))
    assert part in " ".join(run("run", *args, code=2).output.split())
    assert not Path("y.npz").exists()
