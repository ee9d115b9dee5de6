"""A graph in the making: the builder, with a family's names, a config, and the tensors that a checkpoint holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Any

from adapters.architectures import activations
from adapters.architectures.activations import Activation
from adapters.architectures.huggingface.config import Config
from adapters.architectures.huggingface.family import Family
from adapters.architectures.net import NetBuilder
from converter.builder import Value
from converter.dims import Dim
from converter.errors import UnsupportedError
from converter.ir import DimRange, DType, Graph, TensorSpec

# transformers' names of activations. gelu_fast's constant has 10 digits of sqrt(2 / pi).
ACTIVATIONS: Mapping[str, Activation] = {
    "gelu": activations.GELU,
    "gelu_python": activations.GELU,
    "gelu_new": activations.GELU_TANH,
    "gelu_fast": activations.GELU_TANH,
    "gelu_pytorch_tanh": activations.GELU_TANH,
    "gelu_python_tanh": activations.GELU_TANH,
    "relu": activations.RELU,
    "relu2": activations.RELU_SQUARED,
    "relu6": activations.RELU6,
    "leaky_relu": activations.LEAKY_RELU,
    "hardswish": activations.HARDSWISH,
    "silu": activations.SILU,
    "swish": activations.SILU,
    "tanh": activations.TANH,
    "sigmoid": activations.SIGMOID,
    "mish": activations.MISH,
    "quick_gelu": activations.QUICK_GELU,
    "linear": activations.IDENTITY,
}


class Net(NetBuilder):
    """What a family's `build` works with.

    Roles become the checkpoint's own names; every tensor's shape is what the config says, and `declared` collects them.
    """

    def __init__(self, family: Family, config: Config, held: Mapping[str, TensorSpec], name: str, *, take: Sequence[str],
                 cache: bool = False, prefix: str | None = None) -> None:
        super().__init__(name, held)
        self.family, self.config, self.take, self.cache = family, config, tuple(take), cache
        self.declared: dict[str, TensorSpec] = {}
        self.aliases: dict[str, str] = {}
        self.notes: list[str] = []
        self.outputs: dict[str, Value] = {}
        self.flat: dict[str, Value] = {}
        self.unused = list(family.leftovers)
        self.prefix = self._prefix() if prefix is None else prefix
        self.dtype = self._dtype()

    def _prefix(self) -> str:
        return next((item for item in self.family.prefixes if any(name.startswith(item) for name in self.held)), "")

    def _dtype(self) -> DType:
        """That of the checkpoint's floats; where they are of several, the narrowest that holds each exactly."""
        found: dict[DType, int] = {}
        floats = {name: spec for name, spec in self.held.items() if spec.dtype.is_float}
        # Of a family of two towers each is a leftover of the other: then all tensors tell.
        for name, spec in ({name: spec for name, spec in floats.items() if not self._is_leftover(name)} or floats).items():
            if spec.dtype.itemsize < 2:
                raise UnsupportedError("quantised weights are not recognised", where=name, received=str(spec),
                                       fix="give the checkpoint in float16, bfloat16 or float32")
            found[spec.dtype] = found.get(spec.dtype, 0) + 1
        if len(found) < 2:
            return next(iter(found), DType.FLOAT32)
        dtype = DType.FLOAT64 if DType.FLOAT64 in found else DType.FLOAT32
        counts = ", ".join(f"{count} {held}" for held, count in found.items())
        self.notes.append(f"the checkpoint's floats are of several dtypes ({counts}): all are taken as {dtype}, which holds each value; "
                          "--dtype casts them to another")
        return dtype

    # Names ---------------------------------------------------------------------------------------------------------------

    def name(self, role: str, ending: str = "weight", **places: Any) -> str:
        """The checkpoint's name of a tensor: the family's, or an older one that the checkpoint has in its place."""
        heads = self.family.heads
        pattern = heads[role] if role in heads else self.prefix + self.family.names[role]
        full = f"{pattern.format(**places)}.{ending}" if ending else pattern.format(**places)
        if full not in self.held:
            for new, old in self.family.legacy:
                if full.endswith(new) and full[:-len(new)] + old in self.held:
                    return full[:-len(new)] + old
        return full

    def has(self, role: str, ending: str = "weight", **places: Any) -> bool:
        """Whether the checkpoint holds a tensor."""
        return self.name(role, ending, **places) in self.held

    def tensor(self, role: str, shape: Sequence[Dim], ending: str = "weight", **places: Any) -> Value:
        """A parameter of the graph's dtype."""
        return self.parameter(self.name(role, ending, **places), shape)

    def parameter(self, name: str, shape: Sequence[Dim], dtype: DType | None = None) -> Value:
        """A parameter by its own name."""
        value = self.b.parameter(name, dtype or self.dtype, shape)
        self.declared[name] = value.spec
        return value

    @property
    def wide(self) -> DType:
        """The graph's dtype, float32 for the smaller floats: what norms, angles and states are computed in."""
        return DType.FLOAT32 if self.dtype in (DType.FLOAT16, DType.BFLOAT16) else self.dtype

    def tied(self, role: str, target: Value, ending: str = "weight") -> Value:
        """A tensor that is another one, under a second name."""
        name = self.name(role, ending)
        if name != target.name:
            self.parameter(name, target.shape)
            self.aliases[name] = target.name
        return target

    def _is_leftover(self, name: str) -> bool:
        return any(fnmatchcase(name, pattern) or fnmatchcase(name, self.prefix + pattern) for pattern in self.unused)

    def leaves(self, *patterns: str) -> None:
        """Says of tensors that this task has no use for them, as `Family.leftovers` does for all tasks."""
        self.unused += patterns

    def leftovers(self) -> dict[str, TensorSpec]:
        """Tensors that the checkpoint holds and the computation does not use, known to be harmless."""
        return {name: spec for name, spec in self.held.items() if name not in self.declared and self._is_leftover(name)}

    def part(self, names: Mapping[str, str], prefix: str, config: Config) -> Net:
        """The same graph with other names, under a prefix, and another config: one tower of several."""
        other = copy(self)
        other.family, other.prefix, other.config = replace(self.family, names=names, heads={}), prefix, config
        return other

    # Inputs --------------------------------------------------------------------------------------------------------------

    def takes(self, name: str) -> bool:
        """Whether the graph has this input."""
        return name in self.take

    def output(self, name: str, value: Value) -> None:
        """Declares an output, in order."""
        self.outputs[name] = value

    def graph(self) -> Graph:
        """The finished graph."""
        for name, value in self.outputs.items():
            self.b.output(name, value)
        return self.b.graph()

    def dim(self, name: str, most: int | None, least: int = 1) -> None:
        """Declares a size's range."""
        self.b.dims[name] = DimRange(least, most)

    # Layers --------------------------------------------------------------------------------------------------------------

    def transposed_linear(self, x: Value, role: str, width: int, **places: Any) -> Value:
        """x · weight + bias, the weight [in, width]: GPT-2's Conv1D."""
        weight = self.tensor(role, (x.shape[-1], width), **places)
        return self.op("add", self.op("matmul", x, weight), self.tensor(role, (width,), "bias", **places))

    def embedding(self, indices: Value, role: str, rows: int, width: int, **places: Any) -> Value:
        return self.op("embedding", indices, self.tensor(role, (rows, width), **places))

    def first(self, x: Value) -> Value:
        """[batch, time, width] at time 0."""
        return self.op("select", x, axis=1, index=0)

    def at(self, x: Value, place: Value) -> Value:
        """x[i, place[i]] of [batch, time, width]: [batch, width]. place: int64 [batch, 1]."""
        batch, _, width = x.shape
        index = self.op("broadcast_to", self.op("expand_dims", place, axis=(2,)), shape=(batch, 1, width))
        return self.op("squeeze", self.op("take_along_axis", x, index, axis=1), axis=(1,))

    def split_heads(self, x: Value, heads: int) -> Value:
        """[batch, time, heads * size] as [batch, heads, time, size]."""
        batch, time, width = x.shape
        return self.op("permute_dims", self.op("reshape", x, shape=(batch, time, heads, width // heads)), axes=(0, 2, 1, 3))

    def join_heads(self, x: Value) -> Value:
        """[batch, heads, time, size] as [batch, time, heads * size]."""
        batch, heads, time, size = x.shape
        return self.op("reshape", self.op("permute_dims", x, axes=(0, 2, 1, 3)), shape=(batch, time, heads * size))
