"""Swin (Liu et al. 2021): attention within windows of an image of any size, every second time of windows moved by half.

The map is padded to whole windows. Moving rolls it; words that the roll made neighbours must not see each other, which a
mask of -100 sees to. A map that is one window high or wide is not moved, along neither axis.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from adapters.huggingface.config import Config
from adapters.huggingface.family import Family
from adapters.huggingface.layers.vision import TASKS, Image, depths, image, pixels, several
from adapters.huggingface.net import ACTIVATIONS, Net
from converter.builder import Value
from converter.dims import Dim, fixed, minimum, symbol
from converter.ir import DimRange, DType

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
APART = -100.0
LARGEST_WINDOW = 64


@dataclass(frozen=True, slots=True)
class Layout:
    """What the blocks of all stages share."""

    depths: list[int]
    heads: list[int]
    window: int
    ratio: float
    eps: float
    bias: bool
    activation: tuple[tuple[str, Mapping[str, Any]], ...]


@dataclass(frozen=True, slots=True)
class Windows:
    """A map of `height` · `width` words in windows of `side`: `rows` · `columns` of them, at most `shift` moved."""

    height: Dim
    width: Dim
    side: int

    @property
    def rows(self) -> Dim:
        return (self.height + self.side - 1) // self.side

    @property
    def columns(self) -> Dim:
        return (self.width + self.side - 1) // self.side

    @property
    def shift(self) -> Dim:
        """Half a window; nothing where the map's shorter side is one window."""
        return minimum(self.side // 2, (minimum(self.height, self.width) - self.side) * self.side)


def _layout(config: Config) -> Layout:
    layers = depths(config, [2, 2, 6, 2])
    window = config.size("window_size", 7)
    if window > LARGEST_WINDOW:
        raise config.refuse("window_size", f"at most {LARGEST_WINDOW}", window)
    return Layout(layers, several(config, "num_heads", [3, 6, 12, 24], len(layers)), window, config.number("mlp_ratio", 4.0, above=0),
                  config.number("layer_norm_eps", 1e-5), config.flag("qkv_bias", True), config.choice("hidden_act", ACTIVATIONS, "gelu"))


def build(net: Net, task: str) -> None:
    config = net.config
    given, layout, width = image(config, 224, 4), _layout(config), config.size("embed_dim", 96)
    config.only("num_layers", len(layout.depths))
    config.only("hidden_size", width << len(layout.depths) - 1)
    for name in ("drop_path_rate", "encoder_stride", "stage_names", "out_features", "out_indices", "path_norm"):
        config.get(name)  # of training, of a backbone, or of the head that paints masked patches
    x = _embed(net, given, layout, width)
    near = _neighbours(net, layout.window)
    for stage, depth in enumerate(layout.depths):
        if stage:
            x = _merge(net, x, stage=stage - 1)
        if fixed(x.shape[-1]) % layout.heads[stage]:
            raise config.refuse("num_heads", f"divisors of the widths {width}, {2 * width}, …", layout.heads)
        windows = Windows(x.shape[1], x.shape[2], layout.window)
        mask = _mask(net, windows) if depth > 1 and layout.window > 1 else None
        for index in range(depth):
            x = _block(net, x, layout, windows, near, mask if index % 2 else None, stage=stage, layer=index)
    batch, rows, columns, last = x.shape
    x = net.layer_norm(net.op("reshape", x, shape=(batch, rows * columns, last)), "norm", layout.eps)
    pooled = net.op("mean", x, axis=(1,))
    if task == "image-feature-extraction":
        net.output("last_hidden_state", x)
        net.output("pooler_output", pooled)
    else:
        net.output("logits", net.linear(pooled, "classifier", config.labels()))


def _embed(net: Net, given: Image, layout: Layout, width: int) -> Value:
    """The image's patches, those at its end completed with zeros: [batch, rows, columns, width]."""
    fixed = net.config.flag("use_absolute_embeddings", False)
    across: tuple[Dim, Dim]
    if fixed:
        if given.height % given.patch_height or given.width % given.patch_width:
            raise net.config.refuse("image_size", "whole patches", net.config.get("image_size"))
        across = given.height, given.width
    else:
        # Each stage halves the map, and the last one still holds a window.
        least = (layout.window - 1 << len(layout.depths) - 1)
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


def _neighbours(net: Net, side: int) -> Value:
    """Which row of a table of offsets two words of a window have, row by row: int64 [side⁴]."""
    rows, columns = np.divmod(np.arange(side * side), side)
    down, right = (item[:, None] - item[None, :] + side - 1 for item in (rows, columns))
    return net.constant("relative_position_index", (down * (2 * side - 1) + right).reshape(-1).astype(np.int64))


def _regions(net: Net, count: Dim, windows: Windows) -> Value:
    """0 for the positions at the end of an axis of `count` windows that a roll by `shift` brings there; -1 for the others."""
    shift = windows.shift
    return net.op("clip", net.op("arange", start=shift - count * windows.side, stop=shift, dtype=DType.INT64), -1, 0)


def _mask(net: Net, windows: Windows) -> Value:
    """-100 between words of a moved window that are no neighbours in the image: [windows, 1, words, words]."""
    side, words, count = windows.side, windows.side**2, windows.rows * windows.columns
    rows = net.op("reshape", _regions(net, windows.rows, windows), shape=(windows.rows, 1, side, 1))
    columns = net.op("reshape", _regions(net, windows.columns, windows), shape=(1, windows.columns, 1, side))
    region = net.op("add", net.op("multiply", rows, 2), columns)
    query, key = (net.op("reshape", region, shape=(count, 1, *shape)) for shape in ((words, 1), (1, words)))
    return net.op("multiply", net.cast(net.op("not_equal", query, key)), APART)


def _block(net: Net, x: Value, layout: Layout, windows: Windows, near: Value, mask: Value | None, **places: Any) -> Value:
    width = fixed(x.shape[-1])
    normed = net.layer_norm(x, "attention_norm", layout.eps, **places)
    x = net.op("add", x, _attention(net, normed, layout, windows, near, mask, **places))
    inner = net.linear(net.layer_norm(x, "inner_norm", layout.eps, **places), "inner", int(layout.ratio * width), **places)
    part = net.linear(net.activation(inner, layout.activation), "outer", width, **places)
    return net.op("add", part, x, name="stage_{stage}_layer_{layer}".format(**places))


def _attention(net: Net, x: Value, layout: Layout, windows: Windows, near: Value, mask: Value | None, **places: Any) -> Value:
    """What the words of each window see of each other: [batch, height, width, width of a word], as given."""
    batch, height, across, width = x.shape
    rows, columns, side, heads = windows.rows, windows.columns, windows.side, layout.heads[places["stage"]]
    x = net.op("pad", x, pads=((0, 0), (0, rows * side - height), (0, columns * side - across), (0, 0)))
    if mask is not None:
        x = net.op("roll", x, shift=(-windows.shift, -windows.shift), axis=(1, 2))
    parts = []
    for role in ("query", "key", "value"):
        part = net.linear(x, role, int(width), bias=layout.bias, **places)  # type: ignore[arg-type]
        part = net.op("reshape", part, shape=(batch, rows, side, columns, side, heads, width // heads))
        part = net.op("permute_dims", part, axes=(0, 1, 3, 5, 2, 4, 6))
        parts.append(net.op("reshape", part, shape=(batch, rows * columns, heads, side * side, width // heads)))
    table = net.tensor("offsets", ((2 * side - 1)**2, heads), "", **places)
    bias = net.op("reshape", net.op("embedding", near, table), shape=(side * side, side * side, heads))
    bias = net.op("permute_dims", bias, axes=(2, 0, 1))
    if mask is not None:
        bias = net.op("add", bias, mask)
    y = net.op("scaled_dot_product_attention", *parts, bias)
    y = net.op("reshape", y, shape=(batch, rows, columns, heads, side, side, width // heads))
    y = net.op("reshape", net.op("permute_dims", y, axes=(0, 1, 4, 2, 5, 3, 6)), shape=(batch, rows * side, columns * side, width))
    y = net.linear(y, "attention_out", int(width), **places)  # type: ignore[arg-type]
    if mask is not None:
        y = net.op("roll", y, shift=(windows.shift, windows.shift), axis=(1, 2))
    return net.op("slice", y, axes=(1, 2), starts=(0, 0), stops=(height, across), steps=(1, 1))


def _merge(net: Net, x: Value, **places: Any) -> Value:
    """Four words to one of twice the width; an odd row or column is completed with zeros."""
    batch, height, across, width = x.shape
    rows, columns = (height + 1) // 2, (across + 1) // 2
    x = net.op("pad", x, pads=((0, 0), (0, 2 * rows - height), (0, 2 * columns - across), (0, 0)))
    x = net.op("permute_dims", net.op("reshape", x, shape=(batch, rows, 2, columns, 2, width)), axes=(0, 1, 3, 4, 2, 5))
    x = net.layer_norm(net.op("reshape", x, shape=(batch, rows, columns, 4 * width)), "merge_norm", EPS, **places)
    return net.linear(x, "merge", 2 * int(width), bias=False, **places)  # type: ignore[arg-type]


FAMILY = Family(
    classes={"swin": "Swin"},
    names=NAMES,
    heads={"classifier": "classifier"},
    tasks=TASKS,
    build=build,
    prefixes=("swin.",),
    leftovers=("embeddings.mask_token", "classifier.*", "decoder.*", "*.relative_position_index"),
    legacy=LEGACY,
    inputs=("pixel_values",),
)
