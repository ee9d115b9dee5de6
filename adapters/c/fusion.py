"""Element-wise operators that are computed where they are read: a chain of them is one loop, and what only it reads is in no memory.

A `Pending` value has not been computed. What needs it in memory asks `placed`; what reads it element by element takes it into its own
loops with `Fused`. A value that more than one loop reads is stored by the first of them, unless it costs next to nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from adapters.c.elementwise import CHEAP, expression
from adapters.c.types import ctype
from adapters.c.views import Buffer, View
from adapters.c.writer import BAD_DATA, Loops, Writer
from converter.dims import Dim
from converter.errors import UnsupportedError
from converter.ir import DType, TensorSpec

DEEPEST = 48
"""Operators in one expression, each counted as often as it is reached."""
FREE = 3
"""Cheap operators that are computed again rather than stored."""


@dataclass(frozen=True, slots=True)
class Number:
    """A tensor of one value that is known: a number, or a size."""

    value: bool | int | float | Dim
    dtype: DType
    shape: tuple[Dim, ...] = ()


@dataclass(eq=False)
class Pending:
    """An operator of operands that broadcast, not yet computed. `uses`: how often it is read."""

    operator: str
    operands: tuple[Value, ...]
    spec: TensorSpec
    hint: str
    uses: int
    weight: int = 1
    cheap: int | None = 0
    """How many cheap operators it is made of; None where there are others."""
    view: View | None = field(default=None)
    label: str = ""

    @property
    def shape(self) -> tuple[Dim, ...]:
        return self.spec.shape

    @property
    def dtype(self) -> DType:
        return self.spec.dtype


Value = View | Pending | Number


def pending(g: Writer, operator: str, operands: Sequence[Value], spec: TensorSpec, hint: str, uses: int) -> Pending:
    """An element-wise operator. Raises `UnsupportedError` where it has no expression for a dtype."""
    if expression(operator, ["x"] * len(operands), [item.dtype for item in operands], spec.dtype) is None:
        raise UnsupportedError(f"{operator} of {operands[-1].dtype} has no expression in C")
    settled: list[Value] = []
    for item in operands:
        for size, wanted in zip(item.shape, spec.shape[len(spec.shape) - len(item.shape) :], strict=True):
            if size != 1:
                g.same(size, wanted)
        if isinstance(item, Pending):
            item = item.view or item
        if isinstance(item, Pending) and item.shape != spec.shape and not (item.cheap is not None and item.cheap <= 1):
            item = placed(g, item)
        settled.append(item)
    weight = 1 + sum(item.weight for item in settled if isinstance(item, Pending))
    if weight > DEEPEST:
        settled = [placed(g, item) if isinstance(item, Pending) else item for item in settled]
        weight = 1
    parts = [item.cheap if isinstance(item, Pending) else 0 for item in settled]
    cheap = None if operator not in CHEAP or None in parts else 1 + sum(part or 0 for part in parts)
    return Pending(
        operator, tuple(settled), spec, hint, uses, weight, cheap if cheap is not None and cheap <= FREE else None, label=g.label
    )


def placed(g: Writer, value: Value) -> View:
    """The value in memory."""
    if isinstance(value, View):
        return value
    if isinstance(value, Number):
        view = g.new(TensorSpec(value.dtype, ()), "number")
        g.emit(f"{view.buffer.name}[0] = {g.written(value.dtype, g.number(value.value, value.dtype))};", [], [view])
        return view.broadcast(value.shape)
    if value.view is None:
        fused = Fused(g, [value], value.shape, keep=False)
        view = g.new(value.spec, value.hint)
        around, g.label = g.label, value.label
        fused.emit(view)
        g.label, value.view = around, view
    return value.view


def store(g: Writer, value: Value, target: View) -> None:
    """Writes a value to memory that is there."""
    if isinstance(value, Pending) and value.view is None and value.uses <= 1 and value.shape == target.shape:
        around, g.label = g.label, value.label
        Fused(g, [value], value.shape, keep=False).emit(target)
        g.label = around
    elif isinstance(value, Number):
        at = g.loops(target.shape, [target])
        number = g.written(value.dtype, g.number(value.value, value.dtype))
        g.emit(at.around([f"{at.element(0)} = {number};"]), [], [target])
    else:
        g.copy(target, placed(g, value).broadcast(target.shape))


class Fused:
    """Values that loops over `shape` read element by element: those in memory, and those that are computed on the way.

    Args:
        roots: what is read.
        shape: to which they broadcast.
        keep: whether roots that others read too are stored by these loops.
    """

    def __init__(self, g: Writer, roots: Sequence[Value], shape: tuple[Dim, ...], keep: bool = True) -> None:
        self.g, self.shape = g, shape
        self.order: list[Pending] = []
        self.leaves: list[View] = []
        self._seen: dict[int, int] = {}
        roots = [item.view or item if isinstance(item, Pending) else item for item in roots]
        self.roots = [
            placed(g, item) if isinstance(item, Pending) and item.shape != shape and item.cheap is None else item for item in roots
        ]
        inside: Counter[int] = Counter(id(item) for item in self.roots)
        for item in self.roots:
            self._walk(item, inside)
        self.stores: list[tuple[Pending, View]] = []
        for item in self.order:
            root = any(item is root for root in self.roots)
            if inside[id(item)] < item.uses and item.cheap is None and item.shape == shape and (keep or not root):
                self.stores.append((item, g.new(item.spec, item.hint)))

    def _walk(self, value: Value, inside: Counter[int]) -> None:
        if isinstance(value, Pending) and value.view is not None:
            value = value.view
        if isinstance(value, View):
            if not any(value is leaf for leaf in self.leaves):
                self.leaves.append(value)
        elif isinstance(value, Pending) and id(value) not in self._seen:
            self._seen[id(value)] = 1
            for operand in value.operands:
                if isinstance(operand, Pending):
                    inside[id(operand)] += 1
                self._walk(operand, inside)
            self.order.append(value)

    @property
    def views(self) -> list[View]:
        """What the loops must walk: what is read, then what is stored."""
        return [*self.leaves, *(view for _, view in self.stores)]

    @property
    def reads(self) -> list[View]:
        return self.leaves

    @property
    def writes(self) -> list[View]:
        return [view for _, view in self.stores]

    def lines(self, at: Loops, first: int = 0) -> tuple[list[str], list[str]]:
        """The code of one element, and the roots' expressions. `first`: where `views` begin among those of the loops."""
        code: list[str] = []
        texts: dict[int, str] = {}
        counts = Counter(id(_place(operand)) for item in self.order for operand in item.operands)
        for index, leaf in enumerate(self.leaves):
            texts[id(leaf)] = at.read(first + index)
        repeated = {id(_place(operand)) for item in self.order if _repeats(item) for operand in item.operands}
        for index, leaf in enumerate(self.leaves):
            if counts[id(leaf)] > 1 or id(leaf) in repeated or ctype(leaf.dtype).narrow:
                name = self.g.variable("a")
                code.append(f"const {ctype(leaf.dtype).scalar} {name} = {at.read(first + index)};")
                texts[id(leaf)] = name

        def text_of(value: Value) -> str:
            if isinstance(value, Number):
                return self.g.number(value.value, value.dtype)
            return texts[id(_place(value))]

        for item in self.order:
            made = expression(
                item.operator, [text_of(operand) for operand in item.operands], [operand.dtype for operand in item.operands], item.dtype
            )
            assert made is not None
            self.g.helpers.update(made.helpers)
            if made.guard:
                code.append(f"if ({made.guard}) {{ return {BAD_DATA}; }}")
            name = self.g.variable("t")
            code.append(f"const {ctype(item.dtype).scalar} {name} = {made.text};")
            texts[id(item)] = name
        for index, (item, _) in enumerate(self.stores):
            code.append(f"{at.element(first + len(self.leaves) + index)} = {self.g.written(item.dtype, texts[id(item)])};")
        return code, [text_of(root) for root in self.roots]

    def settle(self) -> None:
        """Says that what is stored is in memory now."""
        for item, view in self.stores:
            item.view = view

    def emit(self, target: View) -> None:
        """Loops that write the only root to memory."""
        at = self.g.loops(self.shape, [target, *self.views])
        code, (root,) = self.lines(at, 1)
        self.g.emit(
            at.around([*code, f"{at.element(0)} = {self.g.written(target.dtype, root)};"]),
            self.reads,
            [target, *self.writes],
            self.aligned(target),
        )
        self.settle()

    def aligned(self, target: View) -> list[Buffer]:
        """Buffers that the target may take over: read only at the place that is written."""
        found = []
        for leaf in self.leaves:
            others = [item for item in self.leaves if item.buffer is leaf.buffer]
            if leaf.is_whole and target.is_whole and leaf.shape == target.shape and len(others) == 1:
                found.append(leaf.buffer)
        return found


def _place(value: Value) -> Value:
    """The view of a value that is in memory by now, else the value."""
    return value.view if isinstance(value, Pending) and value.view is not None else value


def _repeats(item: Pending) -> bool:
    """Whether an operand is to be a variable: its expression names it twice, or would read it only where a condition holds, which
    GCC 12 vectorises wrongly."""
    return item.operator in (
        "where",
        "maximum",
        "minimum",
        "abs",
        "bitwise_left_shift",
        "bitwise_right_shift",
        *(("floor_divide", "fmod") if not item.dtype.is_float else ()),
    )
