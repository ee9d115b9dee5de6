"""Sizes that were asked to be free are free, or it is said: an error for a named one, a warning for one that nobody named."""

from __future__ import annotations

import re
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.export import Dim

import converter
from converter import ConversionWarning, ConverterError, RunError, UnsupportedError
from converter.cli.inputs import draw_examples, fixed_sizes, parse_inputs
from tests.support_modules import Calls

RUNTIMES = ("reference", "numpy", "onnxruntime", "torch")


def assert_equal(model: converter.Model, module: nn.Module, *calls: tuple[Tensor, ...]) -> None:
    """The model gives what the module gives, in every runtime."""
    for runtime in RUNTIMES:
        session = converter.session(model, runtime)
        for call in calls:
            with torch.no_grad():
                wanted = module(*call).numpy()
            found = next(iter(session.run({port.name: item.numpy() for port, item in zip(model.graph.inputs, call, strict=True)}).values()))
            assert found.shape == wanted.shape
            np.testing.assert_allclose(found, wanted, 1e-4, 1e-5)


def images(*shape: int) -> tuple[Tensor]:
    return (torch.randn(*shape, generator=torch.Generator().manual_seed(0)),)


def strided(layers: int) -> nn.Module:
    torch.manual_seed(0)
    parts: list[nn.Module] = []
    for index in range(layers):
        parts += [nn.Conv2d(4 if index else 3, 4, 3, 2, 1), nn.ReLU()]
    return nn.Sequential(*parts, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5)).eval()


class Loop(nn.Module):
    """Each step reads more than the one before, so that no scan can stand for the loop."""

    def forward(self, x: Tensor) -> Tensor:
        state, outputs = x.new_zeros(x.shape[0], 4), []
        for step in range(x.shape[1]):
            state = torch.tanh(state) * 0.5 + x[:, :step + 1].sum(1)
            outputs.append(state)
        return torch.stack(outputs, 1)


class Positions(nn.Module):
    """A table of 16 positions, looked up or cut; or a length that the code refuses."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.table, self.way = nn.Embedding(16, 4), way

    def forward(self, x: Tensor) -> Tensor:
        if self.way == "looked up":
            return x + self.table(torch.arange(x.shape[1]))
        if self.way == "cut":
            return x + self.table.weight[:x.shape[1]]
        if x.shape[1] > 16:
            raise ValueError("too long")
        return x * 2


def test_the_end_of_a_small_example_is_not_the_modules() -> None:
    net = strided(5)
    model = converter.from_torch(net, images(1, 3, 32, 32), dims={"input": ["batch", 3, "height", "width"]})
    assert {name: span.max for name, span in model.graph.dims.items()} == {"batch": None, "height": None, "width": None}
    assert_equal(model, net, *(images(*shape) for shape in ((1, 3, 32, 32), (2, 3, 33, 47), (1, 3, 17, 65), (1, 3, 1, 2), (3, 3, 96, 64))))


@pytest.mark.parametrize(("module", "example", "others"), [
    (nn.Conv1d(2, 3, 3), (1, 2, 3), [(1, 2, 17), (3, 2, 4)]),
    (nn.Sequential(nn.Conv1d(2, 3, 3, 2), nn.Conv1d(3, 3, 3, 2)), (1, 2, 7), [(2, 2, 7), (1, 2, 40), (5, 2, 10)]),
    (nn.Conv3d(1, 2, 2, 2), (1, 1, 2, 3, 2), [(1, 1, 4, 4, 7), (2, 1, 2, 2, 2)]),
    (nn.Sequential(nn.MaxPool2d(2), nn.MaxPool2d(2), nn.Flatten(2)), (1, 2, 4, 4), [(1, 2, 8, 13), (2, 2, 4, 5)]),
], ids=["convolution", "strides", "volume", "pooling"])
def test_an_inner_size_of_1_fixes_nothing(module: nn.Module, example: tuple[int, ...], others: list[tuple[int, ...]]) -> None:
    names: list[Any] = ["batch", example[1], *("x", "y", "z")[:len(example) - 2]]
    model = converter.from_torch(module.eval(), images(*example), dims={"input": names})
    assert_equal(model, module, images(*example), *(images(*shape) for shape in others))


def test_a_named_size_that_cannot_be_free_is_an_error_with_its_line_and_the_way_out() -> None:
    with pytest.raises(UnsupportedError, match=r"'time' \(axis 1 of 'x'\) stays fixed at 6.*test_free_sizes.py:\d+ in forward") as caught:
        converter.from_torch(Loop(), images(2, 6, 4), dims={"x": ["batch", "time", 4]})
    assert caught.value.fix is not None
    assert "dims={'x': ['batch', 6, 4]}" in caught.value.fix
    assert "--fix time=6" in caught.value.fix
    model = converter.from_torch(Loop(), images(2, 6, 4), dims={"x": ["batch", 6, 4]})
    assert_equal(model, Loop(), images(3, 6, 4))


def test_a_size_that_the_weights_fix_is_an_error_where_it_is_named_and_a_note_where_not() -> None:
    with pytest.raises(UnsupportedError, match=r"'channels'.*the module's code or its weights need that size"):
        converter.from_torch(nn.Linear(4, 4), images(2, 6, 4), dims={"input": ["batch", "time", "channels"]})
    model = converter.from_torch(nn.Linear(4, 4), images(2, 6, 4))
    assert "axis 2 of 'input' stays fixed at 4: the module's code or its weights need that size" in model.metadata["notes"]


def test_a_size_that_nobody_named_is_a_warning_where_the_module_takes_others() -> None:
    with pytest.warns(ConversionWarning, match=r"axis 1 of 'x' stays fixed at 6: .* others.*test_free_sizes.py:\d+ in forward"):
        model = converter.from_torch(Loop(), images(2, 6, 4))
    assert any("axis 1 of 'x' stays fixed at 6" in note for note in model.metadata["notes"])


def by_length(x: Tensor) -> Tensor:
    return x * 2 + x[:, -1:] if x.shape[1] > 6 else x - 1


def by_multiple(x: Tensor) -> Tensor:
    return x * 2 if x.shape[1] % 4 == 0 else x.flip(1)


def by_longer(a: Tensor, b: Tensor) -> Tensor:
    return a[:, :b.shape[1]] + b if a.shape[1] >= b.shape[1] else a - b[:, :a.shape[1]] * 2


@pytest.mark.parametrize(("function", "shapes", "told"), [
    (by_length, [(2, 9)], r"axis 1 of 'x.0' is {0} in 7\.\.: the module takes 6 too"),
    (by_multiple, [(2, 8)], r"axis 1 of 'x.0' is {0} in 4\.\. in steps of 4: the module takes \d+ too"),
    (by_longer, [(2, 9), (2, 6)], r"requires {0} >= {1}: the module takes {0} = 9 and {1} = 10 too"),
    (lambda x: F.conv1d(x[:, None], torch.ones(1, 1, 7)), [(2, 9)], None), (lambda x: x.view(x.shape[0], -1, 4).sum(1), [(2, 8)], None),
    (lambda a, b: a[:, :b.shape[1]] + b, [(2, 9), (2, 6)], None), (lambda x: torch.quantile(x, 0.3, 1), [(2, 9)], None)])
def test_sizes_that_the_module_takes_and_the_model_does_not_are_a_warning(function: Any, shapes: list[tuple[int, ...]],
                                                                         told: str | None) -> None:
    """Lower ends, steps and relations of sizes that nobody named. What the module itself refuses is none."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = converter.from_torch(Calls(function).eval(), tuple(torch.randn(shape) for shape in shapes))
    found = [str(item.message) for item in caught if issubclass(item.category, ConversionWarning) and "ends at 16777216" not in str(item)]
    sizes = [port.spec.shape[1] for port in model.graph.inputs]
    assert [re.search(told.format(*map(re.escape, map(str, sizes))), text) is not None for text in found] == [True] if told else not found


def test_an_end_that_no_run_reaches_is_no_search() -> None:
    """torch.quantile refuses more than 2^24 elements, which is not tried."""
    started = time.thread_time()
    model = converter.from_torch(Calls(lambda x: x.topk(max(1, x.shape[1] // 3), 1).values.mean(1) + torch.quantile(x, 0.3, 1)).eval(),
                                 (torch.randn(2, 9),))
    assert time.thread_time() - started < 20
    assert {span.max for span in model.graph.dims.values()} == {None, 1 << 24}


@pytest.mark.parametrize("way", ["looked up", "cut", "refused"])
def test_an_end_of_the_modules_own_is_no_error_and_told(way: str) -> None:
    module, example = Positions(way).eval(), (torch.randn(2, 5, 4),)
    with pytest.warns(ConversionWarning, match=r"'seq' \(axis 1 of 'x'\) ends at 16, where the module's own code or weights end"):
        model = converter.from_torch(module, example, dims={"x": ["batch", "seq", 4]})
    assert model.graph.dims["seq"].max == 16
    assert any("ends at 16" in note for note in model.metadata["notes"])
    assert_equal(model, module, (torch.randn(1, 16, 4),), (torch.randn(3, 1, 4),))
    with pytest.raises(RunError, match="seq"):
        converter.session(model, "numpy").run({"x": np.zeros((1, 17, 4), np.float32)})
    # Where it was asked for with its end, or by nobody, it is no surprise.
    ended = converter.from_torch(module, example, dims={"x": [Dim("batch"), Dim("seq", max=16), 4]})
    assert ended.graph.dims["seq"].max == converter.from_torch(module, example).graph.dims["x_1"].max == 16


@pytest.mark.parametrize("dims", [
    {"input": [Dim("batch", max=8), Dim("time", min=2, max=64), 4]},
    {"input": ["batch", Dim("time", min=2, max=64), Dim.STATIC]},
    {"input": {0: Dim("batch"), 1: Dim("time", min=2, max=64)}},
    ({0: Dim.AUTO, 1: Dim("time", min=2, max=64)},),
], ids=["objects", "mixed", "by axis", "in order"])
def test_dims_of_torch(dims: Any) -> None:
    net = nn.Linear(4, 4)
    model = converter.from_torch(net, images(2, 6, 4), dims=dims)
    assert str(model.graph.dims["time"]) == "2..64"
    assert_equal(model, net, images(3, 64, 4))
    with pytest.raises(ConverterError, match="outside its range"):
        converter.session(model, "numpy").run({"input": np.zeros((2, 65, 4), np.float32)})


@pytest.mark.parametrize(("dims", "message"), [
    ({"input": ["batch", "time", 5]}, "fixes axis 2 at 5"), ({"inputs": ["batch", "time", 4]}, "an input that is not there: 'inputs'"),
    ({"input": ["batch"]}, "another number of axes"), ({"input": [Dim("batch"), Dim("time"), Dim("channels")]}, "'channels'"),
])
def test_dims_that_do_not_fit(dims: Any, message: str) -> None:
    with pytest.raises(ConverterError, match=message):
        converter.from_torch(nn.Linear(4, 4), images(2, 6, 4), dims=dims)


# From the command line -----------------------------------------------------------------------------------------------------


def test_drawn_sizes_are_large_odd_and_apart() -> None:
    (inputs,) = (parse_inputs(["x:float32[batch,3,height,width]", "y:float32[batch,length]"]),)
    first = next(draw_examples(inputs))
    sizes = [*first["x"].shape[2:], first["y"].shape[1]]
    assert all(size % 2 and size > 32 for size in sizes)
    for stride in (2, 4, 8, 16, 32):
        inner = [(size - 1) // stride + 1 for size in sizes]
        assert len(set(inner)) == 3
        assert min(inner) > 1


def test_a_size_of_an_input_is_fixed() -> None:
    inputs = fixed_sizes(["height=224"], parse_inputs(["x:float32[batch,3,height,width]"]))
    assert inputs[0].axes == ["batch", 3, 224, "width"]
    with pytest.raises(ConverterError, match="batch, height, width"):
        fixed_sizes(["depth=3"], parse_inputs(["x:float32[batch,3,height,width]"]))
    with pytest.raises(ConverterError, match="NAME=SIZE"):
        fixed_sizes(["height=x"], parse_inputs(["x:float32[batch,3,height,width]"]))


def test_the_way_out_that_the_error_names(tmp_path: Path) -> None:
    from click.testing import CliRunner

    from converter.cli.main import cli

    (tmp_path / "looping.py").write_text(
        "import torch\nclass Loop(torch.nn.Module):\n    def forward(self, x):\n        total = x[:, 0]\n"
        "        for step in range(1, x.shape[1]):\n            total = total * 0.5 + x[:, :step].sum(1)\n        return total\n")
    args = ["torch-to-json", "-o", str(tmp_path / "m.json"), "--module", f"{tmp_path / 'looping.py'}:Loop",
            "--input", "x:float32[batch,time,4]"]
    refused = CliRunner().invoke(cli, args)
    assert refused.exit_code == 2
    assert "--fix time=37" in refused.output
    assert "looping.py:5 in forward" in refused.output
    assert CliRunner().invoke(cli, [*args, "--fix", "time=5"]).exit_code == 0
    assert str(converter.load(tmp_path / "m.json").graph.inputs[0].spec) == "float32[batch, 5, 4]"


class Flat(nn.Module):
    """A strided net whose last layer fixes what is left of the image: a few heights, up to the stride, come to the same."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 4, 3, 4), nn.Linear(4 * 8 * 8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.flatten(self.conv(x), 1))


def test_a_few_sizes_that_come_to_the_same_are_not_free() -> None:
    example = (torch.randn(2, 3, 32, 32),)
    with pytest.raises(UnsupportedError, match="asked to be free are not: height, width"):
        converter.from_torch(Flat().eval(), example, dims={"x": ["batch", 3, "height", "width"]})
    model = converter.from_torch(Flat().eval(), example, dims={"x": ["batch", 3, 32, 32]})
    assert [str(size) for size in model.graph.inputs[0].spec.shape] == ["batch", "3", "32", "32"]


class Modulated(nn.Module):
    """A convolution with a filter of its own for each example, as StyleGAN has it: its groups are the batch."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.weight, self.style = nn.Parameter(torch.randn(1, 6, 4, 3, 3)), nn.Linear(8, 4)

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        weight = (self.weight * self.style(style).view(batch, 1, channels, 1, 1)).view(batch * 6, channels, 3, 3)
        return nn.functional.conv2d(x.reshape(1, -1, height, width), weight, padding=1, groups=batch).view(batch, 6, height, width)


def test_a_refusal_fixes_the_sizes_alone_that_it_depends_on() -> None:
    net = Modulated().eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConversionWarning)  # of the batch, while a convolution of free groups is refused
        model = converter.from_torch(net, (torch.randn(2, 4, 8, 8), torch.randn(2, 8)))
    assert_equal(model, net, (torch.randn(2, 4, 5, 9), torch.randn(2, 8)), (torch.randn(2, 4, 12, 3), torch.randn(2, 8)))
