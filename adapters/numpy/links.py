"""A chain of element-wise operators as one kernel: block by block, every operator of the chain while the block lies in the cache.

A link's results have the shape of the chain's result, so that a block of the one is a block of the other. Operators that have a
function of blocks (`registry.block`) write where the chain says: into the result where its memory is free, else into one of a few
temporaries; the others give the array that their reference kernel makes of a block.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from adapters.numpy.blocks import BLOCK
from adapters.numpy.buffers import empty
from adapters.numpy.threads import spread
from converter.ir import Array

Index = tuple[Any, ...]
RESULT = -1
"""The target that is the result's own memory."""


@dataclass(frozen=True, slots=True)
class Link:
    """One operator of a chain. `operands` are places: those of the chain's operands first, then those of earlier links' results.

    With `writes`, `function(out, *operands, **attributes)`; `out` may be one of the operands. Else it gives a new array.
    """

    function: Callable[..., Any]
    operands: tuple[int, ...]
    attributes: Mapping[str, Any]
    dtype: np.dtype[Any]
    writes: bool


class Links:
    """The links of a chain, with the memory that each writes to.

    Args:
        links: in an order in which they can run; the last one's result is the chain's.
        count: how many operands the chain has.
        held: the operand in whose memory the result is to be, if one: it is overwritten.
    """

    def __init__(self, links: Sequence[Link], count: int, held: int | None = None) -> None:
        self.count, self.dtype, self.held = count, links[-1].dtype, held
        self.temporaries: list[np.dtype[Any]] = []
        last = {place: index for index, link in enumerate(links) for place in link.operands}
        busy: dict[int, int] = {} if held is None else {RESULT: held}
        program = []
        for index, link in enumerate(links):
            target = None
            if link.writes:
                free = [where for where in (RESULT, *range(len(self.temporaries)))
                        if (self.dtype if where == RESULT else self.temporaries[where]) == link.dtype
                        and (where not in busy or last.get(busy[where], -1) <= index)]
                if index == len(links) - 1:
                    target = RESULT
                elif free:
                    target = free[0]
                else:
                    target = len(self.temporaries)
                    self.temporaries.append(link.dtype)
                busy[target] = count + index
            program.append((link.function, link.operands, dict(link.attributes), target))
        self._program = tuple(program)

    def run(self, out: Array, operands: Sequence[Array], temporaries: Sequence[Array]) -> None:
        """Fills `out`, all at once; temporaries are of its shape."""
        values = list(operands)
        value: Any = None
        for function, places, attributes, target in self._program:
            if target is None:
                value = function(*[values[place] for place in places], **attributes)
            else:
                value = out if target == RESULT else temporaries[target]
                function(value, *[values[place] for place in places], **attributes)
            values.append(value)
        if value is not out:
            np.copyto(out, value)

    def __call__(self, *operands: Array) -> Array:
        """The chain's result, a new array whose axes lie in memory as those of its operands do."""
        shape = operands[0].shape if len(operands) == 1 else np.broadcast_shapes(*[operand.shape for operand in operands])
        order = _order(shape, operands)
        if order is None:
            return self.fill(empty(shape, self.dtype), operands)
        turned = [_turn(operand, order) for operand in operands]
        back = sorted(range(len(order)), key=order.__getitem__)
        return self.fill(empty(tuple(shape[axis] for axis in order), self.dtype), turned).transpose(back)

    def fill(self, out: Array, operands: Sequence[Array]) -> Array:
        """`out`, filled block by block."""
        if out.size <= BLOCK:
            self.run(out, operands, [np.empty(out.shape, dtype) for dtype in self.temporaries])
            return out

        def work(indices: Iterable[tuple[Index, slice]]) -> None:
            flat = [np.empty(BLOCK, dtype) for dtype in self.temporaries]
            for lead, part in indices:
                block = out[(*lead, part)]
                self.run(block, [_part(operand, lead, part, out.ndim) for operand in operands],
                         [memory[:block.size].reshape(block.shape) for memory in flat])

        plain = out.flags.c_contiguous and all(operand.size == 1 or operand.shape == out.shape and operand.flags.c_contiguous
                                               for operand in operands)
        if plain:
            whole, out = out, out.reshape(-1)
            operands = [operand.reshape(-1) for operand in operands]
            spread(_blocks(out.shape), work)
            return whole
        spread(_blocks(out.shape), work)
        return out


class Tail:
    """A chain that begins with a layer's result and overwrites it."""

    def __init__(self, links: Links, others: Sequence[Array]) -> None:
        self.links, self.others = links, others

    def __call__(self, y: Array) -> None:
        """The whole result, block by block."""
        self.links.fill(y, [y, *self.others])

    def within(self, shape: tuple[int, ...]) -> Callable[[Array, tuple[Any, ...]], None]:
        """`finish(part, index)`: `part` is what a result of this shape has at `index`, with the same number of axes."""
        others = [np.broadcast_to(other, shape) if other.ndim else other for other in self.others]

        def finish(part: Array, index: tuple[Any, ...]) -> None:
            self.links.fill(part, [part, *[other[index] if other.ndim else other for other in others]])

        return finish


def finished(y: Array, tail: Tail | None) -> Array:
    """A new result with its tail, if it has one, run on the whole of it."""
    if tail is not None:
        tail(y)
    return y


def _blocks(shape: tuple[int, ...]) -> list[tuple[Index, slice]]:
    """Blocks of at most `BLOCK` elements, each as an index of the first axes and a slice of the next."""
    axis, inner = len(shape) - 1, 1
    while axis > 0 and inner * shape[axis] <= BLOCK:
        inner *= shape[axis]
        axis -= 1
    step = max(1, BLOCK // inner)
    parts = [slice(start, min(start + step, shape[axis])) for start in range(0, shape[axis], step)]
    return [(lead, part) for lead in np.ndindex(*shape[:axis]) for part in parts]


def _part(operand: Array, lead: Index, part: slice, rank: int) -> Array:
    """What belongs to a block, of an operand that is broadcast."""
    missing = rank - operand.ndim
    index = [place if operand.shape[axis - missing] > 1 else 0 for axis, place in enumerate(lead) if axis >= missing]
    if len(lead) >= missing:
        index.append(part if operand.shape[len(lead) - missing] > 1 else slice(None))
    return operand[tuple(index)]


def _order(shape: tuple[int, ...], operands: Sequence[Array]) -> tuple[int, ...] | None:
    """The axes as they lie in memory, outermost first, if the first operand of the whole shape has them in another order."""
    for operand in operands:
        if operand.shape == shape:
            if operand.flags.c_contiguous or operand.size <= 1:
                return None
            strides = operand.strides
            order = tuple(sorted(range(len(shape)), key=lambda axis: (-abs(strides[axis]), axis)))
            return None if order == tuple(range(len(shape))) or 0 in strides else order
    return None


def _turn(operand: Array, order: tuple[int, ...]) -> Array:
    """The operand, broadcast among others of as many axes, with its axes in this order."""
    return operand.reshape((1,) * (len(order) - operand.ndim) + operand.shape).transpose(order)
