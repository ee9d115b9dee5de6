"""Kernels that are faster than the reference ones, by operator, filled by `adapters/numpy/kernels`, one file a family.

    @kernel("gelu")
    def gelu(x: Array, *, approximate: str = "none") -> Array: ...

A kernel takes what the reference kernel takes and gives the same, to rounding. It must not write to its operands. An
operator without one runs through its reference kernel.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from converter.tables import Table

_KERNELS = Table("adapters.numpy.kernels", "has two NumPy kernels")

kernel = _KERNELS.register
"""Registers a fast kernel for neutral operators."""


def kernels() -> Mapping[str, Callable[..., Any]]:
    """Every fast kernel by operator."""
    return _KERNELS
