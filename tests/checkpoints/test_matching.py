"""Names and dtypes of a checkpoint that are not those of the graph or the module: what is mapped, left out, widened, refused."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import nn

import converter
from adapters.torch.live import convert_checkpoint
from converter.checkpoint import load_parameters
from converter.cli.inputs import draw_examples, parse_inputs
from converter.cli.main import cli
from converter.errors import ConverterError, ParameterError
from converter.format import save_graph
from converter.matching import match_names
from converter.parameters import InMemoryParameters
from converter.state_dict import SeveralStateDicts

torch.manual_seed(0)
X = torch.randn(5, 4)


def net() -> nn.Module:
    torch.manual_seed(1)
    module = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))
    module(torch.randn(20, 4))
    return module.eval()


STATE = net().state_dict()
RIGHT = net()(X).detach().numpy()
Tensors = Mapping[str, torch.Tensor]


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with graph.json, of `net`."""
    folder = tmp_path_factory.mktemp("graph")
    model = converter.from_torch(net(), (X,), dims={"input": ["batch", 4]})
    specs = {name: model.parameters.spec(name) for name in model.parameters.names()}
    assert "1.num_batches_tracked" in specs
    save_graph(model.graph, specs, folder / "graph.json")
    return folder


def before(prefix: str, state: Tensors = STATE) -> dict[str, torch.Tensor]:
    return {f"{prefix}{name}": value for name, value in state.items()}


def outputs(model: converter.Model, x: Any = X) -> Any:
    (port,) = model.graph.inputs
    results = [next(iter(converter.session(model, runtime).run({port.name: x.numpy()}).values())) for runtime in ("reference", "numpy")]
    assert np.allclose(*(result.astype(np.float64) for result in results), atol=1e-2)
    return results[1]


def ways(content: Any, folder: Path, graph: Path, **options: Any) -> dict[str, converter.Model]:
    """The models that --architecture, --graphs and --module make of a file's content."""
    torch.save(content, folder / "w.pt")
    found = {"architecture": converter.from_checkpoint(folder / "w.pt", graph / "graph.json", **options)}
    if not options:
        found["graphs"] = converter.from_checkpoint(folder / "w.pt", graphs=graph)
    inputs = parse_inputs(["input:float32[batch,4]"])
    store = load_parameters(folder / "w.pt", parts=True)
    if options.keys() <= {"allow_extra"}:
        found["module"] = convert_checkpoint(net(), store, None, inputs, draw_examples(inputs), **options).model
    return found


EXTRA = {
    "criterion": {**before("model."), "criterion.weight": torch.ones(3)},
    "criterion without a prefix": {**STATE, "criterion.weight": torch.ones(3), "loss_fn.pos_weight": torch.ones(1)},
    "metrics": {**before("net."), "train_acc.tp": torch.zeros(1), "val_metrics.f1.total": torch.zeros(1), "test_loss.mean_value": X},
    "head beside": {**before("model.backbone."), "model.head.weight": torch.ones(3)},
    "averaged": {**before("module."), "n_averaged": torch.tensor(3)},
    "ema": {**before("model."), **before("ema_model.", {name: value + 1 for name, value in STATE.items()})},
    "compiled in Lightning": before("model._orig_mod."),
    "wrapped in Lightning": {**before("model.module."), "criterion.weight": torch.ones(3)},
    "no counters": {name: value for name, value in STATE.items() if "num_batches" not in name},
    "no counters, a prefix": before("model.", {name: value for name, value in STATE.items() if "num_batches" not in name}),
}


@pytest.mark.parametrize("kind", list(EXTRA))
def test_too_many_and_too_few(tmp_path: Path, graph: Path, kind: str) -> None:
    if kind == "head beside":
        with pytest.raises(ConverterError):
            ways(EXTRA[kind], tmp_path, graph)
        models = {"architecture": converter.from_checkpoint(tmp_path / "w.pt", graph / "graph.json")}
    else:
        models = ways(EXTRA[kind], tmp_path, graph)
    for way, model in models.items():
        assert np.allclose(outputs(model), RIGHT, atol=1e-6), way
        if "counters" not in kind and "compiled" not in kind and way != "module":
            assert any("left out" in note for note in model.metadata["source"]["notes"]), way
        assert "criterion.weight" not in model.parameters


def test_what_nothing_asks_for_is_refused_and_how_to_leave_it_out_is_said(tmp_path: Path, graph: Path) -> None:
    content = {**STATE, "similarity_weight": torch.ones(1), "4.weight": torch.ones(3, 3)}
    with pytest.raises(ParameterError, match=r"extra: 'similarity_weight'(.|\n)*--allow-extra"):
        ways(content, tmp_path, graph)
    for model in ways(content, tmp_path, graph, allow_extra=True).values():
        assert np.allclose(outputs(model), RIGHT, atol=1e-6)
        assert "4.weight" not in model.parameters


def test_a_needed_tensor_is_never_done_without(tmp_path: Path, graph: Path) -> None:
    torch.save({name: value for name, value in STATE.items() if name != "1.running_mean"}, tmp_path / "w.pt")
    with pytest.raises(ParameterError, match=r"missing: '1\.running_mean'"):
        converter.from_checkpoint(tmp_path / "w.pt", graph / "graph.json", allow_extra=True)


def test_two_prefixes_are_a_question(tmp_path: Path, graph: Path) -> None:
    student, teacher = STATE, {name: value * 2 for name, value in STATE.items()}
    torch.save({**before("teacher.", teacher), **before("student.", student)}, tmp_path / "w.pt")
    with pytest.raises(ParameterError, match="--prefix student"):
        converter.from_checkpoint(tmp_path / "w.pt", graph / "graph.json")
    model = converter.from_checkpoint(tmp_path / "w.pt", graph / "graph.json", prefix="student")
    assert np.allclose(outputs(model), RIGHT, atol=1e-6)
    assert "'student.'" in model.metadata["source"]["notes"][0]


def test_renaming(tmp_path: Path, graph: Path) -> None:
    torch.save({name.replace("0.", "net.in.").replace("3.", "head."): value for name, value in STATE.items()}, tmp_path / "w.pt")
    model = converter.from_checkpoint(tmp_path / "w.pt", graph / "graph.json", rename={"net.in": "0", "head": "3"})
    assert np.allclose(outputs(model), RIGHT, atol=1e-6)
    for rename, part in (({"other": "0"}, "no name holds"), ({"net.in": "x", "head": "x"}, "two names become one")):
        with pytest.raises(ConverterError, match=part):
            converter.from_checkpoint(tmp_path / "w.pt", graph / "graph.json", rename=rename)
    with pytest.raises(ConverterError, match="no name begins with the prefix"):
        converter.from_checkpoint(tmp_path / "w.pt", graph / "graph.json", prefix="mod")
    line = CliRunner().invoke(cli, ["torch-to-safetensors", str(tmp_path / "w.pt"), "-o", str(tmp_path / "w.safetensors"),
                                    "--rename", "net.in=first", "--prefix", "first"])
    assert line.exit_code == 0, line.output
    assert set(load_parameters(tmp_path / "w.safetensors")) == {"weight", "bias"}


def test_state_dicts_in_parts(tmp_path: Path, graph: Path) -> None:
    first = {name.removeprefix("0."): value for name, value in STATE.items() if name.startswith("0.")}
    rest = {name: value for name, value in STATE.items() if not name.startswith("0.")}
    one, three = ({name.partition(".")[2]: value for name, value in rest.items() if name.startswith(f"{part}.")} for part in "13")
    for model in ways({"0": first, "1": one, "3": three}, tmp_path, graph, allow_extra=False).values():
        assert np.allclose(outputs(model), RIGHT, atol=1e-6)
    # The names that are wanted choose between two.
    other = nn.Linear(3, 2).state_dict()
    for model in ways({"generator": STATE, "discriminator": other}, tmp_path, graph, allow_extra=False).values():
        assert np.allclose(outputs(model), RIGHT, atol=1e-6)
    torch.save({"generator": STATE, "other": {name: value + 1 for name, value in STATE.items()}}, tmp_path / "w.pt")
    with pytest.raises(SeveralStateDicts, match="--key generator"):
        converter.from_checkpoint(tmp_path / "w.pt", graph / "graph.json")
    with pytest.raises(SeveralStateDicts):
        load_parameters(tmp_path / "w.pt")


def test_names_without_the_prefix_that_the_module_has() -> None:
    store = InMemoryParameters({name: value.numpy() for name, value in STATE.items()})
    assert set(match_names(store, set(before("encoder.model."))).store) == set(before("encoder.model."))


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
@pytest.mark.parametrize("old", [True, False])
def test_both_spellings_of_weight_norm_and_spectral_norm(tmp_path: Path, old: bool) -> None:
    def made(old: bool) -> nn.Module:
        torch.manual_seed(3)
        kinds = (nn.utils.weight_norm, nn.utils.spectral_norm) if old else (
            nn.utils.parametrizations.weight_norm, nn.utils.parametrizations.spectral_norm)
        return nn.Sequential(*(kind(nn.Linear(4, 4)) for kind in kinds)).eval()

    saved, wanted = made(old).state_dict(), made(not old).state_dict()
    names = {"parametrizations.weight.original0": "weight_g", "parametrizations.weight.original1": "weight_v",
             "parametrizations.weight.original": "weight_orig", "parametrizations.weight.0._u": "weight_u",
             "parametrizations.weight.0._v": "weight_v"}
    store = InMemoryParameters({f"model.{name}": value.numpy() for name, value in saved.items()})
    found = match_names(store, set(wanted))
    assert set(found.store) == set(wanted)
    for new, spelled in names.items():
        for layer in "01":
            a, b = (f"{layer}.{new}", f"{layer}.{spelled}") if not old else (f"{layer}.{spelled}", f"{layer}.{new}")
            if a in saved and b in wanted:
                assert np.array_equal(found.store.read(b), saved[a].numpy())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_narrower_checkpoints_of_wider_modules(tmp_path: Path, graph: Path, dtype: torch.dtype) -> None:
    half = {name: value.to(dtype) if value.is_floating_point() else value for name, value in STATE.items()}
    mixed = {name: value if name.startswith("1.") else half[name] for name, value in STATE.items()}
    for content in (half, mixed, before("model.", half)):
        module = net()
        module.load_state_dict({name.removeprefix("model."): value for name, value in content.items()})
        for way, model in ways(content, tmp_path, graph).items():
            assert {str(model.parameters.spec(name).dtype) for name in model.parameters} == {"float32", "int64"}, way
            assert np.allclose(outputs(model), module(X).detach().numpy(), atol=1e-5), way


def test_inputs_of_the_checkpoints_dtype_cast_the_module(tmp_path: Path) -> None:
    store = InMemoryParameters({name: (value.half() if value.is_floating_point() else value).numpy() for name, value in STATE.items()})
    inputs = parse_inputs(["input:float16[batch,4]"])
    found = convert_checkpoint(net(), store, None, inputs, draw_examples(inputs))
    assert any("cast to float16" in note for note in found.notes)
    assert {found.model.parameters.spec(name).dtype for name in found.model.parameters} == {converter.DType.FLOAT16, converter.DType.INT64}
    assert np.allclose(outputs(found.model, X.half()).astype(np.float32), RIGHT, atol=2e-2)


def test_wider_checkpoints_are_rounded_only_where_that_is_said(tmp_path: Path, graph: Path) -> None:
    torch.save({name: value.double() if value.is_floating_point() else value for name, value in STATE.items()}, tmp_path / "w.pt")
    with pytest.raises(ParameterError, match=r"expected float32\[8, 4\], received float64(.|\n)*--dtype float32"):
        converter.from_checkpoint(tmp_path / "w.pt", graph / "graph.json")
    model = converter.from_checkpoint(tmp_path / "w.pt", graph / "graph.json", dtype="float32")
    assert np.allclose(outputs(model), RIGHT, atol=1e-6)
    line = CliRunner().invoke(cli, ["torch-to-json", str(tmp_path / "w.pt"), "-o", str(tmp_path / "m.json"), "--dtype", "bfloat16",
                                    "--architecture", str(graph / "graph.json")])
    assert line.exit_code == 0, line.output
    assert str(converter.load(tmp_path / "m.json").parameters.spec("0.weight").dtype) == "bfloat16"
