"""Which parameter of one model is which of another: by name, else by what it holds."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np

from converter.dims import fixed
from converter.ir import DType
from converter.parameters import Array, ParameterStore, as_bytes

SKETCH = 48
"""The largest rank of a change that is looked for."""
BLOCK = 1 << 20
"""Elements that are widened at a time."""
ROUNDING = {"float64": 2.0 ** -52, "float32": 2.0 ** -23, "float16": 2.0 ** -10, "bfloat16": 2.0 ** -7}
"""The spacing of numbers at 1."""


def _digest(values: Array) -> str:
    return hashlib.sha256(as_bytes(np.ascontiguousarray(values))).hexdigest()


def related(a: Array, b: Array) -> str | None:
    """How b holds what a does: "transposed", "reshaped" or "cast"; None where it holds something else.

    A cast is what a's values are in b's dtype, or the other way round.
    """
    if a.dtype == b.dtype:
        if a.ndim == b.ndim == 2 and a.shape == b.shape[::-1] and _digest(a.T) == _digest(b):
            return "transposed"
        return "reshaped" if a.shape != b.shape and a.size == b.size and _digest(a) == _digest(b) else None
    with np.errstate(all="ignore"):
        if a.shape == b.shape and (_digest(a.astype(b.dtype)) == _digest(b) or _digest(b.astype(a.dtype)) == _digest(a)):
            return "cast"
    return None


def match_parameters(a: ParameterStore, b: ParameterStore) -> Iterator[dict[str, Any]]:
    """Every pair of parameters that have other names and hold the same: "renamed", "transposed", "reshaped", "cast", "fused", "shared".

    One tensor at a time is in memory, and each is read a few times, however many there are: digests are compared. A fused one is
    several of the other side, one after another along its first or its last axis; a shared one is one of the other side that has its
    own name there too. Yields {"a": name, "b": name, "how": …}, with a list of names in place of the one of a fused side.
    """
    ours, theirs = set(a.names()), set(b.names())
    left = {name: a for name in a.names() if name not in theirs}
    right = {name: b for name in b.names() if name not in ours}
    for how, key in (("renamed", _same), ("transposed", _turned), ("reshaped", _flat)):
        yield from _by_key(left, right, how, key)
    yield from _cast(left, right)
    for names, whole, turned in ((left, right, False), (right, left, True)):
        yield from _fused(names, whole, turned)
    yield from ({"a": own, "b": name, "how": "shared"} for name, own in _shared(right, a))
    yield from ({"a": name, "b": own, "how": "shared"} for name, own in _shared(left, b))


def _shared(names: dict[str, ParameterStore], other: ParameterStore) -> Iterator[tuple[str, str]]:
    """What the other side holds once for several names: exporters keep equal tensors once."""
    for name, store in list(names.items()):
        spec = store.spec(name)
        own = next((own for own in other.names() if other.spec(own) == spec and other.sha256(own) == store.sha256(name)), None)
        if own is not None:
            del names[name]
            yield name, own


def _same(store: ParameterStore, name: str, second: bool) -> Any:
    return store.spec(name), store.sha256(name)


def _turned(store: ParameterStore, name: str, second: bool) -> Any:
    spec = store.spec(name)
    if len(spec.shape) != 2:
        return None
    return (spec.dtype, spec.shape, store.sha256(name)) if second else (spec.dtype, spec.shape[::-1], _turned_digest(store, name))


def _turned_digest(store: ParameterStore, name: str) -> str:
    known: dict[str, str] = store.__dict__.setdefault("_turned_sha256", {})
    if name not in known:
        known[name] = _digest(store.read(name).T)
    return known[name]


def _flat(store: ParameterStore, name: str, second: bool) -> Any:
    return store.spec(name).dtype, store.sha256(name)


def _by_key(left: dict[str, ParameterStore], right: dict[str, ParameterStore], how: str, key: Any) -> Iterator[dict[str, Any]]:
    found: dict[Any, list[str]] = {}
    for name, store in right.items():
        found.setdefault(key(store, name, True), []).append(name)
    for name, store in list(left.items()):
        own = key(store, name, False)
        if own is not None and found.get(own):
            other = found[own].pop(0)
            del left[name], right[other]
            yield {"a": name, "b": other, "how": how}


def _cast(left: dict[str, ParameterStore], right: dict[str, ParameterStore]) -> Iterator[dict[str, Any]]:
    @cache
    def digest(store: ParameterStore, name: str, dtype: DType) -> str:
        with np.errstate(all="ignore"):
            return _digest(store.read(name).astype(dtype.numpy))

    for name, a in list(left.items()):
        spec = a.spec(name)
        for other, b in right.items():
            found = b.spec(other)
            if found.shape == spec.shape and found.dtype is not spec.dtype and (
                    digest(a, name, found.dtype) == b.sha256(other) or digest(b, other, spec.dtype) == a.sha256(name)):
                del left[name], right[other]
                yield {"a": name, "b": other, "how": "cast"}
                break


def _fused(parts: dict[str, ParameterStore], wholes: dict[str, ParameterStore], turned: bool) -> Iterator[dict[str, Any]]:
    """A whole whose rows, or columns, are several parts'. `turned`: the parts are b's."""
    for whole, store in list(wholes.items()):
        spec = store.spec(whole)
        if not spec.shape or len(parts) < 2:
            continue
        values = store.read(whole)
        views = [values] if values.ndim == 1 else [values, values.T] if values.ndim == 2 else [values]
        for view in views:
            found = _stacked(view, parts)
            if found:
                del wholes[whole]
                for name in found:
                    del parts[name]
                yield {"a": whole, "b": found, "how": "fused"} if turned else {"a": found, "b": whole, "how": "fused"}
                break


def _stacked(values: Array, parts: dict[str, ParameterStore]) -> list[str]:
    """Names whose values, each as it lies or transposed, make up `values` along axis 0."""
    near: dict[tuple[int, str], list[str]] = {}
    for name, store in parts.items():
        spec = store.spec(name)
        shape = tuple(fixed(size) for size in spec.shape)
        if spec.dtype.numpy != values.dtype or len(shape) != values.ndim:
            continue
        if shape[1:] == values.shape[1:] and shape[0] < values.shape[0]:
            near.setdefault((shape[0], store.sha256(name)), []).append(name)
        if len(shape) == 2 and shape[0] == values.shape[1] and shape[1] < values.shape[0]:
            near.setdefault((shape[1], _turned_digest(store, name)), []).append(name)
    found: list[str] = []
    place, sizes = 0, sorted({rows for rows, _ in near}, reverse=True)
    while place < len(values):
        for rows in sizes:
            names = near.get((rows, _digest(values[place:place + rows])), []) if place + rows <= len(values) else []
            free = [name for name in names if name not in found]
            if free:
                found.append(free[0])
                place += rows
                break
        else:
            return []
    return found if len(found) > 1 else []


def low_rank(a: Array, b: Array) -> int | None:
    """The rank of b - a where that is small and not 0, as an adapter that was merged leaves it; None where it is not.

    Both [rows, columns] floats, of which a few rows at a time are widened. Singular values of a random sketch (Halko, Martinsson and
    Tropp 2011); those below the rounding of b do not count, and what the sketch misses must be no more than that.
    """
    if a.ndim != 2 or a.shape != b.shape or a.dtype != b.dtype or a.dtype.name not in ROUNDING or min(a.shape) < 8:
        return None
    count = min(SKETCH, min(a.shape) // 4)
    step = max(BLOCK // a.shape[1], 1)

    def changes() -> Iterator[tuple[slice, Array]]:
        for start in range(0, a.shape[0], step):
            rows = slice(start, start + step)
            yield rows, b[rows].astype(np.float64) - a[rows].astype(np.float64)

    if not all(np.isfinite(change).all() for _, change in changes()):
        return None
    sketch = np.random.default_rng(0).normal(size=(a.shape[1], count + 4))
    basis, _ = np.linalg.qr(np.concatenate([change @ sketch for _, change in changes()]))
    kept = np.zeros((basis.shape[1], a.shape[1]))
    for rows, change in changes():
        kept += basis[rows].T @ change
    missed, size = 0.0, 0.0
    for rows, change in changes():
        missed += float(np.square(change - basis[rows] @ kept).sum())
        size += float(np.square(b[rows].astype(np.float64)).sum())
    rounding = ROUNDING[a.dtype.name] * np.sqrt(size)
    if np.sqrt(missed) > rounding:
        return None
    rank = int((np.linalg.svd(kept, compute_uv=False) > rounding).sum())
    return rank if 0 < rank <= count else None
