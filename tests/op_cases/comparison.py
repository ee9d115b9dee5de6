"""Comparison, logic, and tests for NaN and infinities."""

from __future__ import annotations

import torch

from tests.op_cases import Case, boolean, f32, f64, i32, i64
from tests.op_cases.elementwise import edges

COMPARISONS = {"equal": torch.eq, "not_equal": torch.ne, "less": torch.lt, "less_equal": torch.le, "greater": torch.gt,
               "greater_equal": torch.ge}
LOGIC = {"logical_and": torch.logical_and, "logical_or": torch.logical_or, "logical_xor": torch.logical_xor}

CASES = [
    *(Case(op, function, i64("batch", 9, low=-2, high=3), i64(9, low=-2, high=3), name="integers") for op, function in COMPARISONS.items()),
    *(Case(op, function, edges("batch", 9), edges(9), name="edges") for op, function in COMPARISONS.items()),
    *(Case(op, function, boolean("batch", 9), boolean(9), name="booleans") for op, function in COMPARISONS.items()),
    Case("less", lambda x: x < 0.5, f32("batch", 9), name="literal"),
    Case("less", lambda x: x < 0.5, i64("batch", 9), name="integers and float literal"),
    Case("greater", lambda x: x > 1, f64("batch", 9), name="float64 and integer literal"),
    Case("equal", lambda x, y: x == y, i64("batch", 9, low=-2, high=3), f32(9), name="promotion"),
    Case("less", lambda x: x < x.shape[0], i64("batch", 9), name="size"),
    Case("less_equal", lambda x: x <= 2, i32("batch", 9), name="int32"),
    *(Case(op, function, boolean("batch", 9), boolean(9)) for op, function in LOGIC.items()),
    *(Case(op, function, i64("batch", 9, low=0, high=2), f32(9), name="numbers") for op, function in LOGIC.items()),
    Case("logical_not", torch.logical_not, boolean("batch", 9)),
    Case("logical_not", torch.logical_not, i64("batch", 9, low=-1, high=2), name="integers"),
    Case("logical_and", lambda x, y: x & y, boolean("batch", 9), boolean(9), name="operator"),
    Case("logical_not", lambda x: ~x, boolean("batch", 9), name="operator"),
    Case("isnan", torch.isnan, edges("batch", 9)),
    Case("isinf", torch.isinf, edges("batch", 9)),
    Case("isfinite", torch.isfinite, edges("batch", 9)),
    Case("isfinite", lambda x: torch.isfinite(x) & torch.isnan(x.double()).logical_not(), edges("batch", 9), name="float64"),
    Case("equal", torch.isposinf, edges("batch", 9), name="isposinf"),
    Case("full", torch.isnan, i64("batch", 9), name="isnan integers"),
    Case("isfinite", torch.isclose, edges("batch", 20), edges(20), name="isclose"),
    Case("less_equal", torch.isclose, i64("batch", 20, low=0, high=2), i64(20, low=0, high=2), name="isclose integers"),
]
