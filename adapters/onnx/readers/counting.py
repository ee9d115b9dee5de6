"""Counts of runs of integers, and the table of a filter bank."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from adapters.onnx.load import FROM_ONNX
from adapters.onnx.reading.constants import evaluate_constants
from adapters.onnx.reading.items import SMALL, Item
from adapters.onnx.reading.reader import Reader
from adapters.onnx.registry import reads
from converter.builder import Value
from converter.ir import DType

MOST = 1 << 22
"""Numbers of the table that says where each run is counted."""


@reads("TfIdfVectorizer")
def tf_idf(g: Reader, x: Item, *, max_gram_length: int, max_skip_count: int, min_gram_length: int, mode: str, ngram_counts: Sequence[int],
           ngram_indexes: Sequence[int], pool_int64s: Sequence[int] = (), pool_strings: Sequence[str] = (),
           weights: Sequence[float] = ()) -> Value:
    """float32 [n]: how often each run of the pool occurs in a row of integers, with up to `max_skip_count` left out between two."""
    if pool_strings or not g.dtype(x).is_integer:
        raise g.refuse("runs of texts")
    value = g.cast(x, DType.INT64)
    rows = g.op("reshape", value, shape=(1, value.shape[0])) if value.rank == 1 else value
    count, length = rows.shape
    places = np.asarray(ngram_indexes, np.int64)
    if not isinstance(length, int) or rows.rank != 2:
        raise g.refuse("rows of a free length")
    width = int(places.max()) + 1 if places.size else 0
    if width * places.size > MOST or weights and len(weights) != places.size or (places < 0).any():
        raise g.refuse("a pool that is too large, or weights of another number")
    ends = [*ngram_counts, len(pool_int64s)]
    number, found = 0, []
    for size, (start, stop) in enumerate(pairwise(ends), 1):
        if stop < start or (stop - start) % size:
            raise g.refuse("a pool that is damaged: runs of other lengths than it says")
        pool = np.asarray(pool_int64s[start:stop], np.int64).reshape(-1, size)
        own, number = slice(number, number + len(pool)), number + len(pool)
        if not min_gram_length <= size <= max_gram_length or not len(pool):
            continue
        where = np.zeros((width, len(pool)), np.float32)
        where[places[own], np.arange(len(pool))] = 1
        for skip in range(max_skip_count + 1 if size > 1 else 1):
            reach = (size - 1) * (skip + 1)
            if reach >= length:
                continue
            steps = range(0, reach + 1, skip + 1)
            parts = [g.op("slice", rows, axes=(1,), starts=(step,), stops=(length - reach + step,)) for step in steps]
            runs = g.op("expand_dims", g.op("stack", *parts, axis=2), axis=(2,))
            equal = g.op("all", g.op("equal", runs, g.constant(pool.reshape(1, 1, -1, size))), axis=(3,))
            found.append(g.op("linear", g.op("sum", g.cast(equal, DType.FLOAT32), axis=(1,)), g.constant(where)))
    total = found[0] if found else g.op("full", shape=(count, width), fill_value=0.0, dtype=DType.FLOAT32)
    for part in found[1:]:
        total = g.op("add", total, part)
    if mode == "IDF":
        total = g.op("minimum", total, g.like(1, total))
    if mode in ("IDF", "TFIDF") and weights:
        each = np.ones(width, np.float32)
        each[places] = weights
        total = g.op("multiply", total, g.constant(each.reshape(1, -1)))
    return g.op("reshape", total, shape=(width,)) if value.rank == 1 else total


@reads("MelWeightMatrix")
def mel_weight_matrix(g: Reader, *items: Item, output_datatype: int = 1) -> Item:
    """Triangles of frequencies: of numbers that the file gives, as ONNX's own evaluator computes them."""
    bins, length = (int(g.numbers(item, "a number of a filter bank").reshape(-1)[0]) for item in items[:2])
    for item in items[2:]:
        g.numbers(item, "a number of a filter bank")
    if not 0 < bins * (length // 2 + 1) <= SMALL:
        raise g.refuse(f"a filter bank of more than {SMALL} numbers")
    found = evaluate_constants(g.node, items, g.version)
    if found is None or found.known is None or FROM_ONNX.get(output_datatype) is not found.dtype:
        raise g.refuse("a filter bank that is too large, or of these numbers")
    return g.constant_item(found.known)
