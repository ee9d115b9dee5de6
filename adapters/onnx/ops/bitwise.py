"""Operations on the bits of integers."""

from __future__ import annotations

from collections.abc import Callable

from adapters.onnx.lowering.context import Lowering, Tensor
from adapters.onnx.lowering.kernels import literal, number
from adapters.onnx.ops.elementwise import apply, select
from adapters.onnx.registry import lowers
from converter.ir import DType

UNSIGNED = {DType.INT8: DType.UINT8, DType.INT16: DType.UINT16, DType.INT32: DType.UINT32, DType.INT64: DType.UINT64}


def _bits(of_integers: str, of_booleans: str) -> Callable[..., Tensor]:
    def lowering(g: Lowering, *operands: Tensor) -> Tensor:
        return apply(g, of_booleans if operands[0].dtype is DType.BOOL else of_integers, *operands)

    return lowering


lowers("bitwise_and")(_bits("BitwiseAnd", "And"))
lowers("bitwise_or")(_bits("BitwiseOr", "Or"))
lowers("bitwise_xor")(_bits("BitwiseXor", "Xor"))
lowers("bitwise_invert")(_bits("BitwiseNot", "Not"))


def _shift(g: Lowering, x: Tensor, y: Tensor, direction: str) -> Tensor:
    """A shift of unsigned bits, 0 where the distance is no less than their number (or negative, which is so as unsigned)."""
    dtype = x.dtype
    plain = UNSIGNED.get(dtype, dtype)
    x, y = g.cast(x, plain), g.cast(y, plain)
    distance, width = literal(g, y), dtype.itemsize * 8
    if distance is not None and distance < width:
        return g.cast(apply(g, "BitShift", x, y, direction=direction), dtype)
    last = number(g, width - 1, y)
    shifted = apply(g, "BitShift", x, apply(g, "Min", y, last), direction=direction)
    beyond = apply(g, "Greater", y, last, dtype=DType.BOOL)
    # In the original dtype, which `Where` may have a kernel for.
    return select(g, beyond, g.constant(0, dtype), g.cast(shifted, dtype))


@lowers("bitwise_left_shift")
def left_shift(g: Lowering, x: Tensor, y: Tensor) -> Tensor:
    return _shift(g, x, y, "LEFT")


@lowers("bitwise_right_shift")
def right_shift(g: Lowering, x: Tensor, y: Tensor) -> Tensor:
    """Of a negative number all bits are flipped before and after, so that ones come in from the left."""
    if x.dtype not in UNSIGNED:
        return _shift(g, x, y, "RIGHT")
    sign = apply(g, "Less", x, number(g, 0, x), dtype=DType.BOOL)
    mask = apply(g, "Neg", g.cast(sign, x.dtype))
    return apply(g, "BitwiseXor", _shift(g, apply(g, "BitwiseXor", x, mask), y, "RIGHT"), mask)
