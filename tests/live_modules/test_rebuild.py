"""Neutral models as PyTorch modules again: the same names, the same results, trainable, and exported to the same graph."""

from __future__ import annotations

import copy
import pickle
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

import converter
from adapters.torch.rebuilding.rebuild import to_module
from converter.builder import GraphBuilder
from converter.dims import symbol
from converter.errors import ConversionWarning, UnsupportedError
from converter.format import model_digest
from converter.ir import Model
from converter.parameters import InMemoryParameters

pytestmark = pytest.mark.xdist_group("rebuild")  # one process makes what they share


class Network(torch.nn.Module):
    """Tied weights, buffers of both kinds, a recurrent layer, and sizes in its arithmetic."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = torch.nn.Embedding(20, 8)
        self.layers = torch.nn.ModuleList([torch.nn.LSTM(8, 8, batch_first=True), torch.nn.LayerNorm(8)])
        self.out = torch.nn.Linear(8, 20)
        self.out.weight = self.embedding.weight
        self.norm = torch.nn.BatchNorm1d(8)
        self.register_buffer("scale", torch.tensor(2.0))
        self.register_buffer("positions", torch.linspace(0, 1, 64), persistent=False)

    def forward(self, tokens: torch.Tensor) -> dict[str, torch.Tensor]:
        batch, time = tokens.shape
        hidden, _ = self.layers[0](self.embedding(tokens) * self.scale)
        hidden = self.layers[1](hidden) + self.positions[:time].unsqueeze(-1)
        hidden = self.norm(hidden.transpose(1, 2)).transpose(1, 2)
        hidden = hidden.reshape(batch * time, 2, 4).softmax(-1).reshape(batch, time, 8)
        return {"logits": self.out(1.0 / (2 * hidden + 3)), "hidden": hidden}


@pytest.fixture(scope="module")
def source() -> Network:
    torch.manual_seed(0)
    return Network().eval()


@pytest.fixture(scope="module")
def model(source: Network) -> Model:
    with pytest.warns(ConversionWarning, match="'time'.* ends at 64"):
        return converter.from_torch(source, (torch.randint(0, 20, (3, 7)),), dims={"tokens": ["batch", "time"]})


def test_names_and_kinds(source: Network, model: Model) -> None:
    module = to_module(model)
    assert module.state_dict().keys() == source.state_dict().keys()
    assert dict(module.named_parameters()).keys() == dict(source.named_parameters()).keys()
    assert all(parameter.requires_grad for parameter in module.parameters())
    assert module.out.weight is module.embedding.weight
    assert "positions" not in module.state_dict()
    assert dict(module.named_buffers()).keys() == dict(source.named_buffers()).keys()
    for name, values in source.state_dict().items():
        assert torch.equal(module.state_dict()[name], values)


def test_a_state_dict_goes_both_ways(source: Network, model: Model) -> None:
    module = to_module(model)
    module.load_state_dict(source.state_dict())
    Network().load_state_dict(module.state_dict())


@pytest.mark.parametrize("size", [(1, 1), (2, 5), (4, 33)])
def test_results_at_other_sizes(source: Network, model: Model, size: tuple[int, int]) -> None:
    tokens = torch.randint(0, 20, size, generator=torch.Generator().manual_seed(1))
    found, wanted = to_module(model)(tokens), source(tokens)
    assert list(found) == list(wanted)
    for name, values in wanted.items():
        torch.testing.assert_close(found[name], values)


def test_code_reads_as_pytorch(model: Model) -> None:
    code = to_module(model).code
    assert "def forward(self, tokens)" in code
    assert "batch = tokens.size(0)" in code
    assert "reshape((batch, time, 8))" in code
    assert "out_weight = self.out.weight" in code
    assert "torch.nn.functional.layer_norm" in code


def test_training_moves_every_parameter(model: Model) -> None:
    module = to_module(model)
    module.train()
    before = {name: parameter.detach().clone() for name, parameter in module.named_parameters()}
    optimizer = torch.optim.SGD(module.parameters(), lr=0.5)
    tokens = torch.randint(0, 20, (4, 6), generator=torch.Generator().manual_seed(2))
    losses = []
    for _ in range(5):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(module(tokens)["logits"].flatten(0, 1), tokens.flatten())
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert [name for name, parameter in module.named_parameters() if torch.equal(parameter, before[name])] == []


def test_gradients_are_those_of_the_source(source: Network, model: Model) -> None:
    tokens = torch.randint(0, 20, (2, 5), generator=torch.Generator().manual_seed(3))
    module, own = to_module(model), copy.deepcopy(source)
    module(tokens)["logits"].sum().backward()
    own(tokens)["logits"].sum().backward()
    wanted = dict(own.named_parameters())
    for name, parameter in module.named_parameters():
        torch.testing.assert_close(parameter.grad, wanted[name].grad, rtol=1e-4, atol=1e-5)


def test_the_rebuilt_module_converts_to_the_same_model(model: Model) -> None:
    with pytest.warns(ConversionWarning, match="'time'.* ends at 64"):
        again = converter.from_torch(to_module(model), (torch.randint(0, 20, (3, 7)),), dims={"tokens": ["batch", "time"]})
    (table,) = (node for node in again.graph.nodes if node.op == "slice")
    # That the time is at most the table's length is a condition that the rebuilt module asks for after it.
    plain = replace(table, attributes={**table.attributes, "stops": (symbol("time"),)})
    graph = replace(again.graph, nodes=tuple(plain if node is table else node for node in again.graph.nodes))
    assert model_digest(replace(again, graph=graph)) == model_digest(model)


def test_copies_and_pickles(model: Model) -> None:
    module = to_module(model)
    tokens = torch.randint(0, 20, (2, 3), generator=torch.Generator().manual_seed(4))
    for other in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        torch.testing.assert_close(other(tokens), module(tokens))


def test_the_public_function_reads_files(model: Model, tmp_path: object) -> None:
    path = f"{tmp_path}/model.json"
    converter.save(model, path)
    assert converter.to_torch(path).state_dict().keys() == converter.to_torch(model).state_dict().keys()


def _two_named(first: str, second: str) -> Model:
    builder = converter.GraphBuilder("g")
    x = builder.input("x", "float32", ["n"])
    y = builder.op("add", builder.op("add", x, builder.parameter(first, "float32", [])), builder.parameter(second, "float32", []))
    builder.output("output", y)
    values = {first: np.float32(1), second: np.float32(2)}
    return Model(builder.graph(), converter.InMemoryParameters({name: np.asarray(value) for name, value in values.items()}))


CODE = 'training"), exec("raise SystemExit(7)"), getattr(self, "training'
ODD_NAMES = [("a", "a.b"), ("a.b", "a"), ("forward", "b"), ("a..b", "b"), ("graph.x", "b"), ("parameter_1", "a-b"), ("a b", "parameter_0"),
             ("lambda", "x.class.y"), ("\ufb01", "fi"), ("", "."), ("a\nb", "a\\b"), (CODE, 'x".y'), ("__class__", "_modules.a")]


@pytest.mark.parametrize("names", ODD_NAMES)
def test_names_that_are_no_attributes(names: tuple[str, str]) -> None:
    model = _two_named(*names)
    outputs = converter.session(model, runtime="torch").run({"x": np.zeros(3, np.float32)})
    np.testing.assert_array_equal(outputs["output"], np.full(3, 3, np.float32))
    module = to_module(model)
    for other in (module, copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert {name: float(value) for name, value in other.state_dict().items()} == {names[0]: 1, names[1]: 2}
        other.load_state_dict({names[0]: torch.tensor(5.0), names[1]: torch.tensor(6.0)})
        torch.testing.assert_close(other(torch.zeros(3)), torch.full((3,), 11.0))
    outer = torch.nn.ModuleDict({"inner": module})
    assert outer.state_dict().keys() == {f"inner.{name}" for name in names}
    outer.load_state_dict(outer.state_dict())


def test_inputs_that_are_no_identifiers() -> None:
    builder = converter.GraphBuilder("g")
    names = ["a.b", "a_b", "0", "class", "self"]
    inputs = [builder.input(name, "float32", ["n"]) for name in names]
    total = inputs[0]
    for position, value in enumerate(inputs[1:], 2):
        total = builder.op("add", total, builder.op("multiply", value, float(position)))
    builder.output("output_0", total)
    builder.output("output_1", inputs[4])
    model = Model(builder.graph(), converter.InMemoryParameters())
    found = to_module(model)(*(torch.full((2,), float(position)) for position in range(5)))
    assert isinstance(found, tuple)
    torch.testing.assert_close(found[0], torch.full((2,), 0.0 + 2 + 6 + 12 + 20))
    torch.testing.assert_close(found[1], torch.full((2,), 4.0))


def test_operators_without_a_torch_function_are_listed(monkeypatch: pytest.MonkeyPatch, model: Model) -> None:
    import adapters.torch.rebuilding.rebuild as rebuild

    known = {name: function for name, function in rebuild.rebuilders().items() if name not in ("lstm", "linear")}
    monkeypatch.setattr(rebuild, "rebuilders", lambda: known)
    with pytest.raises(UnsupportedError) as caught:
        to_module(model)
    assert {item["operator"]: item["count"] for item in caught.value.items} == {"lstm": 1, "linear": 1}


@pytest.mark.parametrize(("dtype", "axes", "groups"), [("int32", 1, 1), ("int32", 2, 3), ("uint8", 2, 1), ("int64", 3, 1)])
def test_a_dilated_convolution_of_integers(dtype: str, axes: int, groups: int) -> None:
    """torch has no kernel for it."""
    rng = np.random.default_rng(0)
    b = GraphBuilder("dilated")
    x = b.input("x", dtype, ("n", 3, *(9, 8, 7)[:axes]))
    weight = rng.integers(0, 9, (6, 3 // groups, *(2, 3, 2)[:axes])).astype(dtype)
    b.output("y", b.op("convolution", x, b.parameter("weight", dtype, weight.shape), stride=(2, 1, 1)[:axes], padding=(1,) * axes,
                       dilation=(2, 1, 3)[:axes], groups=groups))
    model = Model(b.graph(), InMemoryParameters({"weight": weight}))
    given = {"x": rng.integers(0, 9, (2, 3, *(9, 8, 7)[:axes])).astype(dtype)}
    wanted = converter.session(model, "reference").run(given)["y"]
    found = converter.session(model, "torch").run(given)["y"]
    assert found.dtype == wanted.dtype
    assert np.array_equal(found, wanted)


@pytest.mark.parametrize(("operator", "axes", "options"), [
    ("avg_pool", 1, {"padding": (0, 1), "count_include_pad": False}), ("avg_pool", 2, {"padding": (0, 1, 1, 0)}),
    ("avg_pool", 2, {"padding": (1, 0, 0, 1), "count_include_pad": False, "stride": (2, 1)}),
    ("avg_pool", 1, {"padding": (1, 0), "divisor_override": 3}), ("avg_pool", 1, {"padding": (1,), "divisor_override": 3}),
    ("max_pool", 1, {"padding": (0, 1)}), ("max_pool", 2, {"padding": (1, 0, 0, 1), "stride": (2, 1), "dilation": (1, 2)})])
def test_pools_whose_padding_differs_between_the_two_sides(operator: str, axes: int, options: dict[str, Any]) -> None:
    """As SAME_UPPER writes it; torch's own pools take one number."""
    b = GraphBuilder("pools")
    sizes = (9, 8)[:axes]
    for place, value in enumerate(b.add(operator, (b.input("x", "float32", ("n", 3, *sizes)),), {"kernel": (2, 3)[:axes], **options})):
        b.output(f"y_{place}", value)
    model = Model(b.graph(), InMemoryParameters())
    given = {"x": np.random.default_rng(0).standard_normal((2, 3, *sizes)).astype(np.float32)}
    wanted, found = (converter.session(model, runtime).run(given) for runtime in ("reference", "torch"))
    for name, values in wanted.items():
        assert np.allclose(found[name], values, rtol=1e-6, atol=1e-7), name
