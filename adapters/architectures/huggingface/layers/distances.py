"""Relative positions by buckets (Raffel et al. 2019, section 2.1): a learned number for each head and range of distances."""

from __future__ import annotations

import math

import numpy as np

from adapters.architectures.huggingface.net import Net
from converter.builder import Value
from converter.dims import Dim
from converter.ir import DType

# A table has a row for every distance up to the farthest.
LARGEST_DISTANCE = 1 << 20


def distance_buckets(buckets: int, farthest: int, *, both: bool = True,
                     rounded: bool = False) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """The bucket of each distance from -farthest to farthest (position of the key - that of the query): int64 [2 · farthest + 1].

    both: half of the buckets for each sign; else all of them for keys before the query, and bucket 0 for those after it.
    Half of a sign's buckets are for single distances, the others for ranges that grow as the logarithm does; in float32,
    whose rounding decides the bounds. `farthest` and what is beyond it share a bucket.
    rounded: the single distances' buckets are added before what is after the point is dropped, in float32 too.
    """
    distance = np.arange(-farthest, farthest + 1)
    count = buckets // 2 if both else buckets
    near = count // 2
    size = np.abs(distance) if both else np.maximum(-distance, 0)
    with np.errstate(divide="ignore"):
        log = np.log((size.astype(np.float32) / np.float32(near)).astype(np.float64)).astype(np.float32)
    far = log / np.float32(math.log(farthest / near)) * np.float32(count - near)
    far = np.where(size < near, 0, far).astype(np.float32)
    far = np.minimum((np.float32(near) + far).astype(np.int64) if rounded else near + far.astype(np.int64), count - 1)
    found: np.ndarray[tuple[int], np.dtype[np.int64]] = (distance > 0) * (count if both else 0) + np.where(size < near, size, far)
    return found


def distance_bias(net: Net, table: Value, buckets: int, farthest: int, start: Dim, stop: Dim, *, both: bool = True,
                  rounded: bool = False, name: str = "distance") -> Value:
    """What to add to the scores of the queries from `start` to `stop` with the keys from 0 to `stop`: [heads, stop - start, stop].

    table: [buckets and more, heads].
    """
    places = net.constant(f"{name}_buckets", distance_buckets(buckets, farthest, both=both, rounded=rounded))
    keys = net.op("reshape", net.op("arange", stop=stop, dtype=DType.INT64), shape=(1, stop))
    queries = net.op("reshape", net.op("arange", start=start, stop=stop, dtype=DType.INT64), shape=(stop - start, 1))
    distance = net.op("add", net.op("clip", net.op("subtract", keys, queries), -farthest, farthest), farthest)
    # Looked up by distance first: [2 · farthest + 1, heads], then one row for each pair of words.
    found = net.op("embedding", distance, net.op("embedding", places, table))
    return net.op("permute_dims", found, axes=(2, 0, 1), name=f"{name}_bias")
