"""Weights of GPTQ, of AWQ in three layouts, and of compressed-tensors' packed integers.

GPTQ: Frantar et al. 2022, as AutoGPTQ's `qlinear_cuda`. AWQ: Lin et al. 2023, as AutoAWQ's `dequantize_gemm`, and what its modules for
GEMV and Marlin pack. compressed-tensors: its `unpack_from_int32` and `dequantize`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from adapters.architectures.huggingface.config import Config
from adapters.architectures.huggingface.quantized.parts import RESAVE, SCALES, WORD, Weight, Weights, ending_in, product, spec_of, unpack
from converter.errors import FormatError, UnsupportedError
from converter.ir import Array, DType, TensorSpec
from converter.parameters import ParameterStore

AWQ_ORDER = (0, 4, 1, 5, 2, 6, 3, 7)
"""Where in a word AutoAWQ's GEMM layout keeps each of eight values."""


# GPTQ and AWQ ------------------------------------------------------------------------------------------------------------


def gptq(store: ParameterStore, config: Config, dtype: DType | None) -> Weights:
    bits = config.get("bits")
    if bits not in (2, 3, 4, 8) or type(bits) is not int:
        raise config.refuse("bits", "2, 3, 4 or 8", bits, fix=RESAVE)
    form = config.get("checkpoint_format") or "gptq"
    if form not in ("gptq", "gptq_v2"):
        raise config.refuse("checkpoint_format", "gptq or gptq_v2", form, fix=RESAVE)
    add = int(form == "gptq")
    weights: Weights = {}
    for base in ending_in(store, ".qweight"):
        rows, out = spec_of(store, f"{base}.qweight", (DType.INT32,), (None, None))
        width = rows * WORD // bits
        groups, _ = spec_of(store, f"{base}.scales", SCALES, (None, out))
        spec_of(store, f"{base}.qzeros", (DType.INT32,), (groups, -(-out * bits // WORD)))
        parts = [f"{base}.{part}" for part in ("qweight", "qzeros", "scales")]
        if f"{base}.g_idx" in store:
            spec_of(store, f"{base}.g_idx", (DType.INT32,), (width,))
            parts.append(f"{base}.g_idx")
        in_order = np.arange(width) // _group_size(config, width, groups, base)
        kind = store.spec(f"{base}.scales").dtype

        def values(words: Array, zeros: Array, scales: Array, index: Array = in_order, *, base: str = base, kind: DType = kind) -> Array:
            if index.size and not 0 <= index.min() <= index.max() < len(scales):
                raise FormatError("a group that is not there", where=f"{base}.g_idx", expected=f"0 to {len(scales) - 1}",
                                  received=f"{index.min()} to {index.max()}")
            # AutoGPTQ keeps zero points less one; the sum may need a bit more.
            zero = unpack(zeros, bits, scales.shape[1]) + add
            integers = unpack(np.ascontiguousarray(words.T), bits, index.size)
            return product(integers - zero[index].T, scales[index].T, kind)

        weights[f"{base}.weight"] = Weight(TensorSpec(kind, (out, width)), tuple(parts), values)
    return weights


def _group_size(config: Config, width: int, groups: int, where: str) -> int:
    """How many of a row's values share a scale; -1 in a config: all. Raises `FormatError` for one that does not give as many groups."""
    given = config.get("group_size", -1)
    size = width if given == -1 else given
    if type(size) is not int or size < 1 or -(-width // size) != groups:
        raise FormatError("groups that are not those of the config", where=where, expected=f"{groups} groups of {width} values",
                          received=f"group_size {given!r}"[:80])
    return size


def awq(store: ParameterStore, config: Config, dtype: DType | None) -> Weights:
    version = str(config.get("version") or "gemm").lower()
    if version not in _AWQ:
        raise config.refuse("version", ", ".join(_AWQ), config.get("version"), fix=RESAVE)
    read, zero_point = _AWQ[version]
    for name, known in (("bits", 4), ("zero_point", zero_point)):
        value = config.get(name, known)
        if type(value) is not type(known) or value != known:
            raise config.refuse(name, repr(known), value, fix=RESAVE)
    return {f"{base}.weight": read(store, config, base) for base in ending_in(store, ".qweight")}


def _gemm(store: ParameterStore, config: Config, base: str) -> Weight:
    """qweight int32 [in, out / 8], qzeros int32 [groups, out / 8], scales [groups, out]; eight values of a word in `AWQ_ORDER`."""
    width, columns = spec_of(store, f"{base}.qweight", (DType.INT32,), (None, None))
    groups, _ = spec_of(store, f"{base}.scales", SCALES, (None, columns * 8))
    spec_of(store, f"{base}.qzeros", (DType.INT32,), (groups, columns))
    if not groups or width % groups:
        raise FormatError("rows that are no whole groups", where=f"{base}.scales", received=f"{width} rows, {groups} groups")
    kind, size = store.spec(f"{base}.scales").dtype, width // groups

    def values(words: Array, zeros: Array, scales: Array) -> Array:
        def ordered(packed: Array) -> Array:
            flat = unpack(packed, 4, packed.shape[1] * 8)
            result: Array = flat.reshape(len(packed), -1, 8)[..., AWQ_ORDER].reshape(len(packed), -1)
            return result

        shifted = ordered(words) - ordered(zeros).repeat(size, 0)
        return product(shifted.T, scales.repeat(size, 0).T, kind)

    return Weight(TensorSpec(kind, (columns * 8, width)), tuple(f"{base}.{part}" for part in ("qweight", "qzeros", "scales")), values)


def _gemv(store: ParameterStore, config: Config, base: str) -> Weight:
    """qweight int32 [out, in / 8], qzeros int32 [out, n], scales [out, 8 · n]: values in order, groups up to a multiple of 8 or more."""
    out, columns = spec_of(store, f"{base}.qweight", (DType.INT32,), (None, None))
    width = columns * 8
    _, held = spec_of(store, f"{base}.qzeros", (DType.INT32,), (out, None))
    spec_of(store, f"{base}.scales", SCALES, (out, held * 8))
    given = config.get("group_size", -1)
    groups = 1 if given == -1 else width // given if type(given) is int and given > 0 and width % given == 0 else 0
    if not 0 < groups <= held * 8:
        raise FormatError("rows that are no whole groups", where=f"{base}.scales", received=f"{width} columns, group_size {given!r}"[:80])
    kind = store.spec(f"{base}.scales").dtype

    def values(words: Array, zeros: Array, scales: Array) -> Array:
        shifted = unpack(words, 4, width) - unpack(zeros, 4, groups).repeat(width // groups, 1)
        return product(shifted, scales[:, :groups].repeat(width // groups, 1), kind)

    return Weight(TensorSpec(kind, (out, width)), tuple(f"{base}.{part}" for part in ("qweight", "qzeros", "scales")), values)


TILE = 16


def _marlin_order() -> tuple[Array, Array, Array]:
    """Where Marlin puts the values of four tiles of 16 × 16, the scales of several groups, and those of one (Frantar et al. 2024).

    A thread holds of each tile the rows 2 · t, 2 · t + 1, and those eight further, of two columns eight apart; even ones lie before odd.
    """
    thread = [16 * row + number // 4 + 8 * block for number in range(32) for block in (0, 1)
              for row in (2 * (number % 4), 2 * (number % 4) + 1, 2 * (number % 4 + 4), 2 * (number % 4 + 4) + 1)]
    tiles = np.array(thread).reshape(32, 1, 8) + 256 * np.arange(4).reshape(1, 4, 1)
    order = tiles.reshape(-1, 8)[:, [0, 2, 4, 6, 1, 3, 5, 7]].reshape(-1)
    several = np.arange(64).reshape(8, 8).T.reshape(-1)
    one = np.array([2 * row + column for row in range(4) for column in (0, 1, 8, 9, 16, 17, 24, 25)])
    return order, several, one


def _marlin(store: ParameterStore, config: Config, base: str) -> Weight:
    """qweight int32 [in / 16, 2 · out], scales [groups, out]: values less 8, in Marlin's order."""
    rows, columns = spec_of(store, f"{base}.qweight", (DType.INT32,), (None, None))
    width, out = rows * TILE, columns // 2
    groups, _ = spec_of(store, f"{base}.scales", SCALES, (None, out))
    order, several, one = _marlin_order()
    if out % 64 or not groups or width % groups:
        raise FormatError("a weight that is no whole tiles of Marlin", where=base, received=f"{width} × {out}, {groups} groups")
    kind = store.spec(f"{base}.scales").dtype

    def values(words: Array, scales: Array) -> Array:
        tiles = np.empty((rows * out * TILE // 1024, 1024), np.int32)
        tiles[:, order] = unpack(words, 4, columns * 8).reshape(-1, 1024)
        integers = tiles.reshape(rows, out // TILE, TILE, TILE).transpose(0, 2, 1, 3).reshape(width, out)
        places = several if groups > 1 else one
        plain = np.empty((groups * out // len(places), len(places)), scales.dtype)
        plain[:, places] = scales.reshape(-1, len(places))
        return product((integers - 8).T, plain.reshape(groups, out).repeat(width // groups, 0).T, kind)

    return Weight(TensorSpec(kind, (out, width)), (f"{base}.qweight", f"{base}.scales"), values)


_AWQ: Mapping[str, tuple[Callable[[ParameterStore, Config, str], Weight], bool]] = {
    "gemm": (_gemm, True), "gemv": (_gemv, True), "marlin": (_marlin, False)}
"""AutoAWQ's layouts, and whether each keeps zero points."""


# compressed-tensors ------------------------------------------------------------------------------------------------------


def packed(store: ParameterStore, config: Config, dtype: DType | None) -> Weights:
    """weight_packed int32 [out, ceil(in · bits / 32)], weight_scale [out, groups] or one, weight_shape int64 [2]; all less 2^(bits - 1).

    Where zero points are there, weight_zero_point is int32 [ceil(out · bits / 32), groups], packed along its first axis.
    """
    groups = config.get("config_groups")
    schemes = [scheme.get("weights") for scheme in groups.values() if isinstance(scheme, Mapping)] if isinstance(groups, Mapping) else []
    told = [scheme.get("num_bits") for scheme in schemes if isinstance(scheme, Mapping) and scheme.get("type", "int") == "int"]
    known = {bits for bits in told if type(bits) is int and 1 <= bits <= 8}
    if not known or len(told) < len(schemes):
        raise config.refuse("config_groups", "weights of integers of 1 to 8 bits", groups, fix=RESAVE)
    weights: Weights = {}
    for base in ending_in(store, ".weight_packed"):
        rows, columns = spec_of(store, f"{base}.weight_packed", (DType.INT32,), (None, None))
        spec_of(store, f"{base}.weight_shape", (DType.INT64, DType.INT32), (2,))
        out, width = (int(size) for size in store.read(f"{base}.weight_shape"))
        fits = [bits for bits in known if 0 < width < 1 << 31 and -(-width * bits // WORD) == columns]
        # Until bits that do not divide a word were packed densely, each word held whole values only.
        if out != rows or len(fits) != 1 or WORD % fits[0] and -(-width // (WORD // fits[0])) == columns:
            raise FormatError("packed integers that are not of the shape beside them", where=base, expected=f"{sorted(known)} bits",
                              received=f"{rows} × {columns} words for {out} × {width} values", fix=RESAVE)
        weights[f"{base}.weight"] = _unpacked(store, base, (out, width), fits[0])
    return weights


def _unpacked(store: ParameterStore, base: str, shape: tuple[int, int], bits: int) -> Weight:
    out, width = shape
    found = spec_of(store, f"{base}.weight_scale", SCALES)
    kind = store.spec(f"{base}.weight_scale").dtype
    down, across = (1, 1) if found in ((1,), (1, 1), ()) else found if len(found) == 2 else (0, 1)
    if down not in (1, out) or down == 1 != across or not across or width % across:
        raise UnsupportedError("scales of another arrangement", where=f"{base}.weight_scale", received=str(list(found)),
                               expected="one, or one for each row or each group in a row", fix=RESAVE)
    parts = [f"{base}.{part}" for part in ("weight_packed", "weight_scale", "weight_shape")]
    zero, order = f"{base}.weight_zero_point", f"{base}.weight_g_idx"
    if zero in store:
        spec_of(store, zero, (DType.INT32,), (-(-out * bits // WORD), across))
        parts.append(zero)
    if order in store:
        spec_of(store, order, (DType.INT32, DType.INT64), (width,))
        parts.append(order)

    def values(words: Array, scales: Array, _: Array, *more: Array) -> Array:
        held = dict(zip(parts[3:], more, strict=True))
        group = np.arange(width) // (width // across)
        if order in held and not (held[order] == -1).all():
            group = held[order]
            if (np.bincount(group.clip(0), minlength=across) != width // across).any() or group.min() < 0:
                raise FormatError("groups of different sizes", where=order, expected=f"{across} groups of {width // across}", fix=RESAVE)
        integers = unpack(words, bits, width)
        if zero in held:
            # Both are kept less 2^(bits - 1), which their difference has not.
            integers = integers - unpack(np.ascontiguousarray(held[zero].T), bits, out).T[:, group]
        else:
            integers = integers - (1 << bits - 1)
        return product(integers, scales.reshape(down, across)[:, group], kind)

    return Weight(TensorSpec(kind, shape), tuple(parts), values)
