"""Operators of the domain com.microsoft: what ONNX Runtime's own kernels answer, at drawn inputs and two sizes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import converter
from tests.support_onnx_nodes import KEPT, SIZES, Array, Case, Draw, Drawn, X, answers, hold, integers, not_read

DRAWN = Drawn()
weights, matrix = DRAWN.weights, DRAWN.matrix

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


# Integers ------------------------------------------------------------------------------------------------------------------

BYTES, SIGNED = integers(0, 256, np.uint8), integers(-128, 128, np.int8)


def step(value: float) -> Array:
    return np.float32(value)  # type: ignore[return-value]


def quantized(operator: str, *operands: Any, draws: Mapping[int, Draw], **options: Any) -> Case:
    attributes = options.pop("attributes", {})
    return Case(operator, operands, attributes, options.pop("outputs", 1), draws, bits=True, **options)


A = (("batch", 7), step(0.031), np.uint8(117))
B = (("batch", 7), step(0.047), np.uint8(97))
C = (step(0.073), np.uint8(33))
I8 = (("batch", 7), step(0.031), np.int8(-17))
J8 = ((7,), step(0.047), np.int8(9))
BOTH = {0: BYTES, 3: BYTES}
PIXELS = (("batch", 3, "height", 8), step(0.0531), np.uint8(7))


QUANTIZED = {
    "sum": quantized("QLinearAdd", *A, *B, *C, draws=BOTH),
    "sum of signed, one broadcast": quantized("QLinearAdd", *I8, *J8, step(0.1), np.int8(3), draws={0: SIGNED, 3: SIGNED}),
    "product": quantized("QLinearMul", *A, *B, *C, draws=BOTH),
    "product of signed": quantized("QLinearMul", *I8, *J8, step(0.1), np.int8(3), draws={0: SIGNED, 3: SIGNED}),
    "sigmoid": quantized("QLinearSigmoid", *A, step(1 / 256), np.uint8(0), draws=BOTH),
    "sigmoid of signed": quantized("QLinearSigmoid", *I8, step(1 / 256), np.int8(-128), draws={0: SIGNED}),
    "leaky relu": quantized("QLinearLeakyRelu", *A, *C, draws=BOTH, attributes={"alpha": 0.2}),
    "average": quantized("QLinearAveragePool", *PIXELS, step(0.04), np.uint8(9), draws=BOTH, sizes=PLANES,
                         attributes={"kernel_shape": [3, 2], "strides": [2, 1], "pads": [1, 0, 1, 1]}),
    "average of channels last": quantized("QLinearAveragePool", *PIXELS, step(0.04), np.uint8(9), draws=BOTH, sizes=PLANES,
                                          attributes={"kernel_shape": [2, 2], "channels_last": 1, "count_include_pad": 1, "pads": [1] * 4}),
    "whole average": quantized("QLinearGlobalAveragePool", *PIXELS, step(0.04), np.uint8(9), draws=BOTH, sizes=PLANES),
    "whole average of channels last": quantized("QLinearGlobalAveragePool", *PIXELS, step(0.04), np.uint8(9), draws=BOTH, sizes=PLANES,
                                                attributes={"channels_last": 1}),
    "side by side": quantized("QLinearConcat", *C, *A, *B, draws={2: BYTES, 5: BYTES}, attributes={"axis": 1}),
    "one or the other": quantized("QLinearWhere", ("batch", 7), *A, *B, *C, draws={0: integers(0, 2, bool), 1: BYTES, 4: BYTES}),
    "a product by its own range": quantized("DynamicQuantizeMatMul", X, matrix(8, 5), step(0.01), np.int8(3), weights(5), draws={}),
    "a product by its own range, a scale for each column": quantized(
        "DynamicQuantizeMatMul", X, matrix(8, 5, dtype=np.uint8), abs(weights(5)), matrix(5, dtype=np.uint8), draws={}),
    "a product of zeros": quantized("DynamicQuantizeMatMul", X, matrix(8, 5), step(0.01), np.int8(3), weights(5),
                                    draws={0: lambda r, shape, sizes: np.zeros(shape, np.float32)}),
    "a product to floats": quantized("MatMulIntegerToFloat", X, matrix(8, 5), step(0.02), step(0.01), np.uint8(121), np.int8(3), weights(5),
                                     draws={0: BYTES}),
    "a product to floats, a scale for each column": quantized("MatMulIntegerToFloat", X, matrix(8, 5), step(0.02), abs(weights(5)), None,
                                                              matrix(5), draws={0: SIGNED}),
    "a layer": quantized("QGemm", ("batch", 7), step(0.02), np.uint8(120), matrix(7, 4), step(0.01), np.int8(3),
                         DRAWN.generator.integers(-999, 999, 4).astype(np.int32), step(0.05), np.uint8(99), draws={0: BYTES}),
    "a layer to floats": quantized("QGemm", ("batch", 7), step(0.02), np.uint8(120), matrix(4, 7), abs(weights(4)), matrix(4),
                                   DRAWN.generator.integers(-999, 999, 4).astype(np.int32), draws={0: BYTES},
                                   attributes={"transB": 1, "alpha": 1.5}),
}
NEAR = {
    "softmax": quantized("QLinearSoftmax", *A, step(1 / 256), np.uint8(0), draws=BOTH, attributes={"axis": -1, "opset": 13}),
    "softmax of signed": quantized("QLinearSoftmax", *I8, step(1 / 256), np.int8(-128), draws={0: SIGNED},
                                   attributes={"axis": 1, "opset": 12}),
}


# Weights of few bits -------------------------------------------------------------------------------------------------------


def packed(rows: int, columns: int, block: int, bits: int, *more: Any, **attributes: Any) -> Case:
    count = -(-columns // block)
    table = matrix(rows, count, block * bits // 8, dtype=np.uint8)
    return Case("MatMulNBits", [("batch", "time", columns), table, *more],
                {"K": columns, "N": rows, "bits": bits, "block_size": block, **attributes})


SCALES = abs(weights(6, 2)) / 8
FEW = {
    "4 bits": packed(6, 32, 16, 4, SCALES),
    "4 bits of flat scales": packed(6, 32, 16, 4, SCALES.reshape(-1)),
    "4 bits and zero points": packed(6, 32, 16, 4, SCALES, matrix(6, 1, dtype=np.uint8)),
    "4 bits and an odd number of blocks": packed(6, 48, 16, 4, abs(weights(6, 3)), matrix(12, dtype=np.uint8)),
    "4 bits, zero points in floats": packed(6, 32, 16, 4, SCALES, weights(6, 2)),
    "4 bits and a bias": packed(6, 32, 16, 4, SCALES, None, None, weights(6)),
    "4 bits, columns that end in a block": packed(6, 24, 16, 4, SCALES),
    "4 bits, blocks of columns named": packed(6, 32, 16, 4, SCALES, None, (np.arange(32) % 2).astype(np.int32)),
    "2 bits": packed(6, 32, 16, 2, SCALES),
    "8 bits": packed(6, 32, 16, 8, SCALES / 8),
    "8 bits and zero points": packed(6, 32, 16, 8, SCALES / 8, matrix(6, 2, dtype=np.uint8)),
    "rows of 4 bits": Case("GatherBlockQuantized", [matrix(9, 16, dtype=np.uint8), ("batch", "time"), abs(weights(9, 2))],
                           {"block_size": 16, "bits": 4}, draws={1: integers(0, 9, np.int64)}),
    "rows of 4 bits and zero points": Case("GatherBlockQuantized", [matrix(9, 16, dtype=np.uint8), ("batch",), abs(weights(9, 2)),
                                                                    matrix(9, 1, dtype=np.uint8)],
                                           {"block_size": 16, "bits": 4}, draws={1: integers(0, 9, np.int64)}),
    "rows of 8 bits": Case("GatherBlockQuantized", [matrix(9, 32, dtype=np.uint8), ("batch", "time"), abs(weights(9, 2)),
                                                    matrix(9, 2, dtype=np.uint8)],
                           {"block_size": 16, "bits": 8}, draws={1: integers(0, 9, np.int32)}),
}

@pytest.mark.parametrize("name", FEW)
def test_weights_of_few_bits(name: str, tmp_path: Path) -> None:
    hold(FEW[name], tmp_path / "m.onnx")


@pytest.mark.parametrize("name", NEAR)
def test_a_softmax_of_integers_is_a_step_from_the_kernel_s_table(name: str, tmp_path: Path) -> None:
    model = converter.load(NEAR[name].write(path := tmp_path / "m.onnx"))
    inputs = NEAR[name].draw(SIZES[0])
    found, expected = converter.session(model).run(inputs)["output_0"], answers(path, inputs)["output_0"]
    assert np.abs(found.astype(int) - expected).max() <= 1


@pytest.mark.parametrize("name", QUANTIZED)
def test_integers_to_the_bit(name: str, tmp_path: Path) -> None:
    hold(QUANTIZED[name], tmp_path / "m.onnx")


# What ONNX has too ---------------------------------------------------------------------------------------------------------

OTHERS = {
    "above a diagonal": Case("Trilu", [("batch", "time", "time"), np.int64(1)]),
    "below": Case("Trilu", [("batch", "time", 6)], {"upper": 0}),
    "padding": Case("Pad", [X, np.array([0, 1, 2, 0, 3, 0]), np.float32(0.5)]),
    "padding that reflects": Case("Pad", [("batch", 6, 8), np.array([0, 1, 2, 0, 3, 0])], {"mode": "reflect"}),
    "inverses": Case("Inverse", [("batch", 3, 3)]),
    "distances": Case("CDist", [("batch", 3), ("time", 3)], {"metric": "euclidean"}),
    "squares of distances": Case("CDist", [("batch", 3), ("time", 3)]),
    "distinct elements": Case("Unique", [("time",)], outputs=3, draws={0: integers(0, 4, np.float32)}, sizes=[{"time": 9}, {"time": 4}]),
    "counts": Case("Range", [np.float32(1), np.float32(4), np.float32(0.5)], sizes=SIZES[:1]),
    "counts by one": Case("Range", [np.int64(1), np.int64(4)], sizes=SIZES[:1]),
    "one more axis": Case("ExpandDims", [X, np.int32(-2)]),
    "rows by indices": Case("GatherND", [X, ("batch", 2)], draws={1: integers(0, 1, np.int64)}),
    "samples of a grid": Case("GridSample", [("batch", 2, 5, 6), ("batch", 3, 4, 2)], {"mode": "bilinear", "padding_mode": "border"}),
    "16 bits": Case("QuantizeLinear", [X, step(0.013), np.uint16(30000)], bits=True),
    "16 bits and back": Case("DequantizeLinear", [X, step(0.013), np.int16(-300)], bits=True,
                             draws={0: integers(-9999, 9999, np.int16)}),
    "a convolution of channels last": quantized(
        "QLinearConv", ("batch", "height", 7, 4), step(0.02), np.uint8(100), matrix(6, 4, 3, 3), step(0.013), np.int8(0), step(0.31),
        np.uint8(90), draws={0: BYTES}, attributes={"channels_last": 1, "pads": [1, 1, 1, 0]}, sizes=PLANES),
    "a largest of channels last": quantized("NhwcMaxPool", ("batch", "height", 7, 4), draws={0: BYTES}, sizes=PLANES,
                                            attributes={"kernel_shape": [2, 3], "strides": [2, 1]}),
}


@pytest.mark.parametrize("name", OTHERS)
def test_what_onnx_has_too(name: str, tmp_path: Path) -> None:
    hold(OTHERS[name], tmp_path / "m.onnx")


@pytest.mark.parametrize(("case", "part"), [
    (Case("FusedGemm", [X, weights(8, 3), weights(3)], {"activation": "Softplus"}), "the activation Softplus"),
    (Case("FusedGemm", [X, weights(8, 3), weights(3)], {"activation": "HardSigmoid", "activation_beta": 0.1}), "without the one before"),
    (Case("CDist", [("batch", 3), ("time", 3)], {"metric": "cosine"}), "the distance cosine"),
    (Case("AttnLSTM", [X, matrix(1, 8, 16), matrix(1, 4, 16)], {"hidden_size": 4}), "no reader"),
])
def test_what_is_not_read_is_named(case: Case, part: str, tmp_path: Path) -> None:
    not_read(case, part, tmp_path / "m.onnx")
