"""Reductions of tensors that may be without elements, which ONNX Runtime gives the shape of what they reduce.

A reduced axis that may be empty gets one more element, the reduction's identity; and the result is given its shape.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from converter import dims
from converter.ir import DType, TensorSpec

if TYPE_CHECKING:
    from adapters.onnx.lowering.context import Lowering, Tensor

IDENTITIES: dict[str, float | str | None] = {
    "ReduceSum": 0, "ReduceL1": 0, "ReduceL2": 0, "ReduceSumSquare": 0, "ReduceProd": 1, "ReduceLogSumExp": -np.inf, "ReduceMax": "least",
    "ReduceMin": "most", "ReduceMean": None,
}
"""What changes nothing when it is reduced too, by ONNX operator. None for a mean, which is a sum and a division."""


def _identity(op_type: str, dtype: DType) -> Any:
    value = IDENTITIES[op_type]
    if value not in ("least", "most"):
        return value
    if dtype is DType.BOOL:
        return value == "most"
    if dtype.is_float:
        return np.inf if value == "most" else -np.inf
    limits = np.iinfo(dtype.numpy)
    return limits.max if value == "most" else limits.min


def reduced_empty(g: Lowering, op_type: str, x: Tensor, axes: Tensor | None = None, *, spec: TensorSpec, **attributes: Any) -> Tensor:
    """`op_type` over the constant `axes` of `x` (all by default), right for no elements too. `spec` is the result's."""
    from adapters.onnx.lowering.context import Tensor

    places = list(range(x.rank)) if axes is None else [int(place) % x.rank for place in g.constants[axes.name]]
    if op_type == "ReduceMean":
        total = reduced_empty(g, "ReduceSum", x, axes, spec=spec, **attributes)
        count = g.cast(g.scalar_size(dims.product([x.shape[place] for place in places])), x.dtype)
        return g.node("Div", total, count, spec=spec)
    widened = [place for place in places if g.may_be_empty([x.shape[place]])]
    if widened:
        shape = tuple(size + 1 if place in widened else size for place, size in enumerate(x.shape))
        pads = [0] * x.rank + [int(place in widened) for place in range(x.rank)]
        boolean = x.dtype is DType.BOOL
        inner = g.cast(x, DType.UINT8) if boolean else x
        nothing = g.constant(_identity(op_type, x.dtype), inner.dtype)
        x = g.node("Pad", inner, g.constant(pads), nothing, spec=TensorSpec(inner.dtype, shape))
        x = g.cast(x, DType.BOOL) if boolean else x
    result = g.nodes_out(op_type, x, axes, specs=[spec], **attributes)[0]
    return Tensor(g.node("Reshape", result, g.sizes(spec.shape), spec=spec, allowzero=1).name, spec)
