"""Small models with random weights, exported to ONNX by torch's two exporters: files of another tool to read.

    python -m benchmarks.onnx_exports FOLDER [MODEL …]
"""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch


@dataclass(frozen=True)
class Export:
    """A module, what it is traced with, the names of its inputs, and which of their axes are free: {input: {axis: name}}."""

    module: torch.nn.Module
    args: tuple[torch.Tensor, ...]
    names: Sequence[str]
    free: dict[str, dict[int, str]]


class _Named(torch.nn.Module):
    """A Hugging Face model whose inputs are positional, and whose results are tensors."""

    def __init__(self, model: torch.nn.Module, names: Sequence[str], results: Callable[[Any], Any]) -> None:
        super().__init__()
        self.model, self.names, self.results = model, names, results

    def forward(self, *args: torch.Tensor) -> Any:
        return self.results(self.model(**dict(zip(self.names, args, strict=True))))


class _Cached(torch.nn.Module):
    """A decoder with a cache whose tensors are inputs and results: [batch, heads, past, size] for each layer's keys and values."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, *past: torch.Tensor) -> tuple[torch.Tensor, ...]:
        from transformers import DynamicCache

        cache = DynamicCache()
        for layer in range(len(past) // 2):
            cache.update(past[2 * layer], past[2 * layer + 1], layer)
        found = self.model(input_ids=input_ids, attention_mask=attention_mask, past_key_values=cache, use_cache=True)
        present = [tensor for layer in found.past_key_values.layers for tensor in (layer.keys, layer.values)]
        return (found.logits, *present)


class Tagger(torch.nn.Module):
    """Words to tags through a bidirectional LSTM."""

    def __init__(self) -> None:
        super().__init__()
        self.words = torch.nn.Embedding(100, 24)
        self.lstm = torch.nn.LSTM(24, 16, num_layers=2, bidirectional=True, batch_first=True)
        self.tags = torch.nn.Linear(32, 7)

    def forward(self, words: torch.Tensor) -> torch.Tensor:
        return self.tags(self.lstm(self.words(words))[0])


TEXT = {"input_ids": {0: "batch", 1: "time"}, "attention_mask": {0: "batch", 1: "time"}}


def _text(words: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randint(3, 90, (2, words)), torch.ones(2, words, dtype=torch.int64)


def bert(words: int = 6, **sizes: Any) -> Export:
    from transformers import BertConfig, BertModel

    config = BertConfig(**{"vocab_size": 100, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64,
                           "max_position_embeddings": 40, **sizes})
    names, (tokens, mask) = (*TEXT, "token_type_ids"), _text(words)
    return Export(_Named(BertModel(config), names, lambda found: (found.last_hidden_state, found.pooler_output)),
                  (tokens, mask, torch.zeros_like(tokens)), names, dict.fromkeys(names, TEXT["input_ids"]))


def gpt2(**sizes: Any) -> Export:
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(**{"vocab_size": 100, "n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 40, "use_cache": False, **sizes})
    return Export(_Named(GPT2LMHeadModel(config), tuple(TEXT), lambda found: found.logits), _text(), tuple(TEXT), TEXT)


def _llama(**options: Any) -> torch.nn.Module:
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(LlamaConfig(**{
        "vocab_size": 100, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
        "intermediate_size": 96, "max_position_embeddings": 64, **options}))


def llama(**sizes: Any) -> Export:
    return Export(_Named(_llama(use_cache=False, **sizes), tuple(TEXT), lambda found: found.logits), _text(), tuple(TEXT), TEXT)


def _with_cache(model: torch.nn.Module, heads: int, size: int, layers: int = 2) -> Export:
    past = [torch.randn(2, heads, 3, size) for _ in range(2 * layers)]
    names = [f"past_key_values.{layer}.{kind}" for layer in range(layers) for kind in ("key", "value")]
    free = {"input_ids": {0: "batch", 1: "time"}, "attention_mask": {0: "batch", 1: "past + time"},
            **{name: {0: "batch", 2: "past"} for name in names}}
    return Export(_Cached(model), (torch.randint(3, 90, (2, 4)), torch.ones(2, 7, dtype=torch.int64), *past),
                  ("input_ids", "attention_mask", *names), free)


def llama_cached(**sizes: Any) -> Export:
    return _with_cache(_llama(**sizes), 2, 16)


def gpt2_cached(**sizes: Any) -> Export:
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(**{"vocab_size": 100, "n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 40, **sizes})
    return _with_cache(GPT2LMHeadModel(config), 2, 16)


def vit(**sizes: Any) -> Export:
    from transformers import ViTConfig, ViTForImageClassification

    config = ViTConfig(**{"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64, "image_size": 32,
                          "patch_size": 8, **sizes})
    return Export(_Named(ViTForImageClassification(config), ("pixel_values",), lambda found: found.logits), (torch.randn(2, 3, 32, 32)
                  if "image_size" not in sizes else torch.randn(1, 3, sizes["image_size"], sizes["image_size"]),), ("pixel_values",),
                  {"pixel_values": {0: "batch"}})


def resnet50(size: int = 64, **sizes: Any) -> Export:
    from transformers import ResNetConfig, ResNetForImageClassification

    config = ResNetConfig(**{"embedding_size": 8, "hidden_sizes": [16, 32, 64, 128], "depths": [3, 4, 6, 3], "layer_type": "bottleneck",
                             **sizes})
    return Export(_Named(ResNetForImageClassification(config), ("pixel_values",), lambda found: found.logits),
                  (torch.randn(2, 3, size, size),), ("pixel_values",), {"pixel_values": {0: "batch"}})


def whisper(**sizes: Any) -> Export:
    from transformers import WhisperConfig, WhisperModel

    config = WhisperConfig(**{"vocab_size": 100, "d_model": 32, "encoder_layers": 2, "encoder_attention_heads": 2, "encoder_ffn_dim": 64,
                              "decoder_layers": 1, "decoder_attention_heads": 2, "num_mel_bins": 8, "max_source_positions": 20,
                              "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1,
                              "suppress_tokens": None, "begin_suppress_tokens": None, **sizes})
    encoder = WhisperModel(config).encoder
    return Export(_Named(encoder, ("input_features",), lambda found: found.last_hidden_state),
                  (torch.randn(2, config.num_mel_bins, 2 * config.max_source_positions),), ("input_features",),
                  {"input_features": {0: "batch"}})


def tagger(**sizes: Any) -> Export:
    return Export(Tagger(), (torch.randint(0, 100, (2, 5)),), ("words",), {"words": {0: "batch", 1: "time"}})


MODELS: dict[str, Callable[..., Export]] = {
    "bert": bert, "gpt2": gpt2, "gpt2_cached": gpt2_cached, "llama": llama, "llama_cached": llama_cached, "vit": vit,
    "resnet50": resnet50, "whisper": whisper, "tagger": tagger}


def write(export: Export, path: Path, dynamo: bool, external: bool = False) -> Path:
    """Writes an ONNX file through one of torch's exporters, quietly. `external`: the weights beside it, which only the newer one does."""
    module = export.module.eval()
    logging.disable(logging.ERROR)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), torch.no_grad():
        warnings.simplefilter("ignore")
        if dynamo:
            auto = torch.export.Dim.DYNAMIC
            shapes = tuple({axis: auto if "+" in text else text for axis, text in export.free.get(name, {}).items()}
                           for name in export.names)
            given: Any = (shapes,) if isinstance(module, _Named) else (*shapes[:2], shapes[2:]) if isinstance(module, _Cached) else shapes
            torch.onnx.export(module, export.args, str(path), dynamo=True, input_names=list(export.names), dynamic_shapes=given,
                              verbose=False, external_data=external)
        else:
            free = {name: {axis: text.replace("past + time", "whole") for axis, text in axes.items()}
                    for name, axes in export.free.items()}
            torch.onnx.export(module, export.args, str(path), dynamo=False, input_names=list(export.names), dynamic_axes=free,
                              opset_version=17)
    logging.disable(logging.NOTSET)
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("models", nargs="*")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    for name in options.models or MODELS:
        for dynamo in (True, False):
            torch.manual_seed(0)
            path = options.folder / f"{name}.{'dynamo' if dynamo else 'torchscript'}.onnx"
            try:
                write(MODELS[name](), path, dynamo)
                print(path)
            except Exception as error:  # an exporter's own, which is no failure of the others
                print(f"{path}: {type(error).__name__}: {str(error)[:300]}")


if __name__ == "__main__":
    main()
