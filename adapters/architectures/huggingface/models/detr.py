"""DETR (Carion et al. 2020), and Table Transformer (Smock et al. 2022), whose norms come before each part.

Boxes and classes that a decoder asks of the map of a convolutional network, in images of any size.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from adapters.architectures.huggingface.config import Config
from adapters.architectures.huggingface.family import Family
from adapters.architectures.huggingface.layers.vision import flat
from adapters.architectures.huggingface.models.convolutional import COUNTERS, UNIT, picture, resnet
from adapters.architectures.huggingface.models.vit_kin import DETECTION, perceptron
from adapters.architectures.huggingface.net import ACTIVATIONS, Net
from converter.builder import Value
from converter.dims import fixed, symbol
from converter.ir import DimRange, DType

TABLES = "table-transformer"
BACKBONE, MASK = "backbone.conv_encoder.model.", "pixel_mask"
LAYER = "{side}.layers.{layer}"
NAMES = {
    "projection": "input_projection",
    "asked": "query_position_embeddings",
    "rows": "position_embedding.row_embeddings",
    "columns": "position_embedding.column_embeddings",
    **{f"{kind}_{role}": f"{LAYER}.{kind}.{name}_proj" for kind in ("self_attn", "encoder_attn")
       for role, name in (("query", "q"), ("key", "k"), ("value", "v"), ("attention_out", "out"))},
    "self_attn_norm": f"{LAYER}.self_attn_layer_norm",
    "encoder_attn_norm": f"{LAYER}.encoder_attn_layer_norm",
    "inner": f"{LAYER}.fc1",
    "outer": f"{LAYER}.fc2",
    "outer_norm": f"{LAYER}.final_layer_norm",
    "norm": "decoder.layernorm",
    "encoder_norm": "encoder.layernorm",
}
HEADS = {"class": "class_labels_classifier", "box_layer": "bbox_predictor.layers.{layer}"}
# Which the library's modules have, where files have the others.
NEWER = tuple((f".{older}.{end}", f".{newer}.{end}") for older, newer in (("out_proj", "o_proj"), ("fc1", "mlp.fc1"), ("fc2", "mlp.fc2"))
              for end in ("weight", "bias"))
# timm's names and sizes of its plain ResNets.
TIMM = {f"{role}{norm}": name.format(kind, part) for role, name, names in (
    ("stem", "{0}1", ("conv", "bn")), ("unit", "layer{{stage}}.{{index}}.{0}{{place}}", ("conv", "bn")),
    ("shortcut", "layer{{stage}}.{{index}}.downsample.{1}", ("0", "1")))
    for norm, kind, part in (("", names[0], names[0]), ("_norm", names[1], names[1]))}
PLAIN = {"layer_type": "basic", "hidden_sizes": [64, 128, 256, 512]}
DEEP = {"layer_type": "bottleneck", "hidden_sizes": [256, 512, 1024, 2048]}
RESNETS: Mapping[str, Mapping[str, Any]] = {
    "resnet18": {**PLAIN, "depths": [2, 2, 2, 2]}, "resnet34": {**PLAIN, "depths": [3, 4, 6, 3]},
    "resnet50": {**DEEP, "depths": [3, 4, 6, 3]}, "resnet101": {**DEEP, "depths": [3, 4, 23, 3]},
    "resnet152": {**DEEP, "depths": [3, 8, 36, 3]}}
# The rows and columns that learned positions have.
MOST = 50
# PyTorch's own number.
EPS = 1e-5


def build(net: Net, task: str) -> None:
    config = net.config
    for name in ("class_cost", "bbox_cost", "giou_cost", "mask_loss_coefficient", "dice_loss_coefficient", "bbox_loss_coefficient",
                 "giou_loss_coefficient", "eos_coefficient", "init_xavier_std", "num_hidden_layers", "max_position_embeddings"):
        config.get(name)  # of training, of other heads, and of older files
    width, activation = config.size("d_model", 256), config.choice("activation_function", ACTIVATIONS, "relu")
    found = _backbone(net)
    mask = None
    if net.takes(MASK):
        given = net.b.input(MASK, DType.INT64, ["batch", symbol("height"), symbol("width")])
        shown = net.op("interpolate", net.op("expand_dims", net.cast(given), axis=(1,)), size=found.shape[2:], mode="nearest")
        mask = net.op("squeeze", net.cast(shown, DType.BOOL), axis=(1,))
    x, places = flat(net, net.convolution(found, "projection", width, 1, bias=True)), _places(net, found, mask, width)
    batch, count, _ = x.shape
    seen = None if mask is None else net.op("reshape", mask, shape=(batch, 1, 1, count))

    def layer(x: Value, side: str, places: Value, source: tuple[Value, Value] | None, index: int) -> Value:
        shown = seen if source is None else None
        x = _attended(net, x, "self_attn", side, (None, places, places), shown, layer=index)
        if source is not None:
            x = _attended(net, x, "encoder_attn", side, (source[0], source[1], places), seen, layer=index)
        normed = net.layer_norm(x, "outer_norm", EPS, side=side, layer=index) if norms_before(config) else x
        y = net.activation(net.linear(normed, "inner", config.size(f"{side}_ffn_dim", 2048), side=side, layer=index), activation)
        y = net.op("add", x, net.linear(y, "outer", width, side=side, layer=index))
        return y if norms_before(config) else net.layer_norm(y, "outer_norm", EPS, name=f"{side}_layer_{index}", side=side, layer=index)

    for index in range(config.size("encoder_layers", 6)):
        x = layer(x, "encoder", places, None, index)
    if norms_before(config):
        x = net.layer_norm(x, "encoder_norm", EPS)
    boxes = config.size("num_queries", 100)
    asked, between = net.tensor("asked", (boxes, width)), config.flag("auxiliary_loss", False)
    y = net.op("full", shape=(batch, boxes, width), fill_value=0.0, dtype=net.dtype)
    for index in range(config.size("decoder_layers", 6)):
        y = layer(y, "decoder", asked, (x, places), index)
        y = _last_norm(net, y) if between else y
    y = _last_norm(net, y)
    for name in ("height", "width"):
        net.b.dims[name] = DimRange(net.b.least(name))
    if task == DETECTION:
        net.output("logits", net.linear(y, "class", config.labels() + 1))
        net.output("pred_boxes", net.op("sigmoid", perceptron(net, y, "box_layer", 4)))
    net.output("last_hidden_state", y)
    net.output("encoder_last_hidden_state", x)


def _last_norm(net: Net, x: Value) -> Value:
    weight, bias = (Value(name, net.b.specs[name]) if name in net.declared else net.parameter(name, x.shape[-1:])
                    for name in (net.name("norm"), net.name("norm", "bias")))
    return net.op("layer_norm", x, weight, bias, normalized_shape=x.shape[-1:], eps=EPS)


def norms_before(config: Config) -> bool:
    """Whether norms come before each part instead of after it."""
    return config.get("model_type") == TABLES


def _attended(net: Net, x: Value, kind: str, side: str, source: tuple[Value | None, Value, Value], mask: Value | None,
              layer: int) -> Value:
    """x with what it sees of a source, normalised before or after.

    source: the words, None for those of x; their positions and those of x, added to keys and to queries.
    """
    config, width = net.config, fixed(x.shape[-1])
    heads = config.size(f"{side}_attention_heads", 8)
    if width % heads:
        raise config.refuse(f"{side}_attention_heads", f"a divisor of d_model, {width}", heads)
    before = norms_before(config)
    normed = net.layer_norm(x, f"{kind}_norm", EPS, side=side, layer=layer) if before else x
    words, there, here = normed if source[0] is None else source[0], *source[1:]
    read = {"query": net.op("add", normed, here), "key": net.op("add", words, there), "value": words}
    query, key, value = (net.split_heads(net.linear(given, f"{kind}_{role}", width, side=side, layer=layer), heads)
                         for role, given in read.items())
    y = net.join_heads(net.op("scaled_dot_product_attention", query, key, value, mask))
    y = net.op("add", x, net.linear(y, f"{kind}_attention_out", width, side=side, layer=layer))
    return y if before else net.layer_norm(y, f"{kind}_norm", EPS, side=side, layer=layer)


# Positions ---------------------------------------------------------------------------------------------------------------


def _places(net: Net, like: Value, mask: Value | None, width: int) -> Value:
    """A vector for each pixel of a map, [batch or 1, height · width, width]."""
    _, _, rows, columns = like.shape
    if width % 4:
        raise net.config.refuse("d_model", "a multiple of 4", width)
    shapes = ((rows, 1), (1, columns))
    parts = []
    if net.config.choice("position_embedding_type", {"sine": False, "learned": True}, "sine"):
        for role, count, shape in (("columns", columns, shapes[1]), ("rows", rows, shapes[0])):
            found = net.op("slice", net.tensor(role, (MOST, width // 2)), axes=(0,), starts=(0,), stops=(count,))
            parts.append(net.op("broadcast_to", net.op("reshape", found, shape=(*shape, width // 2)), shape=(rows, columns, width // 2)))
        return net.op("reshape", net.op("concat", *parts, axis=2), shape=(1, rows * columns, width))
    steps = net.op("exp", net.op("multiply", net.op("arange", stop=width // 4, dtype=net.dtype), 4 * math.log(10000) / width))
    for axis, count, shape in ((1, rows, shapes[0]), (2, columns, shapes[1])):
        if mask is None:
            place = net.op("reshape", net.op("arange", start=1, stop=count + 1, dtype=net.dtype), shape=(1, *shape))
        else:
            place = net.op("cumulative_sum", net.cast(mask), axis=axis)
        last = net.op("slice", place, axes=(axis,), starts=(-1,), stops=(None,))
        place = net.op("multiply", net.op("divide", place, net.op("add", last, 1e-6)), 2 * math.pi)
        angle = net.op("divide", net.op("expand_dims", place, axis=(3,)), steps)
        both = net.op("stack", net.op("sin", angle), net.op("cos", angle), axis=4)
        both = net.op("reshape", both, shape=(*angle.shape[:3], width // 2))
        parts.append(net.op("broadcast_to", both, shape=(both.shape[0], rows, columns, width // 2)))
    found = net.op("concat", *parts, axis=3)
    return net.op("reshape", found, shape=(found.shape[0], rows * columns, width))


# Backbones ---------------------------------------------------------------------------------------------------------------


def _backbone(net: Net) -> Value:
    """The last map of the convolutional network that the config says: the library's ResNet, or one of timm's."""
    config = net.config
    outer = {name: config.get(name) for name in ("use_timm_backbone", "backbone", "dilation", "use_pretrained_backbone")}
    more = config.get("backbone_kwargs") or {}
    if not isinstance(more, dict) or not more.keys() <= {"num_channels", "in_chans", "out_indices", "output_stride"}:
        raise config.refuse("backbone_kwargs", "num_channels, in_chans, out_indices and output_stride", more)
    given = config.part("backbone_config")
    kind = given.get("model_type", "resnet" if given.fields else "timm_backbone")
    prefix = net.prefix + (BACKBONE if any(name.startswith(net.prefix + BACKBONE) for name in net.held) else "backbone.model.")
    for name, value in (*more.items(), ("num_channels", given.get("num_channels"))):
        if name in ("num_channels", "in_chans") and value not in (None, config.size("num_channels", 3)):
            raise config.refuse("num_channels", f"{config.size('num_channels', 3)}, as the backbone has", value)
    if kind == "resnet":
        if outer["use_timm_backbone"]:
            raise config.refuse("use_timm_backbone", "false beside a backbone_config of the library's own", True)
        fields = {**given.fields, "num_channels": config.get("num_channels", 3)}
        tower = net.part(UNIT, prefix, Config(fields, given.where, asked=given.asked))
        maps = resnet(tower, picture(tower))
        last = _last_stage(given, len(maps))
        net.leaves(f"*{prefix}encoder.stages.*")
        return maps[last - 1]
    if kind != "timm_backbone":
        raise given.refuse("model_type", "resnet or timm_backbone", kind)
    for name in ("features_only", "use_pretrained_backbone", "freeze_batch_norm_2d", "out_features", "stage_names"):
        given.get(name)
    name = given.get("backbone", outer["backbone"]) or "resnet50"
    sizes = RESNETS.get(str(name).partition(".")[0])
    if sizes is None:
        raise (given if given.fields else config).refuse("backbone", ", ".join(RESNETS), name)
    dilated = config.flag("dilation", False)
    # The library looks at what stands beside the backbone only where there is dilation.
    stride = given.get("output_stride") or (more.get("output_stride", 16) if dilated else 32)
    if stride not in (16, 32):
        raise given.refuse("output_stride", "16 or 32", stride)
    indices = given.get("out_indices", more.get("out_indices"))
    if indices is not None and (not isinstance(indices, list) or not indices or indices[-1] not in (4, -1)):
        raise given.refuse("out_indices", "a list that ends with 4", indices)
    fields = {**sizes, "embedding_size": 64, "num_channels": config.get("num_channels", 3)}
    tower = net.part(TIMM, prefix, Config(fields, config.where))
    return resnet(tower, picture(tower), dilated=stride == 16)[-1]


def _last_stage(given: Config, count: int) -> int:
    """The stage whose map is the last of those that a backbone gives; by default the last."""
    features, indices = given.get("out_features"), given.get("out_indices")
    numbers = indices if indices is not None else [int(str(item)[5:]) if str(item)[5:].isdecimal() else 0 for item in features or []]
    last = numbers[-1] if isinstance(numbers, list) and numbers else count
    last = count + 1 + last if type(last) is int and last < 0 else last
    if type(last) is not int or not 0 < last <= count:
        raise given.refuse("out_features", f"stages up to {count}", features or indices)
    return last


FAMILY = Family(
    classes={"detr": "Detr"},
    names=NAMES,
    heads=HEADS,
    tasks={"image-feature-extraction": "Model", DETECTION: "ForObjectDetection"},
    build=build,
    prefixes=("model.",),
    leftovers=(COUNTERS, "class_labels_classifier.*", "bbox_predictor.*"),
    legacy=NEWER,
    inputs=("pixel_values", MASK),
)
TABLE_TRANSFORMER = replace(FAMILY, classes={TABLES: "TableTransformer"}, legacy=(), names={
    **NAMES, "rows": f"backbone.{NAMES['rows']}", "columns": f"backbone.{NAMES['columns']}"})
