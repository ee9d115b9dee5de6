"""Swin V2 (Liu et al. 2022): scores of words' directions, offsets that a small network gives, norms after each part."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from typing import Any

from adapters.architectures.huggingface.config import Config
from adapters.architectures.huggingface.layers.vision import image, several
from adapters.architectures.huggingface.models.swin import BLOCK, FAMILY, Layout, build, layout_of, offsets_of
from adapters.architectures.huggingface.net import Net
from adapters.architectures.windows import distances
from converter.builder import Value
from converter.dims import fixed

ATTENTION = f"{BLOCK}.attention.self"
# The width of the network that gives offsets.
INNER = 512


def _layout(config: Config) -> Layout:
    """Windows are no larger than the map of the config's images, and those as large as it are not moved."""
    given, layout = image(config, 224, 4), layout_of(config)
    config.only("use_absolute_embeddings", False)  # with which the library's module adds tables that do not fit
    count, bias = len(layout.depths), layout.bias[0]
    trained = several(config, "pretrained_window_sizes", [0] * count, least=0)
    if len(trained) < count:
        raise config.refuse("pretrained_window_sizes", f"{count} sizes", trained)
    maps = [min(given.grid) >> stage for stage in range(count)]
    if given.grid[0] != given.grid[1] or not maps[-1]:
        raise config.refuse("image_size", f"a square of {1 << count - 1} patches or more", config.get("image_size"))
    sides = [min(size, layout.window) for size in maps]
    shifts = [0 if size <= side else layout.window // 2 for size, side in zip(maps, sides, strict=True)]
    return replace(layout, bias=(bias, False, bias), attend=partial(_attend, trained), after=True, sides=sides, shifts=shifts)


def _attend(trained: list[int], net: Net, query: Value, key: Value, value: Value, side: int, mask: Value | None, **places: Any) -> Value:
    heads = fixed(query.shape[2])
    query, key = net.directions(query), net.directions(key)
    scale = net.op("exp", net.op("minimum", net.tensor("scale", (heads, 1, 1), "", **places), math.log(1 / 0.01)))
    before = trained[places["stage"]]
    apart = net.constant(f"relative_coords_table_{side}_{before}", distances((side, side), before).reshape(-1, 2))
    inner = net.op("relu", net.linear(net.cast(apart), "offsets_in", INNER, **places))
    table = net.linear(inner, "offsets_out", heads, bias=False, **places)
    bias = net.op("multiply", net.op("sigmoid", offsets_of(net, table, side, f"relative_position_index_{side}")), 16.0)
    if mask is not None:
        bias = net.op("add", bias, net.op("multiply", mask, 2.0))  # the library adds it twice
    return net.op("scaled_dot_product_attention", net.op("multiply", query, scale), key, value, bias, scale=1.0)


SECOND = replace(
    FAMILY, classes={"swinv2": "Swinv2"}, prefixes=("swinv2.",), build=partial(build, _layout), legacy=(),
    leftovers=(*FAMILY.leftovers, "*.relative_coords_table"),
    names={**{role: name for role, name in FAMILY.names.items() if role != "offsets"}, "scale": f"{ATTENTION}.logit_scale",
           "offsets_in": f"{ATTENTION}.continuous_position_bias_mlp.0", "offsets_out": f"{ATTENTION}.continuous_position_bias_mlp.2"})
