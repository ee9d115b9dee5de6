"""ConvNeXt (Liu et al. 2022)."""

from __future__ import annotations

from typing import Any

from adapters.huggingface.config import MOST_LAYERS, Config
from adapters.huggingface.family import Family
from adapters.huggingface.net import ACTIVATIONS, Net
from adapters.huggingface.vision import TASKS, image, pair, pixels
from converter.builder import Value
from converter.dims import symbol
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
    "norm": "layernorm",
}

# The code has this number within the stages; the config's is for the last norm.
EPS = 1e-6


def _list(config: Config, name: str, default: list[int], count: int) -> list[int]:
    values = config.get(name, default)
    if not isinstance(values, list) or len(values) != count or any(type(item) is not int or not 0 < item < 1 << 16 for item in values):
        raise config.refuse(name, f"{count} sizes", values)
    return values


def _convolution(net: Net, x: Value, role: str, width: int, kernel: tuple[int, int], groups: int = 1, padding: int = 0, stride: bool = True,
                 **places: Any) -> Value:
    weight = net.tensor(role, (width, int(x.shape[1]) // groups, *kernel), **places)  # type: ignore[arg-type]
    return net.op("convolution", x, weight, net.tensor(role, (width,), "bias", **places), stride=kernel if stride else (),
                  padding=(padding, padding) if padding else (), groups=groups)


def _norm_channels(net: Net, x: Value, role: str, **places: Any) -> Value:
    """A norm of each pixel's channels: [batch, channels, height, width]."""
    last = net.layer_norm(net.op("permute_dims", x, axes=(0, 2, 3, 1)), role, EPS, **places)
    return net.op("permute_dims", last, axes=(0, 3, 1, 2))


def build(net: Net, task: str) -> None:
    config = net.config
    stages = config.size("num_stages", 4)
    widths, depths = _list(config, "hidden_sizes", [96, 192, 384, 768], stages), _list(config, "depths", [3, 3, 9, 3], stages)
    if sum(depths) > MOST_LAYERS:
        raise config.refuse("depths", f"at most {MOST_LAYERS} layers in all", depths)
    activation, scaled = config.choice("hidden_act", ACTIVATIONS, "gelu"), config.number("layer_scale_init_value", 1e-6) > 0
    for name in ("drop_path_rate", "stage_names", "out_features", "out_indices", "image_size"):
        config.get(name)  # of training, or of a backbone; images of any size will do
    kernel = pair(config, "patch_size", 4)
    smallest = [size << stages - 1 for size in kernel]
    net.b.dims.update(height=DimRange(smallest[0]), width=DimRange(smallest[1]))
    given = image(Config({"image_size": smallest, "patch_size": list(kernel), "num_channels": config.get("num_channels", 3)}, config.where))
    x = pixels(net, given, height=symbol("height"), width=symbol("width"))
    x = _norm_channels(net, _convolution(net, x, "patches", widths[0], kernel), "first_norm")
    for stage in range(stages):
        if stage:
            x = _convolution(net, _norm_channels(net, x, "shrink_norm", stage=stage), "shrink", widths[stage], (2, 2), stage=stage)
        for index in range(depths[stage]):
            x = _block(net, x, widths[stage], activation, scaled, stage=stage, layer=index)
    pooled = net.layer_norm(net.op("mean", x, axis=(2, 3)), "norm", config.number("layer_norm_eps", 1e-12))
    if task == "image-feature-extraction":
        net.output("last_hidden_state", x)
        net.output("pooler_output", pooled)
    else:
        net.output("logits", net.linear(pooled, "classifier", config.labels()))


def _block(net: Net, x: Value, width: int, activation: Any, scaled: bool, **places: Any) -> Value:
    spread = _convolution(net, x, "depthwise", width, (7, 7), groups=width, padding=3, stride=False, **places)
    normed = net.layer_norm(net.op("permute_dims", spread, axes=(0, 2, 3, 1)), "block_norm", EPS, **places)
    part = net.linear(net.activation(net.linear(normed, "inner", 4 * width, **places), activation), "outer", width, **places)
    if scaled:
        part = net.op("multiply", part, net.tensor("scale", (width,), "", **places))
    return net.op("add", x, net.op("permute_dims", part, axes=(0, 3, 1, 2)), name="stage_{stage}_layer_{layer}".format(**places))


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
