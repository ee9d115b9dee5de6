"""The normal form of quotients and remainders of sizes by integers: equal values, small expressions, and what is traced in it."""

from __future__ import annotations

import operator
import random
from itertools import product
from typing import Any

import numpy as np
import pytest
import sympy
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._sympy.functions import FloorDiv, Mod, PythonMod

import converter
from adapters.torch.dtypes import to_dim
from adapters.torch.sizes.quotients import floor_divide, remainder, small_quotients
from converter import dims
from converter.dims import Dim
from converter.intervals import interval
from converter.ir import DimRange

H, W = dims.symbol("h"), dims.symbol("w")


def drawn(draw: random.Random, depth: int) -> Any:
    """A tree of `+ - * // %` over two sizes and integers."""
    if depth == 0:
        return draw.choice([H, W, H, draw.randint(-9, 9)])
    sign = draw.choice("+-*/%")
    right = draw.randint(1, 9) if sign in "/%" else draw.randint(-4, 8) if sign == "*" else drawn(draw, depth - 1)
    return sign, drawn(draw, depth - 1), right


def as_dim(tree: Any) -> Dim:
    if not isinstance(tree, tuple):
        return tree
    left, right = as_dim(tree[1]), as_dim(tree[2])
    functions = {"+": lambda: left + right, "-": lambda: left - right, "*": lambda: left * right,
                 "/": lambda: floor_divide(left, right), "%": lambda: remainder(left, right)}
    return functions[tree[0]]()


def as_sympy(tree: Any) -> Any:
    if isinstance(tree, int):
        return sympy.Integer(tree)
    if not isinstance(tree, tuple):
        return sympy.Symbol(str(tree), integer=True, positive=True)
    left, right = as_sympy(tree[1]), as_sympy(tree[2])
    functions = {"+": lambda: left + right, "-": lambda: left - right, "*": lambda: left * right,
                 "/": lambda: FloorDiv(left, right), "%": lambda: PythonMod(left, right)}
    return functions[tree[0]]()


def counted(tree: Any, sizes: dict[str, int]) -> int:
    if not isinstance(tree, tuple):
        return tree if isinstance(tree, int) else sizes[str(tree)]
    left, right = counted(tree[1], sizes), counted(tree[2], sizes)
    return {"+": left + right, "-": left - right, "*": left * right, "/": left // (right or 1), "%": left % (right or 1)}[tree[0]]


def test_values_are_kept() -> None:
    draw = random.Random(0)
    for _ in range(1500):
        tree = drawn(draw, draw.randint(1, 4))
        size = as_dim(tree)
        for _ in range(4):
            sizes = {"h": draw.randint(0, 60), "w": draw.randint(0, 60)}
            assert dims.evaluate(size, sizes) == counted(tree, sizes), (tree, str(size), sizes)


def test_values_of_torchs_expressions_are_kept() -> None:
    draw = random.Random(1)
    with small_quotients():
        for _ in range(300):
            tree = drawn(draw, draw.randint(1, 4))
            size = to_dim(as_sympy(tree))
            for _ in range(4):
                sizes = {"h": draw.randint(1, 60), "w": draw.randint(1, 60)}
                assert dims.evaluate(size, sizes) == counted(tree, sizes), (tree, str(size), sizes)


@pytest.mark.parametrize(("size", "text"), [
    (H + remainder(7 - remainder(H, 7), 7), "7*((h + 6) // 7)"),
    (H + remainder(0 - H, 7), "7*((h + 6) // 7)"),
    (floor_divide(H + remainder(7 - remainder(H, 7), 7), 7), "(h + 6) // 7"),
    (floor_divide(H + remainder(4 - remainder(H, 4), 4) - 4, 4) + 1, "(h + 3) // 4"),
    (floor_divide(2 * H + 2, 4), "(h + 1) // 2"), (floor_divide(6 * H + 5, 3), "2*h + 1"), (0 - floor_divide(0 - H, 2), "(h + 1) // 2"),
])
def test_one_form_for_one_size(size: Dim, text: str) -> None:
    assert str(size) == text


def test_torchs_expressions_stay_small() -> None:
    h = sympy.Symbol("h", integer=True, positive=True)
    with small_quotients():
        padded = h + PythonMod(7 - Mod(h, 7), 7)
        assert str(FloorDiv(padded, 7)) == "((h + 6)//7)"
        assert str(to_dim(FloorDiv(FloorDiv(padded, 7) + 1, 2))) == "(h + 13) // 14"


class Windows(nn.Module):
    """Attention-like sums over windows of 7, padded where they must be, as DaViT, Swin and GCViT have them."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(4, 4, 2, 2)

    def windows(self, x: Tensor) -> Tensor:
        batch, height, width, channels = x.shape
        x = F.pad(x, (0, 0, 0, (7 - width % 7) % 7, 0, (7 - height % 7) % 7))
        _, padded_height, padded_width, _ = x.shape
        parts = x.view(batch, padded_height // 7, 7, padded_width // 7, 7, channels).permute(0, 1, 3, 2, 4, 5).reshape(-1, 49, channels)
        parts = parts + parts.mean(1, keepdim=True)
        x = parts.view(-1, padded_height // 7, padded_width // 7, 7, 7, channels).permute(0, 1, 3, 2, 4, 5)
        return x.reshape(-1, padded_height, padded_width, channels)[:, :height, :width].contiguous()

    def forward(self, x: Tensor) -> Tensor:
        x = self.windows(self.first(x).permute(0, 2, 3, 1))
        x = F.pad(x, (0, 0, 0, x.shape[2] % 2, 0, x.shape[1] % 2))
        return self.windows(self.second(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))


@pytest.mark.long
def test_windows_of_an_image_of_any_size() -> None:
    torch.manual_seed(0)
    net = Windows().eval()
    model = converter.from_torch(net, (torch.randn(2, 3, 41, 53),), dims={"x": ["batch", 3, "height", "width"]})
    for runtime in ("reference", "numpy", "onnxruntime", "torch"):
        session = converter.session(model, runtime)
        for shape in ((1, 3, 28, 28), (2, 3, 30, 61), (3, 3, 56, 27), (1, 3, 13, 15)):
            x = torch.randn(shape)
            with torch.no_grad():
                wanted = net(x).numpy()
            found = next(iter(session.run({"x": x.numpy()}).values()))
            assert found.shape == wanted.shape
            np.testing.assert_allclose(found, wanted, 1e-4, 1e-5)


def test_bounds_hold_and_see_through_quotients() -> None:
    draw = random.Random(3)
    for _ in range(400):
        size = as_dim(drawn(draw, draw.randint(1, 4)))
        ranges = {"h": DimRange(draw.randint(1, 4), draw.choice([None, 20])), "w": DimRange(1, draw.choice([None, 9]))}
        low, high = interval(size, ranges)
        values = [dims.evaluate(size, {"h": h, "w": w}) for h in range(ranges["h"].min, (ranges["h"].max or 30) + 1)
                  for w in range(1, (ranges["w"].max or 12) + 1)]
        assert low <= min(values)
        assert max(values) <= high
    assert interval(remainder(0 - H, 7), {"h": DimRange(1)}) == (0, 6)
    for low, high, least, most in product(range(-4, 5), range(-4, 5), range(-3, 4), range(-3, 4)):
        if low > high or least > most or least == most == 0:
            continue
        ranges = {"h": DimRange(low + 9, high + 9), "w": DimRange(least + 9, most + 9)}
        for function, of in ((floor_divide, operator.floordiv), (remainder, operator.mod)):
            values = [of(h, w) for h in range(low, high + 1) for w in range(least, most + 1) if w]
            bounds = interval(function(H - 9, W - 9), ranges)
            assert bounds[0] <= min(values)
            assert max(values) <= bounds[1]
            assert function is remainder or bounds == (min(values), max(values))
    assert interval(H - floor_divide(H, 2), {"h": DimRange(1)})[0] == 1
