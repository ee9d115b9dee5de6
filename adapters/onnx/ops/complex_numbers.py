"""Complex numbers, which ONNX has no arithmetic for."""

from __future__ import annotations

import math
from typing import NoReturn

from adapters.onnx.kernels import number
from adapters.onnx.lowering import Lowering, Tensor
from adapters.onnx.ops.elementwise import apply, select
from adapters.onnx.registry import lowers
from converter.ir import DType


@lowers("real", "imag", "conj", "complex", "view_as_complex", "view_as_real")
def refused(g: Lowering, *operands: Tensor, **attributes: object) -> NoReturn:
    raise g.refuse("ONNX has no complex arithmetic")


@lowers("angle")
def angle(g: Lowering, x: Tensor) -> Tensor:
    if x.dtype.is_complex:
        refused(g)
    turned = select(g, apply(g, "Less", x, number(g, 0, x), dtype=DType.BOOL), number(g, math.pi, x), number(g, 0, x))
    return select(g, apply(g, "IsNaN", x, dtype=DType.BOOL), x, turned)
