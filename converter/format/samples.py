"""What an example of a document holds in place of all values: samples of outputs, and how inputs were drawn."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from converter.errors import FormatError
from converter.format.document import parameter_spec, spec_to_document
from converter.format.fields import describe, fixed_shape, members, typed
from converter.format.limits import MAX_BYTES
from converter.format.tensors import integers
from converter.ir import Array, DType, Example, TensorSpec
from converter.recorded import KINDS, STATISTICS, Draw, Sample

MAX_SEED = (1 << 64) - 1


def recorded_members(example: Example) -> dict[str, Any]:
    """`samples` and `drawn` of an example: what it holds in place of all values."""
    samples = {name: {"shape": list(item.shape), "seed": str(item.seed), "statistics": dict(item.statistics)}
               for name, item in example.outputs.items() if isinstance(item, Sample)}
    drawn = {}
    for name, draw in example.draws.items():
        array = np.asarray(example.inputs[name])
        drawn[name] = {**spec_to_document(TensorSpec(DType.of(array.dtype), array.shape)), "kind": draw.kind, "seed": str(draw.seed),
                       **({} if draw.kind == "normal" else {"low": draw.low, "high": draw.high})}
    return {"samples": samples, "drawn": drawn}


def read_samples(document: Any, outputs: Mapping[str, Array], where: str) -> dict[str, Sample]:
    """The samples of an example, whose values are among its outputs. Raises `FormatError`."""
    found = {}
    for name, item in typed(document, dict, where).items():
        place = f"{where}[{name[:80]!r}]"
        if name not in outputs:
            raise FormatError("a sample of no output", where=place, expected="the name of an output of the example")
        item = members(item, place, ("shape", "seed", "statistics"))
        shape = fixed_shape(item["shape"], f"{place}.shape")
        values = outputs[name]
        if math.prod(max(1, size) for size in shape) * values.dtype.itemsize > MAX_BYTES:
            raise FormatError("a shape that no tensor has", where=f"{place}.shape", expected=f"at most {MAX_BYTES} bytes",
                              received=str(list(shape)))
        if values.ndim != 1 or not 0 < values.size <= math.prod(shape):
            raise FormatError("not a sample", where=place, expected=f"values with one axis, at most {math.prod(shape)}",
                              received=str(list(values.shape)))
        statistics = members(item["statistics"], f"{place}.statistics", ("finite",), STATISTICS[1:])
        numbers = {key: _number(value, f"{place}.statistics.{key}") for key, value in statistics.items()}
        found[name] = Sample(shape, _seed(item["seed"], f"{place}.seed"), values, numbers)
    return found


def read_draws(document: Any, given: Mapping[str, Array], room: int, where: str) -> tuple[dict[str, Draw], dict[str, Array]]:
    """How an example's inputs were drawn, and their values. `room`: how many there may be. Raises `FormatError`."""
    draws, arrays = {}, {}
    for name, item in typed(document, dict, where).items():
        place = f"{where}[{name[:80]!r}]"
        if name in given:
            raise FormatError("an input has values, and is drawn too", where=place, fix="keep one of the two")
        item = members(item, place, ("dtype", "shape", "kind", "seed"), ("low", "high"))
        spec = parameter_spec(item["dtype"], item["shape"], place)
        kind = typed(item["kind"], str, f"{place}.kind")
        fits = {"normal": spec.dtype.is_float, "uniform": spec.dtype.is_float, "integers": spec.dtype.is_integer}
        if kind not in KINDS or not fits[kind] or (kind == "normal") == ("low" in item or "high" in item):
            raise FormatError("not a way to draw this input", where=place, received=f"{describe(kind)} for {spec.dtype}",
                              expected='"normal"; "uniform" or "integers" with "low" and "high"')
        room -= math.prod(integers(spec))
        if room < 0:
            raise FormatError("too many drawn values", where=place, fix="write the inputs by value")
        draws[name] = Draw(kind, _seed(item["seed"], f"{place}.seed"),
                           *(_bound(item, key, spec.dtype, place) for key in ("low", "high") if kind != "normal"))
        try:
            arrays[name] = draws[name].array(spec.dtype, integers(spec))
        except FormatError as error:
            raise error.within(place) from None
        arrays[name].flags.writeable = False
    return draws, arrays


def _bound(item: Mapping[str, Any], key: str, dtype: DType, where: str) -> float:
    if key not in item:
        raise FormatError(f"the field {key!r} is missing", where=where)
    value = item[key]
    if not dtype.is_integer:
        return _number(value, f"{where}.{key}")
    lowest, highest = max(dtype.limits[0], -(1 << 62)), min(dtype.limits[1] + 1, 1 << 62)
    if isinstance(value, bool) or not isinstance(value, int) or not lowest <= value <= highest:
        raise FormatError("not a bound of these integers", where=f"{where}.{key}", received=describe(value))
    return value


def _number(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < math.inf:
        raise FormatError("not a number", where=where, received=describe(value))
    return value


def _seed(value: Any, where: str) -> int:
    text = typed(value, str, where)
    if not (text.isascii() and text.isdigit() and len(text) <= 20 and int(text) <= MAX_SEED):
        raise FormatError("not a seed", where=where, expected="a text of decimal digits, below 2^64", received=describe(value))
    return int(text)
