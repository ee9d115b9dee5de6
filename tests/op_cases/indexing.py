"""Elements picked by tensors of indices or by masks."""

import torch
import torch.nn.functional as F

from tests.op_cases import Case, boolean, f32, f64, i32, i64


def mask_of_heads(mask: torch.Tensor, batch: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
    return mask[batch[:, None, None, None], keys[None, None, None, :]]


CASES = [
    Case("take", lambda x: torch.as_strided(x, (2, 2), (1, 2), 1), f32(3, 3), name="as_strided, overlapping"),
    Case("take", lambda x, i: x.index_select(1, i), f32("batch", 5), i64("time", low=0, high=5), name="index_select"),
    Case("take", lambda x, i: x[i], f32(5, "batch"), i64("time", 2, low=-5, high=5), name="first axis"),
    Case("take", lambda x, i: x[:, i], f64("batch", 5, 2), i32("time", low=-5, high=5), name="second axis, int32"),
    Case("take", lambda x, i: torch.take(x, i), i64(3, 4), i64("batch", 2, low=-12, high=12), name="flat"),
    Case("take", lambda x, i: x[..., i, :], boolean("batch", 5, 2), i64(low=0, high=5), name="0-d index"),
    Case("take_along_axis", lambda x, i: x.gather(1, i), f32("batch", 5), i64("batch", 3, low=0, high=5), name="gather"),
    Case("take_along_axis", lambda x, i: x.gather(0, i), i64(4, 5), i64("batch", 3, low=0, high=4), name="fewer indices"),
    Case("take_along_axis", lambda x, i: torch.take_along_dim(x, i, 1), f64(3, 5, 1), i64(3, 2, 3, low=0, high=5), name="broadcast"),
    Case("index", lambda x, i, j: x[i, j], f32(4, 5, "batch"), i64("time", low=-4, high=4), i64("time", low=-5, high=5), name="pairs"),
    Case("index", lambda x, i, j: x[:, i, j], f32("batch", 4, 5), i64("time", 1, low=0, high=4), i64(3, low=0, high=5), name="neighbours"),
    Case("index", lambda x, i, j: x[i, :, j], i64(4, "batch", 5), i64("time", low=0, high=4), i64("time", low=0, high=5), name="apart"),
    Case("index", lambda x, i, j: x[:, i, :, j], f32(2, 4, "batch", 5), i64(2, 1, low=0, high=4), i64("time", low=0, high=5),
         name="apart, later"),
    Case("index", mask_of_heads, boolean(4, 5), i64("batch", low=0, high=4), i64("time", low=0, high=5), name="mask of heads"),
    Case("index", lambda x, i: x[torch.arange(x.shape[0]), i], f32("batch", "time", 3), i64("batch", low=0, high=1), name="one a row"),
    Case("masked_select", lambda x, m: x[m], f32("batch", 3, 2), boolean("batch", 3), name="leading axes"),
    Case("masked_select", lambda x, m: x[m], i64("batch", 3), boolean("batch"), name="rows"),
    Case("masked_select", torch.masked_select, f32("batch", 3), boolean(3), name="broadcast"),
    Case("masked_select", lambda x: x[x > 0] * 2, f32("batch", "time"), name="of itself"),
    Case("masked_select", lambda x, m: x[m].sum(0) + x[m].shape[0], f32("batch", 3), boolean("batch"), name="counted"),
    Case("masked_select", lambda x, m: torch.ones(2) * x[m].shape[0], f32("batch", 3), boolean("batch"), name="counted only"),
    Case("nonzero", torch.nonzero, i64("batch", 4, low=0, high=3)),
    Case("nonzero", lambda x: torch.nonzero(x > 0.5), f32("batch", "time"), name="condition"),
    Case("nonzero", lambda x: torch.where(x)[1], boolean("batch", "time"), name="where"),
    Case("nonzero", lambda x: torch.combinations(x), f32("batch"), name="combinations"),
    Case("nonzero", lambda x: torch.combinations(x, 4, True), i64("batch"), name="combinations of four, with replacement"),
    Case("nonzero", lambda x: torch.combinations(x, 3).sum(1), f32(5), name="combinations of a fixed number"),
    Case("nonzero", lambda x: torch.nonzero(x), f64(3, 2), name="float64"),
    Case("nonzero", lambda x, m: x[:, m], f32("batch", 4), boolean(4), name="mask of a later axis"),
    Case("nonzero", lambda x, m, i: x[m, i], f32(4, 3), boolean(4), i64(1, low=0, high=3), name="mask and index"),
    Case("nonzero", lambda x, m: x[:, m], f32("batch", 2, 4, 3), boolean(2, 4), name="matrix mask of later axes"),
    Case("one_hot", lambda x: F.one_hot(x, 5), i64("batch", "time", low=0, high=5)),
    Case("where", lambda x, m: x.masked_fill(m, float("-inf")), f32("batch", 3), boolean(3), name="masked_fill"),
    Case("where", lambda x, m, v: x.masked_fill(m, v), i64("batch", 3), boolean("batch", 1), i64(), name="masked_fill by a tensor"),
    Case("take", lambda x, i: torch.tensor_split(x, i, 1)[1].sum(1), f32("batch", 7), i64(2, low=2, high=4), name="split at data"),
    Case("take", lambda x, i: torch.narrow(x, 1, i.abs() % 4, 3), f32("batch", 7), i64(), name="narrowed from data"),
]
