"""Vision models recognised by their config.json equal transformers' own modules."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from converter import reference
from converter.errors import ConverterError, RunError
from tests.huggingface_support import change_config, close, compare, from_folder, randomised, run_module, same_tensors, save, transformers

SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 24, "image_size": 12, "patch_size": 4}
TEXT = {"vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24,
        "max_position_embeddings": 20, "eos_token_id": 39, "projection_dim": 10}
IMAGE = {**SMALL, "projection_dim": 10}
CONVNEXT = {"num_stages": 3, "hidden_sizes": [8, 12, 16], "depths": [1, 2, 1], "patch_size": 2}
CASES: list[tuple[str, str, dict[str, Any]]] = [
    ("ViT", "Model", SMALL), ("ViT", "ForImageClassification", {**SMALL, "qkv_bias": False}),
    ("ViT", "Model", {**SMALL, "pooler_output_size": 6, "pooler_act": "relu", "image_size": [8, 16]}),
    ("DeiT", "Model", SMALL), ("DeiT", "ForImageClassification", SMALL), ("DeiT", "ForImageClassificationWithTeacher", SMALL),
    ("Dinov2", "Model", SMALL), ("Dinov2", "ForImageClassification", {**SMALL, "mlp_ratio": 3}),
    ("Dinov2", "Model", {**SMALL, "use_swiglu_ffn": True, "use_mask_token": False}),
    ("ConvNext", "Model", CONVNEXT),
    ("ConvNext", "ForImageClassification", {**CONVNEXT, "layer_scale_init_value": 0.0, "hidden_act": "relu"}),
    ("CLIPVision", "Model", IMAGE), ("CLIPVision", "ModelWithProjection", IMAGE),
]


def made(stem: str, head: str, fields: dict[str, Any]) -> Any:
    config = getattr(transformers, f"{stem}Config")(**fields)
    config.num_labels = 3
    return randomised(getattr(transformers, stem + head)(config))


def pixels(batch: int, height: int, width: int, seed: int = 0) -> dict[str, np.ndarray[Any, Any]]:
    return {"pixel_values": np.random.default_rng(seed).standard_normal((batch, 3, height, width)).astype(np.float32)}


@pytest.mark.parametrize(("stem", "head", "fields"), CASES)
def test_equals_the_module(stem: str, head: str, fields: dict[str, Any], tmp_path: Path) -> None:
    module = made(stem, head, fields)
    model = from_folder(save(module, tmp_path))
    same_tensors(model, tmp_path)
    height, width = fields["image_size"] if isinstance(fields.get("image_size"), list) else (12, 12)
    for batch in (1, 3):
        compare(model, module, pixels(batch, height, width), what=stem + head)


@pytest.mark.parametrize(("stem", "fields"), [("Dinov2", SMALL), ("ConvNext", CONVNEXT)])
def test_images_of_any_size(stem: str, fields: dict[str, Any], tmp_path: Path) -> None:
    module = made(stem, "Model", fields)
    model = from_folder(save(module, tmp_path))
    for height, width in ((8, 20), (17, 30), (40, 9)):
        compare(model, module, pixels(2, height, width), what=stem)
    with pytest.raises(RunError, match="outside its range"):
        reference.run(model, pixels(1, 3, 12))


def texts(batch: int, time: int) -> dict[str, np.ndarray[Any, Any]]:
    ids = np.random.default_rng(batch).integers(3, 38, (batch, time))
    mask = np.ones_like(ids)
    for row in range(batch):
        end = max(time - 1 - row, 0)
        ids[row, end], mask[row, end + 1:] = 39, 0
    return {"input_ids": ids, "attention_mask": mask}


@pytest.mark.parametrize("end", [39, 2])
@pytest.mark.parametrize("head", ["Model", "ModelWithProjection"])
def test_texts(head: str, end: int, tmp_path: Path) -> None:
    module = made("CLIPText", head, {**TEXT, "eos_token_id": end})
    model = from_folder(save(module, tmp_path))
    same_tensors(model, tmp_path)
    for batch, time in ((1, 1), (3, 8)):
        compare(model, module, texts(batch, time), what=head, seen_only=True)


def test_both_together(tmp_path: Path) -> None:
    module = randomised(transformers.CLIPModel(transformers.CLIPConfig(text_config=TEXT, vision_config=IMAGE, projection_dim=10)))
    model = from_folder(save(module, tmp_path))
    same_tensors(model, tmp_path)
    given = {**texts(3, 6), **pixels(2, 12, 12)}
    compare(model, module, given)
    whole = run_module(module, given, ("text_embeds", "image_embeds"))
    for task, name, wanted in (("text-embedding", "text_embeds", texts(3, 6)), ("image-embedding", "image_embeds", pixels(2, 12, 12))):
        alone = reference.run(from_folder(tmp_path, task=task), wanted, float_dtype="float64")[name]
        close(alone / np.linalg.norm(alone, axis=-1, keepdims=True), whole[name], task)


def test_a_classifier_on_the_image_encoder(tmp_path: Path) -> None:
    config = transformers.CLIPConfig(text_config=TEXT, vision_config=IMAGE, num_labels=3)
    module = randomised(transformers.CLIPForImageClassification(config))
    compare(from_folder(save(module, tmp_path)), module, pixels(2, 12, 12))


def test_fields_that_older_files_reset(tmp_path: Path) -> None:
    """`text_config_dict` is taken before `text_config`, with the class's values for what it leaves out."""
    module = randomised(transformers.CLIPModel(transformers.CLIPConfig(text_config=TEXT, vision_config=IMAGE, projection_dim=10)))
    save(module, tmp_path)
    change_config(tmp_path, text_config_dict={**TEXT, "hidden_act": "gelu"})
    other = transformers.CLIPModel.from_pretrained(tmp_path).eval()
    assert other.config.text_config.hidden_act == "gelu"
    compare(from_folder(tmp_path), other, {**texts(3, 6), **pixels(2, 12, 12)})


@pytest.mark.parametrize(("stem", "fields", "changes"), [
    ("ViT", SMALL, {"image_size": 3}), ("ViT", SMALL, {"patch_size": "4"}), ("ViT", SMALL, {"image_size": [12]}),
    ("ViT", SMALL, {"hidden_act": "sine"}), ("ViT", SMALL, {"image_size": 16}), ("ViT", SMALL, {"num_channels": 1}),
    ("Dinov2", SMALL, {"image_size": [12, 16]}), ("ConvNext", CONVNEXT, {"depths": [1, 2]}),
    ("ConvNext", CONVNEXT, {"hidden_sizes": [8, 12, 17]}),
    ("CLIPVision", IMAGE, {"num_attention_heads": 3}),
])
def test_refusals(stem: str, fields: dict[str, Any], changes: dict[str, Any], tmp_path: Path) -> None:
    save(made(stem, "Model", fields), tmp_path)
    change_config(tmp_path, **changes)
    with pytest.raises(ConverterError):
        from_folder(tmp_path)


def test_runtimes(tmp_path: Path) -> None:
    import converter

    module = made("Dinov2", "ForImageClassification", SMALL)
    model = from_folder(save(module, tmp_path))
    with torch.no_grad():
        truth = module(**{name: torch.from_numpy(value) for name, value in pixels(2, 20, 12).items()}).logits.numpy()
    for runtime in ("numpy", "onnxruntime"):
        assert np.abs(converter.session(model, runtime).run(pixels(2, 20, 12))["logits"] - truth).max() < 1e-4 * np.abs(truth).max()
