"""Vision transformers that differ from ViT in their tokens or in what lies between layers, and one for sound.

MSN (Assran et al. 2022), I-JEPA (Assran et al. 2023), MAE (He et al. 2022; its encoder), YOLOS (Fang et al. 2021), AST (Gong et al. 2021).
"""

from __future__ import annotations

from dataclasses import replace

from adapters.architectures.huggingface.config import Config
from adapters.architectures.huggingface.family import Family
from adapters.architectures.huggingface.layers.vision import Image, Sizes, flat, image, layer, patches, pixels, resized, sizes, with_tokens
from adapters.architectures.huggingface.models.vit import NAMES, VIT
from adapters.architectures.huggingface.net import Net
from converter.builder import Value
from converter.dims import Dim, fixed, symbol
from converter.errors import UnsupportedError
from converter.ir import DimRange, DType

NOISE = "noise"
SOUND = "input_values"
DETECTION = "object-detection"


def _layout(config: Config, eps: float = 1e-12) -> Sizes:
    return sizes(config, eps=eps, bias=config.flag("qkv_bias", True))


def _layers(net: Net, x: Value, layout: Sizes, between: list[Value] | None = None) -> Value:
    """All layers and the last norm; `between`: what is added to the words after each layer but the last."""
    count = net.config.size("num_hidden_layers")
    # Newer versions save MSN's classifier with the prefix everywhere but in the layers.
    bare = net.prefix and not net.has("attention_norm", layer=0)
    inner = net.part(net.family.names, "", net.config) if bare else net
    for index in range(count):
        x = layer(inner, x, layout, f"layer_{index}", layer=index)
        if between and index < count - 1:
            x = net.op("add", x, between[index])
    return net.layer_norm(x, "norm", layout.eps)


def build_msn(net: Net, task: str) -> None:
    config = net.config
    given, width, layout = image(config), config.size("hidden_size"), _layout(config, 1e-6)
    x = with_tokens(net, patches(net, pixels(net, given), given, width), net.tensor("class", (1, 1, width), ""))
    x = _layers(net, net.op("add", x, net.tensor("positions", (1, x.shape[1], width), ""), name="embeddings"), layout)
    if task == "image-feature-extraction":
        net.output("last_hidden_state", x)
    else:
        net.output("logits", net.linear(net.first(x), "classifier", config.labels()))


def build_ijepa(net: Net, task: str) -> None:
    """Patches alone."""
    config = net.config
    given, width, layout = image(config), config.size("hidden_size"), _layout(config)
    for name in ("pooler_act", "pooler_output_size", "encoder_stride"):
        config.get(name)  # of parts that its models have not
    x = patches(net, pixels(net, given), given, width)
    x = _layers(net, net.op("add", x, net.tensor("positions", (1, x.shape[1], width), ""), name="embeddings"), layout)
    if task == "image-feature-extraction":
        net.output("last_hidden_state", x)
    else:
        net.output("logits", net.linear(net.op("mean", x, axis=(1,)), "classifier", config.labels()))


# MAE ---------------------------------------------------------------------------------------------------------------------


def build_mae(net: Net, task: str) -> None:
    """`noise` [batch, patches] says which patches are seen: those with the least."""
    config = net.config
    given, width, layout = image(config), config.size("hidden_size"), _layout(config)
    for name in ("decoder_num_attention_heads", "decoder_hidden_size", "decoder_num_hidden_layers", "decoder_intermediate_size",
                 "norm_pix_loss"):
        config.get(name)  # of the decoder
    count = given.grid[0] * given.grid[1]
    ratio = config.number("mask_ratio", 0.75)
    kept = int(count * (1 - ratio))
    if not 0 <= ratio < 1:
        raise config.refuse("mask_ratio", "a number from 0 to 1", ratio)
    words = patches(net, pixels(net, given), given, width)
    if not net.takes(NOISE):
        raise UnsupportedError("which patches are hidden is drawn at random: the model needs the input 'noise'", where="take")
    noise = net.b.input(NOISE, DType.FLOAT32, ["batch", count])
    table = net.tensor("positions", (1, count + 1, width), "")
    own, places = net.b.add("split", (table,), {"sizes": (1, count), "axis": 1}, names=("class_position", "patch_positions"))
    words = net.op("add", words, places)
    order = net.b.add("sort", (noise,), {"axis": 1}, names=("sorted", "order"))[1]
    restore = net.b.add("sort", (order,), {"axis": 1}, names=("places", "ids_restore"))[1]
    batch = words.shape[0]
    seen = net.op("slice", order, axes=(1,), starts=(0,), stops=(kept,))
    seen = net.op("broadcast_to", net.op("expand_dims", seen, axis=(2,)), shape=(batch, kept, width))
    first = net.op("add", net.tensor("class", (1, 1, width), ""), own)
    x = with_tokens(net, net.op("take_along_axis", words, seen, axis=1), first)
    net.output("last_hidden_state", _layers(net, x, layout))
    hidden = net.cast(net.op("greater_equal", net.op("arange", stop=count, dtype=DType.INT64), kept), DType.FLOAT32)
    hidden = net.op("broadcast_to", net.op("expand_dims", hidden, axis=(0,)), shape=(batch, count))
    net.output("mask", net.op("take_along_axis", hidden, restore, axis=1))
    net.output("ids_restore", restore)


# YOLOS -------------------------------------------------------------------------------------------------------------------


def build_yolos(net: Net, task: str) -> None:
    """Words that become boxes after those of an image of any size."""
    config = net.config
    size, patch = config.get("image_size", [512, 864]), config.size("patch_size", 16)
    if not isinstance(size, list):
        raise config.refuse("image_size", "two sizes", size)
    given = image(Config({"image_size": size, "patch_size": patch, "num_channels": config.get("num_channels", 3)}, config.where))
    if given.height * given.width // patch**2 != given.grid[0] * given.grid[1]:
        raise config.refuse("image_size", "whole patches", size)
    for name in ("auxiliary_loss", "class_cost", "bbox_cost", "giou_cost", "bbox_loss_coefficient", "giou_loss_coefficient",
                 "eos_coefficient"):
        config.get(name)  # of training
    width, layout, boxes = config.size("hidden_size"), _layout(config), config.size("num_detection_tokens", 100)
    layers = config.size("num_hidden_layers")
    height, across = symbol("height"), symbol("width")
    net.b.dims.update(height=DimRange(patch), width=DimRange(patch))
    words = patches(net, pixels(net, given, height=height, width=across), given, width)
    grid = (height // patch, across // patch)
    asked = net.op("broadcast_to", net.tensor("boxes", (1, boxes, width), ""), shape=(words.shape[0], boxes, width))
    x = net.op("concat", with_tokens(net, words, net.tensor("class", (1, 1, width), "")), asked, axis=1)
    count = 1 + given.grid[0] * given.grid[1] + boxes
    x = net.op("add", x, _resized(net, net.tensor("positions", (1, count, width), ""), given, boxes, grid), name="embeddings")
    between = []
    if config.flag("use_mid_position_embeddings", True):
        if layers < 2:
            raise config.refuse("use_mid_position_embeddings", "false for one layer", True)
        tables = net.tensor("mid_positions", (layers - 1, 1, count, width), "")
        between = [_resized(net, net.op("select", tables, axis=0, index=index), given, boxes, grid) for index in range(layers - 1)]
    x = _layers(net, x, layout, between)
    if task == "image-feature-extraction":
        net.output("last_hidden_state", x)
        if net.has("pooler"):
            net.output("pooler_output", net.op("tanh", net.linear(net.first(x), "pooler", width)))
        return
    asked = net.op("slice", x, axes=(1,), starts=(1 + grid[0] * grid[1],), stops=(None,))
    net.output("logits", perceptron(net, asked, "class_layer", config.labels() + 1))
    net.output("pred_boxes", net.op("sigmoid", perceptron(net, asked, "box_layer", 4)))
    net.output("last_hidden_state", x)


def _resized(net: Net, table: Value, given: Image, last: int, grid: tuple[Dim, Dim]) -> Value:
    """Positions [1, 1 + patches + last, width], those of the patches resized to a grid, bicubic."""
    rows, columns = given.grid
    own, places, rest = net.b.add("split", (table,), {"sizes": (1, rows * columns, last), "axis": 1}, names=("first", "places", "last"))
    return net.op("concat", own, resized(net, places, given.grid, grid, mode="cubic"), rest, axis=1)


def perceptron(net: Net, x: Value, role: str, out: int) -> Value:
    """Three maps with a ReLU between."""
    width = fixed(x.shape[-1])
    for index, size in enumerate((width, width, out)):
        x = net.linear(net.op("relu", x) if index else x, role, size, layer=index)
    return x


# AST ---------------------------------------------------------------------------------------------------------------------


def build_spectrogram(net: Net, task: str) -> None:
    """`input_values` [batch, time, bins] of a fixed length; patches may overlap."""
    config = net.config
    bins, length, patch = config.size("num_mel_bins", 128), config.size("max_length", 1024), config.size("patch_size", 16)
    down, across = config.size("frequency_stride", 10), config.size("time_stride", 10)
    if patch > min(bins, length):
        raise config.refuse("patch_size", f"at most {min(bins, length)}", patch)
    width, layout = config.size("hidden_size"), _layout(config)
    net.dim("batch", None)
    given = net.b.input(SOUND, net.dtype, ["batch", length, bins])
    x = net.op("expand_dims", net.op("permute_dims", given, axes=(0, 2, 1)), axis=(1,))
    weight = net.tensor("patches", (width, 1, patch, patch))
    x = net.op("convolution", x, weight, net.tensor("patches", (width,), "bias"), stride=(down, across))
    x = flat(net, x)
    x = with_tokens(net, x, *(net.tensor(role, (1, 1, width), "") for role in ("class", "distillation")))
    x = _layers(net, net.op("add", x, net.tensor("positions", (1, x.shape[1], width), ""), name="embeddings"), layout)
    pooled = net.op("divide", net.op("add", net.first(x), net.op("select", x, axis=1, index=1)), 2.0)
    if task == "feature-extraction":
        net.output("last_hidden_state", x)
        net.output("pooler_output", pooled)
    else:
        net.output("logits", net.linear(net.layer_norm(pooled, "classifier_norm", layout.eps), "classifier", config.labels()))


MSN = replace(VIT, classes={"vit_msn": "ViTMSN"}, build=build_msn, leftovers=("embeddings.mask_token", "classifier.*"))
IJEPA = replace(VIT, classes={"ijepa": "IJepa"}, build=build_ijepa, prefixes=("ijepa.",),
                names={role: name for role, name in NAMES.items() if role not in ("class", "pooler")})
MAE = replace(VIT, classes={"vit_mae": "ViTMAE"}, build=build_mae, tasks={"image-feature-extraction": "Model"}, heads={},
              leftovers=("decoder.*",), inputs=("pixel_values", NOISE))
YOLOS = Family(
    classes={"yolos": "Yolos"},
    names={**NAMES, "boxes": "embeddings.detection_tokens", "mid_positions": "encoder.mid_position_embeddings"},
    heads={"class_layer": "class_labels_classifier.layers.{layer}", "box_layer": "bbox_predictor.layers.{layer}"},
    tasks={"image-feature-extraction": "Model", DETECTION: "ForObjectDetection"},
    build=build_yolos,
    prefixes=("vit.",),
    leftovers=("pooler.*", "class_labels_classifier.*", "bbox_predictor.*"),
    legacy=(("encoder.mid_position_embeddings", "encoder.interpolation.mid_position_embeddings"),),
    inputs=("pixel_values",),
)
SPECTROGRAM = Family(
    classes={"audio-spectrogram-transformer": "AST"},
    names=NAMES,
    heads={"classifier_norm": "classifier.layernorm", "classifier": "classifier.dense"},
    tasks={"feature-extraction": "Model", "audio-classification": "ForAudioClassification"},
    build=build_spectrogram,
    prefixes=("audio_spectrogram_transformer.",),
    leftovers=("classifier.*",),
    inputs=(SOUND,),
)
