"""Numbers that a module computes from sizes or reads from tensors: at other sizes and values than the traced ones, in every runtime."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import converter
from converter.errors import UnsupportedError

RUNTIMES = ("reference", "numpy", "onnxruntime", "torch")


class Apply(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: torch.Tensor) -> Any:
        return self.function(*inputs)


def require_equal(function: Callable[..., Any], *calls: tuple[torch.Tensor, ...], tolerance: float = 1e-5) -> converter.Model:
    """Converts a function at the first call, and compares it with torch at every call in every runtime."""
    module = Apply(function).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = converter.from_torch(module, calls[0])
    for runtime in RUNTIMES:
        session = converter.session(model, runtime=runtime)
        for call in calls:
            with torch.no_grad():
                wanted = module(*call)
            found = session.run({port.name: tensor.numpy() for port, tensor in zip(model.graph.inputs, call, strict=True)})
            for tensor, array in zip(wanted if isinstance(wanted, (tuple, list)) else (wanted,), found.values(), strict=True):
                expected = tensor.numpy() if isinstance(tensor, torch.Tensor) else np.asarray(tensor)
                assert (expected.shape, expected.dtype) == (array.shape, array.dtype), runtime
                np.testing.assert_allclose(array, expected, tolerance, tolerance, err_msg=runtime)
    return model


IMAGES = (torch.randn(2, 3, 6, 8),), (torch.randn(1, 3, 9, 5),)

TENSORS: dict[str, Callable[[torch.Tensor], Any]] = {
    "two sizes": lambda x: x.mean((2, 3))[..., None] * torch.tensor([x.shape[2], x.shape[3]]),
    "numbers of sizes": lambda x: x.mean((2, 3))[..., None] / torch.tensor([x.shape[2] - 0.5, x.shape[3] * 2.0]),
    "nested": lambda x: x.mean((2, 3))[..., None] * torch.tensor([[x.shape[3] / 2, 1.0], [0.5, x.shape[2] ** 0.5]])[0],
    "with a dtype": lambda x: x.mean((2, 3))[..., None] * torch.tensor(x.shape[-2:], dtype=torch.int32),
    "as_tensor": lambda x: x.mean((2, 3))[..., None] * torch.as_tensor(x.shape[-2:], dtype=torch.float32),
    "the shape": lambda x: torch.tensor(x.shape),
    "without axes": lambda x: x * torch.tensor(x.shape[-1]),
}


@pytest.mark.parametrize("form", TENSORS)
def test_tensors_of_sizes_leave_them_free(form: str) -> None:
    require_equal(TENSORS[form], *IMAGES)


BRANCH = """
import torch
class Model(torch.nn.Module):
    def forward(self, x):
        if x.mean() > 0:
            return x * 2
        return x - 1
"""


def test_a_branch_on_data_is_named_by_its_line(tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "branching_module.py").write_text(BRANCH)
    monkeypatch.syspath_prepend(str(tmp_path))
    import branching_module  # type: ignore[import-not-found]

    with pytest.raises(UnsupportedError) as error:
        converter.from_torch(branching_module.Model(), (torch.randn(2, 6),))
    assert "branching_module.py:5 in forward" in str(error.value)
    assert "if x.mean() > 0:" in str(error.value)
    assert "torch.where" in str(error.value)
    assert capfd.readouterr() == ("", "")
    assert not any(item.disabled for item in map(logging.getLogger, ("torch", "torch.export", "torch._dynamo")))


ROTARY = """
import torch, converter
def pairs(x):
    return torch.view_as_real(torch.view_as_complex(x.reshape(*x.shape[:2], -1, 2))).flatten(2)
class Rotary(torch.nn.Module):
    def forward(self, x):
        return pairs(x)
print(converter.from_torch(Rotary(), (torch.zeros(2, 5, 8),)).graph.inputs[0].spec)
"""


def test_the_result_does_not_depend_on_the_hash_seed() -> None:
    found = {subprocess.run([sys.executable, "-W", "ignore", "-c", ROTARY], capture_output=True, text=True, check=True,
                            env={**os.environ, "PYTHONHASHSEED": seed}).stdout for seed in ("0", "1")}
    assert found == {"float32[batch, x_1, x_2]\n"}
