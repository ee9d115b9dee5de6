"""Tables looked up by index."""

from __future__ import annotations

from typing import Any

import torch

from adapters.torch.ops.manipulation import reshaped
from adapters.torch.patches.operand_checks import refuse_descending
from adapters.torch.registry import imports, rebuilds
from adapters.torch.tracing.importer import Importer
from converter.builder import Value
from converter.dims import Dim

Tensor = torch.Tensor
LOOK_UP = frozenset({"aten.embedding.default", "aten.embedding_bag.padding_idx", "aten.embedding_bag.default",
                     "aten._embedding_bag.default", "aten._embedding_bag_forward_only.default"})
MODES = ("sum", "mean", "max")


@imports("aten.embedding.default")
def embedding(g: Importer, weight: Value, indices: Value, padding_idx: int = -1, scale_grad_by_freq: bool = False,
              sparse: bool = False) -> Value:
    return g.op("embedding", indices, weight)


@imports("aten.embedding_renorm.default")
def embedding_renorm(g: Importer, self: Value, indices: Value, max_norm: float, norm_type: float) -> Value:
    """Rows whose norm is above `max_norm` are scaled to it. PyTorch scales only those that are looked up, which are all that count."""
    node = g.node
    for user in node.users:
        same = str(user.target) in LOOK_UP and user.args[0] is node and user.args[1] is node.args[1]
        if not same and user.op != "output":
            raise g.refuse("max_norm rescales a table that is used elsewhere too: rescale the weight once and leave max_norm out")
    norm = g.op("vector_norm", self, axis=(1,), keepdims=True, ord=float(norm_type))
    scale = g.op("divide", g.tensor(float(max_norm), self.dtype), g.op("add", norm, 1e-7))
    return g.op("multiply", self, g.op("where", g.op("greater", norm, float(max_norm)), scale, g.tensor(1.0, self.dtype)))


@imports("aten.embedding_bag.default", "aten.embedding_bag.padding_idx", "aten._embedding_bag.default",
         "aten._embedding_bag_forward_only.default")
def embedding_bag(g: Importer, weight: Value, indices: Value, offsets: Value, scale_grad_by_freq: bool = False, mode: int = 0,
                  sparse: bool = False, per_sample_weights: Value | None = None, include_last_offset: bool = False,
                  padding_idx: int | None = None) -> tuple[Value | None, ...]:
    private = str(g.node.target).startswith("aten._")
    padding = None if padding_idx is None or private and padding_idx < 0 else padding_idx
    if padding is not None and padding < 0:
        rows = weight.shape[0]
        padding = padding + rows if isinstance(rows, int) else padding
    attributes: dict[str, Any] = {"mode": MODES[mode], **({} if padding is None else {"padding_idx": padding})}
    length = _uniform(g, indices)
    if length is not None:
        shape = (indices.shape[0] // length, length)
        samples = None if per_sample_weights is None else reshaped(g, per_sample_weights, shape)
        return g.op("embedding_bag", _unflattened(g, indices, shape), weight, None, samples, **attributes), None, None, None
    if include_last_offset:
        attributes["include_last_offset"] = True
    return g.op("embedding_bag", indices, weight, offsets, per_sample_weights, **attributes), None, None, None


def _uniform(g: Importer, indices: Value) -> Dim | None:
    """The length of all bags where the offsets are arange(0, len(indices), length), as torch writes a matrix of indices."""
    node = g.node.args[2]
    if not isinstance(node, torch.fx.Node) or str(node.target) != "aten.arange.start_step":
        return None
    start, stop, step = (_size(g, item) for item in (*node.args, 1)[:3])
    count = indices.shape[0]
    if start != 0 or stop != count or step is None or step == 0:
        return None
    return step if step * (count // step) == count else None


def _size(g: Importer, item: object) -> Dim | None:
    from adapters.torch.dtypes import to_dim

    value = item.meta["val"] if isinstance(item, torch.fx.Node) else item
    return to_dim(value, g.symbols) if isinstance(value, (int, torch.SymInt)) else None


def _unflattened(g: Importer, indices: Value, shape: tuple[Dim, Dim]) -> Value:
    """Flat indices as the matrix they were: the matrix itself where a reshape made them."""
    last = next((node for node in reversed(g.builder._nodes) if indices.name in node.outputs), None)
    if last is not None and last.op == "reshape" and g.builder.specs[last.names[0]].shape == shape:
        return Value(last.names[0], g.builder.specs[last.names[0]])
    return reshaped(g, indices, shape)


@rebuilds("embedding")
def rebuild_embedding(indices: Tensor, weight: Tensor) -> Tensor:
    return torch.nn.functional.embedding(indices, weight)


@rebuilds("embedding_bag")
def rebuild_embedding_bag(indices: Tensor, weight: Tensor, offsets: Tensor | None = None, per_sample_weights: Tensor | None = None, *,
                          mode: str = "sum", include_last_offset: bool = False, padding_idx: int | None = None) -> Tensor:
    if offsets is not None and offsets.dtype != indices.dtype:
        indices, offsets = indices.long(), offsets.long()
    if offsets is not None:
        refuse_descending(offsets, len(indices), int(include_last_offset or len(indices) > 0))
    elif not torch.compiler.is_compiling() and not indices.shape[1]:
        return weight.new_zeros((len(indices), weight.shape[1]))  # torch steps through the indices by the length of a bag
    return torch.nn.functional.embedding_bag(indices, weight, offsets, mode=mode, per_sample_weights=per_sample_weights,
                                             include_last_offset=include_last_offset, padding_idx=padding_idx)


