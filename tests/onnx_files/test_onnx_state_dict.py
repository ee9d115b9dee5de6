"""`onnx-to-torch -o weights.pt` on files of other tools: names and layouts of the modules that the file still knows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest
import torch
from click.testing import CliRunner
from torch import nn

import converter
from converter.cli.main import cli


class Tagger(nn.Module):
    """Layers whose weights exporters transpose, stack or name anew; the classifier shares its weight with the embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(12, 8)
        self.lstm = nn.LSTM(8, 4, bidirectional=True)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.slope = nn.PReLU()
        self.body = nn.ModuleDict({"first": nn.Linear(8, 8), "norm": nn.LayerNorm(8)})
        self.head = nn.Linear(8, 12)
        self.head.weight = self.table.weight
        for value in self.parameters():
            nn.init.uniform_(value, -1, 1)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.lstm(self.table(tokens))[0]
        x = self.attention(x, x, x, need_weights=False)[0]
        return self.head(self.body["norm"](self.slope(self.body["first"](x))))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::torch.jit.TracerWarning")
def test_an_exported_file_s_weights_load_into_the_module_that_it_came_from(tmp_path: Path) -> None:
    tokens = torch.randint(0, 12, (2, 5))
    module = Tagger().eval()
    torch.onnx.export(module, (tokens,), str(tmp_path / "m.onnx"), dynamo=False, input_names=["tokens"], verbose=False)
    other = Tagger().eval()
    other.load_state_dict({name: torch.from_numpy(value) for name, value in state(tmp_path / "m.onnx")[0].items()}, strict=True)
    assert torch.equal(other(tokens), module(tokens))


VALUES = np.arange(12, dtype=np.float32).reshape(4, 3)
NUMBERS = "{" + ", ".join(map(str, VALUES.reshape(-1))) + "}"


def saved(path: Path, body: str, weights: str = "", domains: str = "") -> tuple[Path, onnx.ModelProto]:
    proto = onnx.parser.parse_model(f"""<ir_version: 9, opset_import: ["": 17{domains}], producer_name: "elsewhere">
        g (float[n, 4] x) => (float[n, 3] y) <{weights}> {{ {body} }}""")
    onnx.save(proto, str(path))
    return path, proto


def state(path: Path) -> tuple[dict[str, np.ndarray], str]:
    """What `onnx-to-torch` writes, and says."""
    done = CliRunner().invoke(cli, ["onnx-to-torch", str(path), "-o", str(path.with_suffix(".pt"))])
    assert done.exit_code == 0, done.output
    return {name: value.numpy() for name, value in torch.load(path.with_suffix(".pt")).items()}, " ".join(done.stderr.split())


def test_a_tied_embedding_has_the_name_that_the_file_says_of_its_module(tmp_path: Path) -> None:
    """torch.export keeps one name of the two, which may be the other layer's."""
    _, proto = saved(tmp_path / "m.onnx", "tokens = Cast <to = 7> (x)  rows = Gather(shared, tokens)  y = MatMul(rows, val_4)",
                     f"float[4, 3] shared = {NUMBERS}, float[3, 4] val_4 = {NUMBERS}")
    for node, scope, kind in ((proto.graph.node[1], "table", "sparse.Embedding"), (proto.graph.node[2], "head", "linear.Linear")):
        node.metadata_props.add(key="pkg.torch.onnx.name_scopes", value=f"['', '{scope}', 'a']")
        node.metadata_props.add(key="pkg.torch.onnx.class_hierarchy", value=f"['M', 'torch.nn.modules.{kind}', 'aten.a.default']")
    onnx.save(proto, str(tmp_path / "m.onnx"))
    held, _ = state(tmp_path / "m.onnx")
    assert {name: value.shape for name, value in held.items()} == {"table.weight": (4, 3), "head.weight": (4, 3)}
    assert np.array_equal(held["table.weight"], VALUES)
    assert np.array_equal(held["head.weight"], VALUES.reshape(3, 4).T)


def test_weights_in_constant_nodes_are_weights(tmp_path: Path) -> None:
    path, _ = saved(tmp_path / "m.onnx", f"""w = Constant <value = float[4, 3] {NUMBERS}> ()  b = Constant <value = float[3] {{1, 2, 3}}> ()
        half = Constant <value = float {{0.5}}> ()  a = MatMul(x, w)  c = Add(a, b)  y = Mul(c, half)""")
    model = converter.load(path)
    assert [node.op for node in model.graph.nodes] == ["linear", "full", "multiply"]
    assert not model.constants
    held, _ = state(path)
    assert {name: value.tolist() for name, value in held.items()} == {"w": VALUES.T.tolist(), "b": [1, 2, 3]}


def test_weights_of_a_graph_that_cannot_be_read_are_as_they_lie(tmp_path: Path) -> None:
    path, _ = saved(tmp_path / "m.onnx", "a = MatMul(x, w)  y = own.Novel(a)", f"float[4, 3] w = {NUMBERS}", ', "own": 1')
    held, told = state(path)
    assert "own.Novel: no reader" in told
    assert np.array_equal(held["w"], VALUES)


@pytest.mark.parametrize(("producer", "names"), [("pytorch", {"table", "places"}), ("elsewhere", {"table"})])
def test_buffers_of_numbers_are_in_the_state_dict_where_an_exporter_names_them(tmp_path: Path, producer: str, names: set[str]) -> None:
    """The file of another tool does not say which of its integers a module holds, and which are numbers of its code."""
    body = "turned = Gather <axis = 1> (x, places)  four = Reshape(turned, val_1)  y = MatMul(four, table)"
    path, proto = saved(tmp_path / "m.onnx", body,
                        f"float[4, 3] table = {NUMBERS}, int64[4] places = {{3, 1, 0, 2}}, int64[2] val_1 = {{-1, 4}}")
    proto.producer_name = producer
    onnx.save(proto, str(path))
    held, _ = state(path)
    assert set(held) == names
    assert "places" not in names or held["places"].tolist() == [3, 1, 0, 2]
