"""Small models for the tests of the format, made of operators that every version has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from converter import reference
from converter.builder import GraphBuilder
from converter.format import load_hdf5, load_json
from converter.ir import DType, Example, Graph, Model
from converter.parameters import InMemoryParameters

Array = np.ndarray[Any, Any]


def classifier(*, examples: bool = True) -> Model:
    """linear -> + bias -> where: a named size, literals, an alias, a constant, an example, metadata."""
    rng = np.random.default_rng(7)
    b = GraphBuilder("classifier")
    x = b.input("x", "float32", ["batch", 3])
    weight, bias = b.parameter("layer.weight", "float32", [4, 3]), b.parameter("layer.bias", "float32", [4])
    h = b.op("linear", x, weight, bias, source="model.py:12")
    h = b.op("multiply", h, 0.5)
    back = b.op("linear", b.op("add", h, b.parameter("shift", "float32", [])), b.parameter("tied", "float32", [4, 4]))
    b.output("scores", back)
    b.output("hidden", h)
    arrays = {"layer.weight": rng.standard_normal((4, 3)).astype(np.float32),
              "layer.bias": np.array([0.1, -0.0, 1e-8, 3.0e38], np.float32),
              "shift": np.array(0.25, np.float32), "square": rng.standard_normal((4, 4)).astype(np.float32)}
    graph = b.graph()
    store = InMemoryParameters(arrays, {"tied": "square"})
    model = Model(graph, store, (), {"source": {"sha256": "0" * 64}, "training": {"rate": 0.001, "steps": [1, 2, None]}},
                  frozenset({"shift"}))
    if not examples:
        return model
    inputs = {"x": rng.standard_normal((2, 3)).astype(np.float32)}
    return Model(graph, store, (Example(inputs, reference.run(model, inputs), "numpy"),), model.metadata, model.constants)


def identity_graph() -> Graph:
    """A graph that uses no parameter: -x."""
    b = GraphBuilder("negate")
    b.output("y", b.op("negative", b.input("x", "float32", ["n"])))
    return b.graph()


def holding(arrays: dict[str, Array], aliases: dict[str, str] | None = None) -> Model:
    """A model that merely holds tensors."""
    return Model(identity_graph(), InMemoryParameters(arrays, aliases))


def random_bits(dtype: DType, shape: tuple[int, ...], seed: int) -> Array:
    """Every bit pattern of a dtype, NaN payloads included."""
    count = int(np.prod(shape, dtype=np.int64))
    data = np.random.default_rng(seed).integers(0, 256, count * dtype.itemsize).astype(np.uint8)
    return (data % 2 if dtype is DType.BOOL else data & ((1 << min(dtype.bits, 8)) - 1)).view(dtype.numpy).reshape(shape)


def same_bits(left: Array, right: Array) -> bool:
    """Equal dtype, shape and bytes."""
    return left.dtype == right.dtype and left.shape == right.shape and left.tobytes() == right.tobytes()


def read_all(path: Path) -> None:
    """Reads a file with every value."""
    model = (load_hdf5 if path.suffix == ".h5" else load_json)(path)
    for name in model.parameters.names():
        model.parameters.read(name)
