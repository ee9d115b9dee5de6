"""Which module knows which `model_type`, and under which name: a table, so that only the one that is needed is imported."""

from __future__ import annotations

import importlib

from adapters.huggingface.family import Family

MODULES = {
    "bert": "bert",
    "roberta": "roberta",
    "xlm-roberta": "roberta",
    "camembert": "roberta",
    "electra": "electra",
    "distilbert": "distilbert",
    "albert": "albert",
    "mpnet": "mpnet",
    "gpt2": "gpt2",
    "gpt_neox": "gpt_neox",
    "opt": "opt",
    "llama": "llama:LLAMA",
    "mistral": "llama:MISTRAL",
    "qwen2": "llama:QWEN2",
    "qwen3": "llama:QWEN3",
    "phi3": "llama:PHI3",
    "gemma": "gemma:GEMMA",
    "gemma2": "gemma:GEMMA2",
    "gemma3_text": "gemma:GEMMA3",
    "ministral": "llama_kin:MINISTRAL",
    "granite": "llama_kin:GRANITE",
    "smollm3": "llama_kin:SMOLLM3",
    "helium": "llama_kin:HELIUM",
    "arcee": "llama_kin:ARCEE",
    "seed_oss": "llama_kin:SEED_OSS",
    "glm": "llama_kin:GLM",
    "glm4": "llama_kin:GLM4",
    "exaone4": "llama_kin:EXAONE4",
    "olmo": "olmo:OLMO",
    "olmo2": "olmo:OLMO2",
    "olmo3": "olmo:OLMO3",
    "cohere": "cohere:COHERE",
    "cohere2": "cohere:COHERE2",
    "phi": "phi:PHI",
    "persimmon": "phi:PERSIMMON",
    "stablelm": "phi:STABLELM",
    "starcoder2": "phi:STARCODER2",
    "nemotron": "phi:NEMOTRON",
    "mixtral": "experts:MIXTRAL",
    "qwen2_moe": "experts:QWEN2_MOE",
    "qwen3_moe": "experts:QWEN3_MOE",
    "olmoe": "experts:OLMOE",
    "bloom": "alibi:BLOOM",
    "falcon": "alibi:FALCON",
    "mpt": "alibi:MPT",
    "gptj": "gptj:GPTJ",
    "codegen": "gptj:CODEGEN",
    "gpt_neo": "gptj:GPT_NEO",
    "gpt_bigcode": "gptj:GPT_BIGCODE",
    "mamba": "mamba",
    "rwkv": "rwkv",
    "t5": "t5",
    "mt5": "t5",
    "bart": "bart",
    "mbart": "bart",
    "whisper": "whisper",
    "wav2vec2": "wav2vec2",
    "hubert": "wav2vec2:HUBERT",
    "vit": "vit:VIT",
    "deit": "vit:DEIT",
    "dinov2": "dinov2",
    "convnext": "convnext",
    "swin": "swin",
    "clip": "clip:BOTH",
    "clip_text_model": "clip:ONLY_TEXT",
    "clip_vision_model": "clip:ONLY_IMAGE",
}


def family_of(model_type: str) -> Family:
    """The family of a known model type."""
    module, _, name = MODULES[model_type].partition(":")
    found: Family = getattr(importlib.import_module(f"adapters.huggingface.{module}"), name or "FAMILY")
    return found
