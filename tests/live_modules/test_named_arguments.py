"""Arguments that are dicts, tuples, lists, NamedTuples, dataclasses or keywords, told by flat names as the command line does."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import nn

import converter
from adapters.torch.live import convert, convert_checkpoint
from adapters.torch.tracing.arguments import nested
from converter.cli.inputs import draw_examples, parse_inputs
from converter.errors import ConverterError
from converter.ports import Incoming

RUNTIMES = ("numpy", "onnxruntime", "torch")
X = torch.arange(6.0).reshape(2, 3)


class Pair(NamedTuple):
    first: torch.Tensor
    second: torch.Tensor


@dataclasses.dataclass
class Batch:
    dense: torch.Tensor
    pair: Pair
    scale: float = 2.0


class OfTuple(nn.Module):
    def forward(self, inputs):  # type: ignore[no-untyped-def]
        x, (lengths, more) = inputs
        return x * lengths[:, None] + more


class OfList(nn.Module):
    def forward(self, features: list[torch.Tensor] | None = None) -> torch.Tensor:
        assert isinstance(features, list)
        return features[0] * 2 - features[1]


class OfDict(nn.Module):
    def forward(self, features: dict[str, Any]) -> dict[str, torch.Tensor]:
        return {"score": features["dense"] * features["sparse"]["kinds"].sum(1, keepdim=True)}


class OfClasses(nn.Module):
    def forward(self, batch: Batch) -> torch.Tensor:
        assert isinstance(batch, Batch)
        assert isinstance(batch.pair, Pair)
        return batch.dense * batch.scale + batch.pair.first - batch.pair.second


class OfKeywords(nn.Module):
    def forward(self, x: torch.Tensor, *rest: torch.Tensor, power: int = 1, **named: Any) -> torch.Tensor:
        for item in rest:
            x = x - item
        return x**power * named.get("gain", 1) + named.get("offsets", {}).get("low", 0)


def converted(module: nn.Module, inputs: Sequence[str]) -> Incoming:
    specs = parse_inputs(inputs)
    return convert_checkpoint(module, None, None, specs, draw_examples(specs))


CASES: dict[str, tuple[type[nn.Module], list[str], list[str]]] = {
    "tuple in a tuple": (OfTuple, ["inputs.0:float32[batch,width]", "inputs.1.0:int64[batch]{1..4}", "inputs.1.1:float32[batch,width]"],
                         ["inputs.0", "inputs.1.0", "inputs.1.1"]),
    "list": (OfList, ["features.0:float32[batch,width]", "features.1:float32[batch,width]"], ["features.0", "features.1"]),
    "dict in a dict": (OfDict, ["features.dense:float32[batch,3]", "features.sparse.kinds:int64[batch,count]{0..6}"],
                       ["features.dense", "features.sparse.kinds"]),
    "dataclass and NamedTuple": (OfClasses, ["batch.dense:float32[b,w]", "batch.pair.first:float32[b,w]", "batch.pair.second:float32[b,w]"],
                                 ["batch.dense", "batch.pair.first", "batch.pair.second"]),
    "keywords": (OfKeywords, ["x:float32[b,w]", "rest.0:float32[b,w]", "gain:float32[b,w]", "offsets.low:float32[w]"],
                 ["x", "rest.0", "named.gain", "named.offsets.low"]),
}


@pytest.mark.parametrize("case", CASES)
def test_flat_names_make_up_what_forward_takes(case: str) -> None:
    build, inputs, names = CASES[case]
    module = build()
    result = converted(module, inputs)
    model = result.model
    assert [port.name for port in model.graph.inputs] == names
    for port, text in zip(model.graph.inputs, inputs, strict=True):
        assert [str(size) for size in port.spec.shape] == text[text.index("[") + 1:text.index("]")].split(",")
    assert converter.verify(model, runtimes=RUNTIMES)
    sizes = {"batch": 4, "b": 4, "width": 6, "w": 6, "count": 3}
    given = {port.name: np.ones([sizes.get(str(size), 3) for size in port.spec.shape], port.spec.dtype.numpy) * (index + 2)
             for index, port in enumerate(model.graph.inputs)}
    told = {name: torch.from_numpy(array) for name, array in zip([text.partition(":")[0] for text in inputs], given.values(), strict=True)}
    bound = nested(module, told)
    rest = bound.pop("rest", ())
    named = bound.pop("named", {})
    wanted = module(*([bound.pop("x"), *rest] if rest else []), **bound, **named)
    wanted = wanted["score"] if isinstance(wanted, dict) else wanted
    for runtime in RUNTIMES:
        found = next(iter(converter.session(model, runtime).run(given).values()))
        np.testing.assert_allclose(found, wanted.numpy(), rtol=1e-6)


@pytest.mark.parametrize(("build", "inputs", "part"), [
    (OfTuple, ["x:float32[b]"], "takes no 'x'"), (OfTuple, ["inputs.0:float32[b]", "inputs.2:float32[b]"], "without a gap"),
    (OfDict, ["features.dense:float32[b]", "features.dense.more:float32[b]"], "whole and in parts"),
    (OfDict, ["features.dense.more:float32[b]", "features.dense:float32[b]"], "whole and in parts"),
    (OfClasses, ["batch.dense:float32[b]"], "not the parts of Batch"), (OfKeywords, ["gain:float32[b]"], "do not fit the module"),
])
def test_names_that_make_up_nothing_are_refused(build: type[nn.Module], inputs: list[str], part: str) -> None:
    with pytest.raises(ConverterError, match=part):
        converted(build(), inputs)


def test_tensors_and_numbers_as_keywords_fix_no_size() -> None:
    result = convert(OfKeywords(), (X, X), {"gain": X, "offsets": {"low": X[0]}, "unused": 3, "power": 2})
    shapes = {port.name: [str(size) for size in port.spec.shape] for port in result.model.graph.inputs}
    assert shapes == {"x": ["batch", "x_1"], "rest.0": ["batch", "x_1"], "named.gain": ["batch", "x_1"], "named.offsets.low": ["x_1"]}
    assert converter.verify(result.model, runtimes=RUNTIMES)
    named = convert(OfKeywords(), (X,), {"gain": X}, dims={"x": ["rows", 3], "named.gain": ["rows", 3]}).model
    assert [[str(size) for size in port.spec.shape] for port in named.graph.inputs] == [["rows", "3"], ["rows", "3"]]


def test_on_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from converter.cli.main import cli

    monkeypatch.chdir(tmp_path)
    Path("net.py").write_text("from torch import nn\nclass Net(nn.Module):\n    def forward(self, inputs):\n"
                              "        x, n = inputs\n        return x * n[:, None]\n")
    inputs = ["--input", "inputs.0:float32[batch,time]", "--input", "inputs.1:int64[batch]{1..4}"]
    runner = CliRunner()
    made = runner.invoke(cli, ["torch-to-json", "--module", "net.py:Net", *inputs, "-o", "m.json"])
    assert made.exit_code == 0, made.output
    assert runner.invoke(cli, ["verify", "m.json", "--module", "net.py:Net", *inputs]).exit_code == 0
    np.savez("given.npz", **{"inputs.0": np.ones((3, 4), np.float32), "inputs.1": np.arange(3)})
    assert runner.invoke(cli, ["torch-to-json", "--module", "net.py:Net", "--input-file", "given.npz", "-o", "n.json"]).exit_code == 0
    wrong = runner.invoke(cli, ["torch-to-json", "--module", "net.py:Net", "--input", "x:float32[batch]", "-o", "o.json"])
    assert wrong.exit_code == 2
    assert "takes no 'x'" in wrong.output


def test_hooks_of_the_module_get_their_arguments_by_place() -> None:
    """As eager code calls it: `args[0]` is there for a hook, and an argument after one that is left out has a name."""

    class Shifted(nn.Module):
        def forward(self, x: torch.Tensor, scale: torch.Tensor | None = None, shift: torch.Tensor | None = None) -> torch.Tensor:
            return x if shift is None else x + shift

    module = Shifted().eval()
    module.register_forward_pre_hook(lambda part, args: (args[0] * 2,))
    module.register_forward_hook(lambda part, args, kwargs, output: output + args[0] - kwargs["shift"], with_kwargs=True)
    model = converter.from_torch(module, (X,), {"shift": torch.ones(3)})
    other = torch.randn(5, 3)
    for runtime in RUNTIMES:
        found = converter.session(model, runtime=runtime).run({"x": other.numpy(), "shift": np.ones(3, np.float32)})
        np.testing.assert_allclose(next(iter(found.values())), module(other, shift=torch.ones(3)).numpy(), rtol=1e-6)
