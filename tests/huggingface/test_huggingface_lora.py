"""LoRA adapters merged into their base: what peft's formula gives."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import converter
from converter.errors import ConverterError, FormatError, ParameterError, UnsupportedError
from tests.huggingface.test_huggingface_encoders import VOCABULARY, made
from tests.huggingface_support import compare, save, tokens


def adapter(folder: Path, layers: dict[str, torch.Tensor], rank: int = 3, **fields: Any) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """A folder as peft saves it, of an adapter for some layers' weights [out, in]; gives A and B of each."""
    draw = torch.Generator().manual_seed(0)
    found = {name: (torch.randn(rank, weight.shape[1], generator=draw), torch.randn(weight.shape[0], rank, generator=draw))
             for name, weight in layers.items()}
    folder.mkdir(exist_ok=True)
    save_file({f"base_model.model.{name}.lora_{part}.weight": tensor for name, pair in found.items()
               for part, tensor in zip("AB", pair, strict=True)}, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({
        "peft_type": "LORA", "r": rank, "lora_alpha": 6, "base_model_name_or_path": "somebody/base", "fan_in_fan_out": False,
        "bias": "none", "task_type": "SEQ_CLS", "init_lora_weights": True, "use_dora": False, **fields}))
    return found


@pytest.mark.parametrize("stabilized", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_adapter_is_merged_into_its_base(dtype: torch.dtype, stabilized: bool, tmp_path: Path) -> None:
    module = made("Bert", "ForSequenceClassification").to(dtype)
    base = save(module, tmp_path / "base")
    names = ["bert.encoder.layer.0.attention.self.query", "bert.encoder.layer.1.output.dense"]
    state = module.state_dict()
    pairs = adapter(tmp_path / "lora", {name: state[f"{name}.weight"] for name in names}, use_rslora=stabilized,
                    alpha_pattern={"output.dense": 5})
    for name, (down, up) in pairs.items():
        scaling = (5 if "output" in name else 6) / (math.sqrt(3) if stabilized else 3)
        state[f"{name}.weight"] += (up @ down * scaling).to(dtype)
    model = converter.from_checkpoint(tmp_path / "lora", base=str(base))
    for name in model.parameters:
        got, want = model.parameters.read(name).astype(np.float32), state[name].float().numpy()
        if any(name == f"{layer}.weight" for layer in names):
            np.testing.assert_allclose(got, want, rtol=2e-2 if dtype is torch.bfloat16 else 1e-6, atol=1e-6)
        else:
            assert np.array_equal(got, want)
    if dtype is torch.float32:
        compare(model, module, {**tokens(2, 5, VOCABULARY), "token_type_ids": np.zeros((2, 5), np.int64)})
    assert any("merged into 2 tensors" in note for note in model.metadata["source"]["notes"])
    assert set(model.metadata["source"]["files"]) == {"model.safetensors", "adapter_model.safetensors"}


@pytest.mark.parametrize(("fields", "error", "part"), [
    ({"use_dora": True}, UnsupportedError, "use_dora"), ({"bias": "all"}, UnsupportedError, "bias"),
    ({"alpha_pattern": {".*": 3}}, UnsupportedError, "alpha_pattern"),
    ({"peft_type": "IA3"}, UnsupportedError, "peft_type"), ({"init_lora_weights": "pissa"}, UnsupportedError, "init_lora_weights")])
def test_other_adapters_are_refused(fields: dict[str, Any], error: type[ConverterError], part: str, tmp_path: Path) -> None:
    module = made("Bert", "Model")
    base = save(module, tmp_path / "base")
    name = "encoder.layer.0.output.dense"
    adapter(tmp_path / "lora", {name: module.state_dict()[f"{name}.weight"]}, **fields)
    with pytest.raises(error, match=part):
        converter.from_checkpoint(tmp_path / "lora", base=str(base))


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    module = made("Bert", "Model")
    base = save(module, tmp_path / "base")
    adapter(tmp_path / "lora", {"encoder.layer.0.output.dense": module.state_dict()["encoder.layer.0.output.dense.weight"]})
    with pytest.raises(FormatError, match="somebody/base: --base"):
        converter.from_checkpoint(tmp_path / "lora")
    adapter(tmp_path / "lora", {"encoder.layer.7.output.dense": torch.ones(16, 4)})
    with pytest.raises(ParameterError, match="not the base's"):
        converter.from_checkpoint(tmp_path / "lora", base=str(base))
    adapter(tmp_path / "lora", {"encoder.layer.0.output.dense": torch.ones(16, 4)})
    with pytest.raises(ParameterError, match="do not fit"):
        converter.from_checkpoint(tmp_path / "lora", base=str(base))
