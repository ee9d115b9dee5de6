"""What adapters declare and how they are found."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from converter import discovery
from converter.discovery import NEUTRAL, Adapter, Format, Runtime, adapters, format_of, formats, resolve, runtimes
from converter.errors import ConverterError, MissingDependencyError


@pytest.fixture
def fresh():
    adapters.cache_clear()
    yield
    adapters.cache_clear()


def test_the_adapters_of_the_package_are_found() -> None:
    assert next(iter(adapters())) == "neutral"
    assert {"torch", "onnx", "numpy", "safetensors"} <= set(adapters())
    assert {"json", "hdf5", "torch", "safetensors", "onnx"} <= set(formats())
    assert {"reference", "numpy", "torch", "onnxruntime"} <= set(runtimes())


@pytest.mark.parametrize("target", [target for item in (*formats().values(), *runtimes().values())
                                    for target in (getattr(item, "load", None), getattr(item, "save", None),
                                                   getattr(item, "session", None), getattr(item, "file_session", None)) if target]
                         + [target for item in adapters().values() for target in (item.tracer, item.builder) if target])
def test_every_declared_function_exists(target: str) -> None:
    assert callable(resolve(target))


def test_suffixes_name_one_format() -> None:
    suffixes = [suffix for item in formats().values() for suffix in item.suffixes]
    assert len(suffixes) == len(set(suffixes))
    assert format_of("a/b.H5", to="load").name == "hdf5"


def test_declared_options_are_options_of_the_function() -> None:
    import inspect

    for item in formats().values():
        if item.save is not None:
            taken = inspect.signature(resolve(item.save)).parameters
            assert {option.name for option in item.options} <= set(taken)
            for option in item.options:
                assert taken[option.name].default == option.default


@pytest.mark.parametrize(("path", "part"), [("model.tflite", "'.tflite'"), ("model", "without a suffix")])
def test_a_suffix_of_no_format_is_refused(path: str, part: str) -> None:
    with pytest.raises(ConverterError, match=part) as caught:
        format_of(path, to="load")
    assert ".json" in str(caught.value)


def test_an_unknown_runtime_is_refused() -> None:
    with pytest.raises(ConverterError, match="no runtime is called 'tpu'"):
        discovery.runtime("tpu")


def test_a_missing_library_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "onnx" or name.startswith("adapters.onnx.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(MissingDependencyError) as caught:
        resolve("adapters.onnx.export:save_onnx", "onnx")
    assert "pip install 'model-converter[onnx]'" in str(caught.value)
    assert "'onnx' is not installed" in str(caught.value)


def test_a_module_that_a_plug_in_lacks_is_no_missing_library() -> None:
    with pytest.raises(MissingDependencyError, match=r"^there is no module 'json\.listing'"):
        discovery.resolve("json.listing:save", None)


def test_a_missing_module_of_our_own_is_no_missing_library() -> None:
    with pytest.raises(ModuleNotFoundError):
        resolve("converter.nowhere:function", "onnx")


class Point:
    """An entry point as `importlib.metadata` gives it."""

    value = "plugin.adapter:ADAPTER"

    def __init__(self, found: Any) -> None:
        self.found = found

    def load(self) -> Any:
        if isinstance(self.found, Exception):
            raise self.found
        return self.found


def install(monkeypatch: pytest.MonkeyPatch, found: Any) -> None:
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: [Point(found)] if group == discovery.ENTRY_POINTS else [])


@pytest.mark.usefixtures("fresh")
def test_an_installed_plug_in_adds_a_format_a_runtime_and_commands(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from converter.cli.conversions import conversions

    plugin = ModuleType("plugin")
    written = []
    plugin.save = lambda model, path, note="": written.append((model.graph.name, str(path), note))  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "plugin", plugin)
    option = discovery.Option("note", str, "A note.", "")
    install(monkeypatch, Adapter("new", (Format("new", "new thing", (".new",), "model", save="plugin:save", options=(option,)),),
                                 (Runtime("newrun", "a new runtime", "plugin:session"),)))
    conversions.cache_clear()
    try:
        assert "json-to-new" in conversions()
        assert "new-to-json" not in conversions()
        assert "newrun" in runtimes()
        import converter
        from tests.test_public import small_model

        converter.save(small_model(), tmp_path / "out.new", note="hello")
        assert written == [("line", str(tmp_path / "out.new"), "hello")]
    finally:
        conversions.cache_clear()


@pytest.mark.usefixtures("fresh")
@pytest.mark.parametrize(("found", "part"), [
    (ValueError("broken"), "the plug-in does not load .ValueError: broken"),
    ({"name": "x"}, "not an adapter"),
    (Adapter("torch"), "two adapters are called 'torch'"),
    (Adapter("mine", (NEUTRAL.formats[0],)), "takes a name that is taken"),
])
def test_a_bad_plug_in_is_refused(monkeypatch: pytest.MonkeyPatch, found: Any, part: str) -> None:
    install(monkeypatch, found)
    with pytest.raises(ConverterError, match=part) as caught:
        adapters()
    assert "plugin.adapter" in str(caught.value)


class Layer:
    """A live module of a framework that is not there."""


@pytest.fixture
def second_framework(fresh: None, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A framework whose adapter stands before PyTorch's in every order, and converts what it is given to its name."""
    module = ModuleType("first_of_all")
    calls: list[str] = []
    for role in ("tracer", "builder", "rebuilder", "program"):
        setattr(module, role, lambda *args, _role=role, **options: calls.append(_role))
    module.calls = calls  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "first_of_all", module)
    install(monkeypatch, Adapter("aaa", modules=(f"{Layer.__module__}.Layer",), program_suffixes=(".aaa",), tracer="first_of_all:tracer",
                                 builder="first_of_all:builder", rebuilder="first_of_all:rebuilder", program="first_of_all:program"))
    found = adapters()
    ordered = {name: found[name] for name in ("neutral", "aaa", *(item for item in found if item not in ("neutral", "aaa")))}
    monkeypatch.setattr(discovery, "adapters", lambda: ordered)
    return module


def test_a_second_framework_never_takes_over_the_first(second_framework: ModuleType) -> None:
    import torch

    import converter

    model = converter.from_torch(torch.nn.Linear(3, 2), (torch.zeros(4, 3),))
    assert [node.op for node in model.graph.nodes] == ["linear"]
    assert isinstance(converter.to_torch(model), torch.nn.Module)
    assert second_framework.calls == []


def test_a_module_goes_to_its_own_framework(second_framework: ModuleType) -> None:
    import torch

    assert discovery.framework_of(torch.nn.Linear(1, 1)) == "torch"
    assert discovery.framework_of(Layer()) == "aaa"
    assert discovery.framework_of_program("x.aaa") == "aaa"
    assert discovery.framework_of_program("x.pt2") == "torch"
    function, _ = discovery.live("builder", discovery.framework_of(Layer()))
    function()
    assert second_framework.calls == ["builder"]


def test_what_is_no_module_is_refused() -> None:
    with pytest.raises(ConverterError, match="not a module of a framework that is known") as caught:
        discovery.framework_of(3, "--module")
    assert "torch.nn" in str(caught.value)
    with pytest.raises(ConverterError, match="no adapter of 'numpy' converts live modules"):
        discovery.live("tracer", "numpy")


def test_a_module_whose_framework_is_not_installed_names_the_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from converter.cli.modules import build_module

    monkeypatch.setitem(sys.modules, "onnx", None)
    (tmp_path / "needs_a_library.py").write_text("import onnx\n")
    with pytest.raises(MissingDependencyError, match="'onnx', which the module imports, is not installed") as caught:
        build_module(f"{tmp_path}/needs_a_library.py:Net")
    assert "pip install 'model-converter[onnx]'" in str(caught.value)


def test_another_package_called_adapters_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """PyPI has a distribution `adapters` that installs a package of that name; so may the user's own folder."""
    (tmp_path / "adapters").mkdir()
    (tmp_path / "adapters" / "__init__.py").write_text("class AutoAdapterModel: pass\n")
    code = "from converter.discovery import adapters; adapters()"
    result = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60,
                            env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{Path(__file__).parent.parent}"})
    assert "another package called `adapters` lies before model-converter's" in result.stderr
    assert "rename it if it is yours" in result.stderr


def test_whoever_wants_the_other_package_is_told_whose_this_is() -> None:
    import adapters as package

    with pytest.raises(AttributeError, match="it is model-converter's"):
        package.init  # noqa: B018


@pytest.mark.parametrize(("role", "declared"), [("load", "entries"), ("session", "providers")])
def test_what_is_declared_of_a_function_is_true(role: str, declared: str) -> None:
    import inspect

    keyword = {"entries": "key", "providers": "providers"}[declared]
    for item in (*formats().values(), *runtimes().values()):
        if getattr(item, role, None) and hasattr(item, declared):
            assert getattr(item, declared) == (keyword in inspect.signature(resolve(getattr(item, role))).parameters), item.name
