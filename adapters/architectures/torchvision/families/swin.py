"""Swin transformer, v1 and v2 (torchvision.models.swin_transformer), for images of any size.

The map is padded to whole windows. Every second block moves it by half a window, and by nothing along an axis that is one window long.
"""

from __future__ import annotations

from dataclasses import dataclass

from adapters.architectures.activations import RELU
from adapters.architectures.torchvision.family import Family
from adapters.architectures.torchvision.layers import Layers, size
from adapters.architectures.windows import Windows, complete, crop, join, mask_of, merge, offsets, roll
from converter.builder import Value
from converter.dims import Dim, minimum
from converter.ir import DType

EPS = 1e-5
PATCH = 4
POSITION_WIDTH = 512


@dataclass(frozen=True, slots=True)
class Swin:
    """`heads`: of the first stage; channels and heads double from stage to stage. `second`: the architecture's v2."""

    width: int
    depths: tuple[int, int, int, int]
    heads: int
    window: int
    second: bool


VARIANTS = {
    "swin_t": Swin(96, (2, 2, 6, 2), 3, 7, False),
    "swin_s": Swin(96, (2, 2, 18, 2), 3, 7, False),
    "swin_b": Swin(128, (2, 2, 18, 2), 4, 7, False),
    "swin_v2_t": Swin(96, (2, 2, 6, 2), 3, 8, True),
    "swin_v2_s": Swin(96, (2, 2, 18, 2), 3, 8, True),
    "swin_v2_b": Swin(128, (2, 2, 18, 2), 4, 8, True),
}


def _windows(height: Dim, width: Dim, side: int) -> Windows:
    """Windows that are moved by half of one down and right, by 0 where there is one window only."""
    down, right = (minimum(side // 2, ((length + side - 1) // side - 1) * side) for length in (height, width))
    return Windows(height, width, (side, side), (down, right))


def _position_bias(net: Layers, name: str, variant: Swin, heads: int) -> Value:
    """What each head adds for two tokens' places in a window: `[heads, tokens, tokens]`."""
    side, span = variant.window, 2 * variant.window - 1
    if variant.second:
        table = net.linear(net.parameter(f"{name}.relative_coords_table", 1, span, span, 2), f"{name}.cpb_mlp.0", POSITION_WIDTH)
        table = net.linear(net.activation(table, RELU), f"{name}.cpb_mlp.2", heads, bias=False)
        table = net.op("multiply", net.op("sigmoid", table), 16.0)
        table = net.op("reshape", table, shape=(span * span, heads))
    else:
        table = net.parameter(f"{name}.relative_position_bias_table", span * span, heads)
    index = net.parameter(f"{name}.relative_position_index", side**4, dtype=DType.INT64)
    return offsets(net, table, index, side**2)


def _query_key_value(net: Layers, x: Value, name: str, variant: Swin) -> Value:
    """`linear` to thrice the channels; in v2 the keys have no bias."""
    channels = size(x, -1)
    weight = net.parameter(f"{name}.qkv.weight", 3 * channels, channels)
    bias = net.parameter(f"{name}.qkv.bias", 3 * channels)
    if variant.second:
        none = net.op("full", shape=(channels,), fill_value=0.0, dtype=net.dtype)
        bias = net.op("slice_scatter", bias, none, axis=0, start=channels, stop=2 * channels)
    return net.op("linear", x, weight, bias)


def _attention(net: Layers, x: Value, name: str, variant: Swin, heads: int, windows: Windows, mask: Value | None) -> Value:
    x = complete(net, x, windows)
    if mask is not None:
        x = roll(net, x, windows)
    y = in_windows(net, _query_key_value(net, x, name, variant), name, heads, windows, _position_bias(net, name, variant, heads), mask,
                   variant.second)
    return crop(net, y if mask is None else roll(net, y, windows, back=True), windows)


def in_windows(net: Layers, qkv: Value, name: str, heads: int, windows: Windows, bias: Value, mask: Value | None, cosine: bool) -> Value:
    """What the tokens of each window see of each other, and `{name}.proj`, over a padded map.

    `qkv`: queries, keys and values, `[batch, height, width, 3 · channels]`. `bias`: `[heads, tokens, tokens]`. `cosine`: v2's attention.
    """
    batch, channels = qkv.shape[0], size(qkv, -1) // 3
    rows, columns, (high, wide), depth = windows.rows, windows.columns, windows.sides, channels // heads
    qkv = net.op("reshape", qkv, shape=(batch, rows, high, columns, wide, 3, heads, depth))
    qkv = net.op("permute_dims", qkv, axes=(5, 0, 1, 3, 6, 2, 4, 7))
    qkv = net.op("reshape", qkv, shape=(3, batch, rows * columns, heads, high * wide, depth))
    query, key, value = net.b.add("unstack", (qkv,), {"axis": 0})
    scale = None
    if cosine:
        # Cosine attention: the angle between query and key, times a learned factor of at most 100.
        factor = net.op("exp", net.op("clip", net.parameter(f"{name}.logit_scale", heads, 1, 1), None, 4.605170185988092))
        query, key, scale = net.op("multiply", net.directions(query), factor), net.directions(key), 1.0
    if mask is not None:
        bias = net.op("add", bias, mask)
    y = net.op("scaled_dot_product_attention", query, key, value, bias, scale=scale)
    return net.linear(join(net, y, windows), f"{name}.proj", channels)


def _mlp(net: Layers, x: Value, name: str) -> Value:
    channels = size(x, -1)
    return net.linear(net.op("gelu", net.linear(x, f"{name}.0", 4 * channels)), f"{name}.3", channels)


def _block(net: Layers, x: Value, name: str, variant: Swin, heads: int, windows: Windows, mask: Value | None) -> Value:
    if variant.second:
        y = _attention(net, x, f"{name}.attn", variant, heads, windows, mask)
        x = net.op("add", x, net.layer_norm(y, f"{name}.norm1", EPS))
        return net.op("add", x, net.layer_norm(_mlp(net, x, f"{name}.mlp"), f"{name}.norm2", EPS))
    y = net.layer_norm(x, f"{name}.norm1", EPS)
    x = net.op("add", x, _attention(net, y, f"{name}.attn", variant, heads, windows, mask))
    return net.op("add", x, _mlp(net, net.layer_norm(x, f"{name}.norm2", EPS), f"{name}.mlp"))


def narrow(net: Layers, x: Value, name: str, second: bool) -> Value:
    """Four tokens to one of twice the channels."""
    channels, x = size(x, -1), merge(net, x)
    if second:
        return net.layer_norm(net.linear(x, f"{name}.reduction", 2 * channels, bias=False), f"{name}.norm", EPS)
    return net.linear(net.layer_norm(x, f"{name}.norm", EPS), f"{name}.reduction", 2 * channels, bias=False)


def build(net: Layers, variant: Swin) -> Value:
    """The class scores, `[batch, classes]`."""
    x = net.convolution(net.image("features.0.0"), "features.0.0", variant.width, PATCH, PATCH, 0, bias=True)
    x = net.layer_norm(net.op("permute_dims", x, axes=(0, 2, 3, 1)), "features.0.2", EPS)
    for stage, depth in enumerate(variant.depths):
        if stage:
            x = narrow(net, x, f"features.{2 * stage}", variant.second)
        windows = _windows(x.shape[1], x.shape[2], variant.window)
        mask = mask_of(net, windows)
        for block in range(depth):
            name = f"features.{2 * stage + 1}.{block}"
            x = _block(net, x, name, variant, variant.heads * 2**stage, windows, mask if block % 2 else None)
    x = net.op("mean", net.layer_norm(x, "norm", EPS), axis=(1, 2))
    return net.linear(x, "head")


FAMILY = Family("Swin", ("features.0.0.weight", "features.1.0.attn.relative_position_index", "features.1.0.attn.qkv.weight", "head.weight"),
                VARIANTS, build)
