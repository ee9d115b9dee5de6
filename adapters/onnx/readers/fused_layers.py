"""Layers with what stands around them, as ONNX Runtime's optimizer writes them: skips, biases, embeddings, activations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from adapters.onnx.readers.convolution import conv
from adapters.onnx.readers.elementwise import hard_sigmoid, swish
from adapters.onnx.readers.fused_attention import asked
from adapters.onnx.readers.linear import gemm, matmul
from adapters.onnx.readers.normalization import rms_norm
from adapters.onnx.reading.items import Item
from adapters.onnx.reading.reader import Reader
from adapters.onnx.registry import forwards, reads
from converter.builder import Value
from converter.ir import DType

# Normalizations ------------------------------------------------------------------------------------------------------------


def _skipped(op: str) -> Callable[..., tuple[Value | None, ...]]:
    def read(g: Reader, x: Item, skip: Item, gamma: Item, *more: Item | None, epsilon: float = 1e-12) -> tuple[Value | None, ...]:
        """The normalization of x + skip + bias, and that sum as the last output."""
        own, bias = ((*more, None, None)[:2] if op == "layer_norm" else (None, (*more, None)[0]))
        total = g.op("add", x, skip)
        if bias is not None:
            total = g.op("add", total, bias)
        weights = (gamma,) if own is None else (gamma, own)
        return g.op(op, total, *weights, normalized_shape=total.shape[-1:], eps=epsilon), None, None, total

    return read


reads("com.microsoft.SkipLayerNormalization")(_skipped("layer_norm"))
reads("com.microsoft.SkipSimplifiedLayerNormalization")(_skipped("rms_norm"))


@reads("SimplifiedLayerNormalization")
def simplified_layer_norm(g: Reader, x: Item, scale: Item, *, axis: int = -1, epsilon: float = 1e-5,
                          stash_type: int = 1) -> tuple[Value, ...]:
    """As ONNX's RMSNormalization, and the reciprocal of the root."""
    found = rms_norm(g, x, scale, axis=axis, epsilon=epsilon, stash_type=stash_type)
    if not asked(g, 1):
        return (found,)
    places = tuple(range(g.axis(axis, g.rank(x)), g.rank(x)))
    square = g.op("mean", g.op("square", g.cast(x, DType.FLOAT32)), axis=places, keepdims=True)
    return found, g.op("rsqrt", g.op("add", square, g.like(epsilon, square)))


@reads("com.microsoft.EmbedLayerNormalization")
def embed_layer_norm(g: Reader, words: Item, segments: Item | None, word_table: Item, position_table: Item, segment_table: Item | None,
                     gamma: Item, beta: Item, mask: Item | None = None, positions: Item | None = None, *, epsilon: float = 1e-12,
                     mask_index_type: int = 0) -> tuple[Value | None, ...]:
    """Embeddings of words, positions and segments, their sum normalized; how many keys each row has; the sum."""
    batch, length = g.shape(words)
    total = g.op("embedding", words, word_table)
    if positions is None:
        rows = g.op("slice", position_table, axes=(0,), starts=(0,), stops=(length,))
    else:
        rows = g.op("embedding", positions, position_table)
    total = g.op("add", total, rows)
    if segments is not None and segment_table is not None:
        total = g.op("add", total, g.op("embedding", segments, segment_table))
    found = g.op("layer_norm", total, gamma, beta, normalized_shape=total.shape[-1:], eps=epsilon)
    count: Value | None = None
    if asked(g, 1):
        if mask is None:
            count = g.op("full", shape=(batch,), fill_value=0, dtype=DType.INT32)
        else:
            count = g.cast(g.op("sum", g.cast(g.op("equal", mask, g.like(1, mask)), DType.INT64), axis=(1,)), DType.INT32)
    return found, count, total


# Activations ---------------------------------------------------------------------------------------------------------------


@reads("com.microsoft.Gelu")
def gelu(g: Reader, x: Item) -> Value:
    return g.op("gelu", x)


@reads("com.microsoft.BiasGelu")
def bias_gelu(g: Reader, x: Item, bias: Item) -> Value:
    return g.op("gelu", g.op("add", x, bias))


@reads("com.microsoft.FastGelu")
def fast_gelu(g: Reader, x: Item, bias: Item | None = None) -> Value:
    return g.op("gelu", x if bias is None else g.op("add", x, bias), approximate="tanh")


@reads("com.microsoft.QuickGelu")
def quick_gelu(g: Reader, x: Item, *, alpha: float = 1.702) -> Value:
    return swish(g, x, alpha=alpha)


@reads("com.microsoft.BiasSplitGelu")
def bias_split_gelu(g: Reader, x: Item, bias: Item) -> Value:
    """With the bias added, the first half of the last axis times GELU of the second."""
    total = g.op("add", x, bias)
    half = total.shape[-1] // 2
    left, right = g.add("split", total, sizes=(half, half), axis=total.rank - 1)
    return g.op("multiply", left, g.op("gelu", right))


@reads("com.microsoft.BiasAdd")
def bias_add(g: Reader, x: Item, bias: Item, skip: Item) -> Value:
    return g.op("add", g.op("add", x, bias), skip)


@reads("com.microsoft.ScaledSiLU")
def scaled_silu(g: Reader, x: Item, scale: Item | None = None, *, alpha: float = 1.0) -> Value:
    """SiLU of x times a scale."""
    return g.op("silu", x if scale is None and alpha == 1 else g.op("multiply", x, g.like(alpha, x) if scale is None else scale))


def _bounded(g: Reader, x: Value, low: float, high: float) -> Value:
    return g.op("minimum", g.op("maximum", x, g.like(low, x)), g.like(high, x))


ACTIVATIONS: dict[str, Callable[..., Value]] = {
    "Relu": lambda g, x: g.op("relu", x), "Tanh": lambda g, x: g.op("tanh", x), "Sigmoid": lambda g, x: g.op("sigmoid", x),
    "LeakyRelu": lambda g, x, alpha=0.01: g.op("leaky_relu", x, negative_slope=alpha), "Clip": _bounded,
    "HardSigmoid": lambda g, x, alpha=0.2, beta=0.5: hard_sigmoid(g, x, alpha=alpha, beta=beta),
    "HardSwish": lambda g, x: g.op("hardswish", x),
}
"""What is fused behind a product or a convolution, with the parameters that the node gives it."""


def activated(g: Reader, x: Value, name: str, parameters: Sequence[float] = ()) -> Value:
    """x through an activation that the node names; none for an empty name. Raises `UnsupportedError` for one that is not known."""
    if not name:
        return x
    if name not in ACTIVATIONS:
        raise g.refuse(f"the activation {name}")
    return ACTIVATIONS[name](g, x, *parameters)


def _in_a_row(g: Reader, *parameters: float | None) -> list[float]:
    """The parameters that are given. Raises `UnsupportedError` for one after another that is not."""
    given = [item for item in parameters if item is not None]
    if list(parameters[:len(given)]) != given:
        raise g.refuse("a parameter of the activation without the one before it")
    return given


# Products and convolutions -------------------------------------------------------------------------------------------------


@reads("com.microsoft.FusedMatMul", "com.microsoft.TransposeMatMul")
def fused_matmul(g: Reader, x: Item, y: Item, *, alpha: float = 1.0, transA: int = 0, transB: int = 0, transBatchA: int = 0,
                 transBatchB: int = 0) -> Value:
    """alpha · x · y; an operand [rows, *batch, columns] has its rows before its columns first, then a swap of the last two axes."""
    if not (transA or transB or transBatchA or transBatchB):
        found = matmul(g, x, y)
    else:
        found = g.op("matmul", _turned(g, x, transA, transBatchA), _turned(g, y, transB, transBatchB))
    return found if alpha == 1 else g.op("multiply", found, g.like(alpha, found))


def _turned(g: Reader, item: Item, last: int, batch: int) -> Value:
    rank = g.rank(item)
    axes = list(range(rank))
    if rank > 1 and batch:
        axes = [*range(1, rank - 1), 0, rank - 1]
    if rank > 1 and last:
        axes[-2:] = axes[:-3:-1]
    return g.op("permute_dims", item, axes=tuple(axes)) if axes != list(range(rank)) else g.tensor(item)


@reads("com.microsoft.FusedMatMulActivation")
@forwards(fused_matmul)
def fused_matmul_activation(g: Reader, x: Item, y: Item, *, activation: str, activation_alpha: float | None = None,
                            activation_beta: float | None = None, activation_gamma: float | None = None, **options: Any) -> Value:
    given = _in_a_row(g, activation_alpha, activation_beta, activation_gamma)
    return activated(g, fused_matmul(g, x, y, **options), activation, given)


@reads("com.microsoft.FusedGemm")
@forwards(gemm)
def fused_gemm(g: Reader, a: Item, b: Item, c: Item | None = None, *, activation: str = "", activation_alpha: float | None = None,
               activation_beta: float | None = None, activation_gamma: float | None = None, **options: Any) -> Value:
    given = _in_a_row(g, activation_alpha, activation_beta, activation_gamma)
    return activated(g, gemm(g, a, b, c, **options), activation, given)


@reads("com.microsoft.GemmFastGelu")
def gemm_fast_gelu(g: Reader, x: Item, weight: Item, bias: Item | None = None) -> Value:
    found = matmul(g, x, weight)
    return g.op("gelu", found if bias is None else g.op("add", found, bias), approximate="tanh")


@reads("com.microsoft.FusedConv")
@forwards(conv)
def fused_conv(g: Reader, x: Item, weight: Item, bias: Item | None = None, more: Item | None = None, *, activation: str = "",
               activation_params: Sequence[float] = (), **options: Any) -> Value:
    """A convolution plus `more`, then an activation."""
    found = conv(g, x, weight, bias, **options)
    return activated(g, found if more is None else g.op("add", found, more), activation, activation_params)
