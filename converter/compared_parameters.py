"""How parameters of one name differ, a few megabytes of each at a time."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from functools import partial
from typing import Any

import numpy as np

from converter.dims import fixed
from converter.ir import Array
from converter.matched_parameters import related
from converter.parameters import ParameterStore

SKETCH = 48
"""The largest rank of a change that is looked for."""
BLOCK = 1 << 20
"""Elements that are compared at a time."""
ROUNDING = {"float64": 2.0 ** -52, "float32": 2.0 ** -23, "float16": 2.0 ** -10, "bfloat16": 2.0 ** -7}
"""The spacing of numbers at 1."""
Pairs = Iterable[tuple[Array, Array]]


def parameter_differences(a: ParameterStore, b: ParameterStore, known: Collection[str] = ()) -> Iterator[dict[str, Any]]:
    """Every parameter but the known ones that differs: only in one, another spec, another alias, or other bits and how far apart.

    Those of one name and spec are read once, side by side; one that is a changed matrix a few times more, for the rank of its change.
    """
    ours, theirs = set(a.names()), set(b.names())
    for name in (name for name in [*a.names(), *(name for name in b.names() if name not in ours)] if name not in known):
        if name not in theirs or name not in ours:
            own = a if name in ours else b
            zeros = {} if any(block.any() for block in blocks(own, name)) else {"zeros": True}
            yield {"name": name, "difference": "only in A" if name in ours else "only in B", "spec": str(own.spec(name)), **zeros}
        elif a.spec(name) != b.spec(name):
            how = related(a, b, name)
            yield {"name": name, "difference": "spec", "a": str(a.spec(name)), "b": str(b.spec(name)), **({"how": how} if how else {})}
        elif (far := distance(pairs(*(sides := _as_kept(a, b, name))))) is not None:
            spec = sides[0][0].spec(sides[0][1])
            rank = low_rank(partial(pairs, *sides), tuple(fixed(size) for size in spec.shape), spec.dtype.numpy)
            yield {"name": name, "difference": "values", **far, **({"rank": rank} if rank else {})}
        elif a.alias_of(name) != b.alias_of(name):
            yield {"name": name, "difference": "alias", "a": a.alias_of(name), "b": b.alias_of(name)}


def blocks(store: ParameterStore, name: str, count: int = BLOCK) -> Iterator[Array]:
    """The elements of a parameter in C order, `count` at a time; each block is gone with the next."""
    dtype = store.spec(name).dtype.numpy
    held, place = np.empty(0, dtype), 0
    for piece in store.pieces(name):
        values = np.frombuffer(piece, np.uint8).view(dtype)
        while len(values):
            if not len(held):
                held = np.empty(count, dtype)
            taken = min(count - place, len(values))
            held[place:place + taken] = values[:taken]
            place, values = place + taken, values[taken:]
            if place == count:
                yield held
                place = 0
    if place:
        yield held[:place]


Side = tuple[ParameterStore, str]


def _as_kept(a: ParameterStore, b: ParameterStore, name: str) -> tuple[Side, Side]:
    """A parameter of two stores, in the order in which both hold it where that is one: what differs, and by which rank, is the same."""
    ours, theirs = a.kept(name), b.kept(name)
    return (ours[:2], theirs[:2]) if ours[2] == theirs[2] else ((a, name), (b, name))


def pairs(a: Side, b: Side, count: int = BLOCK) -> Iterator[tuple[Array, Array]]:
    """The blocks of two parameters of one spec, side by side."""
    return zip(blocks(*a, count), blocks(*b, count), strict=True)


def distance(compared: Pairs) -> dict[str, Any] | None:
    """How many values differ in their bits, and the largest absolute difference, None where one of them is NaN or infinite; or None where
    no bit differs."""
    count, total, largest = 0, 0, 0.0
    for a, b in compared:
        total += len(a)
        if a.data.cast("B") == b.data.cast("B"):
            continue
        differs = (a.view(np.uint8).reshape(len(a), -1) != b.view(np.uint8).reshape(len(b), -1)).any(1)
        count += int(differs.sum())
        wide = np.complex128 if a.dtype.kind == "c" else np.float64
        with np.errstate(all="ignore"):
            largest = float(np.maximum(largest, np.abs(a[differs].astype(wide) - b[differs].astype(wide)).max()))
    if not count:
        return None
    return {"count": count, "of": total, "max_abs": largest if np.isfinite(largest) else None}


def low_rank(compared: Callable[[int], Pairs], shape: tuple[int, ...], dtype: np.dtype[Any]) -> int | None:
    """The rank of b - a where that is small and not 0, as an adapter that was merged leaves it; None where it is not.

    Both are floats [rows, columns], given by `compared(count)`, `count` elements in C order at a time. Singular values of a random
    sketch (Halko, Martinsson and Tropp 2011); those below the rounding of b do not count, and what the sketch misses must be no more than
    that.
    """
    if len(shape) != 2 or dtype.name not in ROUNDING or min(shape) < 8:
        return None
    count = min(SKETCH, min(shape) // 4)
    step = max(BLOCK // 4 // shape[1], 1) * shape[1]

    def changes() -> Iterator[tuple[slice, Array, Array]]:
        start = 0
        for a, b in compared(step):
            before, after = (values.reshape(-1, shape[1]).astype(np.float64) for values in (a, b))
            yield slice(start, start + len(after)), after - before, after
            start += len(after)

    sketch = np.random.default_rng(0).normal(size=(shape[1], count + 4))
    with np.errstate(all="ignore"):
        images = np.concatenate([change @ sketch for _, change, _ in changes()])
    if not np.isfinite(images).all():
        return None
    basis, _ = np.linalg.qr(images)
    kept = np.zeros((basis.shape[1], shape[1]))
    for rows, change, _ in changes():
        kept += basis[rows].T @ change
    missed, size = 0.0, 0.0
    for rows, change, after in changes():
        missed += float(np.square(change - basis[rows] @ kept).sum())
        size += float(np.square(after).sum())
    rounding = ROUNDING[dtype.name] * np.sqrt(size)
    if np.sqrt(missed) > rounding:
        return None
    rank = int((np.linalg.svd(kept, compute_uv=False) > rounding).sum())
    return rank if 0 < rank <= count else None
