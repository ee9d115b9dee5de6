"""Matrix products and affine maps."""

from __future__ import annotations

import numpy as np

from converter.ir import TensorSpec
from converter.ops._rules import Array, require_rank, require_size, same_dtype
from converter.opset import op


def _linear(x: TensorSpec, weight: TensorSpec, bias: TensorSpec | None) -> TensorSpec:
    require_rank(weight, 1, 2, what="the weight")
    dtype = same_dtype(x, weight, bias)
    require_size(x.shape[-1], weight.shape[-1], "the last axis of the input")
    return TensorSpec(dtype, x.shape[:-1] + weight.shape[:-1])


@op(infer=_linear)
def linear(x: Array, weight: Array, bias: Array | None = None) -> Array:
    """x · weightᵀ + bias: torch.nn.functional.linear.

    x: [..., in]; weight: [out, in]; bias: [out]. y: [..., out].
    """
    y = np.matmul(x, weight.T)
    return y if bias is None else y + bias
