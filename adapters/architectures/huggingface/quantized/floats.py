"""Weights of bitsandbytes, of floats of 8 and 4 bits, and of compressed-tensors' plain layouts.

bitsandbytes: Dettmers et al. 2022 (LLM.int8()) and 2023 (QLoRA: NF4, FP4, double quantisation), as its `default` kernels. FP8: scales of
blocks, as transformers' `finegrained_fp8`. MXFP4: OCP Microscaling Formats 1.0, as transformers' `convert_moe_packed_tensors`.
compressed-tensors: its `_dequantize`.
"""

from __future__ import annotations

import json
import math

import numpy as np

from adapters.architectures.huggingface.config import Config
from adapters.architectures.huggingface.quantized.integers import packed
from adapters.architectures.huggingface.quantized.parts import FLOATS, RESAVE, SCALES, Weight, Weights, ending_in, product, spec_of
from converter.errors import FormatError, UnsupportedError
from converter.ir import Array, DType, TensorSpec
from converter.parameters import ParameterStore

STATE = ".quant_state.bitsandbytes__"
LARGEST_STATE = 1 << 16

# bitsandbytes ------------------------------------------------------------------------------------------------------------


def bitsandbytes(store: ParameterStore, config: Config, dtype: DType | None) -> Weights:
    weights: Weights = {}
    for base in ending_in(store, ".SCB"):
        shape = spec_of(store, f"{base}.weight", (DType.INT8,), (None, None))
        spec_of(store, f"{base}.SCB", (DType.FLOAT32,), (shape[0],))
        kind = dtype or DType.FLOAT16
        form = f"{base}.weight_format"
        aside: tuple[str, ...] = ()
        if form in store:
            if int(store.read(form).reshape(-1)[0]) != 0:
                raise UnsupportedError("int8 weights in a layout of one GPU", where=form, expected="0 (rows)", fix=RESAVE)
            aside = (form,)

        def values(weight: Array, scales: Array, *_: Array, kind: DType = kind) -> Array:
            result: Array = weight.astype(np.float32) * scales[:, None] * np.float32(7.874015718698502e-3)
            return result.astype(kind.numpy)

        weights[f"{base}.weight"] = Weight(TensorSpec(kind, shape), (f"{base}.weight", f"{base}.SCB", *aside), values)
    for name in [name for name in store.names() if STATE in name]:
        base = name.partition(STATE)[0]
        weights[base] = _four_bits(store, base, name)
    return weights


def _four_bits(store: ParameterStore, name: str, place: str) -> Weight:
    """A weight of 4 bits: two indices in a byte, the high half first, into a table that each block scales by its largest."""
    length = math.prod(spec_of(store, place, (DType.UINT8,), (None,)))
    try:
        state = json.loads(store.read(place).tobytes()) if length <= LARGEST_STATE else None
    except (ValueError, RecursionError):
        state = None
    if not isinstance(state, dict):
        raise FormatError("the state of a quantised weight is no JSON object", where=place)
    shape, block, kind = state.get("shape"), state.get("blocksize"), FLOATS.get(str(state.get("dtype")).removeprefix("torch."))
    if not isinstance(shape, list) or not all(type(size) is int and 0 < size < 1 << 31 for size in shape) or kind is None \
            or type(block) is not int or block < 1:
        raise FormatError("the state of a quantised weight", where=place, expected="a shape, a blocksize and a float dtype",
                          received=repr(state)[:160])
    count = math.prod(shape)
    held = math.prod(spec_of(store, name, (DType.UINT8,)))
    if held != -(-count // 2):
        raise FormatError("a quantised weight of another length than its state says", where=name, expected=f"{-(-count // 2)} bytes",
                          received=str(held))
    blocks, nested = -(-count // block), "nested_blocksize" in state
    parts = [name, f"{name}.absmax", f"{name}.quant_map"]
    spec_of(store, parts[1], (DType.UINT8 if nested else DType.FLOAT32,), (blocks,))
    spec_of(store, parts[2], (DType.FLOAT32,), (16,))
    inner, offset = state.get("nested_blocksize", 1), state.get("nested_offset", 0.0)
    if nested:
        if type(inner) is not int or inner < 1 or type(offset) not in (int, float):
            raise FormatError("the state of a quantised weight", where=place, expected="a nested blocksize and offset",
                              received=repr(state)[:160])
        parts += [f"{name}.nested_absmax", f"{name}.nested_quant_map"]
        spec_of(store, parts[3], (DType.FLOAT32,), (-(-blocks // inner),))
        spec_of(store, parts[4], (DType.FLOAT32,), (256,))

    def values(packed: Array, largest: Array, table: Array, *below: Array) -> Array:
        if below:
            # The offset is a float32 there too.
            largest = below[1][largest] * below[0].repeat(inner)[:blocks] + np.float32(offset)
        flat = packed.reshape(-1)
        index = np.stack((flat >> 4, flat & 15), -1).reshape(-1)[:count]
        result: Array = table[index] * largest.repeat(block)[:count]
        return result.reshape(shape).astype(kind.numpy)

    return Weight(TensorSpec(kind, tuple(shape)), (*parts, place), lambda *arrays: values(*arrays[:-1]))


# Floats of 8 bits, and compressed-tensors --------------------------------------------------------------------------------

_EIGHT = (DType.FLOAT8_E4M3FN, DType.FLOAT8_E5M2)


def fp8(store: ParameterStore, config: Config, dtype: DType | None) -> Weights:
    block = config.get("weight_block_size", [128, 128])
    if not isinstance(block, list) or len(block) != 2 or any(type(size) is not int or size < 1 for size in block):
        raise config.refuse("weight_block_size", "two sizes", block, fix=RESAVE)
    high, wide = block
    kind = dtype or DType.BFLOAT16
    weights: Weights = {}
    for base in ending_in(store, ".weight_scale_inv"):
        rows, columns = spec_of(store, f"{base}.weight", _EIGHT, (None, None))
        spec_of(store, f"{base}.weight_scale_inv", (*SCALES, DType.FLOAT8_E8M0FNU), (-(-rows // high), -(-columns // wide)))

        def values(weight: Array, scales: Array) -> Array:
            grid = scales.astype(np.float32).repeat(high, 0)[:weight.shape[0]].repeat(wide, 1)[:, :weight.shape[1]]
            return product(weight, grid, kind)

        weights[f"{base}.weight"] = Weight(TensorSpec(kind, (rows, columns)), (f"{base}.weight", f"{base}.weight_scale_inv"), values)
    return weights


MXFP4 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6], np.float32)
"""The values of E2M1, by their four bits."""


def mxfp4(store: ParameterStore, config: Config, dtype: DType | None) -> Weights:
    """GPT-OSS' experts: blocks uint8 [experts, out, groups, 16], the low half of a byte first; scales uint8 [experts, out, groups], an
    exponent of 2 plus 127. Gives [experts, 32 · groups, out].
    """
    kind = dtype or DType.BFLOAT16
    weights: Weights = {}
    for base in ending_in(store, "_blocks"):
        experts, out, groups, _ = spec_of(store, f"{base}_blocks", (DType.UINT8,), (None, None, None, 16))
        spec_of(store, f"{base}_scales", (DType.UINT8,), (experts, out, groups))

        def values(blocks: Array, scales: Array, *, shape: tuple[int, int, int] = (experts, out, groups * 32)) -> Array:
            small = np.stack((MXFP4[blocks & 15], MXFP4[blocks >> 4]), -1).reshape(*scales.shape, 32)
            with np.errstate(all="ignore"):
                result: Array = np.ldexp(small, scales.astype(np.int32)[..., None] - 127)
                return result.reshape(shape).transpose(0, 2, 1).astype(kind.numpy)

        weights[base] = Weight(TensorSpec(kind, (experts, groups * 32, out)), (f"{base}_blocks", f"{base}_scales"), values)
    return weights


def compressed(store: ParameterStore, config: Config, dtype: DType | None) -> Weights:
    form = config.get("format")
    if form == "pack-quantized":
        return packed(store, config, dtype)
    if form not in ("float-quantized", "int-quantized", "naive-quantized"):
        raise config.refuse("format", "float-quantized, int-quantized, naive-quantized or pack-quantized", form, fix=RESAVE)
    weights: Weights = {}
    for base in ending_in(store, ".weight_scale"):
        if f"{base}.weight_zero_point" in store or f"{base}.weight_g_idx" in store:
            raise UnsupportedError("zero points, or groups out of order, of compressed-tensors", where=base, fix=RESAVE)
        rows, columns = spec_of(store, f"{base}.weight", (*_EIGHT, DType.INT8), (None, None))
        shape, kind = spec_of(store, f"{base}.weight_scale", SCALES), store.spec(f"{base}.weight_scale").dtype
        down, across = (1, 1) if math.prod(shape) == 1 else (shape[0], shape[1]) if len(shape) == 2 else (0, 1)
        if down not in (1, rows) or down == 1 != across or not across or columns % across:
            raise UnsupportedError("scales of another arrangement", where=f"{base}.weight_scale", received=str(list(shape)),
                                   expected="one, or one for each row or each group in a row", fix=RESAVE)

        def values(weight: Array, scales: Array, *_: Array, down: int = down, across: int = across, kind: DType = kind) -> Array:
            grid = scales.reshape(down, across).repeat(weight.shape[1] // across, 1)
            return product(weight, grid, kind)

        aside = tuple(f"{base}.{part}" for part in ("input_scale", "input_zero_point", "weight_shape") if f"{base}.{part}" in store)
        weights[f"{base}.weight"] = Weight(TensorSpec(kind, (rows, columns)), (f"{base}.weight", f"{base}.weight_scale", *aside), values)
    return weights
