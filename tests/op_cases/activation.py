"""Activation functions and softmax."""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from tests.op_cases import Case, Input, f32, f64, i64

EDGES = np.array([0.0, -0.0, 1e-8, -1e-8, 0.5, -0.5, 3.0, -3.0, 6.0, 19.9, 20.1, -20.0, 40.0, -40.0, 88.0, -88.0, 100.0, -100.0, 1e4, -1e4,
                  np.nan, np.inf, -np.inf])


def wild(*shape: int | str) -> Input:
    """Values of every size, the places where the functions change among them."""

    def make(rng: np.random.Generator, size: tuple[int, ...]) -> np.ndarray:
        values = rng.standard_normal(size) * 4
        chosen = rng.random(size) < 0.5
        return np.where(chosen, rng.choice(EDGES, size), values).astype(np.float32)

    return Input(shape, make)


def masked(*shape: int | str) -> Input:
    """Normal values and -infinity; the first row is hidden whole."""

    def make(rng: np.random.Generator, size: tuple[int, ...]) -> np.ndarray:
        values = np.where(rng.random(size) < 0.3, -np.inf, rng.standard_normal(size)).astype(np.float32)
        values[0] = -np.inf
        return values

    return Input(shape, make)


FUNCTIONS: list[tuple[str, Any, str]] = [
    ("relu", F.relu, ""), ("gelu", F.gelu, ""), ("gelu", nn.GELU("tanh"), "tanh"), ("silu", F.silu, ""), ("elu", F.elu, ""),
    ("elu", nn.ELU(0.7), "alpha"), ("elu", lambda x: torch.ops.aten.elu(x, 1.5, 1.2, 0.5), "scales"),
    ("selu", F.selu, ""), ("celu", F.celu, ""),
    ("celu", nn.CELU(0.6), "alpha"), ("leaky_relu", F.leaky_relu, ""), ("leaky_relu", nn.LeakyReLU(0.2), "slope"),
    ("softplus", F.softplus, ""), ("softplus", nn.Softplus(2.0, 5.0), "beta"), ("softplus", nn.Softplus(0.5), "small beta"),
    ("log_sigmoid", F.logsigmoid, ""), ("softshrink", nn.Softshrink(0.3), ""), ("hardshrink", F.hardshrink, ""),
    ("threshold", nn.Threshold(0.1, 20.0), ""), ("hardtanh", F.hardtanh, ""), ("hardtanh", nn.ReLU6(), "relu6"),
    ("hardtanh", nn.Hardtanh(-2.0, 0.5), "bounds"),
    ("hardsigmoid", F.hardsigmoid, ""), ("hardswish", F.hardswish, ""), ("mish", F.mish, ""), ("leaky_relu", nn.RReLU().eval(), "rrelu"),
]

CASES = [
    *(Case(operator, function, wild("batch", 17), name=name or "plain") for operator, function, name in FUNCTIONS),
    *(Case(operator, function, f64("batch", 17), name=f"{name} float64".strip()) for operator, function, name in FUNCTIONS),
    Case("relu", F.relu, i64("batch", 5), name="int64"),
    Case("hardtanh", F.relu6, i64("batch", 5), name="int64"),
    Case("threshold", lambda x: F.threshold(x, 2, -7), i64("batch", 5), name="int64"),
    Case("prelu", nn.PReLU(), f32("batch", 5), name="one slope"),
    Case("prelu", nn.PReLU(4), f32("batch", 4, "height", "width"), name="channels"),
    Case("prelu", nn.PReLU(4), f32("batch", 4), name="vectors"),
    Case("prelu", nn.PReLU(4).double(), f64("batch", 4, "length"), name="float64"),
    Case("glu", F.glu, f32("batch", 6), name="last axis"),
    Case("glu", nn.GLU(1), f32("batch", 6, "length"), name="axis 1"),
    Case("glu", F.glu, f64("batch", 6), name="float64"),
    Case("softmax", nn.Softmax(-1), wild("batch", 9), name="last axis"),
    Case("softmax", nn.Softmax2d(), f32("batch", 4, "height", "width"), name="channels"),
    Case("softmax", nn.Softmin(1), f32("batch", 4, "length"), name="softmin"),
    Case("softmax", lambda x: F.softmax(x, 0, dtype=torch.float64), f32("batch", 4), name="dtype"),
    Case("softmax", lambda x: F.softmax(x, -1, dtype=torch.float32), i64("batch", 4), name="int64"),
    Case("softmax", nn.Softmax(0), f64("batch", 4), name="float64"),
    Case("softmax", lambda x: F.softmax(x.sum(), 0), f32("batch", 4), name="number"),
    Case("log_softmax", nn.LogSoftmax(-1), wild("batch", 9), name="last axis"),
    Case("log_softmax", lambda x: F.log_softmax(x, 1, dtype=torch.float64), f32("batch", 4, "length"), name="dtype"),
    *(Case(operator, lambda x, function=function: function(x.bfloat16()).float(), f32("batch", 17), name=f"{name} bfloat16".strip())
      for operator, function, name in [*FUNCTIONS, ("softmax", nn.Softmax(-1), ""), ("log_softmax", nn.LogSoftmax(-1), "")]),
    Case("safe_softmax", lambda x: torch._safe_softmax(x, -1), masked("batch", 6), name="hidden rows"),
    Case("safe_softmax", lambda x: torch._safe_softmax(x, 1), f64("batch", 6, "length"), name="float64"),
]
