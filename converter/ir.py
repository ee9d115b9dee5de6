"""The neutral model in memory: dtypes, tensor specs, nodes, graphs. Frozen, and ignorant of files and frameworks."""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np

from converter.conditions import Condition
from converter.dims import Dim, Expr, fixed
from converter.errors import GraphError
from converter.size_text import parse

if TYPE_CHECKING:
    from converter.parameters import ParameterStore
    from converter.recorded import Draw, Sample


Array = np.ndarray[Any, Any]


class DType(enum.Enum):
    """The element types of the format. The value is the name in files; `numpy` is the little-endian NumPy dtype."""

    BOOL = "bool"
    INT8 = "int8"
    INT16 = "int16"
    INT32 = "int32"
    INT64 = "int64"
    UINT8 = "uint8"
    UINT16 = "uint16"
    UINT32 = "uint32"
    UINT64 = "uint64"
    FLOAT16 = "float16"
    BFLOAT16 = "bfloat16"
    FLOAT32 = "float32"
    FLOAT64 = "float64"
    COMPLEX64 = "complex64"
    COMPLEX128 = "complex128"
    FLOAT8_E4M3FN = "float8_e4m3fn"
    FLOAT8_E4M3FNUZ = "float8_e4m3fnuz"
    FLOAT8_E5M2 = "float8_e5m2"
    FLOAT8_E5M2FNUZ = "float8_e5m2fnuz"
    FLOAT8_E8M0FNU = "float8_e8m0fnu"
    INT2 = "int2"
    UINT2 = "uint2"
    INT4 = "int4"
    UINT4 = "uint4"
    FLOAT4_E2M1FN = "float4_e2m1fn"

    @property
    def numpy(self) -> np.dtype[Any]:
        return _NUMPY[self]

    @property
    def itemsize(self) -> int:
        """Bytes an element."""
        return self.numpy.itemsize

    @property
    def bits(self) -> int:
        """Bits of an element that tell its value; in those of fewer than 8, the others of the byte are zero."""
        return _NARROW.get(self, 8 * self.itemsize)

    @property
    def limits(self) -> tuple[int, int]:
        """The lowest and the highest number of an integer dtype."""
        signed = not self.value.startswith("u")
        return -(1 << self.bits - 1) if signed else 0, (1 << self.bits - signed) - 1

    @property
    def is_float(self) -> bool:
        return "float" in self.value

    @property
    def is_complex(self) -> bool:
        return "complex" in self.value

    @property
    def is_integer(self) -> bool:
        """Signed or unsigned, not boolean."""
        return "int" in self.value

    @classmethod
    def of(cls, dtype: Any) -> DType:
        """From a name, a `DType`, or anything `numpy.dtype` takes. Raises `GraphError` for a dtype the format lacks."""
        if isinstance(dtype, DType):
            return dtype
        if isinstance(dtype, str) and dtype in _NAMES:
            return _NAMES[dtype]
        try:
            return _NAMES[np.dtype(dtype).name]
        except (KeyError, TypeError) as error:
            raise GraphError("not a dtype of the format", expected=", ".join(_NAMES), received=repr(dtype)) from error

    def __str__(self) -> str:
        return str(self.value)

    def __repr__(self) -> str:
        return f"DType({self.value!r})"


_NARROW = {DType.INT2: 2, DType.UINT2: 2, DType.INT4: 4, DType.UINT4: 4, DType.FLOAT4_E2M1FN: 4}
_NAMES = {dtype.value: dtype for dtype in DType}
_NUMPY = {dtype: np.dtype(getattr(ml_dtypes, dtype.value, None) or dtype.value) for dtype in DType}


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """A dtype and a shape whose sizes are integers or expressions."""

    dtype: DType
    shape: tuple[Dim, ...]

    @classmethod
    def of(cls, dtype: Any, shape: Any) -> TensorSpec:
        """From names and texts: `TensorSpec.of("float32", ["batch", 4])`."""
        return cls(DType.of(dtype), tuple(size if isinstance(size, Expr) else parse(size) for size in shape))

    @property
    def rank(self) -> int:
        return len(self.shape)

    @property
    def sizes(self) -> tuple[int, ...]:
        """The shape of a tensor whose sizes are numbers, as a parameter's. Raises `GraphError` for one that is free."""
        return tuple(map(fixed, self.shape))

    def __str__(self) -> str:
        return f"{self.dtype}[{', '.join(map(str, self.shape))}]"


@dataclass(frozen=True, slots=True)
class DimRange:
    """The sizes a symbol may take: `min`, `min + step`, … up to `max`. `max` None: no upper end."""

    min: int = 1
    max: int | None = None
    step: int = 1

    def __contains__(self, size: object) -> bool:
        return (isinstance(size, int) and size >= self.min and (self.max is None or size <= self.max)
                and (size - self.min) % self.step == 0)

    def __str__(self) -> str:
        by = "" if self.step == 1 else f" in steps of {self.step}"
        return f"{self.min}..{'' if self.max is None else self.max}{by}"

    def nearest(self, size: int) -> int:
        """The allowed size next to `size`: the first that is not below it, or the last one."""
        above = max(0, -(-(size - self.min) // self.step))
        last = above if self.max is None else (self.max - self.min) // self.step
        return self.min + self.step * min(above, last)


Literal = bool | int | float | complex
"""A number written straight into a node's inputs. It takes the dtype of the node's tensor operands."""

Operand = str | bool | int | float | complex | None
"""One input of a node: the name of a value, a literal number, or None for an optional input that is absent."""


@dataclass(frozen=True, slots=True)
class Node:
    """One application of an operator.

    `outputs` holds None for an output that nothing uses; trailing ones may be left out. `source` is the line of the
    user's code that the node came from; it is no part of the model's digest.
    """

    op: str
    inputs: tuple[Operand, ...]
    outputs: tuple[str | None, ...]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    source: str | None = None

    @property
    def output(self) -> str:
        """Its first output. Raises `GraphError` where nothing uses that."""
        name = self.outputs[0]
        if name is None:
            raise GraphError("nothing uses the first output", where=str(self))
        return name

    @property
    def names(self) -> tuple[str, ...]:
        """The values it reads, each once for each use."""
        return tuple(operand for operand in self.inputs if isinstance(operand, str))

    def __str__(self) -> str:
        return f"{self.op} -> {', '.join(name or '_' for name in self.outputs)}"


@dataclass(frozen=True, slots=True)
class GraphInput:
    """A value that the caller gives, by name."""

    name: str
    spec: TensorSpec


@dataclass(frozen=True, slots=True)
class GraphOutput:
    """A value that the caller gets, as `name`. `value` is the graph's own name for it, usually the same."""

    name: str
    spec: TensorSpec
    value: str


@dataclass(frozen=True)
class Graph:
    """A computation, in an order in which it can run. `dims` holds the range of every symbol, `requires` the conditions between
    several."""

    name: str
    inputs: tuple[GraphInput, ...]
    outputs: tuple[GraphOutput, ...]
    nodes: tuple[Node, ...]
    dims: Mapping[str, DimRange] = field(default_factory=dict)
    requires: tuple[Condition, ...] = ()

    @cached_property
    def uses(self) -> Counter[str]:
        """How often nodes and outputs read each value."""
        return Counter([*(name for node in self.nodes for name in node.names), *(output.value for output in self.outputs)])

    @cached_property
    def makers(self) -> Mapping[str, Node]:
        """The node that makes each value."""
        return {name: node for node in self.nodes for name in node.outputs if name is not None}


@dataclass(frozen=True)
class Example:
    """Recorded inputs and outputs, by name, and what made them (`"torch 2.13.0"`).

    An output may be a `converter.recorded.Sample`; `draws` says how inputs were drawn that a file need not hold.
    """

    inputs: Mapping[str, Array]
    outputs: Mapping[str, Array | Sample]
    made_by: str
    draws: Mapping[str, Draw] = field(default_factory=dict)


@dataclass(frozen=True)
class Model:
    """A graph, its parameters, recorded examples, and free metadata (JSON values).

    `constants` names the parameters that are no part of the source's state_dict: non-persistent buffers and tensors
    that the model's code holds.
    """

    graph: Graph
    parameters: ParameterStore
    examples: tuple[Example, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)
    constants: frozenset[str] = frozenset()

    def with_parameters(self, parameters: ParameterStore) -> Model:
        return replace(self, parameters=parameters)
