"""Formulas where rows of random numbers do not come: infinities, NaN, ties, the ends of integers, tensors without elements."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest

from converter.attributes import filled_attributes, normalize_attributes
from converter.errors import GraphError
from converter.ir import TensorSpec
from converter.opset import ARRAYS, lookup, operators

NUMBERS = np.array([0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 1.5, 2.5, -2.5, np.nan, np.inf, -np.inf, 1e-310, -1e-310, 1e308, -1e308, 3.0, 5e-324])
INTEGERS = np.array([0, 1, -1, 2, -2, 7, -7, 100, -128, 127], np.int8)
RNG = np.random.default_rng(1)
IMAGE = RNG.standard_normal((2, 3, 8, 9))
HOLES = np.where(RNG.random(IMAGE.shape) < 0.3, np.nan, IMAGE)
SUNK = np.where(RNG.random(IMAGE.shape) < 0.8, -np.inf, IMAGE)
LEAST = np.where(IMAGE < 0, np.iinfo(np.int32).min, np.round(IMAGE * 3)).astype(np.int32)
TABLE = np.where(np.arange(10).reshape(5, 2) == 6, np.nan, RNG.standard_normal((5, 2)))
FEW = RNG.integers(-2, 3, (6, 4)).astype(np.float64)
AT = np.array([[0, 1, -1], [1, 0, -2]])
WINDOWS: list[dict[str, Any]] = [{"kernel": (3, 2)}, {"kernel": (3, 3), "stride": (2, 1), "padding": (1, 1)},
                                 {"kernel": (3, 3), "stride": (2, 2), "padding": (1, 0), "ceil_mode": True},
                                 {"kernel": (2, 4), "padding": (0, 1, 1, 2)}]

ROWS: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
    *(("max_pool", (x,), window) for window in WINDOWS for x in (np.round(IMAGE), HOLES, SUNK, LEAST, IMAGE[:0])),
    *(("avg_pool", (x,), {**window, "count_include_pad": count}) for window in WINDOWS for x in (HOLES, IMAGE[:0])
      for count in (True, False)),
    *(("adaptive_avg_pool", (x,), {"size": size}) for x in (HOLES, SUNK, IMAGE[:0]) for size in ((3, 4), (5, 11), (8, 3))),
    *((kind, (x,), {"axis": axis}) for kind in ("softmax", "log_softmax") for axis in (0, -1)
      for x in (np.array([[1, np.nan], [np.inf, 2], [-np.inf, -np.inf]]), np.zeros((0, 3)), np.zeros((3, 0)))),
    *((kind, (IMAGE[0] > 0, ), {"axis": axis}) for kind in ("any", "all") for axis in (None, (0,), ())),
    *((kind, (np.zeros(shape, bool),), {"axis": axis}) for kind in ("any", "all") for shape, axis in (((0,), None), ((3, 0), (1,)))),
    *(("argmin", (x,), {"axis": 0})
      for x in (INTEGERS, INTEGERS.astype(np.uint8), np.array([True, False]), np.array([1, np.nan, -np.inf]))),
    *(("pad", (IMAGE[0, 0],), {"pads": pads, "mode": mode}) for mode in ("reflect", "edge", "wrap")
      for pads in (((2, 1), (0, 0)), ((-1, 2), (1, -1)), ((-1, -1), (0, -2)))),
    *(("roll", (np.zeros((3, size)),), {"shift": (-5, 7), "axis": (0, 1)}) for size in (4, 0)),
    *((kind, (x,), {"offset": offset, "axis1": 1, "axis2": 0}) for kind, x in (("diagonal", IMAGE[0]), ("diag_embed", IMAGE[0, 0]))
      for offset in (-9, -1, 0, 2)),
    *((kind, (), {"rows": rows, "columns": 6, "k": k}) for kind in ("tril_indices", "triu_indices") for rows in (0, 4)
      for k in (-6, -1, 0, 3)),
    *(("gcd", (x.astype(dtype), x[::-1].astype(dtype)), {}) for x in (INTEGERS, INTEGERS[:0]) for dtype in (np.int16, np.uint8)),
    *(("embedding_bag", (np.array([1, 1, 0, 4, 3, 2]), TABLE, offsets), {"mode": mode, "include_last_offset": last, "padding_idx": padding})
      for mode in ("sum", "mean", "max") for padding in (None, 1, -2)
      for offsets, last in ((np.array([0, 2, 2]), False), (np.array([0, 0, 4]), True))),
    *(("embedding_bag", (np.array([1, 1, 0]), TABLE, np.array(offsets)), {"include_last_offset": True})
      for offsets in ([0, 2, 1], [1, 2, 3], [0, 2, 4])),
    *(("repeat_indices", (np.array(repeats),), {"length": 3}) for repeats in ([1, 0, 2], [1, 1], [4, -1])),
    *(("grouped_matmul", (IMAGE[0, 0], np.ones((3, 9, 2)), np.array(ends)), {}) for ends in ([2, 2, 7], [0, 8, 8])),
    ("embedding", (np.array([0, -1]), TABLE), {}),
    ("embedding", (np.array([0, 5]), TABLE), {}),
    ("split", (np.zeros(6),), {"sizes": (2, 3), "axis": 0}),
    *(("scaled_dot_product_attention", (np.zeros((2, 4, size)), np.zeros((2, length, size)), np.ones((2, length, 3)), mask),
        {"is_causal": True})
      for size, length, mask in ((0, 5, None), (6, 0, None), (6, 5, np.zeros((4, 5), bool)), (6, 5, np.full((4, 5), -np.inf)))),
    *(("convolution_transpose", (IMAGE[:, :2, :5, :6], np.ones((2, 3, 3, 2)), None),
        {"stride": (2, 3), "padding": padding, "dilation": (1, 3)})
      for padding in ((0, 0), (4, 4))),
    *(("topk", (x,), {"k": k, "axis": 0, "largest": largest})
      for x in (NUMBERS, INTEGERS) for k in (0, 4, 19) for largest in (True, False)),
    *(("unique", (x,), {}) for x in (NUMBERS, FEW, FEW > 0, FEW[0] + 1j * FEW[1], np.zeros((0, 3)))),
    *(("unique", (x,), {"axis": 0}) for x in (FEW, np.repeat(FEW[[2, 0, 2]], 2, 0), FEW[:, :2] + 1j * FEW[:, 2:], FEW[:0])),
    *(("unique_consecutive", (x,), {}) for x in (NUMBERS, np.repeat(FEW, 2, 0), FEW[:, 0] + 0j, FEW[:0])),
    *(("bincount", (np.array(x, np.int64), weights), {"minlength": least})
      for x, weights in (([], None), ([2, 0, 2], None), ([2, 0, 2], np.array([0.5, 1.5, 2.0], np.float32)), ([1, -1], None))
      for least in (0, 5)),
    *(("masked_select", (FEW, mask), {}) for mask in (FEW > 0, FEW[:, 0] > 0, FEW > 9)),
    *(("index", (IMAGE, *indices), {}) for indices in (
        (AT,), (AT, -AT), (None, AT, None, AT), (None, None, AT, AT[:1]), (AT, None, AT), (AT, AT * 0 + 3), (AT - 3, AT))),
]


@pytest.mark.parametrize("row", [pytest.param(row, id=f"{index}-{row[0]}") for index, row in enumerate(ROWS)])
def test_edges(row: tuple[str, tuple[Any, ...], dict[str, Any]]) -> None:
    name, operands, given = row
    operator = lookup(name)
    attributes = filled_attributes(operator, normalize_attributes(operator, given))
    operands = (*operands, *[None] * (sum(not spec.variadic for spec in operator.operands) - len(operands)))
    with np.errstate(all="ignore"):
        try:
            wanted = operator.kernel(*operands, **attributes)
        except (IndexError, ValueError):
            with pytest.raises((IndexError, ValueError)):
                operator.formula(ARRAYS, *operands, **attributes)  # type: ignore[misc]
            return
        found = operator.formula(ARRAYS, *operands, **attributes)  # type: ignore[misc]
    compare(found, wanted)


def compare(found: Any, wanted: Any) -> None:
    for left, right in zip(*(item if isinstance(item, tuple) else (item,) for item in (found, wanted)), strict=True):
        assert left.dtype == right.dtype
        np.testing.assert_allclose(left, right, rtol=1e-12, atol=1e-13)


EACH = [name for name, operator in operators().items() if operator.formula and operator.facts.elementwise and not operator.facts.truth
        and not any(spec.required
      for spec in operator.attributes.values()) and not operator.core and not isinstance(operator.kernel, partial)]
"""Elementwise operators whose kernel is not their formula."""


@pytest.mark.parametrize("name", EACH)
def test_elements(name: str) -> None:
    operator, tried = lookup(name), 0
    attributes = filled_attributes(operator, {})
    with np.errstate(all="ignore"):
        for numbers in (NUMBERS, INTEGERS, INTEGERS.astype(np.uint8), NUMBERS.astype(np.float16), NUMBERS[:9] * (1 + 2j)):
            operands = [item.ravel() for item in np.meshgrid(*[numbers] * len(operator.operands))]
            try:
                operator.infer(*(TensorSpec.of(item.dtype, item.shape) for item in operands), **attributes)
            except GraphError:  # a dtype that it does not take
                continue
            tried += 1
            if operator.facts.divisor is not None and operands[0].dtype.kind in "iu":
                operands[operator.facts.divisor][operands[operator.facts.divisor] == 0] = 3
            compare(operator.formula(ARRAYS, *operands, **attributes), operator.kernel(*operands, **attributes))  # type: ignore[misc]
    assert tried


@pytest.mark.parametrize("lengths", [[3, 0], [1, 6], [-1, 5]])
def test_rows_of_other_lengths_than_there_are_steps_are_refused(lengths: list[int]) -> None:
    layer = [np.ones((4, 3)), np.ones((4, 4)), np.ones(4), np.ones(4)]
    assert lookup("rnn").kernel(np.ones((5, 2, 3)), *layer, np.array([3, 5]), lengths=True)[0].shape == (5, 2, 4)
    with pytest.raises(IndexError):
        lookup("rnn").kernel(np.ones((5, 2, 3)), *layer, np.array(lengths), lengths=True)


@pytest.mark.parametrize("x", [np.round(IMAGE), HOLES, SUNK, LEAST, IMAGE[:0]])
def test_windows_that_divide_an_axis_are_those_of_max_pool(x: np.ndarray) -> None:
    compare(lookup("adaptive_max_pool").kernel(x, size=(4, 3)), lookup("max_pool").kernel(x, kernel=(2, 3)))
