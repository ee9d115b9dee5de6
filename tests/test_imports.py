"""Who may import whom (the rooms of the house), and what importing the package loads."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
HEAVY = ("torch", "onnx", "onnxruntime", "h5py")

CORE = ("errors", "dims", "size_text", "conditions", "ir", "parameters", "sizes", "facts", "formulas", "opset", "attributes", "resolved",
        "equal_sizes", "size_writer", "intervals", "checking", "ops", "builder", "recorded", "generator", "mapped", "memory", "footprint")
ALLOWED: dict[str, tuple[str, ...]] = {
    "errors": (),
    "tables": (),
    "dims": ("errors",),
    "size_text": ("dims", "errors"),
    "equal_sizes": ("dims",),
    "conditions": ("dims", "errors", "size_text"),
    "generator": (),
    "recorded": ("errors", "generator", "ir"),
    "ir": ("conditions", "dims", "errors", "parameters", "recorded", "size_text"),
    "parameters": ("ir", "errors", "dims", "mapped"),
    "sizes": ("conditions", "dims", "errors", "ir"),
    "facts": (),
    "size_writer": ("dims",),
    "intervals": ("dims", "ir", "size_writer"),
    "formulas": ("dims", "intervals", "ir"),
    "opset": ("errors", "facts", "formulas", "ops"),
    "attributes": ("dims", "errors", "ir", "opset", "size_text"),
    "resolved": ("attributes", "errors", "ir", "opset"),
    "memory": ("errors",),
    "footprint": ("attributes", "checking", "dims", "errors", "ir", "memory", "opset", "sizes"),
    "checking": ("attributes", "dims", "equal_sizes", "errors", "ir", "opset", "parameters", "resolved"),
    "ops": ("errors", "dims", "equal_sizes", "facts", "formulas", "ir", "sizes", "opset", "attributes", "checking", "parameters",
            "reference"),
    "builder": ("conditions", "errors", "dims", "ir", "opset", "attributes", "checking"),
    "passes": (*CORE, "format", "tables"),
    "ports": (*CORE, "recognition"),
    "reference": ("errors", "dims", "footprint", "ir", "opset", "parameters", "sizes", "attributes", "resolved"),
    "format": (*CORE,),
    "discovery": ("errors", "ir"),
    "mapped": ("errors", "ir"),
    "paths": ("discovery", "errors", "kinds"),
    "side_files": ("errors",),
    "npz": ("errors", "side_files"),
    "state_dict": ("errors", "ir", "mapped", "parameters"),
    "naming": ("errors", "ir", "mapped", "parameters", "state_dict"),
    "matching": (*CORE, "format", "naming", "passes", "state_dict"),
    "matched_graphs": (*CORE, "format"),
    "matched_parameters": (*CORE,),
    "compared_parameters": (*CORE, "matched_parameters"),
    "checkpoint": ("discovery", "errors", "ir", "kinds", "mapped", "naming", "parameters", "paths", "side_files", "state_dict"),
    "kinds": (),
    "recognition": (*CORE, "format", "discovery", "passes", "checkpoint", "matching", "naming", "side_files", "state_dict", "drafting"),
    "drafting": (*CORE, "format", "side_files", "state_dict"),
    "loading": (*CORE, "ports", "reference", "format", "discovery", "passes", "checkpoint", "paths", "matching", "naming", "state_dict",
                "recognition", "drafting"),
    "equivalence": (*CORE, "reference", "format", "discovery", "passes", "loading", "npz", "matched_graphs"),
    "cli": (*CORE, "reference", "format", "discovery", "checkpoint", "paths", "ports", "matching", "naming", "kinds", "state_dict",
            "passes", "recognition", "drafting", "loading", "equivalence", "npz", "side_files", "matched_graphs",
            "matched_parameters", "compared_parameters"),
    "conformance": ("ports", "discovery", "equivalence", "errors", "loading"),
    "pytest_plugin": (*CORE, "format", "discovery", "loading", "equivalence"),
    "__main__": ("cli",),
}
"""Which rooms of `converter` each room may import, itself aside; `ops` holds the kernels of graphs within graphs."""


@cache
def imports(path: Path) -> list[str]:
    """Every module that a file imports, at its top or within a function."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            found += [f"{node.module}.{alias.name}" for alias in node.names]
    return found


def files(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


def room(path: Path) -> str:
    return path.relative_to(ROOT / "converter").parts[0].removesuffix(".py")


def test_every_room_has_its_rule() -> None:
    assert {room(path) for path in files("converter")} - {"__init__"} == set(ALLOWED)


def test_no_two_rooms_import_each_other() -> None:
    """But for names of types alone (`ir`), and for the registry of operators, which loads their families."""
    pairs = {(name, other) for name, rooms in ALLOWED.items() for other in rooms if name < other}
    mutual = {(one, other) for one, other in pairs if one in ALLOWED[other]}
    assert mutual == {("ir", "parameters"), ("ir", "recorded"), ("ops", "opset")}


@pytest.mark.parametrize("name", sorted(ALLOWED))
def test_a_room_imports_only_what_it_may(name: str) -> None:
    wrong = []
    for path in files("converter"):
        if room(path) != name:
            continue
        for module in imports(path):
            parts = module.split(".")
            public = parts[0] == "converter" and len(parts) == 2 and not (ROOT / "converter" / parts[1]).exists() and not (
                ROOT / "converter" / f"{parts[1]}.py").exists()
            if parts[0] == "converter" and not public and parts[1] not in (name, *ALLOWED[name]):
                wrong.append(f"{path.relative_to(ROOT)} imports {module}")
    assert wrong == []


def test_adapters_never_import_each_other() -> None:
    wrong = []
    for path in files("adapters"):
        own = path.relative_to(ROOT / "adapters").parts[0]
        wrong += [f"{path.relative_to(ROOT)} imports {module}" for module in imports(path)
                  if module.startswith("adapters.") and module.split(".")[1] != own]
    assert wrong == []


def test_only_discovery_knows_of_adapters() -> None:
    wrong = [f"{path.relative_to(ROOT)} imports {module}" for path in files("converter") for module in imports(path)
             if module.split(".")[0] == "adapters" and path.name != "discovery.py"]
    assert wrong == []


def test_frameworks_stay_in_their_adapters() -> None:
    """h5py, which encodes the format, is the one library that `converter` may import at all."""
    wrong = [f"{path.relative_to(ROOT)} imports {module}" for path in files("converter") for module in imports(path)
             if module.split(".")[0] in HEAVY and not (module.startswith("h5py") and path.name.startswith("hdf5_"))]
    frameworks = {"torch": ("torch",), "onnx": ("onnx", "onnxruntime"), "numpy": (), "safetensors": (), "torch_files": ()}
    for path in files("adapters"):
        own = path.relative_to(ROOT / "adapters").parts[0]
        wrong += [f"{path.relative_to(ROOT)} imports {module}" for module in imports(path)
                  if module.split(".")[0] in HEAVY and module.split(".")[0] not in frameworks.get(own, HEAVY)]
    assert wrong == []


def test_declarations_import_nothing_but_discovery() -> None:
    for path in files("adapters"):
        if path.name == "adapter.py":
            assert {module.rpartition(".")[0] for module in imports(path)} <= {"__future__", "converter.discovery"}, path


def loaded(code: str, folder: Path) -> list[str]:
    """The heavy modules that a fresh interpreter has loaded after running `code`."""
    check = f"\nimport sys, json; print(json.dumps([name for name in {HEAVY} if name in sys.modules]))"
    result = subprocess.run([sys.executable, "-c", code + check], cwd=folder, capture_output=True, text=True, timeout=120, check=False,
                            env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.strip().splitlines()[-1])  # type: ignore[no-any-return]


MODEL = """
import numpy as np, converter
builder = converter.GraphBuilder("line")
x = builder.input("x", "float32", ["batch", 3])
builder.output("y", builder.op("linear", x, builder.parameter("weight", "float32", [2, 3])))
store = converter.InMemoryParameters({"weight": np.arange(6, dtype=np.float32).reshape(2, 3)})
converter.save(converter.Model(builder.graph(), store), "model.json")
model = converter.load("model.json")
y = converter.session(model, runtime="numpy").run({"x": np.ones((4, 3), np.float32)})["y"]
assert y.tolist() == [[3.0, 12.0]] * 4
"""


@pytest.mark.parametrize("code", [
    "import converter",
    "import adapters.numpy.session, adapters.safetensors.read, adapters.safetensors.write",
    "import converter.discovery; converter.discovery.formats(); converter.discovery.runtimes()",
    "import converter; [getattr(converter, name) for name in converter.__all__]",
    MODEL,
    "from converter.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass",
    MODEL + "from converter.cli import main\ntry: main(['inspect', 'model.json'])\nexcept SystemExit: pass",
], ids=["import", "adapters", "discovery", "public names", "numpy session", "help", "inspect"])
def test_no_framework_is_loaded(code: str, tmp_path: Path) -> None:
    assert loaded(code, tmp_path) == []


def test_the_check_can_fail(tmp_path: Path) -> None:
    assert loaded("import h5py", tmp_path) == ["h5py"]
