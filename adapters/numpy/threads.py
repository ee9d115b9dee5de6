"""How many threads a run uses: those of the library that multiplies matrices, and a pool that shares out all other work.

The library is told through `threadpoolctl`. Its number holds for the whole process: while runs with different numbers overlap, the
last one to begin has its way, and what was set before returns when the last one has ended.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any, TypeVar

import numpy as np

from converter.errors import ConverterError, MissingDependencyError

Part = TypeVar("Part")
MOST = 1024


def threads() -> int:
    """How many threads the run in this thread may use."""
    stated: int | None = getattr(_own, "count", None)
    return _default() if stated is None else stated


def _default() -> int:
    """OMP_NUM_THREADS where it is set, as the matrix products do, else the cores allowed."""
    stated = os.environ.get("OMP_NUM_THREADS", "")
    if stated.isdigit():
        return max(1, int(stated))
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def check_threads(count: Any) -> int | None:
    """A number of threads that a caller asked for. Raises `ConverterError` for what is none, `MissingDependencyError` without
    `threadpoolctl`, which alone can hold the matrix products to it."""
    if count is None:
        return None
    if type(count) is not int or not 1 <= count <= MOST:
        raise ConverterError("not a number of threads", where="threads", expected=f"an integer from 1 to {MOST}", received=repr(count))
    if _library() is None:
        raise MissingDependencyError("the number of threads of NumPy's matrix products is set through threadpoolctl",
                                     where=f"threads={count}", fix="pip install 'model-converter[threads]', or set OMP_NUM_THREADS "
                                     "before Python starts")
    return count


class _Products:
    """The number of threads of the matrix products, as those who run now want it."""

    def __init__(self) -> None:
        self.lock, self.wanted, self.before = threading.Lock(), [], 0  # type: tuple[threading.Lock, list[int], int]

    def begin(self, count: int) -> None:
        with self.lock:
            if not self.wanted:
                self.before = _library().get_num_threads()
            self.wanted.append(count)
            self._apply(count)

    def end(self, count: int) -> None:
        with self.lock:
            if count in self.wanted:  # in a child that was forked meanwhile nobody wants anything
                self.wanted.remove(count)
                self._apply(self.wanted[-1] if self.wanted else self.before)

    def _apply(self, count: int) -> None:
        library = _library()
        if library is not None and library.get_num_threads() != count:
            library.set_num_threads(count)


class limited:
    """`with limited(count)`: the run in this thread uses so many threads, the matrix products included. None: as it was."""

    __slots__ = ("_before", "_count")

    def __init__(self, count: int | None) -> None:
        self._count = count

    def __enter__(self) -> None:
        if self._count is not None:
            self._before = getattr(_own, "count", None)
            _own.count = self._count
            _products.begin(self._count)

    def __exit__(self, *failure: object) -> None:
        if self._count is not None:
            _own.count = self._before
            _products.end(self._count)


def spread(parts: Sequence[Part], work: Callable[[Iterable[Part]], object], *, products: bool = False, least: int = 4) -> None:
    """Calls `work` with parts, each of them once: with all at once, or from each thread with its share.

    Args:
        parts: pieces of about the same effort.
        work: what is done with some of them; work within it that is spread again is not.
        products: it multiplies matrices. Each thread then does so alone: the library's own threads would be in the way.
        least: how many parts are worth it.
    """
    workers = min(threads(), len(parts))
    if workers == 1 or len(parts) < least or products and _library() is None:
        work(parts)
        return

    def share(first: int) -> None:
        before = getattr(_own, "count", None)
        _own.count = 1
        try:
            with np.errstate(all="ignore"):
                work(parts[first::workers])
        finally:
            _own.count = before

    if products:
        _products.begin(1)
    try:
        others = [_pool(workers - 1).submit(share, first) for first in range(1, workers)]
        try:
            share(0)
        finally:
            for other in others:
                other.exception()  # what they write to is there until they have ended
        for other in others:
            other.result()
    finally:
        if products:
            _products.end(1)


@cache
def _pool(count: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(count, thread_name_prefix="neutral-model")


@cache
def _library() -> Any:
    """What NumPy multiplies matrices with, None without `threadpoolctl`, or where that does not know it."""
    try:
        from threadpoolctl import ThreadpoolController
    except ImportError:
        return None
    own = os.path.dirname(os.path.dirname(os.path.realpath(np.__file__)))
    found = [item for item in ThreadpoolController().lib_controllers if item.user_api == "blas"]
    mine = [item for item in found if os.path.realpath(item.filepath).startswith(own)]
    return next(iter([*mine, *found]), None)


def _forget() -> None:
    """A forked child has none of its parent's threads, and nobody who holds its locks."""
    global _products
    _pool.cache_clear()
    _products = _Products()


_own = threading.local()
_products = _Products()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
