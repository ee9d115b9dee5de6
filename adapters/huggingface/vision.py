"""What vision transformers share: patches of an image as words, layers that normalise before each part, class tokens.

Dosovitskiy et al. 2021.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from adapters.huggingface.config import Config
from adapters.huggingface.net import ACTIVATIONS, Net
from converter.builder import Value
from converter.dims import Dim

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
    found = net.op("convolution", x, weight, offset, stride=(given.patch_height, given.patch_width))
    batch, _, rows, columns = found.shape
    return net.op("permute_dims", net.op("reshape", found, shape=(batch, width, rows * columns)), axes=(0, 2, 1))


def with_tokens(net: Net, x: Value, *tokens: Value) -> Value:
    """Learned words before those of the image: [batch, tokens + patches, width]. tokens: [1, 1, width]."""
    batch, _, width = x.shape
    return net.op("concat", *(net.op("broadcast_to", token, shape=(batch, 1, width)) for token in tokens), x, axis=1)


@dataclass(frozen=True, slots=True)
class Sizes:
    """What a layer's config says. `scaled`: the result of each part is multiplied by a vector; `gated`: a SwiGLU."""

    heads: int
    inner: int
    activation: str
    eps: float
    bias: bool = True
    scaled: bool = False
    gated: bool = False


def sizes(config: Config, *, eps: float = 1e-12, inner: int | None = None, **more: Any) -> Sizes:
    """The fields that layers need. Raises `ConverterError` where they do not fit each other."""
    width, heads = config.size("hidden_size"), config.size("num_attention_heads")
    if width % heads:
        raise config.refuse("num_attention_heads", f"a divisor of hidden_size, {width}", heads)
    activation = config.get("hidden_act", more.pop("activation", "gelu"))
    config.choice("hidden_act", ACTIVATIONS, activation)
    inner = config.size("intermediate_size") if inner is None else inner
    return Sizes(heads, inner, activation, config.number("layer_norm_eps", eps), **more)


def layer(net: Net, x: Value, given: Sizes, name: str, mask: Value | None = None, causal: bool = False, **places: Any) -> Value:
    """x + attention(norm(x)), then x + feed-forward(norm(x))."""
    width = int(x.shape[-1])  # type: ignore[arg-type]
    normed = net.layer_norm(x, "attention_norm", given.eps, **places)
    query, key, value = (net.split_heads(net.linear(normed, role, width, bias=given.bias, **places), given.heads)
                         for role in ("query", "key", "value"))
    seen = net.op("scaled_dot_product_attention", query, key, value, mask, is_causal=causal)
    part = net.linear(net.join_heads(seen), "attention_out", width, **places)
    if given.scaled:
        part = net.op("multiply", part, net.tensor("attention_scale", (width,), "lambda1", **places))
    x = net.op("add", part, x)
    normed = net.layer_norm(x, "inner_norm", given.eps, **places)
    if given.gated:
        fused = net.linear(normed, "gate_up", 2 * given.inner, **places)
        gate, up = net.b.add("split", (fused,), {"sizes": (given.inner, given.inner), "axis": -1}, names=("gate", "up"))
        part = net.linear(net.op("multiply", net.op("silu", gate), up), "down", width, **places)
    else:
        inner = net.activation(net.linear(normed, "inner", given.inner, **places), ACTIVATIONS[given.activation])
        part = net.linear(inner, "outer", width, **places)
    if given.scaled:
        part = net.op("multiply", part, net.tensor("outer_scale", (width,), "lambda1", **places))
    return net.op("add", part, x, name=name)
