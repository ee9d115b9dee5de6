"""Conversions on the command line: every pair of formats, modules and graphs, and what is refused."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from torch import nn

import converter
from converter.cli.conversions import conversions
from converter.cli.inputs import draw_examples, parse_input, parse_inputs
from converter.cli.main import cli
from converter.errors import ConverterError
from converter.format.atomic import values_beside
from tests.test_public import small_model

ROOT = Path(__file__).parents[2]

CODE = '''
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(4, 4, bias=False)
        self.second = nn.Linear(4, 4)
        self.second.weight = self.first.weight
        self.register_buffer("shift", torch.arange(4.0), persistent=False)

    def forward(self, x, scale=None):
        y = self.second(self.first(x)) + self.shift
        return y if scale is None else y * scale

class Wide(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(4, 2)

    def forward(self, image):
        if image.shape[-1] < 8:
            raise ValueError("too small")
        return image + 1

class Odd(nn.Module):
    def forward(self, x):
        return torch.special.airy_ai(x) + torch.special.bessel_j0(x).sum()

class Space:
    net = Net

class Positions(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(20, 4)
    def forward(self, x):
        return x[..., None] + self.table(torch.arange(x.shape[1]))

def broken():
    raise ValueError("no weights today")

def leaves():
    raise SystemExit(3)

def number():
    return 3

instance = Net()
'''


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a module's code and its checkpoint, and the current directory."""
    (tmp_path / "netcode.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    before = list(sys.path)
    sys.modules.pop("netcode", None)
    torch.manual_seed(0)
    first, second = nn.Linear(4, 4, bias=False), nn.Linear(4, 4)
    state = {"first.weight": first.weight.detach(), "second.weight": first.weight.detach(), "second.bias": second.bias.detach()}
    torch.save(state, tmp_path / "w.pt")
    torch.save({"epoch": 1, "model": state, "ema": {"first.weight": torch.zeros(4, 4), "second.weight": torch.zeros(4, 4),
                                                    "second.bias": torch.zeros(4)}}, tmp_path / "training.pt")
    yield tmp_path
    sys.path[:] = before
    sys.modules.pop("netcode", None)


def run(*args: object, code: int = 0, text: str | None = None) -> Result:
    result = CliRunner().invoke(cli, [str(item) for item in args], input=text)
    assert result.exit_code == code, (result.exit_code, result.output, result.exception)
    assert "Traceback" not in result.output
    return result


MODULE = ("--module", "netcode:Net", "--input", "x:float32[rows,4]")


def test_help_lists_every_command_in_its_section() -> None:
    text = run("--help").output
    for name in [*conversions(), "verify", "diff", "inspect", "run"]:
        assert f"\n  {name} " in text
    assert "Proof:" in text
    assert text.index("torch-to-json") < text.index("json-to-onnx") < text.index("\n  verify ")


@pytest.mark.parametrize("name", [*conversions(), "verify", "diff", "inspect", "run"])
def test_every_command_has_an_example_and_the_common_options(name: str) -> None:
    text = run(name, "--help").output
    assert f"  convert {name} " in text
    assert "--quiet" in text
    assert "--debug" in text


def test_the_promised_commands_exist() -> None:
    assert {"torch-to-json", "torch-to-hdf5", "torch-to-onnx", "json-to-onnx", "json-to-hdf5", "hdf5-to-json", "hdf5-to-onnx",
            "json-to-torch", "json-to-safetensors", "onnx-to-json"} <= set(conversions())


def test_an_unknown_command_names_the_nearest() -> None:
    assert "json-to-onnx" in run("json-to-onx", code=2).output


# Modules -----------------------------------------------------------------------------------------------------------------


def test_a_module_and_its_checkpoint(here: Path) -> None:
    result = run("torch-to-json", "w.pt", "-o", "m.json", *MODULE)
    assert "Wrote m.json" in result.output
    assert "3 nodes" in result.output
    assert "1 tied" in result.output
    model = converter.load("m.json")
    state = torch.load("w.pt", weights_only=True)
    assert [name for name in model.parameters if name not in model.constants] == list(state)
    for name, value in state.items():
        assert model.parameters.read(name).tobytes() == value.numpy().tobytes()
    assert model.parameters.alias_of("second.weight") == "first.weight"
    assert model.constants == {"shift"}
    assert [str(size) for size in model.graph.inputs[0].spec.shape] == ["rows", "4"]
    assert len(model.examples) == 3
    source = model.metadata["source"]
    assert (source["file"], source["module"]) == ("w.pt", "netcode.Net")
    assert bool(converter.verify(model, ["numpy"]))


def test_a_module_without_a_checkpoint(here: Path) -> None:
    run("torch-to-json", "-o", "m.json", "--module", "netcode:instance", "--input", "x:float32[rows,4]", "--name", "mine")
    model = converter.load("m.json")
    assert model.graph.name == "mine"
    assert model.parameters.read("second.bias").tobytes() == sys.modules["netcode"].instance.second.bias.detach().numpy().tobytes()


@pytest.mark.parametrize("module", ["netcode:Space.net", "netcode.py:Net", "./netcode.py:Net"])
def test_a_callable_may_be_in_a_class_or_a_file(here: Path, module: str) -> None:
    run("torch-to-json", "w.pt", "-o", "m.json", "--module", module, "--input", "x:float32[rows,4]", "--no-examples")
    assert converter.load("m.json").examples == ()


def test_an_optional_argument_can_be_given(here: Path) -> None:
    run("torch-to-json", "w.pt", "-o", "m.json", *MODULE, "--input", "scale:float32[4]")
    assert [port.name for port in converter.load("m.json").graph.inputs] == ["x", "scale"]


def test_the_entry_of_a_checkpoint_can_be_chosen(here: Path) -> None:
    run("torch-to-json", "training.pt", "-o", "m.json", *MODULE)
    assert converter.load("m.json").metadata["source"]["key"] == "model"
    run("torch-to-json", "training.pt", "-o", "m.json", *MODULE, "--key", "ema")
    assert not converter.load("m.json").parameters.read("second.bias").any()


def test_example_arguments_from_a_file(here: Path) -> None:
    given = np.arange(12, dtype=np.float32).reshape(3, 4)
    np.savez("x.npz", x=given)
    run("torch-to-json", "w.pt", "-o", "m.json", *MODULE, "--input-file", "x.npz")
    model = converter.load("m.json")
    np.testing.assert_array_equal(model.examples[0].inputs["x"], given)
    run("torch-to-json", "w.pt", "-o", "auto.json", "--module", "netcode:Net", "--input-file", "x.npz")
    assert [str(size) for size in converter.load("auto.json").graph.inputs[0].spec.shape] == ["batch", "4"]
    assert "does not fit what --input says" in run("torch-to-json", "w.pt", "-o", "m.json", "--module", "netcode:Net", "--input",
                                                   "x:int64[rows,4]", "--input-file", "x.npz", code=2).output


def test_drawn_sizes_are_those_of_real_inputs(here: Path) -> None:
    run("torch-to-json", "-o", "m.json", "--module", "netcode:Wide", "--input", "image:float32[batch,height,width]")
    sizes = converter.load("m.json").examples[0].inputs["image"].shape
    assert sizes == (2, 37, 67)


def test_notes_go_to_stderr_unless_quiet(here: Path) -> None:
    args = ["torch-to-json", "-o", "m.json", "--module", "netcode:Positions", "--input", "x:float32[batch,time]"]
    result = run(*args)
    assert "Note: time is 20 or less" in result.stderr
    assert run(*args, "--quiet").output == ""


def test_a_graph_alone_and_back(here: Path) -> None:
    run("torch-to-json", "w.pt", "-o", "graph.json", *MODULE, "--graph-only")
    run("torch-to-json", "w.pt", "-o", "whole.json", *MODULE)
    assert "no values" in run("json-to-onnx", "graph.json", "-o", "m.onnx", code=2).output
    for target in ("m.json", "m.h5", "m.onnx"):
        command = {"json": "torch-to-json", "h5": "torch-to-hdf5", "onnx": "torch-to-onnx"}[target.partition(".")[2]]
        run(command, "w.pt", "-o", target, "--architecture", "graph.json")
        assert converter.model_digest(converter.load(target)) == converter.model_digest(converter.load("whole.json"))
    assert "graph without" in run("inspect", "graph.json").output


def test_a_round_trip_through_every_format(here: Path) -> None:
    run("torch-to-json", "w.pt", "-o", "1.json", *MODULE)
    for name, source, target in (("json-to-hdf5", "1.json", "2.h5"), ("hdf5-to-json", "2.h5", "3.json"),
                                 ("json-to-onnx", "3.json", "4.onnx"), ("onnx-to-json", "4.onnx", "5.json"),
                                 ("json-to-torch", "5.json", "6.pt"), ("json-to-torch", "5.json", "7.safetensors"),
                                 ("safetensors-to-torch", "7.safetensors", "8.pt"), ("torch-to-safetensors", "6.pt", "9.safetensors"),
                                 ("onnx-to-safetensors", "4.onnx", "10.safetensors")):
        run(name, source, "-o", target)
    digests = {converter.model_digest(converter.load(name)) for name in ("1.json", "2.h5", "3.json", "4.onnx", "5.json")}
    assert len(digests) == 1
    original = torch.load("w.pt", weights_only=True)
    for name in ("6.pt", "8.pt"):
        state = torch.load(name, weights_only=True)
        assert set(state) == set(original)
        assert all(torch.equal(state[key].view(torch.uint8), original[key].view(torch.uint8)) for key in state)
        assert state["first.weight"].data_ptr() == state["second.weight"].data_ptr()
    assert Path("7.safetensors").read_bytes() == Path("9.safetensors").read_bytes() == Path("10.safetensors").read_bytes()


@pytest.mark.parametrize("encoding", ["values", "base64", "file"])
def test_encodings_of_json(here: Path, encoding: str) -> None:
    run("torch-to-json", "w.pt", "-o", "m.json", *MODULE, "--encoding", encoding)
    assert f'"{encoding}": ' in Path("m.json").read_text()
    assert len(values_beside("m.json")) == (encoding == "file")
    run("json-to-torch", "m.json", "-o", "back.pt")
    run("diff", "w.pt", "back.pt")


def test_streams(here: Path) -> None:
    converter.save(small_model(), "m.json")
    result = run("json-to-hdf5", "-", "-o", "m.h5", text=Path("m.json").read_text())
    assert "Wrote m.h5" in result.output
    result = run("hdf5-to-json", "m.h5", "-o", "-")
    assert json.loads(result.stdout)["format"] == "neutral-model"
    assert "Wrote standard output" in result.stderr


def test_the_opset_is_what_was_asked_for(here: Path) -> None:
    import onnx

    converter.save(small_model(), "m.json")
    run("json-to-onnx", "m.json", "-o", "m.onnx", "--opset", "18")
    assert onnx.load("m.onnx").opset_import[0].version == 18
    assert "18 to 23" in run("json-to-onnx", "m.json", "-o", "m.onnx", "--opset", "7", code=2).output


# Refusals ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("args", "part"), [
    (["w.pt"], "no computation"),
    ([], "Give a checkpoint, or --module"),
    (["w.pt", "--architecture", "g.json", "--module", "a:b"], "exclude each other"),
    (["w.pt", "--input", "x:float32[1]"], "--input belongs to --module"),
    (["w.pt", "--module", "netcode:Net"], "nothing says what the module takes"),
    (["w.pt", "--module", "netcode:Net", "--input", "x"], "not an input"),
    (["w.pt", "--module", "netcode:Net", "--input", "y:float32[2,4]"], "do not fit the module"),
    (["w.pt", "--module", "netcode:Net", "--input", "x:float32[2,5]"], "fails on example arguments"),
    (["w.pt", "--module", "netcode:Nothing", "--input", "x:float32[2,4]"], "there is no 'Nothing' in netcode"),
    (["w.pt", "--module", "nowhere:Net", "--input", "x:float32[2,4]"], "there is no module 'nowhere'"),
    (["w.pt", "--module", "nowhere.py:Net", "--input", "x:float32[2,4]"], "there is no such file"),
    (["w.pt", "--module", "netcode", "--input", "x:float32[2,4]"], "not a callable's name"),
    (["w.pt", "--module", "netcode:broken", "--input", "x:float32[2,4]"], "no weights today"),
    (["w.pt", "--module", "netcode:leaves", "--input", "x:float32[2,4]"], "SystemExit: 3"),
    (["w.pt", "--module", "netcode:number", "--input", "x:float32[2,4]"], "not a module of a framework"),
    (["w.pt", "--module", "netcode:Wide", "--input", "image:float32[2,4]"], "missing: 'inner.weight' float32[2, 4]"),
    (["w.pt", "--architecture", "missing.json"], "there is no such file"),
    (["missing.pt", *MODULE], "there is no such file"),
    ([".", *MODULE], "holds no checkpoint"),
    (["empty.pt", *MODULE], "the file is empty"),
    (["text.pt", *MODULE], "not a file that torch.save wrote"),
    (["w.txt", *MODULE], "suffix '.txt'"),
    (["m.json", *MODULE], "where a checkpoint is needed"),
    (["-", *MODULE], "cannot be read from standard input"),
    (["w.pt", *MODULE, "--input-file", "text.pt"], "cannot read the arrays"),
])
def test_bad_input_is_refused_and_nothing_is_written(here: Path, args: list[str], part: str) -> None:
    Path("empty.pt").touch()
    Path("text.pt").write_text("hello")
    Path("w.txt").write_text("hello")
    Path("m.json").write_text("{}")
    before = sorted(item.name for item in here.iterdir())
    result = run("torch-to-json", *args, "-o", "out.json", code=2)
    assert part in " ".join(result.output.split())
    assert sorted(item.name for item in here.iterdir() if item.name != "__pycache__") == before


def test_missing_and_extra_are_listed_together(here: Path) -> None:
    result = run("torch-to-json", "w.pt", "-o", "m.json", "--module", "netcode:Wide", "--input", "image:float32[9,9]", code=2)
    for name in ("missing: 'inner.weight'", "missing: 'inner.bias'", "extra: 'first.weight'", "extra: 'second.bias'"):
        assert name in result.stderr


def test_another_dtype_and_shape_are_refused(here: Path) -> None:
    torch.save({"first.weight": torch.zeros(4, 4).double(), "second.weight": torch.zeros(4, 5), "second.bias": torch.zeros(4)}, "bad.pt")
    result = run("torch-to-json", "bad.pt", "-o", "m.json", *MODULE, code=2)
    assert "'first.weight': expected float32[4, 4], received float64[4, 4]" in result.stderr
    assert "'second.weight': expected float32[4, 4], received float32[4, 5]" in result.stderr


def test_tied_weights_that_differ_are_refused(here: Path) -> None:
    torch.save({"first.weight": torch.zeros(4, 4), "second.weight": torch.ones(4, 4), "second.bias": torch.zeros(4)}, "bad.pt")
    assert "its values differ" in run("torch-to-json", "bad.pt", "-o", "m.json", *MODULE, code=2).stderr


def test_a_wrapper_s_prefix_is_recognised(here: Path) -> None:
    torch.save({f"module.{name}": value for name, value in torch.load("w.pt", weights_only=True).items()}, "wrapped.pt")
    assert "nn.DataParallel" in run("torch-to-json", "wrapped.pt", "-o", "m.json", *MODULE).stderr
    assert "first.weight" in converter.load("m.json").parameters


def test_unsupported_operators_are_all_listed(here: Path) -> None:
    args = ["torch-to-json", "-o", "m.json", "--module", "netcode:Odd", "--input", "x:float32[3,3]"]
    text = run(*args, code=2).stderr
    assert "airy_ai" in text
    assert "bessel_j0" in text
    assert "netcode.py" in text
    found = json.loads(run(*args, "--json", code=2).stdout)["error"]
    assert found["kind"] == "UnsupportedError"
    assert {item["operator"] for item in found["items"]} == {"aten.special_airy_ai.default", "aten.special_bessel_j0.default"}


@pytest.mark.parametrize(("command", "source", "output", "part"), [
    ("json-to-onnx", "m.h5", "o.onnx", "hdf5-to-onnx"),
    ("json-to-onnx", "m.json", "o.h5", "json-to-hdf5"),
    ("json-to-onnx", "m.json", "o.json", "the output's name says neutral model"),
    ("json-to-onnx", "m.json", "o", "no suffix"),
    ("json-to-onnx", "m.json", "nowhere/o.onnx", "folder does not exist"),
    ("json-to-onnx", ".", "o.onnx", "a folder"),
    ("json-to-onnx", "missing.json", "o.onnx", "no such file"),
    ("hdf5-to-json", "-", "o.json", "standard input"),
    ("hdf5-to-json", "bad.h5", "o.json", "bad.h5"),
    ("json-to-hdf5", "bad.json", "o.h5", "bad.json"),
    ("onnx-to-json", "bad.onnx", "o.json", "bad.onnx"),
    ("torch-to-safetensors", "bad.pt", "o.safetensors", "bad.pt"),
    ("json-to-torch", "m.json", "folder.pt", "a folder"),
])
def test_wrong_names_and_files_are_refused(here: Path, command: str, source: str, output: str, part: str) -> None:
    converter.save(small_model(), "m.json")
    converter.save(small_model(), "m.h5")
    for name in ("bad.h5", "bad.json", "bad.onnx", "bad.pt"):
        Path(name).write_bytes(b"\x00garbage")
    Path("folder.pt").mkdir()
    before = sorted(item.name for item in here.iterdir())
    assert part in " ".join(run(command, source, "-o", output, code=2).output.split())
    assert sorted(item.name for item in here.iterdir()) == before


def test_a_checkpoint_that_would_run_code_does_not(here: Path) -> None:
    class Bomb:
        def __reduce__(self):
            return os.mkdir, ("ran",)

    torch.save({"w": Bomb()}, "bomb.pt")
    for args in (["torch-to-json", "bomb.pt", "-o", "m.json", *MODULE], ["inspect", "bomb.pt"], ["torch-to-safetensors", "bomb.pt", "-o",
                                                                                              "o.safetensors"]):
        assert "would run code" in run(*args, code=2).stderr
        assert not Path("ran").exists()


def test_debug_shows_the_traceback(here: Path) -> None:
    result = CliRunner().invoke(cli, ["inspect", "missing.json", "--debug"])
    assert result.exit_code == 2
    assert "Traceback" in result.stderr
    assert "Error: missing.json" in result.stderr


@pytest.mark.parametrize(("error", "part"), [
    (PermissionError(13, "Permission denied", "secret.json"), "secret.json: Permission denied"),
    (MemoryError(), "not enough memory"), (ZeroDivisionError("oops"), "a defect of the converter: ZeroDivisionError: oops"),
])
def test_other_exceptions_are_a_line_too(here: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, part: str) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    converter.save(small_model(), "m.json")
    monkeypatch.setattr("converter.loading.save_as", fail)
    result = run("json-to-hdf5", "m.json", "-o", "o.h5", code=2)
    assert part in result.stderr
    assert "Traceback" not in result.stderr


def test_an_interrupt_leaves_nothing_behind(tmp_path: Path) -> None:
    """A real signal to a real process, while a large file is being written."""
    code = ("import numpy as np, converter, tests.test_public as t\n"
            "builder = converter.GraphBuilder('big')\n"
            "x = builder.input('x', 'float32', ['batch', 3])\n"
            "builder.output('y', builder.op('linear', x, builder.parameter('weight', 'float32', [2, 3])))\n"
            "arrays = {'weight': np.zeros((2, 3), np.float32), **{f'p{i}': np.random.default_rng(i).random(200_000) for i in range(60)}}\n"
            "converter.save(converter.Model(builder.graph(), converter.InMemoryParameters(arrays)), 'big.h5')")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, check=True, timeout=120)
    process = subprocess.Popen([sys.executable, "-m", "converter", "hdf5-to-json", "big.h5", "-o", "out.json", "--encoding", "values"],
                               cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob(".out.json.*")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, text = process.communicate(timeout=60)
    assert process.returncode == 130, text
    assert "Interrupted" in text
    assert "Traceback" not in text
    assert [item.name for item in tmp_path.iterdir()] == ["big.h5"]


def test_a_closed_pipe_is_quiet(here: Path) -> None:
    converter.save(small_model(), "m.json")
    result = subprocess.run(f"{sys.executable} -m converter inspect m.json --nodes --parameters | true", shell=True, cwd=here,
                            env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=60, check=False)
    assert result.stderr == ""


def test_python_m_converter(here: Path) -> None:
    result = subprocess.run([sys.executable, "-m", "converter", "--version"], capture_output=True, text=True, timeout=60, check=True,
                            env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert result.stdout.strip() == f"model-converter, version {converter.__version__}"


# --input -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "spec", "span"), [
    ("tokens:int64[batch,time]", "int64[batch, time]", None), ("tokens:int64[batch, 12]{0..30000}", "int64[batch, 12]", (0, 30000)),
    ("x:float32[]", "float32[]", None), ("past.0.key:bfloat16[b,4]", "bfloat16[b, 4]", None), ("t:int8[2]{-5..-1}", "int8[2]", (-5, -1)),
])
def test_inputs_are_parsed(text: str, spec: str, span: tuple[int, int] | None) -> None:
    found = parse_input(text)
    assert (str(found.spec), found.span) == (spec, span)


@pytest.mark.parametrize("text", ["", "x", "x:float32", "x:float31[2]", "x:float32[2", "x:float32[a+]", "x:float32[2**a]", "x:float32[-1]",
                                  "x:float32[2]{0..1}", "x:int8[2]{0..300}", "x:int8[2]{3..1}", ":int8[2]", "x:int8[2]{a..b}",
                                  "x:int64[__import__('os')]", "x:int64[2.5]"])
def test_inputs_of_another_form_are_refused(text: str) -> None:
    with pytest.raises(ConverterError):
        parse_input(text)


def test_an_input_twice_is_refused() -> None:
    with pytest.raises(ConverterError, match="twice"):
        parse_inputs(["x:int8[2]", "x:int8[3]"])


def test_drawn_examples_have_distinct_sizes_and_keep_their_range() -> None:
    inputs = parse_inputs(["tokens:int64[batch,time]{5..9}", "mask:bool[batch,time]", "x:float64[time,width,3]", "z:complex64[batch]"])
    for arrays in draw_examples(inputs):
        batch, tokens = arrays["tokens"].shape
        width = arrays["x"].shape[1]
        assert len({batch, tokens, width}) == 3
        assert min(batch, tokens, width) >= 2
        assert 5 <= arrays["tokens"].min() <= arrays["tokens"].max() <= 9
        assert arrays["mask"].shape == (batch, tokens)
        assert [arrays[name].dtype for name in ("tokens", "mask", "x", "z")] == [np.int64, np.bool_, np.float64, np.complex64]
