"""Attention and rotary positions: ONNX's own operators, and what they share with those that ONNX Runtime's optimizer writes."""

from __future__ import annotations

import math

from adapters.onnx.load import FROM_ONNX
from adapters.onnx.reading.items import Item
from adapters.onnx.reading.reader import Reader
from adapters.onnx.registry import reads
from converter.builder import Value
from converter.dims import Dim, Expr
from converter.ir import DimRange, DType


def heads_of(g: Reader, x: Item | Value, count: int | None) -> Value:
    """[batch, length, heads · size] as [batch, heads, length, size]; four axes stay as they are."""
    value = g.tensor(x)
    if value.rank == 4:
        return value
    if not count:
        raise g.refuse("a number of heads that is not given")
    batch, length, width = value.shape
    return g.op("permute_dims", g.op("reshape", value, shape=(batch, length, count, width // count)), axes=(0, 2, 1, 3))


def joined(g: Reader, x: Value) -> Value:
    """[batch, heads, length, size] as [batch, length, heads · size]."""
    batch, heads, length, size = x.shape
    return g.op("reshape", g.op("permute_dims", x, axes=(0, 2, 1, 3)), shape=(batch, length, heads * size))


def counted(g: Reader, size: Dim, start: Dim = 0) -> Value:
    return g.op("arange", start=start, stop=size + start, step=1, dtype=DType.INT64)


def with_past(g: Reader, past_key: Item | None, past_value: Item | None, key: Value, value: Value) -> tuple[Value, Value, Dim]:
    """Keys and values with those of a past before them, and its length."""
    if (past_key is None) != (past_value is None):
        raise g.refuse("a past of keys or of values alone")
    if past_key is None or past_value is None:
        return key, value, 0
    return (g.op("concat", past_key, key, axis=2), g.op("concat", past_value, value, axis=2), past_size(g, past_key, 2))


def past_size(g: Reader, past: Item, axis: int) -> Dim:
    """The length of a past, which is 0 in the first step."""
    size = g.shape(past)[axis]
    if isinstance(size, Expr) and size.symbol is not None:
        g.builder.dims[size.symbol] = DimRange(min=0)
    return size


@reads("Attention")
def attention(g: Reader, q: Item, k: Item, v: Item, mask: Item | None = None, past_key: Item | None = None, past_value: Item | None = None,
              lengths: Item | None = None, *, is_causal: int = 0, kv_num_heads: int | None = None, q_num_heads: int | None = None,
              qk_matmul_output_mode: int = 0, scale: float | None = None, softcap: float = 0.0, softmax_precision: int | None = None,
              left_window_size: int = -1, right_window_size: int = -1) -> tuple[Value, ...]:
    flat = g.rank(q) == 3
    query, key, value = heads_of(g, q, q_num_heads), heads_of(g, k, kv_num_heads), heads_of(g, v, kv_num_heads)
    key, value, offset = with_past(g, past_key, past_value, key, value)
    grouped = query.shape[1] != key.shape[1]
    length, source = query.shape[2], key.shape[2]
    allowed = allowed_pairs(g, length, source, offset, lengths, bool(is_causal), left_window_size, right_window_size)
    bias = None if mask is None else _wide_mask(g, mask, source)
    shows = len(g.node.output) > 3 and bool(g.node.output[3])
    precise = softmax_precision is not None and FROM_ONNX.get(softmax_precision) not in (query.dtype, DType.FLOAT32)
    if not softcap and not shows and not precise:
        both = both_masks(g, bias, allowed)
        found = g.op("scaled_dot_product_attention", query, key, value, both, scale=scale, enable_gqa=grouped)
        return joined(g, found) if flat else found, key, value
    found, scores = explicit_attention(g, query, key, value, bias, allowed, scale, softcap, qk_matmul_output_mode,
                              None if softmax_precision is None else FROM_ONNX.get(softmax_precision))
    return joined(g, found) if flat else found, key, value, scores


def allowed_pairs(g: Reader, length: Dim, source: Dim, offset: Dim, lengths: Item | None, causal: bool, left: int,
                  right: int) -> Value | None:
    """bool, to be broadcast to [batch, heads, length, source]: the pairs that take part whatever the mask says."""
    keys = counted(g, source)
    parts: list[Value] = []
    start: Value | None = None
    if lengths is not None:
        ends = g.op("reshape", g.cast(lengths, DType.INT64), shape=(g.shape(lengths)[0], 1, 1, 1))
        parts.append(g.op("less", keys, ends))
        start = g.op("subtract", ends, g.op("full", shape=(), fill_value=length, dtype=DType.INT64))
    if causal or left >= 0 or right >= 0:
        rows = g.op("reshape", counted(g, length, offset if start is None else 0), shape=(length, 1))
        if start is not None:
            rows = g.op("add", rows, start)
        if causal:
            parts.append(g.op("less_equal", keys, rows))
        if left >= 0:
            parts.append(g.op("greater_equal", keys, g.op("subtract", rows, g.like(left, rows))))
        if right >= 0:
            parts.append(g.op("less_equal", keys, g.op("add", rows, g.like(right, rows))))
    found: Value | None = None
    for part in parts:
        found = part if found is None else g.op("logical_and", found, part)
    return found


def _wide_mask(g: Reader, mask: Item, source: Dim) -> Value:
    """A mask whose last axis is shorter than the keys hides the rest."""
    value = g.tensor(mask)
    width = value.shape[-1]
    if width == source or width == 1:
        return value
    fill: bool | float = False if value.dtype is DType.BOOL else -math.inf
    return g.op("pad", value, pads=(*((0, 0),) * (value.rank - 1), (0, source - width)), value=fill)


def both_masks(g: Reader, bias: Value | None, allowed: Value | None) -> Value | None:
    if bias is None or allowed is None:
        return bias if allowed is None else allowed
    if bias.dtype is DType.BOOL:
        return g.op("logical_and", bias, allowed)
    return g.op("where", allowed, bias, g.op("full", shape=(), fill_value=-math.inf, dtype=bias.dtype))


def explicit_attention(g: Reader, query: Value, key: Value, value: Value, bias: Value | None, allowed: Value | None, scale: float | None,
                       softcap: float, mode: int = 0, precision: DType | None = None) -> tuple[Value, Value]:
    """Step by step, where a result in between is asked for, or scores are capped. A row that sees nothing gives zeros."""
    if query.shape[1] != key.shape[1]:
        times = query.shape[1] // key.shape[1]
        key, value = (g.op("repeat_interleave", item, repeats=times, axis=1) for item in (key, value))
    size = query.shape[-1]
    if scale is None:
        if not isinstance(size, int):
            raise g.refuse("heads of a free size")
        scale = 1 / math.sqrt(size)
    root = math.sqrt(scale)
    turned = g.op("permute_dims", g.op("multiply", key, g.like(root, key)), axes=(0, 1, 3, 2))
    scores = g.op("matmul", g.op("multiply", query, g.like(root, query)), turned)
    steps = {0: scores}
    if softcap:
        scores = g.op("multiply", g.op("tanh", g.op("divide", scores, g.like(softcap, scores))), g.like(softcap, scores))
    steps[1] = scores
    low = g.op("full", shape=(), fill_value=-math.inf, dtype=scores.dtype)
    if bias is not None:
        scores = g.op("where", bias, scores, low) if bias.dtype is DType.BOOL else g.op("add", scores, bias)
    if allowed is not None:
        scores = g.op("where", allowed, scores, low)
    steps[2] = scores
    wide = scores if precision is None else g.cast(scores, precision)
    weights = g.cast(g.op("safe_softmax", wide, axis=-1), scores.dtype)
    steps[3] = weights
    return g.op("matmul", weights, value), steps[mode]


@reads("RotaryEmbedding", "com.microsoft.RotaryEmbedding")
def rotary(g: Reader, x: Item, *more: Item | None, interleaved: int = 0, num_heads: int = 0, rotary_embedding_dim: int = 0,
           is_packed_batching: int = 0, scale: float = 1.0) -> Value:
    """Pairs of elements turned by the angles of their position. Microsoft's takes the positions before the tables."""
    if g.node.domain:
        positions, cosine, sine = more
        if is_packed_batching or scale != 1:
            raise g.refuse("packed batches or a scale")
    else:
        cosine, sine, positions = (*more, None)[:3]
    if cosine is None or sine is None:
        raise g.refuse("no tables of angles")
    flat = g.rank(x) == 3
    width = rotary_embedding_dim or None
    count = num_heads
    if flat and not count:
        size = rotary_embedding_dim or 2 * g.shape(cosine)[-1]
        total = g.shape(x)[-1] // size
        if not isinstance(total, int):
            raise g.refuse("a free number of heads")
        count = total
    value = heads_of(g, x, count)
    _batch, _, length, size = value.shape
    tables = []
    for table in (cosine, sine):
        if positions is None:
            angles = g.tensor(table)
        else:
            index = g.cast(positions, DType.INT64)
            if index.shape == (1,) and g.node.domain:
                index = g.op("reshape", g.op("add", counted(g, length), index), shape=(1, length))
            angles = g.op("embedding", index, table)
        half = angles.shape[-1]
        tables.append(g.op("reshape", angles, shape=(angles.shape[0], 1, length, half)))
    rest: Value | None = None
    if width is not None and width != size:
        value, rest = g.add("split", value, sizes=(width, size - width), axis=3)
    found = g.op("rotary_embedding", value, *tables, interleaved=bool(interleaved))
    if rest is not None:
        found = g.op("concat", found, rest, axis=3)
    return joined(g, found) if flat else found
