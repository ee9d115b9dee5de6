"""Folders of timm: what a config.json and tensors give, beside timm's own module in float64."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import converter
from adapters.architectures.timm.folder import table
from adapters.architectures.timm.recognise import BUILDERS
from campaigns import timm_models
from campaigns.timm_table import TABLE
from tests import support_torchvision

pytestmark = pytest.mark.skipif(not support_torchvision.INSTALLED, reason=support_torchvision.REASON)

# A name, arguments that are written into the config, and what they are to show.
SAMPLE: list[tuple[str, dict[str, Any]]] = [
    ("test_resnet", {}),
    ("resnetblur18", {"layers": [1, 1, 1, 1], "channels": [32, 32, 64, 64]}),
    ("seresnextaa101d_32x8d", {"layers": [1, 1, 1, 1], "channels": [32, 32, 64, 64]}),
    ("resnet50d", {"layers": [1, 1, 1, 2], "output_stride": 8, "channels": [32, 32, 64, 64]}),
    ("resnet18", {"layers": [1, 1, 1, 2], "channels": [32, 32, 64, 64], "output_stride": 16, "global_pool": "catavgmax", "in_chans": 1}),
    ("ecaresnet26t", {"layers": [1, 1, 1, 1], "num_classes": 0, "channels": [32, 32, 64, 64]}),
    ("densenet121", {"block_config": [1, 2, 1, 2], "num_classes": 7}),
    ("test_convnext", {}),
    ("test_convnext2", {"output_stride": 8}),
    ("test_vit", {}),
    ("vit_tiny_patch16_224", {"depth": 1, "img_size": [32, 64], "global_pool": "avg"}),
    ("vit_base_patch16_siglip_224", {"depth": 1, "img_size": 48, "embed_dim": 96}),
    ("vit_small_patch14_reg4_dinov2", {"depth": 1, "img_size": 56, "dynamic_img_size": True}),
    ("vit_base_patch16_clip_224", {"depth": 1, "img_size": 32, "embed_dim": 96, "num_classes": 0}),
    ("deit_tiny_distilled_patch16_224", {"depth": 1, "img_size": 32}),
    ("test_efficientnet", {"output_stride": 16}),
    ("tf_mobilenetv3_small_minimal_100", {"num_classes": 0}),
    ("lcnet_050", {"global_pool": "max"}),
    ("mobilenetv4_conv_small_035", {"in_chans": 4}),
    ("regnetx_002", {"output_stride": 8}),
    ("regnetz_005", {}),
    ("swin_tiny_patch4_window7_224", {"depths": [2, 2, 2, 2], "embed_dim": 24, "num_heads": [1, 2, 3, 4], "img_size": [72, 100]}),
    ("swinv2_tiny_window8_256", {"depths": [2, 2, 2, 2], "embed_dim": 24, "num_heads": [1, 2, 3, 4], "img_size": [72, 220],
                                 "num_classes": 0}),
]


@pytest.mark.parametrize(("name", "arguments"), SAMPLE, ids=[name for name, _ in SAMPLE])
def test_a_folder_gives_what_timms_module_gives(name: str, arguments: dict[str, Any], tmp_path: Path) -> None:
    status, reason = timm_models.compare(name, tmp_path, **arguments)
    assert status == timm_models.RIGHT, reason


@pytest.mark.long
@pytest.mark.parametrize("name", [name for name, row in table().items() if row["class"] in BUILDERS])
def test_every_architecture_is_right_or_refused(name: str) -> None:
    status, reason = timm_models.examine(name)
    assert status != timm_models.WRONG, reason


def test_the_table_is_timms(tmp_path: Path) -> None:
    from campaigns import timm_table

    assert timm_table.text() == TABLE.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["test_resnet", "test_convnext", "test_vit"])
def test_onnx_runtime_gives_the_same(name: str, tmp_path: Path) -> None:
    made = timm_models.module(name)
    torch.save(made.state_dict(), tmp_path / "pytorch_model.bin")
    (tmp_path / "config.json").write_text(json.dumps(timm_models.config(name)))
    model = converter.from_checkpoint(tmp_path)
    side = model.graph.inputs[0].spec.shape[2]
    side = side if isinstance(side, int) else 64
    x = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = made(x).numpy()
    for runtime in ("reference", "onnxruntime"):
        found = converter.session(model, runtime).run({"x": x.numpy()})["output"]
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4 * float(np.abs(expected).max()))
