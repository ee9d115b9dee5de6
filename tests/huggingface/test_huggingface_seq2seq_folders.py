"""Folders of encoder-decoder models: words under several names, sentence encoders, smaller floats, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from converter import reference
from converter.errors import ConverterError, ParameterError
from tests.huggingface.test_huggingface_seq2seq import GENERATORS, VOCABULARY, given, made
from tests.huggingface_support import change_config, close, compare, from_folder, run_module, save, tokens

# Words -------------------------------------------------------------------------------------------------------------------


def test_scores_of_a_table_of_their_own(tmp_path: Path) -> None:
    """T5 1.1 as older versions saved it: words tied, scores not, and its fields without those that newer versions add."""
    module = made("t5 1.1", "ForConditionalGeneration")
    module.lm_head.weight = torch.nn.Parameter(module.lm_head.weight.clone() + 0.1)
    save(module, tmp_path, tie_word_embeddings=False, scale_decoder_outputs=None, dense_act_fn=None, is_gated_act=None)
    file = tmp_path / "model.safetensors"
    save_file({**load_file(file), "lm_head.weight": module.lm_head.weight.detach()}, file)
    model = from_folder(tmp_path)
    assert model.parameters.alias_of("lm_head.weight") is None
    assert model.parameters.alias_of("decoder.embed_tokens.weight") == "shared.weight"
    compare(model, module, given(model, 2, 5, 4, "none"))


@pytest.mark.parametrize("name", ["t5", "bart"])
def test_words_under_any_of_their_names(name: str, tmp_path: Path) -> None:
    module = made(name, "ForConditionalGeneration")
    save(module, tmp_path)
    file = tmp_path / "model.safetensors"
    held = load_file(file)
    shared = next(key for key in held if key.endswith("shared.weight"))
    held[shared.replace("shared", "decoder.embed_tokens")] = held.pop(shared)
    save_file(held, file)
    model = from_folder(tmp_path)
    assert model.parameters.alias_of("lm_head.weight") == shared.replace("shared", "decoder.embed_tokens")
    compare(model, module, given(model, 2, 5, 4, "none"))


def test_pytorchs_own_format_with_all_names(tmp_path: Path) -> None:
    module = made("bart", "ForConditionalGeneration")
    save(module, tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.save(module.state_dict(), tmp_path / "pytorch_model.bin")
    model = from_folder(tmp_path)
    assert set(module.state_dict()) == set(model.parameters.names())
    compare(model, module, given(model, 2, 5, 4, "none"))


def test_an_encoder_out_of_a_whole_model(tmp_path: Path) -> None:
    for name in ("t5", "bart"):
        module = made(name, "ForConditionalGeneration")
        model = from_folder(save(module, tmp_path / name), task="encoder")
        assert [port.name for port in model.graph.inputs] == ["input_ids", "attention_mask"]
        inputs = tokens(3, 6, VOCABULARY, padding="right")
        theirs = run_module(module, {**inputs, "decoder_input_ids": inputs["input_ids"]}, ("encoder_last_hidden_state",))
        close(reference.run(model, inputs, float_dtype="float64")["last_hidden_state"], theirs["encoder_last_hidden_state"], name)


def test_sentences_of_an_encoder(tmp_path: Path) -> None:
    """A sentence encoder on T5's encoder, as sentence-transformers keeps it."""
    module = made("t5", "EncoderModel")
    save(module, tmp_path)
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "1_Pooling" / "config.json").write_text(json.dumps({"word_embedding_dimension": 16, "pooling_mode_mean_tokens": True}))
    (tmp_path / "modules.json").write_text(json.dumps([
        {"idx": index, "name": str(index), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for index, (path, kind) in enumerate((("", "Transformer"), ("1_Pooling", "Pooling")))]))
    inputs = tokens(3, 7, VOCABULARY, padding="right")
    words = run_module(module, inputs, ("last_hidden_state",))["last_hidden_state"]
    weights = inputs["attention_mask"][..., None]
    found = reference.run(from_folder(tmp_path), inputs, float_dtype="float64")["sentence_embedding"]
    close(found, (words * weights).sum(1) / weights.sum(1), "embedding")


# Smaller floats ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", GENERATORS)
def test_bfloat16(name: str, tmp_path: Path) -> None:
    module = made(name, "ForConditionalGeneration").to(torch.bfloat16)
    model = from_folder(save(module, tmp_path))
    inputs = given(model, 2, 6, 5, "right")
    with torch.no_grad():
        theirs = module(**{key: torch.from_numpy(value) for key, value in inputs.items()}).logits.double().numpy()
    ours = reference.run(model, inputs)["logits"].astype(np.float64)
    exact = reference.run(model, inputs, float_dtype="float64")["logits"]
    assert np.abs(ours - exact).max() < 3 * np.abs(theirs - exact).max()


@pytest.mark.parametrize("name", ["t5", "bart", "mbart"])
def test_numbers_that_float16_does_not_hold(name: str, tmp_path: Path) -> None:
    """Where a layer of the encoder exceeds float16 the library bounds it, and the graph does."""
    module = made(name, "Model")
    with torch.no_grad():
        for parameter_name, parameter in module.named_parameters():
            if parameter_name.startswith("encoder.") and (".wo." in parameter_name or ".fc2." in parameter_name):
                parameter.mul_(30000)
    module = module.half()
    model = from_folder(save(module, tmp_path))
    inputs = given(model, 2, 6, 5, "none")
    with torch.no_grad():
        theirs = module(**{key: torch.from_numpy(value) for key, value in inputs.items()}).last_hidden_state.double().numpy()
    ours = reference.run(model, inputs)["last_hidden_state"].astype(np.float64)
    assert np.isfinite(theirs).all()
    assert np.abs(ours - theirs).max() < 0.05 * np.abs(theirs).max()


# Refusals ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "changes", "said"), [
    ("t5", {"feed_forward_proj": "gated-gelu-new"}, "'feed_forward_proj'"),
    ("t5", {"feed_forward_proj": ["relu"]}, "'feed_forward_proj'"),
    ("t5", {"dense_act_fn": "sine"}, "'dense_act_fn'"),
    ("t5", {"num_decoder_layers": "3"}, "'num_decoder_layers'"),
    ("t5", {"num_decoder_layers": 1 << 20}, "'num_decoder_layers'"),
    ("t5", {"relative_attention_num_buckets": 2}, "'relative_attention_num_buckets'"),
    ("t5", {"relative_attention_max_distance": 4}, "'relative_attention_max_distance'"),
    ("t5", {"relative_attention_max_distance": 1 << 40}, "'relative_attention_max_distance'"),
    ("t5", {"is_decoder": True}, "'is_decoder'"),
    ("bart", {"decoder_attention_heads": 3}, "'decoder_attention_heads'"),
    ("bart", {"activation_function": "sine"}, "'activation_function'"),
    ("bart", {"d_model": None}, "'d_model'"),
    ("bart", {"normalize_before": True}, "'normalize_before'"),
    ("mbart", {"normalize_before": False}, "'normalize_before'"),
    ("bart", {"architectures": ["BartPretrainedModel"]}, "BartPretrainedModel"),
])
def test_config_fields_that_are_not_known(name: str, changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    save(made(name, "ForConditionalGeneration"), tmp_path)
    change_config(tmp_path, **changes)
    with pytest.raises(ConverterError) as caught:
        from_folder(tmp_path)
    assert said in str(caught.value)
    assert "config.json" in str(caught.value)


@pytest.mark.parametrize(("name", "changes", "part"), [
    ("t5", {"d_ff": 20}, "DenseReluDense.wi.weight': expected float32[20, 16], received float32[24, 16]"),
    ("bart", {"decoder_ffn_dim": 24}, "fc1.weight': expected float32[24, 16], received float32[20, 16]"),
])
def test_all_that_contradicts_the_config_is_listed_together(name: str, changes: dict[str, Any], part: str, tmp_path: Path) -> None:
    """Shapes, and tensors of the decoder that are missing, and that no task leaves over."""
    save(made(name, "ForConditionalGeneration"), tmp_path)
    change_config(tmp_path, **changes)
    file = tmp_path / "model.safetensors"
    held = load_file(file)
    lost = next(key for key in held if "decoder" in key and key.endswith(("SelfAttention.q.weight", "self_attn.q_proj.weight")))
    held[lost.replace("weight", "weights")] = held.pop(lost)
    save_file(held, file)
    with pytest.raises(ParameterError) as caught:
        from_folder(tmp_path)
    text = str(caught.value)
    assert part in text
    assert f"missing: '{lost}'" in text
    assert f"extra: '{lost.replace('weight', 'weights')}'" in text


def test_options_that_do_not_fit(tmp_path: Path) -> None:
    save(made("t5", "ForConditionalGeneration"), tmp_path)
    for options, said in (({"take": "input_ids"}, "'decoder_input_ids'"), ({"take": "decoder_input_ids"}, "'input_ids'"),
                          ({"task": "encoder", "take": "input_ids,decoder_input_ids"}, "'decoder_input_ids'"),
                          ({"task": "feature-extraction", "cache": True}, "cache"),
                          ({"cache": True, "take": "input_ids,decoder_input_ids"}, "'input_ids'"),
                          ({"task": "text-classification"}, "missing")):
        with pytest.raises(ConverterError, match=said):
            from_folder(tmp_path, **options)
    save(made("bart", "Model", decoder_start_token_id=None), tmp_path / "bart", decoder_start_token_id=None)
    with pytest.raises(ConverterError, match="decoder_start_token_id"):
        from_folder(tmp_path / "bart", task="question-answering")
