"""timm's ResNet: its stems, averaged or anti-aliased strides, and attention of channels (timm.models.resnet)."""

from __future__ import annotations

from dataclasses import dataclass

from adapters.architectures.activations import RELU
from adapters.architectures.timm.net import Kind, Net, squeezed
from adapters.architectures.torchvision.layers import size
from converter.builder import Value

STEMS = ("", "deep", "deep_tiered")
ATTENTIONS = ("", "se", "semodule", "squeezeexcite", "eca", "ecamodule")


@dataclass(frozen=True, slots=True)
class Blocks:
    """What all blocks share. `reduced`: what the first convolution's channels are divided by."""

    groups: int
    width: int
    reduced: int
    down: int
    averaged: bool
    activation: str
    norm: Kind
    smooth: Kind
    attention: Kind


@dataclass(frozen=True, slots=True)
class Step:
    """A block's stride, its dilation, and that of the convolution that has the stride."""

    stride: int
    dilation: int
    first: int


def _attention(net: Net, x: Value, name: str, kind: Kind) -> Value:
    what, bound = kind
    if not what:
        return x
    if what in ("eca", "ecamodule") and not bound:
        return net.linear_gate(x, f"{name}.se")
    if what in ATTENTIONS and set(bound) <= {"rd_ratio"}:
        hidden = squeezed(size(x, 1) * float(bound.get("rd_ratio", 1 / 16)))
        return net.gate(x, (f"{name}.se.fc1", f"{name}.se.fc2"), hidden, RELU)
    raise net.arguments.refuse("block_args", ", ".join(ATTENTIONS))


def _spread(net: Net, x: Value, name: str, norm: str, out: int, blocks: Blocks, step: Step, groups: int = 1) -> Value:
    """The 3x3 convolution with a block's stride, its norm and activation, and what smooths in the stride's place."""
    smooth = blocks.smooth[0] and (step.stride == 2 or step.first != step.dilation)
    y = net.convolution(x, name, out, 3, 1 if smooth else step.stride, step.first, groups=groups, dilation=step.first)
    y = net.activate(net.norm(y, norm, blocks.norm, 1), blocks.activation)
    return net.anti_aliased(y, blocks.smooth, step.stride) if smooth else y


def _shortcut(net: Net, x: Value, name: str, out: int, blocks: Blocks, step: Step) -> Value:
    stride, dilation = step.stride, step.dilation
    if blocks.averaged:
        x = net.convolution(net.halved(x, stride, dilation), f"{name}.1", out, 1)
        return net.norm(x, f"{name}.2", blocks.norm, 1)
    kernel = 1 if stride == 1 and dilation == 1 else blocks.down
    spread = step.first if kernel > 1 else 1
    x = net.convolution(x, f"{name}.0", out, kernel, stride, (stride - 1 + spread * (kernel - 1)) // 2, dilation=spread)
    return net.norm(x, f"{name}.1", blocks.norm, 1)


def _block(net: Net, x: Value, name: str, blocks: Blocks, planes: int, bottleneck: bool, step: Step, first: bool) -> Value:
    out = planes * (4 if bottleneck else 1)
    if bottleneck:
        width = planes * blocks.width // 64 * blocks.groups
        y = net.norm(net.convolution(x, f"{name}.conv1", width // blocks.reduced, 1), f"{name}.bn1", blocks.norm, 1)
        y = _spread(net, net.activate(y, blocks.activation), f"{name}.conv2", f"{name}.bn2", width, blocks, step, blocks.groups)
        y = net.norm(net.convolution(y, f"{name}.conv3", out, 1), f"{name}.bn3", blocks.norm, 1)
    else:
        y = _spread(net, x, f"{name}.conv1", f"{name}.bn1", planes // blocks.reduced, blocks, step)
        y = net.convolution(y, f"{name}.conv2", out, 3, 1, step.dilation, dilation=step.dilation)
        y = net.norm(y, f"{name}.bn2", blocks.norm, 1)
    y = _attention(net, y, name, blocks.attention)
    if first and (step.stride != 1 or size(x, 1) != out):
        x = _shortcut(net, x, f"{name}.downsample", out, blocks, step)
    return net.activate(net.op("add", y, x), blocks.activation)


def _stem(net: Net, blocks: Blocks) -> Value:
    arguments, x = net.arguments, net.picture()
    width, kind = arguments.size("stem_width", 64), arguments.choice("stem_type", STEMS, "")
    inner = 2 * width if kind else 64
    if kind:
        for index, (out, stride) in enumerate((((3 * (width // 4)) if kind == "deep_tiered" else width, 2), (width, 1))):
            x = net.convolution(x, f"conv1.{3 * index}", out, 3, stride)
            x = net.activate(net.norm(x, f"conv1.{3 * index + 1}", blocks.norm, 1), blocks.activation)
        x = net.convolution(x, "conv1.6", inner, 3)
    else:
        x = net.convolution(x, "conv1", inner, 7, 2)
    x = net.activate(net.norm(x, "bn1", blocks.norm, 1), blocks.activation)
    smooth = blocks.smooth[0]
    if arguments.flag("replace_stem_pool"):
        x = net.convolution(x, "maxpool.0", inner, 3, 1 if smooth else 2)
        x = net.anti_aliased(x, blocks.smooth, 2) if smooth else x
        return net.activate(net.norm(x, f"maxpool.{2 if smooth else 1}", blocks.norm, 1), blocks.activation)
    if smooth in ("avg", "avgpool2d"):
        return net.avg_pool(x, 2, 2)
    return net.anti_aliased(net.max_pool(x, 3, 1, 1), blocks.smooth, 2) if smooth else net.max_pool(x, 3, 2, 1)


def build(net: Net, built: str) -> Value:
    """The class scores, `[batch, classes]`, or the features."""
    arguments = net.arguments
    attention: Kind = ("", {})
    inner = arguments.get("block_args") or {}
    if not isinstance(inner, dict) or set(inner) - {"attn_layer"}:
        raise arguments.refuse("block_args", "attn_layer")
    if inner.get("attn_layer"):
        value = inner["attn_layer"]
        what, bound = value if isinstance(value, list) and len(value) == 2 else (value, {})
        if not isinstance(what, str) or not isinstance(bound, dict) or not isinstance(bound.get("rd_ratio", 1 / 16), float):
            raise arguments.refuse("block_args", ", ".join(ATTENTIONS))
        attention = what.lower(), bound
    blocks = Blocks(arguments.size("cardinality", 1), arguments.size("base_width", 64), arguments.size("block_reduce_first", 1),
                    arguments.size("down_kernel_size", 1), arguments.flag("avg_down"), arguments.layer("act_layer", "relu")[0],
                    arguments.layer("norm_layer", "batchnorm2d"), arguments.layer("aa_layer", None), attention)
    layers, channels = arguments.sizes("layers", (2, 2, 2, 2)), arguments.sizes("channels", (64, 128, 256, 512))
    kinds = arguments.get("block")
    kinds = kinds if isinstance(kinds, list) else [kinds] * len(channels)
    if len(layers) != len(channels) or len(kinds) != len(channels) or any(kind not in ("BasicBlock", "Bottleneck") for kind in kinds):
        raise arguments.refuse("block", "BasicBlock or Bottleneck for each stage")
    if "BasicBlock" in kinds and (blocks.groups, blocks.width) != (1, 64):
        raise arguments.refuse("cardinality", "blocks of one group and of the usual width (cardinality 1, base_width 64)")
    x = _stem(net, blocks)
    most, reached, dilation, before = arguments.choice("output_stride", (8, 16, 32), 32), 4, 1, 1
    for stage, (kind, planes, repeats) in enumerate(zip(kinds, channels, layers, strict=True)):
        stride = 2 if stage else 1
        if reached >= most:
            dilation, stride = dilation * stride, 1
        reached *= stride
        for block in range(repeats):
            step = Step(1 if block else stride, dilation, before)
            x = _block(net, x, f"layer{stage + 1}.{block}", blocks, planes, kind == "Bottleneck", step, block == 0)
            before = dilation
    return net.head(x, "fc")
