"""Order, search and sets."""

import numpy as np
import torch

from tests.op_cases import Case, Input, boolean, f32, f64, i32, i64


def few(*shape: int | str) -> Input:
    """float32 values with many ties."""
    return Input(shape, lambda rng, size: rng.integers(-2, 3, size).astype("float32"))


def holes(*shape: int | str) -> Input:
    """float32 values, a third of them NaN."""
    return Input(shape, lambda rng, size: np.where(rng.random(size) < 0.33, np.nan, rng.standard_normal(size)).astype("float32"))


def ascending(*shape: int | str) -> Input:
    """float32 values in order along the last axis."""
    return Input(shape, lambda rng, size: np.sort(rng.integers(-4, 5, size).astype("float32"), -1))


CASES = [
    Case("sort", torch.sort, f32("batch", 6)),
    Case("sort", lambda x: x.sort(0, descending=True), f64("batch", 3), name="descending"),
    Case("sort", lambda x: torch.sort(x, stable=True, dim=1, descending=True), few("batch", "time"), name="stable descending"),
    Case("sort", lambda x: torch.sort(x, stable=True, dim=1), i64("batch", 9, low=0, high=3), name="stable integers"),
    Case("sort", lambda x: torch.sort(x, stable=True, dim=-1), boolean("batch", 5), name="booleans"),
    Case("sort", lambda x: x.argsort(-1), f32("batch", "time"), name="argsort"),
    Case("sort", torch.msort, f32("batch", 3), name="msort"),
    Case("topk", lambda x: x.topk(3), f32("batch", 6), name="largest"),
    Case("topk", lambda x: x.topk(2, 0, largest=False), f64(5, "batch"), name="smallest"),
    Case("topk", lambda x: x.topk(x.shape[1] // 2, 1), f32("batch", "length"), name="half"),
    Case("topk", lambda x: x.topk(2)[0], i32("batch", 6), name="int32"),
    Case("sort", lambda x: torch.sort(x, stable=True, dim=-1, descending=True), holes("batch", 9), name="NaN first"),
    Case("sort", lambda x: torch.sort(x, stable=True, dim=0), holes("batch", 9), name="NaN last"),
    Case("topk", lambda x: x.topk(2)[0], holes("batch", 9), name="NaN"),
    Case("topk", lambda x: x.kthvalue(2, 1), f32("batch", 5), name="kthvalue"),
    Case("mode", lambda x: x.mode(1), few("batch", 7)),
    Case("mode", lambda x: x.mode(0, keepdim=True), i64("time", 3, low=0, high=3), name="integers"),
    Case("searchsorted", torch.searchsorted, ascending(6), few("batch", 3), name="vector"),
    Case("searchsorted", lambda s, v: torch.searchsorted(s, v, right=True), ascending("batch", 6), few("batch", 4), name="right"),
    Case("searchsorted", lambda x: torch.bucketize(x, torch.tensor([-1.0, 0.0, 0.5])), f32("batch", 3), name="bucketize"),
    Case("searchsorted", lambda x, s: torch.bucketize(x, s, right=True, out_int32=True), i64("batch"), i64(1), name="bucketize right"),
    Case("isin", torch.isin, i64("batch", 3), i64("time")),
    Case("isin", lambda x: torch.isin(x, 2, invert=True), i64("batch", 3), name="number, inverted"),
    Case("isin", torch.isin, few("batch", 3), few(2, 2), name="floats"),
    Case("unique", lambda x: torch.unique(x, return_inverse=True, return_counts=True), i64("batch", 4, low=0, high=4)),
    Case("unique", lambda x: torch.unique(x), few("batch", 3), name="floats"),
    Case("unique", lambda x: torch.unique(x, dim=0, return_inverse=True), few("batch", 2), name="rows"),
    Case("unique_consecutive", lambda x: torch.unique_consecutive(x // 2, True, True, dim=1), i64(2, "length", low=0, high=4),
         name="columns"),
    Case("unique_consecutive", lambda x: torch.unique_consecutive(x, dim=0), boolean("length", 2), name="rows"),
    Case("unique_consecutive", lambda x: torch.unique_consecutive(x, return_inverse=True, return_counts=True), few("length")),
]
