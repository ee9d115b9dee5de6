"""Quantised weights of a folder as the floats that they stand for, a tensor at a time, by the formulas of the libraries that wrote them.

Products are taken in float32 and rounded once, as a CPU takes them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from adapters.architectures.huggingface.config import Config, read_object
from adapters.architectures.huggingface.quantized.floats import bitsandbytes, compressed, fp8, mxfp4
from adapters.architectures.huggingface.quantized.integers import awq, gptq
from adapters.architectures.huggingface.quantized.parts import FLOATS, RESAVE, Weight, Weights
from converter.errors import FormatError, UnsupportedError
from converter.ir import Array, DType, TensorSpec
from converter.parameters import ParameterStore, ParameterView

FIELD = "quantization_config"


class DequantizedParameters(ParameterView):
    """A store whose quantised weights are read as floats; `weights` by their names, in the place of their first part."""

    def __init__(self, store: ParameterStore, weights: Mapping[str, Weight]) -> None:
        self._store, self._weights = store, dict(weights)
        owner = {part: name for name, weight in weights.items() for part in weight.parts}
        places: dict[str, tuple[ParameterStore, str]] = {}
        for name in store.names():
            places.setdefault(owner.get(name, name), (store, name))
        super().__init__(places, key=store.key)

    def alias_of(self, name: str) -> str | None:
        found = super().alias_of(name)
        return None if name in self._weights or found in self._weights else found

    def spec(self, name: str) -> TensorSpec:
        return self._weights[name].spec if name in self._weights else super().spec(name)

    def changed(self, name: str) -> bool:
        return name in self._weights

    def made(self, name: str) -> Array:
        weight = self._weights[name]
        return np.ascontiguousarray(weight.values(*(self._store.read(part) for part in weight.parts)))


def as_floats(store: ParameterStore, folder: Path, dequantize: bool) -> ParameterStore:
    """A folder's tensors, those that are quantised as the floats that they stand for where that is asked for.

    `quantization_config` in config.json tells of them, or a quantize_config.json of an older AutoGPTQ beside it.

    Raises:
        UnsupportedError: quantised weights, and `dequantize` is not given; a method, or a layout of one, that is not known.
        FormatError: tensors that do not fit each other; `dequantize`, and nothing is quantised.
    """
    file, older = folder / "config.json", folder / "quantize_config.json"
    fields = read_object(file) if file.is_file() else {}
    if fields.get("quantization") and any(name.endswith(".scales") for name in store.names()):
        raise UnsupportedError("weights that MLX has quantised", where=str(file), received="quantization", fix=RESAVE)
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


_METHODS: Mapping[str, Callable[[ParameterStore, Config, DType | None], Weights]] = {
    "gptq": gptq, "awq": awq, "bitsandbytes": bitsandbytes, "fp8": fp8, "mxfp4": mxfp4, "compressed-tensors": compressed}
