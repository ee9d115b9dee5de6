"""Models in another float dtype, on the way from one format to another."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch
from click.testing import CliRunner

import converter
from converter.casting import cast, cast_parameters
from converter.cli.console import Watched, remaining
from converter.cli.main import cli
from converter.errors import ConverterError, GraphError, ParameterError, UnsupportedError
from converter.ir import DType
from tests.test_public import small_model

ROOT = Path(__file__).parent.parent
TARGETS = ("float16", "bfloat16", "float32")


def model(dtype: str = "float32", *, fill: float = float(np.finfo(np.float32).min), literal: float = 2.0) -> converter.Model:
    """Attention by hand: a mask filled with the lowest number, a softmax, a literal, an integer input and a tied weight."""
    builder = converter.GraphBuilder("masked")
    x = builder.input("x", dtype, ["batch", 3])
    keep = builder.input("keep", "bool", ["batch", 3])
    scores = builder.op("linear", x, builder.parameter("w", dtype, [3, 3]))
    masked = builder.op("where", keep, scores, builder.op("full", shape=[1, 3], fill_value=fill, dtype=dtype))
    y = builder.op("multiply", builder.op("softmax", masked, axis=-1), literal)
    builder.output("y", y)
    values = np.random.default_rng(0).standard_normal((3, 3)).astype(DType.of(dtype).numpy)
    return converter.Model(builder.graph(), converter.InMemoryParameters({"w": values, "steps": np.array([3])}, {"tied": "w"}))


@pytest.mark.parametrize("source", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("suffix", [".json", ".h5", ".onnx"])
def test_a_cast_model_is_a_model_of_that_dtype(tmp_path: Path, source: str, target: str, suffix: str) -> None:
    before = model(source, fill=float(ml_dtypes.finfo(DType(source).numpy).min))
    after = cast(before, target)
    converter.save(after, tmp_path / f"m{suffix}")
    back = converter.load(tmp_path / f"m{suffix}")
    assert converter.model_digest(back) == converter.model_digest(after)
    assert (converter.model_digest(after) == converter.model_digest(before)) == (source == target)
    assert {str(port.spec.dtype) for port in (*back.graph.inputs, *back.graph.outputs)} == {target, "bool"}
    assert back.parameters.spec("steps").dtype is DType.INT64
    assert back.parameters.alias_of("tied") == "w"
    expected = before.parameters.read("w").astype(DType(target).numpy)
    assert back.parameters.read("w").tobytes() == expected.tobytes()


@pytest.mark.parametrize("target", TARGETS)
def test_what_it_computes_is_near_and_masks_still_mask(target: str) -> None:
    before = model()
    after = cast(before, target)
    x = np.random.default_rng(1).standard_normal((2, 3)).astype(np.float32)
    keep = np.array([[True, False, True], [False, False, False]])
    wanted = converter.session(before, "reference").run({"x": x, "keep": keep})["y"]
    found = converter.session(after, "reference").run({"x": x.astype(DType(target).numpy), "keep": keep})["y"].astype(np.float32)
    # A row that is masked everywhere is even, not NaN: the lowest number became the other dtype's lowest, not -inf.
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found, wanted, atol={"float16": 3e-3, "bfloat16": 3e-2, "float32": 0}[target])


def test_a_dtype_that_only_calculates_stays() -> None:
    builder = converter.GraphBuilder("upcast")
    x = builder.input("x", "bfloat16", ["batch", 2])
    y = builder.op("softmax", builder.op("astype", x, dtype="float32"), axis=-1)
    builder.output("y", builder.op("linear", builder.op("astype", y, dtype="bfloat16"), builder.parameter("w", "bfloat16", [2, 2])))
    store = converter.InMemoryParameters({"w": np.ones((2, 2), ml_dtypes.bfloat16)})
    after = cast(converter.Model(builder.graph(), store), "float16")
    assert [str(node.attributes["dtype"]) for node in after.graph.nodes if node.op == "astype"] == ["float32", "float16"]


def test_numbers_that_the_dtype_cannot_hold_are_all_listed() -> None:
    with pytest.raises(UnsupportedError) as caught:
        cast(model(fill=-1e9, literal=1e6), "float16")
    assert {item["reason"] for item in caught.value.items} == {"the number -1000000000.0", "the number 1000000.0"}
    assert "bfloat16" in str(caught.value)
    assert cast(model(fill=-1e9, literal=1e6), "bfloat16").graph.nodes
    assert cast(model(fill=float("-inf")), "float16").graph.nodes


def test_values_outside_of_the_range_are_refused_and_nothing_is_written(tmp_path: Path) -> None:
    store = converter.InMemoryParameters({"a": np.ones(2, np.float32), "b": np.array([1, 7e4], np.float32)})
    with pytest.raises(ParameterError, match=r"'b'.*float16"):
        converter.save(cast_parameters(store, "float16"), tmp_path / "w.safetensors")  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []
    assert cast_parameters(store, "bfloat16").read("b").dtype == ml_dtypes.bfloat16
    infinite = converter.InMemoryParameters({"a": np.array([np.inf, np.nan, -0.0], np.float32)})
    assert cast_parameters(infinite, "float16").read("a").tobytes() == np.array([np.inf, np.nan, -0.0], np.float16).tobytes()


def test_an_operator_that_forbids_the_dtype_refuses() -> None:
    builder = converter.GraphBuilder("determinant")
    builder.output("y", builder.op("det", builder.input("x", "float32", ["batch", 3, 3])))
    with pytest.raises(GraphError, match="cast to float16"):
        cast(converter.Model(builder.graph(), converter.InMemoryParameters()), "float16")


def test_other_dtypes_are_refused() -> None:
    for dtype in ("float64", "int8", "float8_e5m2", "nonsense"):
        with pytest.raises(ConverterError):
            cast(model(), dtype)


# On the command line -------------------------------------------------------------------------------------------------------


def run(*args: object, code: int = 0) -> Any:
    result = CliRunner().invoke(cli, [str(item) for item in args])
    assert result.exit_code == code, result.output
    return result


@pytest.mark.parametrize(("command", "source", "output"), [
    ("json-to-hdf5", "m.json", "o.h5"), ("json-to-onnx", "m.json", "o.onnx"), ("json-to-torch", "m.json", "o.pt"),
    ("torch-to-safetensors", "w.pt", "o.safetensors"), ("torch-to-hdf5", "w.pt", "o.h5"), ("json-to-safetensors", "m.json", "o.safetensors"),
])
def test_dtype_on_every_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, source: str, output: str) -> None:
    monkeypatch.chdir(tmp_path)
    found = small_model()
    converter.save(found, "m.json")
    torch.save({name: torch.from_numpy(found.parameters.read(name).copy()) for name in ("weight", "bias", "shift")}, "w.pt")
    more = ["--architecture", "m.json"] if command == "torch-to-hdf5" else []
    text = run(command, source, "-o", output, "--dtype", "float16", *more).stderr
    assert "cast from float32 to float16" in text
    assert ("recorded example left out" in text) == (source == "m.json" and output in ("o.h5", "o.onnx"))
    store = converter.load(output).parameters if output in ("o.h5", "o.onnx") else converter.checkpoint.load_parameters(output)
    assert store.spec("weight").dtype is DType.FLOAT16
    if output == "o.h5":
        assert converter.load(output).metadata["cast"] == {"from": ["float32"], "to": "float16"}


def test_a_dtype_that_it_has_already_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    converter.save(small_model(), "m.json")
    assert "float32 already" in run("json-to-hdf5", "m.json", "-o", "m.h5", "--dtype", "float32").stderr
    assert converter.model_digest(converter.load("m.h5")) == converter.model_digest(small_model())
    assert len(converter.load("m.h5").examples) == 1


# Streaming -----------------------------------------------------------------------------------------------------------------


def test_progress_says_bytes_and_the_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 2.0, 4.0, 4.0])
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    said: list[str] = []
    watched = Watched(converter.InMemoryParameters({name: np.zeros(250_000, np.float32) for name in "abc"}), said.append, "writing o.h5")
    for name in "aabc":
        watched.read(name)
    assert said == ["writing o.h5  1 MB of 3 MB, 0:04 left", "writing o.h5  2 MB of 3 MB, 0:02 left", "writing o.h5  3 MB of 3 MB, 0:00 left"]
    assert [remaining(seconds) for seconds in (0.2, 61, 3725)] == ["0:01", "1:01", "1:02:05"]


BIG = """
import numpy as np, torch, converter
from converter.format import save_graph
builder = converter.GraphBuilder("big")
x = builder.input("x", "float32", ["batch", 1024])
for index in range(24):
    x = builder.op("linear", x, builder.parameter(f"w{index}", "float32", [1024, 1024]))
builder.output("y", x)
save_graph(builder.graph(), builder.parameters, "graph.json")
torch.save({name: torch.rand(1024, 1024) for name in builder.parameters}, "w.pt")
"""


@pytest.fixture(scope="module")
def big(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a checkpoint of 100 MB in tensors of 4 MB, and its graph."""
    folder = tmp_path_factory.mktemp("big")
    subprocess.run([sys.executable, "-c", BIG], cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True, timeout=120)
    return folder


MEASURED = """
import sys
from pathlib import Path
from converter.cli import main

def own():
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return sum(int(fields[name].split()[0]) for name in ("RssAnon", "RssShmem")) / 1000

import converter.loading, converter.format.hdf5_encoding, converter.format.json_encoding, adapters.onnx.export
import converter.parameters as parameters
peak, start, original = 0, own(), parameters.as_bytes

def watched(values):
    global peak
    peak = max(peak, own())
    return original(values)

for module in list(sys.modules.values()):
    if getattr(module, "as_bytes", None) is original:
        module.as_bytes = watched
try:
    main(sys.argv[1:])
finally:
    print("extra", peak - start)
"""


@pytest.mark.parametrize(("command", "output"), [("torch-to-hdf5", "o.h5"), ("torch-to-onnx", "o.onnx"), ("torch-to-json", "o.json"),
                                                 ("torch-to-safetensors", "o.safetensors")])
def test_memory_is_that_of_one_tensor(big: Path, tmp_path: Path, command: str, output: str) -> None:
    more = [] if output == "o.safetensors" else ["--architecture", "graph.json"]
    result = subprocess.run([sys.executable, "-c", MEASURED, command, "w.pt", "-o", str(tmp_path / output), *more], cwd=big,
                            env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0, result.stderr
    assert float(result.stdout.split("extra")[1]) < 40


@pytest.mark.parametrize(("command", "output"), [("torch-to-hdf5", "o.h5"), ("torch-to-onnx", "o.onnx"), ("torch-to-json", "o.json")])
def test_an_interrupt_leaves_nothing(big: Path, tmp_path: Path, command: str, output: str) -> None:
    process = subprocess.Popen([sys.executable, "-m", "converter", command, "w.pt", "-o", str(tmp_path / output), "--architecture",
                                "graph.json"], cwd=big, env={**os.environ, "PYTHONPATH": str(ROOT)}, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not list(tmp_path.iterdir()) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    process.send_signal(signal.SIGINT)
    _, text = process.communicate(timeout=60)
    assert "Traceback" not in text
    assert (process.returncode, [item.name for item in tmp_path.iterdir()]) in [(130, []), (0, [output])], text


def test_processes_share_one_mapping_of_the_parameters(big: Path, tmp_path: Path) -> None:
    """Every parameter that the NumPy session holds is a view of the mapped file, in each process."""
    run("torch-to-hdf5", big / "w.pt", "-o", tmp_path / "m.h5", "--architecture", big / "graph.json", "--quiet")
    program = ("import json, sys\nimport numpy as np, converter\nfrom pathlib import Path\n"
               "def own():\n"
               "    fields = dict(line.split(':', 1) for line in Path('/proc/self/status').read_text().splitlines())\n"
               "    return int(fields['RssAnon'].split()[0]) / 1000\n"
               "model = converter.load(sys.argv[1])\n"
               "converter.session(model, 'numpy')\n"
               "before = own()\n"
               "session = converter.session(model, 'numpy')\n"
               "session.run({'x': np.ones((1, 1024), np.float32)})\n"
               "spans = [line.split()[0].split('-') for line in Path('/proc/self/maps').read_text().splitlines() if line.endswith('m.h5')]\n"
               "spans = [(int(a, 16), int(b, 16)) for a, b in spans]\n"
               "arrays = [model.parameters.read(name) for name in model.parameters]\n"
               "inside = [any(a <= array.ctypes.data and array.ctypes.data + array.nbytes <= b for a, b in spans) for array in arrays]\n"
               "print(json.dumps({'inside': inside, 'own': own() - before}))")
    workers = [subprocess.Popen([sys.executable, "-c", program, str(tmp_path / "m.h5")], cwd=tmp_path, stdout=subprocess.PIPE, text=True,
                                env={**os.environ, "PYTHONPATH": str(ROOT)}) for _ in range(2)]
    for worker in workers:
        output, _ = worker.communicate(timeout=120)
        assert worker.returncode == 0
        found = json.loads(output)
        assert len(found["inside"]) == 24
        assert all(found["inside"])
        # The parameters are 100 MB: a session that copied them would hold them.
        assert found["own"] < 25
