"""Depth Anything (Yang et al. 2024): DINOv2's words of several layers, joined to a map of depths as DPT does (Ranftl et al. 2021)."""

from __future__ import annotations

from typing import Any

from adapters.architectures.huggingface.config import Config
from adapters.architectures.huggingface.family import Family
from adapters.architectures.huggingface.layers.vision import as_map, several
from adapters.architectures.huggingface.models.dinov2 import NAMES as BACKBONE
from adapters.architectures.huggingface.models.dinov2 import states
from adapters.architectures.huggingface.net import Net
from converter.builder import Value
from converter.dims import Dim, symbol
from converter.ir import DimRange

FUSION = "neck.fusion_stage.layers.{layer}"
NAMES = {
    "project": "neck.reassemble_stage.layers.{layer}.projection",
    "resize": "neck.reassemble_stage.layers.{layer}.resize",
    "gather": "neck.convs.{layer}",
    "fused": f"{FUSION}.projection",
    "first": f"{FUSION}.{{part}}.convolution1",
    "second": f"{FUSION}.{{part}}.convolution2",
    "head_first": "head.conv1",
    "head_second": "head.conv2",
    "head_last": "head.conv3",
}
# Of the words in the backbone's config that a graph of it alone does not need.
DEFAULTS = {"patch_size": 14, "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12}


def build(net: Net, task: str) -> None:
    config = net.config
    for name in ("backbone", "use_pretrained_backbone", "use_timm_backbone", "backbone_kwargs"):
        config.only(name, False)
    patch = config.size("patch_size", 14)
    widths = several(config, "neck_hidden_sizes", [48, 96, 192, 384])
    grid = (symbol("height") // patch, symbol("width") // patch)
    maps = []
    for index, x in enumerate(of_backbone(net, len(widths), patch)):
        if config.size("reassemble_hidden_size", 384) != x.shape[2]:
            raise config.refuse("reassemble_hidden_size", str(x.shape[2]), config.get("reassemble_hidden_size"))
        x = net.op("slice", x, axes=(1,), starts=(1,), stops=(None,))
        maps.append(grown(net, as_map(net, x, grid), index, widths[index]))
    depth = _depth(net, _joined(net, maps), grid, patch)
    for name in ("height", "width"):
        net.b.dims[name] = DimRange(net.b.least(name))
    net.output("predicted_depth", depth)


def of_backbone(net: Net, count: int, patch: int) -> list[Value]:
    """The words of so many layers of the DINOv2 that the config says."""
    inner = net.config.part("backbone_config")
    inner.only("model_type", "dinov2")
    inner.only("reshape_hidden_states", False)
    if inner.get("reshape_hidden_states") is None:
        raise inner.refuse("reshape_hidden_states", "false", None)
    within = Config({**DEFAULTS, **inner.fields, "model_type": "dinov2"}, inner.where, asked=inner.asked)
    backbone = net.part(BACKBONE, "backbone.", within)
    backbone.config.only("patch_size", patch)
    chosen, (*found, normed) = _chosen(backbone.config, count), states(backbone)
    plain = not backbone.config.flag("apply_layernorm", True)
    if any(index >= len(found) for index in chosen):
        raise backbone.config.refuse("out_indices", f"numbers from 0 to {len(found) - 1}", chosen)
    eps = backbone.config.number("layer_norm_eps", 1e-6)
    return [found[index] if plain else normed if index == len(found) - 1 else backbone.layer_norm(found[index], "norm", eps)
            for index in chosen]


def _chosen(config: Config, count: int) -> list[int]:
    """The layers whose words are taken, 0 for those before the first."""
    indices, features = config.get("out_indices"), config.get("out_features")
    if indices is None and isinstance(features, list):
        indices = [0 if item == "stem" else int(item[5:]) if isinstance(item, str) and item[:5] == "stage" and item[5:].isdecimal() else -1
                   for item in features]
    if (not isinstance(indices, list) or len(indices) != count or any(type(item) is not int or item < 0 for item in indices)
            or indices != sorted(set(indices))):
        raise config.refuse("out_indices", f"{count} numbers, from the least up", indices)
    return indices


def grown(net: Net, x: Value, layer: int, width: int) -> Value:
    """A layer's map, larger or smaller by the layer's factor."""
    config = net.config
    factors = config.get("reassemble_factors", [4, 2, 1, 0.5])
    factor: Any = factors[layer] if isinstance(factors, list) and layer < len(factors) else None
    smaller = int(1 / factor) if type(factor) is float and 1 / 64 <= factor < 1 else 0
    if not smaller and (type(factor) is not int or not 0 < factor < 64):
        raise config.refuse("reassemble_factors", "for each layer a whole number, or one from 1/64 to 1", factors)
    x = net.convolution(x, "project", width, 1, bias=True, layer=layer)
    if smaller:
        return net.convolution(x, "resize", width, 3, smaller, bias=True, layer=layer)
    if factor == 1:
        return x
    weight = net.tensor("resize", (width, width, factor, factor), layer=layer)
    return net.op("convolution_transpose", x, weight, net.tensor("resize", (width,), "bias", layer=layer), stride=(factor, factor))


def _joined(net: Net, maps: list[Value]) -> list[Value]:
    """From the last map to the first, each added to what is made of those before."""
    width = net.config.size("fusion_hidden_size", 64)
    maps = [net.convolution(x, "gather", width, 3, layer=layer) for layer, x in enumerate(maps)][::-1]
    net.leaves(f"{FUSION.format(layer=0)}.residual_layer1.*")
    found: list[Value] = []
    for layer, x in enumerate(maps):
        y = net.op("add", found[-1], residual(net, x, width, layer, "residual_layer1")) if found else x
        y = residual(net, y, width, layer, "residual_layer2")
        _, _, rows, columns = x.shape
        size = maps[layer + 1].shape[2:] if layer + 1 < len(maps) else (2 * rows, 2 * columns)
        y = net.op("interpolate", y, size=size, mode="linear", align_corners=True)
        found.append(net.convolution(y, "fused", width, 1, bias=True, layer=layer))
    return found


def residual(net: Net, x: Value, width: int, layer: int, part: str, *, bias: bool = True, normed: bool = False) -> Value:
    """A map with what two convolutions make of it, each with a batch norm after it where `normed`."""
    y = x
    for role in ("first", "second"):
        y = net.convolution(net.op("relu", y), role, width, 3, bias=bias, layer=layer, part=part)
        y = net.batch_norm(y, f"{role}_norm", layer=layer, part=part) if normed else y
    return net.op("add", y, x)


def _depth(net: Net, maps: list[Value], grid: tuple[Dim, Dim], patch: int) -> Value:
    """[batch, height, width], of whole patches."""
    config = net.config
    index = config.get("head_in_index", -1)
    if type(index) is not int or not -len(maps) <= index < len(maps):
        raise config.refuse("head_in_index", f"an index of {len(maps)} maps", index)
    width = config.size("fusion_hidden_size", 64)
    last = config.choice("depth_estimation_type", {"relative": "relu", "metric": "sigmoid"}, "relative")
    x = net.convolution(maps[index], "head_first", width // 2, 3, bias=True)
    x = net.op("interpolate", x, size=tuple(size * patch for size in grid), mode="linear", align_corners=True)
    x = net.op("relu", net.convolution(x, "head_second", config.size("head_hidden_size", 32), 3, bias=True))
    x = net.op(last, net.convolution(x, "head_last", 1, 1, bias=True))
    return net.op("squeeze", net.op("multiply", x, config.number("max_depth", 1)), axis=(1,))


FAMILY = Family(
    classes={"depth_anything": "DepthAnything"},
    names=NAMES,
    tasks={"depth-estimation": "ForDepthEstimation"},
    build=build,
    leftovers=("backbone.embeddings.mask_token", "backbone.layernorm.*"),
    inputs=("pixel_values",),
)
