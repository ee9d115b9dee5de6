"""Sentence-transformers' folders: modules.json names a text encoder, a pooling, and maps of the sentence's vector.

Reimers and Gurevych 2019. The encoder's config.json lies in the folder that modules.json gives for it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

from adapters.architectures.huggingface.config import Config, read_json, read_object
from adapters.architectures.huggingface.layers.encoders import taken
from adapters.architectures.huggingface.net import Net
from adapters.architectures.huggingface.quantized.weights import as_floats
from adapters.architectures.huggingface.recognise import OTHERWISE, join_checkpoint, network, plain
from converter.builder import Value
from converter.checkpoint import checkpoint_files, load_parameters
from converter.errors import FormatError, UnsupportedError
from converter.ir import DType
from converter.parameters import ParameterView, places_in
from converter.recognition import Checkpoint, Recognised
from converter.side_files import is_regular

TASK = "sentence-embedding"
PIPELINE = "modules.json"
MOST_MODULES = 1000

# Every mode by its field in older configs, in the order in which their vectors are joined.
MODES = {"pooling_mode_cls_token": "cls", "pooling_mode_max_tokens": "max", "pooling_mode_mean_tokens": "mean",
         "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens", "pooling_mode_weightedmean_tokens": "weightedmean",
         "pooling_mode_lasttoken": "lasttoken"}

ACTIVATIONS = {"torch.nn.modules.activation.Tanh": "tanh", "torch.nn.modules.linear.Identity": None,
               "torch.nn.modules.activation.ReLU": "relu", "torch.nn.modules.activation.GELU": "gelu",
               "torch.nn.modules.activation.SiLU": "silu", "torch.nn.modules.activation.Sigmoid": "sigmoid",
               "torch.nn.modules.activation.LeakyReLU": "leaky_relu", "torch.nn.modules.activation.ELU": "elu",
               "torch.nn.modules.activation.Mish": "mish", "torch.nn.modules.activation.Softplus": "softplus"}

WORDS, SENTENCE = "token_embeddings", "sentence_embedding"
"""What modules read and write: a vector for each word, and one for the sentence."""

PROMPT = "prompt_length"


def is_sentence_folder(folder: Path) -> bool:
    """Whether the folder is sentence-transformers'."""
    return folder.is_dir() and (folder / PIPELINE).is_file()


def sentence_encoder(checkpoint: Checkpoint, take: str | None = None, dequantize: bool = False) -> Recognised:
    """The whole pipeline as one graph: words in, `sentence_embedding` [batch, size] out.

    Where the pooling leaves the prompt out, the graph also takes `prompt_length`, int64[]: the prompt's number of words, those
    that the tokenizer puts before it included; 0 without a prompt.

    Raises:
        UnsupportedError: a module or a setting that is not known.
        FormatError: files that are not well-formed.
    """
    folder, where = checkpoint.path, str(checkpoint.path / PIPELINE)
    steps = _steps(folder, where)
    if not steps or steps[0][0] != "Transformer":
        raise UnsupportedError("the first module is no transformer", where=where, expected="Transformer",
                               received=steps[0][0] if steps else "no module", fix=OTHERWISE)
    if any(kind == "Transformer" for kind, _ in steps[1:]):
        raise UnsupportedError("a second transformer", where=where, expected="one Transformer, the first module", fix=OTHERWISE)
    if not any(kind == "Pooling" for kind, _ in steps):
        raise UnsupportedError("no module pools words", where=where, expected="Pooling", received=", ".join(kind for kind, _ in steps),
                               fix=OTHERWISE)
    base = steps[0][1]
    settings = base / "sentence_bert_config.json"
    if is_regular(settings):
        Config(read_object(settings), str(settings)).only("transformer_task", "feature-extraction")
    store = load_parameters(base, checkpoint.key, allow_pickle=checkpoint.allow_pickle, names=checkpoint.names)
    store = as_floats(plain(store, base), base, dequantize)
    names = (take or f"input_ids,attention_mask,{PROMPT}").split(",")
    net, title = network(base, store, None, ",".join(name for name in names if name.strip() != PROMPT), False, words=True)
    vectors = {WORDS: net.outputs["last_hidden_state"]}
    files = list(checkpoint_files(base))
    places = places_in(store)
    for kind, path in steps[1:]:
        if kind == "Pooling":
            vectors[SENTENCE] = _pool(net, vectors[WORDS], Config(*_config(path)), any(name.strip() == PROMPT for name in names))
            continue
        if kind in ("Dense", "LayerNorm"):
            part = load_parameters(path)
            places |= {f"{path.name}.{name}": (part, name) for name in part.names()}
            files += checkpoint_files(path)
        MODULES[kind](net, vectors, path)
    net.outputs = {SENTENCE: _held(vectors, SENTENCE, where)}
    return join_checkpoint(net, f"{title.partition(' ')[0]} ({TASK})", ParameterView(places) if len(places) > len(store) else store,
                      tuple(files))


def _steps(folder: Path, where: str) -> list[tuple[str, Path]]:
    """Each module's kind and folder, in order."""
    content = read_json(Path(where))
    if not isinstance(content, list) or not all(isinstance(item, dict) for item in content):
        raise FormatError("not a list of modules", where=where, expected="[{\"type\": …, \"path\": …}, …]")
    if len(content) > MOST_MODULES:
        raise FormatError("more modules than any model has", where=where, expected=f"at most {MOST_MODULES}", received=str(len(content)))
    found = []
    for item in content:
        kind, path = item.get("type"), item.get("path", "")
        if not isinstance(kind, str) or not kind.startswith("sentence_transformers."):
            raise UnsupportedError("a module with code of its own", where=where, expected="sentence_transformers.…",
                                   received=repr(kind)[:120], fix=OTHERWISE)
        kind = kind.rpartition(".")[2]
        if kind not in ("Transformer", "Pooling", *MODULES):
            raise UnsupportedError(f"the module {kind!r} is not recognised", where=where,
                                   expected=", ".join(("Transformer", "Pooling", *MODULES)), fix=OTHERWISE)
        if not isinstance(path, str) or PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts or {"\\", "\0"} & set(path):
            raise FormatError("a module outside of the folder", where=where, expected=f"a folder in {folder.name}",
                              received=repr(path)[:120])
        found.append((kind, folder / path))
    return found


def _config(folder: Path) -> tuple[dict[str, Any], str]:
    file = folder / "config.json"
    if not is_regular(file):
        raise FormatError("a module without a config.json", where=str(folder))
    return read_object(file), str(file)


# Pooling -----------------------------------------------------------------------------------------------------------------


def _pool(net: Net, x: Value, config: Config, prompt: bool) -> Value:
    """[batch, time, width] to [batch, width · modes]. `prompt`: whether the graph may take the prompt's length."""
    width = config.get("embedding_dimension", config.get("word_embedding_dimension"))
    if width is not None and width != x.shape[-1]:
        raise FormatError("the pooling is for words of another size", where=config.where, expected=str(x.shape[-1]), received=str(width))
    modes = config.get("pooling_mode")
    if modes is None:
        modes = [mode for name, mode in MODES.items() if config.flag(name, False)] or ["mean"]
    modes = [modes] if isinstance(modes, str) else modes
    known = (*POOLINGS, "weightedmean")
    if not isinstance(modes, list) or not 0 < len(modes) <= len(known) or any(mode not in known for mode in modes):
        raise config.refuse("pooling_mode", f"at most {len(known)} of {', '.join(known)}", modes, fix=OTHERWISE)
    mask = taken(net, "attention_mask")
    if mask is None:
        raise UnsupportedError("pooling needs the attention mask", where="take", fix="take input_ids,attention_mask")
    kept = mask
    if not config.flag("include_prompt", True):
        if prompt:
            kept = _without_prompt(net, mask)
        else:
            net.notes.append(f"the pooling leaves prompts out, whose length ({PROMPT}) is not taken: for sentences without one")
    vectors = [_weighted_mean(net, x, kept, mask) if mode == "weightedmean" else POOLINGS[mode](net, x, kept) for mode in modes]
    unread = config.unread()
    if unread:
        net.notes.append(f"fields of the pooling that are not known, and were not used: {', '.join(unread)}")
    return vectors[0] if len(vectors) == 1 else net.op("concat", *vectors, axis=-1)


def _first(net: Net, x: Value, mask: Value) -> Value:
    """The first word that the mask keeps: with padding on the left it is not at 0."""
    return net.at(x, net.op("argmax", mask, axis=1, keepdims=True))


def _last(net: Net, x: Value, mask: Value) -> Value:
    """The last word that the mask keeps; zeros where it keeps none."""
    place = net.op("multiply", mask, net.op("arange", stop=mask.shape[1], dtype=DType.INT64))
    weights = net.cast(net.op("expand_dims", mask, axis=(2,)))
    return net.at(net.op("multiply", x, weights), net.op("argmax", place, axis=1, keepdims=True))


def _max(net: Net, x: Value, mask: Value) -> Value:
    seen = net.cast(net.op("expand_dims", mask, axis=(2,)), DType.BOOL)
    return net.op("max", net.op("where", seen, x, float("-inf")), axis=(1,))


def _sums(net: Net, x: Value, weights: Value) -> tuple[Value, Value]:
    """The weighted sum of the words [batch, width] and of the weights [batch, 1], in float32 at least."""
    total = net.op("sum", net.cast(net.op("multiply", x, weights), net.wide), axis=(1,))
    return total, net.op("clip", net.op("sum", net.cast(weights, net.wide), axis=(1,)), 1e-9)


def _mean(net: Net, x: Value, mask: Value) -> Value:
    total, count = _sums(net, x, net.cast(net.op("expand_dims", mask, axis=(2,))))
    return net.cast(net.op("divide", total, count))


def _mean_root(net: Net, x: Value, mask: Value) -> Value:
    """The sum over the root of the number of words."""
    total, count = _sums(net, x, net.cast(net.op("expand_dims", mask, axis=(2,))))
    return net.cast(net.op("divide", total, net.op("sqrt", count)))


def _without_prompt(net: Net, mask: Value) -> Value:
    """The mask without the first `prompt_length` of the words that it keeps."""
    length = net.b.input(PROMPT, DType.INT64, ())
    place = net.op("subtract", net.op("arange", stop=mask.shape[1], dtype=DType.INT64), net.op("argmax", mask, axis=1, keepdims=True))
    return net.op("multiply", mask, net.cast(net.op("greater_equal", place, length), DType.INT64))


def _weighted_mean(net: Net, x: Value, mask: Value, padding: Value) -> Value:
    """Muennighoff 2022 (SGPT): Σ i · x_i / Σ i over the words that `mask` keeps, counted from the first that `padding` keeps."""
    place = net.op("subtract", net.op("arange", stop=mask.shape[1], dtype=DType.INT64), net.op("argmax", padding, axis=1, keepdims=True))
    weights = net.cast(net.op("expand_dims", net.op("multiply", mask, net.op("add", place, 1)), axis=(2,)), net.wide)
    total = net.op("sum", net.op("multiply", net.cast(x, net.wide), weights), axis=(1,))
    return net.cast(net.op("divide", total, net.op("clip", net.op("sum", weights, axis=(1,)), 1e-9)))


POOLINGS: dict[str, Callable[[Net, Value, Value], Value]] = {
    "cls": _first, "max": _max, "mean": _mean, "mean_sqrt_len_tokens": _mean_root, "lasttoken": _last}


# Maps of the vector ------------------------------------------------------------------------------------------------------


Vectors = dict[str, Value]


def _held(vectors: Vectors, name: str, where: str) -> Value:
    if name not in vectors:
        raise UnsupportedError(f"a module reads {name!r} before one has written it", where=where, expected=", ".join(vectors),
                               fix=OTHERWISE)
    return vectors[name]


def _dense(net: Net, vectors: Vectors, folder: Path) -> None:
    """activation(x · weightᵀ + bias), of the sentence's vector or of each word's; with `use_residual` x is added."""
    config = Config(*_config(folder))
    known = {WORDS: WORDS, SENTENCE: SENTENCE}
    source = config.choice("module_input_name", known, SENTENCE)
    target = source if config.get("module_output_name") is None else config.choice("module_output_name", known)
    given = x = _held(vectors, source, config.where)
    width, out = config.size("in_features"), config.size("out_features")
    if width != x.shape[-1]:
        raise FormatError("the map is for vectors of another size", where=config.where, expected=str(x.shape[-1]), received=str(width))
    activation = config.choice("activation_function", ACTIVATIONS, "torch.nn.modules.activation.Tanh")
    weight = net.parameter(f"{folder.name}.linear.weight", (out, width))
    bias = net.parameter(f"{folder.name}.linear.bias", (out,)) if config.flag("bias", True) else None
    x = net.op("linear", x, weight, bias)
    x = x if activation is None else net.op(activation, x)
    if config.flag("use_residual", False):
        rest = given if width == out else net.op("linear", given, net.parameter(f"{folder.name}.residual.weight", (out, width)), None)
        x = net.op("add", x, rest)
    vectors[target] = x


def _layer_norm(net: Net, vectors: Vectors, folder: Path) -> None:
    config = Config(*_config(folder))
    x = _held(vectors, SENTENCE, config.where)
    size = config.size("dimension")
    weight, bias = (net.parameter(f"{folder.name}.norm.{name}", (size,)) for name in ("weight", "bias"))
    vectors[SENTENCE] = net.op("layer_norm", x, weight, bias, normalized_shape=(size,), eps=1e-5)


def _normalize(net: Net, vectors: Vectors, folder: Path) -> None:
    """x / max(‖x‖, 1e-12)."""
    if is_regular(folder / "config.json"):
        config = Config(*_config(folder))
        config.only("module_input_name", "sentence_embedding")
        config.only("module_output_name", "sentence_embedding")
    x = _held(vectors, SENTENCE, str(folder))
    vectors[SENTENCE] = net.op("divide", x, net.op("clip", net.op("vector_norm", x, axis=(-1,), keepdims=True), 1e-12))


def _dropout(net: Net, vectors: Vectors, folder: Path) -> None:
    pass


MODULES: dict[str, Callable[[Net, Vectors, Path], None]] = {
    "Dense": _dense, "LayerNorm": _layer_norm, "Normalize": _normalize, "Dropout": _dropout}
