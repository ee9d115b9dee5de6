"""Swin (Liu et al. 2021): attention within windows of an image of any size, every second time of windows moved by half.

The map is padded to whole windows, and moved then. A map that is one window high or wide is not moved, along neither axis.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from adapters.architectures.activations import Activation
from adapters.architectures.huggingface.config import Config
from adapters.architectures.huggingface.family import Family
from adapters.architectures.huggingface.layers.vision import TASKS, Image, depths, image, pixels, several
from adapters.architectures.huggingface.net import ACTIVATIONS, Net
from adapters.architectures.windows import Windows, complete, crop, join, mask_of, merge, offsets, pairs, roll
from converter.builder import Value
from converter.dims import Dim, fixed, minimum, symbol
from converter.ir import DimRange

BLOCK = "encoder.layers.{stage}.blocks.{layer}"
NAMES = {
    "patches": "embeddings.patch_embeddings.projection",
    "patch_norm": "embeddings.norm",
    "positions": "embeddings.position_embeddings",
    "attention_norm": f"{BLOCK}.layernorm_before",
    "query": f"{BLOCK}.attention.self.query",
    "key": f"{BLOCK}.attention.self.key",
    "value": f"{BLOCK}.attention.self.value",
    "offsets": f"{BLOCK}.attention.self.relative_position_bias_table",
    "attention_out": f"{BLOCK}.attention.output.dense",
    "inner_norm": f"{BLOCK}.layernorm_after",
    "inner": f"{BLOCK}.intermediate.dense",
    "outer": f"{BLOCK}.output.dense",
    "merge_norm": "encoder.layers.{stage}.downsample.norm",
    "merge": "encoder.layers.{stage}.downsample.reduction",
    "norm": "layernorm",
}
LEGACY = (*((f"{ours}.{end}", f"{newer}.{end}") for ours, newer in {
    "attention.self.query": "attention.q_proj",
    "attention.self.key": "attention.k_proj",
    "attention.self.value": "attention.v_proj",
    "attention.output.dense": "attention.o_proj",
    "intermediate.dense": "mlp.fc1",
    "output.dense": "mlp.fc2",
}.items() for end in ("weight", "bias")),
    ("attention.self.relative_position_bias_table", "attention.relative_position_bias.relative_position_bias_table"))

# The norms of patches and of merged words have PyTorch's own number, whatever the config says.
EPS = 1e-5
LARGEST_WINDOW = 64


# What words of each window see: net, queries, keys and values [batch, windows, heads, words, size], the side of a window, what is
# between words that are no neighbours, the stage and the layer.
Attend = Callable[..., Value]


@dataclass(frozen=True, slots=True)
class Layout:
    """What the blocks of all stages share.

    bias: of queries, keys and values. sides, shifts: of each stage's windows, where they do not follow from `window` and the image.
    after: norms follow each part, and the merging of words, instead of preceding it.
    """

    depths: list[int]
    heads: list[int]
    window: int
    ratio: float
    eps: float
    bias: tuple[bool, bool, bool]
    activation: Activation
    attend: Attend
    after: bool = False
    sides: list[int] | None = None
    shifts: list[int] | None = None


def layout_of(config: Config) -> Layout:
    layers, bias = depths(config, [2, 2, 6, 2]), config.flag("qkv_bias", True)
    window = config.size("window_size", 7)
    if window > LARGEST_WINDOW:
        raise config.refuse("window_size", f"at most {LARGEST_WINDOW}", window)
    return Layout(layers, several(config, "num_heads", [3, 6, 12, 24], len(layers)), window, config.number("mlp_ratio", 4.0, above=0),
                  config.number("layer_norm_eps", 1e-5), (bias, bias, bias), config.choice("hidden_act", ACTIVATIONS, "gelu"), _attend)


def build(laid_out: Callable[[Config], Layout], net: Net, task: str) -> None:
    config = net.config
    given, layout, width = image(config, 224, 4), laid_out(config), config.size("embed_dim", 96)
    config.only("num_layers", len(layout.depths))
    config.only("hidden_size", width << len(layout.depths) - 1)
    for name in ("drop_path_rate", "encoder_stride", "stage_names", "out_features", "out_indices", "path_norm"):
        config.get(name)  # of training, of a backbone, or of the head that paints masked patches
    x = stages(net, _embed(net, given, layout, width), layout)
    batch, rows, columns, last = x.shape
    x = net.layer_norm(net.op("reshape", x, shape=(batch, rows * columns, last)), "norm", layout.eps)
    pooled = net.op("mean", x, axis=(1,))
    if task == "image-feature-extraction":
        net.output("last_hidden_state", x)
        net.output("pooler_output", pooled)
    else:
        net.output("logits", net.linear(pooled, "classifier", config.labels()))


def stages(net: Net, x: Value, layout: Layout) -> Value:
    """All stages of a map, [batch, height, width, words' width]."""
    for stage, depth in enumerate(layout.depths):
        if stage:
            x = _merge(net, x, layout, stage=stage - 1)
        if fixed(x.shape[-1]) % layout.heads[stage]:
            raise net.config.refuse("num_heads", f"divisors of the widths, at this stage {x.shape[-1]}", layout.heads)
        side = layout.window if layout.sides is None else layout.sides[stage]
        # Half a window; nothing where the map's shorter side is one window.
        shift = minimum(side // 2, (minimum(x.shape[1], x.shape[2]) - side) * side) if layout.shifts is None else layout.shifts[stage]
        windows = Windows(x.shape[1], x.shape[2], (side, side), (shift, shift))
        mask = mask_of(net, windows) if depth > 1 and side > 1 and shift != 0 else None
        for index in range(depth):
            x = _block(net, x, layout, windows, mask if index % 2 else None, stage=stage, layer=index)
    return x


def _embed(net: Net, given: Image, layout: Layout, width: int) -> Value:
    """The image's patches, those at its end completed with zeros: [batch, rows, columns, width]."""
    fixed = net.config.flag("use_absolute_embeddings", False)
    across: tuple[Dim, Dim]
    if fixed:
        if given.height % given.patch_height or given.width % given.patch_width:
            raise net.config.refuse("image_size", "whole patches", net.config.get("image_size"))
        across = given.height, given.width
    else:
        # Each stage halves the map, and the last one still holds a window where its side is not said.
        least = layout.window - 1 << len(layout.depths) - 1 if layout.sides is None else 0
        net.b.dims.update(height=DimRange(least * given.patch_height + 1), width=DimRange(least * given.patch_width + 1))
        across = symbol("height"), symbol("width")
    x = pixels(net, given, height=across[0], width=across[1])
    x = net.op("pad", x, pads=((0, 0), (0, 0), (0, -across[0] % given.patch_height), (0, -across[1] % given.patch_width)))
    weight = net.tensor("patches", (width, given.channels, given.patch_height, given.patch_width))
    x = net.op("convolution", x, weight, net.tensor("patches", (width,), "bias"), stride=(given.patch_height, given.patch_width))
    x = net.layer_norm(net.op("permute_dims", x, axes=(0, 2, 3, 1)), "patch_norm", EPS)
    if fixed:
        rows, columns = given.grid
        table = net.tensor("positions", (1, rows * columns, width), "")
        x = net.op("add", x, net.op("reshape", table, shape=(1, rows, columns, width)))
    return x


def _block(net: Net, x: Value, layout: Layout, windows: Windows, mask: Value | None, **places: Any) -> Value:
    width = fixed(x.shape[-1])

    def normed(value: Value, role: str, here: bool) -> Value:
        return net.layer_norm(value, role, layout.eps, **places) if here else value

    part = _attention(net, normed(x, "attention_norm", not layout.after), layout, windows, mask, **places)
    x = net.op("add", x, normed(part, "attention_norm", layout.after))
    inner = net.linear(normed(x, "inner_norm", not layout.after), "inner", int(layout.ratio * width), **places)
    part = normed(net.linear(net.activation(inner, layout.activation), "outer", width, **places), "inner_norm", layout.after)
    return net.op("add", part, x, name="stage_{stage}_layer_{layer}".format(**places))


def _attention(net: Net, x: Value, layout: Layout, windows: Windows, mask: Value | None, **places: Any) -> Value:
    """What the words of each window see of each other: [batch, height, width, width of a word], as given."""
    batch, width = x.shape[0], x.shape[-1]
    rows, columns, (side, _), heads = windows.rows, windows.columns, windows.sides, layout.heads[places["stage"]]
    x = complete(net, x, windows)
    if mask is not None:
        x = roll(net, x, windows)
    parts = []
    for role, bias in zip(("query", "key", "value"), layout.bias, strict=True):
        part = net.linear(x, role, fixed(width), bias=bias, **places)
        part = net.op("reshape", part, shape=(batch, rows, side, columns, side, heads, width // heads))
        part = net.op("permute_dims", part, axes=(0, 1, 3, 5, 2, 4, 6))
        parts.append(net.op("reshape", part, shape=(batch, rows * columns, heads, side * side, width // heads)))
    y = net.linear(join(net, layout.attend(net, *parts, side, mask, **places), windows), "attention_out", fixed(width), **places)
    if mask is not None:
        y = roll(net, y, windows, back=True)
    return crop(net, y, windows)


def offsets_of(net: Net, table: Value, side: int, name: str = "relative_position_index") -> Value:
    """What is added to the scores of two words of a window, by their distance: [heads, words, words]. table: [distances, heads]."""
    return offsets(net, table, net.constant(name, pairs((side, side)).reshape(-1)), side * side)


def _attend(net: Net, query: Value, key: Value, value: Value, side: int, mask: Value | None, **places: Any) -> Value:
    """Scores with an offset for each head and distance."""
    bias = offsets_of(net, net.tensor("offsets", ((2 * side - 1)**2, fixed(query.shape[2])), "", **places), side)
    return net.op("scaled_dot_product_attention", query, key, value, bias if mask is None else net.op("add", bias, mask))


def _merge(net: Net, x: Value, layout: Layout, **places: Any) -> Value:
    """Four words to one of twice the width."""
    width = fixed(x.shape[-1])
    x = merge(net, x)
    x = x if layout.after else net.layer_norm(x, "merge_norm", EPS, **places)
    x = net.linear(x, "merge", 2 * width, bias=False, **places)
    return net.layer_norm(x, "merge_norm", EPS, **places) if layout.after else x


FAMILY = Family(
    classes={"swin": "Swin"},
    names=NAMES,
    heads={"classifier": "classifier"},
    tasks=TASKS,
    build=partial(build, layout_of),
    prefixes=("swin.",),
    leftovers=("embeddings.mask_token", "classifier.*", "decoder.*", "*.relative_position_index"),
    legacy=LEGACY,
    inputs=("pixel_values",),
)
