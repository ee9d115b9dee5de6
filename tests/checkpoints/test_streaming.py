"""Conversions that stream: memory, progress, interrupts, and parameters that processes share."""

from __future__ import annotations

import errno
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from click.testing import CliRunner

import converter
from converter.cli.console import Watched, remaining
from converter.cli.main import cli
from converter.format.aside import PIECE, WriterAside

pytestmark = pytest.mark.xdist_group("streaming")  # one process makes what they share

ROOT = Path(__file__).parents[2]


class Full(io.RawIOBase):
    """A file on a disk that is full after a few bytes."""

    def __init__(self) -> None:
        self.room = 3 * PIECE

    def write(self, data: object) -> int:
        self.room -= len(data)  # type: ignore[arg-type]
        if self.room < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return len(data)  # type: ignore[arg-type]


@pytest.mark.parametrize("length", [0, 1, PIECE - 1, PIECE, 40 * PIECE])
def test_a_writer_aside_writes_everything_in_order(length: int) -> None:
    content = np.random.default_rng(length).bytes(length)
    target = io.BytesIO()
    with WriterAside(target) as writer:
        writer.writelines(content[start:start + 300_001] for start in range(0, length, 300_001))
    assert target.getvalue() == content


def write_to_a_full_disk() -> None:
    with WriterAside(Full()) as writer:  # type: ignore[arg-type]
        for _ in range(100):
            writer.write(bytes(PIECE))


def test_an_error_of_the_disk_is_raised_to_the_writer() -> None:
    with pytest.raises(OSError, match="No space"):
        write_to_a_full_disk()


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    builder = converter.GraphBuilder("big")
    x = builder.input("x", "float32", ["batch", 2048])
    builder.output("y", builder.op("linear", x, builder.parameter("w", "float32", [2048, 2048])))
    model = converter.Model(builder.graph(), converter.InMemoryParameters({"w": np.ones((2048, 2048), np.float32)}))
    monkeypatch.setattr("converter.format.json_encoding.WriterAside", lambda _: WriterAside(Full()))  # type: ignore[arg-type]
    with pytest.raises(converter.ConverterError, match="No space"):
        converter.save(model, tmp_path / "m.json")
    assert list(tmp_path.iterdir()) == []


def test_progress_says_bytes_and_the_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 2.0, 4.0, 4.0])
    monkeypatch.setattr("converter.cli.console.time", SimpleNamespace(monotonic=lambda: next(clock)))  # other threads keep theirs
    said: list[str] = []
    watched = Watched(converter.InMemoryParameters({name: np.zeros(250_000, np.float32) for name in "abc"}), said.append, "writing o.h5")
    for name in "aabc":
        watched.read(name)
    assert said == ["writing o.h5  1 MB of 3 MB, 0:04 left", "writing o.h5  2 MB of 3 MB, 0:02 left",
                    "writing o.h5  3 MB of 3 MB, 0:00 left"]
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
    result = CliRunner().invoke(cli, ["torch-to-hdf5", str(big / "w.pt"), "-o", str(tmp_path / "m.h5"), "--architecture",
                                      str(big / "graph.json"), "--quiet"])
    assert result.exit_code == 0, result.output
    program = ("import json, sys\nimport numpy as np, converter\nfrom pathlib import Path\n"
               "def own():\n"
               "    fields = dict(line.split(':', 1) for line in Path('/proc/self/status').read_text().splitlines())\n"
               "    return int(fields['RssAnon'].split()[0]) / 1000\n"
               "model = converter.load(sys.argv[1])\n"
               "converter.session(model, 'numpy')\n"
               "before = own()\n"
               "session = converter.session(model, 'numpy')\n"
               "session.run({'x': np.ones((1, 1024), np.float32)})\n"
               "lines = Path('/proc/self/maps').read_text().splitlines()\n"
               "spans = [line.split()[0].split('-') for line in lines if line.endswith('m.h5')]\n"
               "spans = [(int(a, 16), int(b, 16)) for a, b in spans]\n"
               "arrays = [model.parameters.mapped(name) for name in model.parameters]\n"
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


SERVING = """
import sys
import numpy as np, converter
file, graph = sys.argv[1:]
model = converter.load(file) if file.endswith("h5") else converter.from_checkpoint(file, graph)
session = converter.session(model, "numpy")
session.run({"x": np.ones((1, 1024), np.float32)})
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="the kernel says nothing of shared pages")
@pytest.mark.parametrize("name", ["m.h5", "m.safetensors"])
def test_processes_share_one_copy_of_the_weights(big: Path, tmp_path: Path, name: str) -> None:
    """Every worker has all weights in memory, and together they hold them once: PSS counts a page by those who share it."""
    command = ["torch-to-hdf5", "--architecture", str(big / "graph.json")] if name == "m.h5" else ["torch-to-safetensors"]
    result = CliRunner().invoke(cli, [*command, str(big / "w.pt"), "-o", str(tmp_path / name)])
    assert result.exit_code == 0, result.output
    workers = [subprocess.Popen([sys.executable, "-c", SERVING, str(tmp_path / name), str(big / "graph.json")], stdin=subprocess.PIPE,
                                stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}) for _ in range(3)]
    try:
        for worker in workers:
            assert worker.stdout is not None
            assert worker.stdout.readline() == "ready\n"
        found = [mapped_sizes(worker.pid, name) for worker in workers]
    finally:
        for worker in workers:
            worker.communicate(timeout=60)
    weights = 24 * 1024 * 1024 * 4
    assert all(resident >= weights for resident, _ in found), found
    assert sum(share for _, share in found) < 1.1 * weights, found


def mapped_sizes(process: int, name: str) -> tuple[int, int]:
    """Bytes of a mapped file in a process's memory, and its proportional share of them."""
    sizes = {"Rss": 0, "Pss": 0}
    inside = False
    for line in Path(f"/proc/{process}/smaps").read_text().splitlines():
        key, _, value = line.partition(":")
        if "-" in key.split()[0]:
            inside = line.endswith(name)
        elif inside and key in sizes:
            sizes[key] += int(value.split()[0]) * 1024
    return sizes["Rss"], sizes["Pss"]
