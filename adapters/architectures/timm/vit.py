"""timm's vision transformers: ViT, DeiT (distilled too), CLIP's, SigLIP's and DINOv2's towers (timm.models.vision_transformer, deit).

The image's size is the config's: positions are the checkpoint's, and are not resized.
"""

from __future__ import annotations

from dataclasses import dataclass

from adapters.architectures.timm.net import Kind, Net
from adapters.architectures.torchvision.layers import size
from converter.builder import Value

BLOCKS = ("Block", "ResPostBlock", "ParallelThingsBlock")
MLPS = ("mlp", "glumlp", "swiglupacked", "swiglu")
POOLS = ("avg", "avgmax", "max", "token", "map", "")


@dataclass(frozen=True, slots=True)
class Blocks:
    """What all blocks share."""

    heads: int
    hidden: int
    bias: bool
    out_bias: bool
    normed: bool
    scaled_attention: bool
    scaled_mlp: bool
    scaled: bool
    norm: Kind
    activation: str
    mlp: Kind


def attention(net: Net, x: Value, name: str, blocks: Blocks) -> Value:
    """`timm.layers.Attention`."""
    width = size(x, -1)
    if width % blocks.heads:
        raise net.arguments.refuse("num_heads", f"a divisor of {width}")

    def normed(part: Value, which: str) -> Value:
        return net.norm(part, f"{name}.{which}_norm", blocks.norm)

    y = net.attend(net.linear(x, f"{name}.qkv", 3 * width, bias=blocks.bias), blocks.heads, normed if blocks.normed else None)
    y = net.norm(y, f"{name}.norm", blocks.norm) if blocks.scaled_attention else y
    return net.linear(y, f"{name}.proj", width, bias=blocks.out_bias)


def mlp(net: Net, x: Value, name: str, blocks: Blocks) -> Value:
    """`Mlp`, `GluMlp` with a packed first layer, or `SwiGLU` with two."""
    kind, bound = blocks.mlp
    width, hidden, bias = size(x, -1), blocks.hidden, blocks.out_bias
    if kind in ("glumlp", "swiglupacked"):
        # The block's activation, given with the call, goes before one that is bound to the layer.
        if set(bound) - {"act_layer", "gate_last"} or hidden % 2:
            raise net.arguments.refuse("mlp_layer", "act_layer and gate_last")
        both = net.linear(x, f"{name}.fc1", hidden, bias=bias)
        first, second = net.b.add("split", (both,), {"sizes": (hidden // 2,) * 2, "axis": -1})
        if not bound.get("gate_last", kind == "glumlp"):
            first, second = second, first
        y = net.op("multiply", first, net.activate(second, blocks.activation))
    elif kind == "swiglu":
        gate = net.activate(net.linear(x, f"{name}.fc1_g", hidden, bias=bias), blocks.activation)
        y = net.op("multiply", gate, net.linear(x, f"{name}.fc1_x", hidden, bias=bias))
    else:
        y = net.activate(net.linear(x, f"{name}.fc1", hidden, bias=bias), blocks.activation)
    y = net.norm(y, f"{name}.norm", blocks.norm) if blocks.scaled_mlp else y
    return net.linear(y, f"{name}.fc2", width, bias=bias)


def _block(net: Net, x: Value, name: str, blocks: Blocks) -> Value:
    width = size(x, -1)
    y = attention(net, net.norm(x, f"{name}.norm1", blocks.norm), f"{name}.attn", blocks)
    x = net.op("add", x, net.multiplied(y, f"{name}.ls1.gamma", width) if blocks.scaled else y)
    y = mlp(net, net.norm(x, f"{name}.norm2", blocks.norm), f"{name}.mlp", blocks)
    return net.op("add", x, net.multiplied(y, f"{name}.ls2.gamma", width) if blocks.scaled else y)


def _post_normed(net: Net, x: Value, name: str, blocks: Blocks) -> Value:
    x = net.op("add", x, net.norm(attention(net, x, f"{name}.attn", blocks), f"{name}.norm1", blocks.norm))
    return net.op("add", x, net.norm(mlp(net, x, f"{name}.mlp", blocks), f"{name}.norm2", blocks.norm))


def _parallel(net: Net, x: Value, name: str, blocks: Blocks) -> Value:
    """Two attentions beside one another, then two of the other part (Touvron et al. 2022, "Three things")."""
    for part, inner in (("attns", "attn"), ("ffns", "mlp")):
        sums = []
        for index in range(2):
            y = net.norm(x, f"{name}.{part}.{index}.norm", blocks.norm)
            y = (attention if inner == "attn" else mlp)(net, y, f"{name}.{part}.{index}.{inner}", blocks)
            sums.append(net.multiplied(y, f"{name}.{part}.{index}.ls.gamma", size(x, -1)) if blocks.scaled else y)
        x = net.op("add", x, net.op("add", *sums))
    return x


def latent_pool(net: Net, x: Value, name: str, heads: int, hidden: int, norm: Kind, activation: str) -> Value:
    """`AttentionPoolLatent`: what one learned query sees, and an MLP over it: `[batch, width]`."""
    batch, length, width = x.shape[0], x.shape[1], size(x, -1)
    query = net.linear(net.parameter(f"{name}.latent", 1, 1, width), f"{name}.q", width)
    query = net.op("broadcast_to", net.op("reshape", query, shape=(1, heads, 1, width // heads)), shape=(batch, heads, 1, width // heads))
    kv = net.op("reshape", net.linear(x, f"{name}.kv", 2 * width), shape=(batch, length, 2, heads, width // heads))
    key, value = net.b.add("unstack", (net.op("permute_dims", kv, axes=(2, 0, 3, 1, 4)),), {"axis": 0})
    y = net.op("scaled_dot_product_attention", query, key, value)
    y = net.linear(net.op("reshape", y, shape=(batch, width)), f"{name}.proj", width)
    inner = net.activate(net.linear(net.norm(y, f"{name}.norm", norm), f"{name}.mlp.fc1", hidden), activation)
    return net.op("add", y, net.linear(inner, f"{name}.mlp.fc2", width))


def patches(net: Net, width: int, bias: bool) -> Value:
    """The image's patches, in rows: `[batch, patches, width]`."""
    image, patch = net.arguments.sizes("img_size", 224, 2), net.arguments.sizes("patch_size", 16, 2)
    # Positions are resized for images of another size; at this one, nothing is. What is left of a patch is cut off.
    free = (net.arguments.flag("dynamic_img_size"), net.arguments.flag("dynamic_img_pad"))
    if any(free) and any(side % step for side, step in zip(image, patch, strict=True)):
        raise net.arguments.refuse("img_size", f"whole patches of {patch[0]} by {patch[1]}")
    x = net.convolution(net.picture(*image), "patch_embed.proj", width, (patch[0], patch[1]), (patch[0], patch[1]), 0, bias=bias)
    count = (image[0] // patch[0]) * (image[1] // patch[1])
    return net.op("permute_dims", net.op("reshape", x, shape=(x.shape[0], width, count)), axes=(0, 2, 1))


def prefixed(net: Net, x: Value, tokens: list[tuple[str, int]], positions: bool, apart: bool) -> Value:
    """The patches after class, register and distillation tokens; `apart`: these have no positions."""
    batch, count, width = x.shape[0], size(x, 1), size(x, -1)
    before = sum(length for _, length in tokens)

    def placed(x: Value) -> Value:
        return net.op("add", x, net.parameter("pos_embed", 1, size(x, 1), width)) if positions else x

    x = placed(x) if apart or not before else x
    if before:
        first = [net.op("broadcast_to", net.parameter(name, 1, length, width), shape=(batch, length, width)) for name, length in tokens]
        x = net.op("concat", *first, x, axis=1)
        x = x if apart else placed(x)
    if size(x, 1) != count + before:
        raise net.mismatch("tokens that do not add up")
    return x


def pool_tokens(net: Net, x: Value, pool: str, before: int, whole: bool) -> Value:
    """Of `[batch, tokens, width]` the first one, or the mean or greatest value of those after `before`."""
    if pool == "token":
        return net.op("select", x, axis=1, index=0)
    if pool in ("avg", "max", "avgmax"):
        x = x if whole or not before else net.op("slice", x, axes=(1,), starts=(before,), stops=(size(x, 1),), steps=(1,))
        return net.pooled(x, pool, (1,))
    return x


def build(net: Net, built: str) -> Value:
    """The class scores, `[batch, classes]`, or the features."""
    arguments, distilled = net.arguments, built == "VisionTransformerDistilled"
    width, pool = arguments.size("embed_dim", 768), net.pooling("token", ("token",) if distilled else POOLS)
    norm = arguments.layer("norm_layer", "layernorm")
    norm = norm if norm[0] else ("layernorm", {})
    activation = arguments.layer("act_layer", "gelu")[0] or "gelu"
    heads, hidden = arguments.size("num_heads", 12), int(width * arguments.number("mlp_ratio", 4.0))
    kind = arguments.choice("block_fn", BLOCKS, "Block")
    for name in ("attn_layer", "embed_layer"):
        arguments.only(name)
    scale = arguments.get("init_values")
    blocks = Blocks(heads, hidden, arguments.flag("qkv_bias", True), arguments.flag("proj_bias", True), arguments.flag("qk_norm"),
                    arguments.flag("scale_attn_norm"), arguments.flag("scale_mlp_norm"), bool(scale) and kind != "ResPostBlock", norm,
                    activation, arguments.layer("mlp_layer", "mlp"))
    if blocks.mlp[0] not in MLPS:
        raise arguments.refuse("mlp_layer", ", ".join(MLPS))
    before, token, registers = arguments.flag("pre_norm"), arguments.flag("class_token", True), arguments.size("reg_tokens", 0, least=0)
    x = patches(net, width, not before)
    embedding = arguments.layer("embed_norm_layer", None)
    x = net.norm(x, "patch_embed.norm", embedding) if embedding[0] else x
    tokens = [("cls_token", 1)] * token + ([("dist_token", 1)] if distilled else [("reg_token", registers)] if registers else [])
    if pool == "token" and not token:
        raise arguments.refuse("global_pool", "a class token")
    positions = arguments.choice("pos_embed", ("learn", "none", ""), "learn") == "learn"
    x = prefixed(net, x, tokens, positions, arguments.flag("no_embed_class"))
    x = net.norm(x, "norm_pre", norm) if before else x
    block = {"Block": _block, "ResPostBlock": _post_normed, "ParallelThingsBlock": _parallel}[kind]
    for layer in range(arguments.size("depth", 12)):
        x = block(net, x, f"blocks.{layer}", blocks)
    last = arguments.flag("final_norm", True)
    after = arguments.flag("fc_norm", pool in ("avg", "avgmax", "max"))
    x = net.norm(x, "norm", norm) if last and not after else x
    prefix, whole = sum(length for _, length in tokens), arguments.flag("pool_include_prefix")
    if distilled:
        first, second = (net.op("select", x, axis=1, index=index) for index in range(2))
        both = net.op("add", net.classified(first, "head"), net.classified(second, "head_dist"))
        return net.op("multiply", both, 0.5)
    if pool == "map":
        x = x if whole or not prefix else net.op("slice", x, axes=(1,), starts=(prefix,), stops=(size(x, 1),), steps=(1,))
        x = latent_pool(net, x, "attn_pool", heads, hidden, norm, activation)
    else:
        x = pool_tokens(net, x, pool, prefix, whole)
    x = net.norm(x, "fc_norm", norm) if last and after else x
    return net.classified(x, "head")
