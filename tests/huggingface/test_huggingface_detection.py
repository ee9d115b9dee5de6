"""Models that find things in images, recognised by their config.json, equal transformers' own modules."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from converter.errors import ConverterError
from tests.huggingface_support import change_config, compare, from_folder, randomised, same_tensors, save, transformers

Arrays = dict[str, np.ndarray[Any, Any]]
SMALL = {"d_model": 16, "encoder_layers": 2, "decoder_layers": 2, "encoder_ffn_dim": 20, "decoder_ffn_dim": 24,
         "encoder_attention_heads": 4, "decoder_attention_heads": 2, "num_queries": 5, "num_labels": 3}
RESNET = {"embedding_size": 6, "hidden_sizes": [8, 12], "depths": [2, 1], "layer_type": "basic"}
OTHER = {**SMALL, "position_embedding_type": "learned", "encoder_attention_heads": 1, "activation_function": "gelu", "auxiliary_loss": True}


def made(head: str, fields: dict[str, Any] = SMALL, stem: str = "Detr", **backbone: Any) -> Any:
    config = getattr(transformers, f"{stem}Config")(**fields, backbone_config=transformers.ResNetConfig(**{**RESNET, **backbone}))
    return randomised(getattr(transformers, f"{stem}{head}")(config))


def images(batch: int, height: int, width: int, *, masked: bool = True) -> Arrays:
    """Images, the later of which end before the last row and column."""
    draw = np.random.default_rng(height)
    given = {"pixel_values": draw.standard_normal((batch, 3, height, width)).astype(np.float32)}
    mask = np.ones((batch, height, width), np.int64)
    for row in range(1, batch):
        mask[row, height - row * height // 4:] = 0
        mask[row, :, width - row * width // 5:] = 0
    return {**given, "pixel_mask": mask} if masked else given


@pytest.mark.parametrize(("head", "fields", "backbone"), [
    ("Model", SMALL, {}), ("ForObjectDetection", SMALL, {"layer_type": "bottleneck", "out_features": ["stage1"]}),
    ("ForObjectDetection", OTHER, {"downsample_in_first_stage": True, "out_indices": [1, 2], "hidden_act": "silu"}),
    ("Model", SMALL, {"stem": "TableTransformer"}), ("ForObjectDetection", OTHER, {"stem": "TableTransformer"}),
])
def test_detr(head: str, fields: dict[str, Any], backbone: dict[str, Any], tmp_path: Path) -> None:
    module = made(head, fields, **backbone)
    model = from_folder(save(module, tmp_path))
    same_tensors(model, tmp_path)
    assert not [note for note in model.metadata.get("notes", ()) if "not known" in note]
    for batch, height, width in ((1, 32, 32), (3, 61, 90)):
        compare(model, module, images(batch, height, width), what=head)
    compare(from_folder(tmp_path, take="pixel_values"), module, images(2, 40, 33, masked=False), what=head)


NAMES = ((r"embedder\.embedder\.convolution", "conv1"), (r"embedder\.embedder\.normalization", "bn1"),
         (r"shortcut\.convolution", "downsample.0"), (r"shortcut\.normalization", "downsample.1"))


def to_timm(name: str) -> str:
    """timm's name of one of the library's ResNet's tensors."""
    for ours, theirs in NAMES:
        name = re.sub(ours, theirs, name)
    name = re.sub(r"encoder\.stages\.(\d+)\.layers\.", lambda found: f"layer{int(found[1]) + 1}.", name)
    return re.sub(r"layer\.(\d+)\.(convolution|normalization)",
                  lambda found: f"{'conv' if found[2] == 'convolution' else 'bn'}{int(found[1]) + 1}", name)


@pytest.mark.parametrize("changes", [
    {"backbone_config": None, "use_timm_backbone": True, "backbone": "resnet18",
     "backbone_kwargs": {"in_chans": 3, "out_indices": [1, 2, 3, 4]}},
    {"backbone_config": {"model_type": "timm_backbone", "backbone": "resnet18.a1_in1k", "out_indices": [1, 2, 3, 4],
                         "output_stride": None}}])
def test_backbones_of_timm(changes: dict[str, Any], tmp_path: Path) -> None:
    module = made("ForObjectDetection", layer_type="basic", embedding_size=64, hidden_sizes=[64, 128, 256, 512], depths=[2, 2, 2, 2])
    save(module, tmp_path)
    held = {to_timm(name) if "backbone" in name else name: value for name, value in load_file(tmp_path / "model.safetensors").items()}
    assert "model.backbone.conv_encoder.model.layer3.0.downsample.1.running_var" in held
    assert "model.backbone.conv_encoder.model.layer1.1.conv2.weight" in held
    save_file(held, tmp_path / "model.safetensors")
    config = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    (tmp_path / "config.json").write_text(json.dumps({**config, **changes}))
    model = from_folder(tmp_path)
    same_tensors(model, tmp_path)
    compare(model, module, images(2, 70, 50))


@pytest.mark.parametrize("changes", [
    {"backbone_kwargs": {"norm_layer": "group"}}, {"num_channels": 4}, {"position_embedding_type": "rotary"},
    {"encoder_attention_heads": 3}, {"d_model": 18}, {"use_timm_backbone": True},
    {"backbone_config": {"model_type": "swin"}}, {"backbone_config": {"model_type": "timm_backbone", "backbone": "resnest50d"}},
    {"backbone_config": {**RESNET, "model_type": "resnet", "out_features": ["stage3"]}}, {"decoder_attention_heads": 0},
])
def test_refusals(changes: dict[str, Any], tmp_path: Path) -> None:
    save(made("Model"), tmp_path)
    change_config(tmp_path, **changes)
    with pytest.raises(ConverterError, match=next(iter(changes))):
        from_folder(tmp_path)
