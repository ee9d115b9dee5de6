"""LeViT (Graham et al. 2021): attention with batch norms and an offset for each distance, after four convolutions."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np

from adapters.architectures.huggingface.config import Config
from adapters.architectures.huggingface.family import Family
from adapters.architectures.huggingface.layers.vision import TASKS, depths, flat, image, pixels, several
from adapters.architectures.huggingface.models.convolutional import COUNTERS, ignore
from adapters.architectures.huggingface.models.vit import two_classifiers
from adapters.architectures.huggingface.net import Net
from converter.builder import Value
from converter.dims import fixed

WHERE = "encoder.stages.{stage}.layers.{layer}"
PARTS = {"qkv": "queries_keys_values", "kv": "keys_values", "query": "queries", "out": "projection", "up": "linear_up",
         "down": "linear_down"}
NAMES = {
    "convolution": "patch_embeddings.embedding_layer_{layer}.convolution",
    "convolution_norm": "patch_embeddings.embedding_layer_{layer}.batch_norm",
    **{f"{role}{norm}": f"{WHERE}{{module}}.{name}.{part}" for role, name in PARTS.items()
       for norm, part in (("", "linear"), ("_norm", "batch_norm"))},
    "offsets": f"{WHERE}{{module}}.attention_biases",
}
HEADS = {f"{role}{norm}": f"{name}.{part}" for role, name in (
    ("classifier", "classifier"), ("class_classifier", "classifier"), ("distillation_classifier", "classifier_distill"))
    for norm, part in (("", "linear"), ("_norm", "batch_norm"))}
CONVOLUTIONS = 4


def build(net: Net, task: str) -> None:
    config = net.config
    widths = several(config, "hidden_sizes", [128, 256, 384])
    count = len(widths)
    layers, sizes, heads = (depths(config, [4] * count, count), several(config, "key_dim", [16] * count, count),
                            several(config, "num_attention_heads", [4, 8, 12], count))
    ratios, inner = several(config, "attention_ratio", [2] * count, count), several(config, "mlp_ratio", [2] * count, count, least=0)
    ignore(config)
    steps = _steps(config, widths, sizes)
    kernel, stride, padding = config.size("kernel_size", 3), config.size("stride", 2), config.size("padding", 1, least=0)
    side = config.size("image_size", 224)
    grid = side // config.size("patch_size", 16)
    x = pixels(net, image(config, side))
    for layer in range(CONVOLUTIONS):
        x = net.convolution(x, "convolution", widths[0] // 2**(CONVOLUTIONS - 1 - layer), kernel, stride, padding, layer=layer + 1)
        x = net.batch_norm(x, "convolution_norm", layer=layer + 1)
        x = net.op("hardswish", x) if layer < CONVOLUTIONS - 1 else x
    if tuple(x.shape[2:]) != (grid, grid):
        raise config.refuse("patch_size", f"the one that the convolutions make, {x.shape[2]} patches of {side}", config.get("patch_size"))
    x = flat(net, x)
    for stage, width in enumerate(widths):
        index = 0
        for _ in range(layers[stage]):
            places: dict[str, Any] = {"stage": stage, "layer": index, "module": ".module"}
            x = net.op("add", x, _attention(net, x, width, sizes[stage], heads[stage], ratios[stage], grid, **places))
            index += 1
            if inner[stage]:
                x = _feed_forward(net, x, width * inner[stage], stage, index)
                index += 1
        if stage < count - 1:
            size, parts, ratio, more, jump = steps[stage]
            x = _fewer(net, x, widths[stage + 1], size, parts, ratio, grid, jump, stage=stage, layer=index, module="")
            grid = (grid - 1) // jump + 1
            if more:
                x = _feed_forward(net, x, widths[stage + 1] * more, stage, index + 1)
    pooled = net.op("mean", x, axis=(1,))
    if task == "image-feature-extraction":
        net.output("last_hidden_state", x)
        net.output("pooler_output", pooled)
    elif task == "image-classification":
        net.output("logits", net.linear(net.batch_norm(pooled, "classifier_norm"), "classifier", config.labels()))
    else:
        two_classifiers(net, *(net.linear(net.batch_norm(pooled, f"{role}_norm"), role, config.labels())
                               for role in ("class_classifier", "distillation_classifier")))


def _steps(config: Config, widths: list[int], sizes: list[int]) -> list[tuple[int, int, int, int, int]]:
    """Between stages: the size of heads, their number, how many times as wide values are, and the feed-forward part; the stride."""
    given = config.get("down_ops", [["Subsample", sizes[0], width // sizes[0], 4, 2, 2] for width in widths[:-1]])
    found = []
    for item in given[:len(widths) - 1] if isinstance(given, list) else []:
        if not isinstance(item, list) or len(item) != 6 or item[0] != "Subsample" or any(
                type(part) is not int or not 0 < part + (place == 3) < 1 << 16 for place, part in enumerate(item[1:])):
            break
        found.append((item[1], item[2], item[3], item[4], item[5]))
    if len(found) != len(widths) - 1:
        raise config.refuse("down_ops", f"{len(widths) - 1} of [\"Subsample\", five sizes]", given)
    return found


def _linear(net: Net, x: Value, role: str, out: int, **places: Any) -> Value:
    """A map without a bias, and a batch norm of all words."""
    batch, time, width = x.shape
    y = net.op("linear", x, net.tensor(role, (out, width), **places))
    y = net.batch_norm(net.op("reshape", y, shape=(batch * time, out)), f"{role}_norm", **places)
    return net.op("reshape", y, shape=(batch, time, out))


def _feed_forward(net: Net, x: Value, inner: int, stage: int, layer: int) -> Value:
    places: dict[str, Any] = {"stage": stage, "layer": layer, "module": ".module"}
    y = net.op("hardswish", _linear(net, x, "up", inner, **places))
    return net.op("add", x, _linear(net, y, "down", fixed(x.shape[-1]), **places), name=f"stage_{stage}_layer_{layer}")


def _split(net: Net, x: Value, heads: int, sizes: tuple[int, ...]) -> tuple[Value, ...]:
    """Of each head several parts beside each other: [batch, heads, time, size] each."""
    batch, time, _ = x.shape
    x = net.op("permute_dims", net.op("reshape", x, shape=(batch, time, heads, sum(sizes))), axes=(0, 2, 1, 3))
    return net.b.add("split", (x,), {"sizes": sizes, "axis": 3}, names=tuple(f"part_{index}" for index in range(len(sizes))))


def _attention(net: Net, x: Value, width: int, size: int, heads: int, ratio: int, grid: int, **places: Any) -> Value:
    query, key, value = _split(net, _linear(net, x, "qkv", (2 + ratio) * size * heads, **places), heads, (size, size, ratio * size))
    return _seen(net, query, key, value, width, grid, 1, **places)


def _fewer(net: Net, x: Value, width: int, size: int, heads: int, ratio: int, grid: int, stride: int, **places: Any) -> Value:
    """Every second word of every second row asks all of them."""
    batch, _, before = x.shape
    key, value = _split(net, _linear(net, x, "kv", (1 + ratio) * size * heads, **places), heads, (size, ratio * size))
    chosen = net.op("reshape", x, shape=(batch, grid, grid, before))
    chosen = net.op("slice", chosen, axes=(1, 2), starts=(0, 0), stops=(None, None), steps=(stride, stride))
    rows = (grid - 1) // stride + 1
    chosen = net.op("reshape", chosen, shape=(batch, rows * rows, before))
    query = net.split_heads(_linear(net, chosen, "query", size * heads, **places), heads)
    return _seen(net, query, key, value, width, grid, stride, **places)


def _seen(net: Net, query: Value, key: Value, value: Value, width: int, grid: int, stride: int, **places: Any) -> Value:
    numbers, rows = _distances(grid, stride)
    index = net.constant(f"attention_bias_idxs_{grid}_{stride}", numbers.reshape(-1))
    table = net.tensor("offsets", (query.shape[1], int(numbers.max()) + 1), "", **places)
    found = net.op("reshape", net.op("take", table, index, axis=1), shape=(query.shape[1], rows * rows, grid * grid))
    y = net.join_heads(net.op("scaled_dot_product_attention", query, key, value, found, scale=1 / math.sqrt(fixed(query.shape[3]))))
    return _linear(net, net.op("hardswish", y), "out", width, **places)


def _distances(grid: int, stride: int) -> tuple[np.ndarray[Any, np.dtype[np.int64]], int]:
    """The number of each distance down and across, in the order in which pairs of words meet them: int64 [asking, asked]; the rows."""
    rows = (grid - 1) // stride + 1
    known: dict[tuple[int, int], int] = {}
    found = []
    for down, across in itertools.product(range(rows), range(rows)):
        for other, beside in itertools.product(range(grid), range(grid)):
            found.append(known.setdefault((abs(down * stride - other), abs(across * stride - beside)), len(known)))
    return np.array(found, np.int64).reshape(rows * rows, grid * grid), rows


FAMILY = Family(
    classes={"levit": "Levit"},
    names=NAMES,
    heads=HEADS,
    tasks={**TASKS, "image-classification-with-teacher": "ForImageClassificationWithTeacher"},
    build=build,
    prefixes=("levit.",),
    leftovers=(COUNTERS, "classifier.*", "classifier_distill.*", "*.attention_bias_idxs"),
    inputs=("pixel_values",),
)
