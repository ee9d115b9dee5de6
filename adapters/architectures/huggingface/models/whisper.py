"""Whisper (Radford et al. 2022): speech as log-mel features of a fixed length, words after words of text."""

from __future__ import annotations

from adapters.architectures.huggingface.config import Config
from adapters.architectures.huggingface.family import CACHED, Family, Inputs
from adapters.architectures.huggingface.layers.decoders import Sequence, rows_of
from adapters.architectures.huggingface.layers.encoders import taken
from adapters.architectures.huggingface.layers.seq2seq import TARGET, TARGET_MASK, Memory, decoder_outputs, encoder_outputs, memory, target
from adapters.architectures.huggingface.models.bart import CROSS, EPS, LAYERS, Stack, decoder_layer, encoder_layer, projection, stacks
from adapters.architectures.huggingface.net import Net
from converter.builder import Value

NAMES = {
    **LAYERS,
    "first": "encoder.conv1",
    "second": "encoder.conv2",
    "positions": "{stack}.embed_positions",
    "words": "decoder.embed_tokens",
}

HEADS = {"lm_head": "proj_out", "layer_weights": "layer_weights", "projector": "projector", "classifier": "classifier"}

FEATURES, PLACES = "input_features", "decoder_position_ids"
RECOGNITION = "automatic-speech-recognition"
OPTIONAL = (TARGET_MASK, PLACES)


def build(net: Net, task: str) -> None:
    config = net.config
    # Scores are computed from words as they are, whatever this field says.
    config.get("scale_embedding")
    encoder, decoder, heads = stacks(config, before=True, key_bias=False)
    width, longest = config.size("d_model"), config.size("max_target_positions")
    project = projection(net, decoder, width)
    source = config.size("max_source_positions")
    for name in ("classifier_proj_size", "use_weighted_layer_sum", "vocab_size"):
        config.get(name)
    net.leaves(*(f"{HEADS[role]}*" for role in HEADS if role not in _used(task, config)))
    if task == RECOGNITION and net.cache:
        net.leaves("encoder.*", *(f"decoder.layers.*.{CROSS}.{part}_proj.*" for part in "kv"))
        words = target(net, longest, heads, positions=PLACES)
        x = _decode(net, decoder, words, longest, memory(net, None, heads, project, source))
        decoder_outputs(net, "logits", _scores(net, x), words, None)
        return
    states = _encode(net, encoder, source)
    if task in ("encoder", "audio-classification"):
        net.leaves("decoder.*")
        if task == "encoder":
            encoder_outputs(net, states[-1], heads, project)
        else:
            net.output("logits", net.linear(_pooled(net, states), "classifier", config.labels()))
        return
    words = target(net, longest, heads, positions=PLACES)
    x = _decode(net, decoder, words, longest, memory(net, states[-1], heads, project))
    if task == RECOGNITION:
        decoder_outputs(net, "logits", _scores(net, x), words, states[-1])
    else:
        decoder_outputs(net, "last_hidden_state", x, words, states[-1])


def _used(task: str, config: Config) -> tuple[str, ...]:
    """The roles of a task's head."""
    if task == "audio-classification":
        return ("projector", "classifier", *(["layer_weights"] if config.flag("use_weighted_layer_sum", False) else []))
    return ("lm_head",) if task == RECOGNITION else ()


def _encode(net: Net, stack: Stack, source: int) -> list[Value]:
    """The words of each layer, before the first, and those of the last normalised: [batch, source, width] each."""
    config = net.config
    width, bins = config.size("d_model"), config.size("num_mel_bins")
    net.dim("batch", None)
    x = net.b.input(FEATURES, net.dtype, ["batch", bins, 2 * source])
    for role, stride in (("first", 1), ("second", 2)):
        weight, bias = net.tensor(role, (width, x.shape[1], 3)), net.tensor(role, (width,), "bias")
        x = net.op("gelu", net.op("convolution", x, weight, bias, stride=(stride,), padding=(1,)))
    x = net.op("permute_dims", x, axes=(0, 2, 1))
    states = [net.op("add", x, net.tensor("positions", (source, width), stack=stack.name), name="encoder_embeddings")]
    for layer in range(stack.layers):
        states.append(encoder_layer(net, stack, states[-1], None, layer))
    states[-1] = net.layer_norm(states[-1], "norm", EPS, stack=stack.name)
    return states


def _decode(net: Net, stack: Stack, words: Sequence, longest: int, kept: Memory) -> Value:
    """[batch, time, width]."""
    width = net.config.size("d_model")
    x = net.embedding(words.ids, "words", net.config.size("vocab_size"), width)
    table, given = net.tensor("positions", (longest, width), stack=stack.name), taken(net, PLACES)
    places = (rows_of(net, table, words.past, words.total, "decoder_positions") if given is None
              else net.op("embedding", given, table))
    x = net.op("add", x, places, name="decoder_embeddings")
    for layer in range(stack.layers):
        x = decoder_layer(net, stack, x, words, kept, None, layer)
    return net.layer_norm(x, "norm", EPS, stack=stack.name)


def _scores(net: Net, x: Value) -> Value:
    name = net.name("words")
    table = Value(name, net.b.specs[name])
    tied = net.config.flag("tie_word_embeddings", True)
    return net.op("linear", x, net.tied("lm_head", table) if tied else net.tensor("lm_head", table.shape))


def _pooled(net: Net, states: list[Value]) -> Value:
    """The mean over time of a map of the last words, or of all layers' words by learned weights."""
    x = weighted(net, states) if net.config.flag("use_weighted_layer_sum", False) else states[-1]
    return net.op("mean", net.linear(x, "projector", net.config.size("classifier_proj_size", 256)), axis=(1,))


def weighted(net: Net, states: list[Value]) -> Value:
    """The sum of all layers' words, each by its share."""
    shares = net.op("softmax", net.tensor("layer_weights", (len(states),), ""), axis=-1)
    stacked = net.op("stack", *states, axis=1)
    shares = net.op("reshape", shares, shape=(len(states), 1, 1))
    return net.op("sum", net.op("multiply", stacked, shares), axis=(1,), name="weighted")


FAMILY = Family(
    classes={"whisper": "Whisper"},
    names=NAMES,
    heads=HEADS,
    tasks={"feature-extraction": "Model", RECOGNITION: "ForConditionalGeneration", "audio-classification": "ForAudioClassification",
           "encoder": "Encoder"},
    build=build,
    prefixes=("model.",),
    renamed={"num_hidden_layers": "encoder_layers"},
    inputs=(FEATURES,),
    by_task={
        **{task: Inputs((FEATURES, TARGET), OPTIONAL) for task in ("feature-extraction", RECOGNITION)},
        RECOGNITION + CACHED: Inputs((TARGET,), OPTIONAL),
        "encoder" + CACHED: Inputs((FEATURES,)),
    },
)
