"""wav2vec 2.0 (Baevski et al. 2020) and HuBERT (Hsu et al. 2021): words made of samples by convolutions, positions by one more."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from adapters.architectures.activations import Activation
from adapters.architectures.huggingface.config import Config
from adapters.architectures.huggingface.family import Family
from adapters.architectures.huggingface.layers.encoders import taken
from adapters.architectures.huggingface.models.whisper import weighted
from adapters.architectures.huggingface.net import ACTIVATIONS, Net
from converter.builder import Value
from converter.dims import fixed
from converter.ir import DType

LAYER = "encoder.layers.{layer}"
POSITIONS = "encoder.pos_conv_embed.conv"
NAMES = {
    "convolution": "feature_extractor.conv_layers.{layer}.conv",
    "convolution_norm": "feature_extractor.conv_layers.{layer}.layer_norm",
    "projection_norm": "feature_projection.layer_norm",
    "projection": "feature_projection.projection",
    "magnitude": f"{POSITIONS}.parametrizations.weight.original0",
    "direction": f"{POSITIONS}.parametrizations.weight.original1",
    "positions": POSITIONS,
    "norm": "encoder.layer_norm",
    "query": f"{LAYER}.attention.q_proj",
    "key": f"{LAYER}.attention.k_proj",
    "value": f"{LAYER}.attention.v_proj",
    "attention_out": f"{LAYER}.attention.out_proj",
    "attention_norm": f"{LAYER}.layer_norm",
    "inner": f"{LAYER}.feed_forward.intermediate_dense",
    "outer": f"{LAYER}.feed_forward.output_dense",
    "outer_norm": f"{LAYER}.final_layer_norm",
    "language_norm": f"{LAYER}.adapter_layer.norm",
    "language_inner": f"{LAYER}.adapter_layer.linear_1",
    "language_outer": f"{LAYER}.adapter_layer.linear_2",
    "adapter": "adapter.proj",
    "adapter_norm": "adapter.proj_layer_norm",
    "adapter_convolution": "adapter.layers.{layer}.conv",
}

HEADS = {"lm_head": "lm_head", "layer_weights": "layer_weights", "projector": "projector", "classifier": "classifier"}

SAMPLES, MASK = "input_values", "attention_mask"
SPEECH, CLASSES, FRAMES = "automatic-speech-recognition", "audio-classification", "audio-frame-classification"
# The norms of the convolutions and adapters have PyTorch's own number, whatever the config says.
EPS = 1e-5
NORMS: Mapping[str, str] = {"group": "group", "layer": "layer"}
MOST_CONVOLUTIONS = 100
# Fields of other heads, and of what only training computes.
OTHERS = (
    "adapter_kernel_size", "adapter_stride", "classifier_proj_size", "codevector_dim", "contrastive_logits_temperature",
    "ctc_loss_reduction", "ctc_zero_infinity", "diversity_loss_weight", "num_adapter_layers", "num_codevector_groups",
    "mask_channel_length", "mask_channel_min_space", "mask_channel_other", "mask_channel_prob", "mask_channel_selection",
    "mask_time_min_space", "mask_time_other", "mask_time_selection", "num_codevectors_per_group", "num_negatives",
    "num_clusters", "num_ctc_classes",
    "output_hidden_size", "proj_codevector_dim",
    "replace_prob", "tdnn_dilation", "tdnn_dim", "tdnn_kernel", "vocab_size", "xvector_output_dim",
)


@dataclass(frozen=True, slots=True)
class Convolutions:
    """Those that make words of samples."""

    widths: list[int]
    kernels: list[int]
    strides: list[int]
    bias: bool
    norm: str
    activation: Activation

    def shortest(self, words: int = 1) -> int:
        """The least samples of so many words."""
        samples = words
        for kernel, stride in zip(reversed(self.kernels), reversed(self.strides), strict=True):
            samples = (samples - 1) * stride + kernel
        return samples


def convolutions(config: Config, norm: str | None = None) -> Convolutions:
    """What the config says of them. Raises `ConverterError` where fields do not fit each other."""
    found: dict[str, list[int]] = {}
    for name in ("conv_dim", "conv_kernel", "conv_stride"):
        values = config.get(name)
        if (not isinstance(values, list) or not 0 < len(values) <= MOST_CONVOLUTIONS
                or any(type(item) is not int or not 0 < item < 1 << 16 for item in values)):
            raise config.refuse(name, f"a list of 1 to {MOST_CONVOLUTIONS} sizes", values)
        if len(values) != len(found.get("conv_dim", values)):
            raise config.refuse(name, f"{len(found['conv_dim'])} sizes, as conv_dim has", values)
        found[name] = values
    config.only("num_feat_extract_layers", len(found["conv_dim"]))
    return Convolutions(found["conv_dim"], found["conv_kernel"], found["conv_stride"], config.flag("conv_bias", False),
                        norm or config.choice("feat_extract_norm", NORMS, "group"),
                        config.choice("feat_extract_activation", ACTIVATIONS, "gelu"))


# What of all words a layer's attention sees, by the words that it is given and the layer's number.
Seen = Callable[[Value, int], Value | None]


@dataclass(frozen=True, slots=True)
class Kind:
    """What tells a family from wav2vec 2.0.

    adapted: fewer words after the layers where the config says so. languages: adapters of a language in the layers. extracted:
    the samples' words are an output. optional_norm: whether their norm can be left out. positions: what is added to the words.
    scores: what is added to the scores, of the first layer's words and the mask. norm: that of the convolutions, whatever the
    config says. layers: what stands in the place of wav2vec 2.0's: the words before the first and after each, and the result.
    """

    adapted: bool = True
    languages: bool = True
    extracted: bool = True
    optional_norm: bool = False
    positions: Callable[[Net, Convolutions, Value], Value] | None = None
    scores: Callable[[Net, Value, Value | None], Seen] | None = None
    norm: str | None = None
    layers: Callable[[Net, Value, Value | None], list[Value]] | None = None


def build(net: Net, task: str, kind: Kind) -> None:
    config, given = net.config, convolutions(net.config, kind.norm)
    start(net, task)
    adapted = kind.adapted and config.flag("add_adapter", False)
    words = heard(net, given)
    mask = visible(net, given, words)
    normed = words
    config.only("conv_pos_batch_norm", False)
    if not kind.optional_norm or config.flag("feat_proj_layer_norm", True):
        normed = net.layer_norm(words, "projection_norm", config.number("layer_norm_eps", EPS), name="extract_features")
    x = net.linear(normed, "projection", config.size("hidden_size"))
    states = _encode(net, given, x, mask, kind) if kind.layers is None else kind.layers(net, x, mask)
    # The last of the layers before the norm that may follow it.
    x = states.pop()
    finish(net, task, _adapted(net, x) if adapted else x, states, mask, normed if kind.extracted else None)


def start(net: Net, task: str) -> None:
    """Fields and tensors of other heads, and what classifiers do not have."""
    config = net.config
    net.leaves(*(f"{HEADS[role]}*" for role in HEADS if role not in _used(task, config)))
    for name in OTHERS:
        config.get(name)
    if task in (CLASSES, FRAMES) and config.flag("add_adapter", False):
        raise config.refuse("add_adapter", "false for a classifier", True)


def finish(net: Net, task: str, x: Value, states: list[Value], mask: Value | None, extracted: Value | None) -> None:
    """The outputs of a task. states: the words before the first layer and after each; extracted: an output of the bare model."""
    config = net.config
    if task == "feature-extraction":
        net.output("last_hidden_state", x)
        if extracted is not None:
            net.output("extract_features", extracted)
    elif task == SPEECH:
        net.output("logits", net.linear(x, "lm_head", config.size("vocab_size")))
    else:
        if config.flag("use_weighted_layer_sum", False):
            x = weighted(net, states)
        net.output("logits", net.linear(pooled(net, x, mask) if task == CLASSES else x, "classifier", config.labels()))


def _used(task: str, config: Config) -> tuple[str, ...]:
    """The roles of a task's head."""
    sums = ("layer_weights",) if config.flag("use_weighted_layer_sum", False) else ()
    return {SPEECH: ("lm_head",), CLASSES: ("projector", "classifier", *sums), FRAMES: ("classifier", *sums)}.get(task, ())


def heard(net: Net, given: Convolutions, words: int = 1) -> Value:
    """Declares the samples, enough for some words, and their mask: gives the words, [batch, time, width] of [batch, samples]."""
    net.dim("batch", None)
    net.dim("samples", None, given.shortest(words))
    samples = net.b.input(SAMPLES, net.dtype, ["batch", "samples"])
    if net.takes(MASK):
        net.b.input(MASK, DType.INT64, ["batch", "samples"])
    x = net.op("expand_dims", samples, axis=(1,))
    for layer, (width, kernel, stride) in enumerate(zip(given.widths, given.kernels, given.strides, strict=True)):
        weight = net.tensor("convolution", (width, x.shape[1], kernel), layer=layer)
        bias = net.tensor("convolution", (width,), "bias", layer=layer) if given.bias else None
        x = net.op("convolution", x, weight, bias, stride=(stride,))
        if given.norm == "layer":
            x = net.layer_norm(net.op("permute_dims", x, axes=(0, 2, 1)), "convolution_norm", EPS, layer=layer)
            x = net.op("permute_dims", x, axes=(0, 2, 1))
        elif layer == 0:
            scale, offset = (net.tensor("convolution_norm", (width,), ending, layer=layer) for ending in ("weight", "bias"))
            x = net.op("group_norm", x, scale, offset, num_groups=width, eps=EPS)
        x = net.activation(x, given.activation)
    return net.op("permute_dims", x, axes=(0, 2, 1))


def visible(net: Net, given: Convolutions, words: Value) -> Value | None:
    """bool [batch, time]: the words of the samples that the mask keeps, all of which it takes to be at the beginning."""
    mask = taken(net, MASK)
    if mask is None:
        return None
    count = net.op("sum", net.cast(net.cast(mask, DType.BOOL), DType.INT64), axis=(1,), keepdims=True)
    for kernel, stride in zip(given.kernels, given.strides, strict=True):
        count = net.op("add", net.op("floor_divide", net.op("subtract", count, kernel), stride), 1)
    last = net.op("subtract", count, 1)
    # A place before the first counts from the end, as an index does in the library.
    time = words.shape[1]
    wrapped = net.op("add", last, net.op("full", shape=(), fill_value=time, dtype=DType.INT64))
    last = net.op("where", net.op("less", last, 0), wrapped, last)
    return net.op("less_equal", net.op("arange", stop=time, dtype=DType.INT64), last, name="visible")


# Layers ------------------------------------------------------------------------------------------------------------------


def _encode(net: Net, given: Convolutions, x: Value, mask: Value | None, kind: Kind) -> list[Value]:
    """The words before the first layer and after each, and the result: [batch, time, width] each."""
    config = net.config
    eps = config.number("layer_norm_eps", EPS)
    before = config.flag("do_stable_layer_norm", False)
    asked = config.optional_size("adapter_attn_dim")
    languages = asked if kind.languages and before else None
    x, seen = hidden(net, x, mask)
    x = net.op("add", x, (kind.positions or positions)(net, given, x), name="embeddings")
    shown: Seen = (lambda words, layer: seen) if kind.scores is None else kind.scores(net, x, seen)
    states = [x if before else net.layer_norm(x, "norm", eps)]
    for layer in range(config.size("num_hidden_layers")):
        states.append(encoder_layer(net, states[-1], shown, eps, layer, before=before, languages=languages))
    return [*states, net.layer_norm(states[-1], "norm", eps) if before else states[-1]]


def hidden(net: Net, x: Value, mask: Value | None) -> tuple[Value, Value | None]:
    """The words with 0 for those that the mask hides, and the mask for scores, bool [batch, 1, 1, time]."""
    if mask is None:
        return x, None
    x = net.op("where", net.op("expand_dims", mask, axis=(2,)), x, 0.0)
    return x, net.op("reshape", mask, shape=(x.shape[0], 1, 1, x.shape[1]))


def positions(net: Net, given: Convolutions, x: Value, stride: int = 1) -> Value:
    """A convolution over the words around, its weight given by directions and magnitudes."""
    config, width = net.config, fixed(x.shape[-1])
    kernel, groups = config.size("num_conv_pos_embeddings", 128), config.size("num_conv_pos_embedding_groups", 16)
    if width % groups:
        raise config.refuse("num_conv_pos_embedding_groups", f"a divisor of hidden_size, {width}", groups)
    magnitude = net.tensor("magnitude", (1, 1, kernel), "")
    weight = net.op("weight_norm", net.tensor("direction", (width, width // groups, kernel), ""), magnitude, axis=2)
    # With a kernel of even size the library drops the last word of one too many.
    padding = (kernel // 2, kernel // 2 - (stride == 1 and kernel % 2 == 0))
    x = net.op("convolution", net.op("permute_dims", x, axes=(0, 2, 1)), weight, net.tensor("positions", (width,), "bias"),
               stride=(stride,), padding=padding, groups=groups)
    return net.op("permute_dims", net.activation(x, given.activation), axes=(0, 2, 1), name="positions")


def encoder_layer(net: Net, x: Value, seen: Seen, eps: float, layer: int, *, before: bool = False, languages: int | None = None) -> Value:
    """Attention and a feed-forward part, each added to its input; norms `before` each part, or after it."""
    config, width = net.config, fixed(x.shape[-1])
    places: dict[str, Any] = {"layer": layer}
    heads = config.size("num_attention_heads")
    if width % heads:
        raise config.refuse("num_attention_heads", f"a divisor of hidden_size, {width}", heads)
    activation = config.choice("hidden_act", ACTIVATIONS, "gelu")
    normed = net.layer_norm(x, "attention_norm", eps, **places) if before else x
    query, key, value = (net.split_heads(net.linear(normed, role, width, **places), heads) for role in ("query", "key", "value"))
    attended = net.join_heads(net.op("scaled_dot_product_attention", query, key, value, seen(normed, layer)))
    x = net.op("add", x, net.linear(attended, "attention_out", width, **places))
    normed = net.layer_norm(x, "outer_norm" if before else "attention_norm", eps, **places)
    x = normed if not before else x
    inner = net.activation(net.linear(normed, "inner", config.size("intermediate_size"), **places), activation)
    x = net.op("add", x, net.linear(inner, "outer", width, **places), name=f"layer_{layer}")
    if not before:
        return net.layer_norm(x, "outer_norm", eps, **places)
    if languages is None:
        return x
    inner = net.op("relu", net.linear(net.layer_norm(x, "language_norm", EPS, **places), "language_inner", languages, **places))
    return net.op("add", x, net.linear(inner, "language_outer", width, **places))


def _adapted(net: Net, x: Value) -> Value:
    """Fewer words by convolutions with gates."""
    config, width = net.config, fixed(x.shape[-1])
    out = config.optional_size("output_hidden_size") or width
    kernel, stride = config.size("adapter_kernel_size", 3), config.size("adapter_stride", 2)
    if max(kernel, stride) >= 1 << 16:
        raise config.refuse("adapter_kernel_size", f"less than {1 << 16}", kernel)
    if out != width:
        x = net.layer_norm(net.linear(x, "adapter", out), "adapter_norm", EPS)
    x = net.op("permute_dims", x, axes=(0, 2, 1))
    for layer in range(config.size("num_adapter_layers", 3, least=0)):
        weight = net.tensor("adapter_convolution", (2 * out, out, kernel), layer=layer)
        x = net.op("convolution", x, weight, net.tensor("adapter_convolution", (2 * out,), "bias", layer=layer), stride=(stride,),
                   padding=(1,))
        x = net.op("glu", x, axis=1)
    return net.op("permute_dims", x, axes=(0, 2, 1))


def pooled(net: Net, x: Value, mask: Value | None) -> Value:
    """The mean over the visible words of a map of them."""
    x = net.linear(x, "projector", net.config.size("classifier_proj_size", 256))
    if mask is None:
        return net.op("mean", x, axis=(1,))
    total = net.op("sum", net.op("where", net.op("expand_dims", mask, axis=(2,)), x, 0.0), axis=(1,))
    return net.op("divide", total, net.cast(net.op("sum", net.cast(mask, DType.INT64), axis=(1,), keepdims=True)))


FAMILY = Family(
    classes={"wav2vec2": "Wav2Vec2"},
    names=NAMES,
    heads=HEADS,
    tasks={"feature-extraction": "Model", SPEECH: "ForCTC", CLASSES: "ForSequenceClassification", FRAMES: "ForAudioFrameClassification"},
    build=partial(build, kind=Kind()),
    prefixes=("wav2vec2.",),
    # What stands for hidden words in training, and what they are to be told from.
    leftovers=("masked_spec_embed", "quantizer.*", "project_hid.*", "project_q.*"),
    # How PyTorch named the parts of a weight before parametrizations.
    legacy=((".parametrizations.weight.original0", ".weight_g"), (".parametrizations.weight.original1", ".weight_v")),
    inputs=(SAMPLES, MASK),
)
HUBERT = replace(FAMILY, classes={"hubert": "Hubert"}, prefixes=("hubert.",),
                 build=partial(build, kind=Kind(adapted=False, extracted=False, optional_norm=True)),
                 tasks={task: ending for task, ending in FAMILY.tasks.items() if task != FRAMES})
