"""Keeps packed sequences whole while a module is traced.

How many rows a packed sequence has, and how many steps, the data decide. While `whole_packed_sequences()` is active,
packing, unpacking and the recurrent layers between them are custom operators, whose fake implementations give these sizes
symbols of their own; so is the padding of rows, which asks which is the longest. They compute what the originals compute.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import reduce
from types import CodeType
from typing import Any

import torch
import torch.nn.modules.rnn as layers
import torch.nn.utils.rnn as sequences
from torch import _VF, Tensor

from adapters.torch.patches.exchanging import exchanged
from adapters.torch.patches.recurrent import NAMESPACE, ORIGINALS, packed_call, quiet_projections

PAD_ROWS = torch._C._nn.pad_sequence
PACK, PAD = _VF._pack_padded_sequence, _VF._pad_packed_sequence
BATCH = "_neutral_batch"
"""The attribute of `batch_sizes` that holds how many sequences there are, which the tracer cannot see in its values."""


@torch.library.custom_op(f"{NAMESPACE}::pack_padded_sequence", mutates_args=())
def _pack(x: Tensor, lengths: Tensor, batch_first: bool) -> list[Tensor]:
    return [item.clone() for item in PACK(x, lengths.cpu(), batch_first)]


@_pack.register_fake
def _fake_pack(x: Tensor, lengths: Tensor, batch_first: bool) -> list[Tensor]:
    context = torch.library.get_ctx()
    rows, steps = context.new_dynamic_size(min=1), context.new_dynamic_size(min=1)
    return [x.new_empty((rows, *x.shape[2:])), lengths.new_empty((steps,), dtype=torch.int64)]


@torch.library.custom_op(f"{NAMESPACE}::pad_packed_sequence", mutates_args=())
def _pad(data: Tensor, batch_sizes: Tensor, batch: int, batch_first: bool, padding_value: float, total: int) -> list[Tensor]:
    return [item.clone() for item in PAD(data, batch_sizes, batch_first, padding_value, total)]


@_pad.register_fake
def _fake_pad(data: Tensor, batch_sizes: Tensor, batch: int, batch_first: bool, padding_value: float, total: int) -> list[Tensor]:
    lead = (batch, total) if batch_first else (total, batch)
    return [data.new_empty((*lead, *data.shape[1:])), batch_sizes.new_empty((batch,))]


@torch.library.custom_op(f"{NAMESPACE}::pad_sequence", mutates_args=())
def _pad_rows(rows: list[Tensor], batch_first: bool, padding_value: float, padding_side: str) -> Tensor:
    return PAD_ROWS(rows, batch_first, padding_value, padding_side).clone()  # type: ignore[arg-type]


@_pad_rows.register_fake
def _fake_pad_rows(rows: list[Tensor], batch_first: bool, padding_value: float, padding_side: str) -> Tensor:
    longest = reduce(torch.sym_max, (row.shape[0] for row in rows))
    lead = (len(rows), longest) if batch_first else (longest, len(rows))
    return rows[0].new_empty((*lead, *rows[0].shape[1:]))


def _define(kind: str) -> None:
    original = ORIGINALS[kind]

    def compute(data: Tensor, batch_sizes: Tensor, states: list[Tensor], params: list[Tensor], bias: bool, layers: int,
                bidirectional: bool) -> list[Tensor]:
        whole = [item.contiguous() for item in states]
        with quiet_projections():
            outputs = original(data, batch_sizes, whole if kind == "lstm" else whole[0], params, bias, layers, 0.0, False, bidirectional)
        return [item.clone() for item in outputs]

    def fake(data: Tensor, batch_sizes: Tensor, states: list[Tensor], params: list[Tensor], bias: bool, layers: int,
             bidirectional: bool) -> list[Tensor]:
        width = states[0].shape[-1] * (2 if bidirectional else 1)
        return [data.new_empty((data.shape[0], width)), *(torch.empty_like(state) for state in states)]

    compute.__annotations__ = fake.__annotations__ = {
        "data": Tensor, "batch_sizes": Tensor, "states": list[Tensor], "params": list[Tensor], "bias": bool, "layers": int,
        "bidirectional": bool, "return": list[Tensor]}
    operator = torch.library.custom_op(f"{NAMESPACE}::packed_{kind}", compute, mutates_args=())
    operator.register_fake(fake)


for _kind in ORIGINALS:
    _define(_kind)


def _traced_pack(x: Tensor, lengths: Tensor, batch_first: bool) -> tuple[Tensor, Tensor]:
    batch, time = (x.shape[0], x.shape[1]) if batch_first else (x.shape[1], x.shape[0])
    if lengths.dim() != 1 or lengths.shape[0] != batch:
        raise RuntimeError(f"Expected `len(lengths)` to be equal to batch_size, but got {lengths.shape[0]} (batch_size={batch})")
    data, batch_sizes = torch.ops.neutral_model.pack_padded_sequence(x, lengths, batch_first)
    torch._check(batch_sizes.shape[0] <= time)
    setattr(batch_sizes, BATCH, batch)
    return data, batch_sizes


def _batch(batch_sizes: Tensor, indices: Tensor | None = None) -> Any:
    known = getattr(batch_sizes, BATCH, None)
    if known is None:
        known = indices.shape[0] if indices is not None else batch_sizes[0].item()
        setattr(batch_sizes, BATCH, known)
    return known


def _traced_pad(data: Tensor, batch_sizes: Tensor, batch_first: bool, padding_value: float, total: int) -> tuple[Tensor, Tensor]:
    padded, lengths = torch.ops.neutral_model.pad_packed_sequence(data, batch_sizes, _batch(batch_sizes), batch_first, padding_value, total)
    return padded, lengths


def _traced_rows(rows: Sequence[Tensor], batch_first: bool = False, padding_value: float = 0.0, padding_side: str = "right") -> Tensor:
    for row in rows[1:]:
        for size, first in zip(row.shape[1:], rows[0].shape[1:], strict=True):
            torch._check(size == first)
    padded: Tensor = torch.ops.neutral_model.pad_sequence(list(rows), batch_first, padding_value, padding_side)
    return padded


def _forward(original: Any) -> Any:
    """A recurrent layer's `forward` that asks no size of a packed sequence's values."""

    def forward(self: Any, input: Any, hx: Any = None) -> Any:
        if not isinstance(input, sequences.PackedSequence):
            return original(self, input, hx)
        data, batch_sizes, order, back = input
        self._update_flat_weights()
        batch, kind = _batch(batch_sizes, order), self.mode.lower()
        if hx is None:
            rows = self.num_layers * (2 if self.bidirectional else 1)
            sizes = (self.proj_size or self.hidden_size, self.hidden_size)[:2 if kind == "lstm" else 1]
            zeros = tuple(data.new_zeros((rows, batch, size)) for size in sizes)
            hx = zeros if kind == "lstm" else zeros[0]
        else:
            hx = self.permute_hidden(hx, order)
        self.check_input(data, batch_sizes)
        output, *states = packed_call(kind, data, batch_sizes, hx, self._flat_weights, self.bias, self.num_layers, self.dropout,
                                      self.training, self.bidirectional)
        hidden = tuple(states) if kind == "lstm" else states[0]
        return sequences.PackedSequence(output, batch_sizes, order, back), self.permute_hidden(hidden, back)

    return forward


def _paired_pack(input: Any, lengths: Any, batch_first: bool = False, enforce_sorted: bool = True) -> Any:
    """`pack_padded_sequence` that takes a length for each row for granted where the example has them. torch leaves out the rows beyond."""
    if isinstance(lengths, torch.Tensor):
        lengths = lengths.to(dtype=torch.int64)
        if lengths.shape[0] != input.shape[0 if batch_first else 1] and enforce_sorted:
            raise RuntimeError(f"Expected `len(lengths)` to be equal to batch_size, but got {lengths.shape[0]}")
    else:
        lengths = torch.as_tensor(lengths, dtype=torch.int64, device="cpu")
    order = None
    if not enforce_sorted:
        lengths, order = torch.sort(lengths, descending=True)
        input = input.index_select(0 if batch_first else 1, order)
    data, batch_sizes = _VF._pack_padded_sequence(input, lengths, batch_first)
    return _packed_sequence_init(data, batch_sizes, order, None)  # type: ignore[name-defined] # noqa: F821


def _bounded_pad(sequence: Any, batch_first: bool = False, padding_value: float = 0.0, total_length: int | None = None) -> Any:
    """`pad_packed_sequence` that takes for granted that the longest sequence fits `total_length`."""
    max_seq_length = sequence.batch_sizes.size(0)
    if total_length is not None:
        torch._check(max_seq_length <= total_length)
        max_seq_length = total_length
    padded_output, lengths = _VF._pad_packed_sequence(
        sequence.data, sequence.batch_sizes, batch_first, padding_value, max_seq_length)
    if sequence.unsorted_indices is not None:
        return padded_output.index_select(0 if batch_first else 1, sequence.unsorted_indices), lengths[sequence.unsorted_indices]
    return padded_output, lengths


@contextmanager
def whole_packed_sequences() -> Iterator[None]:
    """While active, packing, unpacking and the layers between are traced as single operators."""
    forwards = [(kind, "forward", _forward(kind.forward)) for kind in (layers.LSTM, layers.GRU, layers.RNN)]
    # Modules import these functions by name, so that only their code can be exchanged.
    codes: list[tuple[Any, CodeType, CodeType]] = [(function, function.__code__, other.__code__) for function, other in (
        (sequences.pack_padded_sequence, _paired_pack), (sequences.pad_packed_sequence, _bounded_pad))]
    with exchanged((_VF, "_pack_padded_sequence", _traced_pack), (_VF, "_pad_packed_sequence", _traced_pad),
                   (torch._C._nn, "pad_sequence", _traced_rows), *forwards):
        for function, _, code in codes:
            function.__code__ = code
        try:
            yield
        finally:
            for function, code, _ in codes:
                function.__code__ = code
