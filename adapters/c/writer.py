"""Statements of C in the order in which they run, the buffers that they read and write, and loops over tensors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from adapters.c.names import Names, comment
from adapters.c.sizes import CSizes, most
from adapters.c.types import ctype, number
from adapters.c.views import Buffer, View, collapsed, row_major
from converter.conditions import Condition
from converter.dims import Dim, product
from converter.ir import Array, DimRange, DType, Operand, TensorSpec
from converter.resolved import ResolvedNode

BAD_SIZE, BAD_DATA, ENDLESS = 1, 2, 3
"""What a model returns: a size out of its range; an index, a divisor or a number in the data; a loop that does not end."""


@dataclass
class Statement:
    """Code that runs at one time, or the beginning or the end of a block that holds others."""

    text: str
    kind: str = "code"
    reads: tuple[Buffer, ...] = ()
    writes: tuple[Buffer, ...] = ()
    aligned: tuple[Buffer, ...] = ()
    """Of what is read, buffers whose elements are read just before those at the same place are written."""
    label: str = ""
    products: Dim = 0
    """Multiplications that are added up."""


@dataclass(frozen=True)
class Lowered:
    """A node with the specs of its outputs, its sizes being those of the graph that is written."""

    resolved: ResolvedNode
    specs: tuple[TensorSpec, ...]
    operands: tuple[Operand, ...]
    attributes: Mapping[str, object]
    names: tuple[str, ...]

    @property
    def spec(self) -> TensorSpec:
        """That of the first output."""
        return self.specs[0]


@dataclass
class Writer:
    """What is written so far."""

    names: Names = field(default_factory=Names)
    symbols: dict[str, str] = field(default_factory=dict)
    known: dict[str, DimRange] = field(default_factory=dict)
    stated: dict[str, int] = field(default_factory=dict)
    statements: list[Statement] = field(default_factory=list)
    helpers: set[str] = field(default_factory=set)
    buffers: list[Buffer] = field(default_factory=list)
    bound: list[str] = field(default_factory=list)
    constants: dict[int, Buffer] = field(default_factory=dict)
    label: str = ""
    counter: int = 0

    def __post_init__(self) -> None:
        self._sizes = CSizes(self.symbols)

    # Sizes -----------------------------------------------------------------------------------------------------------

    def size(self, value: Dim) -> str:
        """A size as an expression."""
        text = self._sizes.size(value)
        self.helpers |= self._sizes.used
        return text

    def condition(self, condition: Condition) -> str:
        """A condition between sizes."""
        return f"{self.size(condition.difference)} {condition.relation} 0"

    def most(self, value: Dim) -> int:
        """The most that a size can be."""
        return most(value, self.known)

    def bind(self, symbol: str, most: int) -> str:
        """A new size that the data decide; gives the variable."""
        name = self.symbols[symbol] = self.names.fresh(symbol)
        self.known[symbol] = DimRange(0, most)
        self.bound.append(name)
        return name

    # Memory ----------------------------------------------------------------------------------------------------------

    def buffer(self, hint: str, dtype: DType, size: Dim, kind: str = "arena", array: Array | None = None) -> Buffer:
        """New memory."""
        ctype(dtype)
        made = Buffer(self.names.fresh(hint), dtype, size, kind, array)
        self.buffers.append(made)
        return made

    def new(self, spec: TensorSpec, hint: str) -> View:
        """A new tensor in the arena."""
        return View(self.buffer(hint, spec.dtype, product(spec.shape)), spec.shape, row_major(spec.shape))

    def constant(self, array: Array, hint: str) -> View:
        """A tensor whose values are known."""
        if id(array) not in self.constants:
            self.constants[id(array)] = self.buffer(hint, DType.of(array.dtype), array.size, "constant", array)
        return View(self.constants[id(array)], tuple(array.shape), row_major(array.shape))

    def contiguous(self, view: View) -> View:
        """The same elements in row-major order."""
        if view.is_contiguous:
            return view
        copy = self.new(TensorSpec(view.dtype, view.shape), f"{view.buffer.name}_copy")
        self.copy(copy, view)
        return copy

    def copy(self, target: View, source: View) -> None:
        """Writes a tensor to another of its shape and dtype."""
        at = self.loops(target.shape, [target, source])
        self.emit(at.around([f"{at.element(0)} = {at.element(1)};"]), [source], [target])

    # Code ------------------------------------------------------------------------------------------------------------

    def emit(
        self,
        lines: Iterable[str] | str,
        reads: Iterable[View | Buffer] = (),
        writes: Iterable[View | Buffer] = (),
        aligned: Iterable[Buffer] = (),
        products: Dim = 0,
    ) -> None:
        """A statement."""
        text = lines if isinstance(lines, str) else "\n".join(lines)
        self.statements.append(Statement(text, "code", _buffers(reads), _buffers(writes), tuple(aligned), self.label, products))

    def begin(self, text: str, reads: Iterable[View | Buffer] = (), writes: Iterable[View | Buffer] = ()) -> None:
        """Opens a block that runs any number of times; `writes` are kept from one time to the next."""
        self.statements.append(Statement(text, "open", _buffers(reads), _buffers(writes), label=self.label))

    def end(self, text: str = "}", reads: Iterable[View | Buffer] = ()) -> None:
        """Closes it."""
        self.statements.append(Statement(text, "close", _buffers(reads), label=self.label))

    def require(self, wrong: str, code: int = BAD_DATA) -> None:
        """Ends the run where something is wrong."""
        self.emit(f"if ({wrong}) {{ return {code}; }}")

    def same(self, left: Dim, right: Dim) -> None:
        """Ends the run where two sizes differ that have to be equal."""
        if left != right:
            self.require(f"{self.size(left)} != {self.size(right)}", BAD_SIZE)

    def helper(self, name: str) -> str:
        """The name of a kernel, which will be in the file."""
        self.helpers.add(name)
        return name

    def kernel(self, name: str, dtype: DType) -> str:
        """The name of a kernel of a dtype."""
        return self.helper(f"{name}_{ctype(dtype).suffix}")

    def variable(self, letter: str = "n") -> str:
        """A fresh name for a number."""
        self.counter += 1
        return f"{letter}{self.counter}"

    def read(self, view: View, at: str) -> str:
        """The element at an index of its buffer, widened."""
        form = ctype(view.dtype)
        text = f"{view.buffer.name}[{at}]"
        return f"{self.helper(f'read_{form.suffix}')}({text})" if form.narrow else text

    def written(self, dtype: DType, text: str) -> str:
        """A scalar as it is stored."""
        form = ctype(dtype)
        return f"{self.helper(f'store_{form.suffix}')}({text})" if form.narrow else text

    def number(self, value: object, dtype: DType) -> str:
        """A number, or a size, as a scalar."""
        if isinstance(value, (bool, int, float)):
            return number(value, dtype)
        return f"({ctype(dtype).scalar}){self.size(value)}"  # type: ignore[arg-type]

    def at(self, view: View, indices: Sequence[str]) -> str:
        """The place in its buffer of the element at these indices."""
        return joined(self, view.offset, [(index, stride) for index, stride in zip(indices, view.strides, strict=True)])

    def loops(self, shape: Sequence[Dim], views: Sequence[View], outer: Loops | None = None, whole: bool = False) -> Loops:
        """Loops over a shape, to which the views are broadcast. `outer`: loops around them over other axes of the same views, whose
        `shape` and strides `views` lack; `whole`: axes are not put together, for code that needs the indices."""
        strides = [
            view.broadcast(shape).strides if len(view.shape) != len(shape) or tuple(view.shape) != tuple(shape) else view.strides
            for view in views
        ]
        sizes, steps = (list(shape), [list(item) for item in strides]) if whole else collapsed(shape, strides)
        indices = [self.variable("i") for _ in sizes]
        terms = [[(index, step) for index, step in zip(indices, item, strict=True)] for item in steps]
        if outer is not None:
            terms = [a + b for a, b in zip(outer.terms, terms, strict=True)]
        return Loops(self, list(views), sizes, indices, terms)


@dataclass
class Loops:
    """Loops over the axes of tensors."""

    writer: Writer
    views: list[View]
    sizes: list[Dim]
    indices: list[str]
    terms: list[list[tuple[str, Dim]]]

    def place(self, which: int) -> str:
        """The place in its buffer of the element of one of the tensors."""
        return joined(self.writer, self.views[which].offset, self.terms[which])

    def pointer(self, which: int) -> str:
        """Where that element lies."""
        place = self.place(which)
        return self.views[which].buffer.name if place == "0" else f"{self.views[which].buffer.name} + {place}"

    def element(self, which: int) -> str:
        """The element of one of the tensors as it is stored."""
        return f"{self.views[which].buffer.name}[{self.place(which)}]"

    def read(self, which: int) -> str:
        """The element of one of the tensors, widened."""
        return self.writer.read(self.views[which], self.place(which))

    def around(self, body: Iterable[str]) -> list[str]:
        """The loops with a body."""
        lines = [line for item in body for line in item.split("\n")]
        for index, size in reversed(list(zip(self.indices, self.sizes, strict=True))):
            lines = [
                f"for (ptrdiff_t {index} = 0; {index} < {self.writer.size(size)}; ++{index}) {{",
                *(f"  {line}" for line in lines),
                "}",
            ]
        return lines


def joined(writer: Writer, offset: Dim, terms: Sequence[tuple[str, Dim]]) -> str:
    """offset + the indices times their strides."""
    parts = [] if offset == 0 else [writer.size(offset)]
    for index, stride in terms:
        if stride != 0:
            parts.append(index if stride == 1 else f"{index} * {writer.size(stride)}")
    return " + ".join(parts) or "0"


def _buffers(items: Iterable[View | Buffer]) -> tuple[Buffer, ...]:
    return tuple(item.buffer if isinstance(item, View) else item for item in items)


def titled(text: str) -> str:
    """A comment of its own line."""
    return f"/* {comment(text)} */"
