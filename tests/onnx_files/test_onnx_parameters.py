"""Parameters in ONNX files: complex ones, those that no node reads, aliases; opening a file is quiet, and nothing is lost."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

import converter
from adapters.onnx.export import save_onnx
from adapters.onnx.load import load_onnx
from adapters.onnx.origin import COPY
from converter.format import model_digest


class Spectral(nn.Module):
    """Complex parameters read once, twice, through an alias, as they are, and not at all, beside real ones that no node reads."""

    def __init__(self, dtype: torch.dtype = torch.cfloat) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.weight = nn.Parameter(torch.randn(3, 4, dtype=dtype))
        self.shift = nn.Parameter(torch.randn((), dtype=dtype))
        self.tied = self.weight
        self.given = nn.Parameter(torch.randn(2, 1, dtype=dtype))
        self.unread = nn.Parameter(torch.randn(500, 2, dtype=dtype))
        self.norm = nn.BatchNorm1d(8)
        self.head = nn.Linear(40, 40)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        y = torch.fft.rfft(self.norm(x.float()).to(x.dtype))[..., :3] @ self.weight + self.shift
        return torch.fft.irfft(y * self.shift, n=8), self.tied.sum(0).real, self.given * 1


@pytest.mark.parametrize("dtype", [torch.cfloat, torch.cdouble])
@pytest.mark.parametrize("external", [False, True])
def test_complex_and_unread_parameters_come_back(dtype: torch.dtype, external: bool, tmp_path: Path) -> None:
    module, x = Spectral(dtype).eval(), torch.randn(2, 8, dtype=torch.float64 if dtype == torch.cdouble else torch.float32)
    model = converter.from_torch(module, (x,))
    path = tmp_path / "m.onnx"
    save_onnx(model, path, external=external)
    onnx.checker.check_model(str(path), full_check=True)
    found = load_onnx(path, verify=True)
    assert model_digest(found) == model_digest(model)
    for name, tensor in module.state_dict().items():
        held = found.parameters.read(name)
        assert held.tobytes() == np.ascontiguousarray(tensor.detach().numpy()).tobytes(), name
        assert held.shape == tuple(tensor.shape), name
    assert found.parameters.alias_of("tied") == "weight"
    longer = torch.randn(5, 8, dtype=x.dtype)
    with torch.no_grad():
        wanted = module(longer)
    for runtime in ("numpy", "onnxruntime"):
        outputs = converter.session(found, runtime).run({"x": longer.numpy()}).values()
        for output, truth in zip(outputs, wanted, strict=True):
            np.testing.assert_allclose(output, truth.numpy(), rtol=2e-5, atol=2e-5)
    assert converter.verify({"m": model, "file": found}, ["onnxruntime"], cases=1)


@pytest.mark.parametrize("external", [False, True])
def test_whoever_opens_a_file_hears_nothing(external: bool, tmp_path: Path) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
            self.pooler, self.rows = nn.LSTM(40, 40), nn.Embedding(300, 8)
            self.register_buffer("position_ids", torch.arange(600)[None])

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            del self.rows
            return self.body(x)

    net = Net().eval()
    whole = dict(net.state_dict())
    model = converter.from_torch(net, (torch.randn(1, 3, 9, 9),))
    save_onnx(model, tmp_path / "m.onnx", external=external)
    script = "import onnxruntime, sys; print(onnxruntime.InferenceSession(sys.argv[1]).get_inputs()[0].name)"
    done = subprocess.run([sys.executable, "-c", script, "m.onnx"], cwd=tmp_path, capture_output=True, text=True)
    assert (done.stdout.strip(), done.stderr) == ("x", "")
    proto = onnx.load(tmp_path / "m.onnx", load_external_data=False)
    read = {name for node in proto.graph.node for name in node.input}
    assert {item.name for item in proto.graph.initializer} <= read
    found = load_onnx(tmp_path / "m.onnx", verify=True)
    kept = {name: tensor for name, tensor in whole.items() if name in found.parameters}
    assert {"body.1.num_batches_tracked", "pooler.weight_ih_l0", "position_ids"} <= set(kept)
    assert all(found.parameters.read(name).tobytes() == tensor.numpy().tobytes() for name, tensor in kept.items())


def test_a_file_with_unread_initializers_in_its_graph_is_read(tmp_path: Path) -> None:
    """As files were written before: every parameter in the graph."""
    model = converter.from_torch(nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)).eval(), (torch.randn(2, 3),))
    save_onnx(model, tmp_path / "m.onnx")
    proto = onnx.load(tmp_path / "m.onnx")
    for training in proto.training_info:
        if training.initialization.name != COPY:
            proto.graph.initializer.extend(training.initialization.initializer)
    del proto.training_info[:]
    onnx.save(proto, tmp_path / "old.onnx")
    assert model_digest(load_onnx(tmp_path / "old.onnx", verify=True)) == model_digest(model)
