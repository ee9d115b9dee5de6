"""bfloat16 in operators that ONNX Runtime's CPU provider lacks for it: float32 within, casts around."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from adapters.onnx.lowering.context import Lowering, Tensor
from converter.ir import DType, TensorSpec


def through_float32(lowering: Callable[..., Any]) -> Callable[..., Any]:
    """The lowering on bfloat16 operands cast to float32, its bfloat16 results cast back; other dtypes as they are.

    float16 needs none of this: ONNX Runtime puts those casts in by itself.
    """

    @wraps(lowering)
    def lowered(g: Lowering, *operands: Tensor | None, **attributes: Any) -> Any:
        if not any(item is not None and item.dtype is DType.BFLOAT16 for item in operands):
            return lowering(g, *operands, **attributes)
        widened = [g.cast(item, DType.FLOAT32) if item is not None and item.dtype is DType.BFLOAT16 else item for item in operands]
        result = lowering(g, *widened, **attributes)
        if isinstance(result, tuple):
            return tuple(_narrowed(g, item) for item in result)
        return _narrowed(g, result)

    def _narrowed(g: Lowering, y: Tensor) -> Tensor:
        # A node whose spec was left to the neutral output says bfloat16 and holds float32.
        if y.dtype not in (DType.FLOAT32, DType.BFLOAT16):
            return y
        return g.cast(Tensor(y.name, TensorSpec(DType.FLOAT32, y.shape)), DType.BFLOAT16)

    return lowered
