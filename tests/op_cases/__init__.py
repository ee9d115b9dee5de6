"""The operator table: one row a case, one file a family; `tests/test_ops.py` drives every runner over it.

A row names the neutral operator it is about, what computes it in torch, and its inputs:

    CASES = [
        Case("linear", torch.nn.functional.linear, f32("batch", "time", 4), f32(3, 4), f32(3)),
        Case("layer_norm", torch.nn.LayerNorm(8, elementwise_affine=False), f32("batch", 8)),
        Case("topk", lambda x: x.topk(2), f32("batch", 9), name="last axis"),
    ]

A text in a shape is a size that stays free: the case is traced at one size and run at others, 1 among them.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Input:
    """A random input. `make(generator, shape)` draws the values."""

    shape: tuple[int | str, ...]
    make: Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]


@dataclass(frozen=True, init=False)
class Case:
    """One row. `xfail` maps a runner to the reason it fails; such a row fails when it starts to pass.

    `sizes` overrides the sizes of free dims at which the case is traced and run, first the traced ones.
    """

    operator: str
    function: Callable[..., Any]
    inputs: tuple[Input, ...]
    name: str = ""
    xfail: Mapping[str, str] = field(default_factory=dict)
    sizes: tuple[Mapping[str, int], ...] = ()

    def __init__(self, operator: str, function: Callable[..., Any], *inputs: Input, name: str = "",
                 xfail: Mapping[str, str] | None = None, sizes: tuple[Mapping[str, int], ...] = ()) -> None:
        for key, value in (("operator", operator), ("function", function), ("inputs", inputs), ("name", name),
                           ("xfail", xfail or {}), ("sizes", sizes)):
            object.__setattr__(self, key, value)


def f32(*shape: int | str) -> Input:
    """Normal float32 values."""
    return Input(shape, lambda rng, size: rng.standard_normal(size).astype(np.float32))


def f64(*shape: int | str) -> Input:
    """Normal float64 values."""
    return Input(shape, lambda rng, size: rng.standard_normal(size))


def positive(*shape: int | str) -> Input:
    """float32 values in [0.1, 3)."""
    return Input(shape, lambda rng, size: rng.uniform(0.1, 3.0, size).astype(np.float32))


def unit(*shape: int | str) -> Input:
    """float32 values in (-1, 1)."""
    return Input(shape, lambda rng, size: rng.uniform(-0.99, 0.99, size).astype(np.float32))


def i64(*shape: int | str, low: int = -9, high: int = 10) -> Input:
    """int64 values in [low, high)."""
    return Input(shape, lambda rng, size: rng.integers(low, high, size))


def i32(*shape: int | str, low: int = -9, high: int = 10) -> Input:
    """int32 values in [low, high)."""
    return Input(shape, lambda rng, size: rng.integers(low, high, size).astype(np.int32))


def boolean(*shape: int | str) -> Input:
    """Booleans, half of them true."""
    return Input(shape, lambda rng, size: rng.random(size) < 0.5)


def all_cases() -> list[Case]:
    """Every row of every family."""
    import tests.op_cases as package

    found: list[Case] = []
    for module in pkgutil.iter_modules(package.__path__):
        found += importlib.import_module(f"tests.op_cases.{module.name}").CASES
    return found
