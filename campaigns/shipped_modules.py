"""The modules that packages ship trained files for, of the packages' own classes: `--module campaigns.shipped_modules:NAME`.

The packages lie unpacked, each in a folder of its name, in the folder that SHIPPED names; nothing of them is installed. Libraries that
their files import and the modules do not use (audio, images) are stood in for.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import json
import os
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import MagicMock

import torch
from torch import Tensor, nn

UNUSED = ("librosa", "webrtcvad", "ssg", "nptyping", "resampy", "torchaudio", "skimage", "soundfile", "matplotlib", "madmom", "pyaudio",
          "cv2", "scipy", "yaml", "local_attention", "einops", "tqdm", "torchvision", "PIL", "requests")


class _StandIn(MetaPathFinder, Loader):
    """Finds what is not installed, of `UNUSED`, as modules that have everything."""

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:
        return ModuleSpec(name, self, is_package=True) if name.partition(".")[0] in UNUSED else None

    def create_module(self, spec: ModuleSpec) -> Any:
        found = MagicMock(name=spec.name)
        found.__path__, found.__all__ = [], []
        return found

    def exec_module(self, module: ModuleType) -> None:
        pass


def folder(package: str) -> Path:
    """Where a package lies."""
    return Path(os.environ["SHIPPED"]) / package


def _import(package: str, name: str) -> Any:
    if not any(isinstance(finder, _StandIn) for finder in sys.meta_path):
        sys.meta_path.append(_StandIn())
    if str(folder(package)) not in sys.path:
        sys.path.append(str(folder(package)))
    return importlib.import_module(name)


def _alone(package: str, file: str) -> Any:
    """One file of a package, without what its package imports beside it."""
    name = f"shipped_{package}_{Path(file).stem}"
    spec = importlib.util.spec_from_file_location(name, folder(package) / file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def crepe_tiny() -> nn.Module:
    return _import("torchcrepe", "torchcrepe.model").Crepe("tiny")  # type: ignore[no-any-return]


def crepe_full() -> nn.Module:
    return _import("torchcrepe", "torchcrepe.model").Crepe("full")  # type: ignore[no-any-return]


def _facenet(name: str) -> nn.Module:
    return getattr(_import("facenet_pytorch", "facenet_pytorch.models.mtcnn"), name)(pretrained=False)  # type: ignore[no-any-return]


def pnet() -> nn.Module:
    return _facenet("PNet")


def rnet() -> nn.Module:
    return _facenet("RNet")


def onet() -> nn.Module:
    return _facenet("ONet")


def resemblyzer() -> nn.Module:
    return _import("Resemblyzer", "resemblyzer.voice_encoder").VoiceEncoder("cpu", verbose=False)  # type: ignore[no-any-return]


class _Heads(nn.Module):
    """LPIPS' own layers above the network that it compares images by: the weights that it ships."""

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        layer = _import("lpips", "lpips.lpips").NetLinLayer
        for number, width in enumerate(widths):
            setattr(self, f"lin{number}", layer(width, use_dropout=True))

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        parts = [getattr(self, f"lin{number}")(feature).mean((2, 3), keepdim=True) for number, feature in enumerate(features)]
        return torch.stack(parts).sum(0)


def lpips_alex() -> nn.Module:
    return _Heads((64, 192, 384, 256, 256))


def lpips_squeeze() -> nn.Module:
    return _Heads((64, 128, 256, 384, 384, 512, 512))


def _attacut(name: str) -> nn.Module:
    config = dict(line.split(": ") for line in (folder("attacut") / f"attacut/artifacts/{name}/params.yml").read_text().split("\n") if line)
    module = _import("attacut", f"attacut.models.{config['name']}")
    held = torch.load(folder("attacut") / f"attacut/artifacts/{name}/model.pth", map_location="cpu")
    rows = {key: len(value) for key, value in held.items() if "embeddings" in key}
    tokens = rows.get("sy_embeddings.weight", rows.get("embeddings.weight"))
    sizes = {"num_char_tokens": rows.get("ch_embeddings.weight"), "num_tokens": tokens}
    return module.Model(sizes, config["params"])  # type: ignore[no-any-return]


def attacut_c() -> nn.Module:
    return _attacut("attacut-c")


def attacut_sc() -> nn.Module:
    return _attacut("attacut-sc")


def pesto() -> nn.Module:
    module = _import("pesto_pitch", "pesto.model")
    held = torch.load(folder("pesto_pitch") / "pesto/weights/mir-1k_g7.ckpt", map_location="cpu", weights_only=False)
    return module.Resnet1d(**held["hparams"]["encoder"])  # type: ignore[no-any-return]


def fcpe() -> nn.Module:
    module = _import("torchfcpe", "torchfcpe.models")
    told = torch.load(folder("torchfcpe") / "torchfcpe/assets/fcpe_c_v001.pt", map_location="cpu")["config_dict"]
    config = {**told["model"], "input_channels": told["mel"]["num_mels"]}
    accepted = inspect.signature(module.CFNaiveMelPE).parameters
    return module.CFNaiveMelPE(**{name: value for name, value in config.items() if name in accepted})  # type: ignore[no-any-return]


def beatnet() -> nn.Module:
    module = _alone("BeatNet", "BeatNet/model.py")
    sys.modules["model"] = module  # where the whole modules that it ships say that their class is
    return module.BDA(272, 150, 2, "cpu")  # type: ignore[no-any-return]


def khmer() -> nn.Module:
    module = _alone("khmer_ocr_ocm", "khmer_ocr_ocm/model.py")
    letters = json.loads((folder("khmer_ocr_ocm") / "khmer_ocr_ocm/assets/vocab.json").read_text(encoding="utf-8"))
    return module.CRNN(48, len(letters["char2idx"]) + 1)  # type: ignore[no-any-return]


class _WordLlama(nn.Module):
    """What WordLlama computes of token ids: the mean of their rows."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(32000, 256)

    def forward(self, ids: Tensor) -> Tensor:
        return self.embedding(ids).mean(1)


def wordllama() -> nn.Module:
    return _WordLlama()
