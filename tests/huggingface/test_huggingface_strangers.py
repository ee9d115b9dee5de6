"""Folders as others keep them: in shards, as PyTorch's own file, in half precision, and with the fewest fields of any version."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

import converter
from converter import reference
from converter.dims import evaluate
from converter.ir import DType, Model
from tests.huggingface import test_huggingface_bidirectional as encoders
from tests.huggingface import test_huggingface_decoders as decoders
from tests.huggingface import test_huggingface_detection as detection
from tests.huggingface import test_huggingface_images as images
from tests.huggingface import test_huggingface_pairs as pairs
from tests.huggingface import test_huggingface_recurrent as recurrent
from tests.huggingface import test_huggingface_seq2seq as seq2seq
from tests.huggingface import test_huggingface_speech_kin as speech
from tests.huggingface_support import compare, from_folder, save

Arrays = dict[str, np.ndarray[Any, Any]]
VOCABULARY = 40
# Whose outputs are words, of which some are hidden.
SEEN_ONLY = ("deepseek_v2", "deepseek_v3", "glm4_moe", "qwen3_next", "mamba2", "LayoutLM", "Nystromformer", "ConvBert", "SqueezeBert",
             "MobileBert", "XLNet")
SIZES = {"batch": 2, "texts": 2, "images": 2, "sounds": 2, "height": 36, "width": 45, "frames": 50, "size": 17, "samples": 180}
MODULES: dict[str, Callable[[], Any]] = {
    **{name: lambda name=name: decoders.made(name, "ForCausalLM") for name in ("deepseek_v2", "deepseek_v3", "glm4_moe", "qwen3_next")},
    "mamba2": lambda: recurrent.made("mamba2", "ForCausalLM"),
    "t5gemma": lambda: seq2seq.made("t5gemma", "ForConditionalGeneration"),
    **{stem: lambda stem=stem: encoders.made(stem, "ForMaskedLM") for stem in (
        "LayoutLM", "FNet", "Nystromformer", "ConvBert", "SqueezeBert", "MobileBert")},
    "XLNet": lambda: encoders.made("XLNet", "LMHeadModel"),
    "Wav2Vec2Conformer": lambda: speech.made("Wav2Vec2Conformer", "ForCTC", speech.CONFORMER),
    "Wav2Vec2Bert": lambda: speech.made("Wav2Vec2Bert", "ForCTC", speech.FEATURES),
    **{stem: lambda stem=stem: pairs.made(stem, "Model", text_config=pairs.TEXT, vision_config=pairs.IMAGE) for stem in (
        "CLIP", "Siglip", "ChineseCLIP")},
    "Clap": lambda: pairs.made("Clap", "Model", text_config=pairs.TEXT, audio_config=pairs.FUSED, projection_dim=7),
    "CLIPSeg": lambda: pairs.made("CLIPSeg", "ForImageSegmentation", text_config=pairs.TEXT, projection_dim=7,
                                  vision_config={**pairs.IMAGE, "image_size": 16}, extract_layers=[0, 1], reduce_dim=8),
    "Detr": lambda: detection.made("ForObjectDetection"),
    "Swinv2": lambda: images.made("Swinv2", "ForImageClassification", images.SWIN),
    "Pvt": lambda: images.made("Pvt", "ForImageClassification", images.PVT),
    "Levit": lambda: images.made("Levit", "ForImageClassification", images.LEVIT),
    "DPT": lambda: images.made("DPT", "ForDepthEstimation", images.DPT),
}


def inputs(model: Model) -> Arrays:
    """Some of each kind, of small sizes."""
    draw = np.random.default_rng(0)
    sizes = {name: max(given.min, min(given.max or 200, SIZES.get(name, 6))) for name, given in model.graph.dims.items()}
    found: Arrays = {}
    for port in model.graph.inputs:
        shape = [evaluate(size, sizes) for size in port.spec.shape]
        if port.spec.dtype.is_float:
            found[port.name] = draw.standard_normal(shape).astype(np.float32)
        elif port.spec.dtype is DType.BOOL:
            found[port.name] = draw.random(shape) < 0.5
        elif "mask" in port.name:
            found[port.name] = np.ones(shape, np.int64)
            if port.name == "attention_mask":
                found[port.name][1:, -1] = 0
        else:
            found[port.name] = draw.integers(3, VOCABULARY if port.name.endswith("input_ids") else 4, shape)
    if "token_type_ids" in found:
        found["token_type_ids"] %= 2
    return found


def equal(folder: Path, module: Any, name: str) -> Model:
    model = from_folder(folder)
    compare(model, module, inputs(model), what=name, seen_only=name in SEEN_ONLY)
    return model


@pytest.mark.parametrize("name", MODULES)
def test_in_shards_and_as_pytorchs_file(name: str, tmp_path: Path) -> None:
    module = MODULES[name]()
    module.save_pretrained(tmp_path / "shards", max_shard_size="6KB")
    assert (tmp_path / "shards/model.safetensors.index.json").is_file()
    first = equal(tmp_path / "shards", module, name)
    save(module, tmp_path / "one")
    held = load_file(tmp_path / "one/model.safetensors")
    torch.save({key: torch.from_numpy(value) for key, value in held.items()}, tmp_path / "one/pytorch_model.bin")
    (tmp_path / "one/model.safetensors").unlink()
    second = from_folder(tmp_path / "one")
    assert first.graph == second.graph
    for key in held:
        assert second.parameters.read(key).tobytes() == held[key].tobytes()


@pytest.mark.parametrize("name", MODULES)
def test_in_half_precision(name: str, tmp_path: Path) -> None:
    """The graph's floats are half ones, and its parameters the file's: equal to the module of those numbers."""
    module = MODULES[name]()
    with torch.no_grad():
        for value in (*module.parameters(), *module.buffers()):
            if value.is_floating_point():
                value.copy_(value.half())
    save(module, tmp_path)
    held = load_file(tmp_path / "model.safetensors")
    save_file({key: value.astype(np.float16) if value.dtype == np.float32 else value for key, value in held.items()},
              tmp_path / "model.safetensors")
    model = from_folder(tmp_path)
    assert all(port.spec.dtype is DType.FLOAT16 for port in model.graph.inputs if port.spec.dtype.is_float)
    assert any(spec.dtype is DType.FLOAT16 for spec in (model.parameters.spec(key) for key in held))


def fewest(fields: dict[str, Any], usual: dict[str, Any]) -> dict[str, Any]:
    """The fields without those that have the library's default."""
    found = {}
    for name, value in fields.items():
        if isinstance(value, dict) and isinstance(usual.get(name), dict) and name.endswith(("_config", "encoder", "decoder")):
            found[name] = fewest(value, usual[name])
        elif name in ("model_type", "architectures") or name not in usual or usual[name] != value:
            found[name] = value
    return found


@pytest.mark.parametrize("name", MODULES)
def test_a_config_with_the_fewest_fields(name: str, tmp_path: Path) -> None:
    """What a file does not say is what the library's class has by default."""
    module = MODULES[name]()
    save(module, tmp_path)
    file = tmp_path / "config.json"
    fields = json.loads(file.read_text(encoding="utf-8"))
    less = fewest(fields, json.loads(type(module.config)().to_json_string(use_diff=False)))
    assert len(less) < len(fields)
    file.write_text(json.dumps(less))
    equal(tmp_path, module, name)


@pytest.mark.parametrize("runtime", ["numpy", "onnxruntime"])
@pytest.mark.parametrize("name", ["deepseek_v3", "qwen3_next", "t5gemma", "FNet", "ConvBert", "XLNet", "Wav2Vec2Bert", "Clap", "Detr"])
def test_runtimes(name: str, runtime: str, tmp_path: Path) -> None:
    model = from_folder(save(MODULES[name](), tmp_path))
    given = inputs(model)
    truth = reference.run(model, given, float_dtype="float64")
    ours = converter.session(model, runtime).run(given)
    for port, expected in truth.items():
        assert np.abs(ours[port] - expected).max() < 1e-4 * np.abs(expected).max(), port
