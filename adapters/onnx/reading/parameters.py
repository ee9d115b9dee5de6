"""The parameters of a model that was read from an ONNX file of another origin."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import numpy as np

from adapters.onnx.initializers import Initializers
from converter.ir import Array, DType, TensorSpec
from converter.mapped import FileRange
from converter.parameters import ParameterStore, transposed_pieces

MADE_UP = re.compile(r"(onnx::|/|val_|_val|tensor_|const)|\A[\W\d_]*\Z|\A[A-Za-z]?_?\d+\Z")
"""Names that exporters make up for weights whose own are lost."""


Step = tuple[Any, ...]
"""How a parameter is made of an initializer: `("transpose", axes)`, `("select", axis, index)`, `("part", axis, start, stop)`,
`("blocks", axis, order)`: as many equal blocks as there are in the order, in that order; `("reshape", shape)`."""


TRANSPOSED: tuple[Step, ...] = (("transpose", (1, 0)),)


def arrange(values: Array, steps: tuple[Step, ...]) -> Array:
    """An initializer in the layout of a parameter."""
    for kind, *given in steps:
        if kind == "transpose":
            values = values.transpose(given[0])
        elif kind == "select":
            values = np.take(values, given[1], given[0])
        elif kind == "part":
            values = values[(slice(None),) * given[0] + (slice(given[1], given[2]),)]
        elif kind == "blocks":
            blocks = np.split(values, len(given[1]), given[0])
            values = np.concatenate([blocks[index] for index in given[1]], given[0])
        elif kind == "reshape":
            values = values.reshape(given[0])
        else:
            raise ValueError(f"unknown step {kind!r}")
    return values


class ForeignParameters(ParameterStore):
    """Initializers as they lie, some of them in another layout, and constants that were made while the graph was read.

    `arranged` maps an initializer and the steps of a layout to the parameter that holds it so; `constants` holds the others.
    """

    def __init__(self, initializers: Initializers | None) -> None:
        self._initializers = initializers
        self.arranged: dict[tuple[str, tuple[Step, ...]], str] = {}
        self.constants: dict[str, Array] = {}
        self.learned: set[str] = set()
        """Those of `constants` that training found: they are no constants of the model."""
        self._inverse: dict[str, tuple[str, tuple[Step, ...]]] = {}
        self.plain: dict[str, None] = {}
        """Initializers that are parameters as they lie."""

    def rename(self, name: str, wanted: str) -> bool:
        """Whether a parameter whose name was made up, here or by an exporter, has another one now."""
        key = self._places().get(name)
        if key is None or not MADE_UP.search(key[0]) or wanted in self:
            return False
        self.arranged[key], self._inverse = wanted, {}
        return True

    def reshape(self, name: str, shape: tuple[int, ...], wanted: str, alone: bool) -> str:
        """The name of a parameter that is another one of these in this shape; the other is gone where that was its only use, `alone`.

        It is called as the other, or what is `wanted` where that was made up.
        """
        initializer, steps = self._places().get(name, (name, ()))
        key = (initializer, (*steps, ("reshape", shape)))
        if key in self.arranged:
            return self.arranged[key]
        found = wanted if wanted and wanted not in self and MADE_UP.search(name) else name if alone else f"{name}.{len(self.arranged)}"
        if alone:
            self.plain.pop(name, None)
            self.arranged.pop((initializer, steps), None)
        self.arranged[key], self._inverse = found, {}
        return found

    def initializers(self) -> frozenset[str]:
        """The initializers that parameters are made of."""
        return frozenset(self.plain) | {name for name, _ in self.arranged}

    def keep(self, used: set[str]) -> None:
        """Forgets the parameters that nothing uses."""
        self.plain = {name: None for name in self.plain if name in used}
        self._inverse = {}
        self.arranged = {key: name for key, name in self.arranged.items() if name in used}
        self.constants = {name: values for name, values in self.constants.items() if name in used}

    def _places(self) -> dict[str, tuple[str, tuple[Step, ...]]]:
        if len(self._inverse) != len(self.arranged):
            self._inverse = {name: key for key, name in self.arranged.items()}
        return self._inverse

    def names(self) -> tuple[str, ...]:
        return (*self.plain, *self.arranged.values(), *self.constants)

    def __contains__(self, name: object) -> bool:
        return name in self.plain or name in self.constants or name in self._places()

    def spec(self, name: str) -> TensorSpec:
        if name in self.constants:
            values = self.constants[name]
            return TensorSpec(DType.of(values.dtype), values.shape)
        if name in self.plain and self._initializers is not None:
            return self._initializers.spec(name)
        found = self._places().get(name)
        if found is None or self._initializers is None:
            raise self.unknown(name)
        spec = self._initializers.spec(found[0])
        return TensorSpec(spec.dtype, arrange(np.broadcast_to(np.int8(0), spec.sizes), found[1]).shape)

    def file_range(self, name: str) -> FileRange | None:
        return self._initializers.file_range(name) if name in self.plain and self._initializers is not None else None

    def pieces(self, name: str) -> Iterator[memoryview]:
        initializer, steps = self._places().get(name, ("", ()))
        if self._initializers is None or name in self.constants or steps != TRANSPOSED:
            return super().pieces(name)
        return transposed_pieces(self._initializers, initializer)

    def kept(self, name: str) -> tuple[ParameterStore, str, str]:
        initializer, steps = self._places().get(name, ("", ()))
        if self._initializers is None or name in self.constants or steps != TRANSPOSED:
            return super().kept(name)
        return self._initializers, initializer, "transposed"

    def read(self, name: str) -> Array:
        if name in self.constants:
            values = self.constants[name].view()
        elif name in self.plain and self._initializers is not None:
            return self._initializers.read(name)
        else:
            found = self._places().get(name)
            if found is None or self._initializers is None:
                raise self.unknown(name)
            values = np.array(arrange(self._initializers.read(found[0]), found[1]), order="C")
        values.flags.writeable = False
        return values
