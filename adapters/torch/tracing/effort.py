"""How long free sizes are sought: a budget of processor seconds, and a bound that holds inside of torch's symbolic
simplification too.

The seconds are those that the converting thread has computed: what else a machine does takes none of them, and a model does
not come out with other sizes for it. Only a machine that hardly computes at all ends a search by the clock.

torch simplifies sizes with sympy, in Python, which may take minutes for one expression and asks nobody. A thread watches the
budget; when it is spent while the converting thread is in that code, it raises `OutOfTime` there. That code computes
expressions and holds nothing, so leaving it is as safe as any error that it raises itself. A trace that takes long without
it is let through: each other one would take as long. What comes after the first trace asks what is left before it begins.
"""

from __future__ import annotations

import ctypes
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import sympy
import torch
import torch.utils._pytree as pytree

from converter.errors import UnsupportedError

SECONDS = 60.0
"""The budget where none is given."""

FIRST, SECOND, LAST = 0.4, 1.0, 0.75
"""The shares of a budget after which fewer free sizes are sought, those of first axes, then none; and after which no more are."""

LEAST = 0.15
"""The share of a budget that a trace has, however little is left: a slow module may spend all of it in its own run, before that."""

BACKSTOP = 10.0
"""So many seconds on the clock count as one: a budget ends there where the thread gets no processor."""

TICK = 0.05
"""Seconds between looks at the clock."""

RUNS = 3
"""A trial takes about so many runs of the module: one, and the graph's in the reference."""

_SYMBOLIC = (str(Path(sympy.__file__).parent), *(str(Path(torch.__file__).parent / part) for part in (
    "utils/_sympy", "fx/experimental/symbolic_shapes", "fx/experimental/sym_node")))


class OutOfTime(BaseException):
    """Raised in torch's symbolic code when the time is up; no `except Exception` there may take it for something else."""


class EffortSpent(UnsupportedError):
    """The budget is spent before a trace was there."""


def _clock() -> Callable[[], float]:
    """The processor seconds of this thread, as any thread may ask for them."""
    if hasattr(time, "pthread_getcpuclockid"):
        return partial(time.clock_gettime, time.pthread_getcpuclockid(threading.get_ident()))
    return time.process_time


class Effort:
    """A budget of processor seconds of the thread that makes it, from then on.

    Args:
        seconds: the budget.
        progress: is told what is being done.
    """

    def __init__(self, seconds: float = SECONDS, progress: Callable[[str], None] = lambda text: None) -> None:
        self.seconds, self.progress = seconds, progress
        self._computed, self._wall = _clock(), time.monotonic
        self._began = self._computed(), self._wall()
        self._run = 0.0, 1

    @property
    def spent(self) -> float:
        """Seconds since the start."""
        computed, wall = self._began
        return max(self._computed() - computed, (self._wall() - wall) / BACKSTOP)

    def left(self, share: float = 1.0) -> float:
        """Seconds until a share of the budget is spent."""
        return self.seconds * share - self.spent

    def note_run(self, seconds: float, example: Any) -> None:
        """Keeps what a run of the module takes on an example, by which the cost of others is told."""
        self._run = seconds / max(_elements(example), 1), _elements(example)

    def cost(self, arguments: Any, runs: int = 1) -> float:
        """Seconds that runs of the module on arguments take, at least: they cannot be interrupted."""
        each, least = self._run
        return runs * each * max(_elements(arguments), least)

    def tell(self, text: str) -> None:
        """Reports progress."""
        self.progress(f"{text} ({self.spent:.0f} of {self.seconds:.0f} s)" if self.spent >= 1 else text)


def _elements(arguments: Any) -> int:
    return sum(leaf.numel() for leaf in pytree.tree_leaves(arguments) if isinstance(leaf, torch.Tensor))


_CURRENT: ContextVar[Effort | None] = ContextVar("effort", default=None)


def current() -> Effort:
    """The budget of the conversion that is going on."""
    return _CURRENT.get() or Effort()


WAY_OUT = "allow more with effort= (--effort on the command line), or fix sizes with dims= (--fix)"


def require_time(least: float = 0.0) -> None:
    """Raises `EffortSpent` where no more free sizes are to be sought, or fewer seconds are left for it than `least`."""
    effort = current()
    if effort.left(LAST) <= least:
        raise EffortSpent(f"no more free sizes were sought: {effort.spent:.0f} of {effort.seconds:.0f} s of processor time were spent",
                          fix=WAY_OUT)


@contextmanager
def budget(effort: Effort) -> Iterator[Effort]:
    """While active, `current()` is this one."""
    token = _CURRENT.set(effort)
    try:
        yield effort
    finally:
        _CURRENT.reset(token)


@contextmanager
def bounded(seconds: float | None) -> Iterator[None]:
    """Raises `EffortSpent` in a block that computes with sizes for longer; None: no bound."""
    if seconds is None:
        yield
        return
    watch = _Watch(seconds)
    try:
        with watch:
            yield
    except OutOfTime:
        raise EffortSpent(f"no trace in {seconds:.0f} s of processor time",
                          received="sizes whose expressions take torch longer to simplify", fix=WAY_OUT) from None


class _Watch:
    """Raises `OutOfTime` in the thread that made and entered it when the time is up and it is in symbolic code."""

    def __init__(self, seconds: float) -> None:
        self._effort = Effort(seconds)
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._raised = False
        self._thread = threading.Thread(target=self._wait, name="effort", daemon=True)

    def __enter__(self) -> None:
        self._ident = threading.get_ident()
        self._thread.start()

    def __exit__(self, *error: object) -> None:
        try:
            self._stop()
        except OutOfTime:  # raised in symbolic code, and arrived past its end
            self._stop()

    def _stop(self) -> None:
        with self._lock:
            self._over.set()
        if self._raised:
            self._take_the_last()
        self._thread.join()

    def _take_the_last(self) -> None:
        """Takes what was raised and has not come yet. Python has no way to ask whether it has, so one more is raised, in its place.

        Setting none in its place would leave Python's flag for it up: all code of the process were slower from then on, and
        would stand still for ever under a profiler, a debugger or a measurement of coverage.
        """
        try:
            self._raise()
            while True:
                pass
        except OutOfTime:
            pass

    def _raise(self) -> None:
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(self._ident), ctypes.py_object(OutOfTime))

    def _wait(self) -> None:
        while not self._over.is_set() and (left := self._effort.left()) > 0:
            self._over.wait(max(left, TICK))
        while not self._over.is_set():
            with self._lock:
                if not self._over.is_set() and _is_symbolic(sys._current_frames().get(self._ident)):
                    self._raised = True
                    self._raise()
            self._over.wait(TICK)


def _is_symbolic(frame: FrameType | None) -> bool:
    return frame is not None and frame.f_code.co_filename.startswith(_SYMBOLIC)
