"""Sizes that are asked for by name: free, or an error that names the line and how to ask for what is left; the same from both doors."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from click.testing import CliRunner
from torch import Tensor, nn
from torch.export import Dim

import converter
from converter.cli.inputs import draw_examples, fixed_sizes, parse_inputs
from converter.cli.main import cli
from converter.errors import ConversionWarning, ConverterError, UnsupportedError


class Calls(nn.Module):
    def __init__(self, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, a: Tensor, b: Tensor | None = None, c: Tensor | None = None) -> Tensor:
        return self.function(*(item for item in (a, b, c) if item is not None))


def convert(function: Callable[..., Tensor], shapes: list[tuple[int, ...]], dims: dict[str, list[Any]]) -> converter.Model:
    return converter.from_torch(Calls(function).eval(), tuple(map(torch.randn, shapes)), dims=dims)


def by_length(x: Tensor) -> Tensor:
    return x * 2 + x[:, -1:] if x.shape[1] > 6 else x - 1


def by_multiple(x: Tensor) -> Tensor:
    return x * 2 if x.shape[1] % 4 == 0 else x.flip(1)


def by_longer(a: Tensor, b: Tensor) -> Tensor:
    return a[:, :b.shape[1]] + b if a.shape[1] >= b.shape[1] else a - b[:, :a.shape[1]] * 2


def pairs(a: Tensor, b: Tensor) -> Tensor:
    return a.view(a.shape[0], -1, 2).sum(2) + b


def total(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    return torch.cat([a, b], 1) + c


ONE = {"a": ["batch", "n"]}
TWO = {**ONE, "b": ["batch", "m"]}

REFUSED: dict[str, tuple[Callable[..., Tensor], list[tuple[int, ...]], dict[str, list[Any]], str, str]] = {
    "the long side of a branch": (by_length, [(2, 9)], ONE, r"n in 7\.\.: the module takes 6 too.*test_named_sizes.py:\d+ in by_length",
                                  "--fix n=7.."),
    "the short side of a branch": (by_length, [(2, 5)], ONE, r"ends at 6: the module takes others.*test_named_sizes.py:\d+ in by_length",
                                   "--fix n=..6"),
    "steps": (by_multiple, [(2, 8)], ONE, r"in steps of 4: the module takes \d too", "write n as '4*n'"),
    "an inequality": (by_longer, [(2, 9), (2, 6)], TWO, "requires n >= m: the module takes m = 10 and n = 9 too", "--fix n=SIZE"),
    "twice another": (pairs, [(2, 12), (2, 6)], TWO, "requires m == n // 2", "write 'n // 2' in the place of 'm'"),
    "another": (lambda a, b: a + b, [(2, 6), (2, 6)], TWO, "'m'.*is tied to another size: it is n", "give m and n one name"),
    "one of its own": (lambda a: a @ a, [(4, 4)], {"a": ["n", "m"]}, "'m'.*is tied to another size: it is n", "give m and n one name"),
    "others together": (total, [(2, 3), (2, 5), (2, 8)], {**TWO, "c": ["batch", "all"]}, r"'all'.*is tied to another size: it is m \+ n",
                        "write 'm + n' in the place of 'all'"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_named_size_that_is_not_free_is_an_error(name: str) -> None:
    function, shapes, dims, said, way = REFUSED[name]
    with pytest.raises(UnsupportedError, match=said) as caught:
        convert(function, shapes, dims)
    assert way in str(caught.value.fix)


@pytest.mark.parametrize(("function", "shapes", "dims", "specs"), [
    (by_length, [(2, 9)], {"a": ["batch", Dim("n", min=7)]}, ["batch, n"]),
    (by_length, [(2, 5)], {"a": ["batch", Dim("n", max=6)]}, ["batch, n"]),
    (pairs, [(2, 12), (2, 6)], {"a": ["batch", "2*m"], "b": ["batch", "m"]}, ["batch, a_1", "batch, m"]),
    (total, [(2, 3), (2, 5), (2, 8)], {**TWO, "c": ["batch", "m + n"]}, ["batch, n", "batch, m", "batch, m + n"]),
    (lambda x: F.conv1d(x[:, None], torch.ones(1, 1, 7)), [(2, 9)], ONE, ["batch, n"]),
    (lambda x: x.view(x.shape[0], -1, 4).sum(1), [(2, 8)], ONE, ["batch, n"]),
    (lambda a, b: a[:, :b.shape[1]] + b, [(2, 9), (2, 6)], TWO, ["batch, n", "batch, m"]),
], ids=["a lower end", "an upper end", "twice", "others together", "a kernel", "whole groups", "an inequality of the module's own"])
def test_what_was_asked_for_as_it_is_and_what_the_module_itself_refuses_is_no_error(
        function: Callable[..., Tensor], shapes: list[tuple[int, ...]], dims: dict[str, list[Any]], specs: list[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConversionWarning)
        model = convert(function, shapes, dims)
    assert [str(port.spec) for port in model.graph.inputs] == [f"float32[{spec}]" for spec in specs]


def test_steps_that_were_asked_for_are_told_of() -> None:
    with pytest.warns(ConversionWarning, match=r"in steps of 4: the module takes \d too"):
        convert(by_multiple, [(2, 8)], {"a": ["batch", "4*n"]})


# From the command line -----------------------------------------------------------------------------------------------------


def test_ends_and_expressions_of_an_input_are_drawn() -> None:
    texts = ["tokens:int64[batch,new]{0..9}", "past:float32[batch,past,4]", "mask:bool[batch,past + new]"]
    inputs = fixed_sizes(["new=..5", "past=300.."], parse_inputs(texts))
    assert inputs[2].axes == ["batch", "new + past"]
    for example in draw_examples(inputs):
        new, past = example["tokens"].shape[1], example["past"].shape[1]
        assert 1 <= new <= 5
        assert past >= 300
        assert example["mask"].shape == (example["tokens"].shape[0], new + past)
    assert fixed_sizes(["past=8"], parse_inputs(texts))[2].axes == ["batch", "new + 8"]
    for wrong in ("new=", "new=..", "new=0..4", "new=9..4", "new=a..b", "new=1.5", "other=1..2"):
        with pytest.raises(ConverterError, match="not a size of an input"):
            fixed_sizes([wrong], parse_inputs(texts))


def test_both_doors_agree(tmp_path: Path) -> None:
    (tmp_path / "nets.py").write_text(
        "import torch\nclass Net(torch.nn.Module):\n    def forward(self, x, mask):\n"
        "        x = torch.cat([x, x[:, :1]], 1) * mask\n        return x.cumsum(1) if x.shape[1] > 20 else x.flip(1)\n")
    args = ["torch-to-json", "-o", str(tmp_path / "m.json"), "--module", f"{tmp_path / 'nets.py'}:Net", "--input", "x:float32[batch,time]"]
    source, model = ["--input", "mask:float32[batch,time + 1]"], str(tmp_path / "m.json")
    refused = CliRunner().invoke(cli, [*args, *source])
    assert refused.exit_code == 2
    assert "time in 20..: the module takes 19 too" in refused.output
    assert "nets.py:5 in forward" in refused.output
    assert "--fix time=20.." in refused.output
    for ends, inside, outside in (("20..", 20, 19), ("..19", 19, 20)):
        assert CliRunner().invoke(cli, [*args, *source, "--fix", f"time={ends}"]).exit_code == 0
        graph = converter.load(model).graph
        assert [str(port.spec) for port in graph.inputs] == ["float32[batch, time]", "float32[batch, time + 1]"]
        session = converter.session(converter.load(model), "numpy")
        run = {size: {"x": np.ones((1, size), np.float32), "mask": np.ones((1, size + 1), np.float32)} for size in (inside, outside)}
        assert next(iter(session.run(run[inside]).values())).shape == (1, inside + 1)
        with pytest.raises(ConverterError, match="outside its range"):
            session.run(run[outside])
        checked = CliRunner().invoke(cli, ["verify", model, *args[3:], *source, "--fix", f"time={ends}", "--cases", "2"])
        assert checked.exit_code == 0, checked.output
