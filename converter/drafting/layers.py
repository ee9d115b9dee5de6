"""PyTorch's layers as a draft names them: their arguments, their tensors, and what they compute in evaluation mode."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from converter.builder import GraphBuilder, Value
from converter.dims import fixed
from converter.drafting.arguments import Argument
from converter.errors import FormatError
from converter.ir import TensorSpec

Arguments = Mapping[str, Any]


@dataclass
class Place:
    """Where a layer stands: the graph so far, and the layer's own tensors by their names within it.

    `names` are the tensors' names in the state_dict. `outputs` collects what a layer gives beside its result, where
    `is_last` says that no layer follows it.
    """

    b: GraphBuilder
    where: str
    names: Mapping[str, str]
    specs: Mapping[str, TensorSpec]
    is_last: bool = False
    outputs: dict[str, Value] = field(default_factory=dict)

    def has(self, leaf: str) -> bool:
        """Whether the layer has a tensor."""
        return leaf in self.specs

    def tensor(self, leaf: str) -> Value:
        """A parameter of the graph."""
        return self.b.parameter(self.names[leaf], self.specs[leaf].dtype, self.specs[leaf].shape)

    def optional(self, leaf: str) -> Value | None:
        """A parameter, or None where the layer has none of the name."""
        return self.tensor(leaf) if self.has(leaf) else None

    def shape(self, leaf: str) -> tuple[int, ...]:
        """A tensor's sizes."""
        return tuple(fixed(size) for size in self.specs[leaf].shape)

    def op(self, op: str, *inputs: Value | float | None, **attributes: Any) -> Value:
        """A node's first output."""
        return self.b.op(op, *inputs, **attributes)

    def refuse(self, message: str, **parts: str) -> FormatError:
        """An error of this layer."""
        return FormatError(message, where=self.where, **parts)


Build = Callable[[Place, Value, Arguments], Value]


@dataclass(frozen=True, slots=True)
class Layer:
    """A class of `torch.nn`.

    Args:
        arguments: those that leave no trace in a state_dict, in PyTorch's order, by PyTorch's names.
        build: adds the nodes.
        needs, may: the tensors that it must have, and may have; `"*"` for any. None of either: a layer without tensors.
    """

    name: str
    arguments: Mapping[str, Argument]
    build: Build
    needs: tuple[str, ...] = ()
    may: tuple[str, ...] = ()

    @property
    def has_tensors(self) -> bool:
        return bool(self.needs or self.may)


LAYERS: dict[str, Layer] = {}


def layer(*names: str, needs: tuple[str, ...] = (), may: tuple[str, ...] = (), more: Mapping[str, Argument] | None = None,
          **arguments: Argument) -> Callable[[Build], Build]:
    """A decorator that makes a function the meaning of layers of these names. Arguments of `more` come last."""

    def register(build: Build) -> Build:
        for name in names:
            if name in LAYERS:
                raise RuntimeError(f"the layer {name!r} is declared twice")
            LAYERS[name] = Layer(name, {**arguments, **(more or {})}, build, needs, may)
        return build

    return register


def table() -> Mapping[str, Layer]:
    """Every layer by name."""
    from converter.drafting import with_tensors, without_tensors  # noqa: F401 - they fill the table

    return LAYERS


def per_axis(value: int | list[int], axes: int, place: Place, name: str) -> tuple[int, ...]:
    """One number for each axis. Raises `FormatError` for another number of them."""
    sizes = [value] * axes if isinstance(value, int) else value
    if len(sizes) != axes:
        raise place.refuse(f"{name!r} has {len(sizes)} numbers", expected=f"one, or {axes}")
    return tuple(sizes)
