"""Reductions over axes."""

from __future__ import annotations

import numpy as np
import torch

from tests.op_cases import Case, Input, boolean, f32, f64, i32, i64
from tests.op_cases.elementwise import edges, u8


def distinct(*shape: int | str) -> Input:
    """float32 values of which no two are equal."""
    return Input(shape, lambda rng, size: (rng.permutation(int(np.prod(size))).reshape(size) / 7.0 - 3.0).astype(np.float32))


EVERY = {"sum": torch.sum, "mean": torch.mean, "prod": torch.prod, "max": torch.max, "min": torch.min, "var": torch.var, "std": torch.std}

EMPTY = ({"batch": 0}, {"batch": 3}, {"batch": 1})

CASES = [
    *(Case(op, function, f32("batch", 5), name="all") for op, function in EVERY.items()),
    *(Case(op, function, f64("batch", 5), name="float64") for op, function in EVERY.items()),
    Case("sum", lambda x: x.sum(1), f32("batch", "time", 3), name="axis"),
    Case("sum", lambda x: x.sum((0, -1), keepdim=True), f32("batch", "time", 3), name="axes kept"),
    Case("sum", lambda x: x.sum(), boolean("batch", 5), name="booleans"),
    Case("sum", lambda x: x.sum(-1), i32("batch", 5), name="int32"),
    Case("sum", lambda x: x.sum(-1, dtype=torch.float64), f32("batch", 5), name="dtype"),
    Case("sum", lambda x: x.sum(-1, dtype=torch.int32), i64("batch", 5), name="to int32"),
    Case("sum", lambda x: x.sum(()), f32("batch", 5), name="empty list"),
    Case("sum", lambda x: x.half().sum(-1).float(), f32("batch", 5), name="half"),
    Case("sum", lambda x: torch.nansum(x, -1), edges("batch", 20), name="nansum"),
    Case("divide", lambda x: torch.nanmean(x / x, -1), edges("batch", 20), name="nanmean"),
    Case("mean", lambda x: x.mean(-1), f32("batch", "time", 3), name="axis"),
    Case("mean", lambda x: x.mean((0, 1), keepdim=True), f32("batch", "time", 3), name="axes kept"),
    Case("mean", lambda x: x[:, :0].mean(1), f32("batch", 5), name="of nothing"),
    Case("mean", lambda x: x.mean(0, dtype=torch.float32), i64("batch", 5), name="integers"),
    Case("prod", lambda x: x.prod(1), f32("batch", 4), name="axis"),
    Case("prod", lambda x: x.prod(1, keepdim=True), i64("batch", 4), name="integers"),
    Case("max", lambda x: torch.amax(x, (0, 2)), f32("batch", "time", 3), name="axes"),
    Case("max", lambda x: torch.amax(x, -1, keepdim=True), edges("batch", 9), name="edges"),
    Case("max", lambda x: x.max(), i64("batch", 5), name="integers"),
    Case("max", lambda x: torch.amax(x, 1), boolean("batch", 3), name="booleans"),
    Case("max", lambda x: torch.amax(x, 1), u8("batch", 3), name="uint8"),
    Case("argmax", lambda x: tuple(x.max(1)), distinct("batch", "time", 3), name="with indices"),
    Case("argmin", lambda x: tuple(x.min(-1, keepdim=True)), i64("batch", 3, low=0, high=3), name="with indices"),
    Case("max", lambda x: x.max(1).values, f32("batch", "time"), name="values only"),
    Case("min", lambda x: torch.amin(x, 0), edges("batch", 9), name="edges"),
    Case("min", lambda x: tuple(torch.aminmax(x, dim=1)), f32("batch", 9), name="aminmax"),
    Case("argmax", lambda x: x.argmax(), f32("batch", 5), name="all"),
    Case("argmax", lambda x: x.argmax(-1), edges("batch", 12), name="edges"),
    Case("argmax", lambda x: x.argmax(1, keepdim=True), i64("batch", "time", 2, low=0, high=3), name="ties"),
    Case("argmin", lambda x: x.argmin(0), f64("batch", 5), name="float64"),
    Case("argmin", lambda x: x.argmin(-1), edges("batch", 12), name="edges"),
    Case("argmin", lambda x: x.argmin(keepdim=True), f32("batch", 5), name="all kept"),
    Case("any", torch.any, boolean("batch", 2), name="all"),
    Case("any", lambda x: x.any(1), boolean("batch", 2), name="axis"),
    Case("any", lambda x: x.any((0, 2), keepdim=True), i64("batch", "time", 2, low=0, high=2), name="integers"),
    Case("any", lambda x: x.any(1), u8("batch", 2), name="uint8"),
    Case("all", torch.all, boolean("batch", 1), name="all"),
    Case("all", lambda x: x.all(-1), boolean("batch", 2), name="axis"),
    Case("all", lambda x: x.all(0), edges("batch", 4), name="floats"),
    Case("count_nonzero", torch.count_nonzero, i64("batch", 5, low=0, high=2), name="all"),
    Case("count_nonzero", lambda x: torch.count_nonzero(x, (0, 1)), edges("batch", "time", 5), name="axes"),
    Case("var", lambda x: x.var(1), f32("batch", 5), name="axis"),
    Case("var", lambda x: x.var(1, correction=0, keepdim=True), f32("batch", "time", 3), name="no correction",
         sizes=({"batch": 3, "time": 5}, {"batch": 1, "time": 1})),
    Case("var", lambda x: x.var((0, 1), correction=1.5), f32("batch", "time", 3), name="dynamic count",
         sizes=({"batch": 3, "time": 5}, {"batch": 2, "time": 4})),
    Case("std", lambda x: x.std(-1, unbiased=False), f32("batch", 5), name="biased"),
    Case("std", lambda x: x.std(unbiased=False), f32("batch", 5), name="biased, of all"),
    Case("var", lambda x: tuple(torch.var_mean(x, False)), f32("batch", 5), name="biased, of all, with the mean"),
    Case("std", lambda x: tuple(torch.std_mean(x, -1)), f32("batch", 5), name="std_mean"),
    Case("var", lambda x: tuple(torch.var_mean(x, (0, 2), correction=0)), f32("batch", 5, "time"), name="var_mean"),
    Case("logsumexp", lambda x: torch.logsumexp(x * 100, 1), f32("batch", "time"), name="axis"),
    Case("logsumexp", lambda x: torch.logsumexp(x, (0, 1), keepdim=True), f64("batch", "time"), name="axes kept"),
    Case("logsumexp", lambda x: torch.logsumexp(torch.where(x > 0, x, float("-inf")), 1), f32("batch", 2), name="infinities"),
    *(Case("vector_norm", lambda x, p=p: torch.linalg.vector_norm(x, p, -1), f32("batch", 5), name=f"order {p}")
      for p in (2, 1, 0, 3, 0.5, -2, float("inf"), float("-inf"))),
    Case("vector_norm", lambda x: torch.linalg.vector_norm(x, 2, (0, 1), keepdim=True), f32("batch", "time", 3), name="axes kept"),
    Case("vector_norm", torch.norm, f32("batch", 5), name="torch.norm"),
    Case("vector_norm", lambda x: torch.norm(x, p="fro", dim=(0, 1)), f32("batch", 5), name="frobenius"),
    Case("vector_norm", lambda x: x.norm(dim=-1, p=1, keepdim=True), f64("batch", 5), name="method"),
    Case("vector_norm", lambda x, y: torch.dist(x, y, 3), f32("batch", 5), f32(5), name="dist"),
    Case("median", torch.median, f32("batch", "time"), name="all"),
    Case("median", lambda x: tuple(x.median(1)), distinct("batch", 6), name="even"),
    Case("median", lambda x: tuple(x.median(1, keepdim=True)), distinct("batch", "time", 2), name="axis kept"),
    Case("median", lambda x: x.median(-1).values, edges("batch", 9), name="edges"),
    Case("median", lambda x: x.median(-1).values, i64("batch", 9), name="integers"),
    Case("median", lambda x: x.median(-1).values, i32("batch", 8), name="int32"),
    Case("median", lambda x: x.nanmedian(-1).values, edges("batch", 9), name="nan edges"),
    Case("median", torch.nanmedian, edges("batch", 3), name="nan all"),
    Case("sum", lambda x: x.sum(0), f32("batch", 4), name="of no rows", sizes=EMPTY),
    Case("mean", lambda x: x.mean(1), f32("batch", 4), name="of empty rows", sizes=EMPTY),
    Case("mean", lambda x: x.mean(), f32("batch", 4), name="of an empty batch", sizes=EMPTY),
    Case("max", lambda x: x.amax(1), i64("batch", 4), name="of empty rows", sizes=EMPTY),
    Case("any", lambda x: (x > 0).any(0), f32("batch", 4), name="of no rows", sizes=EMPTY),
    Case("all", lambda x: (x > 0).all(0), f32("batch", 4), name="of no rows", sizes=EMPTY),
    Case("logsumexp", lambda x: x.logsumexp(0), f32("batch", 4), name="of no rows", sizes=EMPTY),
]
