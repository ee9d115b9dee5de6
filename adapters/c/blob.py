"""The constants of a program in one block of bytes."""

from __future__ import annotations

import numpy as np

from adapters.c.source import Program
from converter.ir import Array

ALIGNED = 64


def laid_out(program: Program) -> Array:
    """The bytes, uint8; `program.blob` says from then on where each constant lies in them."""
    places: dict[int, int] = {}
    end = 0
    for buffer in program.constants:
        assert buffer.array is not None
        places[id(buffer)] = end
        end += -(-buffer.array.nbytes // ALIGNED) * ALIGNED
    program.blob = places
    raw = np.zeros(end + ALIGNED, np.uint8)
    start = -raw.ctypes.data % ALIGNED
    block = raw[start : start + end] if end else raw[start : start + 1]
    for buffer in program.constants:
        assert buffer.array is not None
        data = np.ascontiguousarray(buffer.array).reshape(-1).view(np.uint8)
        block[places[id(buffer)] : places[id(buffer)] + data.size] = data
    return block
