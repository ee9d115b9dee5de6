"""timm's ConvNeXt, v1 and v2 (timm.models.convnext)."""

from __future__ import annotations

from dataclasses import dataclass

from adapters.architectures.net import divisible
from adapters.architectures.timm.net import Kind, Net
from adapters.architectures.torchvision.layers import size
from converter.builder import Value

STEMS = ("patch", "overlap", "overlap_tiered", "overlap_act")
NORMS = ("", "layernorm", "layernorm2d", "simplenorm", "simplenorm2d", "rmsnorm", "rmsnorm2d")


@dataclass(frozen=True, slots=True)
class Blocks:
    """What all blocks share. `rooted`: global response norms (ConvNeXt v2). `dense`: 1x1 convolutions in the place of linear layers."""

    norm: Kind
    activation: str
    bias: bool
    dense: bool
    rooted: bool
    scaled: bool


def _mlp(net: Net, x: Value, name: str, blocks: Blocks) -> Value:
    """Over the last axis, whichever of the two kinds of layers has the weights."""
    width = size(x, -1)

    def layer(x: Value, part: str, out: int) -> Value:
        if not blocks.dense:
            return net.linear(x, f"{name}.{part}", out)
        weight = net.op("reshape", net.parameter(f"{name}.{part}.weight", out, size(x, -1), 1, 1), shape=(out, size(x, -1)))
        return net.op("linear", x, weight, net.parameter(f"{name}.{part}.bias", out))

    x = net.activate(layer(x, "fc1", 4 * width), blocks.activation)
    if blocks.rooted:
        norm = net.op("vector_norm", x, axis=(1, 2), keepdims=True)
        share = net.op("divide", norm, net.op("add", net.op("mean", norm, axis=(-1,), keepdims=True), 1e-6))
        scaled = net.multiplied(net.op("multiply", x, share), f"{name}.grn.weight", 4 * width)
        x = net.op("add", x, net.op("add", scaled, net.parameter(f"{name}.grn.bias", 4 * width)))
    return layer(x, "fc2", width)


def _block(net: Net, x: Value, name: str, blocks: Blocks, kernel: int, dilation: int) -> Value:
    width = size(x, 1)
    y = net.convolution(x, f"{name}.conv_dw", width, kernel, groups=width, bias=blocks.bias, dilation=dilation)
    y = net.norm(net.op("permute_dims", y, axes=(0, 2, 3, 1)), f"{name}.norm", blocks.norm)
    y = _mlp(net, y, f"{name}.mlp", blocks)
    y = net.multiplied(y, f"{name}.gamma", width) if blocks.scaled else y
    return net.op("add", net.op("permute_dims", y, axes=(0, 3, 1, 2)), x)


def _stem(net: Net, blocks: Blocks, width: int) -> tuple[Value, int]:
    kind, patch, x = net.arguments.choice("stem_type", STEMS, "patch"), net.arguments.size("patch_size", 4), net.picture()
    if kind == "patch":
        x = net.convolution(x, "stem.0", width, patch, patch, 0, bias=blocks.bias)
        return net.norm(x, "stem.1", blocks.norm, 1), patch
    x = net.convolution(x, "stem.0", divisible(width // 2) if kind == "overlap_tiered" else width, 3, 2, bias=blocks.bias)
    place = 1
    if kind == "overlap_act":
        x, place = net.activate(x, blocks.activation), 2
    x = net.convolution(x, f"stem.{place}", width, 3, 2, bias=blocks.bias)
    return net.norm(x, f"stem.{place + 1}", blocks.norm, 1), 4


def build(net: Net, built: str) -> Value:
    """The class scores, `[batch, classes]`, or the features."""
    arguments = net.arguments
    what, _ = arguments.layer("norm_layer", "layernorm")
    if what not in NORMS:
        raise arguments.refuse("norm_layer", ", ".join(NORMS))
    eps = arguments.get("norm_eps")
    norm: Kind = (what or "layernorm", {} if eps is None else {"eps": arguments.number("norm_eps", 1e-6)})
    scale = arguments.get("ls_init_value", 1e-6)
    blocks = Blocks(norm, arguments.layer("act_layer", "gelu")[0], arguments.flag("conv_bias", True), arguments.flag("conv_mlp"),
                    arguments.flag("use_grn"), scale is not None)
    depths, widths = arguments.sizes("depths", (3, 3, 9, 3), 4), arguments.sizes("dims", (96, 192, 384, 768), 4)
    kernels = arguments.sizes("kernel_sizes", 7, 4)
    x, reached = _stem(net, blocks, widths[0])
    most, dilation = arguments.choice("output_stride", (8, 16, 32), 32), 1
    for stage, (depth, width, kernel) in enumerate(zip(depths, widths, kernels, strict=True)):
        stride = 2 if reached == 2 or stage else 1
        if reached >= most and stride > 1:
            dilation, stride = dilation * stride, 1
        reached *= stride
        before = 1 if dilation in (1, 2) else 2
        if size(x, 1) != width or stride > 1 or before != dilation:
            x = net.norm(x, f"stages.{stage}.downsample.0", blocks.norm, 1)
            inner = 2 if stride > 1 or before != dilation else 1
            x = net.same(x, inner, stride, before) if dilation > 1 else x
            x = net.convolution(x, f"stages.{stage}.downsample.1", width, inner, stride, 0, bias=blocks.bias, dilation=before)
        for block in range(depth):
            x = _block(net, x, f"stages.{stage}.blocks.{block}", blocks, kernel, dilation)
    if arguments.flag("head_norm_first"):
        return net.head(net.norm(x, "norm_pre", blocks.norm, 1), "head.fc")
    pool = net.pooling(options=("avg", "max", "avgmax", ""))
    x = net.norm(net.pooled(x, pool), "head.norm", blocks.norm) if pool else net.norm(x, "head.norm", blocks.norm, 1)
    hidden = arguments.get("head_hidden_size")
    if hidden is not None:
        if not pool:
            raise arguments.refuse("global_pool", "a pool before the head's hidden layer")
        x = net.activate(net.linear(x, "head.pre_logits.fc", arguments.size("head_hidden_size", 1)), "gelu")
    return net.classified(x, "head.fc")
