"""What `verify` does not judge: drawn inputs that the model itself refuses; what it draws so that few are; and the words and exit codes."""

from __future__ import annotations

import errno
import json
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import pytest
import torch
from torch import nn

import converter
from adapters.torch.live import convert
from converter.builder import GraphBuilder
from converter.equivalence.html import html
from converter.equivalence.inputs import Planner
from converter.equivalence.junit import junit
from converter.ir import DType, Example, Model
from converter.parameters import InMemoryParameters
from tests.cli.test_cli_convert import run

RUNTIMES = ["numpy", "onnxruntime"]


def filled(rows: int, examples: bool = True) -> Model:
    """x with its places above 3 deviations replaced by the values given, which nearly never suffice: all masked where x is above -9."""
    b = GraphBuilder("filled")
    x = b.input("x", "float32", ["n", 8])
    values = b.input("values", "float32", [rows])
    b.output("y", b.op("masked_scatter", x, b.op("greater", x, 0.0), values))
    given = {"x": np.array([[-1, -2, 1, -3, -4, 2, -1, -1]], np.float32), "values": np.arange(rows, dtype=np.float32)}
    outputs = {"y": np.array([[-1, -2, 0, -3, -4, 1, -1, -1]], np.float32)}
    return Model(b.graph(), InMemoryParameters({}), (Example(given, outputs, "torch"),) if examples else ())


def test_values_that_the_graph_refuses_are_not_judged() -> None:
    report = converter.verify(filled(2), RUNTIMES)
    assert report.exit_code == 0, str(report)
    assert report.unjudged
    assert report.tried >= 6
    assert all(item.by == "graph" and "masked_scatter" in item.reason for item in report.unjudged)


class Roomless:
    """A runtime on a machine without room."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __call__(self, model: Model) -> Roomless:
        return self

    def run(self, inputs: object) -> dict[str, np.ndarray]:
        raise converter.RunError("the runtime stopped") from self.error


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), MemoryError("Unable to allocate 9 GiB")])
def test_a_machine_without_room_is_no_verdict(error: BaseException) -> None:
    def loads(model: Model) -> Roomless:
        raise error

    for runtime in (Roomless(error), loads):
        with pytest.raises(converter.ConverterError, match=r"small cannot be judged on this machine.*(No space|Unable)"):
            converter.verify(filled(64), {"small": runtime})
    report = converter.verify(filled(64), {"small": Roomless(ValueError("a defect"))})
    assert report.exit_code == 1


def test_they_are_told_everywhere_with_what_to_do() -> None:
    report = converter.verify(filled(2), ["numpy"])
    told = f"{len(report.unjudged)} of {report.tried} drawn inputs not judged"
    assert told in str(report)
    assert "--input-file" in str(report)
    assert "--input-file" in html(report)
    assert "drawn inputs not judged" in html(report)
    content = json.loads(json.dumps(report.to_dict()))
    assert (content["verdict"], content["drawn"], len(content["unjudged"])) == ("equivalent", report.tried, len(report.unjudged))
    assert content["unjudged"][0]["sizes"]
    assert content["unjudged"][0]["reason"]
    root = ET.fromstring(junit(report))
    assert len(root.findall(".//skipped")) == len(report.unjudged)
    assert root.attrib["failures"] == root.attrib["errors"] == "0"


def test_a_model_of_which_nothing_was_judged_is_not_equivalent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    report = converter.verify(filled(0, examples=False), RUNTIMES)
    assert not report
    assert report.exit_code == 2, str(report)
    assert "cannot be judged" in str(report)
    assert ET.fromstring(junit(report)).attrib["errors"] != "0"
    converter.save(filled(0, examples=False), "m.json")
    for options in ((), ("--json",), ("--quiet",)):
        assert "Error: m.json: cannot be judged: " in run("verify", "m.json", *options, code=2).stderr
    # Inputs of one's own settle it.
    np.savez("given.npz", x=np.full((2, 8), -1, np.float32), values=np.zeros(0, np.float32))
    run("verify", "m.json", "--input-file", "given.npz")


def test_a_runtime_that_is_wrong_on_the_example_still_fails() -> None:
    model = filled(2)
    wrong = replace(model, examples=(replace(model.examples[0], outputs={"y": model.examples[0].outputs["y"] + 1}),))
    report = converter.verify(wrong, ["numpy"])
    assert report.exit_code == 1


def test_a_frozen_size_is_a_fault_and_no_refusal_of_values() -> None:
    """A graph that runs at the recorded sizes alone, though its ranges are free."""
    b = GraphBuilder("frozen")
    x = b.input("x", "float32", ["n", 4])
    index = b.op("astype", b.op("clip", x, 0.0, 1.0), dtype=DType.INT64)
    b.output("y", b.op("add", x, b.op("take", b.parameter("table", "float32", [3, 4]), b.op("select", index, axis=1, index=0), axis=0)))
    honest = Model(b.graph(), InMemoryParameters({"table": np.ones((3, 4), np.float32)}))
    x3 = np.zeros((3, 4), np.float32)
    c = GraphBuilder("frozen")
    x = c.input("x", "float32", ["n", 4])
    y = c.op("index_put", x, c.parameter("table", "float32", [3, 4]), c.op("arange", start=0, stop=x.shape[0], dtype=DType.INT64),
             accumulate=True)
    c.output("y", y)
    frozen = Model(c.graph(), honest.parameters, (Example({"x": x3}, {"y": x3 + 1}, "torch"),))
    assert converter.verify(replace(honest, examples=frozen.examples), RUNTIMES)
    report = converter.verify(frozen, RUNTIMES)
    assert report.exit_code == 1
    assert "those of other inputs" in str(report)


class Systems(nn.Module):
    """Matrices that are computed from the input, inverted in several ways."""

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        system = x.reshape(x.shape[0], 3, 3)
        normal = system @ system.transpose(1, 2) + 0.5 * torch.eye(3)
        return torch.linalg.solve(system, x[:, :3, None]), torch.linalg.inv(system), torch.linalg.cholesky(normal)


class Ids(nn.Module):
    """TabNet's way: columns of ids among numbers, all floats."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(5, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x[:, :2], self.table(x[:, 2].long())], 1)


class Head(nn.Module):
    """The best places of a map, gathered."""

    def __init__(self, choose: str) -> None:
        super().__init__()
        self.scores, self.choose = nn.Linear(4, 1), choose

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        score = self.scores(x).squeeze(-1)
        place = {"topk": lambda: score.topk(2).indices, "sort": lambda: score.argsort(-1)[:, :2],
                 "argmax": lambda: score.argmax(-1, keepdim=True)}[self.choose]()
        return x.gather(1, place.unsqueeze(-1).expand(-1, -1, 4))


@pytest.mark.parametrize(("module", "example"), [
    (Systems(), torch.randn(2, 9)), (Ids(), torch.tensor([[0.5, -1.0, 3.0], [2.0, 0.1, 0.0]])),
    *((Head(name), torch.randn(2, 6, 4)) for name in ("topk", "sort", "argmax")),
], ids=["systems", "ids", "topk", "sort", "argmax"])
def test_honest_modules(module: nn.Module, example: torch.Tensor) -> None:
    torch.manual_seed(0)
    dims = {"x": ["batch", 9]} if isinstance(module, Systems) else "auto"
    found = convert(module.eval(), (example,), dims=dims)
    for source in (None, found.source):
        for seed in range(2):
            report = converter.verify(found.model, RUNTIMES, source=source, seed=seed)
            assert (report.exit_code, report.unjudged) == (0, []), str(report)


def test_ids_that_come_as_floats_lie_in_the_table() -> None:
    model = converter.from_torch(Ids(), (torch.tensor([[0.5, -1.0, 3.0], [2.0, 0.1, 0.0]]),))
    planner = Planner(model.graph, model.parameters)
    for index in range(6):
        x = planner.case(index).inputs["x"]
        assert x.dtype == np.float32
        assert set(np.unique(x)) <= set(range(5))


def test_the_search_for_the_place_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Wrong:
        def __init__(self, model: Model) -> None:
            self.session = converter.session(model, "numpy")

        def run(self, inputs: object) -> dict[str, np.ndarray]:
            return {name: value + 1 for name, value in self.session.run(inputs).items()}  # type: ignore[arg-type]

    module = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    model = converter.from_torch(module, (torch.randn(2, 3),))
    report = converter.verify(model, {"wrong": Wrong}, locate_seconds=0.0)
    assert report.exit_code == 1
    assert "cut at 0 s" in report.locations[0].reason
    assert converter.verify(model, {"wrong": Wrong}).locations[0].index == 0


def test_one_size_only_is_said() -> None:
    for dims, said in ((None, True), ("auto", False)):
        model = converter.from_torch(nn.Linear(3, 4), (torch.randn(2, 3),), dims=dims)
        report = converter.verify(model, ["numpy"])
        assert report
        assert any("no size of this model is free" in note for note in report.notes) == said


def test_a_runtime_without_words_for_a_model_says_nothing_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX has no empty names."""
    monkeypatch.chdir(tmp_path)
    builder = converter.GraphBuilder("g")
    builder.output("", builder.op("abs", builder.input("x", "float32", ["n", 3])))
    model = converter.Model(builder.graph(), converter.InMemoryParameters({}))
    report = converter.verify(model, RUNTIMES)
    assert report.exit_code == 2
    assert {item.subject for item in report.left_open} == {"onnxruntime"}
    assert all(item.passed for item in report.rows if item.subject == "numpy")
    converter.save(model, "m.json")
    assert "cannot load the model" in run("verify", "m.json", code=2).stderr


@pytest.mark.parametrize("dtype", ["uint16", "uint32", "uint64"])
def test_a_dtype_that_an_operator_of_a_runtime_does_not_take_says_nothing_of_the_model(dtype: str) -> None:
    """PyTorch has these dtypes, and no shifts of them."""
    b = GraphBuilder("shifted")
    x = b.input("x", dtype, ["n"])
    b.output("y", b.op("bitwise_left_shift", x, x))
    model = Model(b.graph(), InMemoryParameters({}))
    with pytest.raises(converter.UnsupportedError, match=r"no kernel for this.*'UInt"):
        converter.session(model, "torch").run({"x": np.ones(3, dtype)})
    report = converter.verify(model, ["numpy", "torch"])
    assert report.exit_code == 2, str(report)
    assert {(item.subject, "no kernel" in item.reason) for item in report.left_open} == {("torch", True)}
    assert report.failures == []
    assert converter.verify(model, ["numpy"]).exit_code == 0
