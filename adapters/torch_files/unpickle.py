"""A strict reader of pickles: builds plain containers and references to tensors, and calls nothing that a pickle names.

Opcodes as https://docs.python.org/3/library/pickletools.html lists them. A name outside of `content.TABLE` becomes an inert
`Foreign` value and is told at the end; its objects are inert `Record`s. Every opcode makes at most one new value, so memory is
bounded by their number; keys are hashed only when they are flat, so time is too.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Sized
from typing import Any

from adapters.torch_files.arrays import ARRAYS, ArrayType
from adapters.torch_files.content import (
    TABLE,
    Foreign,
    Function,
    Kind,
    Malformed,
    OtherTensor,
    Plain,
    Record,
    RecordClass,
    Storage,
    TensorRef,
    check_key,
)
from converter.errors import FormatError, UnsafePickleError
from converter.state_dict import UNSAFE, some

MAX_INTEGER_BYTES = 256
MAX_OPCODES = 10_000_000
"""Some 50 make a tensor. Each makes one value at most, so that this bounds memory to some hundred MB."""
MAX_CONTAINERS = 2_000_000
"""Dicts, sets and objects, of at most some 220 bytes each, and names of classes that are looked up."""
MAX_MARKS = 1000
"""Containers being filled within each other."""
MAX_NAME = 500
_LISTED = 12

INERT = (Foreign, Record)

StorageOf = Callable[[str, int, int], None]


def unpickle(data: memoryview, storage_of: StorageOf, *, where: str = "data.pkl",
             kept: tuple[str, ...] = ()) -> tuple[Any, tuple[str, ...], int]:
    """What a pickle holds: dicts, lists, tuples, sets, numbers, texts, `TensorRef`, `OtherTensor`, `Foreign` and `Record`.

    Beside it the names of the classes and functions outside of the table that it asks for, each of which is a `Foreign`, and
    the pickle's length in bytes.

    Args:
        data: the pickle, and what follows it.
        storage_of: called with each storage's key, its number of elements and their width in bytes; raises for one that the file
            does not hold.
        where: what to call the pickle in errors.
        kept: how the names of classes begin whose objects are kept, with their attributes, as inert `Record`s.

    Raises:
        UnsafePickleError: it cannot be followed to its end, and names such classes or functions; all are listed. None was imported.
        FormatError: it is damaged, or its tensors do not fit their storages.
    """
    reader = _Reader(data, storage_of, kept)
    try:
        content = reader.run()
    except (Malformed, struct.error, IndexError, ValueError, OverflowError, TypeError, UnicodeDecodeError, AttributeError) as error:
        if reader.foreign:
            raise reader.refusal() from None
        raise FormatError("the checkpoint's pickle is damaged", received=str(error)[:200] or type(error).__name__,
                          where=f"{where}, byte {reader.position}", fix="check that the file is complete, and what wrote it") from error
    return content, tuple(reader.foreign), reader.position


class _Reader:
    """The pickle machine: a stack, the stacks below each mark, and a memo."""

    def __init__(self, data: memoryview, storage_of: StorageOf, kept: tuple[str, ...]) -> None:
        self.data, self.storage_of, self.kept = data, storage_of, kept
        self.position = self.copied = self.containers = 0
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.foreign: dict[str, None] = {}

    def run(self) -> Any:
        data, end = self.data, len(self.data)
        for _ in range(MAX_OPCODES):
            if self.position >= end:
                raise Malformed("it is cut short")
            code = data[self.position]
            self.position += 1
            if code == 0x2E:  # STOP
                if self.below or len(self.stack) != 1:
                    raise Malformed("it ends with values left over")
                return self.stack.pop()
            action = _ACTIONS.get(code)
            if action is None:
                raise Malformed(f"the opcode {bytes([code])!r}")
            action(self)
        raise Malformed(f"it has more than {MAX_OPCODES} steps, which no state_dict needs")

    def refusal(self) -> UnsafePickleError:
        return UnsafePickleError("the checkpoint holds Python objects beside tensors, and reading those would run code",
                                 received=some(list(self.foreign), _LISTED), expected="a state_dict: names and tensors", fix=UNSAFE)

    # Taking bytes -------------------------------------------------------------------------------------------------------

    def take(self, count: int) -> bytes:
        start, end = self.position, self.position + count
        if count < 0 or end > len(self.data):
            raise Malformed("it is cut short")
        self.position = end
        return bytes(self.data[start:end])

    def number(self, form: str) -> Any:
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def line(self) -> str:
        piece = bytes(self.data[self.position:self.position + 4 * MAX_NAME])
        end = piece.find(b"\n")
        if end < 0:
            raise Malformed("a line without an end")
        self.position += end + 1
        return piece[:end].decode("latin1")

    # The stack ----------------------------------------------------------------------------------------------------------

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def container(self, value: Any) -> None:
        self.count_container()
        self.stack.append(value)

    def count_container(self) -> None:
        self.containers += 1
        if self.containers > MAX_CONTAINERS:
            raise Malformed(f"it has more than {MAX_CONTAINERS} dicts, sets, objects and names of classes, which no state_dict needs")

    def pop_mark(self) -> list[Any]:
        items, self.stack = self.stack, self.below.pop()
        return items

    def memoize(self, index: int) -> None:
        self.memo[index] = self.stack[-1]

    def recall(self, index: int) -> None:
        if index not in self.memo:
            raise Malformed(f"no memo {index}")
        self.stack.append(self.memo[index])

    # Containers ---------------------------------------------------------------------------------------------------------

    def extend(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, list):
            target.extend(items)
        elif not isinstance(target, INERT):
            raise Malformed(f"items for a {type(target).__name__}")

    def put(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if len(items) % 2:
            raise Malformed("a key without a value")
        if isinstance(target, dict):
            for key, value in zip(items[::2], items[1::2], strict=True):
                target[check_key(key)] = value
        elif not isinstance(target, INERT):
            raise Malformed(f"entries for a {type(target).__name__}")

    def add(self) -> None:
        items = self.pop_mark()
        target = self.stack[-1]
        if isinstance(target, set):
            target.update(map(check_key, items))
        elif not isinstance(target, INERT):
            raise Malformed(f"members for a {type(target).__name__}")

    # Names and calls ----------------------------------------------------------------------------------------------------

    def find(self, module: Any, name: Any) -> Any:
        if not isinstance(module, str) or not isinstance(name, str) or len(module) + len(name) > MAX_NAME:
            raise Malformed("the name of a class is no name")
        self.count_container()
        full = f"{module}.{name}"
        found = TABLE.get(full) or ARRAYS.get(full)
        if found is None and full.startswith(self.kept):
            found = RecordClass(full)
        if found is None:
            full = full if full.isprintable() else ascii(full)
            found = Foreign(full)
            self.foreign[full] = None
        return found

    def call(self, function: Any, arguments: Any) -> Any:
        """The value that a call would give; only functions of our own table are ever called."""
        if isinstance(function, (Foreign, RecordClass, Record)):
            self.count_container()
            # torch.fx gives a module's attributes to a function; other classes' objects get theirs afterwards.
            first = arguments[0] if isinstance(arguments, tuple) and arguments else None
            return Record(function.kind, first if isinstance(first, dict) else None)
        if not isinstance(function, Function) or not isinstance(arguments, tuple):
            raise Malformed(f"a call of a {type(function).__name__}")
        self.count(arguments)
        inert = next((item for item in arguments if isinstance(item, INERT) and not isinstance(item, ArrayType)), None)
        made = function.call(*arguments) if inert is None else inert
        if isinstance(made, Record):
            self.count_container()
        return made

    def count(self, values: Iterable[Any]) -> None:
        """Counts what a call may copy: what was read so far bounds that too, or a few bytes could copy a long list each."""
        self.copied += sum(len(value) for value in values if isinstance(value, Sized))
        if self.copied > 2 * self.position:
            raise Malformed("it copies the same values over and over")

    def reduce(self) -> None:
        arguments = self.stack.pop()
        self.push(self.call(self.stack.pop(), arguments))

    def make(self, keyword: bool) -> None:
        named = self.stack.pop() if keyword else {}
        arguments = self.stack.pop()
        function = self.stack.pop()
        if named and not isinstance(function, INERT):
            raise Malformed("an object made with named arguments")
        self.push(self.call(function, arguments))

    def build(self) -> None:
        """A value's state. Only a namespace has one; an OrderedDict's `_metadata` and attributes of tensors are left out."""
        state = self.stack.pop()
        target = self.stack[-1]
        if isinstance(target, Record):
            target.state = state
        elif isinstance(target, Plain):
            if isinstance(state, dict):
                self.count([state])
                target.update(state)
        elif not isinstance(target, (dict, Foreign, TensorRef, OtherTensor)):
            raise Malformed(f"a state for a {type(target).__name__}")

    def persistent(self) -> None:
        found = self.stack.pop()
        if isinstance(found, tuple) and len(found) == 4 and found[0] == "module":
            self.push(found[1])  # a class, and its source code
            return
        if not isinstance(found, tuple) or len(found) < 5 or found[0] != "storage":
            raise Malformed("a reference to something else than a storage")
        kind, key, _, count = found[1:5]
        if isinstance(kind, INERT):
            self.push(kind)
            return
        if not isinstance(kind, Kind) or not (kind.kind == "storage" or kind.kind.endswith("Storage")):
            raise Malformed("a storage of another class")
        if not isinstance(key, (str, int)) or type(count) is not int or not 0 <= count < 1 << 60:
            raise Malformed("a storage whose key or length is none")
        if kind.kind != "storage":
            self.storage_of(str(key), count, 4 if "Int32" in kind.kind else 1)
            self.push(Storage(str(key), 0, None))  # quantized elements: refused with their tensor
            return
        width = kind.dtype.itemsize if kind.dtype is not None else 1
        self.storage_of(str(key), count, width)
        self.push(self.part(Storage(str(key), count * width, kind.dtype), found[5] if len(found) > 5 else None, width))

    def part(self, storage: Storage, view: Any, width: int) -> Storage:
        """The part of a storage that PyTorch 0.4 and before wrote as one of its own: `(its key, first element, elements)`."""
        if view is None:
            return storage
        if not isinstance(view, tuple) or len(view) != 3 or any(type(item) is not int or item < 0 for item in view[1:]):
            raise Malformed("a view of a storage that is none")
        start, end = view[1] * width, (view[1] + view[2]) * width
        if end > storage.nbytes:
            raise Malformed("a view that reaches past the end of its storage")
        return Storage(storage.key, end - start, storage.dtype, storage.start + start)

    def instance(self) -> None:
        arguments = tuple(self.pop_mark())
        self.push(self.call(arguments[0], arguments[1:]))

    def text(self, data: bytes) -> None:
        self.push(data.decode("utf-8", "surrogatepass"))

    def long(self, count: int) -> None:
        if count > MAX_INTEGER_BYTES:
            raise Malformed(f"an integer of {count} bytes")
        self.push(int.from_bytes(self.take(count), "little", signed=True))


def _integer(reader: _Reader) -> int:
    text = reader.line()
    return text == "01" if text in ("00", "01") else int(text.rstrip("L"))


def _mark(reader: _Reader) -> None:
    if len(reader.below) >= MAX_MARKS:
        raise Malformed("it is nested too deeply")
    reader.below.append(reader.stack)
    reader.stack = []


def _last(reader: _Reader, count: int) -> tuple[Any, ...]:
    if len(reader.stack) < count:
        raise Malformed("too few values")
    items = tuple(reader.stack[-count:])
    del reader.stack[-count:]
    return items


def _pop(reader: _Reader) -> None:
    if reader.stack:
        reader.stack.pop()
    else:
        reader.pop_mark()


def _stack_global(reader: _Reader) -> None:
    name = reader.stack.pop()
    reader.push(reader.find(reader.stack.pop(), name))


def _frozen(reader: _Reader) -> None:
    reader.container(frozenset(map(check_key, reader.pop_mark())))


def _entries(reader: _Reader) -> None:
    items = reader.pop_mark()
    reader.container({})
    reader.put(items)


_ACTIONS: dict[int, Callable[[_Reader], Any]] = {ord(code): action for code, action in {
    "\x80": lambda r: r.take(1),
    "\x95": lambda r: r.take(8),
    "(": _mark,
    "0": _pop,
    "1": lambda r: r.pop_mark(),
    "2": lambda r: r.push(r.stack[-1]),
    # numbers and constants
    "N": lambda r: r.push(None),
    "\x88": lambda r: r.push(True),
    "\x89": lambda r: r.push(False),
    "I": lambda r: r.push(_integer(r)),
    "L": lambda r: r.push(_integer(r)),
    "J": lambda r: r.push(r.number("<i")),
    "K": lambda r: r.push(r.number("<B")),
    "M": lambda r: r.push(r.number("<H")),
    "\x8a": lambda r: r.long(r.number("<B")),
    "\x8b": lambda r: r.long(r.number("<I")),
    "F": lambda r: r.push(float(r.line())),
    "G": lambda r: r.push(r.number(">d")),
    # texts and bytes
    "X": lambda r: r.text(r.take(r.number("<I"))),
    "\x8c": lambda r: r.text(r.take(r.number("<B"))),
    "\x8d": lambda r: r.text(r.take(r.number("<Q"))),
    "V": lambda r: r.push(r.line().encode("latin1").decode("raw-unicode-escape")),
    "T": lambda r: r.push(r.take(r.number("<I")).decode("latin1")),
    "U": lambda r: r.push(r.take(r.number("<B")).decode("latin1")),
    "B": lambda r: r.push(r.take(r.number("<I"))),
    "C": lambda r: r.push(r.take(r.number("<B"))),
    "\x8e": lambda r: r.push(r.take(r.number("<Q"))),
    "\x96": lambda r: r.push(r.take(r.number("<Q"))),
    # containers
    ")": lambda r: r.push(()),
    "t": lambda r: r.push(tuple(r.pop_mark())),
    "\x85": lambda r: r.push(_last(r, 1)),
    "\x86": lambda r: r.push(_last(r, 2)),
    "\x87": lambda r: r.push(_last(r, 3)),
    "]": lambda r: r.push([]),
    "l": lambda r: r.push(r.pop_mark()),
    "a": lambda r: r.extend(list(_last(r, 1))),
    "e": lambda r: r.extend(r.pop_mark()),
    "}": lambda r: r.container({}),
    "d": _entries,
    "s": lambda r: r.put(list(_last(r, 2))),
    "u": lambda r: r.put(r.pop_mark()),
    "\x8f": lambda r: r.container(set()),
    "\x90": lambda r: r.add(),
    "\x91": _frozen,
    # the memo
    "p": lambda r: r.memoize(int(r.line())),
    "q": lambda r: r.memoize(r.number("<B")),
    "r": lambda r: r.memoize(r.number("<I")),
    "\x94": lambda r: r.memoize(len(r.memo)),
    "g": lambda r: r.recall(int(r.line())),
    "h": lambda r: r.recall(r.number("<B")),
    "j": lambda r: r.recall(r.number("<I")),
    # names, calls, states, storages
    "c": lambda r: r.push(r.find(r.line(), r.line())),
    "\x93": _stack_global,
    "i": lambda r: r.push(r.call(r.find(r.line(), r.line()), tuple(r.pop_mark()))),
    "o": lambda r: r.instance(),
    "R": lambda r: r.reduce(),
    "\x81": lambda r: r.make(False),
    "\x92": lambda r: r.make(True),
    "b": lambda r: r.build(),
    "Q": lambda r: r.persistent(),
}.items()}
"""What each opcode does. Those that are not here (extension codes, buffers outside of the pickle) are refused."""
