"""Quantisation-aware training, and quantised weights and activations as `torch.export` flows write them: to the bit."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.ao.quantization as quantization
import torch.ao.quantization.fx._decomposed
import torch.nn.functional as F
from torch import Tensor, nn

import converter
from converter.errors import UnsupportedError
from tests.support_modules import assert_same

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


class Operators(nn.Module):
    """The functions with scales as numbers, as tensors and by channel; a narrow range with far outliers."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 3, 3, 3))
        self.register_buffer("scale", torch.rand(4) * 0.02 + 0.01)
        self.register_buffer("zero", torch.tensor([0, 1, -3, 0], dtype=torch.int32))
        self.register_buffer("one_scale", torch.tensor([0.03]))
        self.register_buffer("one_zero", torch.tensor([2], dtype=torch.int32))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        x = torch.fake_quantize_per_tensor_affine(x, 0.05, 3, -128, 127)
        weight = torch.fake_quantize_per_channel_affine(self.weight, self.scale, self.zero, 0, -127, 127)
        return (x, weight, torch.fake_quantize_per_tensor_affine(x * 100, self.one_scale, self.one_zero, 0, 255),
                torch.fake_quantize_per_channel_affine(x, self.scale[:3], self.zero[:3], 1, -8, 7))


def test_functions() -> None:
    assert_same(Operators(), (torch.randn(2, 3, 8, 8),), (torch.randn(1, 3, 5, 9) * 10,), exact=True)


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.before, self.after = quantization.QuantStub(), quantization.DeQuantStub()
        self.conv, self.norm, self.relu, self.head = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.norm(self.conv(self.before(x))))
        return self.after(self.head(x.mean((2, 3))))


def trained(qconfig: Any, fused: bool) -> nn.Module:
    module = Network().train()
    if fused:
        quantization.fuse_modules_qat(module, [["conv", "norm", "relu"]], inplace=True)
    module.qconfig = qconfig  # type: ignore[assignment]
    quantization.prepare_qat(module, inplace=True)
    for _ in range(3):
        module(torch.randn(4, 3, 8, 8))
    return module.apply(quantization.disable_observer).eval()


PLAIN = quantization.QConfig(activation=quantization.default_fake_quant, weight=quantization.default_per_channel_weight_fake_quant)
CONFIGS = {"x86": quantization.get_default_qat_qconfig("x86"), "qnnpack": quantization.get_default_qat_qconfig("qnnpack"), "plain": PLAIN}


@pytest.mark.parametrize("name", CONFIGS)
def test_modules_in_training(name: str) -> None:
    """A rounded value may fall to the other side of a step where what is before it was added up in another order."""
    module = trained(CONFIGS[name], fused=name != "plain")
    assert_same(module, (torch.randn(2, 3, 8, 8),), (torch.randn(1, 3, 5, 9),), tolerance=1e-5)
    assert all("forward" not in vars(part) for part in module.modules())
    assert_same(copy.deepcopy(module).apply(quantization.disable_fake_quant), (torch.randn(2, 3, 8, 8),), (torch.randn(1, 3, 5, 9),))


def test_observers_that_are_on_are_refused_with_the_way_out() -> None:
    module = trained(PLAIN, fused=False).apply(quantization.enable_observer)
    with pytest.raises(UnsupportedError, match="disable_observer"):
        converter.from_torch(module, (torch.randn(2, 3, 8, 8),))


class Decomposed(nn.Module):
    """What `convert` of the newer flows leaves: int8 weights, and activations to int8 and back."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("weight", torch.randint(-127, 127, (3, 4), dtype=torch.int8))
        self.register_buffer("scale", torch.rand(3) * 0.01 + 0.001)
        self.register_buffer("zero", torch.zeros(3, dtype=torch.int64))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        operators = torch.ops.quantized_decomposed
        small = operators.quantize_per_tensor(x, 0.05, 3, -128, 127, torch.int8)
        x = operators.dequantize_per_tensor(small, 0.05, 3, -128, 127, torch.int8)
        weight = operators.dequantize_per_channel(self.weight, self.scale, self.zero, 0, -127, 127, torch.int8)
        again = operators.quantize_per_channel(weight, self.scale, self.zero, 0, -127, 127, torch.int8)
        return F.linear(x, weight), x, small, again


def test_decomposed_operators() -> None:
    assert_same(Decomposed(), (torch.randn(5, 4),), (torch.randn(3, 4) * 20,))
