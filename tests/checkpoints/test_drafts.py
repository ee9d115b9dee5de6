"""Checkpoints of plain layers: what they leave open is said, and a draft that is filled in equals PyTorch's module."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import nn

import converter
from converter import reference
from converter.checkpoint import load_parameters
from converter.cli.main import cli
from converter.drafting import draft, is_draft, save_draft
from converter.drafting.layers import table
from converter.errors import ConverterError, FormatError, GraphError, ParameterError
from converter.ir import Model
from converter.parameters import InMemoryParameters

Answers = dict[str, Any]


def randomised(module: nn.Module) -> nn.Module:
    """Every parameter and statistic drawn; in evaluation mode."""
    torch.manual_seed(0)
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            if tensor.is_floating_point():
                tensor.copy_(torch.rand_like(tensor) + 0.5 if "running_var" in name else torch.randn_like(tensor) * 0.5)
    return module.eval()


def fill(path: Path, answers: Answers) -> None:
    """Puts an answer in place of each open choice, as a person does in an editor. All must be open, and all that is open must be told."""
    document = json.loads(path.read_text())
    left = dict(answers)
    for holder, prefix in ((document, ""), (document["input"], "input."), *((item, item.get("at", "") + "." * bool(item.get("at")))
                                                                           for item in document["layers"])):
        for key, value in list(holder.items()):
            if value == "?":
                answer = left.pop(prefix + key)
                holder.update({key: answer} if not isinstance(answer, dict) else answer)
    assert not left
    path.write_text(json.dumps(document))


def drafted(module: nn.Module, folder: Path, answers: Answers) -> Model:
    """The model of a module's state_dict alone and the answers to what is open."""
    torch.save(module.state_dict(), folder / "weights.pt")
    with pytest.raises(FormatError, match="leave open") as caught:
        converter.from_checkpoint(folder / "weights.pt")
    assert all(name in str(caught.value) for name in list(answers)[:20])
    found = draft(load_parameters(folder / "weights.pt"))
    assert found is not None
    assert set(found.open_choices()) == set(answers)
    save_draft(found, folder / "graph.json")
    with pytest.raises(FormatError, match="open choice") as caught:
        converter.from_checkpoint(folder / "weights.pt", folder / "graph.json")
    assert all(f"- {name}" in str(caught.value) for name in answers)
    fill(folder / "graph.json", answers)
    model = converter.from_checkpoint(folder / "weights.pt", folder / "graph.json")
    assert set(model.parameters.names()) == set(module.state_dict())
    return model


def compare(model: Model, module: nn.Module, *inputs: torch.Tensor) -> None:
    """Every output in float64."""
    given = {port.name: value.numpy() for port, value in zip(model.graph.inputs, inputs, strict=True)}
    ours = reference.run(model, given, float_dtype="float64")
    with torch.no_grad():
        x, *states = [value.double() if value.is_floating_point() else value for value in inputs]
        found = module.double()(x, *([tuple(states)] if len(states) > 1 else states))
    module.float()
    flat = [found] if isinstance(found, torch.Tensor) else [found[0], *(found[1] if isinstance(found[1], tuple) else found[1:])]
    assert len(ours) == len(flat)
    for value, expected in zip(ours.values(), flat, strict=True):
        assert value.shape == tuple(expected.shape)
        assert np.abs(value - expected.numpy()).max() < 1e-9 * max(1.0, float(expected.abs().max()))


def rand(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(len(shape)))


CONV = {"stride": 1, "padding": 0, "dilation": 1, "groups": 1}


def conv(at: str, kind: str, open_kind: bool = False, **answers: Any) -> Answers:
    """Answers for a convolution; one that may be transposed is asked for its kind, and told the rest beside it."""
    found: Answers = {f"{at}.{name}": value for name, value in {**CONV, **answers}.items() if name in CONV}
    more = {name: value for name, value in {"padding_mode": "zeros", **answers}.items() if name not in CONV}
    if "Transpose" in kind:
        more = {"output_padding": 0, **{name: value for name, value in more.items() if name != "padding_mode"}}
    if open_kind:
        return {**found, f"{at}.layer": {"layer": kind, **more}}
    return {**found, **{f"{at}.{name}": value for name, value in more.items()}}


class Tagger(nn.Module):
    """A table, a recurrent layer and a head under names of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, 6)
        self.rnn = nn.GRU(6, 5, batch_first=True, bidirectional=True)
        self.head = nn.Linear(10, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        _, h_n = self.rnn(self.embedding(x))
        return torch.log_softmax(self.head(torch.tanh(torch.cat([h_n[-2], h_n[-1]], 1))), -1)


class Tied(nn.Module):
    """A language model whose table is its head too."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(7, 4)
        self.rnn = nn.LSTM(4, 4, num_layers=2, batch_first=True)
        self.head = nn.Linear(4, 7, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.rnn(self.embedding(x))[0])  # type: ignore[no-any-return]


IDS = torch.tensor([[1, 2, 3, 0], [4, 5, 6, 2]])
LSTM = {"initial_state": "zero", "take": "all"}
CASES: list[tuple[str, nn.Module, Answers, list[tuple[torch.Tensor, ...]]]] = [
    ("mlp", nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 3), nn.Softmax(-1)),
     {"input.shape": ["batch", 4], "1.layer": "ReLU", "2.layer": "Dropout(0.3)", "after 3.layer": "Softmax(dim=-1)"},
     [(rand(5, 4),), (rand(1, 4),)]),
    ("begins_without_tensors", nn.Sequential(nn.Flatten(), nn.Linear(6, 2, bias=False)),
     {"input.dtype": "float32", "input.shape": ["batch", 2, 3], "0.layer": "Flatten", "1.layer": "Linear", "after 1.layer": "Identity"},
     [(rand(3, 2, 3),)]),
    ("nested", nn.Sequential(nn.Sequential(nn.Linear(4, 4), nn.GELU("tanh")), nn.Tanh(), nn.Sequential(nn.ELU(0.5), nn.Linear(4, 2))),
     {"input.shape": ["batch", "time", 4], "after 0.0.layer": 'GELU(approximate="tanh")', "1.layer": {"layer": "Tanh"},
      "2.0.layer": {"layer": "ELU", "alpha": 0.5}, "after 2.1.layer": "Identity", "after 2.layer": "Identity"}, [(rand(2, 7, 4),)]),
    ("cnn", nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8, 1e-3), nn.LeakyReLU(0.2), nn.MaxPool2d(2),
                          nn.Conv2d(8, 6, (3, 1), padding=(1, 0), groups=2, padding_mode="reflect"), nn.GroupNorm(3, 6, 1e-4), nn.Flatten(),
                          nn.Linear(6 * 4 * 5, 3)),
     {"input.shape": ["batch", 3, 16, 20], **conv("0", "Conv2d", stride=2, padding=1), "0.padding_mode": "zeros", "1.eps": 1e-3,
      "2.layer": {"layer": "LeakyReLU", "negative_slope": 0.2}, "3.layer": "nn.MaxPool2d(2)",
      **conv("4", "Conv2d", padding=[1, 0], groups=2), "4.padding_mode": "reflect", "5.eps": 1e-4,
      "5.layer": {"layer": "GroupNorm", "num_groups": 3}, "6.layer": "Flatten", "after 7.layer": "Identity"}, [(rand(2, 3, 16, 20),)]),
    ("images_of_any_size", nn.Sequential(nn.Conv2d(3, 4, 3, padding="same", dilation=2), nn.ReLU6(), nn.AdaptiveAvgPool2d(1),
                                         nn.Flatten(), nn.Linear(4, 2)),
     {"input.shape": ["batch", 3, "height", "width"], **conv("0", "Conv2d", padding="same", dilation=2), "0.padding_mode": "zeros",
      "1.layer": "ReLU6", "2.layer": "AdaptiveAvgPool2d(1)", "3.layer": "Flatten()", "after 4.layer": "Identity"},
     [(rand(2, 3, 9, 6),), (rand(1, 3, 5, 13),)]),
    ("transposed", nn.Sequential(nn.ConvTranspose1d(4, 6, 3, 2, 1, 1, groups=2), nn.Conv1d(6, 4, 2, padding=1, padding_mode="circular")),
     {"input.shape": ["batch", 4, "length"], **conv("0", "ConvTranspose1d", stride=2, padding=1, output_padding=1, groups=2),
      "0.output_padding": 1, **conv("1", "Conv1d", padding=1), "1.padding_mode": "circular", "after 1.layer": "Identity"},
     [(rand(2, 4, 9),)]),
    ("may_be_transposed", nn.Sequential(nn.ConvTranspose3d(2, 2, 2, bias=False), nn.Conv3d(2, 2, (1, 2, 3))),
     {"input.shape": ["batch", 2, "depth", "height", "width"], **conv("0", "ConvTranspose3d", True), **conv("1", "Conv3d", True),
      "after 1.layer": "Identity"}, [(rand(1, 2, 3, 4, 5),)]),
    ("norms", nn.Sequential(nn.LayerNorm(6, 1e-3), nn.RMSNorm(6), nn.PReLU(), nn.BatchNorm1d(6, affine=False), nn.LayerNorm(6, bias=False)),
     {"input.shape": ["batch", 6], "0.layer": "LayerNorm", "0.eps": 1e-3, "1.layer": {"layer": "RMSNorm", "eps": None}, "2.layer": "PReLU",
      "3.eps": 1e-5, "4.layer": {"layer": "LayerNorm", "eps": 1e-5}, "after 4.layer": "Identity"}, [(rand(4, 6),)]),
    ("norms_of_channels", nn.Sequential(nn.InstanceNorm2d(3, affine=True), nn.BatchNorm2d(3, track_running_stats=False),
                                        nn.LayerNorm([3, 4, 5])),
     {"input.shape": ["batch", 3, 4, 5], "0.layer": "InstanceNorm2d", "0.eps": 1e-5, "1.layer": "BatchNormWithoutStatistics", "1.eps": 1e-5,
      "2.eps": 1e-5, "after 2.layer": "Identity"}, [(rand(2, 3, 4, 5),)]),
    ("rnn", nn.RNN(4, 5, 2, nonlinearity="relu", batch_first=True),
     {"input.shape": ["batch", "time", 4], "batch_first": True, "nonlinearity": "relu", **LSTM}, [(rand(2, 7, 4),), (rand(1, 1, 4),)]),
    ("rnn_tanh", nn.RNN(4, 5, bias=False), {"input.shape": ["time", "batch", 4], "batch_first": False, "nonlinearity": "tanh", **LSTM},
     [(rand(7, 2, 4),)]),
    ("lstm", nn.LSTM(4, 8, 2, bidirectional=True, proj_size=3),
     {"input.shape": ["time", "batch", 4], "batch_first": False, **LSTM}, [(rand(6, 2, 4),)]),
    ("lstm_with_states", nn.LSTM(4, 5, batch_first=True),
     {"input.shape": ["batch", "time", 4], "batch_first": True, "initial_state": "input", "take": "all"},
     [(rand(2, 6, 4), rand(1, 2, 5), rand(1, 2, 5) * 2)]),
    ("gru", nn.GRU(4, 5, 1, dropout=0.0), {"input.shape": ["time", 4], "batch_first": False, **LSTM}, [(rand(6, 4),)]),
    ("tagger", Tagger(), {"input.shape": ["batch", "time"], "input.dtype": "int64", "in_this_order": True, "embedding.layer": "Embedding",
                          "after embedding.layer": "Identity", "rnn.batch_first": True, "rnn.initial_state": "zero", "rnn.take": "h_n_both",
                          "after rnn.layer": "Tanh", "after head.layer": "LogSoftmax(dim=-1)"}, [(IDS,), (IDS[:1, :1],)]),
    ("tied", Tied(), {"input.shape": ["batch", "time"], "input.dtype": "int64", "in_this_order": True, "embedding.layer": "Embedding",
                      "after embedding.layer": "Identity", "rnn.batch_first": True, "rnn.initial_state": "zero", "rnn.take": "output",
                      "after rnn.layer": "Identity", "head.layer": "Linear", "after head.layer": "Identity"}, [(IDS,)]),
]


@pytest.mark.parametrize(("name", "module", "answers", "runs"), CASES, ids=[case[0] for case in CASES])
def test_a_filled_draft_equals_the_module(name: str, module: nn.Module, answers: Answers, runs: list[tuple[torch.Tensor, ...]],
                                          tmp_path: Path) -> None:
    randomised(module)
    model = drafted(module, tmp_path, answers)
    for inputs in runs:
        compare(model, module, *inputs)
    converter.save(model, tmp_path / "model.json")
    compare(converter.load(tmp_path / "model.json"), module, *runs[0])
    if name == "tied":
        assert model.parameters.alias_of("head.weight") == "embedding.weight"


@pytest.mark.parametrize(("take", "expected"), [("last_step", lambda output, h_n: output[:, -1]), ("h_n", lambda output, h_n: h_n[-1])])
def test_what_of_a_recurrent_layer_goes_on(take: str, expected: Any, tmp_path: Path) -> None:
    module = randomised(nn.GRU(4, 5, 2, batch_first=True, bidirectional=True))
    model = drafted(module, tmp_path, {"input.shape": ["batch", "time", 4], "batch_first": True, "initial_state": "zero", "take": take})
    x = rand(3, 6, 4)
    with torch.no_grad():
        wanted = expected(*module.double()(x.double())).numpy()
    (ours,) = reference.run(model, {"x": x.numpy()}, float_dtype="float64").values()
    assert np.abs(ours - wanted).max() < 1e-12


WITHOUT_TENSORS: dict[str, tuple[int, ...]] = {
    **dict.fromkeys(("Identity", "Sigmoid", "Tanh", "LogSigmoid", "ReLU", "SELU", "SiLU", "Mish", "Hardswish", "Hardsigmoid", "ReLU6",
                     "LeakyReLU", "LeakyReLU(0.3)", "ELU(0.4)", "CELU(0.7)", "GELU", 'GELU(approximate="tanh")',
                     "Softplus(2, threshold=1.5)",
                     "Softshrink(0.2)", "Hardshrink(0.7)", "Threshold(0.1, 20)", "Hardtanh(-0.5, 0.25)", "GLU", "GLU(dim=1)", "Softmax(1)",
                     "LogSoftmax(dim=-1)", "Softmin(0)", "Softsign", "Tanhshrink", "Dropout(0.9)", "AlphaDropout", "FeatureAlphaDropout",
                     "Flatten", "Flatten(0, 1)", "Flatten(2)", "Unflatten(1, (2, 3))"), (2, 6, 8)),
    "Softmax2d": (2, 3, 4, 5), "Dropout1d": (2, 6, 8), "Dropout2d": (2, 3, 4, 5), "Dropout3d": (2, 3, 4, 5, 2),
    "PixelShuffle(2)": (2, 8, 3, 5), "PixelUnshuffle(2)": (2, 3, 4, 6),
    "Upsample(scale_factor=2)": (2, 3, 4, 5), "Upsample(size=(7, 3), mode='bilinear')": (2, 3, 4, 5),
    "Upsample(scale_factor=(2, 3), mode='bicubic', align_corners=True)": (2, 3, 4, 5), "Upsample(scale_factor=3, mode='linear')": (2, 3, 4),
}
for _axes, _shape in ((1, (2, 3, 13)), (2, (2, 3, 13, 8)), (3, (1, 2, 7, 8, 9))):
    WITHOUT_TENSORS.update({f"{text.replace('Nd', f'{_axes}d')}": _shape for text in (
        "MaxPoolNd(3)", "MaxPoolNd(3, 2, 1, ceil_mode=True)", "MaxPoolNd(2, stride=1, dilation=2)", "AvgPoolNd(2)",
        "AvgPoolNd(3, 2, padding=1, count_include_pad=False)", "AdaptiveAvgPoolNd(3)", "AdaptiveMaxPoolNd(2)", "ZeroPadNd(1)",
        "ConstantPadNd(2, 0.5)", "ReflectionPadNd(1)", "ReplicationPadNd(2)", "CircularPadNd(1)", f"ZeroPadNd({tuple(range(2 * _axes))})")})
STEPS: dict[str, Any] = {
    "Permute(dims=[2, 0, 1])": lambda x: x.permute(2, 0, 1), "Select(1, -1)": lambda x: x[:, -1], "Mean(1)": lambda x: x.mean(1),
    "Mean(dim=[0, 2], keepdim=True)": lambda x: x.mean((0, 2), keepdim=True), "Max(-1)": lambda x: x.amax(-1), "Sum(1)": lambda x: x.sum(1),
    "Unsqueeze(1)": lambda x: x.unsqueeze(1), "Squeeze(0)": lambda x: x.squeeze(0),
}


def bound(text: str, shape: tuple[int, ...]) -> Model:
    from converter.drafting.document import graph_of

    found = graph_of({"format": "neutral-model-draft", "version": "1.0", "input": {"name": "x", "dtype": "float32", "shape": list(shape)},
                      "layers": [{"layer": text}], "output": "y"})
    return Model(found.graph, found.constants)


@pytest.mark.filterwarnings("ignore:Implicit dimension choice")
@pytest.mark.parametrize("text", WITHOUT_TENSORS)
def test_layers_without_tensors(text: str) -> None:
    shape = WITHOUT_TENSORS[text]
    module: nn.Module = eval(f"nn.{text}" if "(" in text else f"nn.{text}()", {"nn": nn})
    compare(bound(text, shape), module.eval(), rand(*shape) * 2)


@pytest.mark.parametrize("text", STEPS)
def test_steps(text: str) -> None:
    x = rand(1, 4, 6)
    (ours,) = reference.run(bound(text, (1, 4, 6)), {"x": x.numpy()}, float_dtype="float64").values()
    assert np.array_equal(ours, STEPS[text](x.double()).numpy()) or np.abs(ours - STEPS[text](x.double()).numpy()).max() < 1e-12


@pytest.mark.parametrize("dtype", ["<f4", "single", "1 // batch", "max(batch, 3)", "O"])
def test_a_dtype_is_one_of_the_format_by_name(dtype: str) -> None:
    from converter.drafting.document import graph_of

    with pytest.raises(FormatError, match="not a dtype of the format"):
        graph_of({"format": "neutral-model-draft", "version": "1.0", "input": {"name": "x", "dtype": dtype, "shape": [2]},
                  "layers": [{"layer": "ReLU"}], "output": "y"})


def test_nothing_is_drafted_from_no_tensors() -> None:
    assert draft(InMemoryParameters({})) is None


def test_every_layer_without_tensors_is_compared() -> None:
    tried = {text.partition("(")[0] for text in (*WITHOUT_TENSORS, *STEPS)}
    assert tried == {name for name, layer in table().items() if not layer.has_tensors}


# What is refused ---------------------------------------------------------------------------------------------------------

MLP = {"input.shape": ["batch", 4], "1.layer": "ReLU", "after 2.layer": "Identity"}


@pytest.fixture
def mlp(tmp_path: Path) -> Path:
    """A folder with weights.pt and graph.json, which is filled in."""
    drafted(randomised(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))), tmp_path, MLP)
    return tmp_path


@pytest.mark.parametrize(("edit", "message"), [
    (lambda d: d["layers"][1].update(layer="Rectifier"), "no layer is called 'Rectifier'"),
    (lambda d: d["layers"][1].update(slope=1), "no argument 'slope'"),
    (lambda d: d["layers"][1].update(layer="LeakyReLU", negative_slope="1"), "does not fit"),
    (lambda d: d["layers"][1].update(layer="LeakyReLU(negative_slope=1)", negative_slope=1), "given twice"),
    (lambda d: d["layers"][1].update(layer="MaxPool2d"), "'kernel_size' of a MaxPool2d is missing"),
    (lambda d: d["layers"][1].update(layer="LeakyReLU(__import__('os').getpid())"), "not a layer with its arguments"),
    (lambda d: d["layers"][1].update(layer="LeakyReLU(" + "(" * 900), "not a layer with its arguments"),
    (lambda d: d["layers"][1].update(layer="LeakyReLU(1, 2, 3)"), "not a layer with its arguments"),
    (lambda d: d["layers"][1].update(layer="Linear"), "not those of a Linear"),
    (lambda d: d["layers"][0].update(layer="Linear(4, 8)"), "not a layer with its arguments"),
    (lambda d: d["layers"][0].update(layer="Embedding"), "not those of a Embedding"),
    (lambda d: d["layers"][0]["tensors"].update(weight="float32(8,4)"), "no dtype and shape"),
    (lambda d: d["layers"][0]["tensors"].update(weight="float31[8,4]"), "float31"),
    (lambda d: d["layers"].reverse(), r"layers\[1\] \(Linear, at '2'\)"),
    (lambda d: d["layers"].append(dict(d["layers"][0], tensors={"weight": "float32[8,5]", "bias": "float32[8]"})), "declared twice"),
    (lambda d: d["layers"].__setitem__(1, "ReLU"), "wrong type"),
    (lambda d: d["layers"][1].update(at=1), "wrong type"),
    (lambda d: d.update(layers={}), "wrong type"),
    (lambda d: d.update(more=1), "unknown field"),
    (lambda d: d.pop("output"), "'output' is missing"),
    (lambda d: d.update(version="2.0"), "not a draft of this version"),
    (lambda d: d.update(in_this_order=False), "not confirmed"),
    (lambda d: d.update(tied={"0.weight": "3.weight"}), "tied"),
    (lambda d: d.update(dims={"batch": {"least": 1}}), "unknown field"),
    (lambda d: d["input"].update(shape="batch"), "wrong type"),
    (lambda d: d["input"].update(shape=["batch", 5]), "Linear, at '0'"),
    (lambda d: d["input"].update(dtype="int64"), "Linear, at '0'"),
])
def test_a_draft_that_is_not_right(mlp: Path, edit: Any, message: str) -> None:
    document = json.loads((mlp / "graph.json").read_text())
    edit(document)
    (mlp / "graph.json").write_text(json.dumps(document))
    with pytest.raises((FormatError, GraphError), match=message) as caught:
        converter.from_checkpoint(mlp / "weights.pt", mlp / "graph.json")
    assert str(mlp / "graph.json") in str(caught.value)


def test_tensors_that_the_draft_does_not_have(mlp: Path) -> None:
    document = json.loads((mlp / "graph.json").read_text())
    del document["layers"][2:]
    (mlp / "graph.json").write_text(json.dumps(document))
    with pytest.raises(ParameterError, match=r"extra: '2.weight'(.|\n)*extra: '2.bias'"):
        converter.from_checkpoint(mlp / "weights.pt", mlp / "graph.json")
    torch.save(nn.Sequential(nn.Linear(4, 9)).state_dict(), mlp / "weights.pt")
    with pytest.raises(ParameterError, match=r"expected float32\[8, ?4\]"):
        converter.from_checkpoint(mlp / "weights.pt", mlp / "graph.json")


@pytest.mark.parametrize("text", ['{"format": "neutral-model-draft"', '{"format": "neutral-model-draft", "format": 1}',
                                  '["format": "neutral-model-draft"]',
                                  '{"format": "neutral-model-draft", "a": ' + "[" * 5000])
def test_no_json(text: str, mlp: Path) -> None:
    (mlp / "graph.json").write_text(text)
    assert is_draft(mlp / "graph.json")
    with pytest.raises(FormatError):
        converter.from_checkpoint(mlp / "weights.pt", mlp / "graph.json")


def test_all_of_a_recurrent_layer_is_only_for_its_end(tmp_path: Path) -> None:
    module = nn.Sequential(nn.LSTM(3, 4))
    torch.save(module.state_dict(), tmp_path / "w.pt")
    found = draft(load_parameters(tmp_path / "w.pt"))
    assert found is not None
    save_draft(found, tmp_path / "g.json")
    fill(tmp_path / "g.json", {"input.shape": ["time", "batch", 3], "0.batch_first": False, "0.initial_state": "zero", "0.take": "all",
                               "after 0.layer": "ReLU"})
    with pytest.raises(FormatError, match="a layer follows"):
        converter.from_checkpoint(tmp_path / "w.pt", tmp_path / "g.json")


def test_wrapped_modules_and_nested_checkpoints(tmp_path: Path) -> None:
    module = randomised(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)))
    state = {f"module.{name}": value for name, value in module.state_dict().items()}
    torch.save({"model": state, "epoch": 3}, tmp_path / "w.pt")
    found = draft(load_parameters(tmp_path / "w.pt"))
    assert found is not None
    assert set(found.open_choices()) == set(MLP)
    save_draft(found, tmp_path / "g.json")
    fill(tmp_path / "g.json", MLP)
    model = converter.from_checkpoint(tmp_path / "w.pt", tmp_path / "g.json")
    assert model.metadata["source"]["wrappers"] == ["module"]
    compare(model, module, rand(3, 4))


@pytest.mark.parametrize("module", [
    nn.MultiheadAttention(4, 2), nn.LSTMCell(3, 4), nn.utils.parametrizations.weight_norm(nn.Linear(3, 4)),
])
def test_no_plain_layers(module: nn.Module, tmp_path: Path) -> None:
    torch.save(module.state_dict(), tmp_path / "w.pt")
    assert draft(load_parameters(tmp_path / "w.pt")) is None
    with pytest.raises(ConverterError, match=r"no computation\. Expected"):
        converter.from_checkpoint(tmp_path / "w.pt")
    result = CliRunner().invoke(cli, ["torch-to-json", str(tmp_path / "w.pt"), "--draft-graph", "-o", str(tmp_path / "g.json")])
    assert result.exit_code == 2
    assert "no plain layer" in result.output
    assert not (tmp_path / "g.json").exists()


def test_a_folder_of_graphs_may_hold_drafts(mlp: Path) -> None:
    document = json.loads((mlp / "graph.json").read_text())
    document["layers"][1]["layer"] = "?"
    (mlp / "open.json").write_text(json.dumps(document))
    assert [node.op for node in converter.from_checkpoint(mlp / "weights.pt", graphs=mlp).graph.nodes] == ["linear", "relu", "linear"]
    document["layers"][1]["layer"] = "Tanh"
    (mlp / "open.json").write_text(json.dumps(document))
    with pytest.raises(FormatError, match="2 graphs have the checkpoint's names") as caught:
        converter.from_checkpoint(mlp / "weights.pt", graphs=mlp)
    assert "graph.json" in str(caught.value)
    assert "open.json" in str(caught.value)


# On the command line -----------------------------------------------------------------------------------------------------


def test_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = randomised(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)))
    torch.save(module.state_dict(), tmp_path / "mlp.pt")
    monkeypatch.chdir(tmp_path)
    run = CliRunner().invoke
    refused = run(cli, ["torch-to-json", "mlp.pt", "-o", "m.json"])
    assert refused.exit_code == 2
    assert "- 1.layer: what stands at 1" in refused.output
    assert "convert torch-to-json mlp.pt --draft-graph -o graph.json" in refused.output
    made = run(cli, ["torch-to-json", "mlp.pt", "--draft-graph", "-o", "graph.json"])
    assert made.exit_code == 0, made.output
    assert "input.shape, 1.layer, after 2.layer" in made.output
    assert run(cli, ["torch-to-json", "mlp.pt", "--draft-graph", "-o", "-"]).stdout == (tmp_path / "graph.json").read_text()
    open_still = run(cli, ["torch-to-json", "mlp.pt", "--architecture", "graph.json", "-o", "m.json"])
    assert open_still.exit_code == 2
    assert "3 open choices" in open_still.output
    assert run(cli, ["inspect", "graph.json"]).exit_code == 2
    assert {path.name for path in tmp_path.iterdir()} == {"mlp.pt", "graph.json"}
    fill(tmp_path / "graph.json", MLP)
    assert run(cli, ["torch-to-onnx", "mlp.pt", "--architecture", "graph.json", "-o", "m.onnx"]).exit_code == 0
    done = run(cli, ["torch-to-json", "mlp.pt", "--architecture", "graph.json", "-o", "m.json"])
    assert done.exit_code == 0, done.output
    x = rand(3, 4)
    with torch.no_grad():
        wanted = module(x).numpy()
    for runtime in ("numpy", "onnxruntime"):
        np.testing.assert_allclose(converter.session("m.json", runtime).run({"x": x.numpy()})["output"], wanted, rtol=1e-5, atol=1e-6)
    both = run(cli, ["torch-to-json", "mlp.pt", "--draft-graph", "--architecture", "graph.json", "-o", "g.json"])
    assert both.exit_code == 2
    assert "exclude each other" in both.output
