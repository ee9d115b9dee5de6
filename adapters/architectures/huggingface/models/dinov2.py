"""DINOv2 (Oquab et al. 2023): a ViT with scaled parts, for images of any size; its positions are resized to the image.

With registers (Darcet et al. 2023) there are learned words without positions after the class token.
"""

from __future__ import annotations

from dataclasses import replace

from adapters.architectures.huggingface.config import Config
from adapters.architectures.huggingface.family import Family
from adapters.architectures.huggingface.layers.vision import TASKS, image, layer, patches, pixels, resized, sizes, with_tokens
from adapters.architectures.huggingface.net import Net
from converter.builder import Value
from converter.dims import Dim, symbol
from converter.ir import DimRange

NAMES = {
    "class": "embeddings.cls_token",
    "registers": "embeddings.register_tokens",
    "patches": "embeddings.patch_embeddings.projection",
    "positions": "embeddings.position_embeddings",
    "attention_norm": "encoder.layer.{layer}.norm1",
    "query": "encoder.layer.{layer}.attention.attention.query",
    "key": "encoder.layer.{layer}.attention.attention.key",
    "value": "encoder.layer.{layer}.attention.attention.value",
    "attention_out": "encoder.layer.{layer}.attention.output.dense",
    "attention_scale": "encoder.layer.{layer}.layer_scale1.lambda1",
    "inner_norm": "encoder.layer.{layer}.norm2",
    "inner": "encoder.layer.{layer}.mlp.fc1",
    "outer": "encoder.layer.{layer}.mlp.fc2",
    "gate_up": "encoder.layer.{layer}.mlp.weights_in",
    "down": "encoder.layer.{layer}.mlp.weights_out",
    "outer_scale": "encoder.layer.{layer}.layer_scale2.lambda1",
    "norm": "layernorm",
}


def build(net: Net, task: str) -> None:
    config = net.config
    *_, x = states(net)
    registers = _registers(config)
    first = net.first(x)
    if task == "image-feature-extraction":
        net.output("last_hidden_state", x)
        net.output("pooler_output", first)
        return
    rest = net.op("mean", net.op("slice", x, axes=(1,), starts=(1 + registers,), stops=(None,)), axis=(1,))
    net.output("logits", net.linear(net.op("concat", first, rest, axis=1), "classifier", config.labels()))


def _registers(config: Config) -> int:
    return config.size("num_register_tokens", 4) if config.get("model_type") == "dinov2_with_registers" else 0


def states(net: Net) -> list[Value]:
    """The words before the first layer, after each, and those of the last normalised: [batch, 1 + patches, width] each."""
    config = net.config
    given, width = image(config, 224, 14), config.size("hidden_size")
    rows, columns = given.grid
    if rows != columns:
        raise config.refuse("image_size", "a square of patches", config.get("image_size"))
    gated, inner = config.flag("use_swiglu_ffn", False), int(width * config.number("mlp_ratio", 4, above=0))
    if gated:
        inner = (int(inner * 2 / 3) + 7) // 8 * 8
    layout = sizes(config, eps=1e-6, inner=inner, bias=config.flag("qkv_bias", True), scaled=True, gated=gated)
    if gated:
        layout = replace(layout, activation="silu")
    registers = _registers(config)
    for name in ("layerscale_value", "drop_path_rate", "apply_layernorm", "reshape_hidden_states", "stage_names", "out_features",
                 "out_indices", "use_mask_token"):
        config.get(name)  # of training, or of a backbone
    height, across = symbol("height"), symbol("width")
    net.b.dims.update(height=DimRange(given.patch_height), width=DimRange(given.patch_width))
    words = patches(net, pixels(net, given, height=height, width=across), given, width)
    x = with_tokens(net, words, net.tensor("class", (1, 1, width), ""))
    places = _positions(net, rows, width, height // given.patch_height, across // given.patch_width, registers > 0)
    x = net.op("add", x, places, name="embeddings")
    if registers:
        own, words = net.b.add("split", (x,), {"sizes": (1, words.shape[1]), "axis": 1}, names=("class_token", "words"))
        x = net.op("concat", own, with_tokens(net, words, net.tensor("registers", (1, registers, width), "")), axis=1)
    found = [x]
    for index in range(config.size("num_hidden_layers")):
        found.append(layer(net, found[-1], layout, f"layer_{index}", layer=index))
    return [*found, net.layer_norm(found[-1], "norm", layout.eps)]


def _positions(net: Net, side: int, width: int, rows: Dim, columns: Dim, antialias: bool) -> Value:
    """The class token's position, and those of the patches resized from side · side, bicubic: [1, 1 + rows · columns, width]."""
    table = net.tensor("positions", (1, side * side + 1, width), "")
    own, places = net.b.add("split", (table,), {"sizes": (1, side * side), "axis": 1}, names=("class_position", "patch_positions"))
    places = resized(net, places, (side, side), (rows, columns), mode="cubic", antialias=antialias)
    return net.op("concat", own, places, axis=1, name="positions")


FAMILY = Family(
    classes={"dinov2": "Dinov2"},
    names=NAMES,
    heads={"classifier": "classifier"},
    tasks=TASKS,
    build=build,
    prefixes=("dinov2.",),
    leftovers=("embeddings.mask_token", "classifier.*"),
    inputs=("pixel_values",),
)
REGISTERED = replace(FAMILY, classes={"dinov2_with_registers": "Dinov2WithRegisters"}, prefixes=("dinov2_with_registers.",))
