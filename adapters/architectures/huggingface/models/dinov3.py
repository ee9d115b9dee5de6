"""DINOv3's ViT (Siméoni et al. 2025): words after registers, rotated by where they lie in the image."""

from __future__ import annotations

import math

import numpy as np

from adapters.architectures.huggingface.family import Family
from adapters.architectures.huggingface.layers.vision import image, layer, patches, pixels, sizes, with_tokens
from adapters.architectures.huggingface.net import Net
from converter.builder import Value
from converter.dims import Dim, symbol
from converter.ir import DimRange, DType

LAYER = "layer.{layer}"
NAMES = {
    "class": "embeddings.cls_token",
    "registers": "embeddings.register_tokens",
    "patches": "embeddings.patch_embeddings",
    "attention_norm": f"{LAYER}.norm1",
    "query": f"{LAYER}.attention.q_proj",
    "key": f"{LAYER}.attention.k_proj",
    "value": f"{LAYER}.attention.v_proj",
    "attention_out": f"{LAYER}.attention.o_proj",
    "attention_scale": f"{LAYER}.layer_scale1.lambda1",
    "inner_norm": f"{LAYER}.norm2",
    "gate": f"{LAYER}.mlp.gate_proj",
    "inner": f"{LAYER}.mlp.up_proj",
    "outer": f"{LAYER}.mlp.down_proj",
    "outer_scale": f"{LAYER}.layer_scale2.lambda1",
    "norm": "norm",
}


def build(net: Net, task: str) -> None:
    config = net.config
    given, width, registers = image(config), config.size("hidden_size", 384), config.size("num_register_tokens", 0, least=0)
    bias = [config.flag(f"{name}_bias", name != "key") for name in ("query", "key", "value")]
    layout = sizes(config, eps=1e-5, bias=(bias[0], bias[1], bias[2]), scaled=True, gated=config.flag("use_gated_mlp", False),
                   out_bias=config.flag("proj_bias", True), inner_bias=config.flag("mlp_bias", True))
    if width // layout.heads % 4:
        raise config.refuse("num_attention_heads", "heads of a multiple of 4", layout.heads)
    for name in ("layerscale_value", "drop_path_rate", "pos_embed_shift", "pos_embed_jitter", "pos_embed_rescale", "apply_layernorm",
                 "reshape_hidden_states", "stage_names", "out_features", "out_indices"):
        config.get(name)  # of training, or of a backbone
    height, across = symbol("height"), symbol("width")
    net.b.dims.update(height=DimRange(given.patch_height), width=DimRange(given.patch_width))
    words = patches(net, pixels(net, given, height=height, width=across), given, width)
    before = [net.tensor("class", (1, 1, width), "")]
    if registers:
        before.append(net.tensor("registers", (1, registers, width), ""))
    else:
        net.leaves(NAMES["registers"])
    cosine, sine = _angles(net, width // layout.heads, height // given.patch_height, across // given.patch_width)

    def rotate(x: Value) -> Value:
        first, rest = net.b.add("split", (x,), {"sizes": (1 + registers, words.shape[1]), "axis": 2}, names=("tokens", "words"))
        return net.op("concat", first, net.op("rotary_embedding", rest, cosine, sine), axis=2)

    x = with_tokens(net, words, *before)
    for index in range(config.size("num_hidden_layers")):
        x = layer(net, x, layout, f"layer_{index}", rotate=rotate, layer=index)
    x = net.layer_norm(x, "norm", layout.eps)
    net.output("last_hidden_state", x)
    net.output("pooler_output", net.first(x))


def _angles(net: Net, head: int, rows: Dim, columns: Dim) -> tuple[Value, Value]:
    """Cosines and sines of each patch's angles, down and across: [patches, head / 2] each. Angles are float32 at least."""
    base = net.config.number("rope_theta", 100.0, above=0)
    exponents = (np.arange(head // 4) * (4 / head)).astype(np.float32)
    frequencies = np.float32(1) / (np.float64(np.float32(base))**exponents.astype(np.float64)).astype(np.float32)
    constant = net.cast(net.constant("inv_freq", frequencies), net.wide)
    parts = []
    for count, shape in ((rows, (rows, 1, 1)), (columns, (1, columns, 1))):
        place = net.op("add", net.cast(net.op("arange", stop=count, dtype=DType.INT64), net.wide), 0.5)
        total = net.cast(net.op("full", shape=(), fill_value=count, dtype=DType.INT64), net.wide)
        place = net.op("subtract", net.op("multiply", net.op("divide", place, total), 2.0), 1.0)
        angle = net.op("multiply", net.op("multiply", net.op("reshape", place, shape=shape), 2 * math.pi), constant)
        parts.append(net.op("broadcast_to", angle, shape=(rows, columns, head // 4)))
    angles = net.op("reshape", net.op("concat", *parts, axis=2), shape=(rows * columns, head // 2))
    return net.cast(net.op("cos", angles)), net.cast(net.op("sin", angles))


FAMILY = Family(
    classes={"dinov3_vit": "DINOv3ViT"},
    names=NAMES,
    tasks={"image-feature-extraction": "Model"},
    build=build,
    leftovers=("embeddings.mask_token",),
    legacy=(),
    inputs=("pixel_values",),
)
