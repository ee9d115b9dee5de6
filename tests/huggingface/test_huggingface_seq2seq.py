"""Encoder-decoder models of text recognised by their config.json equal transformers' own modules, with and without a cache."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner

import converter
from adapters.architectures.huggingface.layers.distances import distance_buckets
from adapters.architectures.huggingface.models.bart import counted_sines
from converter import reference
from converter.cli.main import cli
from converter.dims import evaluate
from converter.errors import RunError
from converter.ir import DType, Model
from tests.huggingface import test_huggingface_decoders as decoders
from tests.huggingface import test_huggingface_speech as speech
from tests.huggingface_support import (
    InFloat64,
    close,
    compare,
    from_folder,
    in_float64,
    randomised,
    run_module,
    same_parameters,
    save,
    tokens,
    transformers,
)

VOCABULARY, END = 40, 2
T5 = {"vocab_size": VOCABULARY, "d_model": 16, "d_kv": 6, "d_ff": 24, "num_layers": 2, "num_decoder_layers": 3, "num_heads": 4,
      "relative_attention_num_buckets": 8, "relative_attention_max_distance": 12, "decoder_start_token_id": 0, "eos_token_id": END}
BART = {"vocab_size": VOCABULARY, "d_model": 16, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4,
        "decoder_attention_heads": 2, "encoder_ffn_dim": 24, "decoder_ffn_dim": 20, "max_position_embeddings": 32, "pad_token_id": 0,
        "eos_token_id": END}
OWN = {"tie_word_embeddings": False, "scale_embedding": True, "activation_function": "relu"}
STACK = {"vocab_size": VOCABULARY, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
         "head_dim": 6, "intermediate_size": 24, "max_position_embeddings": 64, "sliding_window": 3, "query_pre_attn_scalar": 7}
UNBOUNDED = {"attn_logit_softcapping": None, "final_logit_softcapping": None}
CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "t5gemma": ("T5Gemma", {"encoder": STACK, "decoder": {**STACK, "num_hidden_layers": 3, "hidden_size": 64, "attention_bias": True},
                            "vocab_size": VOCABULARY}),
    "t5gemma unbounded": ("T5Gemma", {"encoder": {**STACK, **UNBOUNDED}, "decoder": {**STACK, **UNBOUNDED, "layer_types": [
        "full_attention", "sliding_attention"]}, "tie_word_embeddings": False, "vocab_size": VOCABULARY}),
    "t5": ("T5", T5),
    "t5 1.1": ("T5", {**T5, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}),
    "t5 gated": ("T5", {**T5, "feed_forward_proj": "gated-silu", "relative_attention_num_buckets": 7}),
    "mt5": ("MT5", {**T5, "num_decoder_layers": None}),
    "umt5": ("UMT5", {**T5, "tie_word_embeddings": False}),
    "bart": ("Bart", BART),
    "bart with tables of its own": ("Bart", {**BART, **OWN}),
    "mbart": ("MBart", {**BART, "decoder_layers": 3}),
    "mbart with tables of its own": ("MBart", {**BART, **OWN}),
    "plbart": ("PLBart", {**BART, "scale_embedding": True}),
    "marian": ("Marian", {**BART, "decoder_start_token_id": 0, "scale_embedding": True}),
    "marian with tables of its own": ("Marian", {**BART, "decoder_start_token_id": 0, "share_encoder_decoder_embeddings": False,
                                                 "decoder_vocab_size": 44}),
    "pegasus": ("Pegasus", {**BART, "decoder_start_token_id": 0}),
    "m2m_100": ("M2M100", {**BART, "pad_token_id": 1}),
    "blenderbot": ("Blenderbot", {**BART, "decoder_start_token_id": 1, "decoder_layers": 3}),
    "blenderbot-small": ("BlenderbotSmall", {**BART, "decoder_start_token_id": 1, **OWN}),
}
BART_HEADS = ("Model", "ForConditionalGeneration", "ForSequenceClassification", "ForQuestionAnswering", "ForCausalLM")
T5_HEADS = ("Model", "ForConditionalGeneration", "EncoderModel", "ForSequenceClassification", "ForTokenClassification",
            "ForQuestionAnswering")
ONLY_GENERATES = ("Model", "ForConditionalGeneration", "ForCausalLM")
HEADS = {"T5Gemma": T5_HEADS[:3], "T5": T5_HEADS, "MT5": T5_HEADS, "UMT5": T5_HEADS, "Bart": BART_HEADS, "MBart": BART_HEADS,
         "PLBart": ("ForConditionalGeneration", "ForSequenceClassification", "ForCausalLM"), "Marian": ("Model", "MTModel"),
         "Pegasus": ONLY_GENERATES, "M2M100": ONLY_GENERATES[:2], "Blenderbot": ONLY_GENERATES, "BlenderbotSmall": ONLY_GENERATES}
GENERATORS = ("t5gemma", "t5", "t5 1.1", "mt5", "bart", "mbart")
# Of one code with BART and T5: their caches are tried, and their longest heads.
KIN = ("umt5", "m2m_100", "blenderbot-small", "marian", "marian with tables of its own", "pegasus")
# Whose other heads are those of others here.
ALIKE = ("umt5", "plbart", "marian with tables of its own", "pegasus", "m2m_100", "blenderbot", "blenderbot-small")
SIZES = ((1, 1, 1, "none"), (3, 7, 5, "right"), (2, 30, 20, "none"), (3, 5, 9, "left"))


def made(name: str, head: str, **changes: Any) -> Any:
    stem, fields = CONFIGS[name]
    if stem == "T5Gemma":
        fields = {**fields, "is_encoder_decoder": head != "EncoderModel", "attn_implementation": "eager"}
        fields = {**fields, **{side: transformers.T5GemmaModuleConfig(**fields[side]) for side in ("encoder", "decoder")}}
    labels = {"num_labels": 2 if head == "ForQuestionAnswering" else 3}
    config = getattr(transformers, f"{stem}Config")(**{**fields, **labels, **changes})
    head = "MTModel" if (stem, head) == ("Marian", "ForConditionalGeneration") else head
    module: Any = randomised(getattr(transformers, stem + head)(config))
    for part in module.modules():
        if hasattr(part, "create_weight"):
            part.weight.copy_(part.create_weight())  # which files need not hold
        if hasattr(part, "make_weights"):
            # Rounded correctly, where the library's differ in the last bit.
            table = torch.from_numpy(counted_sines(*part.weights.shape, config.pad_token_id))
            assert torch.allclose(part.weights, table, rtol=0, atol=1e-6)
            part.weights.copy_(table)
    if hasattr(module, "final_logits_bias"):
        module.final_logits_bias.copy_(torch.linspace(-1, 1, module.final_logits_bias.shape[-1]))
    return module


def given(model: Model, batch: int, source: int, time: int, padding: str, pad: int = 0) -> dict[str, np.ndarray[Any, Any]]:
    """Both sides of a text; each source has one end."""
    names = {port.name for port in model.graph.inputs}
    found = tokens(batch, source, VOCABULARY, padding=padding, pad=pad)
    found["input_ids"][:, source // 2] = END
    if "decoder_input_ids" in names:
        found["decoder_input_ids"] = tokens(batch, time, VOCABULARY, seed=1)["input_ids"]
    if "decoder_attention_mask" in names:
        found["decoder_attention_mask"] = tokens(batch, time, VOCABULARY, padding=padding)["attention_mask"]
    return {name: value for name, value in found.items() if name in names}


@pytest.mark.parametrize(("name", "head"), [
    pytest.param(name, head, marks=pytest.mark.long if name in ALIKE and "Generation" not in head else ())
    for name, (stem, _) in CONFIGS.items() for head in HEADS[stem]])
def test_equals_the_module(name: str, head: str, tmp_path: Path) -> None:
    module = made(name, head)
    model = from_folder(save(module, tmp_path))
    assert model.graph.name == CONFIGS[name][0] + head
    same_parameters(model, module, tmp_path, renamed=CONFIGS[name][0] == "Marian")  # whose files leave out the table of positions
    assert not [note for note in model.metadata.get("notes", ()) if "not known" in note]
    for batch, source, time, padding in SIZES:
        if CONFIGS[name][0] in ("MBart", "PLBart") and batch == 1 and head in ("ForSequenceClassification", "ForQuestionAnswering"):
            continue  # the library's own code takes more than one text there
        pad = CONFIGS[name][1].get("pad_token_id", 0)
        compare(model, module, given(model, batch, source, time, padding, pad), what=name + head, extra={"use_cache": False}
                if head not in ("EncoderModel", "ForTokenClassification") else None)


DRAWN: dict[str, list[Any]] = {
    "d_model": [16, 24], "encoder_layers": [1, 2], "decoder_layers": [1, 3], "encoder_attention_heads": [1, 2, 4],
    "decoder_attention_heads": [1, 2, 4], "encoder_ffn_dim": [20, 24], "decoder_ffn_dim": [20, 28], "pad_token_id": [0, 1, 3],
    "activation_function": ["gelu", "relu", "silu", "gelu_new"], "scale_embedding": [False, True], "tie_word_embeddings": [True, False],
    "max_position_embeddings": [32, 40]}


@pytest.mark.long
@pytest.mark.parametrize("name", [name for name in CONFIGS if "t5" not in name])
def test_configs_drawn_from_all_fields(name: str, tmp_path: Path) -> None:
    heads = HEADS[CONFIGS[name][0]]
    for seed in range(10):
        draw, head = random.Random(f"{name} {seed}"), heads[seed % len(heads)]
        fields = {field: draw.choice(values) for field, values in DRAWN.items()}
        module = made(name, head, **fields)
        model = from_folder(save(module, tmp_path / str(seed)))
        for batch, source, time, padding in ((3, 7, 5, "right"), (2, 30, 20, "none"), (3, 5, 9, "left")):
            inputs = given(model, batch, source, time, padding, fields["pad_token_id"])
            compare(model, module, inputs, what=f"{name}{head} {fields}", extra={"use_cache": False}, seen_only=head == "ForCausalLM")


T5_DRAWN: dict[str, list[Any]] = {
    "d_model": [16, 24], "d_kv": [4, 6], "d_ff": [20, 24], "num_layers": [1, 2], "num_decoder_layers": [1, 3, None], "num_heads": [1, 2, 4],
    "relative_attention_num_buckets": [7, 8, 16], "relative_attention_max_distance": [12, 30], "layer_norm_epsilon": [1e-6, 1e-2],
    "feed_forward_proj": ["relu", "gated-gelu", "gated-silu", "gelu"], "tie_word_embeddings": [True, False]}


@pytest.mark.long
@pytest.mark.parametrize("name", ["t5", "mt5", "umt5"])
def test_t5_configs_drawn_from_all_fields(name: str, tmp_path: Path) -> None:
    for seed in range(10):
        draw, head = random.Random(f"{name} {seed}"), T5_HEADS[seed % len(T5_HEADS)]
        fields = {field: draw.choice(values) for field, values in T5_DRAWN.items()}
        module = made(name, head, **fields)
        model = from_folder(save(module, tmp_path / str(seed)))
        for batch, source, time, padding in ((3, 7, 5, "right"), (2, 30, 20, "none")):
            compare(model, module, given(model, batch, source, time, padding), what=f"{name}{head} {fields}",
                    extra={"use_cache": False} if "Encoder" not in head and "Token" not in head else None)


@pytest.mark.parametrize("tie", [True, False])
def test_scores_by_a_table_of_their_own(tie: bool, tmp_path: Path) -> None:
    """The library scales UMT5's scores whether the file has such a table or not."""
    from safetensors.torch import load_file, save_file

    folder = save(made("umt5", "ForConditionalGeneration"), tmp_path, tie_word_embeddings=tie)
    held = load_file(folder / "model.safetensors")
    save_file({**held, "lm_head.weight": torch.linspace(-1, 1, VOCABULARY * 16).reshape(VOCABULARY, 16)}, folder / "model.safetensors",
              metadata={"format": "pt"})
    module = transformers.UMT5ForConditionalGeneration.from_pretrained(folder).eval()
    model = from_folder(folder)
    compare(model, module, given(model, 2, 7, 5, "right"), extra={"use_cache": False})


@pytest.mark.parametrize("name", GENERATORS)
def test_a_mask_of_the_target(name: str, tmp_path: Path) -> None:
    """Padding on the left too: what sees nothing is compared for T5, whose masks are numbers."""
    module = made(name, "ForConditionalGeneration")
    take = "input_ids,attention_mask,decoder_input_ids,decoder_attention_mask"
    model = from_folder(save(module, tmp_path), take=take)
    for batch, source, time, padding in ((3, 7, 5, "right"), (3, 6, 9, "left")):
        inputs = given(model, batch, source, time, padding)
        theirs = run_module(module, {**inputs, "use_cache": False}, ("logits",))["logits"]
        ours = reference.run(model, inputs, float_dtype="float64")["logits"]
        shown = inputs["decoder_attention_mask"].astype(bool)
        keep = np.ones_like(shown) if CONFIGS[name][0] in ("T5", "MT5") else shown
        close(ours[keep], theirs[keep], f"{name} {padding}")


@pytest.mark.parametrize("name", GENERATORS)
def test_without_masks(name: str, tmp_path: Path) -> None:
    module = made(name, "Model")
    model = from_folder(save(module, tmp_path), take="input_ids,decoder_input_ids")
    compare(model, module, given(model, 2, 9, 4, "none"), what=name)


@pytest.mark.parametrize(("padding", "name"), [*((padding, name) for padding in ("none", "right") for name in GENERATORS),
                                               *(("right", name) for name in KIN[:3]),
                                               *(pytest.param("right", name, marks=pytest.mark.long) for name in KIN[3:])])
def test_the_cache(name: str, padding: str, tmp_path: Path) -> None:
    """The encoder's graph once, then the decoder's in three parts, give what the module gives with its own cache."""
    module = made(name, "ForConditionalGeneration")
    folder = save(module, tmp_path)
    encoder, decoder = from_folder(folder, task="encoder", cache=True), from_folder(folder, cache=True)
    source = tokens(2, 7, VOCABULARY, padding=padding, pad=CONFIGS[name][1].get("pad_token_id", 0))
    target = tokens(2, 9, VOCABULARY, seed=1)["input_ids"]
    whole = run_module(module, {**source, "decoder_input_ids": target}, ("logits", "encoder_last_hidden_state"))
    kept = reference.run(encoder, source, float_dtype="float64")
    close(kept.pop("last_hidden_state"), whole["encoder_last_hidden_state"], name)
    kept = {key.replace("present", "past_key_values"): value for key, value in kept.items()}
    ports = {port.name: port.spec for port in decoder.graph.inputs}
    past: dict[str, Any] = {port: np.zeros((2, int(spec.shape[1]), 0, int(spec.shape[3])), np.float64)  # type: ignore[arg-type]
                            for port, spec in ports.items() if ".decoder." in port}
    assert set(ports) == {"decoder_input_ids", "attention_mask", *kept, *past}
    cache = None
    with in_float64(module), InFloat64():
        for start, stop in ((0, 4), (4, 5), (5, 9)):
            inputs = {"decoder_input_ids": target[:, start:stop], "attention_mask": source["attention_mask"]}
            found = reference.run_graph(decoder.graph, decoder.parameters, {**inputs, **kept, **past},
                                        {"batch": 2, "time": stop - start, "past": start, "source": 7}, float_dtype=DType.FLOAT64)
            close(found["logits"], whole["logits"][:, start:stop], f"{name} {start}:{stop}")
            theirs = module(**{key: torch.from_numpy(value) for key, value in {**inputs, "input_ids": source["input_ids"]}.items()},
                            past_key_values=cache, use_cache=True)
            cache = theirs.past_key_values
            close(found["logits"], theirs.logits.numpy(), f"{name} {start}:{stop} with the module's cache")
            past = {key.replace("present", "past_key_values"): value for key, value in found.items() if key.startswith("present.")}


@pytest.mark.parametrize("name", ["bart", "mbart"])
def test_the_cache_of_a_decoder_alone(name: str, tmp_path: Path) -> None:
    module = made(name, "ForCausalLM", encoder_layers=2, decoder_layers=2)
    model = from_folder(save(module, tmp_path), cache=True)
    whole = tokens(2, 6, VOCABULARY)
    truth = run_module(module, {**whole, "use_cache": False}, ("logits",))["logits"]
    ours: dict[str, Any] = {port.name: np.zeros((2, 2, 0, 8)) for port in model.graph.inputs if port.name.startswith("past")}
    for start, stop in ((0, 4), (4, 6)):
        inputs = {"input_ids": whole["input_ids"][:, start:stop], "attention_mask": whole["attention_mask"][:, :stop]}
        found = reference.run_graph(model.graph, model.parameters, {**inputs, **ours},
                                    {"batch": 2, "time": stop - start, "past": start}, float_dtype=DType.FLOAT64)
        close(found["logits"], truth[:, start:stop], f"{name} {start}:{stop}")
        ours = {key.replace("present", "past_key_values"): value for key, value in found.items() if key.startswith("present.")}


@pytest.mark.parametrize("runtime", ["numpy", "onnxruntime"])
@pytest.mark.parametrize("name", GENERATORS)
def test_runtimes(name: str, runtime: str, tmp_path: Path) -> None:
    """Without a cache, and with one that is empty."""
    module = made(name, "ForConditionalGeneration")
    folder = save(module, tmp_path)
    model = from_folder(folder)
    inputs = given(model, 2, 6, 5, "right")
    truth = run_module(module, inputs, ("logits",))["logits"]
    ours = converter.session(model, runtime).run(inputs)["logits"]
    assert np.abs(ours - truth).max() < 1e-4 * np.abs(truth).max()
    encoder, decoder = from_folder(folder, task="encoder", cache=True), from_folder(folder, cache=True)
    kept = converter.session(encoder, runtime).run({key: inputs[key] for key in ("input_ids", "attention_mask")})
    fed = {key.replace("present", "past_key_values"): value for key, value in kept.items()}
    fed.update({port.name: np.zeros((2, int(port.spec.shape[1]), 0, int(port.spec.shape[3])), np.float32)  # type: ignore[arg-type]
                for port in decoder.graph.inputs if ".decoder." in port.name})
    del fed["last_hidden_state"]
    inputs.pop("input_ids")
    ours = converter.session(decoder, runtime).run({**inputs, **fed})["logits"]
    assert np.abs(ours - truth).max() < 1e-4 * np.abs(truth).max()


@pytest.mark.parametrize("runtime", ["numpy", "onnxruntime"])
@pytest.mark.parametrize("name", GENERATORS)
def test_a_text_word_by_word(name: str, runtime: str, tmp_path: Path) -> None:
    """Given words, one at a time with the cache, score as they do when the module sees all of them at once."""
    module = made(name, "ForConditionalGeneration")
    folder = save(module, tmp_path)
    source, words = tokens(2, 7, VOCABULARY, padding="right"), tokens(2, 12, VOCABULARY, seed=1)["input_ids"]
    truth = run_module(module, {**source, "decoder_input_ids": words, "use_cache": False}, ("logits",))["logits"]
    kept = converter.session(from_folder(folder, task="encoder", cache=True), runtime).run(source)
    decoder = from_folder(folder, cache=True)
    session = converter.session(decoder, runtime)
    state = {key.replace("present", "past_key_values"): value for key, value in kept.items() if key.startswith("present.")}
    state.update({port.name: np.zeros((2, int(port.spec.shape[1]), 0, int(port.spec.shape[3])), np.float32)  # type: ignore[arg-type]
                  for port in decoder.graph.inputs if ".decoder." in port.name})
    for step in range(words.shape[1]):
        found = session.run({"decoder_input_ids": words[:, step:step + 1], "attention_mask": source["attention_mask"], **state})
        state.update({key.replace("present", "past_key_values"): value for key, value in found.items() if key.startswith("present.")})
        error = np.abs(found["logits"][:, 0] - truth[:, step]).max()
        assert error < 1e-4 * np.abs(truth).max(), f"word {step}: {error}"


@pytest.mark.parametrize("runtime", ["reference", "numpy", "onnxruntime"])
@pytest.mark.parametrize("name", ["bart", "whisper", "gpt2", "opt", "gpt_neo", "gpt_bigcode", "biogpt", "falcon with biases by place"])
def test_words_beyond_the_positions_are_refused(name: str, runtime: str, tmp_path: Path) -> None:
    """The ranges of past and time allow a sum beyond the table of positions; no runtime takes a row that is not there."""
    model = from_folder(save(positioned(name), tmp_path), cache=True, take=None if name != "opt" else "input_ids")
    sizes = {"batch": 1, "time": 3, "past": model.graph.dims["past"].max or 0, "source": 2}
    assert model.graph.dims["past"].max in (15, 31, 63)
    inputs = {port.name: np.ones([evaluate(size, sizes) for size in port.spec.shape], port.spec.dtype.numpy) for port in model.graph.inputs}
    with pytest.raises(RunError):
        converter.session(model, runtime).run(inputs)


@pytest.mark.parametrize("name", ["mt5", "mbart"])
def test_a_class_says_the_model_type(name: str, tmp_path: Path) -> None:
    """Types that share a file with another one, which computes otherwise."""
    module = made(name, "ForConditionalGeneration")
    model = from_folder(save(module, tmp_path, model_type=None))
    compare(model, module, given(model, 2, 5, 4, "right"), what=name)


def positioned(name: str) -> Any:
    """A generator with a table of positions."""
    if name == "whisper":
        return speech.whisper("ForConditionalGeneration")
    return made(name, "ForConditionalGeneration") if name == "bart" else decoders.made(name, "ForCausalLM")


# The command line --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["t5", "bart", "whisper"])
def test_the_command_line(name: str, tmp_path: Path) -> None:
    """A folder to JSON, that to ONNX, and the proof of both: whole, and as an encoder and a decoder with a cache."""
    module = speech.whisper("ForConditionalGeneration") if name == "whisper" else made(name, "ForConditionalGeneration")
    folder, run = str(save(module, tmp_path / "model")), CliRunner()
    for part, options in (("whole", []), ("encoder", ["--task", "encoder", "--cache"]), ("decoder", ["--cache"])):
        files = [str(tmp_path / f"{part}.{kind}") for kind in ("json", "onnx")]
        for command in (["torch-to-json", folder, "-o", files[0], *options], ["json-to-onnx", files[0], "-o", files[1]],
                        ["verify", *files, "--cases", "5"], ["verify", files[0], "--source", folder, "--cases", "1"]):
            done = run.invoke(cli, [*command, "--quiet"])
            assert done.exit_code == 0, (command, done.output)


BLOCKED = """
import sys
for name in ("torch", "transformers", "safetensors", "tokenizers"):
    sys.modules[name] = None
from converter.cli.main import cli
cli(["torch-to-json", *sys.argv[1:], "--quiet"])
"""


@pytest.mark.parametrize("name", ["t5", "wav2vec2"])
def test_neither_torch_nor_transformers_is_needed(name: str, tmp_path: Path) -> None:
    module = speech.wav2vec2("ForCTC") if name == "wav2vec2" else made(name, "ForConditionalGeneration")
    save(module, tmp_path / "model")
    command = [sys.executable, "-c", BLOCKED, str(tmp_path / "model"), "-o", str(tmp_path / "model.json")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    model = converter.load(tmp_path / "model.json")
    compare(model, module, speech.samples(2, 60) if name == "wav2vec2" else given(model, 2, 6, 4, "right"))


# Distances ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("both", [True, False])
def test_the_buckets_are_the_librarys(both: bool) -> None:
    bucket = transformers.models.t5.modeling_t5.T5Attention._relative_position_bucket
    for buckets in (4, 7, 8, 16, 31, 32, 64, 320):
        for farthest in (5, 20, 64, 100, 127, 128, 129, 512, 800):
            if farthest <= buckets // (4 if both else 2):
                continue
            theirs = bucket(torch.arange(-farthest - 3, farthest + 4), both, buckets, farthest).numpy()
            ours = distance_buckets(buckets, farthest, both=both)
            assert np.array_equal(np.pad(ours, 3, "edge"), theirs), (buckets, farthest)


def test_distances_beyond_the_farthest(tmp_path: Path) -> None:
    module = made("t5", "Model", relative_attention_num_buckets=32, relative_attention_max_distance=128)
    model = from_folder(save(module, tmp_path))
    compare(model, module, given(model, 1, 300, 280, "none"))
