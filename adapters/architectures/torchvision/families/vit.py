"""Vision transformer (torchvision.models.vision_transformer). The image's size follows from the position embedding."""

from __future__ import annotations

import math
from dataclasses import dataclass

from adapters.architectures.torchvision.family import Family
from adapters.architectures.torchvision.layers import Layers
from converter.builder import Value

EPS = 1e-6


@dataclass(frozen=True, slots=True)
class ViT:
    """`patch`: the side of one, in pixels. `heads` is not to be seen in the shapes."""

    patch: int
    layers: int
    heads: int
    width: int
    hidden: int


VARIANTS = {
    "vit_b_16": ViT(16, 12, 12, 768, 3072),
    "vit_b_32": ViT(32, 12, 12, 768, 3072),
    "vit_l_16": ViT(16, 24, 16, 1024, 4096),
    "vit_l_32": ViT(32, 24, 16, 1024, 4096),
    "vit_h_14": ViT(14, 32, 16, 1280, 5120),
}


def _attention(net: Layers, x: Value, name: str, variant: ViT) -> Value:
    qkv = net.op("linear", x, net.parameter(f"{name}.in_proj_weight", 3 * variant.width, variant.width),
                 net.parameter(f"{name}.in_proj_bias", 3 * variant.width))
    return net.linear(net.attend(qkv, variant.heads), f"{name}.out_proj", variant.width)


def build(net: Layers, variant: ViT) -> Value:
    """The class scores, `[batch, classes]`."""
    tokens = net.shape("encoder.pos_embedding")[1:2] or (0,)
    side = math.isqrt(max(tokens[0] - 1, 0))
    if side < 1 or side * side + 1 != tokens[0]:
        raise net.mismatch(f"encoder.pos_embedding has {tokens[0]} positions, not those of a square of patches and one more")
    pixels = side * variant.patch
    x = net.convolution(net.image("conv_proj", pixels, pixels), "conv_proj", variant.width, variant.patch, variant.patch, 0, bias=True)
    batch = x.shape[0]
    x = net.op("permute_dims", net.op("reshape", x, shape=(batch, variant.width, side * side)), axes=(0, 2, 1))
    first = net.op("broadcast_to", net.parameter("class_token", 1, 1, variant.width), shape=(batch, 1, variant.width))
    x = net.op("concat", first, x, axis=1)
    x = net.op("add", x, net.parameter("encoder.pos_embedding", 1, tokens[0], variant.width))
    for layer in range(variant.layers):
        name = f"encoder.layers.encoder_layer_{layer}"
        # Files of before torchvision 0.13 say linear_1 and linear_2.
        up, down = ("linear_1", "linear_2") if net.has(f"{name}.mlp.linear_1.weight") else ("0", "3")
        x = net.op("add", _attention(net, net.layer_norm(x, f"{name}.ln_1", EPS), f"{name}.self_attention", variant), x)
        y = net.op("gelu", net.linear(net.layer_norm(x, f"{name}.ln_2", EPS), f"{name}.mlp.{up}", variant.hidden))
        x = net.op("add", x, net.linear(y, f"{name}.mlp.{down}", variant.width))
    # The norm is each token's own, and only the first token is used.
    x = net.layer_norm(net.op("select", x, axis=1, index=0), "encoder.ln", EPS)
    if net.has("heads.pre_logits.weight"):
        x = net.op("tanh", net.linear(x, "heads.pre_logits"))
    return net.linear(x, "heads.head")


FAMILY = Family("ViT", ("class_token", "conv_proj.weight", "encoder.pos_embedding", "heads.head.weight"), VARIANTS, build)
