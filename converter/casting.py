"""A model in another float dtype: its graph's dtypes, literal numbers and attributes, and its parameters as they are read.

The dtypes that are cast are those of the model's own floats, its parameters and inputs. A float dtype that only stands
in attributes, where a model computes a softmax in float32 and the rest in bfloat16, is the model's choice and stays.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import ml_dtypes
import numpy as np

from converter.checking import check
from converter.errors import ConverterError, ParameterError, UnsupportedError
from converter.ir import DType, Graph, GraphInput, GraphOutput, Model, Node, TensorSpec
from converter.parameters import Array, ParameterStore

TARGETS = (DType.FLOAT16, DType.BFLOAT16, DType.FLOAT32)
SOURCES = (DType.FLOAT16, DType.BFLOAT16, DType.FLOAT32, DType.FLOAT64)
"""What is cast. Quantized values (the float8 kinds) and complex ones are not."""

CHUNK = 1 << 22

Dtypes = Mapping[DType, DType]


def cast(model: Model, dtype: str | DType) -> Model:
    """The model with its floats in another dtype, its parameters cast as they are read.

    Recorded examples are left out: they are of the model as it was. `metadata["cast"]` says what was done.

    Args:
        model: the model.
        dtype: `float16`, `bfloat16` or `float32`.

    Raises:
        ConverterError: another dtype.
        GraphError: an operator that does not take the dtype, or takes no operands of two dtypes.
        UnsupportedError: literal numbers outside of the dtype's range; all are listed.
        ParameterError: when a parameter is read that holds finite values outside of the range.
    """
    target = _target(dtype)
    store = model.parameters
    held = {store.spec(name).dtype for name in store.names()} | {port.spec.dtype for port in model.graph.inputs}
    dtypes = {source: target for source in SOURCES if source in held and source is not target}
    if not dtypes:
        return model
    refused: list[dict[str, object]] = []
    graph = _graph(model.graph, dtypes, refused)
    place = f"cast to {target}"
    if refused:
        raise UnsupportedError("numbers in the graph that the dtype cannot hold", where=place, items=refused,
                               fix="choose bfloat16, whose range is that of float32, or leave the dtype as it is")
    parameters = CastParameters(store, dtypes)
    try:
        check(graph, parameters)
    except ConverterError as error:
        raise error.within(place) from error
    metadata = {**model.metadata, "cast": {"from": sorted(map(str, dtypes)), "to": str(target)}}
    return replace(model, graph=graph, parameters=parameters, examples=(), metadata=metadata)


def cast_parameters(store: ParameterStore, dtype: str | DType) -> ParameterStore:
    """The store with its floats in another dtype. Raises `ParameterError` as `cast` does, when a tensor is read."""
    target = _target(dtype)
    return CastParameters(store, {source: target for source in SOURCES if source is not target})


def _target(dtype: str | DType) -> DType:
    found = DType.of(dtype)
    if found not in TARGETS:
        raise ConverterError("models are not cast to this dtype", expected=", ".join(map(str, TARGETS)), received=str(found))
    return found


class CastParameters(ParameterStore):
    """A store whose tensors of the dtypes in `dtypes` are read as the dtype that it gives for them, rounded to nearest."""

    def __init__(self, store: ParameterStore, dtypes: Dtypes) -> None:
        self._store, self._dtypes = store, dict(dtypes)
        self.key = getattr(store, "key", None)

    def names(self) -> tuple[str, ...]:
        return self._store.names()

    def __contains__(self, name: object) -> bool:
        return name in self._store

    def alias_of(self, name: str) -> str | None:
        return self._store.alias_of(name)

    def spec(self, name: str) -> TensorSpec:
        return _spec(self._store.spec(name), self._dtypes)

    def sha256(self, name: str) -> str:
        name = self.alias_of(name) or name
        return super().sha256(name) if self._store.spec(name).dtype in self._dtypes else self._store.sha256(name)

    def read(self, name: str) -> Array:
        values = self._store.read(name)
        target = self._dtypes.get(DType.of(values.dtype))
        if target is None:
            return values
        result = np.empty(values.shape, target.numpy)
        source, out = values.reshape(-1), result.reshape(-1)
        for start in range(0, source.size, CHUNK):
            piece, made = source[start:start + CHUNK], out[start:start + CHUNK]
            with np.errstate(all="ignore"):
                made[:] = piece.astype(target.numpy)
                lost = np.isinf(made) & np.isfinite(piece)
            if lost.any():
                raise ParameterError(f"a value is outside the range of {target}", where=f"parameter {name!r}",
                                     received=str(piece[int(np.argmax(lost))]), expected=f"at most {_largest(target)}",
                                     fix="choose bfloat16, whose range is that of float32, or leave the dtype as it is")
        result.flags.writeable = False
        return result


def _largest(dtype: DType) -> float:
    """The largest finite number of a dtype."""
    return float(ml_dtypes.finfo(dtype.numpy).max)  # type: ignore[no-untyped-call]


# Graphs ------------------------------------------------------------------------------------------------------------------


def _spec(spec: TensorSpec, dtypes: Dtypes) -> TensorSpec:
    return TensorSpec(dtypes.get(spec.dtype, spec.dtype), spec.shape)


def _graph(graph: Graph, dtypes: Dtypes, refused: list[dict[str, object]]) -> Graph:
    return replace(
        graph,
        inputs=tuple(GraphInput(port.name, _spec(port.spec, dtypes)) for port in graph.inputs),
        outputs=tuple(GraphOutput(out.name, _spec(out.spec, dtypes), out.value) for out in graph.outputs),
        nodes=tuple(_node(node, dtypes, refused) for node in graph.nodes))


def _node(node: Node, dtypes: Dtypes, refused: list[dict[str, object]]) -> Node:
    def value(item: Any) -> Any:
        if isinstance(item, DType):
            return dtypes.get(item, item)
        if isinstance(item, Graph):
            return _graph(item, dtypes, refused)
        if isinstance(item, (tuple, list)):
            return tuple(map(value, item))
        if isinstance(item, float):
            return number(item)
        return item

    def number(item: float) -> float:
        found = _number(item, dtypes)
        if found is None:
            refused.append({"operator": node.op, "reason": f"the number {item}", "source": node.source})
            return item
        return found

    return replace(node, inputs=tuple(number(item) if isinstance(item, float) else item for item in node.inputs),
                   attributes={name: value(item) for name, item in node.attributes.items()})


def _number(value: float, dtypes: Dtypes) -> float | None:
    """A literal for the new dtype: the largest number of a dtype becomes that of the other. None: it has no such number."""
    if not math.isfinite(value):
        return value
    (target,) = set(dtypes.values())
    largest = _largest(target)
    if any(abs(value) == _largest(source) for source in dtypes):
        return math.copysign(largest, value)
    return value if abs(value) <= largest else None
