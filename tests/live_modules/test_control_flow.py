"""Sub-graphs: the rules that they keep to, files and digests, ONNX, rebuilt modules, proofs, and what is refused."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch._higher_order_ops.scan import scan
from torch._higher_order_ops.while_loop import while_loop

import converter
from adapters.torch.rebuilding.rebuild import to_module
from converter import reference
from converter.builder import GraphBuilder, Value
from converter.checking import check
from converter.errors import EndlessLoopError, GraphError, RunError, UnsupportedError
from converter.format import model_digest
from converter.ir import DType, Graph, Model
from converter.parameters import InMemoryParameters

pytestmark = pytest.mark.xdist_group("control_flow")  # one process makes what they share

RUNTIMES = ["reference", "numpy", "onnxruntime", "torch"]


def body(write: Callable[..., Any], **inputs: Any) -> Graph:
    """A sub-graph with the given inputs, `name=(dtype, shape)`."""
    builder = GraphBuilder("body")
    results = write(builder, *(builder.input(name, *spec) for name, spec in inputs.items()))
    for position, value in enumerate(results if isinstance(results, tuple) else (results,)):
        builder.output(f"output_{position}", value)
    return builder.graph()


def model_of(builder: GraphBuilder, *values: Value, parameters: dict[str, Any] | None = None) -> Model:
    for position, value in enumerate(values):
        builder.output(f"y{position}", value)
    store = InMemoryParameters(parameters or {})
    model = Model(builder.graph(), store)
    check(model.graph, store)
    return model


def branching(then_size: Any = "n", else_size: Any = "n") -> Model:
    builder = GraphBuilder("g")
    flag, x = builder.input("flag", "bool", []), builder.input("x", "float32", ["n"])
    w = builder.parameter("w", "float32", [])
    shape = {"a": ("float32", [then_size]), "b": ("float32", [])}
    other = {"a": ("float32", [else_size]), "b": ("float32", [])}
    (y,) = builder.add("cond", (flag, x, w), {
        "then_branch": body(lambda g, a, b: g.op("multiply", a, b), **shape),
        "else_branch": body(lambda g, a, b: g.op("subtract", a, b), **other)})
    return model_of(builder, y, parameters={"w": np.asarray(3, np.float32)})


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("names", [("n", "n"), ("m", "k"), ("n", "m")])
def test_a_body_has_its_own_sizes(runtime: str, names: tuple[str, str]) -> None:
    session = converter.session(branching(*names), runtime=runtime)
    x = np.arange(5, dtype=np.float32)
    np.testing.assert_array_equal(session.run({"flag": np.asarray(True), "x": x})["y0"], x * 3)
    np.testing.assert_array_equal(session.run({"flag": np.asarray(False), "x": x})["y0"], x - 3)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_name_means_another_size_inside(runtime: str) -> None:
    """`n` is 2n outside: what a body computes from it must not be what was computed outside."""
    builder = GraphBuilder("g")
    flag, x = builder.input("flag", "bool", []), builder.input("x", "float32", ["n"])
    double = builder.op("concat", x, x, axis=0)
    outside = builder.op("full", shape=(), fill_value=builder.specs["x"].shape[0], dtype=DType.FLOAT32)
    count = body(lambda g, a: g.op("full", shape=(), fill_value=g.specs["a"].shape[0], dtype=DType.FLOAT32), a=("float32", ["n"]))
    (inside,) = builder.add("cond", (flag, double), {"then_branch": count, "else_branch": count})
    session = converter.session(model_of(builder, outside, inside), runtime=runtime)
    found = session.run({"flag": np.asarray(True), "x": np.zeros(3, np.float32)})
    assert (found["y0"], found["y1"]) == (3, 6)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_body_uses_sizes_of_the_graph_around(runtime: str) -> None:
    builder = GraphBuilder("g")
    x, steps = builder.input("x", "float32", ["batch", "time"]), builder.input("steps", "int64", [])
    batch = builder.specs["x"].shape[0]
    condition = body(lambda g, i, total: g.op("greater", i, 0), i=("int64", []), total=("float32", []))
    step = body(lambda g, i, total: (g.op("subtract", i, 1), g.op("add", total, g.op(
        "full", shape=(), fill_value=batch, dtype=DType.FLOAT32))), i=("int64", []), total=("float32", []))
    zero = builder.op("full", shape=(), fill_value=0.0, dtype=DType.FLOAT32)
    _, total = builder.add("while_loop", (steps, zero), {"carried": 2, "condition": condition, "body": step})
    session = converter.session(model_of(builder, total, builder.op("sum", x)), runtime=runtime)
    for size, count in ((3, 4), (1, 0), (5, 1)):
        assert session.run({"x": np.ones((size, 2), np.float32), "steps": np.asarray(count)})["y0"] == size * count


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_value_that_passes_through(runtime: str) -> None:
    """Branches and loops that give what they take, twice, and a graph output that a body reads."""
    builder = GraphBuilder("g")
    flag, x = builder.input("flag", "bool", []), builder.input("x", "float32", ["n"])
    y = builder.op("exp", x)
    same = body(lambda g, a: (a, a, g.op("negative", a)), a=("float32", ["n"]))
    p, q, r = builder.add("cond", (flag, y), {"then_branch": same, "else_branch": same})
    last, rows = builder.add("scan", (y, y), {"states": 1, "sequences": 1, "body": body(
        lambda g, s, e: (s, e), s=("float32", ["n"]), e=("float32", []))})
    session = converter.session(model_of(builder, y, p, q, r, last, rows), runtime=runtime)
    found = list(session.run({"flag": np.asarray(False), "x": np.linspace(0, 1, 4, dtype=np.float32)}).values())
    for value in (*found[1:3], -found[3], *found[4:]):
        np.testing.assert_array_equal(value, found[0])


class Loop(torch.nn.Module):
    """A while_loop in a branch, on parameters of both."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.outer = torch.nn.Linear(4, 4), torch.nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        def repeat(x: torch.Tensor) -> torch.Tensor:
            return while_loop(lambda i, x: i < 3, lambda i, x: (i + 1, torch.tanh(self.inner(x))),
                              (torch.zeros((), dtype=torch.int64), x))[1]

        return {"y": torch.cond(x.mean() > 0, repeat, lambda x: self.outer(x) * x.shape[0], (x,))}


class Recurrence(torch.nn.Module):
    """A cell that is scanned over time, with weights."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = torch.nn.Linear(4, 4)

    def forward(self, x: torch.Tensor, h: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        def step(h: torch.Tensor, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            new = torch.tanh(self.cell(h) + x)
            return new, new.sum(-1)

        return scan(step, h, x, dim=0)


@pytest.fixture(scope="module")
def loop() -> Model:
    torch.manual_seed(0)
    return converter.from_torch(Loop(), (torch.randn(3, 4),))


@pytest.fixture(scope="module")
def recurrence() -> Model:
    torch.manual_seed(0)
    return converter.from_torch(Recurrence(), (torch.randn(5, 3, 4), torch.randn(3, 4)),
                                dims={"x": ["time", "batch", 4], "h": ["batch", 4]})


@pytest.mark.parametrize("name", ["loop", "recurrence"])
@pytest.mark.parametrize("suffix", [".json", ".h5"])
def test_files_keep_bodies(name: str, suffix: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    model = request.getfixturevalue(name)
    converter.save(model, tmp_path / f"m{suffix}")
    again = converter.load(tmp_path / f"m{suffix}")
    assert again.graph == model.graph
    assert model_digest(again) == model_digest(model)


def test_the_digest_is_of_the_bodies_too(recurrence: Model) -> None:
    nodes = list(recurrence.graph.nodes)
    place = next(index for index, node in enumerate(nodes) if node.op == "scan")
    inner = nodes[place].attributes["body"]
    changed = dataclasses.replace(inner, nodes=tuple(
        dataclasses.replace(node, op="sin") if node.op == "tanh" else node for node in inner.nodes))
    assert changed != inner
    nodes[place] = dataclasses.replace(nodes[place], attributes={**nodes[place].attributes, "body": changed})
    other = dataclasses.replace(recurrence, graph=dataclasses.replace(recurrence.graph, nodes=tuple(nodes)))
    assert model_digest(other) != model_digest(recurrence)


@pytest.mark.parametrize("name", ["loop", "recurrence"])
def test_the_proof_of_equivalence_holds(name: str, request: pytest.FixtureRequest) -> None:
    report = converter.verify(request.getfixturevalue(name), runtimes=["numpy", "onnxruntime", "torch"])
    assert report, str(report)


@pytest.mark.parametrize("name", ["loop", "recurrence"])
@pytest.mark.parametrize("opset", [18, 23])
def test_onnx_files_are_valid(name: str, opset: int, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    converter.save(request.getfixturevalue(name), tmp_path / "m.onnx", opset=opset)
    onnx.checker.check_model(str(tmp_path / "m.onnx"), full_check=True)


@pytest.mark.parametrize("name", ["loop", "recurrence"])
def test_rebuilt_modules_train_and_convert_again(name: str, request: pytest.FixtureRequest) -> None:
    model = request.getfixturevalue(name)
    module = to_module(model)
    inputs = [torch.from_numpy(np.array(model.examples[0].inputs[port.name])) for port in model.graph.inputs]
    result = module(*inputs)
    sum(value.sum() for value in (result.values() if isinstance(result, dict) else result)).backward()
    assert any(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in module.parameters())
    again = converter.from_torch(module, tuple(inputs))
    for example in model.examples[:1]:
        found = converter.session(again, runtime="numpy").run(example.inputs)
        for key, wanted in example.outputs.items():
            np.testing.assert_allclose(found[key], wanted, rtol=1e-5, atol=1e-6)


def test_a_scan_over_nothing_is_refused() -> None:
    builder = GraphBuilder("g", {"n": converter.DimRange(0)})
    x = builder.input("x", "float32", ["n"])
    (y,) = builder.add("scan", (x,), {"states": 0, "sequences": 1, "body": body(lambda g, e: g.op("exp", e), e=("float32", []))})
    for runtime in ("reference", "numpy", "torch"):
        with pytest.raises(RunError, match="no elements"):
            converter.session(model_of_once(builder, y), runtime=runtime).run({"x": np.zeros(0, np.float32)})


def model_of_once(builder: GraphBuilder, value: Value) -> Model:
    graph = builder.graph()
    output = converter.GraphOutput("y", value.spec, value.name)
    return Model(dataclasses.replace(graph, outputs=(output,), nodes=tuple(builder._nodes)), InMemoryParameters())


FLAG, VECTOR = ("bool", []), ("float32", ["n"])
WRONG: dict[str, tuple[Callable[[GraphBuilder, Value, Value], Any], str]] = {
    "another number of operands": (lambda g, f, x: g.add("cond", (f, x, x), {
        "then_branch": body(lambda b, a: a, a=VECTOR), "else_branch": body(lambda b, a: a, a=VECTOR)}), "number of operands"),
    "branches of two kinds": (lambda g, f, x: g.add("cond", (f, x), {
        "then_branch": body(lambda b, a: a, a=VECTOR), "else_branch": body(lambda b, a: b.op("sum", a), a=VECTOR)}), "different kinds"),
    "an operand of another dtype": (lambda g, f, x: g.add("cond", (f, f), {
        "then_branch": body(lambda b, a: a, a=("float32", [])), "else_branch": body(lambda b, a: a, a=("float32", []))}), "does not take"),
    "a predicate that is no boolean": (lambda g, f, x: g.add("cond", (x, x), {
        "then_branch": body(lambda b, a: a, a=VECTOR), "else_branch": body(lambda b, a: a, a=VECTOR)}), "predicate"),
    "a loop that changes a shape": (lambda g, f, x: g.add("while_loop", (x,), {
        "carried": 1, "condition": body(lambda b, a: b.op("any", b.op("less", a, 0.0)), a=VECTOR),
        "body": body(lambda b, a: b.op("sum", a), a=VECTOR)}), "what is carried"),
    "a condition that is no boolean": (lambda g, f, x: g.add("while_loop", (x,), {
        "carried": 1, "condition": body(lambda b, a: b.op("sum", a), a=VECTOR), "body": body(lambda b, a: a, a=VECTOR)}), "boolean"),
    "a scan without a sequence": (lambda g, f, x: g.add("scan", (x,), {
        "states": 1, "sequences": 0, "body": body(lambda b, a: a, a=VECTOR)}), "sequences"),
    "a size that only the body's data decide": (lambda g, f, x: g.add("cond", (f, x), {
        "then_branch": nonzeros(), "else_branch": nonzeros()}), "only its data decide"),
}


def nonzeros() -> Graph:
    from converter.dims import symbol

    return body(lambda b, a: b.add("nonzero", (a,), {"size": symbol("k")})[0], a=VECTOR)


@pytest.mark.parametrize("case", WRONG)
def test_rules(case: str) -> None:
    builder = GraphBuilder("g")
    flag, x = builder.input("f", *FLAG), builder.input("x", *VECTOR)
    write, message = WRONG[case]
    with pytest.raises(GraphError, match=message):
        write(builder, flag, x)


def test_a_fault_inside_a_body_is_found() -> None:
    model = branching()
    (node,) = model.graph.nodes
    inner = node.attributes["then_branch"]
    broken = dataclasses.replace(inner, nodes=tuple(dataclasses.replace(item, inputs=("a", "nowhere")) for item in inner.nodes))
    node = dataclasses.replace(node, attributes={**node.attributes, "then_branch": broken})
    with pytest.raises(GraphError, match="nowhere"):
        check(dataclasses.replace(model.graph, nodes=(node,)), model.parameters)


def test_an_unbound_size_inside_a_body_is_found() -> None:
    from converter.dims import symbol

    model = branching()
    (node,) = model.graph.nodes
    lost = body(lambda g, a, b: g.op("multiply", a, g.op("full", shape=(), fill_value=symbol("lost"), dtype=DType.FLOAT32)),
                a=("float32", ["n"]), b=("float32", []))
    node = dataclasses.replace(node, attributes={**node.attributes, "then_branch": lost})
    with pytest.raises(GraphError, match="lost"):
        check(dataclasses.replace(model.graph, nodes=(node,)), model.parameters)


def test_unsupported_operators_inside_bodies_are_listed_with_their_lines() -> None:
    class Random(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.cond(x.sum() > 0, lambda x: x + torch.rand_like(x) + torch.rand_like(x), lambda x: x + torch.randn_like(x), (x,))

    with pytest.raises(UnsupportedError) as caught:
        converter.from_torch(Random(), (torch.randn(3, 4),))
    counts: dict[Any, int] = {}
    for item in caught.value.items:
        counts[item["operator"]] = counts.get(item["operator"], 0) + item["count"]
    assert counts == {"aten.rand_like.default": 2, "aten.randn_like.default": 1}


def repeated(name: str, body: Graph, limit: int) -> Graph:
    """A graph that runs `body` on its one input until a counter is at the limit."""
    more, step = GraphBuilder(f"{name}_more"), GraphBuilder(f"{name}_step")
    more.input("x", "float32", [2])
    more.output("more", more.op("less", more.input("i", "int64", []), limit))
    x, i = step.input("x", "float32", [2]), step.input("i", "int64", [])
    step.output("y", step.add("cond", (step.op("equal", i, i), x), {"then_branch": body, "else_branch": body})[0])
    step.output("j", step.op("add", i, 1))
    builder = GraphBuilder(name)
    x = builder.input("x", "float32", [2])
    zero = builder.op("full", shape=(), fill_value=0, dtype="int64")
    found = builder.add("while_loop", (x, zero), {"carried": 2, "condition": more.graph(), "body": step.graph()})
    builder.output("y", found[0])
    return builder.graph()


def one_more() -> Graph:
    builder = GraphBuilder("one_more")
    builder.output("y", builder.op("add", builder.input("x", "float32", [2]), 1))
    return builder.graph()


@pytest.mark.parametrize("runtime", ["reference", "numpy", "onnxruntime", "torch"])
@pytest.mark.parametrize("length", [0, 99, 100, 101, 1 << 60])
def test_a_loop_without_end_is_an_error(monkeypatch: pytest.MonkeyPatch, runtime: str, length: int) -> None:
    monkeypatch.setattr("converter.ops.control.MAX_STEPS", 100)
    session = converter.session(Model(repeated("loop", one_more(), length), InMemoryParameters({})), runtime)
    if length <= 100:
        assert session.run({"x": np.ones(2, np.float32)})["y"].tolist() == [length + 1.0] * 2
        return
    with pytest.raises(RunError, match="a loop did not end within 100 steps" if runtime != "onnxruntime" else "out of data bounds"):
        session.run({"x": np.ones(2, np.float32)})


@pytest.mark.parametrize("runtime", ["reference", "numpy", "torch"])
def test_loops_within_loops_are_counted_together(monkeypatch: pytest.MonkeyPatch, runtime: str) -> None:
    monkeypatch.setattr("converter.ops.control.MAX_STEPS_WITHIN", 350)
    model = Model(repeated("outer", repeated("inner", one_more(), 30), 10), InMemoryParameters({}))
    for _ in range(2):
        assert converter.session(model, runtime).run({"x": np.zeros(2, np.float32)})["y"].tolist() == [300.0] * 2
    model = Model(repeated("outer", repeated("inner", one_more(), 35), 10), InMemoryParameters({}))
    with pytest.raises(RunError, match="within 350 steps"):
        converter.session(model, runtime).run({"x": np.zeros(2, np.float32)})


def test_a_verdict_on_a_loop_without_end_is_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("converter.ops.control.MAX_STEPS", 100)
    model = Model(repeated("loop", one_more(), 1 << 60), InMemoryParameters({}))
    runs: list[int] = []
    run_cases = reference.run_cases

    def counted(model: Model, cases: Any, **options: Any) -> Any:
        runs.append(len(cases))
        return run_cases(model, cases, **options)

    monkeypatch.setattr(reference, "run_cases", counted)
    with pytest.raises(EndlessLoopError, match=r"within 100 steps.*--cases 0"):
        converter.verify(model, ["numpy"], cases=3)
    assert runs == [1]
