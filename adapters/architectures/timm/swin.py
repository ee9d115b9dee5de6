"""timm's Swin transformers, v1 and v2, for images of the config's size (timm.models.swin_transformer, swin_transformer_v2).

A stage whose map is no longer than a window has one window of its own size. The map is moved first, and completed to whole
windows then; torchvision's is completed first.
"""

from __future__ import annotations

from dataclasses import dataclass

from adapters.architectures.activations import RELU
from adapters.architectures.timm.net import Net
from adapters.architectures.torchvision.families.swin import EPS, POSITION_WIDTH, in_windows, narrow
from adapters.architectures.torchvision.layers import size
from adapters.architectures.windows import Windows, complete, crop, distances, mask_of, offsets, pairs, roll
from converter.builder import Value


@dataclass(frozen=True, slots=True)
class Blocks:
    """What all blocks share. `trained`: the sides of the windows that v2's distances were trained with; 0: these."""

    second: bool
    ratio: float
    bias: bool
    activation: str
    trained: tuple[int, ...]


def _position_bias(net: Net, name: str, sides: tuple[int, int], heads: int, blocks: Blocks, trained: int) -> Value:
    """What each head adds for two tokens' places in a window: `[heads, tokens, tokens]`."""
    (high, wide), tokens = sides, sides[0] * sides[1]
    span = (2 * high - 1) * (2 * wide - 1)
    index = net.constant(f"relative_position_index_{high}_{wide}", pairs(sides).reshape(-1))
    net.unused(f"{name}.relative_position_index")
    if blocks.second:
        apart = distances(sides, trained)[None].astype(net.dtype.numpy)
        table = net.linear(net.constant(f"relative_coords_table_{high}_{wide}_{trained}", apart), f"{name}.cpb_mlp.0", POSITION_WIDTH)
        net.unused(f"{name}.relative_coords_table")
        table = net.op("reshape", net.linear(net.activation(table, RELU), f"{name}.cpb_mlp.2", heads, bias=False), shape=(span, heads))
        table = net.op("multiply", net.op("sigmoid", table), 16.0)
    else:
        table = net.parameter(f"{name}.relative_position_bias_table", span, heads)
    return offsets(net, table, index, tokens)


def _query_key_value(net: Net, x: Value, name: str, blocks: Blocks) -> Value:
    """v2's keys have no bias, and the others' are apart."""
    channels = size(x, -1)
    if not blocks.second:
        return net.linear(x, f"{name}.qkv", 3 * channels, bias=blocks.bias)
    weight = net.parameter(f"{name}.qkv.weight", 3 * channels, channels)
    net.unused(f"{name}.k_bias")
    if not blocks.bias:
        return net.op("linear", x, weight)
    none = net.op("full", shape=(channels,), fill_value=0.0, dtype=net.dtype)
    query, value = (net.parameter(f"{name}.{part}_bias", channels) for part in "qv")
    return net.op("linear", x, weight, net.op("concat", query, none, value, axis=0))


def _attention(net: Net, x: Value, name: str, blocks: Blocks, heads: int, windows: Windows, bias: Value, mask: Value | None) -> Value:
    moved = any(windows.shifts)
    x = roll(net, x, windows) if moved else x
    qkv = _query_key_value(net, complete(net, x, windows), name, blocks)
    y = crop(net, in_windows(net, qkv, name, heads, windows, bias, mask, blocks.second), windows)
    return roll(net, y, windows, back=True) if moved else y


def _block(net: Net, x: Value, name: str, blocks: Blocks, heads: int, windows: Windows, mask: Value | None, trained: int) -> Value:
    width = size(x, -1)
    bias = _position_bias(net, f"{name}.attn", windows.sides, heads, blocks, trained)
    net.unused(f"{name}.attn_mask")

    def part(x: Value) -> Value:
        y = net.activate(net.linear(x, f"{name}.mlp.fc1", int(width * blocks.ratio)), blocks.activation)
        return net.linear(y, f"{name}.mlp.fc2", width)

    if blocks.second:
        y = _attention(net, x, f"{name}.attn", blocks, heads, windows, bias, mask)
        x = net.op("add", x, net.layer_norm(y, f"{name}.norm1", EPS))
        return net.op("add", x, net.layer_norm(part(x), f"{name}.norm2", EPS))
    y = net.layer_norm(x, f"{name}.norm1", EPS)
    x = net.op("add", x, _attention(net, y, f"{name}.attn", blocks, heads, windows, bias, mask))
    return net.op("add", x, part(net.layer_norm(x, f"{name}.norm2", EPS)))


def build(net: Net, built: str) -> Value:
    """The class scores, `[batch, classes]`, or the features."""
    arguments, second = net.arguments, built == "SwinTransformerV2"
    for name, value in (("head_dim", None), ("always_partition", False), ("embed_layer", None), ("norm_layer", None)):
        arguments.only(name, value)
    depths = arguments.sizes("depths", (2, 2, 6, 2))
    heads = arguments.sizes("num_heads", (3, 6, 12, 24), len(depths))
    if isinstance(arguments.get("window_size"), list) and len(depths) == 2:
        raise arguments.refuse("window_size", "one size: two are a height and a width")
    targets = arguments.sizes("window_size", 7, len(depths))
    trained = arguments.get("pretrained_window_sizes") or [0] * len(depths)
    if not isinstance(trained, list) or len(trained) != len(depths) or any(type(item) is not int or item < 0 for item in trained):
        raise arguments.refuse("pretrained_window_sizes", "a size for each stage")
    blocks = Blocks(second, arguments.number("mlp_ratio", 4.0), arguments.flag("qkv_bias", True),
                    arguments.layer("act_layer", "gelu")[0] or "gelu", tuple(trained))
    image, patch = arguments.sizes("img_size", 224, 2), arguments.size("patch_size", 4)
    free = arguments.flag("dynamic_img_size") or arguments.get("strict_img_size") is False
    if free and any(side % patch for side in image):
        raise arguments.refuse("img_size", f"whole patches of {patch}")
    width = arguments.size("embed_dim", 96)
    x = net.convolution(net.picture(*image), "patch_embed.proj", width, patch, patch, 0, bias=True)
    x = net.layer_norm(net.op("permute_dims", x, axes=(0, 2, 3, 1)), "patch_embed.norm", EPS)
    for stage, (depth, count, target) in enumerate(zip(depths, heads, targets, strict=True)):
        if stage:
            x = narrow(net, x, f"layers.{stage}.downsample", second)
        if size(x, -1) % count:
            raise arguments.refuse("num_heads", f"divisors of {width}, {2 * width}, …")
        height, across = size(x, 1), size(x, 2)
        sides = min(height, target), min(across, target)
        shifts = tuple(0 if length <= side else target // 2 for length, side in zip((height, across), sides, strict=True))
        still, moved = Windows(height, across, sides, (0, 0)), Windows(height, across, sides, (shifts[0], shifts[1]))
        mask = mask_of(net, moved) if any(shifts) else None
        for block in range(depth):
            x = _block(net, x, f"layers.{stage}.blocks.{block}", blocks, count, moved if block % 2 else still, mask if block % 2 else None,
                       trained[stage])
    return net.head(net.layer_norm(x, "norm", EPS), "head.fc", (1, 2))
