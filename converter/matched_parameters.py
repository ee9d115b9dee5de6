"""Which parameter of one model is which of another: by name, else by what it holds."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np

from converter.dims import fixed
from converter.ir import Array, DType, TensorSpec
from converter.parameters import ParameterStore, as_bytes, transposed_pieces


def _digest(values: Array) -> str:
    return hashlib.sha256(as_bytes(np.ascontiguousarray(values))).hexdigest()


def related(a: ParameterStore, b: ParameterStore, name: str) -> str | None:
    """How b holds under a name what a does: "transposed", "reshaped" or "cast"; None where it holds something else.

    A cast is what a's values are in b's dtype, or the other way round.
    """
    before, after = a.spec(name), b.spec(name)
    if before.dtype is after.dtype:
        if before.rank == after.rank == 2 and before.shape == after.shape[::-1] and _turned_digest(a, name) == b.sha256(name):
            return "transposed"
        return "reshaped" if _count(before) == _count(after) and a.sha256(name) == b.sha256(name) else None
    if before.shape == after.shape and (_cast_digest(a, name, after.dtype) == b.sha256(name)
                                        or _cast_digest(b, name, before.dtype) == a.sha256(name)):
        return "cast"
    return None


def _count(spec: TensorSpec) -> int:
    return math.prod(fixed(size) for size in spec.shape)


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
    """The digest of a matrix's transpose."""
    known: dict[str, str] = store.__dict__.setdefault("_turned_sha256", {})
    if name not in known:
        digest = hashlib.sha256()
        for piece in transposed_pieces(store, name):
            digest.update(piece)
        known[name] = digest.hexdigest()
    return known[name]


def _cast_digest(store: ParameterStore, name: str, dtype: DType) -> str:
    """The digest of a parameter's values in another dtype."""
    digest, own = hashlib.sha256(), store.spec(name).dtype.numpy
    for piece in store.pieces(name):
        with np.errstate(all="ignore"):
            digest.update(as_bytes(np.frombuffer(piece, np.uint8).view(own).astype(dtype.numpy)))
    return digest.hexdigest()


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
    digest = cache(_cast_digest)
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
