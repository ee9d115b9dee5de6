"""BEiT (Bao et al. 2022) and data2vec-vision (Baevski et al. 2022): scaled parts, and learned offsets of each pair of patches."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from adapters.architectures.huggingface.family import Family
from adapters.architectures.huggingface.layers.vision import TASKS, image, layer, patches, pixels, sizes, with_tokens
from adapters.architectures.huggingface.models.vit import NAMES as VIT
from adapters.architectures.huggingface.net import Net
from adapters.architectures.windows import offsets, pairs
from converter.builder import Value

TABLE = "relative_position_bias.relative_position_bias_table"
SHARED = "shared_position_bias.relative_position_bias_table"
NAMES = {
    **VIT,
    "attention_scale": "encoder.layer.{layer}.lambda_1",
    "outer_scale": "encoder.layer.{layer}.lambda_2",
    "offsets": f"encoder.layer.{{layer}}.{TABLE}",
    "shared_offsets": SHARED,
    "pooled_norm": "pooler.layernorm",
}


def build(net: Net, task: str) -> None:
    config = net.config
    given, width = image(config), config.size("hidden_size")
    config.size("patch_size", 16)
    side, mean = given.grid[0], config.flag("use_mean_pooling", True)
    if given.height != given.width:
        raise config.refuse("image_size", "a square", config.get("image_size"))
    scale = config.number("layer_scale_init_value", 0.1)
    layout = sizes(config, bias=(True, False, True), scaled=scale > 0)
    for name in ("vocab_size", "use_mask_token", "drop_path_rate", "pool_scales", "use_auxiliary_head", "auxiliary_loss_weight",
                 "auxiliary_channels", "auxiliary_num_convs", "auxiliary_concat_input", "semantic_loss_ignore_index", "out_features",
                 "out_indices", "stage_names", "add_fpn", "reshape_hidden_states", "segmentation_indices"):
        config.get(name)  # of training, of a backbone, or of another head
    x = with_tokens(net, patches(net, pixels(net, given), given, width), net.tensor("class", (1, 1, width), ""))
    if config.flag("use_absolute_position_embeddings", False):
        x = net.op("add", x, net.tensor("positions", (1, side * side + 1, width), ""), name="embeddings")
    own, shared = (config.flag(f"use_{kind}relative_position_bias", False) for kind in ("", "shared_"))
    near = _pairs(net, side) if own or shared else None
    everywhere = _offsets(net, near, "shared_offsets", side, layout.heads) if near and shared else None
    for index in range(config.size("num_hidden_layers")):
        mask = _offsets(net, near, "offsets", side, layout.heads, layer=index) if near and own else None
        mask = net.op("add", mask, everywhere) if mask and everywhere else mask or everywhere
        x = layer(net, x, layout, f"layer_{index}", mask, layer=index)
    if not mean:
        x = net.layer_norm(x, "norm", layout.eps)
    if task == "image-feature-extraction":
        net.output("last_hidden_state", x)
        # Whether the first word is pooled, no weight tells: by default only BEiT's own class does.
        if not net.has("pooled_norm") and (mean or config.get("model_type") == "data2vec-vision"):
            return
    pooled = net.first(x)
    if mean:
        rest = net.op("slice", x, axes=(1,), starts=(1,), stops=(None,))
        pooled = net.layer_norm(net.op("mean", rest, axis=(1,)), "pooled_norm", layout.eps)
    if task == "image-feature-extraction":
        net.output("pooler_output", pooled)
    else:
        net.output("logits", net.linear(pooled, "classifier", config.labels()))


def _pairs(net: Net, side: int) -> Value:
    """Which row of a table of offsets each pair of words has; the last three are of the class token. int64 [words²]."""
    count = (2 * side - 1)**2
    found = np.full((side * side + 1,) * 2, count, np.int64)
    found[:, 0] = count + 1
    found[0, 0] = count + 2
    found[1:, 1:] = pairs((side, side))
    return net.constant("relative_position_index", found.reshape(-1))


def _offsets(net: Net, near: Value, role: str, side: int, heads: int, **places: int) -> Value:
    """What is added to each head's scores: [heads, words, words]."""
    return offsets(net, net.tensor(role, ((2 * side - 1)**2 + 3, heads), "", **places), near, side * side + 1)


BEIT = Family(
    classes={"beit": "Beit"},
    names=NAMES,
    heads={"classifier": "classifier"},
    tasks=TASKS,
    build=build,
    prefixes=("beit.",),
    leftovers=("embeddings.mask_token", "pooler.*", "classifier.*", "lm_head.*", "*relative_position_index", "layernorm.*"),
    # Within the attention, and of the encoder: where older versions have them.
    legacy=((f".{TABLE}", f".attention.attention.{TABLE}"), (SHARED, f"encoder.{TABLE}")),
    inputs=("pixel_values",),
)
DATA2VEC = replace(BEIT, classes={"data2vec-vision": "Data2VecVision"}, prefixes=("data2vec_vision.",))
