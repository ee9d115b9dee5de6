"""The models that the benchmarks convert, with random weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn


@dataclass(frozen=True)
class Subject:
    """A model, its example arguments by name, and the names of its free axes."""

    module: nn.Module
    arguments: dict[str, torch.Tensor]
    axes: dict[str, list[str | None]]


class Bert(nn.Module):
    """BERT-base's shape, with plain tensors out."""

    def __init__(self) -> None:
        super().__init__()
        from transformers import BertConfig, BertModel

        self.bert = BertModel(BertConfig())

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        result = self.bert(input_ids=input_ids, attention_mask=attention_mask)
        return result.last_hidden_state, result.pooler_output


class Gpt2(nn.Module):
    """GPT-2's shape with its language-model head, without a cache."""

    def __init__(self) -> None:
        super().__init__()
        from transformers import GPT2Config, GPT2LMHeadModel

        self.gpt = GPT2LMHeadModel(GPT2Config(use_cache=False))

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        return self.gpt(input_ids=input_ids, attention_mask=attention_mask).logits  # type: ignore[no-any-return]


class Llama(nn.Module):
    """A Llama of 12 layers of 768, with grouped keys and the language-model head, without a cache."""

    def __init__(self) -> None:
        super().__init__()
        from transformers import LlamaConfig, LlamaForCausalLM

        self.llama = LlamaForCausalLM(LlamaConfig(hidden_size=768, intermediate_size=2048, num_hidden_layers=12, num_attention_heads=12,
                                                  num_key_value_heads=4, use_cache=False))

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        return self.llama(input_ids=input_ids, attention_mask=attention_mask).logits  # type: ignore[no-any-return]


class Vit(nn.Module):
    """ViT-base's shape."""

    def __init__(self) -> None:
        super().__init__()
        from transformers import ViTConfig, ViTForImageClassification

        self.vit = ViTForImageClassification(ViTConfig(num_labels=1000))

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.vit(pixels).logits  # type: ignore[no-any-return]


class ResNet(nn.Module):
    """ResNet-50's shape."""

    def __init__(self) -> None:
        super().__init__()
        from transformers import ResNetConfig, ResNetForImageClassification

        self.resnet = ResNetForImageClassification(ResNetConfig(num_labels=1000))

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.resnet(pixels).logits  # type: ignore[no-any-return]


class BidirectionalLstm(nn.Module):
    """Two bidirectional layers of 256 on words of 128."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(10000, 128)
        self.lstm = nn.LSTM(128, 256, 2, batch_first=True, bidirectional=True)
        self.out = nn.Linear(512, 10)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        states, _ = self.lstm(self.words(tokens))
        return self.out(states[:, -1])  # type: ignore[no-any-return]


def _words(batch: int, time: int, vocabulary: int) -> torch.Tensor:
    return torch.randint(1, vocabulary, (batch, time))


def _masked(batch: int, time: int, vocabulary: int) -> dict[str, torch.Tensor]:
    return {"input_ids": _words(batch, time, vocabulary), "attention_mask": torch.ones(batch, time, dtype=torch.int64)}


_TEXT: dict[str, list[str | None]] = {"input_ids": ["batch", "time"], "attention_mask": ["batch", "time"]}

SUBJECTS: dict[str, Callable[[], Subject]] = {
    "mlp": lambda: Subject(nn.Sequential(nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 10)),
                           {"input": torch.randn(32, 784)}, {"input": ["batch", None]}),
    "lstm": lambda: Subject(BidirectionalLstm(), {"tokens": _words(8, 64, 10000)}, {"tokens": ["batch", "time"]}),
    "resnet50": lambda: Subject(ResNet(), {"pixels": torch.randn(2, 3, 224, 224)}, {"pixels": ["batch", None, None, None]}),
    "bert": lambda: Subject(Bert(), _masked(2, 128, 30000), _TEXT),
    "gpt2": lambda: Subject(Gpt2(), _masked(2, 128, 50000), _TEXT),
    "llama": lambda: Subject(Llama(), _masked(2, 128, 30000), _TEXT),
    "vit": lambda: Subject(Vit(), {"pixels": torch.randn(2, 3, 224, 224)}, {"pixels": ["batch", None, None, None]}),
}


NORMALIZED = frozenset({"resnet50"})
"""Those with batch normalizations."""


def subject(name: str) -> Subject:
    """A model by name, seeded, in evaluation mode."""
    torch.manual_seed(0)
    found = SUBJECTS[name]()
    found.module.eval()
    return found


def dynamic_shapes(found: Subject) -> dict[str, Any]:
    """The free axes as `torch.export` wants them."""
    return {name: {axis: torch.export.Dim.DYNAMIC for axis, label in enumerate(labels) if label}
            for name, labels in found.axes.items()}
