"""Each of torchvision's architectures, recognised from names and shapes, against torchvision's own module on random weights."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch

import converter
from adapters.architectures.torchvision.recognise import candidates, families
from converter import reference
from converter.checking import check
from converter.ir import Model
from converter.parameters import InMemoryParameters
from tests import support_torchvision

pytestmark = pytest.mark.skipif(not support_torchvision.INSTALLED, reason=support_torchvision.REASON)

RELATIVE = 1e-9

# Heights and widths differ, so that no axis stands for the other; the second pair is odd, and leaves remainders everywhere.
SIZES = ((64, 48), (75, 89))
LARGER = {"inception_v3": ((80, 75), (91, 107)), "alexnet": ((64, 80), (97, 71)),
          # One window along both axes, along one, along none of the first stages'.
          "swin_t": ((28, 20), (33, 130)), "swin_v2_t": ((28, 20), (33, 130))}
SMALL = ("resnet18", "resnext50_32x4d", "densenet121", "squeezenet1_0", "squeezenet1_1", "mobilenet_v2",
         "mobilenet_v3_small", "mobilenet_v3_large", "efficientnet_b0", "efficientnet_v2_s", "shufflenet_v2_x0_5", "mnasnet0_5",
         "regnet_x_400mf", "regnet_y_400mf", "convnext_tiny", "swin_t", "swin_v2_t", "googlenet")
LONG = ("resnet34", "resnet50", "resnet101", "wide_resnet50_2", "resnext101_64x4d", "vgg11", "vgg16", "vgg19_bn", "densenet161",
        "efficientnet_b1", "efficientnet_b5", "shufflenet_v2_x2_0", "mnasnet1_3", "regnet_y_1_6gf", "regnet_x_8gf", "convnext_base",
        "vit_b_16", "vit_b_32", "vit_l_32", "swin_b", "swin_v2_b", "vgg11_bn", "alexnet", "inception_v3")
SMALLER: Mapping[str, Mapping[str, Any]] = {"vit": {"image_size": 96}}


def recognised(module: torch.nn.Module, name: str) -> Model:
    """The model that the module's state_dict is recognised as: `name`."""
    parameters = InMemoryParameters({key: value.numpy() for key, value in module.state_dict().items()})
    found, reasons = candidates({key: parameters.spec(key) for key in parameters})
    assert found, reasons
    fit = next(fit for fit in found if fit.name == name)
    check(fit.graph, parameters)
    return Model(fit.graph, parameters)


def image(model: Model, size: tuple[int, int], batch: int, dtype: torch.dtype) -> torch.Tensor:
    _, channels, height, width = model.graph.inputs[0].spec.shape
    drawn = (size[0] if "height" in model.graph.dims else height, size[1] if "width" in model.graph.dims else width)
    return torch.randn(batch, channels, *drawn, dtype=dtype, generator=torch.Generator().manual_seed(size[0]))


def agrees(name: str, module: torch.nn.Module, graph: str | None = None) -> None:
    """The graph equals the module in float64, at two sizes of image."""
    model = recognised(module.double(), graph or name)
    for batch, size in enumerate(LARGER.get(name, SIZES), 1):
        x = image(model, size, batch, torch.float64)
        with torch.no_grad():
            expected = module(x).numpy()
        outputs = reference.run(model, {"x": x.numpy()})
        assert list(outputs) == ["output"]
        assert expected.std() > 1e-3 * np.abs(expected).max()
        np.testing.assert_allclose(outputs["output"], expected, rtol=0, atol=RELATIVE * np.abs(expected).max())


def arguments(name: str) -> dict[str, Any]:
    return {"num_classes": 10, **SMALLER.get(name.partition("_")[0], {})}


@pytest.mark.parametrize("name", SMALL)
def test_the_graph_is_the_module(name: str) -> None:
    agrees(name, support_torchvision.module(name, **arguments(name)))


@pytest.mark.long
@pytest.mark.parametrize("name", LONG)
def test_the_graph_of_a_large_one_is_the_module(name: str) -> None:
    agrees(name, support_torchvision.module(name, **arguments(name)))


@pytest.mark.parametrize(("name", "graph", "made"), [
    ("googlenet", "googlenet_transform_input", {"transform_input": True}),
    ("googlenet", "googlenet", {"aux_logits": False}),
    ("mobilenet_v2", "mobilenet_v2_x0_35", {"width_mult": 0.35}),
    ("vit_b_32", "vit_b_32", {"image_size": 64, "representation_size": 40}),
])
def test_the_graph_is_the_module_made_otherwise(name: str, graph: str, made: Mapping[str, Any]) -> None:
    agrees(name, support_torchvision.module(name, num_classes=7, **made), graph)


def test_the_first_version_of_mnasnet() -> None:
    module = support_torchvision.module("mnasnet0_5", num_classes=7)
    blocks = support_torchvision.models().mnasnet
    first = torch.nn.Sequential(
        torch.nn.Conv2d(3, 32, 3, padding=1, stride=2, bias=False), torch.nn.BatchNorm2d(32), torch.nn.ReLU(),
        torch.nn.Conv2d(32, 32, 3, padding=1, groups=32, bias=False), torch.nn.BatchNorm2d(32), torch.nn.ReLU(),
        torch.nn.Conv2d(32, 16, 1, bias=False), torch.nn.BatchNorm2d(16), blocks._stack(16, 16, 3, 2, 3, 3, 0.1))
    for position, layer in enumerate(first):
        module.layers[position] = layer
    support_torchvision.randomize(module, 1)
    agrees("mnasnet0_5", module.eval(), "mnasnet0_5_version1")


def every_name() -> list[str]:
    """All classifiers of torchvision's that are known here, which is all of them but the last."""
    if not support_torchvision.INSTALLED:
        return []
    library = support_torchvision.models()
    return [name for name in library.list_models(module=library) if name != "maxvit_t"]


@pytest.mark.parametrize("name", every_name())
def test_every_name_is_recognised_by_its_shapes(name: str) -> None:
    state = support_torchvision.shapes(name).state_dict()
    specs = {key: converter.TensorSpec.of(str(value.dtype).removeprefix("torch."), value.shape) for key, value in state.items()}
    found, _ = candidates(specs)
    twice = {"googlenet", "inception_v3"}
    assert [fit.name for fit in found] == ([name, f"{name}_transform_input"] if name in twice else [name])
    dims = found[0].graph.dims
    assert set(dims) == ({"batch"} if name.startswith("vit") else {"batch", "height", "width"})
    weights = support_torchvision.models().get_model_weights(name)
    published = {weight.meta.get("min_size") for weight in weights} - {None}
    if not name.startswith(("vit", "swin", "convnext", "efficientnet_v2")):  # For those it says more than the least.
        assert {(dims["height"].min, dims["width"].min)} == published or not published


def test_every_variant_is_one_of_torchvisions_or_tested_here() -> None:
    own = {variant for family in families() for variant in family.variants}
    assert own >= set(every_name())
    assert own - set(every_name()) == {
        "googlenet_transform_input", "inception_v3_transform_input", "mnasnet0_5_version1", "mnasnet0_75_version1", "mnasnet1_3_version1",
        "mobilenet_v2_x0_35", "mobilenet_v2_x0_5", "mobilenet_v2_x0_75", "mobilenet_v2_x1_3", "mobilenet_v2_x1_4"}


class Module:
    """A module as the source of a model, for `verify`."""

    def __init__(self, module: torch.nn.Module) -> None:
        self.module = module

    def run(self, inputs: Mapping[str, Any], float_dtype: Any = None) -> Mapping[str, np.ndarray[Any, Any]]:
        dtype = torch.float64 if float_dtype == "float64" else torch.float32
        with torch.no_grad():
            y = self.module.to(dtype)(torch.as_tensor(np.array(inputs["x"])).to(dtype))
        self.module.float()
        return {"output": y.numpy()}


@pytest.mark.parametrize("name", ["squeezenet1_1", "mobilenet_v3_small", "shufflenet_v2_x0_5",
                                  pytest.param("swin_t", marks=pytest.mark.long)])
def test_runtimes_stay_within_the_budget(name: str) -> None:
    module = support_torchvision.module(name, num_classes=10)
    model = recognised(module, name)
    inputs = [{"x": image(model, size, 2, torch.float32).numpy()} for size in SIZES]
    report = converter.verify(model, ["numpy", "onnxruntime"], source=Module(module), inputs=inputs, cases=1)
    assert report, str(report)


@pytest.mark.parametrize("name", ["squeezenet1_1", pytest.param("shufflenet_v2_x0_5", marks=pytest.mark.long),
                                  pytest.param("convnext_tiny", marks=pytest.mark.long), pytest.param("resnet18", marks=pytest.mark.long)])
def test_no_more_onnx_nodes_than_torch_onnx_writes(name: str, tmp_path: Any) -> None:
    import onnx

    module = support_torchvision.module(name, num_classes=10)
    converter.save(recognised(module, name), tmp_path / "model.onnx")
    own = onnx.load(tmp_path / "model.onnx").graph.node
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # The exporter's own.
        exported = torch.onnx.export(module, (torch.zeros(2, 3, 64, 64),), dynamo=True, verbose=False,
                                     dynamic_shapes=({0: torch.export.Dim("batch")},))
    assert exported is not None
    theirs = exported.model_proto.graph.node
    # torch.onnx computes new weights to fold batch norms into convolutions. Here parameters stay what they are, and ONNX
    # Runtime folds them when it loads the file.
    assert sum(node.op_type != "BatchNormalization" for node in own) <= len(theirs)
