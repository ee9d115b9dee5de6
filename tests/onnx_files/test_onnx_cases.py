"""ONNX's own node tests: a part of them here, all of them where long tests run."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import pytest

from campaigns import onnx_cases


@cache
def cases() -> list[Any]:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return list(onnx_cases.cases())


@pytest.mark.parametrize("part", [pytest.param(part, marks=[] if part in (0, 7) else pytest.mark.long) for part in range(14)])
def test_no_case_is_wrong(part: int) -> None:
    """Every fourteenth case; what is refused is in the record."""
    held = json.loads(onnx_cases.RECORD.read_text())
    found = {case.name: onnx_cases.check(case) for case in cases()[part::14]}
    assert {name: row for name, row in found.items() if row[0] == "wrong"} == {}
    assert {name for name, row in found.items() if row[0] == "refused"} <= held["refused"].keys()
