"""Layers that torch.ao has quantised: the same integers as torch's own kernels give, by the arithmetic that the graph states."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
import torch.ao.quantization as quantization
import torch.nn.functional as F
from torch import Tensor, nn
from torch.ao.nn.quantized import FloatFunctional
from torch.ao.quantization.quantize_fx import convert_fx, convert_to_reference_fx, prepare_fx

import converter
from adapters.torch.quantized.dynamic import Product
from adapters.torch.quantized.layers import engine_of, steps_of, sums_of
from adapters.torch.quantized.operators import OPERATORS
from adapters.torch.quantized.packed import unpacked
from adapters.torch.quantized.unsteady import concerns, noted
from adapters.torch.quantized.values import Quantized, cut, dequantize, quantize_per_tensor
from converter.errors import UnsupportedError
from tests.support_modules import assert_same

pytestmark = pytest.mark.filterwarnings("ignore")
ENGINES = ("fbgemm", "qnnpack", "x86")


@pytest.fixture(autouse=True)
def _engine() -> Iterator[None]:
    torch.manual_seed(0)
    before = torch.backends.quantized.engine
    yield
    torch.backends.quantized.engine = before


# Kernels -----------------------------------------------------------------------------------------------------------------

GRID = torch.arange(256, dtype=torch.uint8).repeat(256, 1)
"""Every pair of integers, with its transpose."""


def both(integers: Tensor, scale: float, zero_point: int) -> tuple[Tensor, Quantized]:
    return (torch._make_per_tensor_quantized_tensor(integers.contiguous(), scale, zero_point),
            Quantized(integers, scale, zero_point, torch.quint8))


def drawn() -> tuple[float, int]:
    return float(torch.rand(()).double() / 10 + 0.05), int(torch.randint(20, 230, ()))


def assert_equal(found: Quantized, wanted: Tensor) -> None:
    assert torch.equal(found.integers, wanted.int_repr())
    assert (found.scale, found.zero_point) == (wanted.q_scale(), wanted.q_zero_point())


@pytest.mark.parametrize("engine", ENGINES)
def test_pairs_of_integers(engine: str) -> None:
    """Scales in small whole proportions put many results half-way between two steps."""
    torch.backends.quantized.engine = engine
    for divisors in ((2, 6), (4, 10), (14, 2), (1.7, 3.1)):
        (scale, zero_point), shifts = drawn(), (drawn()[1], drawn()[1])
        (a, x), (b, y) = (both(item, scale / divisor, shift) for item, divisor, shift in zip((GRID, GRID.T), divisors, shifts, strict=True))
        for name in ("add", "mul", "add_relu", "mul_relu"):
            assert_equal(OPERATORS[name](x, y, scale, zero_point), getattr(torch.ops.quantized, name)(a, b, scale, zero_point))
        assert_equal(OPERATORS["cat"]([x, y], 1, scale, zero_point), torch.ops.quantized.cat([a, b], 1, scale, zero_point))
        assert torch.equal(dequantize(x), a.dequantize())
        floats = torch.randint(-600, 600, (1000,)) * (scale / 2)
        assert_equal(quantize_per_tensor(floats, scale, zero_point, torch.quint8),
                     torch.quantize_per_tensor(floats, scale, zero_point, torch.quint8))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("pool", [
    lambda x: F.avg_pool2d(x, 2), lambda x: F.avg_pool2d(x, 3, 2, 1), lambda x: F.avg_pool2d(x, 3, 2, 1, count_include_pad=False),
    lambda x: F.avg_pool3d(x[None], 3, 2, ceil_mode=True)[0], lambda x: F.adaptive_avg_pool2d(x, 1),
    lambda x: F.adaptive_avg_pool2d(x, (2, 4)),
    lambda x: F.max_pool2d(x, 3, 2, 1), lambda x: x.mean((2, 3)), lambda x: x.mean(-1), lambda x: F.interpolate(x, scale_factor=2),
    torch.sigmoid, torch.tanh, F.hardsigmoid, lambda x: F.leaky_relu(x, 0.3), lambda x: F.relu6(x.flatten(2)), lambda x: x[:, 1:].relu(),
])
def test_one_tensor(engine: str, pool: Callable[[Any], Any]) -> None:
    torch.backends.quantized.engine = engine
    for _ in range(8):
        plain, own = both(torch.randint(0, 256, (2, 4, 8, 8), dtype=torch.uint8), *drawn())
        assert_equal(pool(own), pool(plain))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("clamp", [F.relu6, lambda x: F.hardtanh(x, -1.0, 0.5), lambda x: torch.clamp(x, -1.0, 2.0),
                                   lambda x: torch.ops.quantized.relu6(x, True), lambda x: F.relu6(F.relu6(x).relu())])
def test_a_clamp_of_images(engine: str, channels_last: bool, clamp: Callable[[Any], Any]) -> None:
    """QNNPACK's writes what it reads in memory's order as if channels were not last; one of which nobody knows it is refused."""
    torch.backends.quantized.engine = engine
    integers, (scale, zero_point) = torch.randint(0, 256, (2, 4, 5, 7), dtype=torch.uint8), drawn()
    plain, _ = both(integers, scale, zero_point)
    own = Quantized(integers.clone(), scale, zero_point, torch.quint8, channels_last)
    assert_equal(clamp(own), clamp(plain.contiguous(memory_format=torch.channels_last) if channels_last else plain))
    if engine == "qnnpack":
        with pytest.raises(UnsupportedError, match="permutes images"):
            clamp(Quantized(integers, scale, zero_point, torch.quint8))


@pytest.mark.parametrize(("function", "told"), [
    (lambda x: F.leaky_relu(x, 0.1), "leaky_relu: another step, by one, for .* of the 256 integers"),
    (lambda x: OPERATORS["add"](x, x, 0.2, 5), "add: another step, by one, for .* of the 65,536 pairs"),
    (lambda x: x.mean((2, 3)), "mean: the step beside"),
    (lambda x: OPERATORS["softmax"](x, 1, 1 / 256, 0), "softmax: the step beside"),
    (lambda x: x[:, :, :5, :5].contiguous().mean((2, 3)), None), (torch.sigmoid, None), (F.relu6, None),
])
def test_what_torchs_kernels_give_more_than_one_answer_for_is_said(function: Callable[[Any], Any], told: str | None) -> None:
    torch.backends.quantized.engine = "fbgemm"
    with noted() as found:
        function(Quantized(torch.randint(0, 256, (2, 4, 8, 8), dtype=torch.uint8), 0.05, 100, torch.quint8, True))
    assert [re.search(told, str(note)) is not None for note in concerns(found)] == [True] if told else not found


def packed_layer(kind: str, by_channel: bool, bias: bool, groups: int) -> tuple[nn.Module, Any, Tensor]:
    """A part that holds packed weights, its operator, and integers for it that FBGEMM's sums of 16 bits hold."""
    integers = torch.randint(0, 128, (6, 16) if kind == "linear" else (2, 16, 6, 5), dtype=torch.uint8)
    weight = torch.randn((24, 16) if kind == "linear" else (16, 16 // groups, 3, 3))
    scales = torch.rand(len(weight)).double() / 50 + 0.01
    quantized = (torch.quantize_per_channel(weight, scales, torch.zeros(len(weight), dtype=torch.int64), 0, torch.qint8) if by_channel
                 else torch.quantize_per_tensor(weight, 0.02, 0, torch.qint8))
    offset = torch.randn(len(weight)) if bias else None
    part = nn.Module()
    part._packed_params = (torch.ops.quantized.linear_prepack(quantized, offset) if kind == "linear"  # type: ignore[assignment]
                           else torch.ops.quantized.conv2d_prepack(quantized, offset, [1, 1], [1, 1], [1, 1], groups))
    return part, getattr(torch.ops.quantized, kind), integers


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("by_channel", [False, True])
@pytest.mark.parametrize(("kind", "bias", "groups"), [("linear", False, 1), ("linear", True, 1), ("conv2d", True, 1), ("conv2d", True, 16)])
def test_sums_half_way_between_two_steps(engine: str, kind: str, by_channel: bool, bias: bool, groups: int) -> None:
    """Among results of a scale that puts a chosen one there, the kernel and the graph's arithmetic agree on all."""
    torch.backends.quantized.engine = engine
    part, operator, integers = packed_layer(kind, by_channel, bias, groups)
    with unpacked(part):
        packed = part._packed_params
        own = engine_of(operator, packed, Quantized(integers, 0.07, 60, torch.quint8), 0.3, 128)
        for _ in range(20):
            plain, x = both(integers, float(torch.rand(()).double() / 20 + 0.02), 60)
            total = sums_of(packed, x)
            exact = steps_of(own, packed, x, total, 1e-6, 0).flatten() * 1e-6
            scale = float(exact[int(torch.randint(0, exact.numel(), ()))].abs() / (int(torch.randint(0, 60, ())) + 0.5))
            found = cut(steps_of(own, packed, x, total, scale, 128), torch.quint8)
            assert torch.equal(found, operator(plain, copy.deepcopy(packed.original), scale, 128).int_repr())


# Modules -----------------------------------------------------------------------------------------------------------------


class Network(nn.Module):
    """Folded norms, a layer by channel, shortcuts by add and cat, an activation by table, in-place ones, and a mean."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.after = quantization.QuantStub(), quantization.DeQuantStub()
        self.conv, self.norm, self.relu = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(inplace=True)
        self.deep, self.gate = nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.Hardswish()
        self.adds, self.cats, self.times = FloatFunctional(), FloatFunctional(), FloatFunctional()
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.norm(self.conv(self.before(x))))
        y = self.adds.add_relu(self.gate(self.deep(x)), x)
        y = F.max_pool2d(self.cats.cat([x, self.times.mul_scalar(y, 0.7)], 1), 2)
        return self.after(self.head(torch.flatten(F.adaptive_avg_pool2d(y, 1), 1)))


def static(engine: str) -> nn.Module:
    torch.backends.quantized.engine = engine
    module = quantization.fuse_modules(Network().eval(), [["conv", "norm", "relu"]])
    module.qconfig = quantization.get_default_qconfig(engine)
    quantization.prepare(module, inplace=True)
    module(torch.randn(4, 3, 8, 8))
    return quantization.convert(module).eval()  # type: ignore[no-any-return]


IMAGES = (torch.randn(2, 3, 8, 8),), (torch.randn(1, 3, 11, 6),)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_static_module(engine: str) -> None:
    """To the bit in every runtime; the weights keep their integers and names; the module's kernels keep what they had."""
    module = static(engine)
    before, held = module(*IMAGES[0]), {path: [*map(id, vars(part).values())] for path, part in module.named_modules()}
    model = assert_same(module, *IMAGES, exact=True)
    assert torch.equal(before, module(*IMAGES[0]))
    assert held == {path: [*map(id, vars(part).values())] for path, part in module.named_modules()}
    weight = module.conv.weight()  # type: ignore[operator]
    np.testing.assert_array_equal(model.parameters.read("conv.weight"), weight.int_repr().numpy())
    scales = weight.q_per_channel_scales() if engine != "qnnpack" else torch.tensor(weight.q_scale())
    np.testing.assert_array_equal(model.parameters.read("conv.weight_scale"), scales.float().numpy())
    wanted = {f"head.{name}" for name in ("weight", "weight_scale", "weight_zero_point", "bias", "scale", "zero_point")}
    assert wanted <= set(model.parameters.names())


class Separable(nn.Module):
    """A layer of one channel a group between two of all, and a ReLU6 after each."""

    def __init__(self, transposed: bool) -> None:
        super().__init__()
        self.before, self.after, self.relu = quantization.QuantStub(), quantization.DeQuantStub(), nn.ReLU6()
        self.conv = nn.ConvTranspose2d(3, 8, 3, padding=1) if transposed else nn.Conv2d(3, 8, 3, padding=1)
        self.deep, self.head = nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.Conv2d(8, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.deep(self.relu(self.conv(self.before(x)))))
        return self.after(self.head(x))  # type: ignore[no-any-return]


@pytest.mark.parametrize(("engine", "transposed"), [("fbgemm", False), ("qnnpack", False), ("qnnpack", True)])
def test_relu6_after_layers(engine: str, transposed: bool) -> None:
    torch.backends.quantized.engine = engine
    module = Separable(transposed).eval()
    module.qconfig = quantization.get_default_qconfig(engine)
    quantization.prepare(module, inplace=True)
    module(torch.randn(8, 3, 8, 8))
    quantization.convert(module, inplace=True)
    model = assert_same(module, *((item.clamp(-2, 2),) for item, in IMAGES), exact=True)
    assert any("permutes" in note if engine == "qnnpack" else "overflows" in note for note in model.metadata["notes"])


def test_graphs_of_fx() -> None:
    torch.backends.quantized.engine = "fbgemm"

    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.head, self.weight = nn.Conv2d(3, 8, 3), nn.Linear(8, 4), nn.Parameter(torch.randn(3, 4))

        def forward(self, x: Tensor) -> Tensor:
            x = torch.relu(self.conv(x))
            return torch.sigmoid(F.linear(self.head(F.adaptive_avg_pool2d(x + x * 0.5, 1).flatten(1)), self.weight))

    prepared = prepare_fx(Plain().eval(), quantization.get_default_qconfig_mapping("fbgemm"), IMAGES[0])
    prepared(torch.randn(4, 3, 8, 8))
    assert_same(convert_fx(copy.deepcopy(prepared)), *IMAGES, exact=True)
    # Convolutions of floats there, added up in another order, may fall to the other side of a step.
    assert_same(convert_to_reference_fx(prepared), *IMAGES, tolerance=0.02)


@pytest.mark.parametrize("engine", ["fbgemm", "qnnpack"])
def test_dynamic_layers_and_tables(engine: str) -> None:
    torch.backends.quantized.engine = engine

    class Table(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.one, self.two = nn.Embedding(30, 8), nn.Linear(8, 16), nn.Linear(16, 4, bias=False)

        def forward(self, ids: Tensor) -> Tensor:
            return self.two(torch.relu(self.one(self.table(ids))))

    module = quantization.quantize_dynamic(Table().eval(), {nn.Linear: quantization.default_dynamic_qconfig,
                                                            nn.Embedding: quantization.float_qparams_weight_only_qconfig})
    assert_same(module, (torch.randint(0, 30, (3, 4)),), (torch.randint(0, 30, (2, 7)),), exact=True)


@pytest.mark.parametrize("engine", ["fbgemm", "qnnpack"])
def test_the_range_of_a_dynamic_input(engine: str) -> None:
    """Of one sign, tiny, all zero, or as far below zero as above."""
    torch.backends.quantized.engine = engine
    module = nn.Module()
    weight = torch.quantize_per_tensor(torch.randn(5, 7), 0.02, 0, torch.qint8)
    module._packed_params = torch.ops.quantized.linear_prepack(weight, torch.randn(5))  # type: ignore[assignment]
    with unpacked(module):
        product = Product.of(module._packed_params, 255, engine == "fbgemm")
        for scale in (1.0, 1e-3, 1e-6, 0.0, 300.0):
            x = torch.randn(9, 7) * scale
            for given in (x, x.abs(), -x.abs(), torch.cat([x, -x])):
                assert torch.equal(product(given), torch.ops.quantized.linear_dynamic(given, module._packed_params.original, False))


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_dynamic_recurrent_layers(kind: Any) -> None:
    """As a scan, of a free length for one of them; sigmoid and tanh are each runtime's own."""
    torch.backends.quantized.engine = "fbgemm"

    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = kind(4, 3, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x)[0]  # type: ignore[no-any-return]

    module, calls = quantization.quantize_dynamic(Layer().eval(), {kind}), [(torch.randn(3, 5, 4),), (torch.randn(3, 9, 4),)]
    if kind is nn.LSTM:
        assert_same(module, *calls, dims={"x": [3, "time", 4]})
    else:
        assert_same(module, calls[0], dims="static")


def test_what_has_no_rule_is_named() -> None:
    torch.backends.quantized.engine = "fbgemm"

    class Resized(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            x = torch.quantize_per_tensor(x, 0.1, 3, torch.quint8)
            return F.interpolate(x, scale_factor=2, mode="bilinear").dequantize()

    with pytest.raises(UnsupportedError, match=r"(?s)interpolate.*bilinear"):
        converter.from_torch(Resized(), IMAGES[0])
