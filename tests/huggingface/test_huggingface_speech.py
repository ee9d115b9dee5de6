"""Speech models recognised by their config.json equal transformers' own modules, with and without a cache."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import converter
from converter import reference
from converter.errors import ConverterError, ParameterError, RunError
from converter.ir import DType
from tests.huggingface_support import (
    InFloat64,
    change_config,
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

VOCABULARY, BINS, SOURCE = 40, 6, 10
WHISPER = {"vocab_size": VOCABULARY, "num_mel_bins": BINS, "d_model": 16, "encoder_layers": 2, "decoder_layers": 3,
           "encoder_attention_heads": 4, "decoder_attention_heads": 2, "encoder_ffn_dim": 24, "decoder_ffn_dim": 20,
           "max_source_positions": SOURCE, "max_target_positions": 16, "pad_token_id": 0, "eos_token_id": 2, "bos_token_id": 1,
           "decoder_start_token_id": 1, "classifier_proj_size": 7}
OTHER = {**WHISPER, "tie_word_embeddings": False, "use_weighted_layer_sum": True, "scale_embedding": True,
         "activation_function": "relu"}
SPEECH = {"vocab_size": 30, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 24,
          "conv_dim": [8, 12, 10], "conv_stride": [3, 2, 2], "conv_kernel": [5, 3, 2], "num_conv_pos_embeddings": 6,
          "num_conv_pos_embedding_groups": 4, "classifier_proj_size": 7}
STABLE = {**SPEECH, "feat_extract_norm": "layer", "conv_bias": True, "do_stable_layer_norm": True, "num_conv_pos_embeddings": 5,
          "feat_extract_activation": "relu", "hidden_act": "gelu_new"}
CONFIGS: dict[str, dict[str, Any]] = {
    "group": SPEECH,
    "layer": STABLE,
    "weighted": {**SPEECH, "use_weighted_layer_sum": True, "mask_time_prob": 0.0},
    "weighted, norms before": {**STABLE, "use_weighted_layer_sum": True},
    "languages": {**STABLE, "adapter_attn_dim": 5},
    "adapter": {**SPEECH, "add_adapter": True, "output_hidden_size": 14, "num_adapter_layers": 2},
    "adapter of the same width": {**STABLE, "add_adapter": True, "num_adapter_layers": 1, "adapter_stride": 3},
}
HEADS = ("Model", "ForCTC", "ForSequenceClassification", "ForAudioFrameClassification")


def whisper(head: str, **fields: Any) -> Any:
    return randomised(getattr(transformers, f"Whisper{head}")(transformers.WhisperConfig(**{**WHISPER, "num_labels": 3, **fields})))


def wav2vec2(head: str, **fields: Any) -> Any:
    return randomised(getattr(transformers, f"Wav2Vec2{head}")(transformers.Wav2Vec2Config(**{**SPEECH, "num_labels": 3, **fields})))


def features(batch: int) -> dict[str, np.ndarray[Any, Any]]:
    return {"input_features": np.random.default_rng(batch).standard_normal((batch, BINS, 2 * SOURCE)).astype(np.float32)}


def samples(batch: int, count: int, cut: int = 0) -> dict[str, np.ndarray[Any, Any]]:
    """Samples, and a mask that leaves off `cut` of them in the second row, twice as many in the third, …"""
    mask = np.ones((batch, count), np.int64)
    for row in range(batch):
        mask[row, count - cut * row:] = 0
    return {"input_values": np.random.default_rng(count).standard_normal((batch, count)).astype(np.float32), "attention_mask": mask}


# Whisper -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("head", ["Model", "ForConditionalGeneration", "ForAudioClassification"])
@pytest.mark.parametrize("fields", [WHISPER, OTHER], ids=["plain", "other"])
def test_whisper_equals_the_module(head: str, fields: dict[str, Any], tmp_path: Path) -> None:
    module = whisper(head, **fields)
    model = from_folder(save(module, tmp_path))
    assert model.graph.name == f"Whisper{head}"
    same_parameters(model, module, tmp_path)
    assert "notes" not in model.metadata
    for batch, time in ((1, 1), (3, 7), (2, 16)):
        inputs = features(batch)
        if head != "ForAudioClassification":
            inputs["decoder_input_ids"] = tokens(batch, time, VOCABULARY)["input_ids"]
        compare(model, module, inputs, what=head)


def test_whispers_masks_and_positions(tmp_path: Path) -> None:
    """Targets with padding on the left, and the positions that belong to them."""
    module = whisper("ForConditionalGeneration")
    take = "input_features,decoder_input_ids,decoder_attention_mask,decoder_position_ids"
    model = from_folder(save(module, tmp_path), take=take)
    words = tokens(3, 6, VOCABULARY, padding="left")
    mask = words["attention_mask"]
    inputs = {**features(3), "decoder_input_ids": words["input_ids"], "decoder_attention_mask": mask,
              "decoder_position_ids": np.maximum(mask.cumsum(1) - 1, 0)}
    theirs = run_module(module, inputs, ("logits",))["logits"]
    close(reference.run(model, inputs, float_dtype="float64")["logits"][mask == 1], theirs[mask == 1], "logits")


def test_whispers_cache(tmp_path: Path) -> None:
    """The encoder's graph once, then the decoder's in three parts, give what the module gives with its own cache."""
    module = whisper("ForConditionalGeneration")
    folder = save(module, tmp_path)
    encoder, decoder = from_folder(folder, task="encoder", cache=True), from_folder(folder, cache=True)
    heard, target = features(2), tokens(2, 9, VOCABULARY)["input_ids"]
    whole = run_module(module, {**heard, "decoder_input_ids": target}, ("logits", "encoder_last_hidden_state"))
    kept = reference.run(encoder, heard, float_dtype="float64")
    close(kept.pop("last_hidden_state"), whole["encoder_last_hidden_state"], "encoder")
    kept = {key.replace("present", "past_key_values"): value for key, value in kept.items()}
    past: dict[str, Any] = {port.name: np.zeros((2, 2, 0, 8)) for port in decoder.graph.inputs if ".decoder." in port.name}
    assert {port.name for port in decoder.graph.inputs} == {"decoder_input_ids", *kept, *past}
    cache = None
    with in_float64(module), InFloat64():
        for start, stop in ((0, 4), (4, 5), (5, 9)):
            inputs = {"decoder_input_ids": target[:, start:stop]}
            found = reference.run_graph(decoder.graph, decoder.parameters, {**inputs, **kept, **past},
                                        {"batch": 2, "time": stop - start, "past": start}, float_dtype=DType.FLOAT64)
            close(found["logits"], whole["logits"][:, start:stop], f"{start}:{stop}")
            theirs = module(torch.from_numpy(heard["input_features"]).double(), past_key_values=cache, use_cache=True,
                            decoder_input_ids=torch.from_numpy(inputs["decoder_input_ids"]))
            cache = theirs.past_key_values
            close(found["logits"], theirs.logits.numpy(), f"{start}:{stop} with the module's cache")
            past = {key.replace("present", "past_key_values"): value for key, value in found.items() if key.startswith("present.")}


def test_texts_longer_than_whispers_are_refused(tmp_path: Path) -> None:
    model = from_folder(save(whisper("Model"), tmp_path))
    with pytest.raises(RunError, match="outside its range"):
        reference.run(model, {**features(1), "decoder_input_ids": np.zeros((1, 17), np.int64)})
    with pytest.raises(RunError):
        reference.run(model, {"input_features": features(1)["input_features"][..., :-2], "decoder_input_ids": np.zeros((1, 3), np.int64)})


# wav2vec 2.0 -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "head"), [(name, head) for name in CONFIGS for head in HEADS
                                            if not ("adapter" in name and head.endswith("Classification"))])
def test_wav2vec2_equals_the_module(name: str, head: str, tmp_path: Path) -> None:
    module = wav2vec2(head, **CONFIGS[name])
    model = from_folder(save(module, tmp_path))
    assert model.graph.name == f"Wav2Vec2{head}"
    same_parameters(model, module, tmp_path)
    assert not [note for note in model.metadata.get("notes", ()) if "not known" in note]
    shortest = model.graph.dims["samples"].min
    assert shortest == 17  # one word: ((1 · 2 + 2 - 2) · 2 + 3 - 2) · 3 + 5 - 3
    for batch, count, cut in ((1, shortest, 0), (3, 100, 0), (3, 157, 31), (2, 61, 50)):
        compare(model, module, samples(batch, count, cut), what=f"{name} {head}")


@pytest.mark.parametrize("fields", [SPEECH, STABLE, {**SPEECH, "feat_proj_layer_norm": False, "use_weighted_layer_sum": True},
                                    {**STABLE, "use_weighted_layer_sum": True}], ids=["plain", "stable", "weighted", "weighted, stable"])
@pytest.mark.parametrize("head", ["Model", "ForCTC", "ForSequenceClassification"])
def test_hubert_equals_the_module(head: str, fields: dict[str, Any], tmp_path: Path) -> None:
    module = randomised(getattr(transformers, f"Hubert{head}")(transformers.HubertConfig(**fields, num_labels=3)))
    model = from_folder(save(module, tmp_path))
    assert model.graph.name == f"Hubert{head}"
    same_parameters(model, module, tmp_path)
    assert not [note for note in model.metadata.get("notes", ()) if "not known" in note]
    for batch, count, cut in ((1, 17, 0), (3, 100, 0), (3, 157, 31)):
        compare(model, module, samples(batch, count, cut), what=head)


@pytest.mark.parametrize("name", ["group", "layer"])
def test_samples_without_a_mask(name: str, tmp_path: Path) -> None:
    module = wav2vec2("ForSequenceClassification", **CONFIGS[name])
    model = from_folder(save(module, tmp_path), take="input_values")
    compare(model, module, {"input_values": samples(2, 90)["input_values"]})


@pytest.mark.parametrize("kernel", [1, 2, 5, 8])
def test_the_kernel_of_positions(kernel: int, tmp_path: Path) -> None:
    module = wav2vec2("Model", num_conv_pos_embeddings=kernel)
    compare(from_folder(save(module, tmp_path)), module, samples(2, 80, 20))


def test_both_spellings_of_a_weights_parts(tmp_path: Path) -> None:
    module = wav2vec2("ForCTC")
    save(module, tmp_path)
    file = tmp_path / "model.safetensors"
    newer = "parametrizations.weight.original"
    held = {name.replace(f"{newer}0", "weight_g").replace(f"{newer}1", "weight_v"): value for name, value in load_file(file).items()}
    save_file(held, file)
    model = from_folder(tmp_path)
    assert "wav2vec2.encoder.pos_conv_embed.conv.weight_g" in model.parameters
    compare(model, module, samples(2, 80, 20))


def test_other_heads_of_a_pretrained_model(tmp_path: Path) -> None:
    """What pretraining leaves in a checkpoint is kept, and said."""
    module = wav2vec2("ForPreTraining", num_codevectors_per_group=4, codevector_dim=8, proj_codevector_dim=6)
    save(module, tmp_path)
    with pytest.raises(ConverterError, match="Wav2Vec2ForPreTraining"):
        from_folder(tmp_path)
    model = from_folder(tmp_path, task="feature-extraction")
    assert any("quantizer" in note for note in model.metadata["notes"])
    compare(model, module.wav2vec2, samples(2, 80, 20))


# Runtimes and refusals ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("runtime", ["numpy", "onnxruntime"])
@pytest.mark.parametrize("name", ["whisper", "group", "languages"])
def test_runtimes(name: str, runtime: str, tmp_path: Path) -> None:
    module = whisper("ForConditionalGeneration") if name == "whisper" else wav2vec2("ForCTC", **CONFIGS[name])
    model = from_folder(save(module, tmp_path))
    inputs = ({**features(2), "decoder_input_ids": tokens(2, 5, VOCABULARY)["input_ids"]} if name == "whisper" else samples(3, 140, 33))
    truth = run_module(module, inputs, ("logits",))["logits"]
    assert np.abs(converter.session(model, runtime).run(inputs)["logits"] - truth).max() < 1e-4 * np.abs(truth).max()


@pytest.mark.parametrize(("changes", "said"), [
    ({"conv_dim": None}, "'conv_dim'"), ({"conv_dim": [8, 12]}, "'conv_kernel'"), ({"conv_stride": [1, 0, 2]}, "'conv_stride'"),
    ({"conv_kernel": [1] * 1000}, "'conv_kernel'"), ({"conv_dim": "8"}, "'conv_dim'"),
    ({"feat_extract_norm": "batch"}, "'feat_extract_norm'"),
    ({"num_conv_pos_embedding_groups": 3}, "'num_conv_pos_embedding_groups'"), ({"num_attention_heads": 5}, "'num_attention_heads'"),
    ({"hidden_act": "sine"}, "'hidden_act'"), ({"do_stable_layer_norm": "yes"}, "'do_stable_layer_norm'"),
    ({"num_hidden_layers": 1 << 20}, "'num_hidden_layers'"), ({"num_feat_extract_layers": 7}, "'num_feat_extract_layers'"),
    ({"architectures": ["Wav2Vec2ForXVector"]}, "Wav2Vec2ForXVector"),
])
def test_config_fields_that_are_not_known(changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    save(wav2vec2("ForCTC"), tmp_path)
    change_config(tmp_path, **changes)
    with pytest.raises(ConverterError) as caught:
        from_folder(tmp_path)
    assert said in str(caught.value)
    assert "config.json" in str(caught.value)


def test_all_that_contradicts_the_config_is_listed_together(tmp_path: Path) -> None:
    save(wav2vec2("ForCTC"), tmp_path / "speech", conv_kernel=[5, 3, 3], num_hidden_layers=1)
    with pytest.raises(ParameterError) as caught:
        from_folder(tmp_path / "speech")
    assert "conv_layers.2.conv.weight': expected float32[10, 12, 3], received float32[10, 12, 2]" in str(caught.value)
    assert "extra: 'wav2vec2.encoder.layers.1.attention.k_proj.bias'" in str(caught.value)
    save(whisper("ForConditionalGeneration"), tmp_path / "whisper", max_source_positions=12, decoder_layers=4)
    with pytest.raises(ParameterError) as caught:
        from_folder(tmp_path / "whisper")
    assert "embed_positions.weight': expected float32[12, 16], received float32[10, 16]" in str(caught.value)
    assert "missing: 'model.decoder.layers.3.encoder_attn.k_proj.weight' float32[16, 16]" in str(caught.value)
