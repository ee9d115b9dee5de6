"""Causal language models recognised by their config.json equal transformers' own modules, with and without a cache."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from adapters.architectures.huggingface.families import family_of
from adapters.architectures.huggingface.models import alibi
from converter import reference
from converter.errors import RunError
from converter.ir import Model
from tests.huggingface_support import (
    InFloat64,
    close,
    compare,
    from_folder,
    in_float64,
    randomised,
    same_parameters,
    same_tensors,
    save,
    tokens,
    transformers,
)

VOCABULARY = 40
SMALL = {"vocab_size": VOCABULARY, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 24,
         "max_position_embeddings": 64, "pad_token_id": 0}
GROUPED = {**SMALL, "num_key_value_heads": 2}
LONG = {"rope_type": "longrope", "rope_theta": 10000.0, "short_factor": [1.1, 1.7], "long_factor": [1.3, 2.9],
        "original_max_position_embeddings": 8}
EXPERTS = {**GROUPED, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 12}
ROUTED = {**GROUPED, "n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 12}
LATENT = {**ROUTED, "num_key_value_heads": 4, "q_lora_rank": 6, "kv_lora_rank": 6,
          "qk_rope_head_dim": 4, "qk_nope_head_dim": 2, "v_head_dim": 7}
DELTA = {"head_dim": 8, "linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 3, "linear_value_head_dim": 5,
         "shared_expert_intermediate_size": 10}
GPTJ = {"vocab_size": VOCABULARY, "n_embd": 16, "n_layer": 2, "n_head": 4, "n_positions": 32, "pad_token_id": 0}
BLOOM = {"vocab_size": VOCABULARY, "hidden_size": 16, "n_layer": 2, "pad_token_id": 0}
MPT = {"vocab_size": VOCABULARY, "d_model": 16, "n_layers": 2, "n_heads": 4, "max_seq_len": 32, "pad_token_id": 0}
NEO = {"vocab_size": VOCABULARY, "hidden_size": 16, "num_layers": 2, "num_heads": 4, "max_position_embeddings": 32, "pad_token_id": 0}
CONFIGS: dict[str, dict[str, Any]] = {
    "gpt2": {"vocab_size": VOCABULARY, "n_embd": 16, "n_layer": 2, "n_head": 4, "n_positions": 32, "pad_token_id": 0},
    "openai-gpt": GPTJ,
    "openai-gpt relu": {**GPTJ, "afn": "relu", "n_head": 2},
    "gpt2 scaled by layer": {"vocab_size": VOCABULARY, "n_embd": 16, "n_layer": 3, "n_head": 2, "n_positions": 32,
                                      "n_inner": 20, "scale_attn_by_inverse_layer_idx": True, "pad_token_id": 0,
                                      "activation_function": "relu"},
    "gpt2 unscaled": {"vocab_size": VOCABULARY, "n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 32,
                               "scale_attn_weights": False, "pad_token_id": 0},
    "gpt_neox": {**SMALL, "hidden_size": 32, "rotary_pct": 0.25},
    "gpt_neox in turn": {**SMALL, "use_parallel_residual": False, "attention_bias": False, "rotary_pct": 1.0},
    "opt": {**SMALL, "ffn_dim": 24},
    "opt after": {**SMALL, "ffn_dim": 24, "do_layer_norm_before": False, "word_embed_proj_dim": 8},
    "opt bare": {**SMALL, "ffn_dim": 24, "enable_bias": False, "_remove_final_layer_norm": True, "activation_function": "gelu"},
    "llama": GROUPED,
    "llama with biases": {**SMALL, "attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True, "head_dim": 6,
                                    "hidden_act": "gelu"},
    "llama 3": {**GROUPED, "head_dim": 16, "rope_parameters": {
        "rope_type": "llama3", "rope_theta": 500.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 32}},
    "llama linear": {**GROUPED, "rope_parameters": {"rope_type": "linear", "rope_theta": 10000.0, "factor": 2.5}},
    "llama yarn": {**GROUPED, "head_dim": 16, "rope_parameters": {
        "rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 16}},
    "llama dynamic": {**GROUPED, "head_dim": 8, "max_position_embeddings": 10, "rope_parameters": {
        "rope_type": "dynamic", "rope_theta": 1000.0, "factor": 3.0}},
    "mistral": {**GROUPED, "sliding_window": 4},
    "mistral without window": {**GROUPED, "sliding_window": None},
    "qwen2": GROUPED,
    "qwen2 with windows": {**GROUPED, "use_sliding_window": True, "sliding_window": 3, "max_window_layers": 1},
    "qwen3": {**GROUPED, "head_dim": 6},
    "gemma2": {**GROUPED, "head_dim": 6, "sliding_window": 3, "query_pre_attn_scalar": 7, "attn_logit_softcapping": 1.5,
                          "final_logit_softcapping": 2.0},
    "gemma2 uncapped": {**GROUPED, "head_dim": 4, "attn_logit_softcapping": None, "final_logit_softcapping": None},
    "gemma": {**GROUPED, "head_dim": 6, "hidden_act": "gelu"},
    "gemma with biases": {**SMALL, "head_dim": 4, "num_key_value_heads": 1, "attention_bias": True, "hidden_act": "silu",
                          "tie_word_embeddings": False},
    "gemma3_text": {**GROUPED, "head_dim": 6, "sliding_window": 3, "sliding_window_pattern": 2, "query_pre_attn_scalar": 7},
    "gemma3_text scaled": {**GROUPED, "head_dim": 8, "sliding_window": 4, "num_hidden_layers": 3, "final_logit_softcapping": 2.0,
                           "layer_types": ["full_attention", "sliding_attention", "full_attention"],
                           "rope_parameters": {"full_attention": {"rope_type": "linear", "factor": 4.0, "rope_theta": 5000.0},
                                               "sliding_attention": {"rope_type": "default", "rope_theta": 700.0}}},
    "ministral": {**GROUPED, "head_dim": 4, "sliding_window": 3},
    "ministral by layer": {**GROUPED, "head_dim": 6, "sliding_window": 3, "layer_types": ["full_attention", "sliding_attention"]},
    "granite": {**GROUPED, "embedding_multiplier": 3.0, "logits_scaling": 0.7, "residual_multiplier": 0.4, "attention_multiplier": 0.3},
    "granite with biases": {**SMALL, "attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True},
    "smollm3": {**GROUPED, "no_rope_layer_interval": 2},
    "smollm3 with windows": {**GROUPED, "num_hidden_layers": 3, "no_rope_layers": [0, 1, 0], "use_sliding_window": True,
                             "sliding_window": 3, "attention_bias": True, "mlp_bias": True, "tie_word_embeddings": False},
    "helium": {**GROUPED, "head_dim": 4},
    "helium with biases": {**GROUPED, "head_dim": 4, "attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True},
    "arcee": GROUPED,
    "arcee with biases": {**GROUPED, "attention_bias": True, "mlp_bias": True, "head_dim": 6, "tie_word_embeddings": True},
    "seed_oss": {**GROUPED, "head_dim": 6},
    "seed_oss with biases": {**GROUPED, "head_dim": 6, "attention_bias": False, "attention_out_bias": True, "mlp_bias": True},
    "glm": {**GROUPED, "head_dim": 8},
    "glm whole": {**GROUPED, "head_dim": 8, "partial_rotary_factor": 1.0, "attention_bias": False},
    "glm4": {**GROUPED, "head_dim": 8},
    "exaone4": {**GROUPED, "sliding_window": 3, "sliding_window_pattern": 2},
    "exaone4 without windows": {**GROUPED, "sliding_window": None, "layer_types": ["full_attention"] * 2},
    "olmo": {**GROUPED, "clip_qkv": 0.4},
    "olmo with biases": {**SMALL, "attention_bias": True, "tie_word_embeddings": True},
    "olmo2": GROUPED,
    "olmo2 with biases": {**GROUPED, "attention_bias": True},
    "olmo3": {**GROUPED, "sliding_window": 3, "layer_types": ["sliding_attention", "full_attention"]},
    "olmo3 yarn": {**GROUPED, "head_dim": 16, "sliding_window": 3, "num_hidden_layers": 4, "rope_parameters": {
        "sliding_attention": {"rope_type": "default", "rope_theta": 900.0},
        "full_attention": {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 16}}},
    "cohere": {**GROUPED, "logit_scale": 0.3},
    "cohere with norms": {**GROUPED, "use_qk_norm": True, "attention_bias": True, "tie_word_embeddings": False},
    "cohere2": {**GROUPED, "sliding_window": 3, "sliding_window_pattern": 2},
    "cohere2 by layer": {**GROUPED, "sliding_window": 3, "layer_types": ["full_attention", "sliding_attention"], "attention_bias": True},
    "phi": {**GROUPED, "head_dim": 4},
    "phi with norms": {**SMALL, "qk_layernorm": True, "partial_rotary_factor": 1.0, "tie_word_embeddings": True},
    "phi linear": {**SMALL, "rope_parameters": {"rope_type": "linear", "rope_theta": 100.0, "factor": 2.0, "partial_rotary_factor": 0.5}},
    "persimmon": SMALL,
    "persimmon without norms": {**SMALL, "qk_layernorm": False, "hidden_act": "gelu", "partial_rotary_factor": 1.0},
    "stablelm": {**GROUPED, "hidden_size": 32},
    "stablelm with norms": {**GROUPED, "qk_layernorm": True, "use_qkv_bias": True, "partial_rotary_factor": 0.5},
    "stablelm beside": {**GROUPED, "use_parallel_residual": True, "partial_rotary_factor": 0.5},
    "starcoder2": GROUPED,
    "starcoder2 with a window": {**GROUPED, "sliding_window": 3, "use_bias": False, "tie_word_embeddings": False},
    "nemotron": {**GROUPED, "head_dim": 8},
    "nemotron with biases": {**GROUPED, "attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True},
    "mixtral": {**GROUPED, "num_local_experts": 4, "num_experts_per_tok": 2},
    "mixtral with a window": {**GROUPED, "num_local_experts": 3, "num_experts_per_tok": 1, "sliding_window": 3, "head_dim": 6},
    "qwen2_moe": {**EXPERTS, "shared_expert_intermediate_size": 10},
    "qwen2_moe by layer": {**EXPERTS, "num_hidden_layers": 4, "shared_expert_intermediate_size": 10, "norm_topk_prob": True,
                           "mlp_only_layers": [1], "decoder_sparse_step": 2, "use_sliding_window": True, "sliding_window": 3,
                           "max_window_layers": 3, "qkv_bias": False},
    "qwen3_moe": {**EXPERTS, "head_dim": 6, "norm_topk_prob": True},
    "qwen3_moe by layer": {**EXPERTS, "num_experts_per_tok": 4, "mlp_only_layers": [0], "use_sliding_window": True, "sliding_window": 3,
                           "attention_bias": True},
    "olmoe": {**EXPERTS, "norm_topk_prob": True},
    "olmoe with biases": {**EXPERTS, "clip_qkv": 0.9, "attention_bias": True},
    "bloom": {**BLOOM, "n_head": 4},
    "bloom from the norm": {**BLOOM, "n_head": 6, "hidden_size": 24, "apply_residual_connection_post_layernorm": True,
                            "tie_word_embeddings": False},
    "falcon": {**SMALL, "multi_query": True},
    "falcon with shared keys": {**SMALL, "new_decoder_architecture": True, "num_kv_heads": 2, "bias": True, "activation": "relu",
                                "ffn_hidden_size": 20},
    "falcon with one norm": {**SMALL, "new_decoder_architecture": True, "num_kv_heads": 4, "num_ln_in_parallel_attn": 1},
    "falcon in turn": {**SMALL, "multi_query": False, "parallel_attn": False, "bias": True, "tie_word_embeddings": False},
    "falcon with biases by place": {**SMALL, "alibi": True, "multi_query": False, "num_attention_heads": 8, "parallel_attn": False,
                                    "bias": True},
    "mpt": MPT,
    "mpt clipped": {**MPT, "d_model": 24, "n_heads": 6, "attn_config": {"clip_qkv": 0.5, "softmax_scale": 0.3},
                    "tie_word_embeddings": False},
    "gptj": {**GPTJ, "rotary_dim": 2},
    "gptj whole": {**GPTJ, "rotary_dim": 4, "n_inner": 20, "activation_function": "relu", "tie_word_embeddings": True},
    "codegen": {**GPTJ, "n_head": 8, "n_embd": 32, "rotary_dim": 2},
    "gpt_neo": {**NEO, "attention_types": [[["global", "local"], 1]], "window_size": 3},
    "gpt_neo by layer": {**NEO, "num_layers": 3, "attention_types": [[["local"], 2], [["global"], 1]], "window_size": 2,
                         "intermediate_size": 20, "activation_function": "relu"},
    "gpt_bigcode": GPTJ,
    "gpt_bigcode with own keys": {**GPTJ, "multi_query": False, "n_inner": 20, "scale_attn_weights": False,
                                  "tie_word_embeddings": False},
    "ernie4_5": {**GROUPED, "head_dim": 6},
    "ernie4_5 with biases": {**GROUPED, "head_dim": None, "use_bias": True, "tie_word_embeddings": False},
    "cwm": {**GROUPED, "head_dim": 8, "sliding_window": 3},
    "cwm by layer": {**GROUPED, "head_dim": 8, "sliding_window": 3, "layer_types": ["sliding_attention", "full_attention"],
                     "mlp_bias": True, "rope_parameters": {"rope_type": "default", "rope_theta": 600.0}},
    "hunyuan_v1_dense": {**GROUPED, "head_dim": 6},
    "hunyuan_v1_dense stretched": {**GROUPED, "head_dim": 8, "attention_bias": True, "rope_parameters": {
        "rope_type": "dynamic", "rope_theta": 1000.0, "alpha": 50.0, "factor": 1.0}},
    "apertus": {**GROUPED, "hidden_size": 32},
    "apertus with biases": {**GROUPED, "hidden_act": "relu", "attention_bias": True, "rope_parameters": {
        "rope_type": "default", "rope_theta": 600.0}},
    "jais2": GROUPED,
    "jais2 without biases": {**GROUPED, "attention_bias": False, "mlp_bias": False, "head_dim": 6},
    "vaultgemma": {**GROUPED, "head_dim": 6, "sliding_window": 3, "query_pre_attn_scalar": 7, "attn_logit_softcapping": 1.5},
    "biogpt": SMALL,
    "biogpt unscaled": {**SMALL, "scale_embedding": False, "hidden_act": "relu", "tie_word_embeddings": False},
    "granitemoe": {**GROUPED, "num_local_experts": 4, "num_experts_per_tok": 2, "embedding_multiplier": 3.0, "logits_scaling": 0.7,
                   "residual_multiplier": 0.4, "attention_multiplier": 0.3},
    "granitemoeshared": {**GROUPED, "num_local_experts": 4, "num_experts_per_tok": 2, "shared_intermediate_size": 10,
                         "residual_multiplier": 0.4},
    "granitemoeshared without": {**GROUPED, "num_local_experts": 3, "num_experts_per_tok": 1, "shared_intermediate_size": 0},
    "gpt_oss": {**GROUPED, "head_dim": 8, "num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 3},
    "gpt_oss bounded": {**GROUPED, "head_dim": 8, "num_local_experts": 3, "num_experts_per_tok": 1, "sliding_window": 3,
                        "swiglu_limit": 0.2, "swiglu_alpha": 0.9, "layer_types": ["full_attention"] * 2, "attention_bias": False,
                        "rope_parameters": {"rope_type": "default", "rope_theta": 600.0}},
    "deepseek_v2": {**LATENT, "num_experts_per_tok": 2},
    "deepseek_v2 of groups": {**LATENT, "num_attention_heads": 3, "num_key_value_heads": None, "hidden_size": 18, "q_lora_rank": None,
                              "n_group": 4, "topk_group": 2,
                              "n_routed_experts": 8, "topk_method": "group_limited_greedy", "num_experts_per_tok": 3,
                              "routed_scaling_factor": 1.7, "attention_bias": True, "mlp_bias": True, "first_k_dense_replace": 1,
                              "rope_parameters": {"rope_type": "yarn", "rope_theta": 500.0, "factor": 4.0, "mscale": 0.7,
                                                  "mscale_all_dim": 0.9, "original_max_position_embeddings": 16}},
    "deepseek_v3": {**LATENT, "qk_nope_head_dim": 3, "kv_lora_rank": 5, "n_group": 2, "topk_group": 1, "first_k_dense_replace": 1},
    "deepseek_v3 of one group": {**LATENT, "q_lora_rank": None, "n_group": 1, "topk_group": 1, "first_k_dense_replace": 0,
                                 "norm_topk_prob": False, "rope_interleave": False, "attention_bias": True, "n_shared_experts": 2,
                                 "tie_word_embeddings": True, "rope_parameters": {
                                     "rope_type": "yarn", "rope_theta": 500.0, "factor": 4.0, "mscale_all_dim": 1.0,
                                     "original_max_position_embeddings": 16}},
    "glm4_moe": {**ROUTED, "head_dim": 8},
    "glm4_moe with norms": {**ROUTED, "head_dim": 8, "use_qk_norm": True, "attention_bias": True, "n_routed_experts": 6, "n_group": 3,
                            "topk_group": 2, "partial_rotary_factor": 1.0, "first_k_dense_replace": 0, "tie_word_embeddings": True},
    "qwen3_next": {**EXPERTS, **DELTA, "layer_types": ["linear_attention", "full_attention"]},
    "qwen3_next by layer": {**EXPERTS, **DELTA, "num_hidden_layers": 4, "linear_num_value_heads": 2, "linear_conv_kernel_dim": 3,
                            "attention_bias": True, "norm_topk_prob": False, "mlp_only_layers": [0], "decoder_sparse_step": 2,
                            "tie_word_embeddings": True},
    "lfm2": {**GROUPED, "layer_types": ["conv", "full_attention"], "block_multiple_of": 8},
    "lfm2 with biases": {**GROUPED, "num_hidden_layers": 3, "full_attn_idxs": [1], "conv_bias": True, "conv_L_cache": 4,
                         "block_auto_adjust_ff_dim": False, "tie_word_embeddings": False},
    "phi3": GROUPED,
    "phi3 long": {**SMALL, "rope_parameters": LONG, "original_max_position_embeddings": 8, "sliding_window": 20},
}
PLAIN = tuple(name for name in CONFIGS if " " not in name)
HEADS = {"Model": "feature-extraction", "ForCausalLM": "text-generation", "ForSequenceClassification": "text-classification",
         "ForTokenClassification": "token-classification", "ForQuestionAnswering": "question-answering"}
SIZES = ((1, 1, "none"), (3, 7, "right"), (1, 12, "none"), (3, 6, "left"))


@pytest.fixture(autouse=True)
def gelu(monkeypatch: pytest.MonkeyPatch) -> None:
    """BLOOM's own approximation has 8 digits of a constant, which are all that its float32 has."""
    monkeypatch.setattr("transformers.models.bloom.modeling_bloom.bloom_gelu_forward",
                        partial(torch.nn.functional.gelu, approximate="tanh"))


def class_of(name: str, head: str) -> str | None:
    """The library's class: a family's own name for it. None where the family has none."""
    model_type = name.partition(" ")[0]
    family = family_of(model_type)
    ending = family.tasks.get(HEADS[head])
    return None if ending is None else family.classes[model_type] + ending


def made(name: str, head: str, **changes: Any) -> Any:
    fields = {**CONFIGS[name], "num_labels": 2 if head == "ForQuestionAnswering" else 3, **changes}
    config = transformers.CONFIG_MAPPING[name.partition(" ")[0]](**fields)
    # The other experts have no float64; Falcon's eager attention adds its biases twice.
    config._attn_implementation, config._experts_implementation = "sdpa" if fields.get("alibi") else "eager", "eager"
    module = randomised(getattr(transformers, str(class_of(name, head)))(config))
    if "long" in name:
        # The library makes the frequencies of long sequences when it meets one; here in float32, as it would.
        with torch.no_grad():
            module(torch.zeros((1, 9), dtype=torch.int64))
    return module


def same_weights(model: Model, module: torch.nn.Module, folder: Path) -> None:
    """The file's tensors; and the module's, but where the library keeps all experts of a layer as one."""
    if any(".experts." in name or ".block_sparse_moe." in name for name in model.parameters.names()):
        same_tensors(model, folder)
    else:
        same_parameters(model, module, folder)


def same_frequencies(model: Model, module: torch.nn.Module) -> None:
    """The constants are the library's float32 numbers, bit for bit."""
    buffers = {name: buffer for name, buffer in module.named_buffers() if name.endswith("original_inv_freq")}
    ours = {name for name in model.constants if name.endswith("inv_freq") and not name.endswith("long_inv_freq")}
    # Some modules keep sines and cosines in their place, and some keep them without a use.
    assert not buffers or not ours or {name.replace("original_", "") for name in buffers} == ours
    for name, buffer in buffers.items() if ours else ():
        assert np.array_equal(model.parameters.read(name.replace("original_", "")), buffer.numpy()), name


@pytest.mark.parametrize("name", CONFIGS)
def test_language_models_equal_the_module(name: str, tmp_path: Path) -> None:
    module = made(name, "ForCausalLM")
    model = from_folder(save(module, tmp_path))
    same_weights(model, module, tmp_path)
    same_frequencies(model, module)
    for batch, time, padding in SIZES:
        compare(model, module, tokens(batch, time, VOCABULARY, padding=padding), what=name, seen_only=True)


@pytest.mark.parametrize(("name", "head"), [(name, head) for name in PLAIN for head in HEADS
                                             if head != "ForCausalLM" and class_of(name, head)])
def test_heads_equal_the_module(name: str, head: str, tmp_path: Path) -> None:
    module = made(name, head)
    model = from_folder(save(module, tmp_path))
    same_weights(model, module, tmp_path)
    for batch, time, padding in SIZES:
        compare(model, module, tokens(batch, time, VOCABULARY, padding=padding), what=name + head, seen_only=True)


def test_every_head_that_the_library_has() -> None:
    known = set(dir(transformers))
    for name in PLAIN:
        stem = family_of(name).classes[name]
        for head, task in HEADS.items():
            there = known & {stem + head, f"{stem}Text{head}", f"{stem}LMHead{head}"}
            assert bool(there) == (task in family_of(name).tasks) or "gpt" in name and f"{stem}LMHeadModel" in known, (name, there)


@pytest.mark.parametrize("name", [name for name in PLAIN if family_of(name).optional])
def test_positions_that_are_given(name: str, tmp_path: Path) -> None:
    module = made(name, "ForCausalLM")
    model = from_folder(save(module, tmp_path), take="input_ids,attention_mask,position_ids")
    inputs = tokens(3, 6, VOCABULARY, padding="left")
    inputs["position_ids"] = np.maximum(inputs["attention_mask"].cumsum(1) - 1, 0)
    compare(model, module, inputs, what=name, seen_only=True)


@pytest.mark.parametrize("name", PLAIN)
def test_without_a_mask(name: str, tmp_path: Path) -> None:
    module = made(name, "ForCausalLM")
    model = from_folder(save(module, tmp_path), take="input_ids")
    inputs = {"input_ids": tokens(2, 9, VOCABULARY)["input_ids"]}
    compare(model, module, inputs, what=name)


@pytest.mark.parametrize("name", [*(name for name in PLAIN if family_of(name).caches), "opt after", "qwen2 with windows", "llama yarn",
                                  "smollm3 with windows", "olmo3 yarn",
                                  "falcon with shared keys", "falcon with biases by place", "lfm2 with biases"])
@pytest.mark.parametrize("padding", ["none", "left"])
def test_the_cache(name: str, padding: str, tmp_path: Path) -> None:
    """Words in three parts, each with the cache of those before, give what the module gives with its own cache."""
    module = made(name, "ForCausalLM")
    model = from_folder(save(module, tmp_path), cache=True)
    whole = tokens(2, 9, VOCABULARY, padding=padding)
    ports = {port.name: port.spec for port in model.graph.inputs}
    cached = {port: np.zeros([2 if size == "batch" else 0 if size == "past" else int(size) for size in map(str, spec.shape)], np.float32)
              for port, spec in ports.items() if port.startswith("past_key_values.")}
    ours: dict[str, Any] = dict(cached)
    past = None
    with in_float64(module), InFloat64():
        for start, stop in ((0, 5), (5, 6), (6, 9)):
            given = {"input_ids": whole["input_ids"][:, start:stop], "attention_mask": whole["attention_mask"][:, :stop]}
            found = reference.run_graph(model.graph, model.parameters, {**given, **ours}, {"batch": 2, "time": stop - start, "past": start},
                                        float_dtype=converter_float64())
            theirs = module(**{key: torch.from_numpy(value) for key, value in given.items()}, past_key_values=past, use_cache=True)
            past = theirs.past_key_values
            keep = whole["attention_mask"][:, start:stop].astype(bool)
            close(found["logits"][keep], theirs.logits.numpy()[keep], f"{name} {start}:{stop}")
            ours = {key.replace("present", "past_key_values"): value for key, value in found.items() if key.startswith("present.")}
            assert set(ours) == set(cached)


def converter_float64() -> Any:
    from converter.ir import DType

    return DType.FLOAT64


@pytest.mark.parametrize("cache", [False, True])
def test_frequencies_that_grow_with_the_sequence(cache: bool, tmp_path: Path) -> None:
    """Sequences longer than the longest of training, each longer than the one before; and one after another with a cache.

    The library keeps the frequencies of the longest so far, and computes them in PyTorch's default dtype.
    """
    torch.set_default_dtype(torch.float64)
    try:
        module = made("llama dynamic", "ForCausalLM").float()
        model = from_folder(save(module, tmp_path), cache=cache)
        assert model.graph.dims["time"].max is None
        ids = tokens(2, 40, VOCABULARY)["input_ids"]
        past: dict[str, Any] = {port.name: np.zeros((2, 2, 0, 8)) for port in model.graph.inputs if port.name.startswith("past")}
        theirs, before = None, 0
        for stop in (7, 10, 11, 25, 40):
            start = before if cache else 0
            given = {"input_ids": ids[:, start:stop], "attention_mask": np.ones((2, stop), np.int64)}
            sizes = {"batch": 2, "time": stop - start, **({"past": start} if cache else {})}
            found = reference.run_graph(model.graph, model.parameters, {**given, **past}, sizes, float_dtype=converter_float64())
            with in_float64(module), InFloat64():
                theirs = module(**{key: torch.from_numpy(value) for key, value in given.items()}, use_cache=cache,
                                past_key_values=theirs.past_key_values if cache and theirs is not None else None)
            close(found["logits"], theirs.logits.numpy(), f"{start}:{stop}")
            past = {key.replace("present", "past_key_values"): value for key, value in found.items() if key.startswith("present.")}
            before = stop
    finally:
        torch.set_default_dtype(torch.float32)


def test_experts_that_are_one_tensor(tmp_path: Path) -> None:
    """As the library's modules hold them, and as it saves them when it is asked to."""
    module = made("qwen2_moe", "ForCausalLM")
    module.save_pretrained(tmp_path, save_original_format=False)
    model = from_folder(tmp_path)
    assert "model.layers.0.mlp.experts.gate_up_proj" in model.parameters
    compare(model, module, tokens(2, 7, VOCABULARY))


@pytest.mark.parametrize("heads", [1, 2, 3, 8, 12, 32, 71, 112])
def test_slopes_are_the_librarys(heads: int) -> None:
    from transformers.models.bloom.modeling_bloom import _get_alibi_slopes
    from transformers.models.falcon.modeling_falcon import build_alibi_tensor
    from transformers.models.mpt.modeling_mpt import build_mpt_alibi_tensor

    assert np.abs(alibi.slopes(heads) / _get_alibi_slopes(heads, torch.device("cpu")).numpy() - 1).max() < 1.2e-7
    theirs = -build_mpt_alibi_tensor(heads, 2)[:, 0, 0].numpy()
    assert np.abs(alibi.mpt_slopes(heads) / theirs - 1).max() < 1.2e-7
    ours, theirs = alibi.falcon_table(heads, 2048), build_alibi_tensor(torch.ones(1, 2048, dtype=torch.int64), heads, torch.float32)
    assert np.array_equal(ours.T[:, None], theirs.numpy())


def test_a_sequence_that_is_too_long_is_refused(tmp_path: Path) -> None:
    model = from_folder(save(made("gpt2", "ForCausalLM"), tmp_path))
    assert model.graph.dims["time"].max == 32
    with pytest.raises(RunError, match="outside its range"):
        reference.run(model, tokens(1, 33, VOCABULARY))


def test_classifiers_without_a_padding_token_take_one_sequence(tmp_path: Path) -> None:
    module = made("llama", "ForSequenceClassification", pad_token_id=None)
    model = from_folder(save(module, tmp_path))
    compare(model, module, tokens(1, 7, VOCABULARY))
    with pytest.raises(RunError, match="outside its range"):
        reference.run(model, tokens(2, 3, VOCABULARY))
