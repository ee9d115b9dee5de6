"""Parts of a tensor that sizes alone decide, and the same parts replaced."""

import torch
import torch.nn.functional as F

from tests.op_cases import Case, boolean, f32, f64, i64

LONG = ({"time": 6, "length": 7}, {"time": 9, "length": 12}, {"time": 4, "length": 5})

CASES = [
    Case("slice", lambda x: x[:, 1:4], f32("batch", 6), name="fixed"),
    Case("slice", lambda x: x[:, 1:3, ::2, -3:], f32("batch", 6, 7, 8), name="several axes"),
    Case("slice", lambda x: x[:, 1:], f32("batch", "time"), name="from one", sizes=LONG),
    Case("slice", lambda x: x[:, :-1], i64("batch", "time"), name="but the last", sizes=LONG),
    Case("slice", lambda x: x[:, -2:], boolean("batch", "time"), name="the last two", sizes=LONG),
    Case("slice", lambda x: x[:, 1::3], f64("batch", "time"), name="free with step", sizes=LONG),
    Case("slice", lambda x: x[:, 2:100], f32("batch", 7), name="clamped"),
    Case("slice", lambda x: x[:, : x.shape[1] // 2], f32("batch", "time"), name="half", sizes=LONG),
    Case("slice", lambda x: x[:, x.shape[1] // 2:], f32("batch", "time"), name="other half", sizes=LONG),
    Case("slice", lambda x, y: x[:, : y.shape[1]], f32("batch", 16), f32("batch", "time"), name="as long as another", sizes=LONG),
    Case("slice", lambda x: x.narrow(1, 2, 3), f32("batch", 6), name="narrow"),
    Case("slice", lambda x: x[1:-1, 1:-1], f32("time", "length"), name="borders off", sizes=LONG),
    Case("slice", lambda x: x[:, 3:3], f32("batch", 5), name="nothing"),
    Case("select", lambda x: x[:, 0], f32("batch", "time", 3), name="first"),
    Case("select", lambda x: x[:, -1], i64("batch", "time", 3), name="last"),
    Case("select", lambda x: x[:, x.shape[1] // 2], boolean("batch", "time"), name="middle"),
    Case("select", lambda x: x[1, ..., 2], f64(2, "batch", 4), name="two"),
    Case("slice_scatter", lambda x, y: torch.slice_scatter(x, y, 1, 1, 4), f32("batch", 6), f32("batch", 3), name="middle"),
    Case("slice_scatter", lambda x, y: torch.slice_scatter(x, y, 0, 1, None, 2), f32(5, "batch"), f32(2, "batch"), name="step"),
    Case("slice_scatter", lambda x, y: torch.slice_scatter(x, y, 1, 0, 6, 3), i64("batch", 6), i64("batch", 2), name="step later"),
    Case("slice_scatter", lambda x: torch.slice_scatter(x, x[:, 1:] * 2, 1, 1), f32("batch", "time"), name="free", sizes=LONG),
    Case("slice_scatter", lambda x, y: torch.select_scatter(x, y, 1, -1), f32("batch", "time", 2), f32("batch", 2), name="select"),
    Case("slice_scatter", lambda x, y: torch.diagonal_scatter(x, y, 1), f32(3, 4), f32(3), name="diagonal"),
    Case("slice_scatter", lambda x, y: torch.diagonal_scatter(x, y, -1, 0, 2), i64(4, "batch", 3), i64("batch", 3), name="low diagonal"),
    Case("pad", lambda x: F.pad(x, (1, 2)), f32("batch", 3), name="zeros"),
    Case("pad", lambda x: F.pad(x, (1, 0, 2, 1), value=-1.5), f32("batch", "height", "width"), name="value"),
    Case("pad", lambda x: F.pad(x, (2, -1), value=7), i64("batch", 5), name="negative"),
    Case("pad", lambda x: F.pad(x, (1, 1), value=True), boolean("batch", 3), name="boolean"),
    Case("pad", lambda x: F.pad(x, (0, 2 * x.shape[1])), f64("batch", "time"), name="free"),
    Case("pad", lambda x: F.pad(x, (1, 2), value=float("-inf")), f32("batch", "time"), name="infinity"),
    Case("pad", lambda x: F.pad(x, (2, 1), "reflect"), f32("batch", 3, "length"), name="reflect"),
    Case("pad", lambda x: F.pad(x, (2, 1, 0, 3), "reflect"), f64("batch", 3, "height", "width"), name="reflect plane"),
    Case("pad", lambda x: F.pad(x, (2, 1, 0, 3), "replicate"), f32("batch", 3, "height", "width"), name="replicate"),
    Case("pad", lambda x: F.pad(x, (1, 1, 2, 1, 0, 1), "replicate"), f32("batch", 3, 2, "height", "width"), name="replicate space"),
    Case("pad", lambda x: F.pad(x, (2, 1, 3, 0), "circular"), f32("batch", 3, "height", "width"), name="circular"),
    Case("pad", lambda x: F.pad(x, (2, -1), "replicate"), f32("batch", 3, "length"), name="replicate negative"),
    Case("diagonal", torch.diagonal, f32(3, 4)),
    Case("diagonal", lambda x: x.diagonal(-1, 1, 2), f64("batch", 4, 3, 2), name="offset below"),
    Case("diagonal", lambda x: x.diagonal(2, 2, 0), i64(4, "batch", 3), name="offset above"),
    Case("diagonal", lambda x: x.diagonal(0, -2, -1), f32("batch", "height", "width"), name="free"),
    Case("diagonal", lambda x: torch.diag(x, 1), boolean(3, 4), name="diag"),
    Case("diag_embed", torch.diag_embed, f32("batch", 3)),
    Case("diag_embed", lambda x: torch.diag_embed(x, 2, 0, 2), f32("batch", 3), name="offset above"),
    Case("diag_embed", lambda x: torch.diag_embed(x, -1), i64("batch", "time"), name="offset below, free"),
    Case("diag_embed", lambda x: torch.diag(x), f64("time"), name="diag"),
    Case("diag_embed", lambda x: torch.diagflat(x, 1), boolean("batch", 2), name="diagflat"),
]
