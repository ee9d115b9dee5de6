"""The example of `docs/adding_an_adapter.md`: an adapter that is one folder, held against the conformance files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import converter
from converter import discovery
from converter.conformance import misfits, outcome
from converter.errors import RunError, UnsupportedError
from converter.opset import operators
from tests.example_adapter.adapter import ADAPTER

ROOT = Path(__file__).parent.parent
REFUSED = ("eig-", "scatter-complex_product")
"""What ONNX Runtime has no form for."""
FILES = sorted((ROOT / "fixtures" / "conformance").glob("*.json"))


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The example as a plug-in that is installed."""

    class Point:
        value = "tests.example_adapter.adapter:ADAPTER"

        @staticmethod
        def load() -> discovery.Adapter:
            return ADAPTER

    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: [Point] if group == discovery.ENTRY_POINTS else [])
    discovery.adapters.cache_clear()
    yield
    discovery.adapters.cache_clear()


@pytest.mark.usefixtures("example")
def test_the_example_passes_or_refuses_every_conformance_file() -> None:
    found = {path.stem: outcome(path, "example") for path in FILES}
    assert set(found.values()) == {"equivalent", "refused"}
    assert found["linear-no_bias"] == found["relu-plain"] == "equivalent"


@pytest.mark.usefixtures("example")
def test_a_fault_in_a_kernel_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.example_adapter import session

    monkeypatch.setitem(session.KERNELS, "relu", np.abs)
    assert outcome(ROOT / "fixtures" / "conformance" / "relu-plain.json", "example") == "different"


@pytest.mark.usefixtures("example")
def test_what_it_lacks_is_named_at_once() -> None:
    with pytest.raises(UnsupportedError) as caught:
        converter.session(ROOT / "fixtures" / "lstm_classifier" / "model.json", "example")
    assert "lstm" in {item["operator"] for item in caught.value.items}


@pytest.mark.usefixtures("example")
@pytest.mark.parametrize("name", ["example", "neutral", "numpy", "onnx", "torch", "safetensors", "architectures"])
def test_every_declared_function_takes_what_its_port_gives(name: str) -> None:
    assert misfits(discovery.adapters()[name]) == []


def test_a_function_that_is_no_port_is_named() -> None:
    own = "tests.example_adapter"
    wrong = discovery.Adapter("wrong", formats=(discovery.Format("a", "a", (".a",), "model", f"{own}.session:relu", digests=True),),
                              runtimes=(discovery.Runtime("b", "b", f"{own}.session:ExampleSession", options=(
                                  discovery.Option("speed", int, ""),)),), tracer=f"{own}.listing:save_listing")
    found = misfits(wrong)
    assert [text.partition(":")[0] for text in found] == ["format a, load", "runtime b", "tracer"]
    assert "is called with path, verify=: got an unexpected keyword argument 'verify'" in found[0]


@pytest.mark.usefixtures("example")
def test_its_format_and_its_errors(tmp_path: Path) -> None:
    model = converter.load(ROOT / "fixtures" / "mlp_digits" / "model.json")
    assert converter.save(model, tmp_path / "m.listing") == (tmp_path / "m.listing",)
    lines = (tmp_path / "m.listing").read_text(encoding="utf-8").splitlines()
    assert lines[0] == model.graph.name
    assert len(lines) == len(model.graph.nodes) + 1
    with pytest.raises(RunError):
        converter.session(model, "example").run({"x": np.zeros(3, np.int64)})


def test_every_operator_has_a_conformance_file() -> None:
    counted = Counter(node.op for path in FILES for node in converter.load(path).graph.nodes)
    assert operators().keys() - counted.keys() == set()


@pytest.mark.long
@pytest.mark.parametrize("runtime", ["reference", "numpy", "onnxruntime", "torch"])
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_runtimes_conform(path: Path, runtime: str) -> None:
    assert outcome(path, runtime) == ("refused" if runtime == "onnxruntime" and path.stem.startswith(REFUSED) else "equivalent")
