"""timm's EfficientNets and MobileNets, all built of a table of blocks (timm.models.efficientnet, mobilenetv3).

EfficientNet (lite, v2, TensorFlow's with their padding), MobileNet v1 to v4, MNASNet, MixNet, FBNet, SPNASNet, TinyNet, LCNet.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from adapters.architectures.net import divisible
from adapters.architectures.timm.net import Kind, Net
from adapters.architectures.torchvision.layers import size
from converter.builder import Value
from converter.errors import UnsupportedError

# What a block may say, beside its type, channels and stride, and which is read.
KNOWN: Mapping[str, frozenset[str]] = {
    "cn": frozenset({"kernel_size", "skip"}),
    "ds": frozenset({"dw_kernel_size", "pw_kernel_size", "pw_act", "noskip", "se_ratio", "group_size"}),
    "ir": frozenset({"dw_kernel_size", "exp_kernel_size", "pw_kernel_size", "exp_ratio", "noskip", "se_ratio", "group_size"}),
    "er": frozenset({"exp_kernel_size", "pw_kernel_size", "exp_ratio", "noskip", "se_ratio", "group_size", "force_in_chs"}),
    "uir": frozenset({"dw_kernel_size_start", "dw_kernel_size_mid", "dw_kernel_size_end", "exp_ratio", "noskip", "se_ratio", "group_size"}),
    "mqa": frozenset({"dw_kernel_size", "num_heads", "key_dim", "value_dim", "kv_stride", "noskip"}),
}
Block = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Blocks:
    """What all blocks share. `squeezed`: the squeeze's channels are counted from the expanded ones, not from the block's input."""

    same: bool
    activation: str
    norm: Kind
    smooth: Kind
    gate: Kind
    squeezed: bool
    scaled: bool
    rounding: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Place:
    """A block's name and what it is in the whole: its channels, stride and dilation, and its own activation."""

    name: str
    out: int
    stride: int
    dilation: int
    activation: str


def rounded(channels: float, rule: Mapping[str, Any]) -> int:
    """timm's `round_channels`."""
    multiplier, divisor, limit = rule.get("multiplier", 1.0), int(rule.get("divisor", 8)), float(rule.get("round_limit", 0.9))
    if not multiplier:
        return int(channels)
    wanted = channels * float(multiplier)
    found = max(rule.get("channel_min") or divisor, int(wanted + divisor / 2) // divisor * divisor)
    return found + divisor if found < limit * wanted else found


def _parts(channels: int, count: int) -> list[int]:
    each = channels // count
    return [each + channels - each * count, *[each] * (count - 1)]


def _convolution(net: Net, x: Value, name: str, out: int, kernel: int | Sequence[int], blocks: Blocks, stride: int = 1, dilation: int = 1,
                 groups: int = 1, bias: bool = False) -> Value:
    """Where there are several kernels, each is that of an equal part of the channels (MixNet)."""
    if not isinstance(kernel, int):
        sizes, start, found = _parts(size(x, 1), len(kernel)), 0, []
        for index, (wide, taken, made) in enumerate(zip(kernel, sizes, _parts(out, len(kernel)), strict=True)):
            part = net.op("slice", x, axes=(1,), starts=(start,), stops=(start + taken,), steps=(1,))
            start += taken
            of_each = taken if groups > 1 else 1
            found.append(_convolution(net, part, f"{name}.{index}", made, wide, blocks, stride, dilation, of_each))
        return net.op("concat", *found, axis=1)
    padding = (stride - 1 + dilation * (kernel - 1)) // 2
    if blocks.same and (stride > 1 or dilation * (kernel - 1) % 2):
        x, padding = net.same(x, kernel, stride, dilation), 0
    return net.convolution(x, name, out, kernel, stride, padding, groups=groups, bias=bias, dilation=dilation)


def _normed(net: Net, x: Value, name: str, blocks: Blocks, activation: str = "") -> Value:
    return net.activate(net.norm(x, name, blocks.norm, 1), activation)


def _spread(net: Net, x: Value, conv: str, norm: str, out: int, kernel: int | Sequence[int], blocks: Blocks, place: Place,
            group: int, activation: str) -> Value:
    """The convolution with a block's stride; `group`: channels of a group, 0 for one group of all."""
    smooth = bool(blocks.smooth[0]) and place.stride > 1
    groups = out // group if group else 1
    if group and out % group:
        raise net.arguments.refuse("block_args", "groups that divide the channels")
    y = _convolution(net, x, conv, out, kernel, blocks, 1 if smooth else place.stride, place.dilation, groups)
    y = _normed(net, y, norm, blocks, activation)
    return net.anti_aliased(y, blocks.smooth, place.stride) if smooth else y


def _gated(net: Net, x: Value, name: str, block: Block, blocks: Blocks, activation: str) -> Value:
    ratio = block.get("se_ratio")
    if not ratio:
        return x
    kind, bound = blocks.gate
    if kind not in ("", "squeezeexcite", "se") or set(bound) - {"gate_layer", "force_act_layer", "rd_round_fn"} or kind == "se":
        raise net.arguments.refuse("se_layer", "SqueezeExcite")
    ratio = ratio if blocks.squeezed else ratio / block.get("exp_ratio", 1.0)
    rule = bound.get("rd_round_fn")
    wanted = size(x, 1) * ratio
    hidden = rounded(wanted, rule[1] if isinstance(rule, list) else {}) if rule else round(wanted)
    return net.gate(x, (f"{name}.conv_reduce", f"{name}.conv_expand"), hidden, net.kind(str(bound.get("force_act_layer") or activation)),
                    net.kind(str(bound.get("gate_layer", "sigmoid"))))


def _plain(net: Net, x: Value, block: Block, blocks: Blocks, place: Place) -> Value:
    return _spread(net, x, f"{place.name}.conv", f"{place.name}.bn1", place.out, block["kernel_size"], blocks, place, 0, place.activation)


def _separable(net: Net, x: Value, block: Block, blocks: Blocks, place: Place) -> Value:
    name = place.name
    y = _spread(net, x, f"{name}.conv_dw", f"{name}.bn1", size(x, 1), block["dw_kernel_size"], blocks, place, block.get("group_size", 1),
                place.activation)
    y = _gated(net, y, f"{name}.se", block, blocks, place.activation)
    y = _convolution(net, y, f"{name}.conv_pw", place.out, block.get("pw_kernel_size", 1), blocks)
    return _normed(net, y, f"{name}.bn2", blocks, place.activation if block.get("pw_act") else "")


def _inverted(net: Net, x: Value, block: Block, blocks: Blocks, place: Place) -> Value:
    name, middle = place.name, divisible(size(x, 1) * block["exp_ratio"])
    y = _convolution(net, x, f"{name}.conv_pw", middle, block.get("exp_kernel_size", 1), blocks)
    y = _normed(net, y, f"{name}.bn1", blocks, place.activation)
    y = _spread(net, y, f"{name}.conv_dw", f"{name}.bn2", middle, block["dw_kernel_size"], blocks, place, block.get("group_size", 1),
                place.activation)
    y = _gated(net, y, f"{name}.se", block, blocks, place.activation)
    y = _convolution(net, y, f"{name}.conv_pwl", place.out, block.get("pw_kernel_size", 1), blocks)
    return _normed(net, y, f"{name}.bn3", blocks)


def _edge(net: Net, x: Value, block: Block, blocks: Blocks, place: Place) -> Value:
    name, forced = place.name, block.get("force_in_chs")
    middle = divisible((rounded(forced, blocks.rounding) if forced else size(x, 1)) * block["exp_ratio"])
    y = _spread(net, x, f"{name}.conv_exp", f"{name}.bn1", middle, block["exp_kernel_size"], blocks, place, block.get("group_size", 0),
                place.activation)
    y = _gated(net, y, f"{name}.se", block, blocks, place.activation)
    y = _convolution(net, y, f"{name}.conv_pwl", place.out, block.get("pw_kernel_size", 1), blocks)
    return _normed(net, y, f"{name}.bn2", blocks)


def _universal(net: Net, x: Value, block: Block, blocks: Blocks, place: Place) -> Value:
    """MobileNet v4's: depthwise convolutions where the block has them, the first of them with the stride, but the middle's before it."""
    name, group = place.name, block.get("group_size", 1)
    first, middle, last = (block.get(f"dw_kernel_size_{part}", 0) for part in ("start", "mid", "end"))
    still = Place(name, place.out, 1, place.dilation, place.activation)
    y = x
    if first:
        where = still if middle else place
        y = _spread(net, y, f"{name}.dw_start.conv", f"{name}.dw_start.bn", size(y, 1), first, blocks, where, group, "")
    inner = divisible(size(x, 1) * block["exp_ratio"])
    y = _normed(net, _convolution(net, y, f"{name}.pw_exp.conv", inner, 1, blocks), f"{name}.pw_exp.bn", blocks, place.activation)
    if middle:
        y = _spread(net, y, f"{name}.dw_mid.conv", f"{name}.dw_mid.bn", inner, middle, blocks, place, group, place.activation)
    y = _gated(net, y, f"{name}.se", block, blocks, place.activation)
    y = _normed(net, _convolution(net, y, f"{name}.pw_proj.conv", place.out, 1, blocks), f"{name}.pw_proj.bn", blocks)
    if last:
        where = still if first or middle else place
        y = _spread(net, y, f"{name}.dw_end.conv", f"{name}.dw_end.bn", place.out, last, blocks, where, group, "")
    return _scaled(net, y, f"{name}.layer_scale", blocks)


def _scaled(net: Net, x: Value, name: str, blocks: Blocks) -> Value:
    if not blocks.scaled:
        return x
    factor = net.op("reshape", net.parameter(f"{name}.gamma", size(x, 1)), shape=(size(x, 1), 1, 1))
    return net.op("multiply", x, factor)


def _attention(net: Net, x: Value, block: Block, blocks: Blocks, place: Place) -> Value:
    """MobileNet v4's attention with one head of keys and values."""
    name, (batch, _, height, width) = f"{place.name}.attn", x.shape
    heads, stride = block["num_heads"], block.get("kv_stride", 1)
    x = _normed(net, x, f"{place.name}.norm", blocks)
    query = net.convolution(x, f"{name}.query.proj", heads * block["key_dim"], 1)
    query = net.op("reshape", query, shape=(batch, heads, block["key_dim"], height * width))
    parts = []
    for part, out in (("key", block["key_dim"]), ("value", block["value_dim"])):
        y = x
        if stride > 1:
            every = size(y, 1)
            y = _convolution(net, y, f"{name}.{part}.down_conv", every, block["dw_kernel_size"], blocks, stride, place.dilation, every)
            y = _normed(net, y, f"{name}.{part}.norm", blocks)
        y = net.convolution(y, f"{name}.{part}.proj", out, 1)
        parts.append(net.op("permute_dims", net.op("reshape", y, shape=(batch, 1, out, y.shape[2] * y.shape[3])), axes=(0, 1, 3, 2)))
    key, value = (net.op("broadcast_to", y, shape=(batch, heads, *y.shape[2:])) for y in parts)
    y = net.op("scaled_dot_product_attention", net.op("permute_dims", query, axes=(0, 1, 3, 2)), key, value)
    y = net.op("reshape", net.op("permute_dims", y, axes=(0, 1, 3, 2)), shape=(batch, heads * block["value_dim"], height, width))
    return _scaled(net, net.convolution(y, f"{name}.output.proj", place.out, 1), f"{place.name}.layer_scale", blocks)


KINDS = {"cn": _plain, "ds": _separable, "dsa": _separable, "ir": _inverted, "er": _edge, "uir": _universal, "mqa": _attention}


def _trunk(net: Net, x: Value, blocks: Blocks, most: int) -> Value:
    reached, spread = 2, 1
    stages = net.arguments.get("block_args")
    if not isinstance(stages, list):
        raise net.arguments.refuse("block_args", "the table's")
    for stage, rows in enumerate(stages):
        index = 0
        for count, block in rows:
            kind = block["block_type"]
            known = KNOWN.get("ds" if kind == "dsa" else kind)
            more = set(block) - {"block_type", "out_chs", "stride", "act_layer"} - (known or set())
            if known is None or more:
                raise UnsupportedError("a kind of block that is not known", where=net.arguments.where, expected=", ".join(KNOWN),
                                       received=", ".join([kind, *sorted(more)]))
            for _ in range(count):
                stride, following = 1 if index else block["stride"], spread
                if stride > 1 and reached * stride > most:
                    following, stride = spread * stride, 1
                reached *= stride
                activation = str(block.get("act_layer") or blocks.activation)
                place = Place(f"blocks.{stage}.{index}", rounded(block["out_chs"], blocks.rounding), stride, spread, activation)
                y = KINDS[kind](net, x, block, blocks, place)
                skips = block.get("skip", False) if kind == "cn" else not block.get("noskip")
                x = net.op("add", y, x) if skips and stride == 1 and size(x, 1) == place.out else y
                spread, index = following, index + 1
    return x


def build(net: Net, built: str) -> Value:
    """The class scores, `[batch, classes]`, or the features."""
    arguments, mobile = net.arguments, built == "MobileNetV3"
    rounding = arguments.get("round_chs_fn")
    scale = arguments.get("layer_scale_init_value") if mobile else None
    norm = arguments.layer("norm_layer", "batchnorm2d")
    blocks = Blocks(arguments.choice("pad_type", ("", "same"), "") == "same", arguments.layer("act_layer", "relu")[0] or "relu",
                    norm if norm[0] else ("batchnorm2d", {}), arguments.layer("aa_layer", None), arguments.layer("se_layer", None),
                    mobile and arguments.flag("se_from_exp", True), scale is not None, rounding[1] if isinstance(rounding, list) else {})
    first, kernel = arguments.size("stem_size", 16 if mobile else 32), 3 if mobile else arguments.size("stem_kernel_size", 3)
    first = first if arguments.flag("fix_stem") else rounded(first, blocks.rounding)
    x = _convolution(net, net.picture(), "conv_stem", first, kernel, blocks, 2)
    x = _normed(net, x, "bn1", blocks, blocks.activation)
    x = _trunk(net, x, blocks, 32 if mobile else arguments.choice("output_stride", (8, 16, 32), 32))
    last = arguments.size("num_features", 1280, least=0)
    if not mobile:
        if last:
            x = _normed(net, _convolution(net, x, "conv_head", last, 1, blocks), "bn2", blocks, blocks.activation)
        return net.head(x, "classifier")
    pool = net.pooling()
    if pool:
        x = net.pooled(x, pool)
        x = net.op("reshape", x, shape=(*x.shape, 1, 1))
    if arguments.flag("head_norm"):
        arguments.flag("head_bias")
        x = _normed(net, net.convolution(x, "conv_head", last, 1), "norm_head", blocks, blocks.activation)
    else:
        x = net.activate(net.convolution(x, "conv_head", last, 1, bias=arguments.flag("head_bias", True)), blocks.activation)
    return net.classified(net.flatten(x), "classifier") if pool else x
