"""Operators of the domain com.microsoft: what ONNX Runtime's own kernels answer, at drawn inputs and two sizes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
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
    return size if isinstance(size, int) else converter.dims.evaluate(converter.dims.parse(size), sizes)


def answers(path: Path, inputs: Mapping[str, Array]) -> dict[str, Array]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [item.name for item in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(inputs)), strict=True))


def hold(case: Case, path: Path) -> converter.Model:
    """The model that was read, which answers as the kernel does at every size."""
    model = converter.load(case.write(path))
    session = converter.session(model)
    for seed, sizes in enumerate(case.sizes):
        inputs = case.draw(sizes, seed)
        expected, found = answers(path, inputs), session.run(inputs)
        for name, array in expected.items():
            assert found[name].shape == array.shape and found[name].dtype == array.dtype, (name, found[name].shape, array.shape)
            if case.bits:
                np.testing.assert_array_equal(found[name], array, err_msg=name)
            else:
                np.testing.assert_allclose(found[name], array, rtol=2e-5, atol=2e-5, err_msg=name)
    return model


rng = np.random.default_rng(1)


def weights(*shape: int) -> Array:
    return (rng.normal(size=shape) / 2).astype(np.float32)


X, PACKED = ("batch", "time", 8), {"num_heads": 2}
KEPT = integers(0, 2)
ENDS: Draw = lambda generator, shape, sizes: generator.integers(1, sizes["time"] + 1, shape).astype(np.int32)  # noqa: E731

ATTENTION = {
    "no mask": Case("Attention", [X, weights(8, 24), weights(24)], PACKED),
    "wider values": Case("Attention", [X, weights(8, 28), weights(28)], {**PACKED, "qkv_hidden_sizes": [8, 8, 12], "scale": 0.3}),
    "a mask of keys": Case("Attention", [X, weights(8, 24), weights(24), ("batch", "time")], PACKED, draws={3: KEPT}),
    "a mask of pairs": Case("Attention", [X, weights(8, 24), weights(24), ("batch", "time", "time")], PACKED, draws={3: KEPT}),
    "where keys end": Case("Attention", [X, weights(8, 24), weights(24), ("batch",)], PACKED, draws={3: ENDS}),
    "where keys end and start": Case("Attention", [X, weights(8, 24), weights(24), ("2*batch",)], PACKED, draws={3: ENDS}),
    "a mask that says nothing": Case("Attention", [X, weights(8, 24), weights(24), ("batch", 1)], PACKED, draws={3: KEPT},
                                     sizes=SIZES[:1]),
    "causal": Case("Attention", [X, weights(8, 24), weights(24)], {**PACKED, "unidirectional": 1}),
    "causal and a mask of keys": Case("Attention", [X, weights(8, 24), weights(24), ("batch", "time")],
                                      {**PACKED, "unidirectional": 1, "mask_filter_value": -3e38}, draws={3: integers(1, 2)}),
    "a past": Case("Attention", [X, weights(8, 24), weights(24), ("batch", "time + past"), (2, "batch", 2, "past", 4)],
                   {**PACKED, "unidirectional": 1}, 2, draws={3: KEPT}),
    "a bias of scores": Case("Attention", [X, weights(8, 24), weights(24), None, None, (1, 2, "time", "time")], PACKED),
    "a bias of scores and a mask": Case("Attention", [X, weights(8, 24), weights(24), ("batch", "time"), None, ("batch", 1, "time", "time")],
                                        PACKED, draws={3: KEPT}),
    "three operands": Case("MultiHeadAttention", [X, ("batch", "source", 8), ("batch", "source", 12)], PACKED,
                           sizes=[{**item, "source": 4} for item in SIZES]),
    "a bias of three": Case("MultiHeadAttention", [X, X, X, weights(24)], {**PACKED, "scale": 0.7}),
    "keys in heads": Case("MultiHeadAttention", [X, ("batch", 2, "past", 4), ("batch", 2, "past", 4)], PACKED),
    "padding of keys": Case("MultiHeadAttention", [X, X, X, None, ("batch", "time")], PACKED, draws={4: KEPT}),
    "padding of pairs": Case("MultiHeadAttention", [X, X, X, None, ("batch", "time", "time")], PACKED, draws={4: KEPT}),
    "where padding starts": Case("MultiHeadAttention", [X, X, X, None, ("batch",)], PACKED, draws={4: ENDS}),
    "a bias and a cache": Case("MultiHeadAttention", [X, X, X, None, ("batch", "time + past"), (1, 2, "time", "time + past"),
                                                      ("batch", 2, "past", 4), ("batch", 2, "past", 4)], PACKED, 3, draws={4: KEPT}),
    "causal with a cache": Case("MultiHeadAttention", [X, X, X, weights(24), None, None, ("batch", 2, "past", 4), ("batch", 2, "past", 4)],
                                {**PACKED, "unidirectional": 1}, 3),
    "scores": Case("MultiHeadAttention", [X, X, X, None, ("batch", "time")], PACKED, 4, draws={4: KEPT}, kinds=(1, 1, 1, 1)),
}


@pytest.mark.parametrize("name", ATTENTION)
def test_attention(name: str, tmp_path: Path) -> None:
    hold(ATTENTION[name], tmp_path / "m.onnx")


# Grouped heads: the cache's used length is each row's own ------------------------------------------------------------------

Q, K = ("batch", "time", 64), ("batch", "time", 32)
NEW = [Q, K, K]
CACHE = [("batch", 2, "past", 16), ("batch", 2, "past", 16)]
TABLES = [weights(24, 8), weights(24, 8)]
FULL: Draw = lambda generator, shape, sizes: np.full(shape, sizes["time"] + sizes["past"] - 1, np.int32)  # noqa: E731
USED: Draw = lambda generator, shape, sizes: generator.integers(sizes["time"] - 1, sizes["time"] + sizes["past"], shape).astype(np.int32)  # noqa: E731
STEP = ({"batch": 2, "time": 1, "past": 3}, {"batch": 3, "time": 1, "past": 6})
ONCE = ({"batch": 1, "time": 4, "past": 3}, {"batch": 1, "time": 1, "past": 6})
PROMPT = ({"batch": 2, "time": 5, "past": 0}, {"batch": 3, "time": 3, "past": 0})


def grouped(operands: Sequence[Any], draw: Draw = USED, sizes: Any = STEP, more: Sequence[Any] = (), total: str = "time + past",
            **attributes: Any) -> Case:
    draws = {5: draw, 9: integers(0, 20, np.int64)}
    return Case("GroupQueryAttention", [*operands, ("batch",), total, *more], {"num_heads": 4, "kv_num_heads": 2, **attributes}, 3, draws,
                sizes=sizes)


GROUPED = {
    "a step": grouped([*NEW, *CACHE]),
    "several steps": grouped([*NEW, *CACHE], FULL, ONCE),
    "the first step of a cache that is empty": grouped([*NEW, *CACHE], FULL, PROMPT),
    "a first step padded on the right": grouped([*NEW, *CACHE], lambda r, shape, sizes: r.integers(0, sizes["time"], shape).astype(np.int32),
                                               PROMPT),
    "a cache longer than what is used": grouped([*NEW, *CACHE], lambda r, shape, sizes: r.integers(0, 3, shape).astype(np.int32),
                                               total="past"),
    "no cache before": grouped([*NEW, None, None], lambda r, shape, sizes: np.full(shape, sizes["time"] - 1, np.int32), PROMPT, total="time"),
    "packed": grouped([("batch", "time", 128), None, None, *CACHE]),
    "rotary": grouped([*NEW, *CACHE], more=TABLES, do_rotary=1),
    "rotary of several steps": grouped([*NEW, *CACHE], FULL, ONCE, TABLES, do_rotary=1, rotary_interleaved=1),
    "rotary of packed": grouped([("batch", "time", 128), None, None, *CACHE], more=TABLES, do_rotary=1),
    "rotary at given places": grouped([*NEW, *CACHE], FULL, ONCE, [*TABLES, ("batch", "time")], do_rotary=1),
    "near keys only": grouped([*NEW, *CACHE], FULL, local_window_size=3),
    "near keys of several steps": grouped([*NEW, *CACHE], FULL, ONCE, local_window_size=2),
    "capped": grouped([*NEW, *CACHE], softcap=2.0, scale=0.9),
    "capped with a bias": grouped([*NEW, *CACHE], FULL, more=[None, None, None, (1, 4, "time", "time + past")], softcap=2.0),
    "a bias of scores": grouped([*NEW, *CACHE], FULL, ONCE, [None, None, None, (1, 1, "time", "time + past")]),
    "a sink": grouped([*NEW, *CACHE], more=[None, None, None, None, weights(4)]),
    "a smooth softmax": grouped([*NEW, *CACHE], smooth_softmax=1),
    "a sink and a cap": grouped([*NEW, *CACHE], FULL, more=[None, None, None, None, weights(4)], softcap=2.0),
    "not causal": grouped([*NEW, *CACHE], FULL, ONCE, causal=0),
}


@pytest.mark.parametrize("name", GROUPED)
def test_grouped_attention(name: str, tmp_path: Path) -> None:
    hold(GROUPED[name], tmp_path / "m.onnx")


def test_grouped_attention_of_normalized_heads(tmp_path: Path) -> None:
    """As that of queries and keys that were normalized before; the kernel itself has no weights to do it."""
    plain, (q_weight, k_weight) = grouped([*NEW, *CACHE], more=TABLES, do_rotary=1), (weights(16), weights(16))
    normal = grouped([*NEW, *CACHE], more=[*TABLES, *[None] * 5, q_weight, k_weight], do_rotary=1, qk_norm_epsilon=1e-4)
    inputs = plain.draw(STEP[0])
    found = converter.session(converter.load(normal.write(tmp_path / "normal.onnx"))).run(inputs)
    for name, weight in (("operand_0", q_weight), ("operand_1", k_weight)):
        heads = inputs[name].reshape(*inputs[name].shape[:2], -1, 16)
        root = np.sqrt(np.mean(heads * heads, axis=-1, keepdims=True) + 1e-4)
        inputs[name] = (heads / root * weight).reshape(inputs[name].shape)
    for name, array in answers(plain.write(tmp_path / "plain.onnx"), inputs).items():
        np.testing.assert_allclose(found[name], array, rtol=2e-5, atol=2e-5)


# Layers --------------------------------------------------------------------------------------------------------------------

IMAGE = ("batch", 4, "height", 7)
PLANES = ({"batch": 2, "height": 6}, {"batch": 1, "height": 9})
IDS = integers(0, 6)
EMBEDDED = [("batch", "time"), ("batch", "time"), weights(6, 8), weights(9, 8), weights(6, 8), weights(8), weights(8)]

LAYERS = {
    "skip": Case("SkipLayerNormalization", [X, X, weights(8), weights(8), weights(8)], {"epsilon": 1e-5}, 4, absent=[1, 2]),
    "skip of one row, without bias": Case("SkipLayerNormalization", [X, ("time", 8), weights(8), weights(8)]),
    "skip without shift": Case("SkipLayerNormalization", [X, (1, "time", 8), weights(8)]),
    "skip and root": Case("SkipSimplifiedLayerNormalization", [X, X, weights(8), weights(8)], {"epsilon": 1e-5}, 4, absent=[1, 2]),
    "skip and root alone": Case("SkipSimplifiedLayerNormalization", [X, X, weights(8)]),
    "root": Case("SimplifiedLayerNormalization", [X, weights(8)], {"axis": -1, "epsilon": 1e-4}, 2, domain=""),
    "root of two axes": Case("SimplifiedLayerNormalization", [("batch", 3, 8), weights(3, 8)], {"axis": 1}, domain=""),
    "embeddings": Case("EmbedLayerNormalization", [*EMBEDDED, ("batch", "time")], {}, 3, {0: IDS, 1: IDS, 7: KEPT}, kinds=(1, 6, 1)),
    "embeddings without mask": Case("EmbedLayerNormalization", EMBEDDED, {"epsilon": 1e-3}, 2, {0: IDS, 1: IDS}),
    "embeddings at given places": Case("EmbedLayerNormalization",
                                       [EMBEDDED[0], None, *EMBEDDED[2:4], None, *EMBEDDED[5:], None, ("batch", "time")], {}, 2,
                                       {0: IDS, 8: IDS}),
    "bias and gelu": Case("BiasGelu", [X, weights(8)]), "gelu": Case("Gelu", [X]), "fast gelu": Case("FastGelu", [X]),
    "fast gelu and bias": Case("FastGelu", [X, weights(8)]), "quick gelu": Case("QuickGelu", [X], {"alpha": 1.3}),
    "a product": Case("FusedMatMul", [X, weights(8, 3)], {"alpha": 0.5}),
    "a product turned": Case("FusedMatMul", [X, X], {"transB": 1, "alpha": 2.0}),
    "a product turned first": Case("FusedMatMul", [X, X], {"transA": 1}),
    "a product of batches turned": Case("FusedMatMul", [("time", "batch", 8), ("batch", 8, 3)], {"transBatchA": 1}),
    "a product of both turned": Case("FusedMatMul", [(8, "batch", 2, "time"), ("time", "batch", 2, 8)],
                                     {"transBatchA": 1, "transA": 1, "transBatchB": 1, "transB": 1}, sizes=[{"batch": 3, "time": 8}]),
    "an old product": Case("TransposeMatMul", [X, X], {"transB": 1}),
    "a layer and relu": Case("FusedGemm", [("batch", 8), weights(8, 3), weights(3)], {"activation": "Relu"}),
    "a layer and leaky relu": Case("FusedGemm", [("batch", 8), weights(3, 8), weights(3)],
                                   {"activation": "LeakyRelu", "activation_alpha": 0.3, "transB": 1, "alpha": 0.5, "beta": 2.0}),
    "a convolution and relu": Case("FusedConv", [IMAGE, weights(6, 4, 3, 3), weights(6)],
                                   {"activation": "Relu", "pads": [1, 0, 1, 2], "strides": [2, 1]}, sizes=PLANES),
    "a convolution, a sum and tanh": Case("FusedConv", [IMAGE, weights(4, 2, 3, 3), weights(4), IMAGE],
                                          {"activation": "Tanh", "pads": [1] * 4, "group": 2}, sizes=PLANES),
    "a convolution and bounds": Case("FusedConv", [IMAGE, weights(6, 4, 3, 3), weights(6)],
                                     {"activation": "Clip", "activation_params": [-0.5, 1.5]}, sizes=PLANES),
    "a convolution and hard sigmoid": Case("FusedConv", [IMAGE, weights(6, 4, 3, 3)],
                                           {"activation": "HardSigmoid", "activation_params": [0.3, 0.4]}, sizes=PLANES),
    "a convolution and leaky relu": Case("FusedConv", [IMAGE, weights(6, 4, 3, 3)],
                                         {"activation": "LeakyRelu", "activation_params": [0.3], "auto_pad": "SAME_UPPER"}, sizes=PLANES),
    "a sigmoid gate": Case("ScaledSiLU", [X], {"alpha": 0.5}),
    "rotary": Case("RotaryEmbedding", [("batch", "time", 16), ("batch", "time"), weights(24, 4), weights(24, 4)], {},
                   draws={1: integers(0, 20, np.int64)}),
    "rotary from a start": Case("RotaryEmbedding", [("batch", "time", 16), (1,), weights(24, 4), weights(24, 4)], {"interleaved": 1},
                                draws={1: integers(0, 10, np.int64)}),
    "rotary of heads": Case("RotaryEmbedding", [("batch", 2, "time", 16), ("batch", "time"), weights(24, 8), weights(24, 8)], {},
                            draws={1: integers(0, 20, np.int64)}),
    "rotary of a part": Case("RotaryEmbedding", [("batch", "time", 32), ("batch", "time"), weights(24, 4), weights(24, 4)],
                             {"num_heads": 2, "rotary_embedding_dim": 8}, draws={1: integers(0, 20, np.int64)}),
}


@pytest.mark.parametrize("name", LAYERS)
def test_layers(name: str, tmp_path: Path) -> None:
    hold(LAYERS[name], tmp_path / "m.onnx")
