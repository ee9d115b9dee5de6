"""Numbers that a module computes from sizes or reads from tensors: at other sizes and values than the traced ones, in every runtime."""

from __future__ import annotations

import logging
import math
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
from converter.errors import RunError, UnsupportedError

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
    return require_equal_module(Apply(function), *calls, tolerance=tolerance)


def require_equal_module(module: nn.Module, *calls: tuple[torch.Tensor, ...], tolerance: float = 1e-5) -> converter.Model:
    """`require_equal` of a module."""
    module.eval()
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


ROWS = ((torch.randn(3, 6, 4), torch.tensor([2, 5, 3])), (torch.randn(2, 9, 4), torch.tensor([7, 4])),
        (torch.randn(4, 5, 4), torch.tensor([1, 5, 2, 2])))

NUMBERS: dict[str, Callable[[torch.Tensor, torch.Tensor], Any]] = {
    "a mask of lengths": lambda x, n: (torch.arange(n.max())[None] < n[:, None]).float() @ torch.ones(int(n.max()), 2),
    "slices at both ends": lambda x, n: (x[:, n.min():n.max()], x[:, -n.min():], x[:, :n.min() - 1], x[:, -n.max():-1]),
    "narrow, select, unfold": lambda x, n: (x.narrow(1, 0, n.min().item()), x[:, n.min().item() - 1], x.unfold(1, 2, 1)[:, :n.min()]),
    "tensors made": lambda x, n: (torch.zeros(x.shape[0], n.max().item(), 4) + 1, x.new_zeros(n.max().item() // 2, 2), torch.eye(n[0])),
    "resized": lambda x, n: nn.functional.interpolate(x.transpose(1, 2), size=int(n.max()), mode="linear"),
    "repeated": lambda x, n: (x.repeat(1, n.max().item(), 1), x.repeat_interleave(n.max().item(), 1)),
    "padded, expanded": lambda x, n: (nn.functional.pad(x, (0, 0, 0, n.max().item())), x[:, :1].expand(-1, n.max().item(), -1) * 2),
    "triangle, roll": lambda x, n: (torch.tril(x @ x.transpose(1, 2), n[0].item() - 3), torch.roll(x, n[0].item() - 3, 1)),
    "reshaped": lambda x, n: torch.arange(n[0] * 4).view(n[0], 4),
    "topk": lambda x, n: x.topk(n.min().item(), 1),
    "split": lambda x, n: [part.sum(0) for part in x.reshape(-1, 4)[:n[0] + n[1]].split([n[0].item(), n[1].item()])],
    "written": lambda x, n: torch.cat([x.clone().index_fill_(1, torch.arange(n.min().item()), 0.0), x[:, :n.min()]], 1),
    "operands": lambda x, n: (x * float(n.max()) + n.sum().item(), x / (n.sum().item() + 1), x.sum() * (x[x > 0].numel() > 3)),
    "a table as long": lambda x, n: torch.zeros(n.max().item() + 1, 4).index_add(0, n, x[:, 0]),
}


@pytest.mark.parametrize("form", NUMBERS)
def test_numbers_of_the_data_are_sizes(form: str) -> None:
    require_equal(NUMBERS[form], *ROWS)


def test_what_a_number_of_the_data_may_not_be_is_refused() -> None:
    model = require_equal(lambda x, n: (torch.arange(n[0].item()), torch.narrow(x, 0, 0, n[1].item())),
                          (torch.randn(5), torch.tensor([2, 3])), (torch.randn(3), torch.tensor([0, 0])))
    for runtime in RUNTIMES:
        session = converter.session(model, runtime=runtime)
        names = [port.name for port in model.graph.inputs]
        for numbers in ([-1, 2], [2**40, 2], [-2**63, 2], [2, -1], [2, 6], [2, 2**62]):
            with pytest.raises(RunError):
                session.run(dict(zip(names, (np.ones(5, np.float32), np.array(numbers)), strict=True)))


def test_a_number_of_the_data_that_counts_from_the_end_is_clamped() -> None:
    model = require_equal(lambda x, n: (x[n[0]:n[1]], x[:n[1]]), (torch.randn(5), torch.tensor([1, 3])))
    x = np.arange(5, dtype=np.float32)
    for runtime in RUNTIMES:
        session = converter.session(model, runtime=runtime)
        for start, stop in ((-3, 2), (-9, -1), (4, 2), (2, 99), (1 - 2**31, 2**31 - 1), (0, 0), (5, 6)):
            first, second = session.run({port.name: value for port, value in zip(
                model.graph.inputs, (x, np.array([start, stop])), strict=True)}).values()
            assert first.tolist() == x[start:stop].tolist(), (runtime, start, stop)
            assert second.tolist() == x[:stop].tolist(), (runtime, start, stop)


def middle(x: torch.Tensor, height: int) -> torch.Tensor:
    """Rows around the middle, as many as a height says; where they begin is never negative, which no polynomial of sizes shows."""
    top = (x.shape[2] - height) // 2
    return x[:, :, top:top + height]


COMPUTED: dict[str, Callable[[torch.Tensor], Any]] = {
    "factors": lambda x: (x[:, :, :int(x.shape[2] * 0.709)], x[..., :round(x.shape[3] * 0.7)], x[..., :int(x.shape[3] / 3 + 0.5)]),
    "square roots": lambda x: (x[..., :int(math.sqrt(x.shape[3]))], x / math.sqrt(x.shape[2])),
    "resized by a factor": lambda x: nn.functional.interpolate(x, scale_factor=0.709, mode="bilinear"),
    "to a multiple and back": lambda x: torch.relu(nn.functional.pad(x, (0, (4 - x.shape[3] % 4) % 4)))[..., :x.shape[3]],
    "to the short side": lambda x: nn.functional.interpolate(x, size=(
        int(x.shape[2] * 16 / min(x.shape[2], x.shape[3])), int(x.shape[3] * 16 / min(x.shape[2], x.shape[3]))), mode="bilinear"),
    "cut around the middle": lambda x: middle(x, round(x.shape[2] * 0.75)),
    "comparisons as numbers": lambda x: x * torch.tensor(x.shape[2] > x.shape[3]),
}


@pytest.mark.parametrize("form", COMPUTED)
def test_sizes_computed_with_floats_stay_free(form: str) -> None:
    model = require_equal(COMPUTED[form], *IMAGES, (torch.randn(1, 3, 12, 22),))
    assert all(model.graph.dims[str(size)].max is None for size in model.graph.inputs[0].spec.shape if not isinstance(size, int))


def along(table: Callable[[int], torch.Tensor]) -> Callable[[torch.Tensor], torch.Tensor]:
    """An input times a table as long as its axis 1."""
    return lambda x: x * table(x.shape[1])[None, :, None]


def apart(x: torch.Tensor) -> torch.Tensor:
    """Distances between rows that are not equal, which torch computes in another way above 25 rows."""
    return torch.cdist(x, x[:, :3] + 5.0)


TABLES: dict[str, Callable[[torch.Tensor], Any]] = {
    "windows": lambda x: tuple(along(item)(x) for item in (
        torch.hann_window, torch.hamming_window, torch.blackman_window, torch.bartlett_window, torch.kaiser_window)),
    "windows that do not repeat": lambda x: (along(lambda n: torch.hann_window(n, periodic=False))(x),
                                             along(lambda n: torch.hamming_window(n, False, 0.6, 0.3))(x)),
    "frequencies": lambda x: (along(torch.fft.fftfreq)(x), along(lambda n: torch.fft.fftfreq(n, d=1 / n))(x), torch.fft.rfftfreq(
        x.shape[1], 0.1), x[:, :8] * torch.fft.fftfreq(8)[:, None]),
    "linspace": lambda x: (along(lambda n: torch.linspace(-1, 1, n))(x), along(lambda n: torch.linspace(0.5, n - 0.5, n))(x),
                           along(lambda n: torch.logspace(0, -2, n))(x)),
    "triangles": lambda x: [(x @ x.mT)[:, at[0], at[1]] for at in (
        torch.triu_indices(x.shape[1], x.shape[1], 1), torch.tril_indices(x.shape[1], x.shape[1]))],
    "differences": lambda x: (x.diff(n=2, dim=1), torch.diff(x, 3, 1, prepend=x[:, :1])),
    "diagonals": lambda x: ((x @ x.mT).sum(0).fill_diagonal_(float("inf")).amin(1),
                            torch.zeros(x.shape[1], x.shape[1] + 2).fill_diagonal_(2.0)),
    "distances": lambda x: (apart(x), torch.cdist(x, x, p=1.0), torch.cdist(x, x, 2.0, "donot_use_mm_for_euclid_dist"),
                            torch.cdist(x, x[:1], float("inf")), torch.cdist(x[0], x, 3.0)),
    "distances of pairs": lambda x: tuple(nn.functional.pdist(x[0], p) for p in (2.0, 1.0, float("inf"))),
    "grids": lambda x: (nn.functional.affine_grid(x[:, :2], [x.shape[0], 1, x.shape[1], x.shape[1] // 2], align_corners=False),
                        nn.functional.affine_grid(x[:1, :2], [1, 1, 4, x.shape[1]], align_corners=True)),
    "frames as long as a part": lambda x: (x.unfold(1, x.shape[1] // 4, max(x.shape[1] // 8, 1)), x.mT.unfold(-1, 3, x.shape[1] // 4)),
    "logarithms": lambda x: (x * math.log2(x.shape[1]) + math.log(x.shape[1]), x[:, :math.ceil(math.log2(x.shape[1]))],
                             x * math.sin(x.shape[1])),
    "classes": lambda x: (nn.functional.one_hot(torch.arange(x.shape[1]), x.shape[1]), torch.bincount(
        torch.arange(x.shape[1]) // 2, minlength=x.shape[1])),
}


@pytest.mark.parametrize("form", TABLES)
def test_tables_as_long_as_an_input_leave_it_free(form: str) -> None:
    before = math.log2, torch.hann_window
    require_equal(TABLES[form], *((torch.randn(2, steps, 3),) for steps in (9, 12, 40, 8)))
    assert (math.log2, torch.hann_window) == before


def test_a_window_of_one_sample_is_one() -> None:
    require_equal(lambda x: x * torch.hann_window(x.shape[0]) + torch.hann_window(x.shape[0], False), (torch.ones(4),), (torch.ones(1),))


def test_a_signal_keeps_its_length() -> None:
    window = torch.hann_window(64)

    def filtered(x: torch.Tensor) -> torch.Tensor:
        spectrum = torch.stft(x, 64, 16, window=window, return_complex=True)
        return torch.istft(spectrum * torch.sigmoid(spectrum.abs()), 64, 16, window=window, length=x.shape[-1])

    require_equal(filtered, (torch.randn(2, 640),), (torch.randn(1, 400),), (torch.randn(3, 1007),), tolerance=1e-4)


def marked_windows(x: torch.Tensor) -> torch.Tensor:
    """Windows of 4 by 4 of an image that was written to, padded to whole windows."""
    x = nn.functional.pad(x, (0, -x.shape[3] % 4, 0, -x.shape[2] % 4)).clone()
    x[:, 0] = 1.0
    batch, channels, height, width = x.shape
    return x.view(batch, channels, height // 4, 4, width // 4, 4).permute(0, 2, 4, 1, 3, 5).reshape(-1, channels, 4, 4)


def test_what_is_written_to_is_cut_in_windows_at_every_size() -> None:
    model = require_equal(marked_windows, *IMAGES, (torch.randn(1, 3, 12, 22),))
    assert all(span.max is None for span in model.graph.dims.values())


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


def test_a_loop_as_long_as_a_number_of_the_data_is_refused_by_its_line() -> None:
    def looped(x: torch.Tensor, n: torch.Tensor) -> Any:
        return sum(x[:, step] for step in range(int(n.max())))

    with pytest.raises(UnsupportedError, match=r"test_numbers.py:\d+ in looped: a number that only the data give .*torch.while_loop"):
        converter.from_torch(Apply(looped), ROWS[0])


ROTARY = """
import torch, converter
def pairs(x):
    return torch.view_as_real(torch.view_as_complex(x.reshape(*x.shape[:2], -1, 2))).flatten(2)
class Rotary(torch.nn.Module):
    def forward(self, x):
        return pairs(x)
print(converter.from_torch(Rotary(), (torch.zeros(2, 5, 8),)).graph.inputs[0].spec)
"""


@pytest.mark.parametrize("seed", [pytest.param("0", marks=pytest.mark.long), "1"])
def test_the_result_does_not_depend_on_the_hash_seed(seed: str) -> None:
    found = subprocess.run([sys.executable, "-W", "ignore", "-c", ROTARY], capture_output=True, text=True, check=True,
                           env={**os.environ, "PYTHONHASHSEED": seed}).stdout
    assert found == "float32[batch, x_1, x_2]\n"


class Held(nn.Module):
    """Numbers held in buffers and parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("shift", torch.tensor(0.7))
        self.register_buffer("steps", torch.tensor(3))
        self.weight = nn.Parameter(torch.tensor([2.0, 4.0]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.roll(-round(self.shift.item() * 3), -1)
        if self.steps > 2 and bool(self.weight[1] > self.weight[0]):
            x = x[:, :self.steps] * float(self.weight[0])
        for index in range(int(self.weight[1])):
            x = x + index
        return nn.functional.threshold(x, self.shift.item(), 0.5)


def test_numbers_that_a_module_holds_are_known() -> None:
    require_equal_module(Held(), (torch.randn(2, 5),), (torch.randn(3, 9),))


class Written(nn.Module):
    """A number of a buffer that forward has written to before."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.tensor(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        count = self.count + 0
        count += 3
        return x * count.item()


def test_a_number_is_read_after_it_is_written() -> None:
    require_equal_module(Written(), (torch.randn(2, 5),), (torch.randn(3, 9),))


@torch.compiler.disable
def _sort_into_levels(rows: torch.Tensor) -> torch.Tensor:
    """Each row times the number of its level, written level by level."""
    levels = (rows.sum(1) > 0).long()
    merged = torch.zeros((len(rows), 2, *rows.shape[1:]))
    for level in range(len(torch.zeros(2))):
        chosen = torch.where(levels == level)[0]
        merged[chosen] = rows[chosen].unsqueeze(1) * (level + 1.5)
    return merged


def test_the_length_of_a_tensor_stays_free_in_code_that_only_one_way_of_tracing_takes() -> None:
    built_in = len
    model = require_equal(_sort_into_levels, *((torch.randn(count, 3),) for count in (6, 3, 11)))
    assert model.graph.inputs[0].spec.shape[0] != 6
    assert len is built_in
