"""Arithmetic, on blocks."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from adapters.numpy.registry import block
from converter.ir import Array


def _function(ufunc: np.ufunc) -> Callable[..., object]:
    return lambda out, *operands: ufunc(*operands, out=out)


for _name, _ufunc in (("add", np.add), ("subtract", np.subtract), ("multiply", np.multiply), ("divide", np.divide),
                      ("maximum", np.maximum), ("minimum", np.minimum), ("negative", np.negative), ("abs", np.abs),
                      ("square", np.square), ("reciprocal", np.reciprocal), ("floor", np.floor), ("ceil", np.ceil),
                      ("exp", np.exp), ("log", np.log), ("sqrt", np.sqrt), ("sin", np.sin), ("cos", np.cos), ("tanh", np.tanh)):
    block(_name)(_function(_ufunc))


@block("clip")
def clip(out: Array, x: Array, least: Array | None = None, most: Array | None = None) -> None:
    if least is None and most is None:
        np.copyto(out, x)
    elif least is None:
        np.minimum(x, most, out=out)  # type: ignore[arg-type]
    else:
        lifted = np.maximum(x, least, out=out if most is None else None)
        if most is not None:
            np.minimum(lifted, most, out=out)
