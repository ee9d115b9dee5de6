"""DPT (Ranftl et al. 2021): a ViT's words of several layers, joined to a map of depths or of classes."""

from __future__ import annotations

from adapters.architectures.huggingface.family import Family
from adapters.architectures.huggingface.layers.vision import (
    Sizes,
    as_map,
    image,
    layer,
    patches,
    pixels,
    resized,
    several,
    sizes,
    with_tokens,
)
from adapters.architectures.huggingface.models import vit
from adapters.architectures.huggingface.models.convolutional import COUNTERS
from adapters.architectures.huggingface.models.depth_anything import FUSION, NAMES, grown, of_backbone, residual
from adapters.architectures.huggingface.models.segformer import SEGMENTATION
from adapters.architectures.huggingface.net import ACTIVATIONS, Net
from converter.builder import Value
from converter.dims import Dim, fixed, symbol
from converter.ir import DimRange

DEPTH = "depth-estimation"
HEADS = {
    **{role: name for role, name in NAMES.items() if not role.startswith("head")},
    "readout": "neck.reassemble_stage.readout_projects.{layer}.0",
    "first_norm": f"{FUSION}.{{part}}.batch_norm1",
    "second_norm": f"{FUSION}.{{part}}.batch_norm2",
    "before": "head.projection",
    "head": "head.head.{layer}",
}


def build(net: Net, task: str) -> None:
    config = net.config
    config.only("is_hybrid", False)
    for name in ("use_auxiliary_head", "auxiliary_loss_weight", "semantic_loss_ignore_index", "backbone_featmap_shape",
                 "neck_ignore_stages", "pooler_output_size", "pooler_act", "add_projection", "readout_type", "reassemble_factors",
                 "neck_hidden_sizes", "fusion_hidden_size", "head_in_index", "use_batch_norm_in_fusion_residual",
                 "use_bias_in_fusion_residual", "backbone_out_indices", "use_pretrained_backbone", "use_timm_backbone", "backbone",
                 "backbone_kwargs"):
        config.get(name)  # of heads, of training, and of other backbones
    widths = several(config, "neck_hidden_sizes", [96, 192, 384, 768])
    if config.get("backbone_config") is not None:
        patch = config.part("backbone_config").size("patch_size", 14)
        words, grid = of_backbone(net, len(widths), patch), (symbol("height") // patch, symbol("width") // patch)
    else:
        states, grid, layout = _states(net)
        if task == "image-feature-extraction":
            net.output("last_hidden_state", net.layer_norm(states[-1], "norm", layout.eps))
            if net.has("pooler"):
                pooled = net.linear(net.first(net.outputs["last_hidden_state"]), "pooler", config.optional_size(
                    "pooler_output_size") or config.size("hidden_size"))
                net.output("pooler_output", net.activation(pooled, config.choice("pooler_act", ACTIVATIONS, "tanh")))
            return
        chosen = several(config, "backbone_out_indices", [2, 5, 8, 11], len(widths), least=0)
        if any(index >= len(states) - 1 for index in chosen):
            raise config.refuse("backbone_out_indices", f"numbers from 0 to {len(states) - 2}", chosen)
        words = [states[index + 1] for index in sorted(chosen)]
        net.leaves("layernorm.*")
    maps = [grown(net, _read(net, x, index, grid), index, widths[index]) for index, x in enumerate(words)]
    joined = _joined(net, maps)
    place = config.get("head_in_index", -1)
    if type(place) is not int or not -len(joined) <= place < len(joined):
        raise config.refuse("head_in_index", f"an index of {len(joined)} maps", place)
    found = _depth(net, joined[place]) if task == DEPTH else _classes(net, joined[place])
    for name in ("height", "width", "size"):
        if name in net.b.dims:
            net.b.dims[name] = DimRange(net.b.least(name))
    net.output("predicted_depth" if task == DEPTH else "logits", found)


def _states(net: Net) -> tuple[list[Value], tuple[Dim, Dim], Sizes]:
    """The words before the first layer and after each, of square images of any size."""
    config = net.config
    given, width, layout = image(config, 384), config.size("hidden_size"), sizes(config, bias=config.flag("qkv_bias", True))
    if given.grid[0] != given.grid[1] or given.patch_height != given.patch_width:
        raise config.refuse("image_size", "a square of square patches", config.get("image_size"))
    size = symbol("size")
    net.b.dims["size"] = DimRange(given.patch_height)
    grid = (size // given.patch_height,) * 2
    x = with_tokens(net, patches(net, pixels(net, given, height=size, width=size), given, width), net.tensor("class", (1, 1, width), ""))
    count = given.grid[0] * given.grid[1]
    own, places = net.b.add("split", (net.tensor("positions", (1, count + 1, width), ""),), {"sizes": (1, count), "axis": 1},
                            names=("class_position", "patch_positions"))
    places = resized(net, places, given.grid, grid, mode="linear")
    states = [net.op("add", x, net.op("concat", own, places, axis=1), name="embeddings")]
    for index in range(config.size("num_hidden_layers")):
        states.append(layer(net, states[-1], layout, f"layer_{index}", layer=index))
    return states, grid, layout


def _read(net: Net, x: Value, index: int, grid: tuple[Dim, Dim]) -> Value:
    """A map of the words, with what the class token says."""
    config = net.config
    width, first = fixed(x.shape[2]), net.op("slice", x, axes=(1,), starts=(0,), stops=(1,))
    x = net.op("slice", x, axes=(1,), starts=(1,), stops=(None,))
    kind = config.choice("readout_type", {name: name for name in ("project", "add", "ignore")}, "project")
    if kind == "project":
        both = net.op("concat", x, net.op("broadcast_to", first, shape=x.shape), axis=2)
        x = net.activation(net.linear(both, "readout", width, layer=index), config.choice("hidden_act", ACTIVATIONS, "gelu"))
    elif kind == "add":
        x = net.op("add", x, first)
    return as_map(net, x, grid)


def _joined(net: Net, maps: list[Value]) -> list[Value]:
    """From the last map to the first, each added to what is made of those before, twice as large each time."""
    config, width = net.config, net.config.size("fusion_hidden_size", 256)
    normed = config.flag("use_batch_norm_in_fusion_residual", False)
    bias = config.get("use_bias_in_fusion_residual")
    bias = not normed if bias is None else config.flag("use_bias_in_fusion_residual")
    maps = [net.convolution(x, "gather", width, 3, layer=index) for index, x in enumerate(maps)][::-1]
    net.leaves(f"{FUSION.format(layer=0)}.residual_layer1.*")
    found: list[Value] = []
    for index, x in enumerate(maps):
        if found:
            x = net.op("interpolate", x, size=found[-1].shape[2:], mode="linear")
            x = net.op("add", found[-1], residual(net, x, width, index, "residual_layer1", bias=bias, normed=normed))
        x = residual(net, x, width, index, "residual_layer2", bias=bias, normed=normed)
        found.append(net.convolution(_twice(net, x), "fused", width, 1, bias=True, layer=index))
    return found


def _twice(net: Net, x: Value) -> Value:
    _, _, rows, columns = x.shape
    return net.op("interpolate", x, size=(2 * rows, 2 * columns), mode="linear", align_corners=True)


def _depth(net: Net, x: Value) -> Value:
    width = net.config.size("fusion_hidden_size", 256)
    if net.config.flag("add_projection", False):
        x = net.op("relu", net.convolution(x, "before", 256, 3, bias=True))
    x = _twice(net, net.convolution(x, "head", width // 2, 3, bias=True, layer=0))
    x = net.op("relu", net.convolution(x, "head", 32, 3, bias=True, layer=2))
    return net.op("squeeze", net.op("relu", net.convolution(x, "head", 1, 1, bias=True, layer=4)), axis=(1,))


def _classes(net: Net, x: Value) -> Value:
    x = net.convolution(x, "head", net.config.size("fusion_hidden_size", 256), 3, layer=0)
    x = net.op("relu", net.batch_norm(x, "head", layer=1))
    return _twice(net, net.convolution(x, "head", net.config.labels(), 1, bias=True, layer=4))


FAMILY = Family(
    classes={"dpt": "DPT"},
    names=vit.NAMES,
    heads=HEADS,
    tasks={"image-feature-extraction": "Model", DEPTH: "ForDepthEstimation", SEGMENTATION: "ForSemanticSegmentation"},
    build=build,
    prefixes=("dpt.",),
    leftovers=(COUNTERS, "pooler.*", "neck.*", "head.*", "auxiliary_head.*", "backbone.embeddings.mask_token", "backbone.layernorm.*"),
    inputs=("pixel_values",),
)
