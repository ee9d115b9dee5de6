"""Arithmetic on whole tensors, into memory that the session uses again."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from adapters.numpy.buffers import LEAST, empty
from adapters.numpy.registry import kernel
from converter.ir import Array
from converter.opset import lookup


def _function(name: str, ufunc: np.ufunc) -> Callable[..., Array]:
    def compute(*operands: Array) -> Array:
        first = operands[0]
        if first.dtype != np.float32 or max(operand.size for operand in operands) * 4 < LEAST:
            result: Array = lookup(name).kernel(*operands)
            return result
        shape = first.shape if len(operands) == 1 else np.broadcast_shapes(*(operand.shape for operand in operands))
        return np.asarray(ufunc(*operands, out=empty(shape, np.float32)))

    return compute


for _name, _ufunc in (("add", np.add), ("subtract", np.subtract), ("multiply", np.multiply), ("divide", np.divide),
                      ("maximum", np.maximum), ("minimum", np.minimum), ("negative", np.negative), ("abs", np.abs),
                      ("exp", np.exp), ("sqrt", np.sqrt)):
    kernel(_name)(_function(_name, _ufunc))
