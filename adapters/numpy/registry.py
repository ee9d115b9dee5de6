"""Kernels that are faster than the reference ones, by operator, filled by `adapters/numpy/kernels`, one file a family.

    @kernel("gelu")
    def gelu(x: Array, *, approximate: str = "none") -> Array: ...

A kernel takes what the reference kernel takes and gives the same, to rounding. It must not write to its operands. An
operator without one runs through its reference kernel.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

_KERNELS: dict[str, Callable[..., Any]] = {}


def kernel(*operators: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Registers a fast kernel for neutral operators."""

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        for name in operators:
            if name in _KERNELS:
                raise RuntimeError(f"operator {name!r} has two NumPy kernels")
            _KERNELS[name] = function
        return function

    return register


@cache
def _load() -> None:
    import adapters.numpy.kernels

    for module in pkgutil.iter_modules(adapters.numpy.kernels.__path__):
        importlib.import_module(f"adapters.numpy.kernels.{module.name}")


def kernels() -> Mapping[str, Callable[..., Any]]:
    """Every fast kernel by operator."""
    _load()
    return _KERNELS
