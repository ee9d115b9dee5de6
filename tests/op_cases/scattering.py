"""Elements replaced or accumulated at places that tensors of indices or masks name.

Where nothing is reduced, the indices of a case name no place twice.
"""

import numpy as np
import torch

from tests.op_cases import Case, Input, boolean, f32, f64, i32, i64


def places(high: int, *shape: int | str) -> Input:
    """Distinct places along the last axis."""
    return Input(shape, lambda rng, size: np.argsort(rng.random((*size[:-1], high)), -1)[..., :size[-1]])


def assign(x: torch.Tensor, key: object, value: object) -> torch.Tensor:
    x = x.clone()
    x[key] = value
    return x


REDUCED = [Case("scatter", lambda x, i, v, reduce=reduce, own=own: x.scatter_reduce(1, i, v, reduce, include_self=own),
                f32("batch", 4), i64("batch", 6, low=0, high=4), f32("batch", 6), name=f"{reduce} {'with' if own else 'without'} self")
           for reduce in ("sum", "prod", "mean", "amax", "amin") for own in (True, False)]
CASES = [
    *REDUCED,
    Case("scatter", lambda x, i, v: x.scatter(1, i, v), f32("batch", 5), places(5, "batch", 3), f32("batch", 3), name="values"),
    Case("scatter", lambda x, i, v: x.scatter(-1, i, v), i64("batch", 5), places(5, 1, 3), i64("batch", 4), name="fewer indices"),
    Case("scatter", lambda x, i: x.scatter(1, i, 2.5), f64("batch", 5), places(5, "batch", 3), name="number"),
    Case("scatter", lambda x, i, v: x.scatter_add(0, i, v), f64(5, "batch"), i64("time", "batch", low=0, high=5), f64("time", "batch"),
         name="add"),
    Case("scatter", lambda x, i, v: x.scatter_add(1, i, v), i64("batch", 5), i64("batch", 7, low=0, high=5), i64("batch", 7),
         name="add integers"),
    Case("scatter", lambda x, i, v: x.scatter_reduce(1, i, v, "mean", include_self=False), i64("batch", 3),
         i64("batch", 7, low=0, high=3), i64("batch", 7), name="mean of integers"),
    Case("scatter", lambda x, i, v: x.scatter_reduce(1, i, v, "amin", include_self=False), i32("batch", 3),
         i64("batch", 5, low=0, high=3), i32("batch", 5), name="least of integers"),
    Case("scatter", lambda x, i, v: x.index_reduce(0, i, v, "amax"), f32(4, "batch"), i64(6, low=0, high=4), f32(6, "batch"),
         name="index_reduce"),
    Case("index_put", lambda x, i, v: assign(x, i, v), f32(5, "batch"), places(5, 3), f32(3, "batch"), name="rows"),
    Case("index_put", lambda x, i, v: assign(x, (slice(None), i), v), f64("batch", 5), places(5, 3), f64(), name="columns, one number"),
    Case("index_put", lambda x, i, j, v: assign(x, (i, j), v), i64(4, 5, "batch"), places(4, 3), places(5, 3), i64("batch"),
         name="pairs, broadcast"),
    Case("index_put", lambda x, i, j, v: assign(x, (slice(None), i, slice(None), j), v), f32("batch", 4, 2, 5), places(4, 3),
         places(5, 3), f32(3, "batch", 2), name="apart"),
    Case("index_put", lambda x, i, j, v: assign(x, (slice(None), i, j), v), f32("batch", 4, 5, 2), places(4, 3),
         places(5, 3), f32("batch", 3, 2), name="neighbours"),
    Case("index_put", lambda x, i, v: x.index_put((i,), v, accumulate=True), f32(5, "batch"), i64("time", low=-5, high=5),
         f32("time", "batch"), name="accumulate"),
    Case("index_put", lambda x, i, v: x.index_put((i,), v, accumulate=True), boolean(5), i64("time", low=0, high=5),
         boolean("time"), name="accumulate booleans"),
    Case("index_put", lambda x, m, v: assign(x, m, v[:, 0][m]), f32("batch"),
         boolean("batch"), f32("batch", 2), name="mask"),
    Case("index_put", lambda x, i, v: x.index_add(1, i, v, alpha=2), f32("batch", 4), i64(6, low=0, high=4), f32("batch", 6),
         name="index_add"),
    Case("index_put", lambda x, i, v: x.index_add(0, i, v), i64(4, "batch"), i32(6, low=0, high=4), i64(6, "batch"),
         name="index_add int32"),
    Case("index_put", lambda x, i, v: x.index_copy(1, i, v), f32("batch", 4), places(4, 3), f32("batch", 3), name="index_copy"),
    Case("index_put", lambda x, i: x.index_fill(1, i, -1), i64("batch", 4, 2), places(4, 2), name="index_fill"),
    Case("index_put", lambda x, i, v: x.put(i, v, accumulate=True), f32(3, "batch"), i64(5, low=0, high=3), f32(5), name="put"),
    Case("where", lambda x, m: assign(x, m, 0.0), f32("batch", 3, 2), boolean("batch", 3), name="mask assigned a number"),
    Case("where", lambda x, m, v: assign(x, m, v), f32("batch", 3, 2), boolean("batch", 3), f32(2), name="mask assigned a row"),
    Case("masked_scatter", lambda x, m, v: x.masked_scatter(m, v), f32("batch", 3), boolean("batch", 3), f32("batch", 4)),
    Case("masked_scatter", lambda x, m, v: x.masked_scatter(m, v), i64("batch", 3, 2), boolean("batch", 3, 1), i64("batch", 2, 3),
         name="broadcast"),
    Case("bincount", lambda x: torch.bincount(x), i64("batch", low=0, high=9)),
    Case("bincount", lambda x: torch.bincount(x.reshape(-1), minlength=12), i32("batch", 5, low=0, high=20), name="at least, int32"),
    Case("bincount", lambda x, w: torch.bincount(x, w), i64("batch", low=0, high=5), f32("batch"), name="weights"),
    Case("bincount", lambda x, w: torch.bincount(x, w, 3), i64("batch", low=0, high=2), i64("batch"), name="weights of integers"),
    Case("bincount", lambda x: (torch.bincount(x[:0]), torch.bincount(x[:0], minlength=2)), i64(4, low=0, high=2), name="of nothing"),
    Case("bincount", lambda x: torch.nn.functional.one_hot(x), i64("batch", 3, low=0, high=6), name="one_hot of as many as there are"),
    Case("bincount", lambda x: torch.nn.functional.one_hot(x).sum(), i64("batch", low=0, high=6), name="one_hot, no size left"),
]
