"""One node of ONNX as a model, and what ONNX Runtime's own kernel answers for it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper

import converter
from converter.errors import UnsupportedError

Array = np.ndarray[Any, Any]
Draw = Callable[[np.random.Generator, tuple[int, ...], Mapping[str, int]], Array]
SIZES = ({"batch": 2, "time": 5, "past": 3}, {"batch": 3, "time": 1, "past": 6})


def floats(generator: np.random.Generator, shape: tuple[int, ...], sizes: Mapping[str, int]) -> Array:
    return generator.normal(size=shape).astype(np.float32)


def integers(low: int, high: int, dtype: Any = np.int32) -> Draw:
    return lambda generator, shape, sizes: generator.integers(low, high, shape).astype(dtype)


@dataclass(frozen=True)
class Case:
    """A node's operands in order: None for an absent one, a shape for an input, an array for a constant, a text for a size."""

    operator: str
    operands: Sequence[Any]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    outputs: int = 1
    draws: Mapping[int, Draw] = field(default_factory=dict)
    """How operands are drawn that are not floats, by their places."""
    absent: Sequence[int] = ()
    """Outputs that are not asked for."""
    domain: str = "com.microsoft"
    sizes: Sequence[Mapping[str, int]] = SIZES
    kinds: Sequence[int] = ()
    """The outputs' dtypes, which ONNX Runtime does not infer of every operator."""
    bits: bool = False
    """Whether results are equal to the bit, and not within a few roundings of float32."""

    def write(self, path: Path) -> Path:
        inputs, constants, names, before = [], [], [], []
        for place, operand in enumerate(self.operands):
            names.append("" if operand is None else f"operand_{place}")
            if isinstance(operand, (tuple, list)):
                drawn = self.draws.get(place, floats)(np.random.default_rng(0), (1,), self.sizes[0])
                inputs.append(helper.make_tensor_value_info(names[-1], helper.np_dtype_to_tensor_dtype(drawn.dtype), operand))
            elif isinstance(operand, str):  # as files have it: the size of an input's axis
                inputs.append(helper.make_tensor_value_info(f"sized_{place}", onnx.TensorProto.FLOAT, [operand]))
                before += [helper.make_node("Shape", [f"sized_{place}"], [f"size_{place}"]),
                           helper.make_node("Cast", [f"size_{place}"], names[-1:], to=onnx.TensorProto.INT32)]
            elif operand is not None:
                constants.append(numpy_helper.from_array(np.asarray(operand), names[-1]))
        outputs = ["" if place in self.absent else f"output_{place}" for place in range(self.outputs)]
        node = helper.make_node(self.operator, names, outputs, domain=self.domain, **self.attributes)
        graph = helper.make_graph([*before, node], "graph", inputs, [onnx.ValueInfoProto(name=name) for name in outputs if name], constants)
        for output in graph.output if self.kinds else ():
            output.type.tensor_type.elem_type = self.kinds[int(output.name.removeprefix("output_"))]
        imports = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
        onnx.save(helper.make_model(graph, opset_imports=imports, ir_version=9), path)
        return path

    def draw(self, sizes: Mapping[str, int], seed: int = 0) -> dict[str, Array]:
        generator = np.random.default_rng(seed)
        drawn: dict[str, Array] = {}
        for place, operand in enumerate(self.operands):
            if isinstance(operand, str):
                drawn[f"sized_{place}"] = np.zeros(evaluated(operand, sizes), np.float32)
            elif isinstance(operand, (tuple, list)):
                shape = tuple(evaluated(size, sizes) for size in operand)
                drawn[f"operand_{place}"] = self.draws.get(place, floats)(generator, shape, sizes)
        return drawn


def evaluated(size: int | str, sizes: Mapping[str, int]) -> int:
    return size if isinstance(size, int) else converter.dims.evaluate(converter.size_text.parse(size), sizes)


def answers(path: Path, inputs: Mapping[str, Array]) -> dict[str, Array]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [item.name for item in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(inputs)), strict=True))


def hold(case: Case, path: Path) -> converter.Model:
    """The model that was read, which answers in every runtime as the kernel does at every size."""
    model = converter.load(case.write(path))
    sessions = {name: converter.session(model, name) for name in ("reference", "numpy", "onnxruntime")}
    for seed, sizes in enumerate(case.sizes):
        inputs = case.draw(sizes, seed)
        expected = answers(path, inputs)
        for (runtime, session), (name, array) in product(sessions.items(), expected.items()):
            found, said = session.run(inputs)[name], f"{name} in {runtime}"
            assert (found.shape, found.dtype) == (array.shape, array.dtype), said
            if case.bits:
                np.testing.assert_array_equal(found, array, err_msg=said)
            else:
                np.testing.assert_allclose(found, array, rtol=2e-5, atol=2e-5, err_msg=said)
    return model


class Drawn:
    """Weights of one file of tests, the same whatever other files are run."""

    def __init__(self) -> None:
        self.generator = np.random.default_rng(1)

    def weights(self, *shape: int) -> Array:
        return (self.generator.normal(size=shape) / 2).astype(np.float32)

    def matrix(self, *shape: int, dtype: Any = np.int8) -> Array:
        ends = np.iinfo(dtype)
        return self.generator.integers(ends.min, ends.max + 1, shape).astype(dtype)


X, PACKED = ("batch", "time", 8), {"num_heads": 2}
KEPT = integers(0, 2)


def ends(generator: np.random.Generator, shape: tuple[int, ...], sizes: Mapping[str, int]) -> Array:
    """How many of `time` keys each row has."""
    return generator.integers(1, sizes["time"] + 1, shape).astype(np.int32)


def not_read(case: Case, part: str, path: Path) -> None:
    """The file is refused, for one thing, with the operator's name and a reason that `part` is found in."""
    with pytest.raises(UnsupportedError) as caught:
        converter.load(case.write(path))
    (item,) = caught.value.items
    assert item["operator"] == f"com.microsoft.{case.operator}"
    assert re.search(part, str(item["reason"]))
