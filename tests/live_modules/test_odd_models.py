"""Models as people have them: what is carried, what is said about it, and what is refused with all its reasons."""

from __future__ import annotations

import dataclasses
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import nn

import converter
from adapters.torch.live import convert
from adapters.torch.tracing.trace import trace
from converter.errors import ConverterError, UnsupportedError
from converter.ir import DType
from converter.ports import Incoming

RUNTIMES = ["reference", "numpy", "onnxruntime", "torch"]


def proven(module: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None, **options: Any) -> Incoming:
    """Converts, and holds every runtime to the model's own recorded results and to the error budget."""
    result = convert(module, args, kwargs, **options)
    assert result.model.examples
    report = converter.verify(result.model, runtimes=RUNTIMES[1:], source=result.source)
    assert report, str(report)
    for example in result.model.examples:
        found = converter.session(result.model, runtime="reference").run(example.inputs)
        assert list(found) == list(example.outputs)
        for name, wanted in example.outputs.items():
            assert (found[name].dtype, found[name].shape) == (wanted.dtype, wanted.shape)
            np.testing.assert_allclose(found[name], wanted, rtol=5e-3, atol=5e-3)
    return result


class Calls(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor) -> Any:
        return self.function(x)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


X = (3, 4)


# Dtypes, buffers, complex numbers --------------------------------------------------------------------------------------


class Mixed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.low, self.high = nn.Linear(4, 4).half(), nn.Linear(4, 4).double()
        self.register_buffer("count", torch.tensor(3, dtype=torch.int32))
        self.register_buffer("hidden", torch.arange(4.0), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.high(self.low(x.half()).double()).float() * self.count + self.hidden


def test_mixed_dtypes_and_buffers() -> None:
    model = proven(Mixed(), (torch.randn(X),)).model
    assert {str(model.parameters.spec(name).dtype) for name in model.parameters} == {"float16", "float64", "int32", "float32"}
    assert model.constants == {"hidden"}
    assert converter.to_torch(model).state_dict().keys() == Mixed().state_dict().keys()


class Rotary(nn.Module):
    """Rotary positions as complex numbers, as Llama's first code has them."""

    def __init__(self, kept: bool) -> None:
        super().__init__()
        angles = torch.outer(torch.arange(32.0), 1 / 100 ** (torch.arange(0, 4, 2) / 4))
        self.register_buffer("turns", torch.polar(torch.ones_like(angles), angles), persistent=kept)
        self.layer = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pairs = torch.view_as_complex(self.layer(x).reshape(*x.shape[:-1], 2, 2))
        return torch.view_as_real(pairs * self.turns[:x.shape[1]]).flatten(-2)


@pytest.mark.parametrize("kept", [True, False])
def test_complex_rotary_embeddings(kept: bool, tmp_path: Path) -> None:
    model = proven(Rotary(kept), (torch.randn(2, 5, 4),)).model
    assert model.parameters.spec("turns").dtype is DType.COMPLEX64
    converter.save(model, tmp_path / "m.json")
    np.testing.assert_array_equal(converter.load(tmp_path / "m.json").parameters.read("turns"), model.parameters.read("turns"))


def test_rotary_embeddings_computed_from_the_length() -> None:
    def rotate(x: torch.Tensor) -> torch.Tensor:
        angles = torch.outer(torch.arange(x.shape[1]).float(), 1 / 100 ** (torch.arange(0, 4, 2) / 4))
        turns = torch.polar(torch.ones_like(angles), angles).unsqueeze(0)
        return torch.view_as_real(torch.view_as_complex(x.reshape(*x.shape[:-1], 2, 2)) * turns).flatten(-2)

    proven(Calls(rotate), (torch.randn(2, 5, 4),))


# Arguments and results --------------------------------------------------------------------------------------------------


@dataclasses.dataclass
class Result:
    scores: torch.Tensor
    best: torch.Tensor | None = None


class Pair(NamedTuple):
    first: torch.Tensor
    second: torch.Tensor


RESULTS: dict[str, tuple[Callable[[torch.Tensor], Any], list[str]]] = {
    "nested": (lambda x: {"a": (x * 2, {"b": x.sum(-1)}), "c": [x > 0, x.argmax(-1)]}, ["a.0", "a.1.b", "c.0", "c.1"]),
    "dataclass": (lambda x: Result(x + 1, x.argmax(-1)), ["scores", "best"]),
    "dataclass with None": (lambda x: Result(x + 1), ["scores"]),
    "named tuple": (lambda x: Pair(x + 1, x * 2), ["first", "second"]),
    "tuple": (lambda x: (x + 1, x * 2), ["output_0", "output_1"]),
    "numbers and text": (lambda x: (x + 1, 3, 2.5, True, x.shape[0], None, "text"), [f"output_{index}" for index in range(5)]),
}


@pytest.mark.parametrize("case", RESULTS)
def test_results_by_name(case: str) -> None:
    function, names = RESULTS[case]
    model = proven(Calls(function), (torch.randn(X),)).model
    assert [output.name for output in model.graph.outputs] == names


class Flexible(nn.Module):
    def forward(self, x: torch.Tensor | None = None, *, mask: torch.Tensor | None = None, scale: float = 2.0, mode: str = "sum",
                flag: bool = True) -> torch.Tensor:
        x = torch.ones(2, 3) if x is None else x
        y = x * scale if mask is None else x * mask
        return y.sum(-1) if mode == "sum" and flag else y


@pytest.mark.parametrize(("kwargs", "inputs", "frozen"), [
    ({}, ["x"], []), ({"mask": torch.ones(X) * 3}, ["x", "mask"], []), ({"scale": 3.0}, ["x"], ["'scale'"]),
    ({"mode": "all", "flag": True}, ["x"], ["'mode'", "'flag'"])])
def test_optional_and_keyword_arguments(kwargs: dict[str, Any], inputs: list[str], frozen: list[str]) -> None:
    result = proven(Flexible(), (torch.randn(X),), kwargs)
    assert [port.name for port in result.model.graph.inputs] == inputs
    said = " ".join(note for note in result.notes if "no tensor" in note)
    assert [name for name in ("'scale'", "'mode'", "'flag'") if name in said] == frozen


def test_any_number_of_arguments() -> None:
    class Any_(nn.Module):
        def forward(self, x: torch.Tensor, *rest: torch.Tensor, k: int = 2, **named: torch.Tensor) -> torch.Tensor:
            for item in rest:
                x = x + item
            for item in named.values():
                x = x * item
            return x * k

    one = torch.randn(X)
    result = proven(Any_(), (one, one, torch.randn(X)), {"gain": one})
    assert [port.name for port in result.model.graph.inputs] == ["x", "rest.0", "rest.1", "named.gain"]


def test_one_tensor_given_twice_is_two_inputs() -> None:
    one = torch.randn(X)
    model = proven(type("Sum", (nn.Module,), {"forward": lambda self, xs: xs[0] - 2 * xs[1]})(), ([one, one],)).model
    inputs = {"xs.0": np.full(X, 5, np.float32), "xs.1": np.full(X, 1, np.float32)}
    np.testing.assert_array_equal(converter.session(model).run(inputs)["output"], np.full(X, 3, np.float32))


# Parameters that are not where they seem ----------------------------------------------------------------------------------


def test_parametrizations() -> None:
    for make in (nn.utils.parametrizations.weight_norm, nn.utils.parametrizations.spectral_norm):
        module = make(nn.Linear(4, 4))
        assert proven(module, (torch.randn(X),)).model.parameters.names() == tuple(module.state_dict())


def test_old_spectral_norm() -> None:
    module = nn.utils.spectral_norm(nn.Linear(4, 4))
    assert proven(module, (torch.randn(X),)).model.parameters.names() == tuple(module.state_dict())


def test_tied_weights_stay_tied() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.out = nn.Embedding(10, 4), nn.Linear(4, 10, bias=False)
            self.out.weight = self.table.weight

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            return self.out(self.table(ids))

    model = proven(Tied(), (torch.randint(0, 10, (2, 3)),)).model
    assert model.parameters.alias_of("out.weight") == "table.weight"
    module = converter.to_torch(model)
    assert module.out.weight is module.table.weight


class Counting(nn.Module):
    """Writes to its buffers in forward."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))
        self.register_buffer("mean", torch.zeros(4))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        self.calls += 1
        self.mean = self.mean * 0.9 + x.mean(0) * 0.1
        return x - self.mean, self.calls * 1


def test_buffers_that_forward_changes() -> None:
    module = Counting()
    result = proven(module, (torch.randn(X),))
    assert any("forward keeps state" in note and "calls" in note and "mean" in note for note in result.notes)
    assert module.calls.item() == 0, "converting must leave the module as it was"
    assert module.mean.abs().sum().item() == 0
    for _ in range(2):
        assert converter.session(result.model).run({"x": np.zeros(X, np.float32)})["output_1"] == 1


def test_training_mode_is_left_and_said() -> None:
    module = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5), nn.BatchNorm1d(4)).train()
    result = proven(module, (torch.randn(X),))
    assert module.training
    assert module[1].training
    assert any("evaluation mode" in note for note in result.notes)


def test_lazy_layers_are_initialised() -> None:
    module = nn.Sequential(nn.LazyLinear(5), nn.ReLU(), nn.LazyLinear(2))
    result = proven(module, (torch.randn(X),))
    assert any("lazy layers" in note for note in result.notes)
    assert [str(port.spec) for port in result.model.graph.outputs] == ["float32[batch, 2]"]


def test_lazy_layers_that_cannot_be() -> None:
    with pytest.raises(UnsupportedError, match="lazy layers"):
        convert(nn.Sequential(nn.LazyLinear(5), nn.Linear(3, 3)), (torch.randn(X),))


@pytest.mark.parametrize("wrap", [nn.DataParallel, torch.compile])
def test_wrappers_are_taken_off(wrap: Callable[[nn.Module], nn.Module]) -> None:
    result = proven(wrap(nn.Linear(4, 4)), (torch.randn(X),))
    assert result.model.parameters.names() == ("weight", "bias")
    assert any("was taken off" in note for note in result.notes)


# TorchScript and exported programs -------------------------------------------------------------------------------------------


class Looping(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for step in range(3):
            x = self.layer(x) if step > 1 else torch.relu(x)
        return x


@pytest.mark.parametrize("kind", ["script", "trace", "file"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_torchscript(kind: str, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        script = torch.jit.trace(Looping().eval(), (torch.randn(X),)) if kind == "trace" else torch.jit.script(Looping())
        if kind == "file":
            torch.jit.save(script, str(tmp_path / "m.pt"))
            script = torch.jit.load(str(tmp_path / "m.pt"))
    result = proven(script, (torch.randn(X),))
    assert set(result.model.parameters.names()) == {"layer.weight", "layer.bias"}
    assert any("TorchScript" in note for note in result.notes)


def test_exported_programs() -> None:
    class Keyword(nn.Module):
        def forward(self, a: torch.Tensor, b: torch.Tensor | None = None, *, c: torch.Tensor) -> torch.Tensor:
            return a + c if b is None else a + b + c

    rows = torch.export.Dim("rows", min=2, max=9)
    program = torch.export.export(Keyword(), (torch.randn(X),), {"c": torch.randn(X)},
                                  dynamic_shapes={"a": {0: rows}, "c": {0: rows}})
    model = proven(program).model
    assert [port.name for port in model.graph.inputs] == ["a", "c"]
    assert model.graph.dims["batch"].max == 9
    with pytest.raises(ConverterError, match="outside its range"):
        converter.session(model).run({"a": np.zeros((10, 4), np.float32), "c": np.zeros((10, 4), np.float32)})


# Refusals --------------------------------------------------------------------------------------------------------------------


def sparse() -> nn.Module:
    module = Calls(lambda x: x)
    module.register_buffer("matrix", torch.eye(4).to_sparse())
    return module


def scripted_part() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return nn.Sequential(torch.jit.script(nn.Linear(4, 4)), nn.ReLU())


@pytest.mark.parametrize(("make", "operator", "reason"), [
    (sparse, "matrix", "sparse"), (scripted_part, "ScriptModule", "TorchScript")])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_what_cannot_be_carried_is_named(make: Callable[[], nn.Module], operator: str, reason: str) -> None:
    with pytest.raises(UnsupportedError) as caught:
        convert(make(), (torch.randn(X),))
    assert any(operator in str(item["operator"]) and reason in str(item["reason"]) for item in caught.value.items)
    assert caught.value.fix


class Random(nn.Module):
    """Three calls of two operators that no graph can repeat."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + torch.rand_like(x) + torch.rand_like(x)
        return x * torch.randn_like(x)


def build_random() -> nn.Module:
    """For the command line."""
    return Random()


def test_a_refusal_lists_everything_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError) as caught:
        convert(Random(), (torch.randn(X),))
    items = {item["operator"]: item for item in caught.value.items}
    assert {name: item["count"] for name, item in items.items()} == {"aten.rand_like.default": 2, "aten.randn_like.default": 1}
    assert all("test_odd_models.py" in str(item["source"]) and "in forward" in str(item["source"]) for item in items.values())


def test_a_refusal_on_the_command_line(tmp_path: Path) -> None:
    from converter.cli.main import cli

    output = tmp_path / "m.json"
    result = CliRunner().invoke(cli, ["torch-to-json", "--module", "tests.live_modules.test_odd_models:build_random",
                                       "--input", "x:float32[batch,4]", "-o", str(output), "--json"])
    assert result.exit_code == 2
    assert list(tmp_path.iterdir()) == []
    error = json.loads(result.stdout)["error"]
    assert error["kind"] == "UnsupportedError"
    assert [(item["operator"], item["count"]) for item in error["items"]] == [("aten.rand_like.default", 2), ("aten.randn_like.default", 1)]
    assert all(item["reason"] and item["source"] for item in error["items"])
    assert "aten.rand_like.default (x2)" in result.stderr




# Files -------------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("archives") / "m.pt2"
    rows = torch.export.Dim("rows", min=2, max=9)
    program = torch.export.export(nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)).eval(), (torch.randn(X),), dynamic_shapes=({0: rows},))
    torch.export.save(program, str(path))
    return path


def test_archives_need_leave(archive: Path) -> None:
    from adapters.torch.tracing.archives import load_program

    with pytest.raises(ConverterError, match="unpickle"):
        load_program(archive)
    model = proven(load_program(archive, allow_pickle=True)).model
    assert set(model.parameters.names()) >= {"0.weight", "0.bias", "1.weight", "1.bias", "1.running_mean", "1.running_var"}


def test_archives_on_the_command_line(archive: Path, tmp_path: Path) -> None:
    from converter.cli.main import cli

    output = tmp_path / "m.json"
    refused = CliRunner().invoke(cli, ["torch-to-json", str(archive), "-o", str(output)])
    assert refused.exit_code == 2
    assert not output.exists()
    assert "--allow-pickle" in refused.stderr
    done = CliRunner().invoke(cli, ["torch-to-json", str(archive), "--allow-pickle", "-o", str(output)])
    assert done.exit_code == 0, done.stderr
    assert "Warning" in done.stderr
    assert converter.verify(converter.load(output), runtimes=["numpy", "onnxruntime"])


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04 cut off"])
def test_damaged_files(content: bytes, tmp_path: Path) -> None:
    from adapters.torch.tracing.archives import load_program, load_script

    path = tmp_path / "m.pt2"
    path.write_bytes(content)
    with pytest.raises(ConverterError, match="damaged"):
        load_program(path, allow_pickle=True)
    with pytest.raises(ConverterError, match="damaged"):
        load_script(path)
    with pytest.raises(ConverterError, match="no such file"):
        load_script(tmp_path / "missing.pt")


def test_a_slice_of_a_given_length_is_clamped() -> None:
    class First(nn.Module):
        def forward(self, x: torch.Tensor, n: int) -> torch.Tensor:
            return x[:, :n]

    result = proven(First(), (torch.randn(X), 2))
    assert result.model.graph.dims["x_1"].min == 1
    x = np.random.default_rng(0).standard_normal((3, 1)).astype(np.float32)
    np.testing.assert_array_equal(converter.session(result.model, runtime="numpy").run({"x": x})["output"], x)


class Translator(torch.nn.Module):
    """A decoder that attends to places which the encoder was told to leave out."""

    def __init__(self, told: bool) -> None:
        super().__init__()
        self.told, self.layers = told, torch.nn.Transformer(8, 2, 1, 1, 16, batch_first=True)

    def forward(self, source: torch.Tensor, target: torch.Tensor, padding: torch.Tensor) -> torch.Tensor:
        left_out = padding if self.told else None
        return self.layers(source, target, src_key_padding_mask=padding, memory_key_padding_mask=left_out)


@pytest.mark.parametrize("told", [True, False])
def test_a_fast_path_that_computes_something_else_is_told(told: bool) -> None:
    """torch's fast path puts zeros at padded places; what attends to them is another model."""
    torch.manual_seed(0)
    module = Translator(told).eval()
    padding = torch.tensor([[False, False, True], [False, True, True]])
    program = trace(module, (torch.randn(2, 3, 8), torch.randn(2, 4, 8), padding))
    assert any("fast path" in note for note in program.notes) is not told
    assert torch.backends.mha.get_fastpath_enabled()


class Warped(nn.Module):
    """torch warns of `affine_grid` and `grid_sample` whenever they run so."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        turn = torch.eye(2, 3).repeat(image.shape[0], 1, 1) * 0.9
        return nn.functional.grid_sample(image, nn.functional.affine_grid(turn, list(image.shape)))


def test_what_a_module_warns_of_is_not_repeated() -> None:
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        converter.from_torch(Warped(), (torch.randn(2, 3, 8, 9),))
    assert not [item for item in said if "align_corners" in str(item.message)]
    converter.from_torch(Warped(), (torch.randn(2, 3, 8, 9),))  # where a warning is an error, the module is run all the same
