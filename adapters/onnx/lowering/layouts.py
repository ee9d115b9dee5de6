"""How an initializer in an ONNX file is made of the model's parameters, and how to get them back, bit for bit.

A layout is a list of invertible steps on a list of arrays, itself plain JSON, so that the file can say what was done:

    ["transpose", [1, 0]]          permute the axes of each array
    ["reshape", [1, 4, 8]]         of the one array there is by then
    ["blocks", 0, [0, 2, 1]]       cut into len(order) equal blocks along an axis, put in that order
    ["concat", 0]                  join all arrays along an axis
    ["stack", 0]                   join all arrays along a new axis
    ["bytes", "int4"]              integers of that dtype, of fewer than 8 bits, as int8 or uint8
    ["pairs", -1]                  complex values as real and imaginary parts, along a new last axis
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from converter.ir import Array, DType, TensorSpec

Step = tuple[Any, ...]

BYTES: dict[DType, DType] = {DType.INT2: DType.INT8, DType.UINT2: DType.UINT8, DType.INT4: DType.INT8, DType.UINT4: DType.UINT8}
"""What the integers of fewer than 8 bits are in the files that are written: ONNX Runtime does little with their own dtypes."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Steps from parameters to one initializer. Without steps: the parameter as it is."""

    steps: tuple[Step, ...] = ()

    @property
    def is_plain(self) -> bool:
        return not self.steps

    def apply(self, arrays: Sequence[Array]) -> Array:
        """The initializer's values. After the last step one array must be left."""
        current = list(arrays)
        for step in self.steps:
            current = _apply(step, current)
        (result,) = current
        return result

    def shape(self, shapes: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
        """The initializer's shape, without touching values: zero-stride arrays go through the steps."""
        return self.apply([np.broadcast_to(np.zeros((), np.int8), shape) for shape in shapes]).shape

    def invert(self, values: Array, shapes: Sequence[tuple[int, ...]]) -> list[Array]:
        """The parameters, given the initializer's values and the parameters' shapes."""
        history = [[np.broadcast_to(np.zeros((), np.int8), shape) for shape in shapes]]
        for step in self.steps:
            history.append(_apply(step, history[-1]))
        current = [values]
        for step, before in zip(reversed(self.steps), reversed(history[:-1]), strict=True):
            current = _invert(step, current, [array.shape for array in before])
        return current


def _apply(step: Step, arrays: list[Array]) -> list[Array]:
    kind, argument = step[0], step[1]
    if kind == "transpose":
        return [array.transpose(argument) for array in arrays]
    if kind == "reshape":
        (array,) = arrays
        return [array.reshape(argument)]
    if kind == "blocks":
        return [np.concatenate([np.split(array, len(step[2]), argument)[index] for index in step[2]], argument) for array in arrays]
    if kind == "concat":
        return [np.concatenate(arrays, argument)]
    if kind == "stack":
        return [np.stack(arrays, argument)]
    if kind == "pairs":
        return [_parts(array) for array in arrays]
    if kind == "bytes":
        return [array.astype(np.uint8 if argument.startswith("u") else np.int8) for array in arrays]
    raise ValueError(f"unknown layout step {kind!r}")


def _invert(step: Step, arrays: list[Array], shapes: list[tuple[int, ...]]) -> list[Array]:
    kind, argument = step[0], step[1]
    if kind == "transpose":
        return [array.transpose(np.argsort(argument)) for array in arrays]
    if kind == "reshape":
        (array,) = arrays
        return [array.reshape(shapes[0])]
    if kind == "blocks":
        inverse = np.argsort(step[2])
        return [np.concatenate([np.split(array, len(inverse), argument)[index] for index in inverse], argument) for array in arrays]
    if kind == "concat":
        (array,) = arrays
        bounds = np.cumsum([shape[argument] for shape in shapes])[:-1]
        return list(np.split(array, bounds, argument))
    if kind == "stack":
        (array,) = arrays
        return [np.take(array, index, argument) for index in range(len(shapes))]
    if kind == "pairs":
        return [_joined(array) for array in arrays]
    if kind == "bytes":
        return [_narrowed(array, argument) for array in arrays]
    raise ValueError(f"unknown layout step {kind!r}")


def _parts(array: Array) -> Array:
    if array.dtype.kind != "c":
        return np.broadcast_to(array[..., np.newaxis], (*array.shape, 2))
    parts = np.ascontiguousarray(array)
    return parts.reshape(-1).view(f"f{array.dtype.itemsize // 2}").reshape(*array.shape, 2)


def _joined(array: Array) -> Array:
    if array.dtype.kind != "f" or array.shape[-1:] != (2,):
        raise ValueError("no pairs of real and imaginary parts")
    return np.ascontiguousarray(array).reshape(-1).view(f"c{array.dtype.itemsize * 2}").reshape(array.shape[:-1])


def _narrowed(array: Array, name: str) -> Array:
    dtype = next((dtype for dtype in DType if dtype.value == name and dtype.is_integer and dtype.bits < 8), None)
    if dtype is None or array.size and not dtype.limits[0] <= int(array.min()) <= int(array.max()) <= dtype.limits[1]:
        raise ValueError(f"no values of {name!r}")
    return array.astype(dtype.numpy)


@dataclass(frozen=True, slots=True)
class Initializer:
    """One stored tensor of an ONNX file: its name and spec, and the parameters it is made of."""

    name: str
    spec: TensorSpec
    sources: tuple[str, ...]
    layout: Layout
