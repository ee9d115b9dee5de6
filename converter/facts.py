"""What an operator is, beside what it computes: said once, in its definition, for whoever must know it.

    @op(infer=_reshape, facts=moves(0, flat=True))

Drawing inputs, judging ties, rewriting, folding, complex pairs and streaming ask the operator. `tests/operators/test_facts.py` checks every
fact on the operator's kernel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

ALL = range(1 << 16)
"""Every operand's position."""

Positions = Sequence[int]
Interval = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Ids:
    """An operand that holds ids.

    at: its position; where `onward`, that of the first of several, which are ids along the axes of the table in order.
    table: the position of what they are looked up in, whose size along an axis bounds them, exclusive; None where `axis` names an
        attribute that is itself the bound.
    axis: the axis of the table, or the name of the attribute that has it.
    """

    at: int
    table: int | None = 0
    axis: int | str = 0
    onward: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What is true of an operator. Positions are those of its operands.

    carries: operands whose elements, as they are but for their dtype, the output's elements are. Of several outputs that have names,
        the first.
    fills: beside those, the output holds a filling.
    flat: the output has all elements of operand 0, in their row-major order.
    whole: each element of operand 0 lives on in the output.
    mirrors: each element of the output is one of operand 0, 0, or the negative of one.
    linear: operands in which, taken together and whatever the others are, the operator is linear with real coefficients.
    elementwise: operands broadcast, and each element of the output depends on their elements at its place only. True of every
        operator whose shape rule is `unary` or `elementwise`.
    compares: it answers whether its first two operands are equal, or how they are ordered.
    chooses: its last output has places along an axis of operand 0: one of them, or several.
    truth: it takes its operands as truth values.
    ids: the operand that holds ids.
    wide: operands that may be integers of any size.
    divisor: the operand by which integers are divided, which must not hold 0.
    matrix: operand 0 holds matrices that are inverted, that are factored, or that must be positive definite.
    domain: where the operator is defined, or most of its values are finite: an interval of floats for each operand, the last one for
        all that follow.
    states: the ranges of the states that a recurrent layer starts from.
    finite: it makes finite numbers of finite ones, but for overflow.
    layer: operands are (x, weight, bias), and axis 0 of the weight is the channels of the result.
    statistics: operands that hold what a layer observed and not what it learned.
    """

    carries: Positions = ()
    fills: bool = False
    flat: bool = False
    whole: bool = False
    mirrors: bool = False
    linear: Positions = ()
    elementwise: bool = False
    compares: Literal["", "equal", "order"] = ""
    chooses: Literal["", "one", "several"] = ""
    truth: bool = False
    ids: Ids | None = None
    wide: Positions = ()
    divisor: int | None = None
    matrix: Literal["", "inverted", "factored", "definite"] = ""
    domain: tuple[Interval, ...] = ()
    states: tuple[Interval, ...] = ()
    finite: bool = False
    layer: bool = False
    statistics: Positions = ()

    def interval(self, position: int) -> Interval | None:
        """The interval of one operand."""
        return self.domain[min(position, len(self.domain) - 1)] if self.domain else None


NOTHING = Facts()
"""Of an operator that nothing else need be known of."""


def moves(*positions: int, **facts: Any) -> Facts:
    """The facts of an operator that moves the elements of these operands, or of all where none is named."""
    return Facts(carries=positions or ALL, linear=positions or ALL, **facts)
