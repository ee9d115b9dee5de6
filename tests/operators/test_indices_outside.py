"""Places, classes, labels, lengths and offsets that are none: every runtime refuses them, and none answers from elsewhere."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import converter
from converter.errors import RunError
from converter.ir import DimRange, Model

RUNTIMES = ("reference", "numpy", "onnxruntime", "torch")
TABLE = np.arange(12, dtype=np.float32).reshape(4, 3)
HUGE = 1 << 62


def _model(op: str, ports: dict[str, tuple[str, list[Any]]], parameters: dict[str, Any], operands: list[str], **attributes: Any) -> Model:
    builder = converter.GraphBuilder("g", {name: DimRange(min=0) for _, shape in ports.values() for name in shape if isinstance(name, str)})
    values = {name: builder.input(name, dtype, shape) for name, (dtype, shape) in ports.items()}
    values |= {name: builder.parameter(name, str(array.dtype), list(array.shape)) for name, array in parameters.items()}
    builder.output("y", builder.op(op, *(values[name] for name in operands), **attributes))
    return Model(builder.graph(), converter.InMemoryParameters(parameters))


MODELS = {
    "embedding": lambda: _model("embedding", {"i": ("int64", ["n"])}, {"w": TABLE}, ["i", "w"]),
    "embedding_int32": lambda: _model("embedding", {"i": ("int32", ["n"])}, {"w": TABLE}, ["i", "w"]),
    "embedding_bag": lambda: _model("embedding_bag", {"i": ("int64", ["n", 2])}, {"w": TABLE}, ["i", "w"]),
    "bags": lambda: _model("embedding_bag", {"i": ("int64", ["n"]), "o": ("int64", ["b"])}, {"w": TABLE}, ["i", "w", "o"]),
    "wide_bags": lambda: _model("embedding_bag", {"i": ("int64", ["n", "k"])}, {"w": TABLE}, ["i", "w"]),
    "edges": lambda: _model("embedding_bag", {"i": ("int64", ["n"]), "o": ("int64", ["b"])}, {"w": TABLE}, ["i", "w", "o"],
                            include_last_offset=True),
    "one_hot": lambda: _model("one_hot", {"i": ("int64", ["n"])}, {}, ["i"], num_classes=4),
    "ctc": lambda: _model("ctc_loss", {"p": ("float32", ["t", 1, 6]), "l": ("int64", [1, 3]), "n": ("int64", [1]), "m": ("int64", [1])}, {},
                          ["p", "l", "n", "m"]),
}
LOGS = np.log(np.full((8, 1, 6), 1 / 6, np.float32))


def _ctc(labels: list[int], length: int = 3) -> dict[str, Any]:
    return {"p": LOGS, "l": np.array([labels]), "n": np.array([8]), "m": np.array([length])}


CASES: list[tuple[str, dict[str, Any], bool]] = [
    *(("embedding", {"i": np.array([1, bad])}, False) for bad in (-1, -4, -5, 4, HUGE, -HUGE)),
    ("embedding", {"i": np.array([0, 3])}, True),
    *(("embedding_int32", {"i": np.array([bad, 2], np.int32)}, False) for bad in (-1, 4, -2**31)),
    *(("embedding_bag", {"i": np.array([[0, bad]])}, False) for bad in (-1, -4, 4)),
    *(("bags", {"i": np.arange(3), "o": np.array(bad)}, False) for bad in ([1], [-1], [0, 2, 1], [0, 3, 0], [0, 4], [0, -1], [0, HUGE])),
    *(("bags", {"i": np.arange(3), "o": np.array(good)}, True) for good in ([0], [0, 0, 1], [0, 1, 3], [0, 3, 3])),
    ("bags", {"i": np.arange(3), "o": np.zeros(0, np.int64)}, False),
    *(("bags", {"i": np.zeros(0, np.int64), "o": np.zeros(count, np.int64)}, True) for count in (0, 2)),
    *(("wide_bags", {"i": np.zeros(shape, np.int64)}, True) for shape in ((2, 0), (0, 2), (0, 0), (1, 1))),
    *(("edges", {"i": np.arange(3), "o": np.array(edges)}, True) for edges in ([0], [0, 2], [0, 0, 3])),
    *(("edges", {"i": np.arange(3), "o": np.array(edges)}, False) for edges in ([1], [0, 4], [1, 3], [0, 2, 1])),
    *(("one_hot", {"i": np.array([0, bad])}, False) for bad in (-1, -4, -5, 4, HUGE)),
    ("one_hot", {"i": np.array([0, 3])}, True),
    *(("ctc", _ctc([1, 2, bad]), False) for bad in (-1, 6, HUGE, -HUGE)),
    ("ctc", _ctc([1, 2, -7], 2), True), ("ctc", _ctc([1, 2, 3], 4), False), ("ctc", _ctc([1, 2, 3], -1), False),
]


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize(("name", "inputs", "inside"), CASES, ids=range(len(CASES)))
def test_refused_everywhere(name: str, inputs: dict[str, Any], inside: bool, runtime: str, capfd: pytest.CaptureFixture[str]) -> None:
    model = MODELS[name]()
    session = converter.session(model, runtime)
    if inside:
        expected = converter.session(model, "reference").run(inputs)["y"]
        np.testing.assert_allclose(session.run(inputs)["y"], expected, rtol=1e-5)
    else:
        with pytest.raises(RunError):
            session.run(inputs)
        assert capfd.readouterr() == ("", "")
