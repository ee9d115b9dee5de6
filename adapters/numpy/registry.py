"""Kernels that are faster than the reference ones, by operator, filled by `adapters/numpy/kernels`, one file a family.

    @kernel("gelu")
    def gelu(x: Array, *, approximate: str = "none") -> Array: ...

A kernel takes what the reference kernel takes and gives the same, to rounding. It must not write to its operands. An
operator without one runs through its reference kernel.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from converter.ir import Array
from converter.tables import Table

Function = TypeVar("Function", bound=Callable[..., Any])
Prepare = Callable[[Sequence[Array | None], Mapping[str, Any]], Callable[..., Any] | None]

_KERNELS = Table("adapters.numpy.kernels", "has two NumPy kernels")
_FIRST: set[str] = set()
_PREPARED: dict[str, Prepare] = {}


def kernel(*names: str, first: bool = False) -> Callable[[Function], Function]:
    """Registers a fast kernel for neutral operators; with `first`, one that gives the first of several outputs alone."""
    _FIRST.update(names if first else ())
    return _KERNELS.register(*names)


def prepares(*names: str) -> Callable[[Prepare], Prepare]:
    """Registers what makes a kernel for a node whose constants are known, once: `prepare(constants, attributes)`.

    `constants` has an array for each operand that is a parameter or a number, None for the others. The kernel takes all
    operands and no attributes. None leaves the node to its usual kernel.
    """

    def decorate(function: Prepare) -> Prepare:
        _PREPARED.update(dict.fromkeys(names, function))
        return function

    return decorate


def find_kernel(operator: str, *, first: bool) -> Callable[..., Any] | None:
    """The fast kernel of an operator, None where it has none; `first`: nothing reads other outputs than the first."""
    return None if operator in _FIRST and not first else _KERNELS.get(operator)


def find_preparation(operator: str) -> Prepare | None:
    """What makes a kernel for a node of an operator."""
    _KERNELS.get(operator)  # the table's modules register both
    return _PREPARED.get(operator)


def kernels() -> Mapping[str, Callable[..., Any]]:
    """Every operator with a fast kernel, and what makes or is it."""
    return {**_KERNELS, **_PREPARED}
