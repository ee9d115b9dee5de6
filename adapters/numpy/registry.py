"""Kernels that are faster than the reference ones, by operator, filled by `adapters/numpy/kernels`, one file a family.

    @kernel("gelu")
    def gelu(x: Array, *, approximate: str = "none") -> Array: ...

A kernel takes what the reference kernel takes and gives the same, to rounding. It must not write to its operands. An
operator without one runs through its reference kernel. Element-wise operators have functions of blocks, of which chains
are made (`adapters.numpy.chains`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from converter.ir import Array
from converter.tables import Table

Function = TypeVar("Function", bound=Callable[..., Any])
Prepare = Callable[[Sequence[Array | None], Mapping[str, Any]], Callable[..., Any] | None]

_KERNELS = Table("adapters.numpy.kernels", "has two NumPy kernels")
_BLOCKS = Table("adapters.numpy.kernels", "has two functions of blocks")
_FIRST: set[str] = set()
_TAILS: set[str] = set()
_PREPARED: dict[str, Prepare] = {}


def kernel(*names: str, first: bool = False, tail: bool = False) -> Callable[[Function], Function]:
    """Registers a fast kernel for neutral operators.

    Args:
        first: it gives the first of several outputs alone.
        tail: it takes `tail`, a `chains.Tail` or None: the element-wise operators after it, which it runs on its own new result.
    """
    _FIRST.update(names if first else ())
    _TAILS.update(names if tail else ())
    return _KERNELS.register(*names)


def block(*names: str) -> Callable[[Function], Function]:
    """Registers, for element-wise operators, a function that fills a block: `function(out, *operands, **attributes)`.

    All are of one dtype, float32 or float64, and broadcast to the shape of `out`, which may be one of the operands: what is read after
    `out` was written to must not be an operand.
    """
    return _BLOCKS.register(*names)


def takes_tail(operator: str) -> bool:
    """Whether the operator's kernel, and each that is prepared for it, runs a chain of element-wise operators on its result."""
    _KERNELS.get(operator)
    return operator in _TAILS


def find_block(operator: str) -> Callable[..., Any] | None:
    """The function of blocks of an operator, None where it has none."""
    return _BLOCKS.get(operator)


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
    return {**_KERNELS, **_BLOCKS, **_PREPARED}
