"""Speech models of wav2vec 2.0's kind equal transformers' own modules."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from adapters.architectures.huggingface.layers.distances import distance_buckets
from converter.errors import ConverterError
from tests.huggingface_support import change_config, compare, from_folder, randomised, same_tensors, save, transformers

SPEECH = {"vocab_size": 30, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 24,
          "conv_dim": [8, 12, 10], "conv_stride": [3, 2, 2], "conv_kernel": [5, 3, 2], "num_conv_pos_embeddings": 6,
          "num_conv_pos_embedding_groups": 4, "classifier_proj_size": 7}
STABLE = {**SPEECH, "feat_extract_norm": "layer", "conv_bias": True, "do_stable_layer_norm": True, "num_conv_pos_embeddings": 5,
          "feat_extract_activation": "relu", "hidden_act": "gelu_new"}
NEAR = {"num_buckets": 8, "max_bucket_distance": 9}
STACKED = {**SPEECH, "conv_pos_kernel_size": 4, "num_conv_pos_embeddings": 2}
CONFORMER = {**SPEECH, "conv_depthwise_kernel_size": 5, "layer_norm_eps": 0.01}
FEATURES = {**{name: value for name, value in CONFORMER.items() if not name.startswith(("conv_d", "conv_s", "conv_k", "num_conv"))},
            "conv_depthwise_kernel_size": 5, "feature_projection_input_dim": 6, "left_max_position_embeddings": 5,
            "right_max_position_embeddings": 3}
CASES: list[tuple[str, str, dict[str, Any]]] = [
    ("UniSpeech", "Model", STABLE), ("UniSpeech", "ForCTC", SPEECH), ("UniSpeech", "ForSequenceClassification", SPEECH),
    ("UniSpeechSat", "Model", SPEECH), ("UniSpeechSat", "ForAudioFrameClassification", {**STABLE, "use_weighted_layer_sum": True}),
    ("WavLM", "Model", {**SPEECH, **NEAR}), ("WavLM", "ForCTC", {**STABLE, "add_adapter": True, "output_hidden_size": 14}),
    ("WavLM", "ForSequenceClassification", {**STABLE, **NEAR, "use_weighted_layer_sum": True}),
    ("Data2VecAudio", "Model", STACKED), ("Data2VecAudio", "ForCTC", {**STACKED, "conv_bias": True, "conv_pos_kernel_size": 3}),
    ("Wav2Vec2Conformer", "Model", CONFORMER), ("Wav2Vec2Conformer", "ForCTC", {**CONFORMER, "position_embeddings_type": "rotary"}),
    ("Wav2Vec2Conformer", "ForSequenceClassification", {**CONFORMER, "position_embeddings_type": None, "use_weighted_layer_sum": True}),
    ("Wav2Vec2Conformer", "ForCTC", {**CONFORMER, "add_adapter": True, "output_hidden_size": 10, "hidden_act": "relu"}),
    ("Wav2Vec2Bert", "Model", FEATURES), ("Wav2Vec2Bert", "ForAudioFrameClassification", {**FEATURES, "position_embeddings_type": None}),
    ("Wav2Vec2Bert", "ForCTC", {**FEATURES, "position_embeddings_type": "relative", "add_adapter": True, "num_adapter_layers": 2,
                                "output_hidden_size": 8, "use_intermediate_ffn_before_adapter": True, "adapter_kernel_size": 5}),
    ("Wav2Vec2Bert", "ForCTC", {**FEATURES, "position_embeddings_type": "rotary", "add_adapter": True, "adapter_stride": 3,
                                "adapter_act": "gelu"}),
    ("Wav2Vec2Bert", "ForSequenceClassification", {**FEATURES, "left_max_position_embeddings": 2, "right_max_position_embeddings": 0,
                                                   "use_weighted_layer_sum": True, "num_attention_heads": 3, "hidden_size": 15}),
    ("SEW", "Model", SPEECH), ("SEW", "ForCTC", {**SPEECH, "squeeze_factor": 3, "conv_dim": [8, 12, 16]}),
    ("SEW", "ForSequenceClassification", {**SPEECH, "num_conv_pos_embeddings": 5, "feat_extract_norm": "layer"}),
]


def made(stem: str, head: str, fields: dict[str, Any]) -> Any:
    return randomised(getattr(transformers, stem + head)(getattr(transformers, f"{stem}Config")(**fields, num_labels=3)))


def samples(batch: int, count: int, cut: int = 0, features: int | None = None) -> dict[str, np.ndarray[Any, Any]]:
    """Samples and their mask, [batch, count], or their features: `cut` fewer in each row after the first."""
    mask, name = np.ones((batch, count), np.int64), "input_values" if features is None else "input_features"
    for row in range(1, batch):
        mask[row, count - min(cut * row, count - (40 if features is None else 1)):] = 0
    shape = (batch, count) if features is None else (batch, count, features)
    return {name: np.random.default_rng(count).standard_normal(shape).astype(np.float32), "attention_mask": mask}


# The library gives PyTorch a mask of bools beside one of floats.
@pytest.mark.filterwarnings("ignore:Support for mismatched key_padding_mask")
@pytest.mark.parametrize(("stem", "head", "fields"), CASES)
def test_equals_the_module(stem: str, head: str, fields: dict[str, Any], tmp_path: Path) -> None:
    module = made(stem, head, fields)
    model = from_folder(save(module, tmp_path))
    assert model.graph.name == stem + head
    same_tensors(model, tmp_path)
    assert not [note for note in model.metadata.get("notes", ()) if "not known" in note]
    if "samples" not in model.graph.dims:
        for batch, count, cut in ((1, model.graph.dims["time"].min, 0), (3, 17, 4), (2, 12, 1)):
            compare(model, module, samples(batch, count, cut, fields["feature_projection_input_dim"]), what=stem + head)
        return
    shortest = model.graph.dims["samples"].min
    for batch, count, cut in ((1, shortest, 0), (3, 157, 31), (2, 111, 50)):
        compare(model, module, samples(batch, count, cut), what=stem + head)


def test_buckets_of_wavlm_are_rounded_in_float32() -> None:
    """As the library's own function gives them, bit for bit."""
    attention = transformers.models.wavlm.modeling_wavlm.WavLMAttention(8, 2, num_buckets=320, max_distance=800)
    theirs = attention._relative_positions_bucket(torch.arange(-800, 801))
    assert np.array_equal(distance_buckets(320, 800, rounded=True), theirs.numpy())


# What is said of a field names it; where only tensors tell, the tensor.
@pytest.mark.parametrize(("stem", "fields", "changes", "said"), [
    ("WavLM", SPEECH, {"max_bucket_distance": 80}, ""), ("WavLM", SPEECH, {"num_buckets": 64}, "rel_attn_embed"),
    ("Data2VecAudio", STACKED, {"conv_pos_kernel_size": 5}, "pos_conv_embed"), ("SEW", SPEECH, {"squeeze_factor": 3}, "upsample"),
    ("UniSpeech", SPEECH, {"adapter_attn_dim": "4"}, ""), ("SEW", SPEECH, {"feat_extract_norm": "batch"}, ""),
    ("Wav2Vec2Conformer", CONFORMER, {"conv_depthwise_kernel_size": 4}, ""),
    ("Wav2Vec2Conformer", CONFORMER, {"position_embeddings_type": "relative_key"}, ""),
    ("Wav2Vec2Bert", FEATURES, {"position_embeddings_type": "sine"}, ""), ("Wav2Vec2Bert", FEATURES, {"num_attention_heads": 5}, ""),
    ("Wav2Vec2Bert", FEATURES, {"use_intermediate_ffn_before_adapter": True}, ""),
])
def test_refusals(stem: str, fields: dict[str, Any], changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    save(made(stem, "Model", fields), tmp_path)
    change_config(tmp_path, **changes)
    with pytest.raises(ConverterError, match=said or next(iter(changes))):
        from_folder(tmp_path)
