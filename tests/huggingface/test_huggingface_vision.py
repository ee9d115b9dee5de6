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
SWIN = {"embed_dim": 8, "depths": [2, 3], "num_heads": [2, 4], "window_size": 3, "image_size": 32, "patch_size": 4}
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


SWINS: list[tuple[str, dict[str, Any], list[tuple[int, int]]]] = [
    # Whole windows, windows to complete, odd maps to halve, patches to complete, a map of one window, images not square.
    ("Model", SWIN, [(48, 48), (32, 32), (40, 60), (33, 47), (17, 24), (24, 70), (23, 18)]),
    ("ForImageClassification", {**SWIN, "qkv_bias": False, "mlp_ratio": 2.5, "hidden_act": "relu", "layer_norm_eps": 1e-3},
     [(32, 32), (29, 61)]),
    ("Model", {**SWIN, "use_absolute_embeddings": True, "image_size": [32, 48]}, [(32, 48)]),
    ("Model", {**SWIN, "patch_size": [2, 4], "window_size": 4, "depths": [1, 2, 2], "num_heads": [1, 2, 2]},
     [(32, 64), (25, 49), (50, 66)]),
    ("Model", {**SWIN, "window_size": 1}, [(7, 9)]),
]


@pytest.mark.parametrize(("head", "fields", "sizes"), SWINS)
def test_swin(head: str, fields: dict[str, Any], sizes: list[tuple[int, int]], tmp_path: Path) -> None:
    module = made("Swin", head, fields)
    model = from_folder(save(module, tmp_path))
    assert set(model.constants) == {"relative_position_index"}
    same_tensors(model, tmp_path)
    for height, width in sizes:
        # A module of its own for each size: running a small image changes what it computes of the next.
        compare(model, made("Swin", head, fields), pixels(2, height, width), what=f"{height} {width}")


def test_swin_of_a_checkpoint_as_the_newest_code_names_it(tmp_path: Path) -> None:
    module = made("Swin", "ForImageClassification", SWIN)
    save(module, tmp_path)
    (tmp_path / "model.safetensors").unlink()
    state = module.state_dict()
    state["swin.encoder.layers.0.blocks.1.attention.self.relative_position_index"] = torch.zeros(9, 9, dtype=torch.int64)
    torch.save(state, tmp_path / "pytorch_model.bin")
    model = from_folder(tmp_path)
    assert "swin.encoder.layers.0.blocks.1.attention.q_proj.weight" in model.parameters.names()
    compare(model, module, pixels(1, 32, 40))


def test_swin_refuses_an_image_smaller_than_its_windows(tmp_path: Path) -> None:
    model = from_folder(save(made("Swin", "Model", SWIN), tmp_path))
    with pytest.raises(RunError, match="outside its range"):
        reference.run(model, pixels(1, 16, 32))
    with pytest.raises(RuntimeError):  # as the library's own module
        made("Swin", "Model", SWIN)(torch.from_numpy(pixels(1, 16, 32)["pixel_values"]))


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
    ("Swin", SWIN, {"depths": [2, 2, 2]}), ("Swin", SWIN, {"window_size": 0}), ("Swin", SWIN, {"num_heads": [3, 4]}),
    ("Swin", SWIN, {"window_size": 5}), ("Swin", SWIN, {"num_layers": 3}),
])
def test_refusals(stem: str, fields: dict[str, Any], changes: dict[str, Any], tmp_path: Path) -> None:
    save(made(stem, "Model", fields), tmp_path)
    change_config(tmp_path, **changes)
    with pytest.raises(ConverterError):
        from_folder(tmp_path)


@pytest.mark.parametrize(("stem", "fields", "size"), [("Dinov2", SMALL, (20, 12)), ("Swin", SWIN, (37, 56))])
def test_runtimes(stem: str, fields: dict[str, Any], size: tuple[int, int], tmp_path: Path) -> None:
    import converter

    module = made(stem, "ForImageClassification", fields)
    model = from_folder(save(module, tmp_path))
    given = pixels(2, *size)
    with torch.no_grad():
        truth = module(**{name: torch.from_numpy(value) for name, value in given.items()}).logits.numpy()
    for runtime in ("numpy", "onnxruntime"):
        assert np.abs(converter.session(model, runtime).run(given)["logits"] - truth).max() < 1e-4 * np.abs(truth).max()
