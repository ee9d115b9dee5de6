"""Tensors put together along an axis, and taken apart."""

import torch

from tests.op_cases import Case, boolean, f32, f64, i32, i64

CASES = [
    Case("concat", lambda x, y: torch.cat([x, y], 1), f32("batch", 3), f32("batch", "time")),
    Case("concat", lambda x, y: torch.cat([x, y, x], -1), i64("batch", 3), f32("batch", 2), name="promotion"),
    Case("concat", lambda x, y: torch.cat([x, y], 0), boolean("batch", 3), boolean("time", 3), name="boolean"),
    Case("concat", lambda x, y: torch.hstack([x, y]), f64("batch", 3), f64("batch", 2), name="hstack"),
    Case("stack", lambda x, y: torch.stack([x, y], 1), f32("batch", 3), f32("batch", 3)),
    Case("stack", lambda x, y: torch.stack([x, y], -1), i32("batch", "time"), i32("batch", "time"), name="last"),
    Case("split", lambda x: x.split(2, 1), f32("batch", 5), name="equal parts"),
    Case("split", lambda x: x.split([1, 4], -1)[1], i64("batch", 5), name="sizes"),
    Case("split", lambda x: x.chunk(3, 1), f32("batch", 7, 2), name="chunk"),
    Case("split", lambda x: x.chunk(2, 0), f32("batch", 3), name="chunk of a free axis", sizes=({"batch": 4}, {"batch": 6}, {"batch": 10})),
    Case("split", lambda x: x.tensor_split(3, 1), f64("batch", 7), name="tensor_split"),
    Case("split", lambda x: x.tensor_split((1, 4), 1), boolean("batch", 7), name="tensor_split indices"),
    Case("split", lambda x: x.split([2, x.shape[1] - 2], 1), f32("batch", "time"), name="free rest",
         sizes=({"time": 5}, {"time": 3}, {"time": 8})),
    Case("unstack", lambda x: x.unbind(1), f32("batch", 3, 2)),
    Case("unstack", lambda x: [part + 1 for part in x.unbind(-1)], i64("batch", 2), name="last"),
]
