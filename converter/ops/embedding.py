"""Tables looked up by index."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np

from converter.dims import maximum, product
from converter.facts import Facts, Ids, moves
from converter.formulas import Space, Term, counted, dtype_of, refuse
from converter.ir import Array, DType, TensorSpec
from converter.ops._rules import require, require_rank, require_size, same_dtype
from converter.ops.indexing import require_indices
from converter.opset import op


def _embedding(indices: TensorSpec, weight: TensorSpec) -> TensorSpec:
    require_indices(indices)
    require_rank(weight, 2, what="the weight")
    return TensorSpec(weight.dtype, indices.shape + weight.shape[1:])


def _rows(f: Space, indices: Term, weight: Term) -> Term:
    """A negative index, which would count from the end, becomes one outside the table."""
    return f.take(weight, f.where(indices < 0, weight.shape[0], indices), axis=0)


@op(infer=_embedding, formula=_rows, facts=moves(1, ids=Ids(0, 1), finite=True))
def embedding(indices: Array, weight: Array) -> Array:
    """The rows of a table: torch.nn.functional.embedding.

    indices: int32 or int64 in [0, rows), any shape; weight: [rows, features]. y: [*indices.shape, features].
    """
    if indices.size and indices.min() < 0:
        raise IndexError(f"the index {indices.min()} is negative")
    return np.take(weight, indices, 0)


def _embedding_bag(indices: TensorSpec, weight: TensorSpec, offsets: TensorSpec | None = None, per_sample_weights: TensorSpec | None = None,
                   mode: str = "sum", include_last_offset: bool = False, padding_idx: int | None = None) -> TensorSpec:
    require_indices(indices)
    require_rank(weight, 2, what="the weight")
    require_rank(indices, 1 if offsets is not None else 2, what="the indices")
    if offsets is not None:
        require_indices(offsets)
        require_rank(offsets, 1, what="the offsets")
    if per_sample_weights is not None:
        require(mode == "sum", "weights a sample go with the mode sum alone", expected='"sum"', received=mode)
        same_dtype(weight, per_sample_weights)
        require_rank(per_sample_weights, indices.rank, what="the weights a sample")
        for size, wanted in zip(per_sample_weights.shape, indices.shape, strict=True):
            require_size(size, wanted, "the weights a sample")
    require(not include_last_offset or offsets is not None, "a last offset without offsets")
    bags = indices.shape[0] if offsets is None else offsets.shape[0] - int(include_last_offset)
    return TensorSpec(weight.dtype, (bags, weight.shape[1]))


def _bagged(f: Space, indices: Term, weight: Term, offsets: Term | None, per_sample_weights: Term | None, *, mode: str,
            include_last_offset: bool, padding_idx: int | None) -> Term:
    """Rows added up, or compared, where their bags stand; those of no bag in one more row."""
    dtype, features = dtype_of(weight), weight.shape[1]
    count, number = product(indices.shape), indices.shape[0] if offsets is None else offsets.shape[0] - int(include_last_offset)
    flat = f.reshape(indices, shape=(count,))
    if offsets is None:
        bags = counted(f, count) // maximum(indices.shape[1], 1)
    else:
        starts = f.astype(offsets, dtype=DType.INT64)
        end = f.full(shape=(1,), fill_value=count, dtype=DType.INT64)
        ends = f.concat(f.slice(starts, axes=(0,), starts=(1,), stops=(None,)), end, axis=0)
        starts = refuse(f, (starts > ends) | (f.equal(counted(f, starts.shape[0]), 0) & f.not_equal(starts, 0)), starts)
        bags = f.searchsorted(starts, counted(f, count), right=True) - 1
    rows = f.astype(f.embedding(flat, weight), dtype=dtype if dtype.itemsize > 2 else DType.FLOAT32)
    if per_sample_weights is not None:
        rows = rows * f.astype(f.reshape(per_sample_weights, shape=(count, 1)), dtype=dtype_of(rows))
    if padding_idx is not None:
        bags = f.where(f.equal(flat, padding_idx % weight.shape[0]), number, bags)
    column = f.reshape(bags, shape=(count, 1))
    table = f.full(shape=(number + 1, features), fill_value=-math.inf if mode == "max" else 0.0, dtype=dtype_of(rows))
    y = f.scatter(table, f.broadcast_to(column, shape=rows.shape), rows, axis=0, reduction="maximum" if mode == "max" else "add")
    none = f.full(shape=(number + 1, 1), fill_value=0.0, dtype=dtype_of(rows))
    sizes = f.scatter(none, column, f.full(shape=(count, 1), fill_value=1.0, dtype=dtype_of(rows)), axis=0, reduction="add")
    y = y / f.maximum(sizes, 1.0) if mode == "mean" else f.where(sizes > 0.0, y, 0.0) if mode == "max" else y
    return f.astype(f.slice(y, axes=(0,), starts=(0,), stops=(number,)), dtype=dtype)


@op(infer=_embedding_bag, formula=_bagged, facts=Facts(ids=Ids(0, 1)))
def embedding_bag(indices: Array, weight: Array, offsets: Array | None = None, per_sample_weights: Array | None = None, *,
                  mode: Literal["sum", "mean", "max"] = "sum", include_last_offset: bool = False,
                  padding_idx: int | None = None) -> Array:
    """Sums, means or maxima over bags of rows of a table: torch.nn.functional.embedding_bag.

    indices: [bags, length] without offsets; [n] with offsets: [bags], where each bag starts, ascending from 0, each
    ending where the next starts (`include_last_offset`: [bags + 1], the last one the end of the last bag).
    weight: [rows, features]; per_sample_weights: the shape of the indices, factors of the rows, for "sum".
    padding_idx: a row that takes no part. y: [bags, features]; a bag without rows gives zeros.
    """
    if indices.size and indices.min() < 0:
        raise IndexError(f"the index {indices.min()} is negative")
    if offsets is None:
        bags = np.repeat(np.arange(indices.shape[0]), indices.shape[1])
        count = indices.shape[0]
    else:
        edges = offsets if include_last_offset else np.append(offsets, len(indices))
        if len(edges) == 0 or edges[0] != 0 or (np.diff(edges) < 0).any() or edges[-1] > len(indices):
            raise ValueError("the offsets do not ascend from 0 to the number of indices")
        bags, count = np.repeat(np.arange(len(edges) - 1), np.diff(edges)), len(edges) - 1
    flat = indices.ravel()[:len(bags)]
    wide = weight.dtype if weight.dtype.itemsize > 2 else np.dtype(np.float32)
    rows = np.take(weight, flat, 0).astype(wide)
    if per_sample_weights is not None:
        rows = rows * per_sample_weights.ravel()[:len(bags), np.newaxis].astype(wide)
    if padding_idx is not None:
        kept = flat != padding_idx % len(weight)
        rows, bags = rows[kept], bags[kept]
    y = np.full((count, weight.shape[1]), -np.inf if mode == "max" else 0, wide)
    (np.maximum if mode == "max" else np.add).at(y, bags, rows)
    sizes = np.bincount(bags, minlength=count)[:, np.newaxis]
    if mode == "mean":
        y = y / np.maximum(sizes, 1).astype(wide)
    if mode == "max":
        y = np.where(sizes > 0, y, wide.type(0))
    return y.astype(weight.dtype)
