"""Attention of the domain com.microsoft: what ONNX Runtime's own kernels answer, at drawn inputs and two sizes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import converter
from tests.support_onnx_nodes import KEPT, PACKED, SIZES, Array, Case, Draw, Drawn, X, answers, ends, hold, integers, not_read

DRAWN = Drawn()
weights, matrix = DRAWN.weights, DRAWN.matrix

ATTENTION = {
    "no mask": Case("Attention", [X, weights(8, 24), weights(24)], PACKED),
    "wider values": Case("Attention", [X, weights(8, 28), weights(28)], {**PACKED, "qkv_hidden_sizes": [8, 8, 12], "scale": 0.3}),
    "a mask of keys": Case("Attention", [X, weights(8, 24), weights(24), ("batch", "time")], PACKED, draws={3: KEPT}),
    "a mask of pairs": Case("Attention", [X, weights(8, 24), weights(24), ("batch", "time", "time")], PACKED, draws={3: KEPT}),
    "where keys end": Case("Attention", [X, weights(8, 24), weights(24), ("batch",)], PACKED, draws={3: ends}),
    "where keys end and start": Case("Attention", [X, weights(8, 24), weights(24), ("2*batch",)], PACKED, draws={3: ends}),
    "a mask that says nothing": Case("Attention", [X, weights(8, 24), weights(24), ("batch", 1)], PACKED, draws={3: KEPT},
                                     sizes=SIZES[:1]),
    "causal": Case("Attention", [X, weights(8, 24), weights(24)], {**PACKED, "unidirectional": 1}),
    "causal and a mask of keys": Case("Attention", [X, weights(8, 24), weights(24), ("batch", "time")],
                                      {**PACKED, "unidirectional": 1, "mask_filter_value": -3e38}, draws={3: integers(1, 2)}),
    "a past": Case("Attention", [X, weights(8, 24), weights(24), ("batch", "time + past"), (2, "batch", 2, "past", 4)],
                   {**PACKED, "unidirectional": 1}, 2, draws={3: KEPT}),
    "a bias of scores": Case("Attention", [X, weights(8, 24), weights(24), None, None, (1, 2, "time", "time")], PACKED),
    "a bias of scores and a mask": Case("Attention", [X, weights(8, 24), weights(24), ("batch", "time"), None,
                                                      ("batch", 1, "time", "time")], PACKED, draws={3: KEPT}),
    "three operands": Case("MultiHeadAttention", [X, ("batch", "source", 8), ("batch", "source", 12)], PACKED,
                           sizes=[{**item, "source": 4} for item in SIZES]),
    "a bias of three": Case("MultiHeadAttention", [X, X, X, weights(24)], {**PACKED, "scale": 0.7}),
    "keys in heads": Case("MultiHeadAttention", [X, ("batch", 2, "past", 4), ("batch", 2, "past", 4)], PACKED),
    "padding of keys": Case("MultiHeadAttention", [X, X, X, None, ("batch", "time")], PACKED, draws={4: KEPT}),
    "padding of pairs": Case("MultiHeadAttention", [X, X, X, None, ("batch", "time", "time")], PACKED, draws={4: KEPT}),
    "where padding starts": Case("MultiHeadAttention", [X, X, X, None, ("batch",)], PACKED, draws={4: ends}),
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
STEP = ({"batch": 2, "time": 1, "past": 3}, {"batch": 3, "time": 1, "past": 6})
ONCE = ({"batch": 1, "time": 4, "past": 3}, {"batch": 1, "time": 1, "past": 6})
PROMPT = ({"batch": 2, "time": 5, "past": 0}, {"batch": 3, "time": 3, "past": 0})


def full(generator: np.random.Generator, shape: tuple[int, ...], sizes: Mapping[str, int]) -> Array:
    return np.full(shape, sizes["time"] + sizes["past"] - 1, np.int32)


def used(generator: np.random.Generator, shape: tuple[int, ...], sizes: Mapping[str, int]) -> Array:
    return generator.integers(sizes["time"] - 1, sizes["time"] + sizes["past"], shape).astype(np.int32)


def padded(generator: np.random.Generator, shape: tuple[int, ...], sizes: Mapping[str, int]) -> Array:
    return generator.integers(0, sizes["time"], shape).astype(np.int32)


def grouped(operands: Sequence[Any], draw: Draw = used, sizes: Any = STEP, more: Sequence[Any] = (), total: str = "time + past",
            **attributes: Any) -> Case:
    draws = {5: draw, 9: integers(0, 20, np.int64)}
    return Case("GroupQueryAttention", [*operands, ("batch",), total, *more], {"num_heads": 4, "kv_num_heads": 2, **attributes}, 3, draws,
                sizes=sizes)


GROUPED = {
    "a step": grouped([*NEW, *CACHE]),
    "several steps": grouped([*NEW, *CACHE], full, ONCE),
    "the first step of a cache that is empty": grouped([*NEW, *CACHE], full, PROMPT),
    "a first step padded on the right": grouped([*NEW, *CACHE], padded, PROMPT),
    "a cache longer than what is used": grouped([*NEW, *CACHE], integers(0, 3), total="past"),
    "no cache before": grouped([*NEW, None, None], full, PROMPT, total="time"),
    "packed": grouped([("batch", "time", 128), None, None, *CACHE]),
    "rotary": grouped([*NEW, *CACHE], more=TABLES, do_rotary=1),
    "rotary of several steps": grouped([*NEW, *CACHE], full, ONCE, TABLES, do_rotary=1, rotary_interleaved=1),
    "rotary of packed": grouped([("batch", "time", 128), None, None, *CACHE], more=TABLES, do_rotary=1),
    "rotary at given places": grouped([*NEW, *CACHE], full, ONCE, [*TABLES, ("batch", "time")], do_rotary=1),
    "near keys only": grouped([*NEW, *CACHE], full, local_window_size=3),
    "near keys of several steps": grouped([*NEW, *CACHE], full, ONCE, local_window_size=2),
    "capped": grouped([*NEW, *CACHE], softcap=2.0, scale=0.9),
    "capped with a bias": grouped([*NEW, *CACHE], full, more=[None, None, None, (1, 4, "time", "time + past")], softcap=2.0),
    "a bias of scores": grouped([*NEW, *CACHE], full, ONCE, [None, None, None, (1, 1, "time", "time + past")]),
    "a sink": grouped([*NEW, *CACHE], more=[None, None, None, None, weights(4)]),
    "a smooth softmax": grouped([*NEW, *CACHE], smooth_softmax=1),
    "a sink and a cap": grouped([*NEW, *CACHE], full, more=[None, None, None, None, weights(4)], softcap=2.0),
    "not causal": grouped([*NEW, *CACHE], full, ONCE, causal=0),
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


# Of integers ----------------------------------------------------------------------------------------------------------------

BYTES = integers(0, 256, np.uint8)
HIDDEN = (("batch", "time", 8), matrix(8, 24), weights(24), np.float32(0.02), np.float32(0.01))
QATTENTION = {
    "attention": Case("QAttention", [*HIDDEN, ("batch",), np.uint8(121), np.int8(3)], PACKED, draws={0: BYTES, 5: ends}),
    "attention, a scale for each column": Case("QAttention", [*HIDDEN[:4], abs(weights(24)) / 50, ("batch", "time"), np.uint8(121),
                                                              matrix(24)],
                                               {**PACKED, "unidirectional": 1}, draws={0: BYTES, 5: KEPT}),
    "attention with a past": Case("QAttention", [*HIDDEN, ("batch", "time + past"), np.uint8(121), np.int8(3), (2, "batch", 2, "past", 4)],
                                  {**PACKED, "unidirectional": 1}, 2, {0: BYTES, 5: KEPT}),
}


@pytest.mark.parametrize("name", QATTENTION)
def test_attention_of_integers(name: str, tmp_path: Path) -> None:
    hold(QATTENTION[name], tmp_path / "m.onnx")


@pytest.mark.parametrize(("case", "part"), [
    (Case("Attention", [X, weights(8, 24), weights(24)], {**PACKED, "do_rotary": 1}), "rotary positions"),
    (Case("MultiHeadAttention", [X, X, X, None, ("rows",)], PACKED, draws={4: ends}), r"a mask of the shape \[rows\]"),
    (Case("MultiHeadAttention", [X, ("batch", "source", 8), ("batch", "source", 8)], {**PACKED, "unidirectional": 1}), "another length"),
    (Case("MultiHeadAttention", [X, X, X, None, None, None, ("batch", 2, "past", 4)], PACKED), "a past of keys or of values alone"),
    (grouped([*NEW, *CACHE], k_quant_type="PER_TENSOR", v_quant_type="PER_TENSOR"), "a quantized cache"),
    (Case("Attention", [X, weights(8, 24), weights(24)], {**PACKED, "soft": 1}), "attribute 'soft'"),
])
def test_what_is_not_read_is_named(case: Case, part: str, tmp_path: Path) -> None:
    not_read(case, part, tmp_path / "m.onnx")
