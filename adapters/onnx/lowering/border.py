"""What ONNX lacks, at the border of a file: complex numbers are real ones with a last axis of 2, as `torch.view_as_real` gives them;
integers of fewer than 8 bits are bytes."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from adapters.onnx.lowering.layouts import BYTES
from converter.ir import Array, DType, TensorSpec
from converter.ops.complex_numbers import REAL_OF


def spec_within(spec: TensorSpec) -> TensorSpec:
    """What a value is within the file: real with a last axis of 2 for a complex one."""
    return TensorSpec(REAL_OF[spec.dtype], (*spec.shape, 2)) if spec.dtype.is_complex else spec


def spec_at_border(spec: TensorSpec) -> TensorSpec:
    """What an input or an output of the file is: bytes for narrower integers, too."""
    return TensorSpec(BYTES[spec.dtype], spec.shape) if spec.dtype in BYTES else spec_within(spec)


def to_border(arrays: Mapping[str, Array]) -> dict[str, Array]:
    """Complex arrays, and those of integers of fewer than 8 bits, as a file takes them; others as they are."""
    return {name: np.stack((array.real, array.imag), axis=-1) if array.dtype.kind == "c"
            else array.astype(BYTES[DType.of(array.dtype)].numpy) if array.dtype.kind == "V" and DType.of(array.dtype) in BYTES else array
            for name, array in arrays.items()}


def from_border(array: Array, dtype: DType) -> Array:
    """An output as the neutral graph declares it."""
    if not dtype.is_complex:
        return array.astype(dtype.numpy) if dtype in BYTES else array
    return np.ascontiguousarray(array).view(dtype.numpy)[..., 0]
