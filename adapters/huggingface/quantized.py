"""Quantised weights of a folder as the floats that they stand for, a tensor at a time, by the formulas of the libraries that wrote them.

GPTQ: Frantar et al. 2022, as AutoGPTQ's `qlinear_cuda`. AWQ: Lin et al. 2023, as AutoAWQ's `dequantize_gemm`. bitsandbytes: Dettmers
et al. 2022 (LLM.int8()) and 2023 (QLoRA: NF4, FP4, double quantisation), as its `default` kernels. FP8: scales of blocks, as
transformers' `finegrained_fp8`. compressed-tensors: its `_dequantize`. Products are taken in float32 and rounded once, as a CPU takes them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from adapters.huggingface.config import Config, read_object
from converter.errors import FormatError, UnsupportedError
from converter.ir import DType, TensorSpec
from converter.parameters import Array, ParameterStore

FIELD = "quantization_config"
WORD = 32
AWQ_ORDER = (0, 4, 1, 5, 2, 6, 3, 7)
"""Where in a word AutoAWQ's GEMM layout keeps each of eight values."""
STATE = ".quant_state.bitsandbytes__"
FLOATS = {name: DType(name) for name in ("float16", "bfloat16", "float32")}
LARGEST_STATE = 1 << 16


@dataclass(frozen=True, slots=True)
class Weight:
    """A weight in parts: what it is, the store's tensors that it takes, and how its values are made of those."""

    spec: TensorSpec
    parts: tuple[str, ...]
    values: Callable[..., Array]


class DequantizedParameters(ParameterStore):
    """A store whose quantised weights are read as floats; `weights` by their names, in the place of their first part."""

    def __init__(self, store: ParameterStore, weights: Mapping[str, Weight]) -> None:
        self._store, self._weights = store, dict(weights)
        self.key = store.key
        owner = {part: name for name, weight in weights.items() for part in weight.parts}
        self._names = tuple(dict.fromkeys(owner.get(name, name) for name in store.names()))
        self._own = frozenset(self._names)

    def names(self) -> tuple[str, ...]:
        return self._names

    def __contains__(self, name: object) -> bool:
        return name in self._own

    def alias_of(self, name: str) -> str | None:
        target = None if name in self._weights else self._store.alias_of(name)
        return target if target in self._own and target not in self._weights else None

    def spec(self, name: str) -> TensorSpec:
        if name not in self._own:
            raise self.unknown(name)
        return self._weights[name].spec if name in self._weights else self._store.spec(name)

    def read(self, name: str) -> Array:
        if name not in self._own:
            raise self.unknown(name)
        weight = self._weights.get(name)
        if weight is None:
            return self._store.read(name)
        values = np.ascontiguousarray(weight.values(*(self._store.read(part) for part in weight.parts)))
        values.flags.writeable = False
        return values


def as_floats(store: ParameterStore, folder: Path, dequantize: bool) -> ParameterStore:
    """A folder's tensors, those that are quantised as the floats that they stand for where that is asked for.

    `quantization_config` in config.json tells of them, or a quantize_config.json of an older AutoGPTQ beside it.

    Raises:
        UnsupportedError: quantised weights, and `dequantize` is not given; a method, or a layout of one, that is not known.
        FormatError: tensors that do not fit each other; `dequantize`, and nothing is quantised.
    """
    file, older = folder / "config.json", folder / "quantize_config.json"
    fields = read_object(file) if file.is_file() else {}
    given = fields.get(FIELD) or (older.is_file() and {"quant_method": "gptq", **read_object(older)})
    if not given:
        if dequantize:
            raise FormatError("nothing to dequantise", where=str(file), expected=f"a field {FIELD!r}", fix="leave --dequantize out")
        return store
    if not dequantize:
        raise UnsupportedError("the weights are quantised", where=str(file), received=FIELD,
                               fix="have them read as the floats that they stand for: --dequantize (in Python: dequantize=True)")
    return dequantized(store, given, FLOATS.get(str(fields.get("dtype") or fields.get("torch_dtype")).removeprefix("torch.")), str(file))


def dequantized(store: ParameterStore, given: Any, dtype: DType | None, where: str) -> ParameterStore:
    """A folder's tensors with floats in the place of the quantised weights that `given`, its `quantization_config`, tells of.

    `dtype` is the model's, for those methods that do not tell it of each weight. Raises as `as_floats` does.
    """
    if not isinstance(given, Mapping):
        raise FormatError("quantization_config is no object", where=where, received=type(given).__name__)
    config = Config(given, f"{where}, quantization_config")
    method = config.get("quant_method") or ("bitsandbytes" if config.get("load_in_8bit") or config.get("load_in_4bit") else None)
    if not isinstance(method, str) or method not in _METHODS:
        raise config.refuse("quant_method", ", ".join(_METHODS), method, fix=RESAVE)
    try:
        weights = _METHODS[method](store, config, dtype)
    except (KeyError, ValueError, TypeError) as error:
        raise FormatError("quantised weights that do not fit each other", where=where, received=f"{error}"[:160]) from error
    if not weights:
        raise FormatError(f"the folder holds no tensors that {method} has quantised", where=where,
                          fix="leave quantization_config out of config.json where the weights are floats")
    found = DequantizedParameters(store, weights)
    plural = "s" * (len(weights) > 1)
    found.notes = (*store.notes, f"{len(weights)} weight{plural} quantised by {method}, read as the floats they stand for; what else the "
                   "library rounds while it runs, activations too, is not in the graph")
    return found


RESAVE = "write floats where the library is installed: model.dequantize().save_pretrained('floats')"


# What the methods share --------------------------------------------------------------------------------------------------


def _spec(store: ParameterStore, name: str, dtypes: tuple[DType, ...], shape: tuple[int | None, ...] | None = None) -> tuple[int, ...]:
    """A part's shape. Raises `FormatError` where it is missing, or not of the dtypes and the shape (None: any size) that it must have."""
    expected = " or ".join(str(dtype) for dtype in dtypes) + (str(["any" if size is None else size for size in shape]) if shape else "")
    if name not in store:
        raise FormatError("a part of a quantised weight is missing", where=name, expected=expected)
    spec = store.spec(name)
    found = tuple(int(size) for size in spec.shape)  # type: ignore[arg-type]
    fits = shape is None or len(shape) == len(found) and all(want in (None, size) for want, size in zip(shape, found, strict=True))
    if spec.dtype not in dtypes or not fits:
        raise FormatError("a part of a quantised weight has another dtype or shape", where=name, expected=expected, received=str(spec))
    return found


def _ending(store: ParameterStore, ending: str) -> list[str]:
    return [name.removesuffix(ending) for name in store.names() if name.endswith(ending)]


def unpack(words: Array, bits: int, count: int) -> Array:
    """Unsigned integers of `bits` bits from words of 32 along the last axis, the lowest bits first; they may straddle two words.

    words: int32 [..., n]. Returns int32 [..., count]; count * bits is at most 32 * n.
    """
    words = words.view(np.uint32)
    start = np.arange(count) * bits
    word, shift = start // WORD, (start % WORD).astype(np.uint32)
    values = words[..., word] >> shift
    over = np.flatnonzero(shift + np.uint32(bits) > WORD)
    if over.size:
        values[..., over] |= words[..., word[over] + 1] << (np.uint32(WORD) - shift[over])
    return (values & np.uint32((1 << bits) - 1)).astype(np.int32)


def _product(values: Array, scales: Array, dtype: DType) -> Array:
    result: Array = values.astype(np.float32) * scales.astype(np.float32)
    return result.astype(dtype.numpy)


_SCALES = tuple(FLOATS.values())
Weights = dict[str, Weight]


# GPTQ and AWQ ------------------------------------------------------------------------------------------------------------


def _gptq(store: ParameterStore, config: Config, dtype: DType | None) -> Weights:
    bits = config.get("bits")
    if bits not in (2, 3, 4, 8) or type(bits) is not int:
        raise config.refuse("bits", "2, 3, 4 or 8", bits, fix=RESAVE)
    form = config.get("checkpoint_format") or "gptq"
    if form not in ("gptq", "gptq_v2"):
        raise config.refuse("checkpoint_format", "gptq or gptq_v2", form, fix=RESAVE)
    add = int(form == "gptq")
    weights: Weights = {}
    for base in _ending(store, ".qweight"):
        rows, out = _spec(store, f"{base}.qweight", (DType.INT32,), (None, None))
        width = rows * WORD // bits
        groups, _ = _spec(store, f"{base}.scales", _SCALES, (None, out))
        _spec(store, f"{base}.qzeros", (DType.INT32,), (groups, -(-out * bits // WORD)))
        _spec(store, f"{base}.g_idx", (DType.INT32,), (width,))
        kind = store.spec(f"{base}.scales").dtype

        def values(words: Array, zeros: Array, scales: Array, index: Array, *, base: str = base, kind: DType = kind) -> Array:
            if index.size and not 0 <= index.min() <= index.max() < len(scales):
                raise FormatError("a group that is not there", where=f"{base}.g_idx", expected=f"0 to {len(scales) - 1}",
                                  received=f"{index.min()} to {index.max()}")
            # AutoGPTQ keeps zero points less one; the sum may need a bit more.
            zero = unpack(zeros, bits, scales.shape[1]) + add
            integers = unpack(np.ascontiguousarray(words.T), bits, index.size)
            return _product(integers - zero[index].T, scales[index].T, kind)

        weights[f"{base}.weight"] = Weight(TensorSpec(kind, (out, width)),
                                           tuple(f"{base}.{part}" for part in ("qweight", "qzeros", "scales", "g_idx")), values)
    return weights


def _awq(store: ParameterStore, config: Config, dtype: DType | None) -> Weights:
    for name, known in (("bits", 4), ("version", "gemm"), ("zero_point", True)):
        value = config.get(name, known)
        if (value.lower() if isinstance(value, str) else value) != known:
            raise config.refuse(name, repr(known), value, fix=RESAVE)
    weights: Weights = {}
    for base in _ending(store, ".qweight"):
        width, columns = _spec(store, f"{base}.qweight", (DType.INT32,), (None, None))
        out = columns * 8
        groups, _ = _spec(store, f"{base}.scales", _SCALES, (None, out))
        _spec(store, f"{base}.qzeros", (DType.INT32,), (groups, columns))
        if not groups or width % groups:
            raise FormatError("rows that are no whole groups", where=f"{base}.scales", received=f"{width} rows, {groups} groups")
        kind, size = store.spec(f"{base}.scales").dtype, width // groups

        def values(words: Array, zeros: Array, scales: Array, *, size: int = size, kind: DType = kind) -> Array:
            def ordered(packed: Array) -> Array:
                flat = unpack(packed, 4, packed.shape[1] * 8)
                result: Array = flat.reshape(len(packed), -1, 8)[..., AWQ_ORDER].reshape(len(packed), -1)
                return result

            shifted = ordered(words) - ordered(zeros).repeat(size, 0)
            return _product(shifted.T, scales.repeat(size, 0).T, kind)

        weights[f"{base}.weight"] = Weight(TensorSpec(kind, (out, width)),
                                           tuple(f"{base}.{part}" for part in ("qweight", "qzeros", "scales")), values)
    return weights


# bitsandbytes ------------------------------------------------------------------------------------------------------------


def _bitsandbytes(store: ParameterStore, config: Config, dtype: DType | None) -> Weights:
    weights: Weights = {}
    for base in _ending(store, ".SCB"):
        shape = _spec(store, f"{base}.weight", (DType.INT8,), (None, None))
        _spec(store, f"{base}.SCB", (DType.FLOAT32,), (shape[0],))
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
    length = math.prod(_spec(store, place, (DType.UINT8,), (None,)))
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
    held = math.prod(_spec(store, name, (DType.UINT8,)))
    if held != -(-count // 2):
        raise FormatError("a quantised weight of another length than its state says", where=name, expected=f"{-(-count // 2)} bytes",
                          received=str(held))
    blocks, nested = -(-count // block), "nested_blocksize" in state
    parts = [name, f"{name}.absmax", f"{name}.quant_map"]
    _spec(store, parts[1], (DType.UINT8 if nested else DType.FLOAT32,), (blocks,))
    _spec(store, parts[2], (DType.FLOAT32,), (16,))
    inner, offset = state.get("nested_blocksize", 1), state.get("nested_offset", 0.0)
    if nested:
        if type(inner) is not int or inner < 1 or type(offset) not in (int, float):
            raise FormatError("the state of a quantised weight", where=place, expected="a nested blocksize and offset",
                              received=repr(state)[:160])
        parts += [f"{name}.nested_absmax", f"{name}.nested_quant_map"]
        _spec(store, parts[3], (DType.FLOAT32,), (-(-blocks // inner),))
        _spec(store, parts[4], (DType.FLOAT32,), (256,))

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


def _fp8(store: ParameterStore, config: Config, dtype: DType | None) -> Weights:
    block = config.get("weight_block_size", [128, 128])
    if not isinstance(block, list) or len(block) != 2 or any(type(size) is not int or size < 1 for size in block):
        raise config.refuse("weight_block_size", "two sizes", block, fix=RESAVE)
    high, wide = block
    kind = dtype or DType.BFLOAT16
    weights: Weights = {}
    for base in _ending(store, ".weight_scale_inv"):
        rows, columns = _spec(store, f"{base}.weight", _EIGHT, (None, None))
        _spec(store, f"{base}.weight_scale_inv", (*_SCALES, DType.FLOAT8_E8M0FNU), (-(-rows // high), -(-columns // wide)))

        def values(weight: Array, scales: Array) -> Array:
            grid = scales.astype(np.float32).repeat(high, 0)[:weight.shape[0]].repeat(wide, 1)[:, :weight.shape[1]]
            return _product(weight, grid, kind)

        weights[f"{base}.weight"] = Weight(TensorSpec(kind, (rows, columns)), (f"{base}.weight", f"{base}.weight_scale_inv"), values)
    return weights


def _compressed(store: ParameterStore, config: Config, dtype: DType | None) -> Weights:
    form = config.get("format")
    if form not in ("float-quantized", "int-quantized", "naive-quantized"):
        raise config.refuse("format", "float-quantized, int-quantized or naive-quantized", form, fix=RESAVE)
    weights: Weights = {}
    for base in _ending(store, ".weight_scale"):
        if f"{base}.weight_zero_point" in store or f"{base}.weight_g_idx" in store:
            raise UnsupportedError("zero points, or groups out of order, of compressed-tensors", where=base, fix=RESAVE)
        rows, columns = _spec(store, f"{base}.weight", (*_EIGHT, DType.INT8), (None, None))
        shape, kind = _spec(store, f"{base}.weight_scale", _SCALES), store.spec(f"{base}.weight_scale").dtype
        down, across = (1, 1) if math.prod(shape) == 1 else (shape[0], shape[1]) if len(shape) == 2 else (0, 1)
        if down not in (1, rows) or down == 1 != across or not across or columns % across:
            raise UnsupportedError("scales of another arrangement", where=f"{base}.weight_scale", received=str(list(shape)),
                                   expected="one, or one for each row or each group in a row", fix=RESAVE)

        def values(weight: Array, scales: Array, *_: Array, down: int = down, across: int = across, kind: DType = kind) -> Array:
            grid = scales.reshape(down, across).repeat(weight.shape[1] // across, 1)
            return _product(weight, grid, kind)

        aside = tuple(f"{base}.{part}" for part in ("input_scale", "input_zero_point", "weight_shape") if f"{base}.{part}" in store)
        weights[f"{base}.weight"] = Weight(TensorSpec(kind, (rows, columns)), (f"{base}.weight", f"{base}.weight_scale", *aside), values)
    return weights


_METHODS: Mapping[str, Callable[[ParameterStore, Config, DType | None], Weights]] = {
    "gptq": _gptq, "awq": _awq, "bitsandbytes": _bitsandbytes, "fp8": _fp8, "compressed-tensors": _compressed}
