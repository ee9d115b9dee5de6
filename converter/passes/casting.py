"""A model in another float dtype: its graph's dtypes, literal numbers and attributes, and its parameters as they are read.

The dtypes that are cast are those of the model's own floats, its parameters and inputs. A float dtype that only stands
in attributes, where a model computes a softmax in float32 and the rest in bfloat16, is the model's choice and stays.

What depends on no parameter of the checkpoint and on no input of floats stays too: positions, rotary angles, masks,
computed from sizes, integers and constants. Positions beyond 256 have no bfloat16, and models that are made in that dtype
compute these in float32. Such a value is cast where it meets one of the model's dtype.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

import ml_dtypes
import numpy as np

from converter.checking import check, infer_node
from converter.errors import ConverterError, ParameterError, UnsupportedError
from converter.ir import Array, DType, Graph, GraphInput, GraphOutput, Model, Node, TensorSpec
from converter.parameters import ParameterStore, ParameterView, places_in

TARGETS = (DType.FLOAT16, DType.BFLOAT16, DType.FLOAT32)
SOURCES = (DType.FLOAT16, DType.BFLOAT16, DType.FLOAT32, DType.FLOAT64)
"""What is cast. Quantized values (the float8 kinds) and complex ones are not."""

EXACT = {DType.FLOAT16: (DType.FLOAT32, DType.FLOAT64), DType.BFLOAT16: (DType.FLOAT32, DType.FLOAT64), DType.FLOAT32: (DType.FLOAT64,)}
"""The dtypes that hold every value of one."""

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
    held = ({store.spec(name).dtype for name in store.names() if name not in model.constants}
            | {port.spec.dtype for port in model.graph.inputs})
    dtypes = {source: target for source in SOURCES if source in held and source is not target}
    if not dtypes:
        return model
    place = f"cast to {target}"
    casting = _Casting(dtypes)
    try:
        graph, kept = casting.model(model.graph, store, model.constants)
    except ConverterError as error:
        raise error.within(place) from error
    refused = casting.refused
    if refused:
        raise UnsupportedError("numbers in the graph that the dtype cannot hold", where=place, items=refused,
                               fix="choose bfloat16, whose range is that of float32, or leave the dtype as it is")
    parameters = CastParameters(store, dtypes, kept)
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


class CastParameters(ParameterView):
    """A store whose tensors of the dtypes in `dtypes` are read as the dtype that it gives for them, rounded to nearest.

    Those named in `kept`, and all that share their memory, are read as they are.
    """

    def __init__(self, store: ParameterStore, dtypes: Dtypes, kept: Collection[str] = ()) -> None:
        super().__init__(places_in(store), store.notes, store.key)
        self._dtypes = dict(dtypes)
        self._kept = {store.alias_of(name) or name for name in kept}

    def spec(self, name: str) -> TensorSpec:
        spec, target = super().spec(name), self._target(name)
        return spec if target is None else TensorSpec(target, spec.shape)

    def _target(self, name: str) -> DType | None:
        """The dtype that a tensor is cast to, None where it stays."""
        kept = (self.alias_of(name) or name) in self._kept
        return None if kept else self._dtypes.get(super().spec(name).dtype)

    def changed(self, name: str) -> bool:
        return self._target(name) is not None

    def made(self, name: str) -> Array:
        values, target = self.stored(name), self._target(name)
        assert target is not None
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
        return result


class FittedParameters(CastParameters):
    """A store whose tensors are read in the dtypes that `targets` gives for their names; others as they are."""

    def __init__(self, store: ParameterStore, targets: Mapping[str, DType]) -> None:
        super().__init__(store, {})
        self._targets = dict(targets)

    def _target(self, name: str) -> DType | None:
        return self._targets.get(name) or self._targets.get(self.alias_of(name) or name)


def fit_dtypes(store: ParameterStore, specs: Mapping[str, TensorSpec], *,
               narrow: bool = False) -> tuple[ParameterStore, tuple[str, ...]]:
    """The store with its floats in the dtypes of `specs`, and a note where any is cast.

    Only where every cast is exact, to a dtype that holds all values of the file's (float16 and bfloat16 as float32), unless
    `narrow` says that rounding is wanted.
    """
    differ = {name: (held, specs[name].dtype) for name in store.names() if name in specs
              and (held := store.spec(name).dtype) is not specs[name].dtype and held in SOURCES and specs[name].dtype in SOURCES}
    if not differ or not narrow and any(target not in EXACT.get(held, ()) for held, target in differ.values()):
        return store, ()
    pairs = ", ".join(sorted({f"{held} as {target}" for held, target in differ.values()}))
    exact = ", which holds each value" * all(target in EXACT.get(held, ()) for held, target in differ.values())
    note = f"{len(differ)} tensor{'s' * (len(differ) > 1)} taken in the dtype that is asked for: {pairs}{exact}"
    return FittedParameters(store, {name: target for name, (_, target) in differ.items()}), (note,)


def _largest(dtype: DType) -> float:
    """The largest finite number of a dtype."""
    return float(ml_dtypes.finfo(dtype.numpy).max)


# Graphs ------------------------------------------------------------------------------------------------------------------


def _spec(spec: TensorSpec, dtypes: Dtypes) -> TensorSpec:
    return TensorSpec(dtypes.get(spec.dtype, spec.dtype), spec.shape)


class _Casting:
    """One cast of a model: which values follow the model's dtype, and which stay as they are."""

    def __init__(self, dtypes: Dtypes) -> None:
        self.dtypes = dtypes
        self.refused: list[dict[str, object]] = []

    def model(self, graph: Graph, store: ParameterStore, constants: Collection[str]) -> tuple[Graph, frozenset[str]]:
        """The graph cast, and the constants that stay: those that something computes on which stays itself."""
        specs = self._specs(graph, {name: store.spec(name) for name in store.names()})
        floats = {name for name in constants if specs[name].dtype in self.dtypes}
        weights = {name for name in store.names() if name not in constants}
        follows = self._following(graph, specs, weights)
        kept = floats & {name for node in graph.nodes if not _any(node, follows) for name in node.names}
        return self._rewritten(graph, specs, follows | (floats - kept)), frozenset(kept)

    def _body(self, graph: Graph) -> Graph:
        """A graph within a node that is cast: all that it is given follows."""
        specs = self._specs(graph, {})
        return self._rewritten(graph, specs, self._following(graph, specs, ()))

    def _specs(self, graph: Graph, outside: Mapping[str, TensorSpec]) -> dict[str, TensorSpec]:
        """Every value's spec, as the graph was."""
        specs = {**outside, **{port.name: port.spec for port in graph.inputs}}
        for node in graph.nodes:
            specs.update({name: spec for name, spec in zip(node.outputs, infer_node(node, specs), strict=False) if name is not None})
        return specs

    def _following(self, graph: Graph, specs: Mapping[str, TensorSpec], roots: Collection[str]) -> set[str]:
        """The floats that are computed from `roots` and from the graph's inputs, not by way of integers; these roots among them."""
        follows = {name for name in (*roots, *(port.name for port in graph.inputs)) if _counts(specs[name])}
        for node in graph.nodes:
            if _any(node, follows) or self._enters(node, specs):
                follows |= {name for name in node.outputs if name is not None and _counts(specs[name])}
        # One number that only meets these is made in their dtype.
        apart = {name for node in graph.nodes if not _any(node, follows) for name in node.names}
        follows |= {name for node in graph.nodes if node.op == "full" and isinstance(node.attributes.get("fill_value"), (bool, int, float))
                    for name in node.outputs if name is not None and name not in apart and _counts(specs[name])}
        return follows

    def _enters(self, node: Node, specs: Mapping[str, TensorSpec]) -> bool:
        """Whether a node is the model's own cast of a float of another dtype to its dtype."""
        (source, *_) = (*node.names, None)
        return (node.op == "astype" and source is not None and specs[source].dtype.is_float and specs[source].dtype not in self.dtypes
                and node.attributes.get("dtype") in self.dtypes)

    def _rewritten(self, graph: Graph, specs: Mapping[str, TensorSpec], follows: Collection[str]) -> Graph:
        """The graph with what follows cast, and a cast wherever what stays meets it."""
        taken = set(specs)
        nodes: list[Node] = []
        casts: dict[str, str] = {}

        def border(name: str) -> str:
            target = self.dtypes.get(specs[name].dtype)
            if target is None or name in follows:
                return name
            if name not in casts:
                casts[name] = _free(f"{name}_{target}", taken)
                nodes.append(Node("astype", (name,), (casts[name],), {"dtype": target}))
            return casts[name]

        for node in graph.nodes:
            if _any(node, follows) or any(name in follows for name in node.outputs if name is not None):
                inputs = tuple(border(item) if isinstance(item, str) else item for item in node.inputs)
                nodes.append(self._node(replace(node, inputs=inputs), self.dtypes))
            else:
                # Its numbers go where they are cast: the largest of a dtype becomes that of the other here too.
                nodes.append(self._node(node, {}))
        outputs = tuple(GraphOutput(out.name, _spec(out.spec, self.dtypes), border(out.value)) for out in graph.outputs)
        ports = tuple(GraphInput(port.name, _spec(port.spec, self.dtypes)) for port in graph.inputs)
        return replace(graph, inputs=ports, outputs=outputs, nodes=tuple(nodes))

    def _node(self, node: Node, dtypes: Dtypes) -> Node:
        def value(item: Any) -> Any:
            if isinstance(item, DType):
                return dtypes.get(item, item)
            if isinstance(item, Graph):
                return self._body(item) if dtypes else item
            if isinstance(item, (tuple, list)):
                return tuple(map(value, item))
            if isinstance(item, float):
                return number(item)
            return item

        def number(item: float) -> float:
            found = _number(item, self.dtypes)
            if found is None:
                self.refused.append({"operator": node.op, "reason": f"the number {item}", "source": node.source})
                return item
            return found

        return replace(node, inputs=tuple(number(item) if isinstance(item, float) else item for item in node.inputs),
                       attributes={name: value(item) for name, item in node.attributes.items()})


def _any(node: Node, names: Collection[str]) -> bool:
    return any(name in names for name in node.names)


def _counts(spec: TensorSpec) -> bool:
    """Whether a value can have the model's dtype: integers and truth values cannot."""
    return spec.dtype.is_float or spec.dtype.is_complex


def _free(name: str, taken: set[str]) -> str:
    """A name that is not taken, which then is."""
    found, count = name, 1
    while found in taken:
        found, count = f"{name}_{count}", count + 1
    taken.add(found)
    return found


def _number(value: float, dtypes: Dtypes) -> float | None:
    """A literal for the new dtype: the largest number of a dtype becomes that of the other. None: it has no such number."""
    if not math.isfinite(value):
        return value
    (target,) = set(dtypes.values())
    largest = _largest(target)
    if any(abs(value) == _largest(source) for source in dtypes):
        return math.copysign(largest, value)
    return value if abs(value) <= largest else None
