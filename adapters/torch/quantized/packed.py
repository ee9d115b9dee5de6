"""The weights that quantised layers hold packed, as tensors of the module, for as long as it is traced.

torch packs the weights of quantised layers into objects that no trace looks into. While `unpacked(module)` is active, each of
them is a `Packed`, which reads from buffers of the part that it belongs to: `conv.weight` (the integers),
`conv.weight_scale`, `conv.weight_zero_point` and `conv.bias`. The layer's own `conv.scale` and `conv.zero_point`, numbers to
its forward, are buffers beside them, as in its state_dict.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import MethodType, SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from converter.errors import UnsupportedError

UNPACK: Mapping[str, str] = {"LinearPackedParamsBase": "linear_unpack", "EmbeddingPackedParamsBase": "embedding_bag_unpack"}
"""The operators that read what has no method for it."""

HOLDERS = ("_packed_params", "_packed_weight", "param")
"""Names of attributes that say nothing of what they hold: the part above gives the name."""


@dataclass(frozen=True, repr=False)
class Packed:
    """Weights by name in the buffers of a module, and what torch packed them into.

    `weight` is integers [out, …], or float16 where the layer rounds nothing else; `scale` and `zero_point` are [] or [out], of
    which the latter is None where it is zero; `bias` is float32 [out] or None.
    """

    owner: Any
    prefix: str
    original: Any
    axis: int | None
    shifted: bool
    held: Mapping[str, Tensor]

    def read(self, name: str) -> Tensor | None:
        """One of the buffers; None where there is none."""
        return self.owner._buffers.get(self.prefix + name)

    @property
    def weight(self) -> Tensor:
        """The integers."""
        return self._held("weight")

    @property
    def scale(self) -> Tensor:
        """The steps that they count."""
        return self._held("weight_scale")

    @property
    def zero_point(self) -> Tensor | None:
        """The integer that stands for zero."""
        return self._held("weight_zero_point") if self.shifted else None

    @property
    def bias(self) -> Tensor | None:
        """What is added to the layer's sums."""
        return self.read("bias")

    @property
    def is_linear(self) -> bool:
        """Whether the layer is linear, and not a convolution."""
        return class_of(self.original).startswith("Linear")

    def real(self) -> Packed:
        """The weights themselves, where the buffers hold a trace's."""
        return replace(self, owner=SimpleNamespace(_buffers=self.held))

    def example_shape(self, rank: int) -> tuple[int, ...]:
        """A small input of the layer."""
        if self.is_linear:
            return (*[2] * (rank - 2), 8, self.weight.shape[1])
        kernel = self.weight.shape[2:][2 - rank:]
        channels = self.weight.shape[0] if self.original.transpose() else self.weight.shape[1] * self.original.groups()
        return (1, channels, *(size * max(self.original.dilation()) + 2 for size in kernel))

    @staticmethod
    def along(values: Tensor, rank: int, axis: int | None) -> Tensor:
        """A value for each place of an axis, as it broadcasts to `rank` axes; one for all as it is."""
        return values if axis is None else values.reshape([-1 if place == axis % rank else 1 for place in range(rank)])

    def _held(self, name: str) -> Tensor:
        return self.owner._buffers[self.prefix + name]


@dataclass(frozen=True, repr=False)
class Cell:
    """The weights of one direction of a recurrent layer: from its input, and from its state."""

    inputs: Packed
    states: Packed
    reduce_range: bool


def packed_in(part: torch.nn.Module) -> dict[str, Any]:
    """What torch packed weights into among a part's attributes."""
    return {name: value for name, value in vars(part).items() if isinstance(value, torch.ScriptObject) and class_of(value) != ""}


def class_of(value: torch.ScriptObject) -> str:
    """`Conv2dPackedParamsBase` and the like; empty for another class's object."""
    name = str(value._type().qualified_name())
    return name.rpartition(".")[2] if name.startswith(("__torch__.torch.classes.quantized.", "__torch__.torch.classes.rnn.")) else ""


def is_quantized(module: torch.nn.Module) -> bool:
    """Whether weights of a part of the module are packed, or it holds a quantised tensor."""
    return any(packed_in(part) for part in module.modules()) or any(tensor.is_quantized for tensor in module.buffers())


@contextmanager
def unpacked(module: torch.nn.Module) -> Iterator[None]:
    """The module with tensors in place of what it holds packed; everything is put back afterwards."""
    paths = dict(module.named_modules())
    parts = [(path, part, packed_in(part)) for path, part in paths.items()]
    kept = [(part, dict(vars(part)), dict(part._buffers)) for part in paths.values()]
    try:
        for path, part, found in parts:
            if type(part).__module__.startswith("torch.ao."):
                part.__dict__["_save_to_state_dict"] = MethodType(torch.nn.Module._save_to_state_dict, part)
            for name, value in found.items():
                owner, prefix = _place(paths, path, name)
                part.__dict__[name] = _replaced(owner, prefix, value)
                _number_buffers(owner)
        yield
    finally:
        for part, attributes, buffers in kept:
            part.__dict__.clear()
            part.__dict__.update(attributes)
            part._buffers.clear()
            part._buffers.update(buffers)


def _place(paths: Mapping[str, torch.nn.Module], path: str, name: str) -> tuple[torch.nn.Module, str]:
    """The part that a packed weight is called after, and what its buffers' names begin with."""
    if name not in HOLDERS:
        return paths[path], f"{name.strip('_')}_"
    prefix = ""
    while (last := path.rpartition(".")[2]) in HOLDERS or last.isdigit() and path.endswith(f"_all_weight_values.{last}"):
        path = path.rpartition(".")[0]
        if last.isdigit():
            path = path.rpartition(".")[0]
            several = 1 + bool(getattr(paths[path], "bidirectional", False))
            prefix = f"l{int(last) // several}{'_reverse' if int(last) % several else ''}_"
    return paths[path], prefix


def _replaced(owner: torch.nn.Module, prefix: str, value: Any) -> Packed | Cell:
    kind = class_of(value)
    if kind == "CellParamsBase":
        way, _, _, numbers, packed = value.__getstate__()[0]
        if way != "quantized_dynamic":
            raise UnsupportedError("recurrent layers with packed float16 weights", where=type(owner).__name__, received=way)
        inputs, states = packed
        return Cell(_replaced_matrix(owner, f"{prefix}ih_", inputs), _replaced_matrix(owner, f"{prefix}hh_", states), bool(numbers[0]))
    return _replaced_matrix(owner, prefix, value)


def _replaced_matrix(owner: torch.nn.Module, prefix: str, value: Any) -> Packed:
    kind = class_of(value)
    weight, bias = _weights(value, kind)
    buffers: dict[str, Tensor | None] = {"bias": None if bias is None else bias.detach()}
    axis, shifted = None, False
    if not weight.is_quantized:
        buffers["weight"] = weight.to(torch.float16)
    else:
        per_tensor = weight.qscheme() in (torch.per_tensor_affine, torch.per_tensor_symmetric)
        axis = None if per_tensor else weight.q_per_channel_axis()
        scale = torch.tensor(weight.q_scale()) if per_tensor else weight.q_per_channel_scales().to(torch.float32)
        zero = torch.tensor(weight.q_zero_point()) if per_tensor else weight.q_per_channel_zero_points()
        shifted = bool(zero.any())
        buffers |= {"weight": integers_of(weight), "weight_scale": scale, "weight_zero_point": zero}
    if type(owner).__name__.endswith("1d") and buffers["weight"].dim() == 4:  # type: ignore[union-attr]
        buffers["weight"] = buffers["weight"].squeeze(2)  # type: ignore[union-attr]
    held = {prefix + name: tensor for name, tensor in buffers.items() if tensor is not None}
    owner._buffers.update(held)
    return Packed(owner, prefix, value, axis, shifted, held)


def integers_of(weight: Tensor) -> Tensor:
    """The integers of a quantised tensor, one to each element."""
    whole = weight.int_repr()
    if weight.dtype is not torch.quint4x2:
        return whole
    pairs = whole.flatten()[: (weight.numel() + 1) // 2]
    return torch.stack((pairs & 15, pairs >> 4), -1).flatten()[: weight.numel()].reshape(weight.shape)


def _weights(value: Any, kind: str) -> tuple[Tensor, Tensor | None]:
    try:
        found = getattr(torch.ops.quantized, UNPACK[kind])(value) if kind in UNPACK else value.unpack()
    except RuntimeError as error:
        raise UnsupportedError("packed weights that torch does not unpack", received=str(error).partition(chr(10))[0][:200]) from error
    return found if isinstance(found, tuple) else (found, None)


def _number_buffers(part: torch.nn.Module) -> None:
    """The scale and the zero point of a layer's results as buffers, as its state_dict has them."""
    for name, dtype in (("scale", torch.float32), ("zero_point", torch.int64)):
        value = vars(part).get(name)
        if isinstance(value, (int, float)) and name not in part._buffers:
            part._buffers[name] = torch.tensor(value, dtype=dtype)
