"""Configs of Hugging Face folders: fields that are not known, options that do not fit, fields of every age."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from converter.errors import ConverterError, FormatError, UnsupportedError
from tests.huggingface import test_huggingface_decoders as decoders
from tests.huggingface.test_huggingface_encoders import VOCABULARY, made
from tests.huggingface_support import change_config, compare, forget, from_folder, save, tokens


@pytest.mark.parametrize(("changes", "said"), [
    ({"model_type": "made-up"}, "'made-up'"),
    ({"model_type": 3, "architectures": ["Other"]}, "model_type"),
    ({"architectures": ["BertLMHeadModel"]}, "BertLMHeadModel"),
    ({"architectures": None}, "--task"),
    ({"architectures": ["BertModel", "BertForMaskedLM"]}, "architectures"),
    ({"architectures": "BertModel"}, "architectures"),
    ({"hidden_act": "gelu_10"}, "'hidden_act'"),
    ({"hidden_act": 7}, "'hidden_act'"),
    ({"position_embedding_type": "relative_key"}, "'position_embedding_type'"),
    ({"is_decoder": True}, "'is_decoder'"),
    ({"add_cross_attention": True}, "'add_cross_attention'"),
    ({"num_attention_heads": 5}, "'num_attention_heads'"),
    ({"num_attention_heads": 0}, "'num_attention_heads'"),
    ({"hidden_size": None}, "'hidden_size'"),
    ({"hidden_size": "16"}, "'hidden_size'"),
    ({"num_hidden_layers": True}, "'num_hidden_layers'"),
    ({"num_hidden_layers": 1 << 30}, "'num_hidden_layers'"),
    ({"vocab_size": 1 << 40}, "'vocab_size'"),
    ({"layer_norm_eps": "small"}, "'layer_norm_eps'"),
    ({"auto_map": {"AutoModel": "modeling.Mine"}}, "auto_map"),
    ({"quantization_config": {"bits": 4}}, "quantization_config"),
])
def test_config_fields_that_are_not_known(changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    save(made("Bert", "Model"), tmp_path)
    change_config(tmp_path, **changes)
    with pytest.raises((UnsupportedError, FormatError)) as caught:
        from_folder(tmp_path)
    assert said in str(caught.value)
    assert "config.json" in str(caught.value)


@pytest.mark.parametrize(("model_type", "architectures", "near", "way"), [
    ("funnel", ["FunnelModel"], "", "transformers.FunnelModel.from_pretrained("),
    ("mt5x", None, ", as mt5", "transformers.AutoModel.from_pretrained("),
    ("robert", ["A(); B"], ", as roberta", "transformers.AutoModel.from_pretrained("), ("x" * 900, "X", "", "--module")])
def test_a_type_that_is_not_known_is_told_the_way_out(model_type: str, architectures: Any, near: str, way: str, tmp_path: Path) -> None:
    save(made("Bert", "Model"), tmp_path)
    change_config(tmp_path, model_type=model_type, architectures=architectures)
    with pytest.raises(UnsupportedError, match=r"docs/architectures\.md lists") as caught:
        from_folder(tmp_path)
    assert near in (caught.value.expected or "")
    assert way in (caught.value.fix or "")
    assert len(str(caught.value)) < 800


@pytest.mark.parametrize(("name", "changes", "said"), [
    ("llama", {"rope_scaling": {"type": "proportional", "factor": 2.0}}, "'rope_type'"),
    ("llama", {"rope_scaling": {"type": "dynamic"}}, "'factor'"),
    ("llama", {"rope_scaling": {"type": "dynamic", "factor": 0}}, "'factor'"),
    ("llama", {"head_dim": 2, "rope_scaling": {"type": "dynamic", "factor": 2.0}}, "'rope_type'"),
    ("llama", {"rope_scaling": {"type": "linear"}}, "'factor'"),
    ("llama", {"rope_parameters": {"full_attention": {"rope_theta": 1e4}}}, "'rope_parameters'"),
    ("llama", {"rope_scaling": [1]}, "'rope_scaling'"),
    ("llama", {"is_causal": False}, "'is_causal'"),
    ("llama yarn", {"rope_parameters": {"rope_type": "yarn", "rope_theta": 1, "factor": 2.0}}, "no frequencies"),
    ("llama yarn", {"rope_parameters": {"rope_type": "yarn", "rope_theta": 0, "factor": 2.0}}, "no frequencies"),
    ("llama", {"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 0}}, "no frequencies"),
    ("llama", {"rope_parameters": {"rope_type": "default", "rope_theta": -1}}, "no frequencies"),
    ("gemma2", {"attn_logit_softcapping": 0}, "'attn_logit_softcapping'"),
    ("mixtral", {"num_experts_per_tok": 5}, "'num_experts_per_tok'"),
    ("qwen3_moe", {"num_experts": 5}, "'num_local_experts'"),
    ("qwen2_moe", {"mlp_only_layers": ["0"]}, "'mlp_only_layers'"),
    ("bloom", {"slow_but_exact": True}, "'slow_but_exact'"),
    ("falcon", {"num_ln_in_parallel_attn": 2}, "'num_ln_in_parallel_attn'"),
    ("falcon with shared keys", {"parallel_attn": False}, "'parallel_attn'"),
    ("falcon with shared keys", {"num_kv_heads": 3}, "'num_kv_heads'"),
    ("falcon in turn", {"num_kv_heads": 2}, "'num_kv_heads'"),
    ("mpt", {"attn_config": {"alibi": False}}, "'alibi'"),
    ("mpt", {"attn_config": {"qk_ln": True}}, "'qk_ln'"),
    ("mpt", {"logit_scale": "inv_sqrt_d_model"}, "'logit_scale'"),
    ("mpt", {"no_bias": False}, "'no_bias'"),
    ("gptj", {"rotary_dim": None}, "'rotary_dim'"),
    ("codegen", {"n_head": 2}, "'n_head'"),
    ("gpt_neo", {"attention_types": [[["global", "near"], 1]]}, "'attention_types'"),
    ("gpt_neo", {"attention_types": "global"}, "'attention_types'"),
    ("gpt_neo", {"attention_layers": ["local", "local"]}, "'attention_layers'"),
    ("lfm2", {"layer_types": ["conv", "sliding_attention"]}, "'layer_types'"),
    ("gpt_neo", {"attention_types": [[["global"], 1 << 40]]}, "'attention_types'"),
    ("mixtral", {"num_local_experts": 1 << 30}, "'num_local_experts'"),
    ("stablelm with norms", {"num_attention_heads": 1 << 20, "hidden_size": 1 << 20, "head_dim": 2, "num_key_value_heads": 1},
     "'num_attention_heads'"),
    ("bloom", {"n_head": 1 << 20, "hidden_size": 1 << 20}, "'n_head'"),
    ("falcon with biases by place", {"max_position_embeddings": 1 << 30}, "'max_position_embeddings'"),
    ("smollm3", {"no_rope_layers": [1]}, "'no_rope_layers'"),
    ("cohere2", {"use_qk_norm": True}, "'use_qk_norm'"),
    ("gemma3_text", {"attn_logit_softcapping": 3.0}, "'attn_logit_softcapping'"),
    ("gemma3_text", {"rope_parameters": {"rope_type": "default"}}, "'rope_parameters'"),
    ("llama", {"partial_rotary_factor": 0.5, "rope_parameters": None}, "'partial_rotary_factor'"),
    ("llama", {"rms_norm_eps": -1.0}, "'rms_norm_eps'"),
    ("llama", {"head_dim": 1 << 30}, "'head_dim'"),
    ("llama", {"num_key_value_heads": 3}, "'num_key_value_heads'"),
    ("mistral", {"layer_types": ["full_attention"] * 2}, "'layer_types'"),
    ("qwen2", {"layer_types": ["full_attention", "chunked_attention"]}, "'layer_types'"),
    ("gemma2", {"layer_types": [["full_attention"], {}]}, "'layer_types'"),
    ("qwen2", {"layer_types": ["full_attention", "sliding_attention"]}, "sliding window"),
    ("gemma2", {"use_bidirectional_attention": True}, "'use_bidirectional_attention'"),
    ("phi3 long", {"rope_parameters": {**decoders.LONG, "long_factor": [1.0]}}, "'long_factor'"),
    ("gpt_neox", {"rotary_pct": 0.4, "rope_parameters": None}, "'partial_rotary_factor'"),
    ("opt", {"layer_norm_elementwise_affine": False}, "'layer_norm_elementwise_affine'"),
])
def test_decoder_fields_that_are_not_known(name: str, changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    save(decoders.made(name, "ForCausalLM"), tmp_path)
    change_config(tmp_path, **changes)
    with pytest.raises((UnsupportedError, FormatError)) as caught:
        from_folder(tmp_path)
    assert said in str(caught.value)


@pytest.mark.parametrize(("options", "said"), [
    ({"task": "translation"}, "'translation'"), ({"cache": True}, "cache"), ({"take": "attention_mask"}, "'input_ids'"),
    ({"take": "input_ids,labels"}, "'labels'"), ({"task": "sentence-embedding"}, "pooled"), ({"flavour": "sweet"}, "'flavour'"),
])
def test_options_that_do_not_fit(options: dict[str, Any], said: str, tmp_path: Path) -> None:
    save(made("Bert", "Model"), tmp_path)
    with pytest.raises(ConverterError, match=said):
        from_folder(tmp_path, **options)


def test_unknown_fields_are_said(tmp_path: Path) -> None:
    save(made("Bert", "Model"), tmp_path, hidden_gain=3)
    assert any("hidden_gain" in note for note in from_folder(tmp_path).metadata["notes"])
    change_config(tmp_path, hidden_gain=None)
    assert "notes" not in from_folder(tmp_path).metadata


@pytest.mark.parametrize("content", ["", "[]", "{", '{"model_type": ["bert"]}', '{"architectures": [["BertModel"]]}',
                                     '{"architectures": [{}]}', "\x00", '{"a":' * 100000])
def test_configs_that_are_not_well_formed(content: str, tmp_path: Path) -> None:
    save(made("Bert", "Model"), tmp_path)
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(ConverterError, match=r"config\.json"):
        from_folder(tmp_path)


def test_older_fields_of_rotary_positions(tmp_path: Path) -> None:
    """`rope_theta` and `rope_scaling` beside each other, as they were before `rope_parameters`."""
    module = decoders.made("llama linear", "ForCausalLM")
    save(module, tmp_path, rope_parameters=None, rope_theta=10000.0, rope_scaling={"type": "linear", "factor": 2.5})
    compare(from_folder(tmp_path), module, tokens(2, 7, VOCABULARY))


@pytest.mark.parametrize("name", ["falcon", "falcon with shared keys", "falcon with biases by place"])
def test_a_config_with_the_fewest_fields(name: str, tmp_path: Path) -> None:
    """As Falcon's own folders have it: without what is so by default."""
    module = decoders.made(name, "ForCausalLM", ffn_hidden_size=64, activation="gelu", max_position_embeddings=2048)
    forget(save(module, tmp_path), "max_position_embeddings", "ffn_hidden_size", "activation", "rope_parameters",
           "num_ln_in_parallel_attn", "tie_word_embeddings")
    model = from_folder(tmp_path)
    assert model.graph.dims["time"].max == 2048
    compare(model, module, tokens(2, 7, VOCABULARY, padding="left"), seen_only=True)


def test_older_fields_of_two_sets_of_rotary_positions(tmp_path: Path) -> None:
    """Gemma 3's, as its first configs had them."""
    module = decoders.made("gemma3_text scaled", "ForCausalLM")
    save(module, tmp_path, rope_parameters=None, rope_theta=5000.0, rope_local_base_freq=700.0,
         rope_scaling={"rope_type": "linear", "factor": 4.0})
    compare(from_folder(tmp_path), module, tokens(2, 7, VOCABULARY))


def test_a_class_says_the_model_type(tmp_path: Path) -> None:
    module = decoders.made("llama", "ForCausalLM")
    forget(save(module, tmp_path), "model_type")
    compare(from_folder(tmp_path), module, tokens(2, 7, VOCABULARY))
