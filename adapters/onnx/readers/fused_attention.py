"""Attention as ONNX Runtime's optimizer writes it, operators of the domain com.microsoft."""

from __future__ import annotations

import math
from collections.abc import Sequence

from adapters.onnx.readers.attention import (
    allowed_pairs,
    both_masks,
    counted,
    explicit_attention,
    heads_of,
    joined,
    past_size,
    with_past,
)
from adapters.onnx.reading.items import Item
from adapters.onnx.reading.known import never_negative
from adapters.onnx.reading.reader import Reader
from adapters.onnx.registry import reads
from converter.builder import Value
from converter.dims import Dim, maximum
from converter.ir import DType


def asked(g: Reader, place: int) -> bool:
    """Whether the node's output of this number is used."""
    return len(g.node.output) > place and bool(g.node.output[place])


def hidden_keys(g: Reader, mask: Item, query: Value, total: Dim, fill: float) -> Value | None:
    """What is added to the scores for a mask of integers: `fill` where it hides a key, 0 elsewhere.

    [batch, keys] and [batch, length, keys]: 0 hides. [batch]: where the keys end; [2 · batch]: then where they start. [·, 1] says nothing.
    """
    shape, batch = g.shape(mask), query.shape[0]
    if len(shape) == 2 and shape[1] == 1 and total != 1:
        return None
    if len(shape) in (2, 3):
        seen = g.op("greater", mask, g.like(0, mask))
        wide = (shape[0], 1, 1, shape[1]) if len(shape) == 2 else (shape[0], 1, *shape[1:])
        seen = g.op("reshape", seen, shape=wide)
    elif len(shape) == 1 and shape[0] in (batch, 2 * batch):
        ends = g.op("slice", mask, axes=(0,), starts=(0,), stops=(batch,)) if shape[0] != batch else g.tensor(mask)
        keys = counted(g, total)
        seen = g.op("less", keys, g.op("reshape", g.cast(ends, DType.INT64), shape=(batch, 1, 1, 1)))
        if shape[0] != batch:
            starts = g.cast(g.op("slice", mask, axes=(0,), starts=(batch,), stops=(2 * batch,)), DType.INT64)
            seen = g.op("logical_and", seen, g.op("greater_equal", keys, g.op("reshape", starts, shape=(batch, 1, 1, 1))))
    else:
        raise g.refuse(f"a mask of the shape [{', '.join(map(str, shape))}]")
    return g.op("where", seen, g.op("full", shape=(), fill_value=0.0, dtype=query.dtype), g.like(fill, query))


def _attend(g: Reader, query: Value, key: Value, value: Value, mask: Item | None, bias: Item | None, offset: Dim, scale: float | None,
            fill: float, unidirectional: int, scores: bool = False) -> tuple[Value, Value | None]:
    """[batch, length, heads · width], and the scores before the softmax where they are asked for."""
    total = key.shape[2]
    both = None if bias is None else g.tensor(bias)
    low = None if mask is None else hidden_keys(g, mask, query, total, fill)
    if low is not None:
        both = low if both is None else g.op("add", both, low)
    if unidirectional:
        if total != query.shape[2] + offset:
            raise g.refuse("causal attention to keys of another length")
        both = both_masks(g, both, allowed_pairs(g, query.shape[2], total, offset, None, True, -1, -1))
    found = joined(g, g.op("scaled_dot_product_attention", query, key, value, both, scale=scale or None))
    if not scores:
        return found, None
    if unidirectional or not isinstance(query.shape[-1], int):
        raise g.refuse("scores of causal attention as an output")
    product = g.op("matmul", query, g.op("permute_dims", key, axes=(0, 1, 3, 2)))
    product = g.op("multiply", product, g.like(scale or 1 / math.sqrt(query.shape[-1]), product))
    return found, product if both is None else g.op("add", product, both)


@reads("com.microsoft.MultiHeadAttention")
def multi_head_attention(g: Reader, query: Item, key: Item | None = None, value: Item | None = None, bias: Item | None = None,
                         padding: Item | None = None, added: Item | None = None, past_key: Item | None = None,
                         past_value: Item | None = None, past_length: Item | None = None, indirection: Item | None = None, *,
                         num_heads: int, scale: float | None = None, mask_filter_value: float = -10000.0,
                         unidirectional: int = 0) -> tuple[Value | None, ...]:
    if past_length is not None or indirection is not None:
        raise g.refuse("caches of a fixed length, or of beams")
    parts = [g.tensor(item) if item is not None else None for item in (query, key, value)]
    if g.rank(query) == 5:  # [batch, length, heads, 3, size]
        parts = list(_unpacked(g, query, 3))
    elif key is not None and g.rank(key) == 5 and value is None:
        parts[1:] = _unpacked(g, key, 2)
    values = [part for part in parts if part is not None]
    if len(values) != 3:
        raise g.refuse("no keys or values")
    if bias is not None:
        if any(part.rank == 4 for part in values):
            raise g.refuse("a bias of keys that are in heads already")
        sizes = tuple(part.shape[-1] for part in values)
        values = [g.op("add", part, own) for part, own in zip(values, g.add("split", bias, sizes=sizes, axis=0), strict=True)]
    queries, keys, held = (heads_of(g, part, num_heads) for part in values)
    keys, held, offset = with_past(g, past_key, past_value, keys, held)
    found, scores = _attend(g, queries, keys, held, padding, added, offset, scale, mask_filter_value, unidirectional, asked(g, 3))
    return found, keys, held, scores


def _unpacked(g: Reader, x: Item, count: int) -> list[Value]:
    """[batch, length, heads, count, size] as `count` of [batch, length, heads · size]."""
    batch, length, heads, parts, size = g.shape(x)
    if parts != count:
        raise g.refuse("packed queries, keys and values of another form")
    return [g.op("reshape", g.op("select", x, axis=3, index=place), shape=(batch, length, heads * size)) for place in range(count)]


@reads("com.microsoft.Attention")
def packed_attention(g: Reader, x: Item, weight: Item, bias: Item | None = None, mask: Item | None = None, past: Item | None = None,
                     added: Item | None = None, past_length: Item | None = None, *, num_heads: int, unidirectional: int = 0,
                     scale: float | None = None, mask_filter_value: float = -10000.0, qkv_hidden_sizes: Sequence[int] | None = None,
                     do_rotary: int = 0, rotary_embedding_dim: int = 0, past_present_share_buffer: int = 0) -> tuple[Value, ...]:
    """One product for queries, keys and values, then heads."""
    if past_length is not None or do_rotary or past_present_share_buffer:
        raise g.refuse("rotary positions, or a past of a fixed length")
    product = g.op("matmul", x, weight)
    if bias is not None:
        product = g.op("add", product, bias)
    return attention_of(g, product, mask, past, added, num_heads, unidirectional, scale, mask_filter_value, qkv_hidden_sizes)


def attention_of(g: Reader, product: Value, mask: Item | None, past: Item | None, added: Item | None, heads: int, unidirectional: int,
                 scale: float | None, fill: float, sizes: Sequence[int] | None) -> tuple[Value, ...]:
    """Attention of queries, keys and values side by side, [batch, length, 3 · hidden], and [2, batch, heads, keys, size] of the latter."""
    total = product.shape[-1]
    each = tuple(sizes) if sizes else (total // 3,) * 3
    queries, keys, values = (heads_of(g, part, heads) for part in g.add("split", product, sizes=each, axis=2))
    offset: Dim = 0
    if past is not None:
        offset = past_size(g, past, 3)
        keys, values = (g.op("concat", g.op("select", past, axis=0, index=place), own, axis=2)
                        for place, own in enumerate((keys, values)))
    found, _ = _attend(g, queries, keys, values, mask, added, offset, scale, fill, unidirectional)
    return (found, g.op("stack", keys, values, axis=0)) if asked(g, 1) else (found,)


@reads("com.microsoft.GroupQueryAttention")
def group_query_attention(g: Reader, query: Item, key: Item | None = None, value: Item | None = None, past_key: Item | None = None,
                          past_value: Item | None = None, lengths: Item | None = None, total_length: Item | None = None,
                          cosine: Item | None = None, sine: Item | None = None, positions: Item | None = None, added: Item | None = None,
                          sink: Item | None = None, k_scale: Item | None = None, v_scale: Item | None = None, q_weight: Item | None = None,
                          k_weight: Item | None = None, *, num_heads: int, kv_num_heads: int, scale: float | None = None,
                          softcap: float = 0.0, do_rotary: int = 0, rotary_interleaved: int = 0, local_window_size: int = -1,
                          smooth_softmax: int = -1, causal: int = 1, qk_output: int = 0, qk_norm_epsilon: float = 1e-6,
                          k_quant_type: str = "NONE", v_quant_type: str = "NONE", kv_cache_bit_width: int = 0,
                          sliding_window_cache: int = 0) -> tuple[Value | None, ...]:
    """Causal attention of grouped heads to a cache whose used length is each row's own, `lengths` + 1 after this step.

    The cache holds [batch, key heads, places, size]: first what was there, then the new keys, zeros after.
    """
    is_quantized = k_scale is not None or v_scale is not None or kv_cache_bit_width or (k_quant_type, v_quant_type) != ("NONE", "NONE")
    if is_quantized or sliding_window_cache:
        raise g.refuse("a quantized cache, or one that is a window")
    if lengths is None or total_length is None or asked(g, 3):
        raise g.refuse("no lengths, or scores as an output")
    if (key is None) != (value is None):
        raise g.refuse("keys without values")
    if key is None or value is None:
        width = g.shape(query)[-1] // (num_heads + 2 * kv_num_heads)
        parts = g.add("split", query, sizes=(num_heads * width, kv_num_heads * width, kv_num_heads * width), axis=2)
    else:
        parts = tuple(g.tensor(item) for item in (query, key, value))
    queries, keys, values = (heads_of(g, part, count) for part, count in zip(parts, (num_heads, kv_num_heads, kv_num_heads), strict=True))
    if (q_weight is None) != (k_weight is None):
        raise g.refuse("a weight for the norm of queries or of keys alone")
    if q_weight is not None and k_weight is not None:
        queries, keys = (g.op("rms_norm", part, weight, normalized_shape=part.shape[-1:], eps=qk_norm_epsilon)
                         for part, weight in ((queries, q_weight), (keys, k_weight)))
    batch, _, length, _ = queries.shape
    used = g.op("reshape", g.cast(lengths, DType.INT64), shape=(batch, 1, 1, 1))
    before = g.op("maximum", g.op("subtract", used, g.op("full", shape=(), fill_value=length - 1, dtype=DType.INT64)), g.like(0, used))
    if do_rotary:
        if cosine is None or sine is None:
            raise g.refuse("no tables of angles")
        rows = g.op("reshape", positions if positions is not None else g.op("add", before, counted(g, length)), shape=(batch, length))
        tables = [g.op("expand_dims", g.op("embedding", g.cast(rows, DType.INT64), table), axis=(1,)) for table in (cosine, sine)]
        queries, keys = (g.op("rotary_embedding", part, *tables, interleaved=bool(rotary_interleaved)) for part in (queries, keys))
    if past_key is None or past_value is None:
        offset: Dim = 0
        (total,) = g.sizes(total_length, "a total length")
        if total != length:
            raise g.refuse("a total length that is not the new keys', and no past")
    else:
        offset = past_size(g, past_key, 2)
        (said,) = g.sizes(total_length, "a total length")
        total = said if never_negative(said - offset) else maximum(said, offset)
        keys, values = (_in_cache(g, past, own, before, offset, total) for past, own in ((past_key, keys), (past_value, values)))
    seen = g.op("add", before, g.op("reshape", counted(g, length), shape=(length, 1)))
    places = counted(g, total)
    allowed = g.op("less_equal", places, g.op("minimum", seen, used) if causal else used)
    if local_window_size > 0:
        near = g.op("greater", places, g.op("subtract", seen, g.like(local_window_size, seen)))
        allowed = g.op("logical_and", allowed, near)
    mask: Value | None = None
    if added is not None:
        mask = g.tensor(added)
        if mask.shape[-1] != total:
            raise g.refuse("a bias of another length than the cache")
    if sink is not None or smooth_softmax > 0:
        found = _sunk(g, queries, keys, values, mask, allowed, scale, softcap, sink)
    elif softcap:
        found, _ = explicit_attention(g, queries, keys, values, mask, allowed, scale or None, softcap)
    else:
        found = g.op("scaled_dot_product_attention", queries, keys, values, both_masks(g, mask, allowed), scale=scale or None,
                     enable_gqa=num_heads != kv_num_heads)
    return joined(g, found), keys, values


def _in_cache(g: Reader, past: Item, new: Value, before: Value, offset: Dim, total: Dim) -> Value:
    """[batch, heads, total, size]: `before` places of the past, then the new ones, then zeros."""
    length = new.shape[2]
    places = g.op("reshape", counted(g, total), shape=(total, 1))
    since = g.op("subtract", places, before)
    last = g.op("full", shape=(), fill_value=length - 1, dtype=DType.INT64)
    start = g.op("full", shape=(), fill_value=offset, dtype=DType.INT64)
    index = g.op("where", g.op("less", places, before), places, g.op("add", start, g.op("minimum", since, last)))
    whole = g.op("concat", past, new, axis=2)
    batch, heads, _, size = whole.shape
    found = g.op("take_along_axis", whole, g.op("broadcast_to", index, shape=(batch, heads, total, size)), axis=2)
    return g.op("where", g.op("less_equal", since, last), found, g.like(0, found))


def _sunk(g: Reader, query: Value, key: Value, value: Value, bias: Value | None, allowed: Value, scale: float | None, softcap: float,
          sink: Item | None) -> Value:
    """Attention whose softmax has one more score, 0 or each head's own, that no value belongs to."""
    dtype, (batch, heads, length, size) = query.dtype, query.shape
    more = g.op("full", shape=(), fill_value=0.0, dtype=dtype) if sink is None else g.op("reshape", sink, shape=(1, heads, 1, 1))
    if not isinstance(size, int):
        raise g.refuse("heads of a free size")
    times = heads // key.shape[1]
    key, value = (g.op("repeat_interleave", item, repeats=times, axis=1) for item in (key, value))
    scores = g.op("matmul", query, g.op("permute_dims", key, axes=(0, 1, 3, 2)))
    scores = g.op("multiply", scores, g.like(scale or 1 / math.sqrt(size), scores))
    if softcap:
        scores = g.op("multiply", g.op("tanh", g.op("divide", scores, g.like(softcap, scores))), g.like(softcap, scores))
    if bias is not None:
        scores = g.op("add", scores, bias)
    scores = g.op("where", allowed, scores, g.like(-math.inf, scores))
    whole = g.op("concat", scores, g.op("broadcast_to", more, shape=(batch, heads, length, 1)), axis=3)
    weights = g.op("slice", g.op("softmax", whole, axis=-1), axes=(3,), starts=(0,), stops=(key.shape[2],))
    return g.op("matmul", weights, value)
