"""What a module's own code decided from sizes while it was traced.

`if time > 64:` takes one way in a trace, and the trace then holds only at the sizes that go that way. `torch.export`
keeps such decisions, among many of its own, as guards that no graph carries. `recorded()` writes down those that the
module's code made; `adapters.torch.sizes.ranges` then keeps the sizes to where they hold.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import sympy
import torch
from torch.fx.experimental.sym_node import SymNode

import adapters.torch

_ROOT = str(Path(torch.__file__).parent)
_INTERPRETER = f"{_ROOT}/_dynamo"
_CALLS = f"{_ROOT}/_ops.py"
_NUMBERS = (f"{_ROOT}/__init__", f"{_ROOT}/fx/experimental/sym_node")
"""Where torch's own numbers are written, between the code that computes with them and what is asked of them."""
HERE = str(Path(adapters.torch.__file__).parent)
"""The folder of this package."""
_LIBRARIES = (_ROOT, HERE, str(Path(sympy.__file__).parent), "<")
_STARTS = frozenset({"exported_at", "prepare"})
# These parts of torch compare sizes to find a shape, a stride or a fast path, and give the same values either way.
_NEUTRAL = tuple(f"{_ROOT}/{part}" for part in (
    "_meta_registrations", "_prims", "_refs", "_subclasses", "_library", "_dispatch", "_functorch", "_higher_order_ops", "_tensor", "_C",
    "fx", "export", "_export", "utils", "__init__", "_ops", "_inductor", "_guards", "_dynamo", "_logging", "functional",
    "_numpy", "_decomp/__init__", "storage"))


@dataclass(frozen=True)
class Decision:
    """A condition on sizes (a sympy expression over torch's symbols), the answer it got, and where.

    `environment` is torch's, which knows what the symbols turned out to be.
    """

    condition: Any
    answer: Any
    place: str
    environment: Any


@dataclass
class Decisions:
    """The decisions of one trace, in order."""

    found: list[Decision] = field(default_factory=list)

    def add(self, node: Any, answer: Any, frame: FrameType | None, condition: Any = None) -> None:
        """Keeps a decision, unless torch itself made it. `condition` is what the number of the node itself is not."""
        if node.shape_env is None or frame is None:
            return
        code: CodeType | None = frame.f_code
        line = frame.f_lineno
        if frame.f_code.co_filename.startswith(_INTERPRETER):
            code, line = interpreted(frame)
        if code is None or code.co_filename.startswith(_NEUTRAL):
            return
        own = users_line(frame) if code.co_filename.startswith((_ROOT, HERE)) else None
        place = own or f"{Path(code.co_filename).name}:{line} in {code.co_name}"
        self.found.append(Decision(node.expr if condition is None else condition, answer, place, node.shape_env))


def interpreted(frame: FrameType | None) -> tuple[CodeType | None, int]:
    """The code that torch's interpreter of bytecode (the strict way in) was going through where it asked."""
    while frame is not None:
        owner: Any = frame.f_locals.get("self")
        if frame.f_code.co_filename.startswith(f"{_INTERPRETER}/symbolic_convert") and hasattr(owner, "f_code"):
            return owner.f_code, int(getattr(owner, "lineno", None) or 0)
        frame = frame.f_back
    return None, 0


def frames_within(frame: FrameType | None) -> Iterator[FrameType]:
    """A frame and those that led to it, as far as this package's tracing: beyond are the lines of who called us."""
    while frame is not None and not (frame.f_code.co_name in _STARTS and frame.f_code.co_filename.startswith(HERE)):
        yield frame
        frame = frame.f_back


def place_in(frame: FrameType) -> str | None:
    """`net.py:12 in forward`, where a frame runs code of neither torch nor this package."""
    code, line = frame.f_code, frame.f_lineno
    if code.co_filename.startswith(f"{_INTERPRETER}/symbolic_convert"):
        found, line = interpreted(frame)
        code = found or code
    return None if code.co_filename.startswith(_LIBRARIES) else f"{Path(code.co_filename).name}:{line} in {code.co_name}"


def users_line(frame: FrameType | None) -> str | None:
    """The innermost line of neither torch nor this package that led to a frame, and None where there is none."""
    return next((place for item in frames_within(frame) if (place := place_in(item)) is not None), None)


def outside(frame: FrameType | None) -> FrameType | None:
    """The frame that computes with one of torch's numbers, which stand between it and what is asked of them."""
    while frame is not None and frame.f_code.co_filename.startswith(_NUMBERS):
        frame = frame.f_back
    return frame


@contextmanager
def recorded() -> Iterator[Decisions]:
    """While active, decisions on symbolic sizes are collected."""
    decisions = Decisions()
    as_int, as_answer, as_float = SymNode.guard_int, SymNode.guard_bool, SymNode.guard_float
    as_bool: Callable[[Any], bool] = torch.SymBool.__bool__
    as_number: Callable[[Any], int] = torch.SymBool.__int__
    is_not_zero: Callable[[Any], bool] = torch.SymFloat.__bool__

    def decided(self: Any) -> bool:
        node = self.node
        answer = as_bool(self)
        frame: FrameType | None = sys._getframe(1)
        if frame is not None and frame.f_code.co_name == "__bool__":  # a size taken as a condition asks whether it is 0
            frame = frame.f_back
        if isinstance(node, SymNode):
            decisions.add(node, answer, frame)
        return answer

    def counted(self: Any) -> int:  # `(time > 4) * 2.0`: torch computes with the answer
        answer = as_number(self)
        decisions.add(self.node, bool(answer), outside(sys._getframe(1)))
        return answer

    def decided_float(self: Any) -> bool:
        answer = is_not_zero(self)
        decisions.add(self.node, answer, outside(sys._getframe(1)), sympy.Ne(self.node.expr, 0))
        return answer

    def measured(self: Any, file: str, line: int) -> float:
        answer = as_float(self, file, line)
        decisions.add(self, True, outside(sys._getframe(1)), sympy.Eq(self.expr, answer))
        return answer

    def fixed(self: Any, file: str, line: int) -> int:
        answer = as_int(self, file, line)
        frame = outside(sys._getframe(1))
        if frame is not None and frame.f_code.co_filename == _CALLS:  # an operator's own C++ takes a size for a number
            decisions.found.append(Decision(self.expr, answer, "a number of steps inside of an operator", self.shape_env))
        else:
            decisions.add(self, answer, frame)
        return answer

    def answered(self: Any, file: str, line: int) -> bool:
        answer = as_answer(self, file, line)
        frame: FrameType | None = sys._getframe(1)
        while frame is not None and frame.f_code.co_name in ("guard_bool", "guard_scalar"):
            frame = frame.f_back
        if frame is not None and frame.f_code.co_filename.startswith(_INTERPRETER):
            decisions.add(self, answer, frame)
        return answer

    patches: list[tuple[type, str, Any]] = [
        (torch.SymBool, "__bool__", decided), (torch.SymBool, "__int__", counted), (torch.SymFloat, "__bool__", decided_float),
        (SymNode, "guard_int", fixed), (SymNode, "guard_float", measured), (SymNode, "guard_bool", answered)]
    originals = [(owner, name, getattr(owner, name)) for owner, name, _ in patches]
    try:
        for owner, name, function in patches:
            setattr(owner, name, function)
        yield decisions
    finally:
        for owner, name, function in originals:
            setattr(owner, name, function)


COUNTED = frozenset({"aten.slice.Tensor", "aten.narrow.default", "aten.select.int"})


def add_bounds(graph: torch.fx.Graph, decisions: Decisions) -> None:
    """Adds, for each bound of a slice that depends on sizes, whether it was negative, which counts from the other end."""
    for node in graph.nodes:
        if node.op != "call_function" or str(node.target) not in COUNTED:
            continue
        for bound in node.args[2:4]:
            value = bound.meta.get("val") if isinstance(bound, torch.fx.Node) else None
            if isinstance(value, torch.SymInt) and value.node.hint is not None and not value.node.expr.is_Symbol:
                decisions.found.append(Decision(value.node.expr >= 0, value.node.hint >= 0, f"{node.name}, a slice", value.node.shape_env))
