"""Small folders as transformers, sentence-transformers, peft and timm save them, with random weights."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

Files = dict[str, bytes]


def files_of(folder: Path) -> Files:
    """What lies in a folder, its document first."""
    paths = sorted((path for path in folder.rglob("*") if path.is_file()), key=lambda path: (len(path.name), path.name))
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


SIZES = {
    "vocab_size": 20,
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 12,
    "max_position_embeddings": 16,
    "pad_token_id": 0,
}
GPT2 = {"vocab_size": 20, "n_embd": 8, "n_layer": 1, "n_head": 2, "n_positions": 16}
T5 = {"vocab_size": 20, "d_model": 8, "d_kv": 4, "d_ff": 12, "num_layers": 1, "num_heads": 2, "relative_attention_num_buckets": 8}
BART = {
    "vocab_size": 20,
    "d_model": 8,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 12,
    "decoder_ffn_dim": 12,
    "max_position_embeddings": 16,
}
IMAGE = {**SIZES, "image_size": 8, "patch_size": 4, "num_channels": 3}
ROPE = {
    "rope_type": "llama3",
    "rope_theta": 500.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8,
}
FAMILIES: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "bert": ("ForSequenceClassification", SIZES),
    "distilbert": (
        "ForMaskedLM",
        {"vocab_size": 20, "dim": 8, "n_layers": 1, "n_heads": 2, "hidden_dim": 12, "max_position_embeddings": 16},
    ),
    "gpt2": ("LMHeadModel", GPT2),
    "llama": ("ForCausalLM", {**SIZES, "num_key_value_heads": 1, "rope_parameters": ROPE}),
    "mixtral": ("ForCausalLM", {**SIZES, "num_key_value_heads": 1, "num_local_experts": 2}),
    "bloom": ("ForCausalLM", {"vocab_size": 20, "hidden_size": 8, "n_layer": 1, "n_head": 2}),
    "gemma2": ("ForCausalLM", {**SIZES, "head_dim": 4, "num_key_value_heads": 1}),
    "t5": ("ForConditionalGeneration", T5),
    "bart": ("ForConditionalGeneration", BART),
    "vit": ("ForImageClassification", IMAGE),
    "convnext": ("Model", {"hidden_sizes": [4, 8], "depths": [1, 1], "num_stages": 2, "patch_size": 4}),
    "swin": ("Model", {"embed_dim": 8, "depths": [1, 1], "num_heads": [2, 2], "window_size": 2, "image_size": 16, "patch_size": 4}),
    "wav2vec2": (
        "ForCTC",
        {
            **SIZES,
            "conv_dim": [8, 8],
            "conv_stride": [5, 2],
            "conv_kernel": [10, 3],
            "num_feat_extract_layers": 2,
            "num_conv_pos_embeddings": 4,
            "num_conv_pos_embedding_groups": 2,
        },
    ),
    "mamba": ("ForCausalLM", {"vocab_size": 20, "hidden_size": 8, "num_hidden_layers": 1, "state_size": 4, "pad_token_id": 0}),
}


def _transformers_folder(kind: str) -> Files:
    from tests import support_torchvision

    support_torchvision.models()
    import transformers

    head, fields = FAMILIES[kind]
    config = transformers.AutoConfig.for_model(kind, **fields)
    stem = type(config).__name__.removesuffix("Config")
    with tempfile.TemporaryDirectory() as name:
        getattr(transformers, stem + head)(config).save_pretrained(name)
        found = files_of(Path(name))
    config_json = json.loads(found["config.json"])
    return {"config.json": json.dumps(config_json).encode(), "model.safetensors": found["model.safetensors"]}


def huggingface_seeds(wide: bool) -> list[Files]:
    return [_transformers_folder(kind) for kind in (FAMILIES if wide else ("bert", "gpt2", "t5"))]


def sharded_seeds(wide: bool) -> list[Files]:
    from safetensors.numpy import load, save

    whole = _transformers_folder("bert")
    tensors = load(whole["model.safetensors"])
    names = sorted(tensors)
    files: Files = {"config.json": whole["config.json"]}
    places = {}
    for part, held in enumerate((names[:9], names[9:])):
        file = f"model-{part + 1:05}-of-00002.safetensors"
        files[file] = save({name: tensors[name] for name in held})
        places |= dict.fromkeys(held, file)
    return [{"model.safetensors.index.json": json.dumps({"metadata": {"total_size": 1}, "weight_map": places}).encode(), **files}]


def sentence_seeds(wide: bool) -> list[Files]:
    from safetensors.numpy import save

    modules = [
        {"idx": at, "name": str(at), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for at, (path, kind) in enumerate(
            (("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Dense", "Dense"), ("3_Normalize", "Normalize"))
        )
    ]
    pooling = {"word_embedding_dimension": 8, "pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True, "include_prompt": True}
    dense = {"out_features": 4, "bias": True, "activation_function": "torch.nn.modules.activation.Tanh"}
    base = _transformers_folder("bert") if wide else _transformers_folder("distilbert")
    return [
        {
            "modules.json": json.dumps(modules).encode(),
            "1_Pooling/config.json": json.dumps(config).encode(),
            "2_Dense/config.json": json.dumps({**dense, "in_features": width}).encode(),
            "2_Dense/model.safetensors": save({"linear.weight": np.ones((4, width), np.float32), "linear.bias": np.ones(4, np.float32)}),
            **base,
        }
        for config, width in ((pooling, 8), ({"embedding_dimension": 8, "pooling_mode": ["mean", "cls"]}, 16))
    ]


def adapter_seeds(wide: bool) -> list[Files]:
    from safetensors.numpy import save

    found = []
    for kind, layer, shape in (
        ("bert", "bert.encoder.layer.0.attention.self.query", (8, 8)),
        ("gpt2", "transformer.h.0.attn.c_attn", (24, 8)),
    ):
        config = {
            "peft_type": "LORA",
            "r": 2,
            "lora_alpha": 4,
            "base_model_name_or_path": "somebody/base",
            "fan_in_fan_out": kind == "gpt2",
            "bias": "none",
            "task_type": "SEQ_CLS",
            "init_lora_weights": True,
            "use_dora": False,
            "use_rslora": True,
            "alpha_pattern": {"query": 3},
            "target_modules": ["query"],
        }
        tensors = {
            f"base_model.model.{layer}.lora_A.weight": np.ones((2, shape[1]), np.float32),
            f"base_model.model.{layer}.lora_B.weight": np.ones((shape[0], 2), np.float32),
        }
        found.append(
            {
                "adapter_config.json": json.dumps(config).encode(),
                "adapter_model.safetensors": save(tensors),
                **{f"base/{name}": data for name, data in _transformers_folder(kind).items()},
            }
        )
    return found


TIMM = {
    "resnet10t": {"channels": [8, 8, 8, 8]},
    "convnext_atto": {"depths": [1, 1, 1, 1], "dims": [4, 4, 8, 8]},
    "vit_tiny_patch16_224": {"embed_dim": 12, "depth": 1, "num_heads": 3, "img_size": 32},
    "swin_tiny_patch4_window7_224": {"embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2], "window_size": 2, "img_size": 32},
    "regnetx_002": {"num_classes": 2},
    "lcnet_035": {"num_classes": 2},
    "mobilenetv3_small_050": {"num_classes": 2},
}


def timm_seeds(wide: bool) -> list[Files]:
    from safetensors.torch import save

    from campaigns.timm_models import config, module

    found = []
    for name, arguments in (TIMM if wide else dict(list(TIMM.items())[:2])).items():
        tensors = {key: value.detach().contiguous().clone() for key, value in module(name, **arguments).state_dict().items()}
        found.append({"config.json": json.dumps(config(name, **arguments)).encode(), "model.safetensors": save(tensors)})
    return found
