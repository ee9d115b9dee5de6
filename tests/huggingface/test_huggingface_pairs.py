"""Models of images and texts, or of sounds, recognised by their config.json, equal transformers' own modules."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converter import reference
from converter.errors import ConverterError
from tests.huggingface_support import change_config, close, compare, from_folder, randomised, run_module, same_tensors, save, transformers
from tests.huggingface_support import tokens as words

Arrays = dict[str, np.ndarray[Any, Any]]
COMMON = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
TEXT = {**COMMON, "vocab_size": 40, "max_position_embeddings": 12}
IMAGE = {**COMMON, "image_size": 13, "patch_size": 4}
ROWS = {**COMMON, "patch_size": 2, "num_patches": 16}


def made(stem: str, head: str, **fields: Any) -> Any:
    config = getattr(transformers, f"{stem}Config")(**fields)
    config.num_labels = 3
    return randomised(getattr(transformers, stem + head)(config))


def pixels(batch: int, side: int = 13) -> Arrays:
    return {"pixel_values": np.random.default_rng(batch).standard_normal((batch, 3, side, side)).astype(np.float32)}


def rows(*shapes: tuple[int, int], patches: int = 14) -> Arrays:
    """Images of so many rows and columns of patches each."""
    found = np.array(shapes)
    draw = np.random.default_rng(len(shapes)).standard_normal((len(shapes), patches, 12)).astype(np.float32)
    return {"pixel_values": draw, "spatial_shapes": found,
            "pixel_attention_mask": (np.arange(patches) < found.prod(1, keepdims=True)).astype(np.int64)}


@pytest.mark.parametrize("stem", ["SiglipText", "Siglip2Text"])
def test_siglips_text(stem: str, tmp_path: Path) -> None:
    module = made(stem, "Model", **TEXT, projection_size=10)
    model = from_folder(save(module, tmp_path))
    same_tensors(model, tmp_path)
    for batch, time in ((1, 1), (3, 12)):
        compare(model, module, words(batch, time, 40, padding="right"))


@pytest.mark.parametrize("head", [True, False])
def test_siglips_image(head: bool, tmp_path: Path) -> None:
    module = made("SiglipVision", "Model", **IMAGE, vision_use_head=head)
    model = from_folder(save(module, tmp_path / "one"))
    same_tensors(model, tmp_path / "one")
    compare(model, module, pixels(2))
    module = made("Siglip2Vision", "Model", **ROWS, vision_use_head=head)
    model = from_folder(save(module, tmp_path / "two"))
    same_tensors(model, tmp_path / "two")
    # Rows and columns fewer and more than the 4 · 4 positions, and patches after those of the image.
    for shapes in ([(2, 7)], [(4, 3), (1, 5), (7, 2), (3, 4)]):
        compare(model, module, rows(*shapes))


@pytest.mark.parametrize(("stem", "image"), [("Siglip", IMAGE), ("Siglip2", ROWS)])
def test_siglip_of_both(stem: str, image: dict[str, Any], tmp_path: Path) -> None:
    shown = pixels(2) if stem == "Siglip" else rows((2, 7), (3, 3))
    module = made(stem, "Model", text_config=TEXT, vision_config=image)
    model = from_folder(save(module, tmp_path / "both"))
    same_tensors(model, tmp_path / "both")
    compare(model, module, {**words(3, 6, 40, padding="left"), **shown})
    alone = reference.run(from_folder(tmp_path / "both", task="image-embedding"), shown, float_dtype="float64")["pooler_output"]
    whole = run_module(module, {**words(3, 6, 40), **shown}, ("image_embeds",))["image_embeds"]
    close(alone / np.linalg.norm(alone, axis=-1, keepdims=True), whole, stem)
    module = made(stem, "ForImageClassification", text_config=TEXT, vision_config=image)
    compare(from_folder(save(module, tmp_path / "classes")), module, shown)


@pytest.mark.parametrize(("stem", "part"), [("Siglip", "vision_config"), ("Blip", "text_config"), ("ChineseCLIP", "vision_config")])
def test_unknown_fields_of_a_part_are_said(stem: str, part: str, tmp_path: Path) -> None:
    fields = {"text_config": TEXT if stem != "Blip" else {**TEXT, "encoder_hidden_size": 16}, "vision_config": IMAGE}
    folder = save(made(stem, "Model", **fields), tmp_path)
    assert not any("not known" in note for note in from_folder(folder).metadata.get("notes", ()))
    change_config(folder, **{part: {**json.loads((folder / "config.json").read_text(encoding="utf-8"))[part], "gate": True}})
    assert any(f"{part}.gate" in note for note in from_folder(folder).metadata["notes"])


def test_blip(tmp_path: Path) -> None:
    text, image = {**TEXT, "num_attention_heads": 4}, {**IMAGE, "hidden_act": "relu"}
    for head, shown in (("Model", 2), ("ForImageTextRetrieval", 3)):
        module = made("Blip", head, text_config=text, vision_config=image, projection_dim=7, image_text_hidden_size=5)
        model = from_folder(save(module, tmp_path / head))
        same_tensors(model, tmp_path / head)
        compare(model, module, {**words(3, 6, 40, padding="right"), **pixels(shown)}, what=head)
    for stem, fields, given in (("BlipText", text, words(2, 7, 40, padding="left")), ("BlipVision", image, pixels(2))):
        module = made(stem, "Model", **fields)
        model = from_folder(save(module, tmp_path / stem))
        same_tensors(model, tmp_path / stem)
        compare(model, module, given, what=stem)


@pytest.mark.parametrize("fields", [{}, {"use_complex_transposed_convolution": True, "conditional_layer": 1}])
def test_clipseg(fields: dict[str, Any], tmp_path: Path) -> None:
    """A text for each image; square images of any size, whose positions are resized."""
    image = {**IMAGE, "image_size": 16, "num_hidden_layers": 3}
    config = {"text_config": TEXT, "vision_config": image, "projection_dim": 7, "extract_layers": [0, 2], "reduce_dim": 8,
              "decoder_num_attention_heads": 2, "decoder_intermediate_size": 10, **fields}
    module = made("CLIPSeg", "ForImageSegmentation", **config)
    model = from_folder(save(module, tmp_path / "one"))
    same_tensors(model, tmp_path / "one")
    assert not [note for note in model.metadata.get("notes", ()) if "not known" in note]
    for side in (16, 13, 25):
        compare(model, module, {**words(3, 6, 40, padding="right"), **pixels(3, side)}, what=str(side))
    module = made("CLIPSeg", "Model", **config)
    compare(from_folder(save(module, tmp_path / "both")), module, {**words(3, 6, 40), **pixels(2, 20)})


def test_chinese_clip(tmp_path: Path) -> None:
    module = made("ChineseCLIP", "Model", text_config={**TEXT, "type_vocab_size": 3}, vision_config=IMAGE, projection_dim=7)
    model = from_folder(save(module, tmp_path))
    same_tensors(model, tmp_path)
    compare(model, module, {**words(3, 6, 40, padding="right"), **pixels(2)})


SOUND = {"spec_size": 32, "num_mel_bins": 8, "window_size": 2, "patch_size": 4, "patch_stride": [2, 2], "patch_embeds_hidden_size": 8,
         "depths": [2, 1, 2], "num_attention_heads": [2, 4, 1], "hidden_size": 32, "mlp_ratio": 2.0}
FUSED = {**SOUND, "enable_fusion": True, "fusion_type": "aff_2d", "aff_block_r": 2, "qkv_bias": False, "hidden_act": "relu"}


def sounds(batch: int, frames: int, channels: int) -> Arrays:
    given = {"input_features": np.random.default_rng(frames).standard_normal((batch, channels, frames, 8)).astype(np.float32)}
    return {**given, "is_longer": np.arange(batch)[:, None] % 2 == 0} if channels > 1 else given


@pytest.mark.parametrize("sound", [SOUND, FUSED])
def test_clap(sound: dict[str, Any], tmp_path: Path) -> None:
    """Spectrograms of any length up to that of the image, crops of the longer ones joined to them."""
    channels, text = 4 if sound is FUSED else 1, {**TEXT, "num_attention_heads": 4}
    module = made("Clap", "Model", text_config=text, audio_config=sound, projection_dim=7, projection_hidden_act="gelu")
    model = from_folder(save(module, tmp_path / "both"))
    same_tensors(model, tmp_path / "both")
    assert not [note for note in model.metadata.get("notes", ()) if "not known" in note]
    for frames in (1, 100, 128):
        compare(model, module, {**words(3, 6, 40, padding="right"), **sounds(2, frames, channels)}, what=str(frames))
    for head in ("Model", "ModelWithProjection"):
        for stem, fields, given in (("ClapText", text, words(2, 7, 40, padding="left")), ("ClapAudio", sound, sounds(3, 77, channels))):
            module = made(stem, head, **fields, projection_dim=6)
            model = from_folder(save(module, tmp_path / (stem + head)))
            compare(model, module, given, what=stem + head)


@pytest.mark.parametrize("head", ["Model", "ForAudioClassification"])
def test_spectrograms(head: str, tmp_path: Path) -> None:
    fields = {**COMMON, "patch_size": 3, "frequency_stride": 2, "time_stride": 3, "max_length": 11, "num_mel_bins": 8}
    module = made("AST", head, **fields)
    model = from_folder(save(module, tmp_path))
    same_tensors(model, tmp_path)
    compare(model, module, {"input_values": np.random.default_rng(0).standard_normal((2, 11, 8)).astype(np.float32)})


@pytest.mark.parametrize(("stem", "fields", "changes"), [
    ("Siglip2Vision", ROWS, {"num_patches": 15}), ("SiglipVision", IMAGE, {"image_size": [12, 12]}),
    ("BlipText", TEXT, {"position_embedding_type": "relative_key"}), ("BlipVision", IMAGE, {"image_size": [13, 13]}),
    ("SiglipText", TEXT, {"projection_size": 7}), ("AST", {**COMMON, "max_length": 32, "num_mel_bins": 20}, {"patch_size": 21}),
    ("ClapAudio", SOUND, {"num_mel_bins": 7}), ("ClapAudio", SOUND, {"spec_size": 40}),
    ("ClapAudio", FUSED, {"fusion_type": "channel_map"}),
])
def test_refusals(stem: str, fields: dict[str, Any], changes: dict[str, Any], tmp_path: Path) -> None:
    save(made(stem, "Model", **fields), tmp_path)
    change_config(tmp_path, **changes)
    with pytest.raises(ConverterError, match="head.weight" if "projection_size" in changes else next(iter(changes))):
        from_folder(tmp_path)
