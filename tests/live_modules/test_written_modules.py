"""Modules as files of Python that need PyTorch alone: equal to the session, trainable, under the names of the model."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from click.testing import CliRunner
from onnx import TensorProto, helper, numpy_helper

import converter
from adapters.torch.rebuilding.written import module_source, save_module
from converter.builder import GraphBuilder
from converter.cli.main import cli
from converter.format.atomic import STDOUT
from converter.ir import Model
from converter.parameters import InMemoryParameters

pytestmark = pytest.mark.xdist_group("written_modules")  # one process makes what they share

FIXTURES = Path(__file__).parents[2] / "fixtures"
RUN = """
import sys, json, numpy, torch
sys.path.insert(0, {folder!r})
import model
assert not [name for name in sys.modules if name.partition(".")[0] in ("converter", "adapters", "onnx")]
module = model.load()
x = torch.from_numpy(numpy.load({folder!r} + "/x.npy"))
y = module(x)
y = y if isinstance(y, torch.Tensor) else next(iter(y.values()))
numpy.save({folder!r} + "/y.npy", y.detach().numpy())
module.train()
optimizer = torch.optim.SGD(module.parameters(), 0.01)
losses = []
for _ in range(5):
    optimizer.zero_grad()
    y = module(x)
    loss = (y if isinstance(y, torch.Tensor) else next(iter(y.values()))).square().mean()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
assert losses[-1] < losses[0], losses
print(json.dumps([list(module.state_dict()), [name for name, _ in module.named_parameters()]]))
"""


class Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 4, 3, padding=1)
        self.norm = torch.nn.BatchNorm2d(4)
        self.layers = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.GELU(), torch.nn.LayerNorm(8), torch.nn.Linear(8, 8))
        self.layers[3].weight = torch.nn.Parameter(self.layers[3].weight.detach().clone())
        self.register_buffer("scale", torch.full((), 2.0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.norm(self.conv(x))).amax((2, 3))
        return self.layers(y) * self.scale


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Model, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("written")
    torch.manual_seed(0)
    net = Net().eval()
    x = torch.randn(2, 3, 8, 8)
    model = converter.from_torch(net, (x,))
    converter.save(model, folder / "model.json")
    np.save(folder / "x.npy", x.numpy())
    return folder, model, {"x": x.numpy(), "state": list(net.state_dict())}


@pytest.mark.parametrize("source", ["json", "onnx"])
def test_a_file_stands_by_itself(saved: tuple[Path, Model, dict[str, Any]], source: str, tmp_path: Path) -> None:
    """It imports PyTorch alone, gives what the session gives, trains, and has the state_dict that `to-torch` writes."""
    folder, model, given = saved
    converter.save(model, tmp_path / "net.onnx")
    path = folder / "model.json" if source == "json" else tmp_path / "net.onnx"
    for output in ("model.py", "weights.pt"):
        result = CliRunner().invoke(cli, [f"{source}-to-torch", str(path), "-o", str(tmp_path / output)])
        assert result.exit_code == 0, result.output
    np.save(tmp_path / "x.npy", given["x"])
    found = subprocess.run([sys.executable, "-I", "-c", RUN.format(folder=str(tmp_path))], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    state, learned = json.loads(found.stdout.splitlines()[-1])
    assert state == list(torch.load(tmp_path / "weights.pt"))
    assert set(state) <= set(given["state"])
    assert learned == [name for name in state if not name.startswith(("scale", "norm.running", "norm.num"))]
    (expected,) = converter.session(model).run({model.graph.inputs[0].name: given["x"]}).values()
    np.testing.assert_allclose(np.load(tmp_path / "y.npy"), expected, rtol=1e-4, atol=1e-5)
    text = (tmp_path / "model.py").read_text(encoding="ascii")
    assert "torch.nn.functional.linear(" in text
    assert "self.layers" in text


HARMFUL = ['training"), exec("open(\'PWNED\',\'w\')"), getattr(self, "training', '"""\nopen("PWNED", "w")\n"""', "a\nimport os", "class",
           "", "rebuild_pad", "torch", "\u212a.weight", "w'\"\\", "__init__", "forward", "{forward}", "_hold", "_hold.weight"]


@pytest.mark.parametrize("name", HARMFUL, ids=range(len(HARMFUL)))
def test_names_are_texts(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the graph, its input, its values and its parameters are called: nothing of it runs, and the state_dict has the name."""
    monkeypatch.chdir(tmp_path)
    b = GraphBuilder(name or "g")
    x = b.input(f"x{name}", "float32", [2])
    w = b.parameter(name or "w", "float32", [2])
    b.output(f"y{name}", b.op("add", b.op("pad", b.op("erf", x), pads=((0, 0),)), w))
    model = Model(b.graph(), InMemoryParameters({name or "w": np.asarray([1, 2], np.float32)}))
    namespace = _run(model, tmp_path)
    module = namespace["load"]()
    assert list(module.state_dict()) == [name or "w"]
    (y,) = module(torch.zeros(2)).values()
    assert y.tolist() == [1, 2]
    module.load_state_dict({name or "w": torch.tensor([3.0, 4.0])})
    assert not (tmp_path / "PWNED").exists()


def _run(model: Model, folder: Path) -> dict[str, Any]:
    path, _ = converter.save(model, folder / "written.py")
    namespace: dict[str, Any] = {"__name__": "written", "__file__": str(path)}
    exec(compile(path.read_text(encoding="ascii"), str(path), "exec"), namespace)
    return namespace


@pytest.mark.parametrize("name", ["self", "torch", "math", "os", "load", "TENSORS", "inf", "getattr", "fx_pytree", "input"])
def test_an_input_is_called_like_something_of_the_file(name: str, tmp_path: Path) -> None:
    b = GraphBuilder("g")
    x = b.input(name, "float32", ["n", 3])
    b.output("y", b.op("add", b.op("max", b.op("reshape", x, shape=("3*n", 1)), axis=(1,)), b.parameter("0.w", "float32", [1])))
    model = Model(b.graph(), InMemoryParameters({"0.w": np.ones(1, np.float32)}))
    for module in (_run(model, tmp_path)["load"](), converter.to_torch(model)):
        (y,) = module(torch.zeros(2, 3)).values()
        assert y.tolist() == [1] * 6


@pytest.mark.parametrize("name", ["elman", "conv_digits", "lstm_classifier", "gru_classifier", "tied_lm"])
def test_fixtures_give_what_the_session_gives_and_learn(name: str, tmp_path: Path) -> None:
    model = converter.load(FIXTURES / name / "model.json")
    module = _run(model, tmp_path)["load"]()
    sizes = {"batch": 2, "time": 5, "height": 6, "width": 6}
    shape = tuple(size if isinstance(size, int) else sizes[str(size)] for size in model.graph.inputs[0].spec.shape)
    whole = model.graph.inputs[0].spec.dtype.is_integer
    x = np.arange(np.prod(shape)).reshape(shape) % 7 if whole else np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    given = torch.from_numpy(x)
    y = scores(module(given))
    (expected,) = converter.session(model).run({model.graph.inputs[0].name: x}).values()
    np.testing.assert_allclose(y.detach().numpy(), expected, rtol=1e-4, atol=1e-4)
    before = torch.nn.functional.cross_entropy(y.flatten(0, -2), torch.zeros(y.flatten(0, -2).shape[0], dtype=torch.int64))
    before.backward()
    with torch.no_grad():
        for parameter in module.parameters():
            assert parameter.grad is not None
            parameter -= 1e-4 * parameter.grad
    y = scores(module(given)).flatten(0, -2)
    assert torch.nn.functional.cross_entropy(y, torch.zeros(len(y), dtype=torch.int64)) < before
    assert len(list(module.parameters())) < len(module.state_dict()) or name != "tied_lm"


def scores(outputs: Any) -> torch.Tensor:
    return outputs["scores"] if isinstance(outputs, dict) else outputs


def test_a_file_of_another_tool_is_written_as_it_is_read(tmp_path: Path) -> None:
    """Its graph is read, where `-o weights.pt` takes its initializers alone."""
    w = np.ones((3, 2), np.float32)
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "fc/w:0"], ["z"]), helper.make_node("Relu", ["z"], ["y"])], "g",
                              [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3])],
                              [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 2])], [numpy_helper.from_array(w, "fc/w:0")])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), tmp_path / "m.onnx")
    result = CliRunner().invoke(cli, ["onnx-to-torch", str(tmp_path / "m.onnx"), "-o", str(tmp_path / "m.py")])
    assert result.exit_code == 0, result.output
    namespace: dict[str, Any] = {"__name__": "m", "__file__": str(tmp_path / "m.py")}
    exec(compile((tmp_path / "m.py").read_text(encoding="ascii"), "m.py", "exec"), namespace)
    y = namespace["load"]()(torch.ones(2, 3))
    y = y if isinstance(y, torch.Tensor) else y["y"]
    assert y.tolist() == [[3, 3]] * 2


def test_standard_output_and_branches_are_refused() -> None:
    b = GraphBuilder("g")
    x = b.input("x", "float32", [2])
    branches = {}
    for name in ("then_branch", "else_branch"):
        inner = GraphBuilder(name)
        inner.output("y", inner.op("negative", inner.input("x", "float32", [2])))
        branches[name] = inner.graph()
    (y,) = b.add("cond", (b.op("any", b.op("greater", x, 0.0)), x), branches)
    b.output("y", y)
    with pytest.raises(converter.ConverterError, match="branches and loops"):
        module_source(Model(b.graph(), InMemoryParameters()), "weights.pt")
    loop, body = GraphBuilder("loop"), GraphBuilder("body")
    body.output("s", body.op("add", body.input("s", "float32", [2]), body.input("x", "float32", [2])))
    loop.output("y", loop.add("scan", (loop.input("s", "float32", [2]), loop.input("x", "float32", ["n", 2])),
                              {"states": 1, "sequences": 1, "body": body.graph()})[0])
    with pytest.raises(converter.ConverterError, match=r"branches and loops.*scan"):
        module_source(Model(loop.graph(), InMemoryParameters()), "weights.pt")
    with pytest.raises(converter.ConverterError, match="two files"):
        save_module(Model(b.graph(), InMemoryParameters()), STDOUT)
