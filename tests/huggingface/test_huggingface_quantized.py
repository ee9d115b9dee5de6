"""Folders of quantised weights: what is read is bit for bit what each library's own formula gives for what its own layout packs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file, save_file

import converter
from adapters.architectures.huggingface.quantized.weights import dequantized
from converter import reference
from converter.cli.main import cli
from converter.errors import ConverterError, FormatError, UnsupportedError
from converter.parameters import InMemoryParameters
from tests.huggingface.test_huggingface_encoders import VOCABULARY, made
from tests.huggingface_support import change_config, save, tokens

Tensors = dict[str, torch.Tensor]
LAYER = "layer.0.intermediate.dense"


def words(columns: list[list[int]], bits: int) -> torch.Tensor:
    """Rows of integers, the first in the lowest bits of one long number, cut into words of 32 bits: int32 [rows, words]."""
    made = []
    for row in columns:
        number = sum(value << (bits * place) for place, value in enumerate(row))
        count = -(-len(row) * bits // 32)
        made.append([(number >> (32 * place)) & 0xFFFFFFFF for place in range(count)])
    return torch.from_numpy(np.array(made, np.uint32).view(np.int32))


def drawn(high: int, *shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, high, shape, generator=torch.Generator().manual_seed(seed))


def scales(*shape: int, dtype: torch.dtype = torch.float16) -> torch.Tensor:
    return (torch.rand(shape, generator=torch.Generator().manual_seed(1)) / 50 + 1e-3).to(dtype)


def gptq(weight: torch.Tensor, bits: int, form: str) -> tuple[Tensors, torch.Tensor, dict[str, Any]]:
    out, width = weight.shape
    integers, zeros, scale = drawn(1 << bits, width, out), drawn(1 << bits, 4, out, seed=2), scales(4, out)
    index = drawn(4, width, seed=3).int()
    kept = zeros.clone()
    zeros = zeros + (form == "gptq")
    packed = words(integers.T.tolist(), bits).T.contiguous()
    parts = {"qweight": packed, "qzeros": words(kept.tolist(), bits), "scales": scale, "g_idx": index}
    expected = (scale[index.long()] * (integers - zeros[index.long()])).T
    return parts, expected, {"quant_method": "gptq", "bits": bits, "group_size": width // 4, "desc_act": True, "checkpoint_format": form}


def awq(weight: torch.Tensor) -> tuple[Tensors, torch.Tensor, dict[str, Any]]:
    out, width = weight.shape
    integers, zeros, scale = drawn(16, width, out), drawn(16, 2, out, seed=2), scales(2, out)
    order = [0, 2, 4, 6, 1, 3, 5, 7]

    def packed(values: torch.Tensor) -> torch.Tensor:
        return words(values.reshape(len(values), -1, 8)[..., order].reshape(len(values), -1).tolist(), 4)

    group = width // 2
    expected = ((integers - zeros.repeat_interleave(group, 0)) * scale.repeat_interleave(group, 0)).T
    return ({"qweight": packed(integers), "qzeros": packed(zeros), "scales": scale}, expected,
            {"quant_method": "awq", "bits": 4, "group_size": group, "zero_point": True, "version": "gemm"})


def gemv(weight: torch.Tensor) -> tuple[Tensors, torch.Tensor, dict[str, Any]]:
    """Values and zero points in order; the groups of a row padded to eight."""
    out, width = weight.shape
    integers, zeros, scale = drawn(16, out, width), drawn(16, out, 2, seed=2), scales(out, 2)
    padded = torch.nn.functional.pad(scale, (0, 6))
    expected = (integers - zeros.repeat_interleave(width // 2, 1)) * scale.repeat_interleave(width // 2, 1)
    return ({"qweight": words(integers.tolist(), 4), "qzeros": words(zeros.tolist(), 4), "scales": padded}, expected,
            {"quant_method": "awq", "bits": 4, "group_size": width // 2, "zero_point": True, "version": "gemv"})


def marlin(weight: torch.Tensor, groups: int) -> tuple[Tensors, torch.Tensor, dict[str, Any]]:
    """As AutoAWQ's WQLinear_Marlin packs: tiles of 16 by 16, each thread's eight values of four tiles together, even ones first."""
    out, width = weight.shape
    integers, scale = drawn(16, width, out), scales(groups, out)
    order: list[int] = []
    for thread in range(32):
        rows = [2 * (thread % 4), 2 * (thread % 4) + 1, 2 * (thread % 4) + 8, 2 * (thread % 4) + 9]
        own = [16 * row + thread // 4 + 8 * block for block in (0, 1) for row in rows]
        order += [own[place] + 256 * tile for tile in range(4) for place in (0, 2, 4, 6, 1, 3, 5, 7)]
    tiles = integers.reshape(width // 16, 16, out // 16, 16).permute(0, 2, 1, 3).reshape(-1, 1024)[:, order].reshape(width // 16, -1)
    several = [row + 8 * column for row in range(8) for column in range(8)]
    one = [2 * row + place for row in range(4) for place in (0, 1, 8, 9, 16, 17, 24, 25)]
    places = several if groups > 1 else one
    kept = scale.reshape(-1, len(places))[:, places].reshape(groups, out)
    expected = ((integers - 8) * scale.repeat_interleave(width // groups, 0)).T
    return ({"qweight": words(tiles.tolist(), 4), "scales": kept}, expected,
            {"quant_method": "awq", "bits": 4, "group_size": width // groups, "zero_point": False, "version": "marlin"})


def packed(weight: torch.Tensor, bits: int, groups: int, zero: bool, ordered: bool = False) -> tuple[Tensors, torch.Tensor, dict[str, Any]]:
    """As compressed-tensors' `pack_to_int32`: what it keeps is 2^(bits - 1) more than the integer."""
    out, width = weight.shape
    integers, zeros, scale = drawn(1 << bits, out, width), drawn(1 << bits, out, groups, seed=2), scales(out, groups, dtype=torch.bfloat16)
    parts = {"weight_packed": words(integers.tolist(), bits), "weight_scale": scale, "weight_shape": torch.tensor([out, width])}
    group = torch.arange(width) // (width // groups)
    if ordered:
        group = group[torch.randperm(width, generator=torch.Generator().manual_seed(5))]
        parts["weight_g_idx"] = group.int()
    if zero:
        parts["weight_zero_point"] = words(zeros.T.tolist(), bits).T.contiguous()
    half = 1 << bits - 1
    shifted = (integers - half) - (zeros[:, group] - half if zero else 0)
    expected = shifted.to(torch.bfloat16) * scale[:, group]
    scheme = {"weights": {"num_bits": bits, "type": "int", "symmetric": not zero}, "targets": ["Linear"]}
    return parts, expected, {"quant_method": "compressed-tensors", "format": "pack-quantized", "config_groups": {"group_0": scheme}}


def without_order(weight: torch.Tensor) -> tuple[Tensors, torch.Tensor, dict[str, Any]]:
    """GPTQ of before there was a g_idx."""
    parts, _, config = gptq(weight, 4, "gptq")
    del parts["g_idx"]
    out, width = weight.shape
    index = torch.arange(width) // (width // 4)
    integers, zeros = drawn(16, width, out), drawn(16, 4, out, seed=2) + 1
    return parts, (parts["scales"][index] * (integers - zeros[index])).T, config


def eight_bits(weight: torch.Tensor) -> tuple[Tensors, torch.Tensor, dict[str, Any]]:
    largest = weight.float().abs().amax(1)
    integers = torch.round(weight.float() * 127 / largest[:, None]).to(torch.int8)
    expected = (integers * largest.view(-1, 1) * 7.874015718698502e-3).to(torch.float16)
    return ({"weight": integers, "SCB": largest, "weight_format": torch.tensor(0, dtype=torch.uint8)}, expected,
            {"quant_method": "bitsandbytes", "load_in_8bit": True})


def four_bits(weight: torch.Tensor, kind: str, nested: bool, dtype: torch.dtype,
              block: int) -> tuple[Tensors, torch.Tensor, dict[str, Any]]:
    flat, count = weight.float().reshape(-1), weight.numel()
    table = torch.linspace(-1, 1, 16) ** 3
    largest = torch.tensor([part.abs().max() for part in flat.split(block)])
    index = drawn(16, count)
    packed = (index[0::2] << 4 | torch.nn.functional.pad(index, (0, count % 2))[1::2]).to(torch.uint8).reshape(-1, 1)
    state: dict[str, Any] = {"quant_type": kind, "blocksize": block, "dtype": str(dtype).removeprefix("torch."),
                             "shape": list(weight.shape)}
    parts = {"weight": packed, "weight.absmax": largest, "weight.quant_map": table}
    if nested:
        inner, offset = 256, float(largest.mean())
        places, levels, steps = drawn(256, len(largest), seed=4), torch.linspace(-1, 1, 256), torch.rand(-(-len(largest) // inner))
        parts |= {"weight.absmax": places.to(torch.uint8), "weight.nested_absmax": steps, "weight.nested_quant_map": levels}
        state |= {"nested_blocksize": inner, "nested_dtype": "float32", "nested_offset": offset}
        largest = torch.cat([levels[part] * step for part, step in zip(places.split(inner), steps, strict=True)]) + offset
    parts[f"weight.quant_state.bitsandbytes__{kind}"] = torch.tensor(list(json.dumps(state).encode()), dtype=torch.uint8)
    floats = torch.cat([table[part] * step for part, step in zip(index.split(block), largest, strict=True)])
    return parts, floats.reshape(weight.shape).to(dtype), {
        "quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_use_double_quant": nested}


def fp8(weight: torch.Tensor) -> tuple[Tensors, torch.Tensor, dict[str, Any]]:
    high, wide = 12, 10
    rows, columns = weight.shape
    grid = scales(-(-rows // high), -(-columns // wide), dtype=torch.float32)
    small = weight.to(torch.float8_e4m3fn)
    expected = torch.empty(weight.shape)
    for row in range(rows):
        for column in range(columns):
            expected[row, column] = small[row, column].float() * grid[row // high, column // wide]
    return ({"weight": small, "weight_scale_inv": grid}, expected.to(torch.float16),
            {"quant_method": "fp8", "weight_block_size": [high, wide], "activation_scheme": "dynamic"})


def compressed(weight: torch.Tensor, dtype: torch.dtype, groups: int) -> tuple[Tensors, torch.Tensor, dict[str, Any]]:
    small = (weight * 100).to(dtype)
    scale = scales(weight.shape[0], groups, dtype=torch.bfloat16)
    expected = small.to(torch.bfloat16) * scale.repeat_interleave(weight.shape[1] // groups, 1)
    return ({"weight": small, "weight_scale": scale}, expected,
            {"quant_method": "compressed-tensors", "format": "int-quantized" if dtype is torch.int8 else "float-quantized"})


CASES = {
    **{f"{form} of {bits} bits": lambda weight, bits=bits, form=form: gptq(weight, bits, form)
       for bits in (2, 3, 4, 8) for form in ("gptq", "gptq_v2")},
    "awq": awq, "awq for vectors": gemv, "awq for marlin": lambda weight: marlin(weight, 4), "gptq without g_idx": without_order,
    "awq for marlin of one group": lambda weight: marlin(weight, 1),
    **{f"packed in {bits} bits": lambda weight, bits=bits: packed(weight, bits, 2, bits != 4) for bits in (1, 2, 3, 4, 8)},
    "packed by rows": lambda weight: packed(weight, 4, 1, True), "packed out of order": lambda weight: packed(weight, 4, 4, True, True),
    "int8": eight_bits, "fp8": fp8,
    "nf4": lambda weight: four_bits(weight, "nf4", False, torch.float16, 64),
    "fp4 in float32": lambda weight: four_bits(weight, "fp4", False, torch.float32, 128),
    "nf4 twice": lambda weight: four_bits(weight, "nf4", True, torch.bfloat16, 4),
    "nf4 with a short block": lambda weight: four_bits(weight, "nf4", False, torch.bfloat16, 60),
    "int8 by rows": lambda weight: compressed(weight, torch.int8, 1),
    "float8 by groups": lambda weight: compressed(weight, torch.float8_e4m3fn, 4),
}


def quantised(folder: Path, case: str) -> torch.Tensor:
    """A BERT of float16 whose one layer is quantised, and what that layer's weight stands for."""
    torch.manual_seed(0)
    module = made("Bert", "Model", hidden_size=32, intermediate_size=64, num_attention_heads=4).half()
    save(module, folder)
    file = folder / "model.safetensors"
    tensors = load_file(file)
    (name,) = [name for name in tensors if name.endswith(f"{LAYER}.weight")]
    base = name.removesuffix(".weight")
    parts, expected, config = CASES[case](tensors.pop(name))
    save_file({**tensors, **{f"{base}.{part}": values for part, values in parts.items()}}, file)
    change_config(folder, quantization_config=config, dtype="float16")
    return expected


@pytest.mark.parametrize("case", CASES)
def test_quantised_weights_are_the_floats_that_they_stand_for(case: str, tmp_path: Path) -> None:
    expected = quantised(tmp_path, case)
    model = converter.from_checkpoint(tmp_path, dequantize=True)
    (name,) = [name for name in model.parameters.names() if name.endswith(f"{LAYER}.weight")]
    found = torch.from_numpy(model.parameters.read(name).astype(np.float32))
    assert torch.equal(found, expected.float())
    assert str(model.parameters.spec(name).dtype) in str(expected.dtype) or str(model.parameters.spec(name).dtype) == "float32"
    parts = ("qweight", "scales", "SCB", "absmax", "g_idx", "weight_packed")
    assert not [name for name in model.parameters.names() if name.rpartition(".")[2] in parts]
    assert "quantised by" in json.dumps(dict(model.metadata), default=str)


def test_experts_of_four_bit_floats_are_what_transformers_makes_of_them() -> None:
    from transformers.integrations.mxfp4 import _convert_moe_packed_tensors

    blocks = drawn(256, 3, 256, 2, 16).to(torch.uint8)
    powers = torch.arange(256).reshape(1, 256, 1).expand(3, 256, 2).to(torch.uint8)
    expected = _convert_moe_packed_tensors(blocks, powers)
    held = InMemoryParameters({"mlp.gate_up_proj_blocks": blocks.numpy(), "mlp.gate_up_proj_scales": powers.numpy()})
    store = dequantized(held, {"quant_method": "mxfp4"}, None, "x")
    assert store.names() == ("mlp.gate_up_proj",)
    assert store.spec("mlp.gate_up_proj").shape == tuple(expected.shape)
    assert store.read("mlp.gate_up_proj").tobytes() == expected.view(torch.uint16).numpy().tobytes()
    wrong = InMemoryParameters({"mlp.down_proj_blocks": blocks.numpy(), "mlp.down_proj_scales": powers.numpy()[:2]})
    with pytest.raises(FormatError, match="scales"):
        dequantized(wrong, {"quant_method": "mxfp4"}, None, "x")


def test_floats_alone_are_written_too(tmp_path: Path) -> None:
    expected = quantised(tmp_path / "in", "packed in 4 bits")
    runner = CliRunner()
    for words, code in ((["--dequantize"], 0), ([], 0)):
        target = tmp_path / f"out{code}{len(words)}.safetensors"
        result = runner.invoke(cli, ["torch-to-safetensors", str(tmp_path / "in"), *words, "-o", str(target)])
        assert result.exit_code == code, result.output
        assert any(name.endswith("weight_packed") for name in load_file(target)) is not bool(words)
    (found,) = [value for name, value in load_file(tmp_path / "out01.safetensors").items() if name.endswith(f"{LAYER}.weight")]
    assert torch.equal(found, expected)
    change_config(tmp_path / "in", quantization_config=None)
    result = runner.invoke(cli, ["torch-to-safetensors", str(tmp_path / "in"), "--dequantize", "-o", str(tmp_path / "x.safetensors")])
    assert result.exit_code == 2
    assert "nothing to dequantise" in result.output
    result = runner.invoke(cli, ["torch-to-safetensors", str(target), "--dequantize", "-o", str(tmp_path / "x.safetensors")])
    assert result.exit_code == 2
    assert "folder" in result.output


def test_a_quantised_folder_computes_what_its_floats_compute(tmp_path: Path) -> None:
    expected = quantised(tmp_path / "small", "awq")
    torch.manual_seed(0)
    module = made("Bert", "Model", hidden_size=32, intermediate_size=64, num_attention_heads=4).half()
    module.get_submodule(f"encoder.{LAYER}").weight.data = expected
    save(module, tmp_path / "floats")
    words = {"input_ids": tokens(2, 7, VOCABULARY)["input_ids"]}
    ours = reference.run(converter.from_checkpoint(tmp_path / "small", take="input_ids", dequantize=True), words)
    theirs = reference.run(converter.from_checkpoint(tmp_path / "floats", take="input_ids"), words)
    assert ours.keys() == theirs.keys()
    assert all(np.array_equal(ours[name], theirs[name]) for name in ours)


def test_it_is_asked_for(tmp_path: Path) -> None:
    quantised(tmp_path, "awq")
    with pytest.raises(UnsupportedError, match="--dequantize"):
        converter.from_checkpoint(tmp_path)
    target = tmp_path / "model.json"
    result = CliRunner().invoke(cli, ["torch-to-json", str(tmp_path), "--dequantize", "-o", str(target)])
    assert result.exit_code == 0, result.output
    assert "activations" in result.output
    change_config(tmp_path, quantization_config=None)
    with pytest.raises(FormatError, match="nothing to dequantise"):
        converter.from_checkpoint(tmp_path, dequantize=True)


def test_an_older_autogptq_says_it_beside(tmp_path: Path) -> None:
    quantised(tmp_path, "gptq of 4 bits")
    config = json.loads((tmp_path / "config.json").read_text())["quantization_config"]
    del config["quant_method"]
    (tmp_path / "quantize_config.json").write_text(json.dumps(config))
    change_config(tmp_path, quantization_config=None)
    with pytest.raises(UnsupportedError, match="--dequantize"):
        converter.from_checkpoint(tmp_path)
    assert converter.from_checkpoint(tmp_path, dequantize=True)


@pytest.mark.parametrize(("case", "change", "said"), [
    ("awq", {"version": "gemv_fast"}, "'version'"),
    ("awq", {"version": "gemv"}, "qzeros"),
    ("awq", {"version": "marlin"}, "'zero_point'"),
    ("awq for vectors", {"group_size": 24}, "whole groups"),
    ("awq for vectors", {"group_size": 1}, "whole groups"),
    ("gptq without g_idx", {"group_size": 5}, "groups that are not"),
    ("packed in 4 bits", {"config_groups": {"g": {"weights": {"num_bits": 8}}}}, "shape beside them"),
    ("packed in 4 bits", {"config_groups": {"g": {"weights": {"num_bits": 4, "type": "float"}}}}, "config_groups"),
    ("packed in 4 bits", {"config_groups": [4]}, "config_groups"),
    ("awq", {"bits": 3}, "'bits'"),
    ("awq", {"quant_method": "quip"}, "'quant_method'"),
    ("awq", {"quant_method": "fp8"}, "no tensors"),
    ("awq", {"quant_method": ["awq"]}, "'quant_method'"),
    ("gptq of 4 bits", {"bits": 8}, "qzeros"),
    ("gptq of 4 bits", {"checkpoint_format": "marlin"}, "'checkpoint_format'"),
    ("fp8", {"weight_block_size": [8, 8]}, "weight_scale_inv"),
    ("fp8", {"weight_block_size": [0, 8]}, "weight_block_size"),
    ("int8 by rows", {"format": "nvfp4-pack-quantized"}, "'format'"),
])
def test_what_is_not_known_is_refused(case: str, change: dict[str, Any], said: str, tmp_path: Path) -> None:
    quantised(tmp_path, case)
    config = json.loads((tmp_path / "config.json").read_text())["quantization_config"]
    change_config(tmp_path, quantization_config={**config, **change})
    with pytest.raises(ConverterError) as caught:
        converter.from_checkpoint(tmp_path, dequantize=True)
    assert said in str(caught.value)


@pytest.mark.parametrize("state", [
    b"", b"[]", b'{"shape": [1, 2]}', b'{"shape": [-4, 8], "blocksize": 64, "dtype": "float16"}',
    b'{"shape": [1000000, 1000000], "blocksize": 64, "dtype": "float16"}', b'{"shape": [32, 64], "blocksize": 0, "dtype": "float16"}',
    b'{"shape": [32, 64], "blocksize": 64, "dtype": "float16", "nested_blocksize": 0, "nested_offset": 1}',
])
def test_a_state_that_lies_is_refused(state: bytes, tmp_path: Path) -> None:
    quantised(tmp_path, "nf4")
    file = tmp_path / "model.safetensors"
    tensors = load_file(file)
    (name,) = [name for name in tensors if "bitsandbytes__" in name]
    save_file({**tensors, name: torch.tensor(list(state), dtype=torch.uint8)}, file)
    with pytest.raises(ConverterError):
        converter.from_checkpoint(tmp_path, dequantize=True)
