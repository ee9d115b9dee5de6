"""A module's or a state_dict's tensors as a parameter store: names, order, bits and shared memory kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from adapters.torch.dtypes import from_torch_dtype, to_numpy
from adapters.torch.quantized.packed import unpacked
from converter.errors import UnsupportedError
from converter.ir import Array, Graph, TensorSpec
from converter.parameters import ParameterStore


class TorchParameters(ParameterStore):
    """Tensors by name. Two names with the same memory, shape and strides are one tensor: the later is an alias.

    `constants` are names outside the state_dict: non-persistent buffers and tensors that the module's code holds.
    """

    def __init__(self, tensors: Mapping[str, torch.Tensor], constants: frozenset[str] = frozenset()) -> None:
        self._tensors = dict(tensors)
        self.constants = constants
        self._aliases: dict[str, str] = {}
        first: dict[tuple[object, ...], str] = {}
        for name, tensor in self._tensors.items():
            if tensor.layout is not torch.strided or tensor.is_quantized:
                raise UnsupportedError(f"the parameter {name!r} is a {tensor.layout} tensor"
                                       if not tensor.is_quantized else f"the parameter {name!r} is quantized",
                                       expected="dense, unquantized tensors", fix="call .to_dense() or .dequantize() first")
            if tensor.numel() == 0 or tensor.device.type == "meta":
                continue
            key = (tensor.device, tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), tensor.dtype, tensor.is_conj(), tensor.is_neg())
            target = first.setdefault(key, name)
            if target != name:
                self._aliases[name] = target

    @classmethod
    def of(cls, module: torch.nn.Module, exported: Any) -> TorchParameters:
        """The module's state_dict, then what the trace uses beyond it."""
        with unpacked(module):
            state = {name: value for name, value in module.state_dict(keep_vars=True).items() if isinstance(value, torch.Tensor)}
        tensors = dict(state)
        for spec in exported.graph_signature.input_specs:
            if spec.target is not None and spec.target not in tensors:
                found = exported.state_dict.get(spec.target)
                if found is None:
                    found = exported.constants.get(spec.target)
                if isinstance(found, torch.Tensor):
                    tensors[spec.target] = found
        return cls(tensors, frozenset(tensors.keys() - state.keys()))

    def with_tensors(self, change: Callable[[torch.Tensor], torch.Tensor]) -> TorchParameters:
        """Each tensor, once however many names it has, replaced by what `change` gives for it."""
        changed = {name: change(tensor) for name, tensor in self._tensors.items() if name not in self._aliases}
        return TorchParameters({name: changed[self._aliases.get(name, name)] for name in self._tensors}, self.constants)

    def with_constants(self, tensors: Mapping[str, torch.Tensor]) -> TorchParameters:
        """These parameters and further constants."""
        return TorchParameters({**self._tensors, **tensors}, self.constants | tensors.keys()) if tensors else self

    def needed_by(self, graph: Graph) -> TorchParameters:
        """Without the constants that the graph does not read; the state_dict stays whole."""
        dropped = self.constants - graph.uses.keys()
        return TorchParameters({name: tensor for name, tensor in self._tensors.items() if name not in dropped},
                               self.constants - dropped)

    def names(self) -> tuple[str, ...]:
        return tuple(self._tensors)

    def alias_of(self, name: str) -> str | None:
        return self._aliases.get(name)

    def spec(self, name: str) -> TensorSpec:
        tensor = self.tensor(name)
        return TensorSpec(from_torch_dtype(tensor.dtype), tuple(tensor.shape))

    def read(self, name: str) -> Array:
        values = to_numpy(self.tensor(name)).view()
        values.flags.writeable = False
        return values

    def tensor(self, name: str) -> torch.Tensor:
        """The tensor itself. Raises `ParameterError` for an unknown name."""
        try:
            return self._tensors[name]
        except KeyError:
            raise self.unknown(name) from None
