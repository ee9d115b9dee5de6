"""Swin (Liu et al. 2021): attention within windows of an image of any size, every second time of windows moved by half.

The map is padded to whole windows. Moving rolls it; words that the roll made neighbours must not see each other, which a
mask of -100 sees to. A map that is one window high or wide is not moved, along neither axis.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from adapters.architectures.huggingface.config import Config
from adapters.architectures.huggingface.family import Family
from adapters.architectures.huggingface.layers.vision import TASKS, Image, depths, image, pixels, several
from adapters.architectures.huggingface.net import ACTIVATIONS, Net
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
    activation: tuple[tuple[str, Mapping[str, Any]], ...]
    attend: Attend
    after: bool = False
    sides: list[int] | None = None
    shifts: list[int] | None = None


@dataclass(frozen=True, slots=True)
class Windows:
    """A map of `height` · `width` words in windows of `side`: `rows` · `columns` of them, moved by `shift`."""

    height: Dim
    width: Dim
    side: int
    moved: int | None = None

    @property
    def rows(self) -> Dim:
        return (self.height + self.side - 1) // self.side

    @property
    def columns(self) -> Dim:
        return (self.width + self.side - 1) // self.side

    @property
    def shift(self) -> Dim:
        """Half a window; nothing where the map's shorter side is one window; or what is `moved`."""
        return self.moved if self.moved is not None else minimum(self.side // 2, (minimum(self.height, self.width) - self.side) * self.side)


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
        windows = Windows(x.shape[1], x.shape[2], side, None if layout.shifts is None else layout.shifts[stage])
        mask = _mask(net, windows) if depth > 1 and side > 1 and windows.moved != 0 else None
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


def _neighbours(net: Net, side: int, name: str) -> Value:
    """Which row of a table of offsets two words of a window have, row by row: int64 [side⁴]."""
    rows, columns = np.divmod(np.arange(side * side), side)
    down, right = (item[:, None] - item[None, :] + side - 1 for item in (rows, columns))
    return net.constant(name, (down * (2 * side - 1) + right).reshape(-1).astype(np.int64))


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
    batch, height, across, width = x.shape
    rows, columns, side, heads = windows.rows, windows.columns, windows.side, layout.heads[places["stage"]]
    x = net.op("pad", x, pads=((0, 0), (0, rows * side - height), (0, columns * side - across), (0, 0)))
    if mask is not None:
        x = net.op("roll", x, shift=(-windows.shift, -windows.shift), axis=(1, 2))
    parts = []
    for role, bias in zip(("query", "key", "value"), layout.bias, strict=True):
        part = net.linear(x, role, fixed(width), bias=bias, **places)
        part = net.op("reshape", part, shape=(batch, rows, side, columns, side, heads, width // heads))
        part = net.op("permute_dims", part, axes=(0, 1, 3, 5, 2, 4, 6))
        parts.append(net.op("reshape", part, shape=(batch, rows * columns, heads, side * side, width // heads)))
    y = layout.attend(net, *parts, side, mask, **places)
    y = net.op("reshape", y, shape=(batch, rows, columns, heads, side, side, width // heads))
    y = net.op("reshape", net.op("permute_dims", y, axes=(0, 1, 4, 2, 5, 3, 6)), shape=(batch, rows * side, columns * side, width))
    y = net.linear(y, "attention_out", fixed(width), **places)
    if mask is not None:
        y = net.op("roll", y, shift=(windows.shift, windows.shift), axis=(1, 2))
    return net.op("slice", y, axes=(1, 2), starts=(0, 0), stops=(height, across), steps=(1, 1))


def offsets_of(net: Net, table: Value, side: int, name: str = "relative_position_index") -> Value:
    """What is added to the scores of two words of a window, by their distance: [heads, words, words]. table: [distances, heads]."""
    found = net.op("reshape", net.op("embedding", _neighbours(net, side, name), table), shape=(side * side, side * side, table.shape[-1]))
    return net.op("permute_dims", found, axes=(2, 0, 1))


def _attend(net: Net, query: Value, key: Value, value: Value, side: int, mask: Value | None, **places: Any) -> Value:
    """Scores with an offset for each head and distance."""
    bias = offsets_of(net, net.tensor("offsets", ((2 * side - 1)**2, fixed(query.shape[2])), "", **places), side)
    return net.op("scaled_dot_product_attention", query, key, value, bias if mask is None else net.op("add", bias, mask))


def _merge(net: Net, x: Value, layout: Layout, **places: Any) -> Value:
    """Four words to one of twice the width; an odd row or column is completed with zeros."""
    batch, height, across, width = x.shape
    rows, columns = (height + 1) // 2, (across + 1) // 2
    x = net.op("pad", x, pads=((0, 0), (0, 2 * rows - height), (0, 2 * columns - across), (0, 0)))
    x = net.op("permute_dims", net.op("reshape", x, shape=(batch, rows, 2, columns, 2, width)), axes=(0, 1, 3, 4, 2, 5))
    x = net.op("reshape", x, shape=(batch, rows, columns, 4 * width))
    x = x if layout.after else net.layer_norm(x, "merge_norm", EPS, **places)
    x = net.linear(x, "merge", 2 * fixed(width), bias=False, **places)
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
