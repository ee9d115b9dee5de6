"""What vision transformers share: patches of an image as words, layers that normalise before each part, class tokens.

Dosovitskiy et al. 2021.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from adapters.architectures.huggingface.config import MOST_LAYERS, Config
from adapters.architectures.huggingface.net import ACTIVATIONS, Net
from converter.builder import Value
from converter.dims import Dim, fixed

MOST_STAGES = 16
TASKS: Mapping[str, str] = {"image-feature-extraction": "Model", "image-classification": "ForImageClassification"}


@dataclass(frozen=True, slots=True)
class Image:
    """Sizes in pixels."""

    height: int
    width: int
    patch_height: int
    patch_width: int
    channels: int

    @property
    def grid(self) -> tuple[int, int]:
        """Patches, one below and one beside another."""
        return self.height // self.patch_height, self.width // self.patch_width


def pair(config: Config, name: str, default: int) -> tuple[int, int]:
    """One size for both axes, or two."""
    value = config.get(name, default)
    sizes = [value, value] if type(value) is int else value
    if not isinstance(sizes, list) or len(sizes) != 2 or any(type(size) is not int or not 0 < size < 1 << 16 for size in sizes):
        raise config.refuse(name, "a size, or two", value)
    return sizes[0], sizes[1]


def several(config: Config, name: str, default: list[int], count: int | None = None, least: int = 1) -> list[int]:
    """A list of sizes: `count` of them, or some."""
    values = config.get(name, default)
    if not isinstance(values, list) or count not in (None, len(values)) or any(
            type(item) is not int or not least <= item < 1 << 16 for item in values):
        raise config.refuse(name, f"{count or 'some'} sizes", values)
    return values


def depths(config: Config, default: list[int], count: int | None = None, name: str = "depths") -> list[int]:
    """How many layers each stage has."""
    found = several(config, name, default, count)
    if not found or sum(found) > MOST_LAYERS or len(found) > MOST_STAGES:
        raise config.refuse(name, f"at most {MOST_STAGES} stages with {MOST_LAYERS} layers in all", found)
    return found


def image(config: Config, size: int = 224, patch: int = 16) -> Image:
    """The image that a model is for. Raises `UnsupportedError` for one that holds no patch."""
    height, width = pair(config, "image_size", size)
    patch_height, patch_width = pair(config, "patch_size", patch)
    if height < patch_height or width < patch_width:
        raise config.refuse("patch_size", f"at most image_size, {height} · {width}", config.get("patch_size", patch))
    return Image(height, width, patch_height, patch_width, config.size("num_channels", 3))


def pixels(net: Net, given: Image, *, height: Dim | None = None, width: Dim | None = None, batch: str = "batch") -> Value:
    """The input `pixel_values`, [batch, channels, height, width]."""
    net.dim(batch, None)
    return net.b.input("pixel_values", net.dtype, [batch, given.channels, height or given.height, width or given.width])


def patches(net: Net, x: Value, given: Image, width: int, *, bias: bool = True, **places: Any) -> Value:
    """Each patch as a word: [batch, patches, width]."""
    weight = net.tensor("patches", (width, given.channels, given.patch_height, given.patch_width), **places)
    offset = net.tensor("patches", (width,), "bias", **places) if bias else None
    return flat(net, net.op("convolution", x, weight, offset, stride=(given.patch_height, given.patch_width)))


def flat(net: Net, x: Value) -> Value:
    """[batch, channels, height, width] as [batch, height · width, channels]."""
    batch, channels, height, width = x.shape
    return net.op("permute_dims", net.op("reshape", x, shape=(batch, channels, height * width)), axes=(0, 2, 1))


def as_map(net: Net, x: Value, grid: Sequence[Dim]) -> Value:
    """[batch, height · width, channels] as [batch, channels, height, width]."""
    batch, _, channels = x.shape
    return net.op("reshape", net.op("permute_dims", x, axes=(0, 2, 1)), shape=(batch, channels, *grid))


def resized(net: Net, places: Value, old: Sequence[Dim], new: Sequence[Dim], **how: Any) -> Value:
    """Positions of a grid [1, height · width, channels] for another grid, in float32 at least; `how`: as `interpolate` has it."""
    return flat(net, net.cast(net.op("interpolate", net.cast(as_map(net, places, old), net.wide), size=tuple(new), **how)))


def with_tokens(net: Net, x: Value, *tokens: Value) -> Value:
    """Learned words before those of the image: [batch, tokens + patches, width]. tokens: [1, one or more, width] each."""
    batch, _, width = x.shape
    return net.op("concat", *(net.op("broadcast_to", token, shape=(batch, token.shape[1], width)) for token in tokens), x, axis=1)


@dataclass(frozen=True, slots=True)
class Sizes:
    """What a layer's config says.

    bias: whether queries, keys and values have one. scaled: the result of each part is multiplied by a vector. gated: the
    activation of one map is multiplied by another map.
    """

    heads: int
    inner: int
    activation: str
    eps: float
    bias: tuple[bool, bool, bool] = (True, True, True)
    scaled: bool = False
    gated: bool = False
    out_bias: bool = True
    inner_bias: bool = True


def sizes(config: Config, *, eps: float = 1e-12, inner: int | None = None, bias: bool | tuple[bool, bool, bool] = True,
          **more: Any) -> Sizes:
    """The fields that layers need. Raises `ConverterError` where they do not fit each other."""
    bias = (bias, bias, bias) if isinstance(bias, bool) else bias
    width, heads = config.size("hidden_size"), config.size("num_attention_heads")
    if width % heads:
        raise config.refuse("num_attention_heads", f"a divisor of hidden_size, {width}", heads)
    activation = config.get("hidden_act", more.pop("activation", "gelu"))
    config.choice("hidden_act", ACTIVATIONS, activation)
    inner = config.size("intermediate_size") if inner is None else inner
    return Sizes(heads, inner, activation, config.number("layer_norm_eps", eps), bias, **more)


def layer(net: Net, x: Value, given: Sizes, name: str, mask: Value | None = None, causal: bool = False,
          rotate: Callable[[Value], Value] | None = None, **places: Any) -> Value:
    """x + attention(norm(x)), then x + feed-forward(norm(x)). rotate: what is done to queries and keys, [batch, heads, time, size]."""
    width = fixed(x.shape[-1])
    normed = net.layer_norm(x, "attention_norm", given.eps, **places)
    query, key, value = (net.split_heads(part, given.heads) for part in _attended(net, normed, width, given, **places))
    if rotate is not None:
        query, key = rotate(query), rotate(key)
    seen = net.op("scaled_dot_product_attention", query, key, value, mask, is_causal=causal)
    part = net.linear(net.join_heads(seen), "attention_out", width, bias=given.out_bias, **places)
    if given.scaled:
        part = net.op("multiply", part, net.tensor("attention_scale", (width,), "", **places))
    x = net.op("add", part, x)
    part = feed_forward(net, net.layer_norm(x, "inner_norm", given.eps, **places), given, **places)
    if given.scaled:
        part = net.op("multiply", part, net.tensor("outer_scale", (width,), "", **places))
    return net.op("add", part, x, name=name)


def _attended(net: Net, x: Value, width: int, given: Sizes, **places: Any) -> list[Value]:
    """Queries, keys and values: maps of their own, or one where the family's names have it so."""
    if "qkv" in net.family.names:
        fused = net.linear(x, "qkv", 3 * width, **places)
        return list(net.b.add("split", (fused,), {"sizes": (width,) * 3, "axis": -1}, names=("query", "key", "value")))
    return [net.linear(x, role, width, bias=bias, **places)
            for role, bias in zip(("query", "key", "value"), given.bias, strict=True)]


def feed_forward(net: Net, x: Value, given: Sizes, **places: Any) -> Value:
    """Two maps with an activation between; where `gated` three, the first two in one tensor if the family's names have it so."""
    inner, kind, bias, last = given.inner, ACTIVATIONS[given.activation], given.inner_bias, "outer"
    if not given.gated:
        up = net.activation(net.linear(x, "inner", inner, bias=bias, **places), kind)
    elif "gate_up" in net.family.names:
        fused = net.linear(x, "gate_up", 2 * inner, bias=bias, **places)
        gate, up = net.b.add("split", (fused,), {"sizes": (inner, inner), "axis": -1}, names=("gate", "up"))
        up, last = net.op("multiply", net.activation(gate, kind), up), "down"
    else:
        gate = net.activation(net.linear(x, "gate", inner, bias=bias, **places), kind)
        up = net.op("multiply", gate, net.linear(x, "inner", inner, bias=bias, **places))
    return net.linear(up, last, fixed(x.shape[-1]), bias=bias, **places)
