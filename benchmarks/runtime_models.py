"""The models of `benchmarks.runtime`: each with its arguments for a batch, in evaluation mode."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from benchmarks.models import SUBJECTS

Made = tuple[nn.Module, tuple[torch.Tensor, ...]]


class Elman(nn.Module):
    """Words, an Elman network of 128 units, a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.rnn, self.out = nn.Embedding(1000, 64), nn.RNN(64, 128, batch_first=True), nn.Linear(128, 1000)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.out(self.rnn(self.words(tokens))[0])  # type: ignore[no-any-return]


class Gru(nn.Module):
    """A GRU of 256 units over 64 features."""

    def __init__(self) -> None:
        super().__init__()
        self.gru, self.out = nn.GRU(64, 256, batch_first=True), nn.Linear(256, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.gru(x)[0][:, -1])  # type: ignore[no-any-return]


class UNet(nn.Module):
    """Three levels of two convolutions each, joined on the way up."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        sizes = [width, width * 2, width * 4]
        self.down = nn.ModuleList(self._pair(before, after) for before, after in zip([3, *sizes], sizes, strict=False))
        self.up = nn.ModuleList(nn.ConvTranspose2d(size * 2, size, 2, 2) for size in sizes[:-1][::-1])
        self.join = nn.ModuleList(self._pair(size * 2, size) for size in sizes[:-1][::-1])
        self.out = nn.Conv2d(width, 2, 1)

    @staticmethod
    def _pair(before: int, after: int) -> nn.Module:
        return nn.Sequential(nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU(),
                             nn.Conv2d(after, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        kept = []
        for level, block in enumerate(self.down):
            x = block(x if level == 0 else nn.functional.max_pool2d(x, 2))
            kept.append(x)
        for up, join, beside in zip(self.up, self.join, kept[-2::-1], strict=True):
            x = join(torch.cat([up(x), beside], 1))
        return self.out(x)  # type: ignore[no-any-return]


def _conv_1d() -> nn.Module:
    layers: list[nn.Module] = []
    for before, after in ((1, 32), (32, 64), (64, 128)):
        layers += [nn.Conv1d(before, after, 9, stride=2, padding=4), nn.BatchNorm1d(after), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(128, 10))


def _subject(name: str) -> Callable[[int], Made]:
    def make(batch: int) -> Made:
        found = SUBJECTS[name]()
        return found.module, tuple(value[:1].repeat(batch, *[1] * (value.ndim - 1)) for value in found.arguments.values())

    return make


def _classifier(name: str) -> Callable[[int], Made]:
    def make(batch: int) -> Made:
        from tests.support_torchvision import module

        return module(name), (torch.randn(batch, 3, 224, 224),)

    return make


def _minilm(batch: int) -> Made:
    from fixtures.sentence_encoder.model import trained

    return trained(), (torch.randint(1000, 20000, (batch, 32)), torch.ones(batch, 32, dtype=torch.int64))


def _whisper(batch: int) -> Made:
    from transformers import WhisperConfig
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = WhisperEncoder(WhisperConfig(d_model=384, encoder_layers=4, encoder_attention_heads=6, encoder_ffn_dim=1536))

        def forward(self, features: torch.Tensor) -> torch.Tensor:
            return self.encoder(features).last_hidden_state  # type: ignore[no-any-return]

    return Encoder(), (torch.randn(batch, 80, 3000),)


def _rows(module: Callable[[], nn.Module], *sizes: int) -> Callable[[int], Made]:
    return lambda batch: (module(), (torch.randn(batch, *sizes),))


MODELS: dict[str, Callable[[int], Made]] = {
    "mlp": _subject("mlp"),
    "elman": lambda batch: (Elman(), (torch.randint(0, 1000, (batch, 50)),)),
    "gru": _rows(Gru, 50, 64),
    "lstm": _subject("lstm"),
    "conv1d": _rows(_conv_1d, 1, 1024),
    "unet": _rows(UNet, 3, 128, 128),
    "minilm": _minilm,
    "bert": _subject("bert"),
    "gpt2": _subject("gpt2"),
    "llama": _subject("llama"),
    "vit": _subject("vit"),
    "resnet18": _classifier("resnet18"),
    "resnet50": _classifier("resnet50"),
    "mobilenet_v3": _classifier("mobilenet_v3_large"),
    "convnext": _classifier("convnext_tiny"),
    "efficientnet": _classifier("efficientnet_b0"),
    "whisper": _whisper,
}


def build(name: str, batch: int) -> Made:
    """A model by name, seeded, in evaluation mode, and its arguments for a batch."""
    torch.manual_seed(0)
    module, args = MODELS[name](batch)
    return module.eval(), args
