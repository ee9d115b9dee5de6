"""ONNX nodes, constants and sizes as they are emitted: what the lowerings of `adapters/onnx/ops` work with."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import wraps
from typing import Any, TypeVar, cast

import numpy as np
import onnx

from adapters.onnx.lowering.empty import IDENTITIES, reduced_empty
from adapters.onnx.lowering.layouts import BYTES
from converter import intervals
from converter.builder import Value
from converter.dims import Dim
from converter.errors import UnsupportedError
from converter.ir import Array, DType, Graph, Node, TensorSpec
from converter.size_writer import SizeWriter

Tensor = Value
"""A value in the ONNX graph: its name there, and its neutral dtype and shape."""

CONVERTED = frozenset({DType.FLOAT8_E4M3FN, DType.FLOAT8_E4M3FNUZ, DType.FLOAT8_E5M2, DType.FLOAT8_E5M2FNUZ})
"""What ONNX Runtime converts from and to, and does little else with."""


def _number(dtype: DType) -> int | None:
    name = dtype.value.upper().replace("FLOAT32", "FLOAT").replace("FLOAT64", "DOUBLE")
    found = getattr(onnx.TensorProto, name.replace("_", "") if dtype in CONVERTED else name, None)
    return found if dtype.bits >= 8 else None


ONNX_DTYPES: dict[DType, int] = {dtype: number for dtype in DType if (number := _number(dtype)) is not None}


Function = TypeVar("Function", bound=Callable[..., Any])


def once(function: Function) -> Function:
    """Marks what emits nodes for hashable arguments: where it was called with the same before, it gives what it made then."""

    @wraps(function)
    def made(g: Emitter, *arguments: Any) -> Any:
        return g.memo((function, *arguments), lambda: function(g, *arguments))

    return cast(Function, made)


VECTOR = TensorSpec(DType.INT64, (1,))
SIZES = {"+": "Add", "-": "Sub", "*": "Mul", "%": "Mod", "max": "Max", "min": "Min"}


class Emitter(SizeWriter[Tensor]):
    """Collects nodes, constants and names.

    `opset` is the ai.onnx version to write; a lowering chooses newer operators where it allows them. `current` is the neutral node
    that is being lowered, `wanted` the names of its outputs that are used. Sizes are int64 tensors of shape [1].
    """

    def __init__(self, graph: Graph, specs: Mapping[str, TensorSpec], opset: int) -> None:
        super().__init__()
        self.graph, self.specs, self.opset = graph, dict(specs), opset
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, Array] = {}
        self.current = Node("?", (), ())
        self.wanted: list[str] = []
        self._names = Counter([*specs, *(output.name for output in graph.outputs), *(port.name for port in graph.inputs)])
        self._shared: dict[tuple[DType, tuple[int, ...], bytes], Tensor] = {}
        self._memo: dict[Any, Any] = {}
        self._symbol_sources: dict[str, tuple[Tensor, int | None]] = {}
        self._permuted: dict[str, tuple[Tensor, tuple[int, ...]]] = {}

    def node(self, op_type: str, *inputs: Tensor | str | None, spec: TensorSpec | None = None, domain: str = "",
             **attributes: Any) -> Tensor:
        """One ONNX node with one output. `spec` is the output's, where later lowering steps ask for it; default: that
        of the neutral node's first output."""
        reduces = op_type in IDENTITIES and (len(inputs) == 2 or op_type == "ReduceMean")
        if reduces and isinstance(inputs[0], Tensor) and self.may_be_empty(inputs[0].shape):
            return reduced_empty(self, op_type, *inputs, spec=spec or self.result, **attributes)  # type: ignore[arg-type]
        return self.nodes_out(op_type, *inputs, specs=[spec], domain=domain, **attributes)[0]

    def nodes_out(self, op_type: str, *inputs: Tensor | str | None, specs: Sequence[TensorSpec | None], domain: str = "",
                  **attributes: Any) -> tuple[Tensor, ...]:
        """One ONNX node with `len(specs)` outputs, all named."""
        names = [item.name if isinstance(item, Tensor) else item or "" for item in inputs]
        while names and not names[-1]:
            names.pop()
        stem = self.wanted[0] if self.wanted else op_type.lower()
        outputs = [self.unique(f"{stem}/{op_type}") for _ in specs]
        attributes = {key: value for key, value in attributes.items() if value is not None}
        self.nodes.append(onnx.helper.make_node(op_type, names, outputs, name=self.unique(f"{stem}/{op_type}_node"),
                                                domain=domain, **attributes))
        default = self.specs.get(self.wanted[0]) if self.wanted else None
        return tuple(Tensor(name, spec or default or TensorSpec(DType.FLOAT32, ())) for name, spec in zip(outputs, specs, strict=True))

    def unique(self, stem: str) -> str:
        """A name no other value has."""
        self._names[stem] += 1
        return stem if self._names[stem] == 1 else self.unique(f"{stem}_{self._names[stem] - 1}")

    def memo(self, key: Any, make: Callable[[], Any]) -> Any:
        """What was made for a key, wherever it can be read."""
        if key not in self._memo:
            self._memo[key] = make()
        return self._memo[key]

    @contextmanager
    def inside(self) -> Iterator[list[onnx.NodeProto]]:
        """While active, nodes are those of a body, which it gives; what is computed there exists there only, but for constants."""
        nodes, memo, made = self.nodes, dict(self._memo), dict(self.made)
        self.nodes = []
        try:
            yield self.nodes
        finally:
            self.nodes, self._memo, self.made = nodes, memo, made

    def constant(self, values: Any, dtype: DType = DType.INT64) -> Tensor:
        """A constant tensor (an initializer); equal ones are shared. Default dtype: int64, for shapes and axes."""
        with np.errstate(over="ignore"):  # a number beyond the dtype's is an infinity, as in every runtime
            array = np.asarray(values, BYTES.get(dtype, dtype).numpy)
        key = (dtype, array.shape, array.tobytes())
        if key not in self._shared:
            name = self.unique(f"constant_{len(self.constants)}")
            self.constants[name] = array
            self._shared[key] = Tensor(name, TensorSpec(dtype, array.shape))
        return self._shared[key]

    def refuse(self, reason: str) -> UnsupportedError:
        """The error of a lowering that has no ONNX counterpart: `raise g.refuse("why")`."""
        return UnsupportedError(reason, items=[{"operator": self.current.op, "reason": reason, "source": self.current.source}])

    @property
    def is_given_out(self) -> bool:
        """Whether the neutral node's first output is one of the graph's."""
        return any(output.value == self.wanted[0] for output in self.graph.outputs)

    @property
    def result(self) -> TensorSpec:
        """The spec of the neutral node's first output that is used."""
        return self.specs[self.wanted[0]]

    def wants(self, output: int) -> bool:
        """Whether anything uses that output of the neutral node."""
        return output < len(self.current.outputs) and self.current.outputs[output] is not None

    def may_be_empty(self, shape: Sequence[Dim]) -> bool:
        """Whether a tensor of that shape can be without elements at sizes that the graph allows."""
        return intervals.may_be_empty(shape, self.graph.dims)

    def number(self, value: int) -> Tensor:
        return self.constant([value])

    def symbol(self, name: str) -> Tensor:
        tensor, axis = self._symbol_sources[name]
        if axis is None:  # a number of the data
            return self.node("Reshape", tensor, self.constant([1]), spec=VECTOR)
        # Shape with start and end (opset 15) reads one size without a Gather.
        return self.node("Shape", tensor, spec=VECTOR, start=axis, end=axis + 1)

    def combine(self, function: str, left: Tensor, right: Tensor) -> Tensor:
        if function == "//":
            # ONNX divides towards zero; a size expression floors. Taking the floored remainder off first makes it exact.
            return self.node("Div", self.combine("-", left, self.combine("%", left, right)), right, spec=VECTOR)
        return self.node(SIZES[function], left, right, spec=VECTOR)

    def scalar_size(self, value: Dim) -> Tensor:
        """A size as a 0-d int64 tensor."""
        if isinstance(value, int):
            return self.constant(value)
        found: Tensor = self.memo(("scalar", value), lambda: self.node("Squeeze", self.size(value), spec=TensorSpec(DType.INT64, ())))
        return found

    def sizes(self, values: Sequence[Dim]) -> Tensor:
        """Sizes as one int64 vector."""
        found: Tensor = self.memo(("sizes", tuple(values)), lambda: self._vector(values))
        return found

    def _vector(self, values: Sequence[Dim]) -> Tensor:
        parts: list[Tensor] = []
        for known, group in itertools.groupby(values, lambda value: isinstance(value, int)):
            run = list(group)
            parts += [self.constant(run)] if known else map(self.size, run)
        if len(parts) < 2:
            return parts[0] if parts else self.constant([])
        return self.node("Concat", *parts, spec=TensorSpec(DType.INT64, (len(values),)), axis=0)

    def reshape(self, x: Tensor, shape: Sequence[Dim]) -> Tensor:
        """`x` in another shape, with as few size computations as the expressions allow; `x` itself when it has it."""
        shape = tuple(shape)
        if shape == x.shape:
            return x
        target: list[int] = []
        unknown = 0
        # In ONNX, 0 keeps the input's size at that position, and one -1 takes what remains.
        for axis, size in enumerate(shape):
            if isinstance(size, int):
                target.append(size)
            elif axis < x.rank and x.shape[axis] == size:
                target.append(0)
            else:
                target.append(-1)
                unknown += 1
        spec = TensorSpec(x.dtype, shape)
        holds_zero = any(size == 0 for size in shape)
        if unknown <= 1 and not holds_zero and not (unknown and self.may_be_empty(x.shape)):
            return self.node("Reshape", x, self.constant(target), spec=spec)
        return self.node("Reshape", x, self.sizes(shape), spec=spec, allowzero=1 if self.may_be_empty(shape) else None)

    def transpose(self, x: Tensor, axes: Sequence[int]) -> Tensor:
        """`x` with its axes permuted; `x` itself for the identity."""
        axes = tuple(axes)
        if axes == tuple(range(x.rank)):
            return x
        spec = TensorSpec(x.dtype, tuple(x.shape[axis] for axis in axes))
        # A permutation of a permutation is one permutation; the first is dropped later if nothing else reads it.
        source, before = self._permuted.get(x.name, (x, tuple(range(x.rank))))
        result = self.node("Transpose", source, spec=spec, perm=[before[axis] for axis in axes])
        self._permuted[result.name] = (source, tuple(before[axis] for axis in axes))
        return result

    def cast(self, x: Tensor, dtype: DType) -> Tensor:
        """`x` in another dtype; `x` itself when it has it."""
        return x if x.dtype is dtype else self.node("Cast", x, spec=TensorSpec(dtype, x.shape), to=self.onnx_dtype(dtype))

    def onnx_dtype(self, dtype: DType) -> int:
        """ONNX's number for a dtype. Raises `UnsupportedError` for one that ONNX lacks."""
        dtype = BYTES.get(dtype, dtype)
        if dtype not in ONNX_DTYPES or dtype in CONVERTED and self.opset < 19:
            raise self.refuse(f"ONNX has no {dtype} tensors here")
        return ONNX_DTYPES[dtype]
