"""ConvNeXt (Liu et al. 2022) and ConvNeXt V2 (Woo et al. 2023)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from adapters.architectures.activations import Activation
from adapters.architectures.huggingface.config import Config
from adapters.architectures.huggingface.family import Family
from adapters.architectures.huggingface.layers.vision import TASKS, depths, image, pair, pixels, several
from adapters.architectures.huggingface.net import ACTIVATIONS, Net
from converter.builder import Value
from converter.dims import fixed, symbol
from converter.ir import DimRange

BLOCK = "encoder.stages.{stage}.layers.{layer}"
NAMES = {
    "patches": "embeddings.patch_embeddings",
    "first_norm": "embeddings.layernorm",
    "shrink_norm": "encoder.stages.{stage}.downsampling_layer.0",
    "shrink": "encoder.stages.{stage}.downsampling_layer.1",
    "depthwise": f"{BLOCK}.dwconv",
    "block_norm": f"{BLOCK}.layernorm",
    "inner": f"{BLOCK}.pwconv1",
    "outer": f"{BLOCK}.pwconv2",
    "scale": f"{BLOCK}.layer_scale_parameter",
    "response": f"{BLOCK}.grn",
    "norm": "layernorm",
}

# The code has this number within the stages; the config's is for the last norm.
EPS = 1e-6


@dataclass(frozen=True, slots=True)
class Block:
    """What all blocks share. `competing`: ConvNeXt V2's norm of responses; `scaled`: a learned factor for each channel."""

    activation: Activation
    competing: bool
    scaled: bool


def build(net: Net, task: str) -> None:
    config = net.config
    stages = config.size("num_stages", 4)
    widths, layers = several(config, "hidden_sizes", [96, 192, 384, 768], stages), depths(config, [3, 3, 9, 3], stages)
    newer = config.get("model_type") == "convnextv2"
    kind = Block(config.choice("hidden_act", ACTIVATIONS, "gelu"), newer,
                 not newer and config.number("layer_scale_init_value", 1e-6) > 0)
    for name in ("drop_path_rate", "stage_names", "out_features", "out_indices", "image_size"):
        config.get(name)  # of training, or of a backbone; images of any size will do
    kernel = pair(config, "patch_size", 4)
    smallest = [size << stages - 1 for size in kernel]
    net.b.dims.update(height=DimRange(smallest[0]), width=DimRange(smallest[1]))
    given = image(Config({"image_size": smallest, "patch_size": list(kernel), "num_channels": config.get("num_channels", 3)}, config.where))
    x = pixels(net, given, height=symbol("height"), width=symbol("width"))
    x = net.channel_norm(net.convolution(x, "patches", widths[0], kernel, kernel, 0, bias=True), "first_norm", EPS)
    for stage in range(stages):
        if stage:
            x = net.channel_norm(x, "shrink_norm", EPS, stage=stage)
            x = net.convolution(x, "shrink", widths[stage], 2, 2, 0, bias=True, stage=stage)
        for index in range(layers[stage]):
            x = _block(net, x, widths[stage], kind, stage=stage, layer=index)
    pooled = net.layer_norm(net.op("mean", x, axis=(2, 3)), "norm", config.number("layer_norm_eps", 1e-12))
    if task == "image-feature-extraction":
        net.output("last_hidden_state", x)
        net.output("pooler_output", pooled)
    else:
        net.output("logits", net.linear(pooled, "classifier", config.labels()))


def _block(net: Net, x: Value, width: int, kind: Block, **places: Any) -> Value:
    spread = net.convolution(x, "depthwise", width, 7, groups=width, bias=True, **places)
    normed = net.layer_norm(net.op("permute_dims", spread, axes=(0, 2, 3, 1)), "block_norm", EPS, **places)
    inner = net.activation(net.linear(normed, "inner", 4 * width, **places), kind.activation)
    part = net.linear(_competing(net, inner, **places) if kind.competing else inner, "outer", width, **places)
    if kind.scaled:
        part = net.op("multiply", part, net.tensor("scale", (width,), "", **places))
    return net.op("add", x, net.op("permute_dims", part, axes=(0, 3, 1, 2)), name="stage_{stage}_layer_{layer}".format(**places))


def _competing(net: Net, x: Value, **places: Any) -> Value:
    """Global response normalisation: each channel by its norm over the image against the mean of all channels' norms."""
    width = fixed(x.shape[-1])
    scale, offset = (net.tensor("response", (1, 1, 1, width), ending, **places) for ending in ("weight", "bias"))
    norms = net.op("vector_norm", x, axis=(1, 2), keepdims=True)
    share = net.op("divide", norms, net.op("add", net.op("mean", norms, axis=(-1,), keepdims=True), EPS))
    part = net.op("add", net.op("multiply", scale, net.op("multiply", x, share)), offset)
    return net.op("add", part, x)


FAMILY = Family(
    classes={"convnext": "ConvNext"},
    names=NAMES,
    heads={"classifier": "classifier"},
    tasks=TASKS,
    build=build,
    prefixes=("convnext.",),
    leftovers=("classifier.*", "layernorm.*"),
    inputs=("pixel_values",),
)
SECOND = replace(FAMILY, classes={"convnextv2": "ConvNextV2"}, prefixes=("convnextv2.",))
