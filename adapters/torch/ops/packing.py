"""Packed sequences: rows of several lengths without their padding, one time step after the other.

A packed sequence is what a mask [time, batch] picks of a padded tensor. Layers compute on the padded form, with lengths.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from adapters.torch.ops.indexing import data_size
from adapters.torch.ops.manipulation import permuted, reshaped
from adapters.torch.ops.recurrent import KINDS, settings
from adapters.torch.registry import imports
from adapters.torch.tracing.importer import Importer
from converter.builder import Value
from converter.dims import Dim
from converter.ir import DType


@dataclass(frozen=True)
class Packing:
    """How sequences are packed: `mask` bool [time, batch], its `lengths` int64 [batch], and `rows` int64 [total], the place of
    each row of the data among the mask's. `steps` is the longest length."""

    mask: Value
    lengths: Value
    rows: Value
    steps: Dim

    @property
    def time(self) -> Dim:
        return self.mask.shape[0]

    @property
    def places(self) -> Dim:
        return self.mask.shape[0] * self.mask.shape[1]


@dataclass(frozen=True)
class Padded:
    """The padded form [time, batch, …] of packed data; `zeros`: whether it is zero past the ends."""

    value: Value
    packing: Packing
    zeros: bool


@imports("neutral_model.pack_padded_sequence.default")
def pack_padded_sequence(g: Importer, x: Value, lengths: Value, batch_first: bool) -> tuple[Value, Value]:
    if batch_first:
        x = permuted(g, x, (1, 0, *range(2, x.rank)))
    time, batch = x.shape[:2]
    lengths = g.cast(lengths, DType.INT64)
    mask = _within(g, lengths, time)
    rows = _rows(g, mask, g.result_shape(0)[0])
    data = g.op("take", reshaped(g, x, (time * batch, *x.shape[2:])), rows, axis=0)
    counts = g.op("sum", g.cast(mask, DType.INT64), axis=(1,))
    steps = g.op("squeeze", g.op("nonzero", counts, size=data_size(g, g.result_shape(1)[0])), axis=(1,))
    batch_sizes = g.op("take", counts, steps, axis=0)
    packing = Packing(mask, lengths, rows, steps.shape[0])
    g.kept[batch_sizes.name] = packing
    g.kept[data.name] = Padded(x, packing, False)
    return data, batch_sizes


@imports("neutral_model.pad_packed_sequence.default")
def pad_packed_sequence(g: Importer, data: Value, batch_sizes: Value, batch: Dim, batch_first: bool, padding_value: float,
                        total: Dim) -> tuple[Value, Value]:
    packing = _packing(g, batch_sizes, batch, data.shape[0])
    padded = _padded(g, data, packing)
    y, mask = padded.value, packing.mask
    if total == packing.steps != packing.time:
        y, mask = (g.op("slice", item, axes=(0,), starts=(0,), stops=(total,)) for item in (y, mask))
    elif total != packing.time:
        places = g.op("arange", start=0, stop=total, step=1, dtype=DType.INT64)
        last = g.op("full", shape=(), fill_value=packing.time - 1, dtype=DType.INT64)
        y = g.op("take", y, g.op("minimum", places, last), axis=0)
        mask = _within(g, packing.lengths, total)
    if not padded.zeros or padding_value != 0 or total not in (packing.time, packing.steps):
        mask = reshaped(g, mask, (*mask.shape, *[1] * (y.rank - 2)))
        y = g.op("where", mask, y, g.operand(padding_value, y.dtype))
    return permuted(g, y, (1, 0, *range(2, y.rank))) if batch_first else y, packing.lengths


@imports("neutral_model.pad_sequence.default")
def pad_sequence(g: Importer, rows: Sequence[Value], batch_first: bool, padding_value: float, padding_side: str) -> Value:
    longest = g.result_shape()[1 if batch_first else 0]
    fill = g.operand(padding_value, rows[0].dtype)
    padded = []
    for row in rows:
        more = longest - row.shape[0]
        along = (more, 0) if padding_side == "left" else (0, more)
        padded.append(row if more == 0 else g.op("pad", row, pads=(along, *[(0, 0)] * (row.rank - 1)), value=fill))
    axis = 0 if batch_first else 1
    return g.op("stack", *padded, axis=axis) if len(padded) > 1 else g.op("expand_dims", padded[0], axis=(axis,))


def _layer(kind: str) -> Callable[..., tuple[Value, ...]]:
    def importer(g: Importer, data: Value, batch_sizes: Value, states: Sequence[Value], params: Sequence[Value], bias: bool, layers: int,
                 bidirectional: bool) -> tuple[Value, ...]:
        packing = _packing(g, batch_sizes, states[0].shape[1], data.shape[0])
        x = _padded(g, data, packing).value
        operator, initial, attributes = settings(g, kind, states, params, bias, layers, bidirectional)
        y, *ends = g.add(operator, x, *params, *initial, packing.lengths, lengths=True, **attributes)
        output = g.op("take", reshaped(g, y, (packing.places, y.shape[2])), packing.rows, axis=0)
        g.kept[output.name] = Padded(y, packing, True)
        return (output, *ends)

    return importer


for _kind in KINDS:
    imports(f"neutral_model.packed_{_kind}.default")(_layer(_kind))


def _within(g: Importer, lengths: Value, time: Dim) -> Value:
    """bool [time, batch]: whether a step lies within a row."""
    steps = g.op("arange", start=0, stop=time, step=1, dtype=DType.INT64)
    return g.op("less", reshaped(g, steps, (time, 1)), lengths)


def _rows(g: Importer, mask: Value, size: Dim) -> Value:
    flat = reshaped(g, mask, (mask.shape[0] * mask.shape[1],))
    return g.op("squeeze", g.op("nonzero", flat, size=data_size(g, size)), axis=(1,))


def _packing(g: Importer, batch_sizes: Value, batch: Dim, total: Dim) -> Packing:
    """How a packed sequence with these `batch_sizes` was packed."""
    if batch_sizes.name not in g.kept:
        time = batch_sizes.shape[0]
        columns = g.op("arange", start=0, stop=batch, step=1, dtype=DType.INT64)
        mask = g.op("less", columns, reshaped(g, g.cast(batch_sizes, DType.INT64), (time, 1)))
        lengths = g.op("sum", g.cast(mask, DType.INT64), axis=(0,))
        g.kept[batch_sizes.name] = Packing(mask, lengths, _rows(g, mask, total), time)
    found: Packing = g.kept[batch_sizes.name]
    return found


def _padded(g: Importer, data: Value, packing: Packing) -> Padded:
    """The padded form of packed data. What it holds past the ends is some row of the data where not `zeros`."""
    known = g.kept.get(data.name)
    if isinstance(known, Padded) and known.packing is packing:
        return known
    flat = reshaped(g, packing.mask, (packing.places,))
    order = g.op("subtract", g.op("cumulative_sum", g.cast(flat, DType.INT64), axis=0), 1)
    rows = g.op("take", data, g.op("maximum", order, 0), axis=0)
    return Padded(reshaped(g, rows, (*packing.mask.shape, *data.shape[1:])), packing, False)
