"""Integers divided at their ends: every pair of extremes, in every runtime, as torch gives them; none ends the process."""

from __future__ import annotations

import itertools
import subprocess
import sys

import numpy as np
import pytest
import torch

import converter
from converter.builder import GraphBuilder
from converter.ir import Model
from converter.parameters import InMemoryParameters

IN_TORCH = {"floor_divide": lambda x, y: torch.div(x, y, rounding_mode="floor"), "remainder": torch.remainder, "fmod": torch.fmod}
RUNTIMES = ("reference", "numpy", "onnxruntime", "torch")


def division(op: str, dtype: str, *, divisor: int | None = None, constant: bool = False) -> Model:
    """x `op` y, or x `op` a number; `constant`: of parameters alone, which a runtime computes while it loads."""
    b = GraphBuilder(op)
    if constant:
        low = np.array([np.iinfo(dtype).min], dtype)
        names = [b.parameter(name, dtype, (1,)) for name in ("p", "q")]
        b.output("y", b.op("add", b.input("x", dtype, ["n"]), b.op(op, *names)))
        return Model(b.graph(), InMemoryParameters({"p": low, "q": np.array([-1], dtype)}))
    x = b.input("x", dtype, ["n"])
    b.output("y", b.op(op, x, b.input("other", dtype, ["n"]) if divisor is None else divisor))
    return Model(b.graph(), InMemoryParameters())


@pytest.mark.parametrize("dtype", ["int64", "int32", "int16", "int8"])
@pytest.mark.parametrize("op", [*IN_TORCH, "gcd"])
def test_extremes(op: str, dtype: str) -> None:
    low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
    pairs = np.array(list(itertools.product([low, low + 1, -7, -1, 0, 1, 7, high], [low, low + 1, -7, -1, 1, 2, 7, high])), dtype)
    x, y = np.ascontiguousarray(pairs.T)
    if op == "gcd":
        wanted = np.gcd(x, y)
    else:
        # torch on x86 divides the smallest integer by -1 with the same instruction, so that it is asked for the negated one.
        flipped = y == -1
        wanted = IN_TORCH[op](torch.from_numpy(np.where(flipped, -x, x)), torch.from_numpy(np.where(flipped, 1, y).astype(dtype))).numpy()
    for runtime in RUNTIMES[:3] if op == "gcd" else RUNTIMES:
        found = converter.session(division(op, dtype), runtime).run({"x": x, "other": y})["y"]
        assert found.dtype == dtype
        assert dict(zip(zip(x, y, strict=True), found, strict=True)) == dict(zip(zip(x, y, strict=True), wanted, strict=True)), runtime


@pytest.mark.parametrize("divisor", [-1, -7, 1, 7])
@pytest.mark.parametrize("op", IN_TORCH)
def test_a_number_divides(op: str, divisor: int) -> None:
    x = np.array([-(2**63), -(2**63) + 1, -8, -7, -1, 0, 1, 6, 7, 2**63 - 1])
    wanted = np.array([_python(op, int(item), divisor) for item in x], object)
    wanted = np.array([(int(item) + 2**63) % 2**64 - 2**63 for item in wanted])
    for runtime in RUNTIMES:
        found = converter.session(division(op, "int64", divisor=divisor), runtime).run({"x": x})["y"]
        np.testing.assert_array_equal(found, wanted, runtime)


def _python(op: str, x: int, y: int) -> int:
    if op == "fmod":
        return x - y * (abs(x) // abs(y) * (1 if (x < 0) == (y < 0) else -1))
    return x // y if op == "floor_divide" else x % y


@pytest.mark.parametrize("op", IN_TORCH)
def test_constant_folding_does_not_end_the_process(op: str) -> None:
    low = -(2**63)
    found = converter.session(division(op, "int64", constant=True), "onnxruntime").run({"x": np.array([0, 5])})["y"]
    assert found.tolist() == ([low, low + 5] if op == "floor_divide" else [0, 5])


def test_a_reader_that_goes_away_changes_no_verdict(tmp_path: object) -> None:
    converter.save(division("remainder", "int32"), f"{tmp_path}/m.json")
    for command in ("verify m.json", "diff m.json m.json", "verify -v --json m.json"):
        script = f"'{sys.executable}' -m converter {command} | head -0; exit ${{PIPESTATUS[0]}}"
        done = subprocess.run(["bash", "-c", script], cwd=str(tmp_path), capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, ""), command
