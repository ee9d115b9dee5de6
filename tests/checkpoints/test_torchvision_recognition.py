"""What is recognised from names and shapes alone, what is asked back, what is refused; and that none of it needs PyTorch."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner

import converter
from converter.cli.main import cli
from converter.errors import FormatError, ParameterError, UnsupportedError
from tests import support_torchvision

pytestmark = pytest.mark.skipif(not support_torchvision.INSTALLED, reason=support_torchvision.REASON)
ROOT = Path(__file__).parents[2]
State = dict[str, torch.Tensor]


def state_dict(name: str, **arguments: Any) -> State:
    return dict(support_torchvision.module(name, **arguments).state_dict())


def saved(state: Any, folder: Path) -> Path:
    torch.save(state, folder / "weights.pt")
    return folder / "weights.pt"


def test_what_names_and_shapes_leave_open_is_said_and_kept(tmp_path: Path) -> None:
    model = converter.from_checkpoint(saved(state_dict("resnet18", num_classes=5), tmp_path))
    (assumed,) = model.metadata["source"]["assumed"]
    assert assumed in model.metadata["notes"]
    assert "strides, dilations, pools" in assumed
    done = CliRunner().invoke(cli, ["torch-to-hdf5", str(tmp_path / "weights.pt"), "-o", str(tmp_path / "m.h5")])
    assert "taken for torchvision's resnet18" in done.stderr.replace("\n", " ")


def timm_folder(folder: Path, architecture: Any, **fields: Any) -> Path:
    torch.save(state_dict("resnet18", num_classes=5), folder / "pytorch_model.bin")
    (folder / "config.json").write_text(json.dumps({"architecture": architecture, "num_classes": 5, **fields}))
    return folder


@pytest.mark.parametrize("architecture", ["resnet18", "resnet18.a1_in1k"])
def test_a_folder_of_timm_is_what_its_config_says(architecture: str, tmp_path: Path) -> None:
    folder = timm_folder(tmp_path, architecture, global_pool="avg", pretrained_cfg={"input_size": [3, 9, 9]}, model_args={"in_chans": 3})
    module = support_torchvision.module("resnet18", num_classes=5)
    x = torch.randn(2, 3, 40, 33, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = module(x).numpy()
    for path in (folder, folder / "pytorch_model.bin"):
        model = converter.from_checkpoint(path)
        assert model.metadata["source"]["framework"] == "timm"
        assert "timm's resnet18" in model.metadata["source"]["assumed"][0]
        np.testing.assert_allclose(converter.session(model).run({"x": x.numpy()})["output"], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("architecture", "fields", "part"), [
    ("resnetaa18", {}, "timm's resnetaa18"), ("resnet50", {}, "timm's resnet50"), ("resnet18", {"global_pool": "max"}, "global_pool"),
    ("resnet18", {"model_args": {"features_only": True}}, "features_only"), ("vit_tiny", {}, "timm's vit_tiny"),
    ("resnet18", {"num_classes": 6}, r"fc.weight is float32\[5, 512\], not float32\[6, 512\]"),
    ("resnet18", {"model_args": {"in_chans": 1}}, "conv1.weight"), ("resnet18", {"model_args": {"layers": [2, 2, 2, 1 << 40]}}, "'layers'"),
    ("resnet18", {"model_args": {"cardinality": 7}}, "cardinality 1"), ("resnet18", {"model_args": {"act_layer": "sinc"}}, "activation"),
    ("resnet18", {"model_args": {"block_args": {"attn_layer": ["se", 3]}}}, "block_args"),
    ("efficientnet_b0", {"model_args": {"block_args": [[[1, {}]]]}}, "block_args"), ("regnetv_040", {}, "model_cfg")])
def test_a_folder_of_another_model_of_timm_is_refused(architecture: str, fields: Any, part: str, tmp_path: Path) -> None:
    folder = timm_folder(tmp_path, architecture, **fields)
    for path in (folder, folder / "pytorch_model.bin"):
        with pytest.raises(UnsupportedError, match=part) as caught:
            converter.from_checkpoint(path)
        assert "--module" in (caught.value.fix or "")


def test_a_checkpoint_alone_gives_the_model(tmp_path: Path) -> None:
    module = support_torchvision.module("squeezenet1_1", num_classes=5)
    model = converter.from_checkpoint(saved(module.state_dict(), tmp_path))
    assert model.graph.name == "squeezenet1_1"
    assert model.metadata["source"]["framework"] == "torchvision"
    assert list(model.parameters) == list(module.state_dict())
    x = torch.randn(2, 3, 40, 33, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = module(x).numpy()
    np.testing.assert_allclose(converter.session(model).run({"x": x.numpy()})["output"], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("wrap", [
    lambda state: {"state_dict": {f"model.{name}": value for name, value in state.items()}, "epoch": 3},
    lambda state: {f"module.{name}": value for name, value in state.items()},
    lambda state: {f"_orig_mod.{name}": value for name, value in state.items()},
    lambda state: {name: value for name, value in state.items() if not name.endswith("num_batches_tracked")},
], ids=["lightning", "data parallel", "compiled", "before num_batches_tracked"])
def test_wrapped_names_are_looked_past(wrap: Any, tmp_path: Path) -> None:
    module = support_torchvision.module("mobilenet_v3_small", num_classes=5)
    model = converter.from_checkpoint(saved(wrap(module.state_dict()), tmp_path))
    assert model.graph.name == "mobilenet_v3_small"
    x = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = module(x).numpy()
    np.testing.assert_allclose(converter.session(model).run({"x": x.numpy()})["output"], expected, rtol=1e-4, atol=1e-5)


def test_published_files_with_older_names(tmp_path: Path) -> None:
    state = state_dict("densenet121", num_classes=5)
    older = {re.sub(r"\.(norm|conv)([12])\.", r".\1.\2.", name): value for name, value in state.items()}
    assert older.keys() != state.keys()
    newer = converter.from_checkpoint(saved(state, tmp_path))
    x = {"x": np.random.default_rng(0).standard_normal((1, 3, 32, 40)).astype(np.float32)}
    expected = converter.session(newer).run(x)["output"]
    again = converter.from_checkpoint(saved(older, tmp_path))
    assert list(again.parameters) == list(older)
    np.testing.assert_array_equal(converter.session(again).run(x)["output"], expected)


def test_a_half_precision_checkpoint_keeps_its_dtype(tmp_path: Path) -> None:
    state = {name: value.half() if value.is_floating_point() else value for name, value in state_dict("squeezenet1_1").items()}
    model = converter.from_checkpoint(saved(state, tmp_path))
    assert {str(port.spec.dtype) for port in (*model.graph.inputs, *model.graph.outputs)} == {"float16"}


def test_what_names_and_shapes_do_not_say_is_asked_back(tmp_path: Path) -> None:
    path = saved(state_dict("googlenet", num_classes=5), tmp_path)
    with pytest.raises(FormatError, match="--variant googlenet or --variant googlenet_transform_input") as caught:
        converter.from_checkpoint(path)
    assert "normalizes its input again" in str(caught.value)
    model = converter.from_checkpoint(path, variant="googlenet_transform_input")
    assert model.graph.name == "googlenet_transform_input"
    assert any("aux1" in note for note in model.metadata["notes"])


def test_a_replaced_first_convolution_is_confirmed(tmp_path: Path) -> None:
    state = state_dict("resnet18", num_classes=5)
    state["conv1.weight"] = state["conv1.weight"][:, :1].clone()
    path = saved(state, tmp_path)
    with pytest.raises(FormatError, match=r"conv1 takes images of 1 channel, .* --variant resnet18"):
        converter.from_checkpoint(path)
    assert converter.from_checkpoint(path, variant="resnet18").graph.inputs[0].spec.shape[1] == 1


def changed(state: State, case: str) -> State:
    if case == "missing":
        del state["layer2.0.conv1.weight"]
    elif case == "extra":
        state["layer2.7.conv1.weight"] = torch.zeros(3)
    elif case == "kernel":
        state["conv1.weight"] = torch.zeros(64, 3, 3, 3)
    elif case == "rank":
        state["conv1.weight"] = torch.zeros(64)
    elif case == "dtype":
        state["fc.bias"] = state["fc.bias"].double()
    elif case == "empty":
        state["fc.weight"] = torch.zeros(0)
    return state


@pytest.mark.parametrize(("case", "text"), [
    ("missing", "layer2.0.conv1.weight (float32[128, 64, 3, 3]) is missing"), ("extra", "the architecture has no layer2.7.conv1.weight"),
    ("kernel", "conv1.weight is float32[64, 3, 3, 3], not float32[64, 3, 7, 7]"), ("rank", "conv1.weight is float32[64]"),
    ("dtype", "fc.bias is float64[5], not float32[5]"), ("empty", "fc.weight is float32[0]"),
])
def test_the_nearest_architecture_is_told(case: str, text: str, tmp_path: Path) -> None:
    path = saved(changed(state_dict("resnet18", num_classes=5), case), tmp_path)
    with pytest.raises(UnsupportedError) as caught:
        converter.from_checkpoint(path)
    assert "nearest is resnet18" in str(caught.value)
    assert text in str(caught.value)


def test_heads_that_no_table_gives_are_refused(tmp_path: Path) -> None:
    library = support_torchvision.models()
    odd = library.VisionTransformer(image_size=64, patch_size=32, num_layers=2, num_heads=4, hidden_dim=64, mlp_dim=128, num_classes=3)
    with pytest.raises(UnsupportedError, match="the names are those of ViT"):
        converter.from_checkpoint(saved(odd.state_dict(), tmp_path))


def test_positions_that_are_no_square_are_refused(tmp_path: Path) -> None:
    state = state_dict("vit_b_32", image_size=64, num_classes=3)
    state["encoder.pos_embedding"] = torch.zeros(1, 7, 768)
    with pytest.raises(UnsupportedError, match="7 positions, not those of a square"):
        converter.from_checkpoint(saved(state, tmp_path))


def test_another_architecture_than_the_one_asked_for_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"Expected: resnet18\. Received: resnet34"):
        converter.from_checkpoint(saved(state_dict("resnet18"), tmp_path), variant="resnet34")


@pytest.mark.parametrize("state", [{}, {"weight": torch.zeros(2, 2)}, {"model.weight": torch.zeros(2), "model.bias": torch.zeros(2)},
                                   {"head.weight": torch.zeros(3, 3), "backbone.weight": torch.zeros(3, 3)}])
def test_names_of_no_family_are_not_guessed_at(state: State, tmp_path: Path) -> None:
    with pytest.raises((FormatError, ParameterError)):
        converter.from_checkpoint(saved(state, tmp_path))


def test_the_command_writes_nothing_when_it_refuses(tmp_path: Path) -> None:
    path = saved(state_dict("googlenet", num_classes=5), tmp_path)
    output = tmp_path / "model.json"
    result = CliRunner().invoke(cli, ["torch-to-json", str(path), "-o", str(output)])
    assert result.exit_code == 2
    assert "--variant googlenet" in result.output
    assert not output.exists()
    result = CliRunner().invoke(cli, ["torch-to-json", str(path), "-o", str(output), "--variant", "googlenet"])
    assert result.exit_code == 0, result.output
    assert converter.load(output).graph.name == "googlenet"


def test_no_framework_is_needed(tmp_path: Path) -> None:
    path = saved(state_dict("squeezenet1_1", num_classes=5), tmp_path)
    code = ("import sys\n"
            "for name in ('torch', 'torchvision', 'transformers', 'onnx', 'onnxruntime'): sys.modules[name] = None\n"
            f"sys.path.insert(0, {str(ROOT)!r})\n"
            "import numpy, converter\n"
            f"model = converter.from_checkpoint({str(path)!r})\n"
            "print(converter.session(model).run({'x': numpy.zeros((1, 3, 32, 32), 'float32')})['output'].shape)\n")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)
    assert done.stdout.strip() == "(1, 5)", done.stderr


@pytest.mark.parametrize(("layer", "attribute", "value"), [
    (None, "", None), ("layer3.0.conv2", "dilation", (2, 2)), ("conv1", "stride", (1, 1)), ("layer1.0.conv1", "padding", (0, 0)),
    ("layer1.1.bn2", "eps", 1e-3),
])
@pytest.mark.parametrize("wrap", [lambda module: module, lambda module: {"model": torch.nn.DataParallel(module), "epoch": 1}])
def test_a_whole_module_is_held_to_its_own_layers(layer: str | None, attribute: str, value: Any, wrap: Any, tmp_path: Path) -> None:
    """What names and shapes leave open, the pickled layers themselves say."""
    module = support_torchvision.module("resnet18", num_classes=5)
    if layer is not None:
        setattr(module.get_submodule(layer), attribute, value)
    path = saved(wrap(module), tmp_path)
    if layer is None:
        assert converter.from_checkpoint(path).parameters.names()
        return
    with pytest.raises(FormatError, match=rf"another module than.*{re.escape(layer)}\.\w+: {attribute} {re.escape(str(value))}"):
        converter.from_checkpoint(path)
