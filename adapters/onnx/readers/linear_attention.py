"""Attention whose state is a matrix, the causal convolution before it, and attention with changes of its own."""

from __future__ import annotations

import math

import onnx

from adapters.onnx.load import FROM_ONNX
from adapters.onnx.readers.control import inlined
from adapters.onnx.reading.items import Item
from adapters.onnx.reading.reader import Reader
from adapters.onnx.registry import reads
from converter.builder import GraphBuilder, Value
from converter.dims import Dim
from converter.ir import DType, Graph

Kinds = dict[str, tuple[bool, bool]]
RULES: Kinds = {"linear": (False, False), "gated": (True, False), "delta": (False, True), "gated_delta": (True, True)}
"""Whether the state decays, and whether what it holds already is taken off."""


@reads("LinearAttention")
def linear_attention(g: Reader, query: Item, key: Item, value: Item, past: Item | None = None, decay: Item | None = None,
                     beta: Item | None = None, *, q_num_heads: int, kv_num_heads: int, scale: float = 0.0, chunk_size: int = 64,
                     update_rule: str = "gated_delta") -> tuple[Value, Value]:
    """A step of time after the other: the state [batch, heads, keys, values] and what the query reads of it, in float32 at least."""
    if update_rule not in RULES or (decay is not None, beta is not None) != RULES[update_rule] or q_num_heads % kv_num_heads:
        raise g.refuse(f"the rule {update_rule} with these operands")
    dtype = g.dtype(query)
    wide = DType.FLOAT64 if dtype is DType.FLOAT64 else DType.FLOAT32

    def by_time(item: Item, heads: int) -> Value:
        """[batch, time, heads · size] as [time, batch, heads, size]."""
        batch, time, width = g.shape(item)
        split = g.op("reshape", g.cast(item, wide), shape=(batch, time, heads, width // heads))
        return g.op("permute_dims", split, axes=(1, 0, 2, 3))

    q, k, v = by_time(query, q_num_heads), by_time(key, kv_num_heads), by_time(value, kv_num_heads)
    sequences = {"q": q, "k": k, "v": v}
    if decay is not None:
        sequences["decay"] = by_time(decay, kv_num_heads)
    if beta is not None:
        width = g.shape(beta)[2]
        sequences["beta"] = by_time(beta, 1 if width == 1 else kv_num_heads)
    batch, depth, width = q.shape[1], q.shape[3], v.shape[3]
    if not isinstance(depth, int):
        raise g.refuse("keys of a free size")
    start = g.op("full", shape=(batch, kv_num_heads, depth, width), fill_value=0.0, dtype=wide) if past is None else g.cast(past, wide)
    body = _step(start, sequences, q_num_heads // kv_num_heads, scale or 1 / math.sqrt(depth))
    state, found = g.add("scan", start, *sequences.values(), states=1, sequences=len(sequences), body=body)
    time = found.shape[0]
    flat = g.op("reshape", g.op("permute_dims", found, axes=(1, 0, 2, 3)), shape=(batch, time, q_num_heads * width))
    return g.cast(flat, dtype), g.cast(state, dtype if past is None else g.dtype(past))


def _step(start: Value, sequences: dict[str, Value], group: int, scale: float) -> Graph:
    b = GraphBuilder("step")
    state = b.input("state", start.dtype, start.shape)
    now = {name: b.input(name, item.dtype, item.shape[1:]) for name, item in sequences.items()}
    key, value = b.op("expand_dims", now["k"], axis=(3,)), now["v"]
    if "decay" in now:
        state = b.op("multiply", state, b.op("expand_dims", b.op("exp", now["decay"]), axis=(3,)))
    if "beta" in now:
        held = b.op("sum", b.op("multiply", state, key), axis=(2,))
        value = b.op("multiply", now["beta"], b.op("subtract", value, held))
    state = b.op("add", state, b.op("multiply", key, b.op("expand_dims", value, axis=(2,))))
    read = b.op("repeat_interleave", state, repeats=group, axis=1) if group > 1 else state
    b.output("next", state)
    b.output("found", b.op("multiply", b.op("sum", b.op("multiply", b.op("expand_dims", now["q"], axis=(3,)), read), axis=(2,)), scale))
    return b.graph()


@reads("CausalConvWithState")
def causal_conv(g: Reader, x: Item, weight: Item, bias: Item | None = None, past: Item | None = None, *,
                activation: str = "none") -> tuple[Value, Value]:
    """Channel by channel over what was before, and the last columns for the next call."""
    batch, channels, length = g.shape(x)
    width = g.shape(weight)[2]
    if not isinstance(width, int) or not isinstance(channels, int) or activation not in ("none", "silu", "swish"):
        raise g.refuse(f"a free number of channels or taps, or the activation {activation}")
    before = past if past is not None else g.op("full", shape=(batch, channels, width - 1), fill_value=0.0, dtype=g.dtype(x))
    whole = g.op("concat", before, x, axis=2)
    found = g.op("convolution", whole, weight, bias, stride=(1,), padding=(0,), dilation=(1,), groups=channels)
    last = g.op("slice", whole, axes=(2,), starts=(length,), stops=(length + (width - 1),))
    return found if activation == "none" else g.op("silu", found), last


@reads("ai.onnx.preview.FlexAttention")
def flex_attention(g: Reader, query: Item, key: Item, value: Item, *, scale: float | None = None, softmax_precision: int | None = None,
                   score_mod: onnx.GraphProto | None = None, prob_mod: onnx.GraphProto | None = None) -> Value:
    """Scores and probabilities each go through a graph of the node's own."""
    dtype, size = g.dtype(query), g.shape(query)[3]
    wide = FROM_ONNX.get(softmax_precision) if softmax_precision is not None else dtype if dtype.itemsize >= 4 else DType.FLOAT32
    if wide is None or not isinstance(size, int):
        raise g.refuse("a softmax of this dtype, or heads of a free size")
    heads: tuple[Dim, Dim] = (g.shape(query)[1], g.shape(key)[1])
    both = [g.tensor(key), g.tensor(value)]
    if heads[0] != heads[1]:
        if not isinstance(heads[0], int) or not isinstance(heads[1], int) or heads[0] % heads[1]:
            raise g.refuse("heads of free numbers")
        both = [g.op("repeat_interleave", item, repeats=heads[0] // heads[1], axis=1) for item in both]
    factor = math.sqrt(scale if scale is not None else 1 / math.sqrt(size))
    k = g.op("permute_dims", g.op("multiply", both[0], g.like(factor, both[0])), axes=(0, 1, 3, 2))
    scores = g.cast(g.op("matmul", g.op("multiply", query, g.like(factor, query)), k), wide)
    scores = _changed(g, scores, score_mod)
    chances = _changed(g, g.op("softmax", scores, axis=-1), prob_mod)
    return g.cast(g.op("matmul", chances, g.cast(both[1], wide)), g.dtype(value))


def _changed(g: Reader, scores: Value, graph: onnx.GraphProto | None) -> Value:
    if graph is None:
        return scores
    found = inlined(g, graph, [Item.of(scores)])
    if len(found) != 1 or not isinstance(found[0], Item):
        raise g.refuse("a graph that gives other than one tensor")
    return g.tensor(found[0])


