"""Faults to put into a model, by kind: what a converter may get wrong, as small as it can be got wrong.

Each kind is a function that lists its faults in a model: where, in words, and what gives the faulty model. A faulty model
is well-formed (`converter.opset.check` takes it); what no graph can hold is no fault here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from campaigns.fault_edits import (
    Subject,
    at,
    attributed,
    attributes_of,
    edited,
    fixed,
    nodes_of,
    passed_through,
    passed_through_output,
    rebuilt,
    same_model,
    values_of,
    with_array,
    with_operand,
    without_symbol,
)
from converter.errors import ConverterError
from converter.ir import DimRange, DType, Graph, Model, Node, TensorSpec
from converter.opset import lookup

Array = np.ndarray[Any, Any]
Random = np.random.Generator
Site = tuple[str, Callable[[], Model]]
"""Where and what, in words; and the faulty model, which raises `ConverterError` or `ValueError` where there is none."""


# Parameters ---------------------------------------------------------------------------------------------------------------


def tensors(subject: Subject, floats: bool = False) -> Iterator[tuple[str, TensorSpec]]:
    """Parameters that are not another's alias and not empty."""
    store = subject.model.parameters
    for name in store.names():
        spec = store.spec(name)
        if store.alias_of(name) is None and 0 not in spec.shape and (spec.dtype.is_float or not floats):
            yield name, spec


def elements(subject: Subject, random: Random, count: int, floats: bool = False) -> Iterator[tuple[str, TensorSpec, int]]:
    """`count` random elements of each parameter, the parameters taking turns."""
    found = list(tensors(subject, floats))
    for _ in range(count):
        for name, spec in found:
            size = int(np.prod([int(str(size)) for size in spec.shape], dtype=np.int64))
            yield name, spec, int(random.integers(size))


def one_bit(subject: Subject, random: Random) -> Iterator[Site]:
    """One bit of one weight, any bit from the lowest of the fraction to the sign."""
    for name, spec, place in elements(subject, random, 8):
        width = spec.dtype.itemsize * 8
        bit = 0 if spec.dtype is DType.BOOL else int(random.integers(width))

        def flip(values: Array, place: int = place, bit: int = bit) -> Array:
            raw = values.reshape(-1).view(np.uint8)
            raw[place * values.dtype.itemsize + bit // 8] ^= np.uint8(1 << bit % 8)
            return values

        yield f"bit {bit} of {name}[{place}]", lambda name=name, flip=flip: with_array(subject.model, name, flip)  # type: ignore[misc]


def one_weight(subject: Subject, random: Random) -> Iterator[Site]:
    """1e-3 added to one weight."""
    for name, _, place in elements(subject, random, 4, floats=True):
        def move(values: Array, place: int = place) -> Array:
            flat = values.reshape(-1)
            flat[place] = (flat[place].astype(np.float64) + 1e-3).astype(values.dtype)
            return values

        yield f"{name}[{place}] + 1e-3", lambda name=name, move=move: with_array(subject.model, name, move)  # type: ignore[misc]


def not_finite(subject: Subject, random: Random) -> Iterator[Site]:
    """A NaN in place of one weight, of one value of an output (its largest), or of one value in the graph."""
    for name, _, place in elements(subject, random, 1, floats=True):
        def spoil(values: Array, place: int = place) -> Array:
            values.reshape(-1)[place] = np.nan
            return values

        yield f"NaN in {name}[{place}]", lambda name=name, spoil=spoil: with_array(subject.model, name, spoil)  # type: ignore[misc]
    for value in values_of(subject):
        spec = subject.specs[value]
        if spec.dtype in (DType.FLOAT32, DType.FLOAT64):
            def steps(old: str, new: str) -> Sequence[Node]:
                return (Node("max", (old,), (f"{new}.max",), {"axis": None, "keepdims": False}),
                        Node("equal", (old, f"{new}.max"), (f"{new}.largest",)),
                        Node("where", (f"{new}.largest", float("nan"), old), (new,)))

            yield f"NaN for the largest of {value}", lambda value=value, steps=steps: passed_through(subject.model, value, steps)  # type: ignore[misc]


def swapped_axes(subject: Subject, random: Random) -> Iterator[Site]:
    """Two equal-sized axes of a tensor exchanged: of a parameter of three axes or more, or of a value in the graph."""
    for name, spec in tensors(subject):
        if spec.rank > 2:
            for first, second in equal_axes(spec):
                yield f"axes {first} and {second} of {name}", lambda name=name, first=first, second=second: \
                    with_array(subject.model, name, lambda values: np.swapaxes(values, first, second))  # type: ignore[misc]
    for value in values_of(subject):
        spec = subject.specs[value]
        for first, second in equal_axes(spec):
            order = list(range(spec.rank))
            order[first], order[second] = second, first

            def steps(old: str, new: str, order: tuple[int, ...] = tuple(order)) -> Sequence[Node]:
                return (Node("permute_dims", (old,), (new,), {"axes": order}),)

            yield f"axes {first} and {second} of {value}", lambda value=value, steps=steps: passed_through(subject.model, value, steps)  # type: ignore[misc]


def transposed(subject: Subject, random: Random) -> Iterator[Site]:
    """A square weight transposed."""
    for name, spec in tensors(subject):
        if spec.rank == 2 and equal_axes(spec):
            yield name, lambda name=name: with_array(subject.model, name, np.transpose)  # type: ignore[misc]


def equal_axes(spec: TensorSpec) -> list[tuple[int, int]]:
    """Pairs of axes of one size, other than 1."""
    return [(first, second) for first in range(spec.rank) for second in range(first + 1, spec.rank)
            if spec.shape[first] == spec.shape[second] != 1]


def dropped_bias(subject: Subject, random: Random) -> Iterator[Site]:
    """A bias left out: of a layer, of a recurrent layer (zeros), or added by a node of its own."""
    for index, node in nodes_of(subject):
        operands = [spec.name for spec in lookup(node.op).operands]
        place = operands.index("bias") if "bias" in operands else len(node.inputs)
        if place < len(node.inputs) and node.inputs[place] is not None:
            kept = tuple(None if position == place else operand for position, operand in enumerate(node.inputs))
            while kept and kept[-1] is None:
                kept = kept[:-1]
            yield at(index, node), lambda index=index, kept=kept: edited(subject.model, index, inputs=kept)  # type: ignore[misc]
        if node.op in RECURRENT and attributes_of(node)["bias"]:
            for name in node.names[1:]:
                if name in subject.model.parameters and subject.specs[name].rank == 1:
                    yield f"{at(index, node)}, {name}", lambda name=name: with_array(subject.model, name, np.zeros_like)  # type: ignore[misc]
        if node.op == "add" and len(node.names) == 2:
            for bias, kept_name in (node.names, node.names[::-1]):
                if bias in subject.model.parameters and subject.specs[bias].rank == 1 \
                        and subject.specs[kept_name].rank > 1:
                    yield at(index, node), lambda bias=bias: with_array(subject.model, bias, np.zeros_like)  # type: ignore[misc]


RECURRENT = {"lstm": 4, "gru": 3, "rnn": 1}
GATE_ORDERS = {4: ((0, 2, 1, 3), (0, 1, 3, 2), (0, 3, 1, 2), (2, 1, 0, 3), (3, 1, 2, 0)), 3: ((1, 0, 2), (0, 2, 1), (2, 1, 0))}
"""Among them ONNX's and Keras' orders of i, f, g, o and of r, z, n."""


def permuted_gates(subject: Subject, random: Random) -> Iterator[Site]:
    """The gates of a recurrent layer in another order: in all its tensors at once, as another convention has them, or in one."""
    for index, node in nodes_of(subject, "lstm", "gru"):
        count = RECURRENT[node.op]
        names = [name for name in node.names[1:] if name in subject.model.parameters and "weight_hr" not in name
                 and subject.specs[name].shape[0] % count == 0 and subject.specs[name].rank <= 2]
        for order in GATE_ORDERS[count]:
            def permute(values: Array, order: tuple[int, ...] = order) -> Array:
                return np.concatenate([np.split(values, len(order))[gate] for gate in order])

            def whole(names: list[str] = names, permute: Callable[[Array], Array] = permute) -> Model:
                model = subject.model
                for name in dict.fromkeys(names):
                    model = with_array(model, name, permute)
                return model

            yield f"{at(index, node)}, order {order}", whole
            for name in names:
                yield f"{at(index, node)}, {name} alone, order {order}", \
                    lambda name=name, permute=permute: with_array(subject.model, name, permute)  # type: ignore[misc]


# Nodes --------------------------------------------------------------------------------------------------------------------


def changed_epsilon(subject: Subject, random: Random) -> Iterator[Site]:
    """An epsilon ten times as large, or a tenth."""
    for index, node in nodes_of(subject):
        eps = attributes_of(node).get("eps")
        for factor in (10.0, 0.1):
            if eps:
                yield f"{at(index, node)}, eps {eps:g} times {factor:g}", \
                    lambda index=index, eps=eps, factor=factor: attributed(subject.model, index, eps=eps * factor)  # type: ignore[misc]
            for place, operand in enumerate(node.inputs):
                if type(operand) is float and 0 < abs(operand) <= 1e-3:
                    yield f"{at(index, node)}, {operand:g} times {factor:g}", \
                        lambda index=index, place=place, value=operand * factor: with_operand(subject.model, index, place, value)  # type: ignore[misc]


MOVES = {"moved to the front": (1, -1), "moved to the back": (-1, 1), "one more": (1, 1), "one less": (-1, -1)}


def shifted_padding(subject: Subject, random: Random) -> Iterator[Site]:
    """A padding that is off by one: moved from one side to the other, one more, or one less."""
    for index, node in nodes_of(subject):
        attributes = attributes_of(node)
        if node.op == "pad":
            pads = attributes["pads"]
            for axis, (before, after) in enumerate(pads):
                for change in ((1, -1), (-1, 1), (1, 0), (0, -1)):
                    moved = (*pads[:axis], (before + change[0], after + change[1]), *pads[axis + 1:])
                    yield f"{at(index, node)}, {change} on axis {axis}", \
                        lambda index=index, moved=moved: attributed(subject.model, index, pads=moved)  # type: ignore[misc]
        elif isinstance(attributes.get("padding"), tuple):
            axes = spatial_axes(subject, node, attributes)
            given = attributes["padding"] or (0,) * axes
            both = given if len(given) == 2 * axes else given * 2
            for axis in range(axes):
                for text, change in MOVES.items():
                    sides = list(both)
                    sides[axis] += change[0]
                    sides[axis + axes] += change[1]
                    if min(sides) >= 0:
                        padding = tuple(sides[:axes] if sides[:axes] == sides[axes:] else sides)
                        yield f"{at(index, node)}, axis {axis}, {text}", \
                            lambda index=index, padding=padding: attributed(subject.model, index, padding=padding)  # type: ignore[misc]


def spatial_axes(subject: Subject, node: Node, attributes: Mapping[str, Any]) -> int:
    for name in ("kernel", "kernel_size"):
        if name in attributes:
            return len(attributes[name])
    return subject.specs[str(node.inputs[1])].rank - 2


KINDRED = {"silu": ("hardswish", "gelu"), "hardswish": ("silu",), "relu": ("gelu", "softplus"), "sigmoid": ("hardsigmoid",),
           "hardsigmoid": ("sigmoid",), "mish": ("silu",), "elu": ("selu", "celu"), "selu": ("elu",), "softplus": ("relu",),
           "leaky_relu": ("relu",), "log_softmax": ("softmax",), "softmax": ("log_softmax",), "floor": ("trunc",), "trunc": ("floor",),
           "round": ("floor",), "maximum": ("minimum",), "minimum": ("maximum",), "argmax": ("argmin",), "remainder": ("fmod",),
           "fmod": ("remainder",), "mean": ("sum",), "sum": ("mean",), "cummax": ("cummin",), "tril": ("triu",), "triu": ("tril",),
           "less": ("less_equal",), "less_equal": ("less",), "greater": ("greater_equal",), "greater_equal": ("greater",),
           "std": ("var",), "var": ("std",), "expm1": ("exp",), "log1p": ("log",), "log2": ("log",), "log10": ("log",), "any": ("all",),
           "tanh": ("hardtanh",), "fmax": ("maximum",), "square": ("abs",)}


def other_gelu(subject: Subject, random: Random) -> Iterator[Site]:
    """The GELU of the other kind: by the error function, or by tanh."""
    for index, node in nodes_of(subject, "gelu"):
        other = "none" if attributes_of(node).get("approximate") == "tanh" else "tanh"
        yield at(index, node), lambda index=index, other=other: attributed(subject.model, index, approximate=other)  # type: ignore[misc]


def kindred_operator(subject: Subject, random: Random) -> Iterator[Site]:
    """An operator in place of one that is nearly the same."""
    for index, node in nodes_of(subject):
        for other in KINDRED.get(node.op, ()):
            kept = {name: value for name, value in node.attributes.items() if name in lookup(other).attributes}
            yield f"{at(index, node)} as {other}", \
                lambda index=index, other=other, kept=kept: edited(subject.model, index, op=other, attributes=kept)  # type: ignore[misc]


SOFTMAX = ("softmax", "log_softmax", "safe_softmax")


def other_softmax_axis(subject: Subject, random: Random) -> Iterator[Site]:
    """A softmax along another axis."""
    for index, node in nodes_of(subject, *SOFTMAX):
        yield from other_axes(subject, index, node)


def other_axis(subject: Subject, random: Random) -> Iterator[Site]:
    """A reduction, a sort, a join along another axis."""
    for index, node in nodes_of(subject):
        if node.op not in SOFTMAX:
            yield from other_axes(subject, index, node)


def other_axes(subject: Subject, index: int, node: Node) -> Iterator[Site]:
    attributes = attributes_of(node)
    axis = attributes.get("axis")
    if not node.names or not isinstance(axis, (int, tuple)) or not axis and isinstance(axis, tuple):
        return
    rank = subject.specs[node.names[0]].rank
    for other in range(rank):
        if isinstance(axis, int):
            changed: Any = other
            same = other == axis % rank
        else:
            if not isinstance(axis[0], int):
                return
            changed = (other, *axis[1:])
            same = other in {item % rank for item in axis}
        if not same:
            yield f"{at(index, node)}, axis {changed} for {axis}", \
                lambda index=index, changed=changed: attributed(subject.model, index, axis=changed)  # type: ignore[misc]


def flipped_flag(subject: Subject, random: Random) -> Iterator[Site]:
    """A boolean attribute the other way (align_corners, is_causal, descending, …)."""
    for index, node in nodes_of(subject):
        for name, value in attributes_of(node).items():
            if isinstance(value, bool) and name != "bias":
                yield f"{at(index, node)}, {name}", \
                    lambda index=index, name=name, value=value: attributed(subject.model, index, **{name: not value})  # type: ignore[misc]


def other_number(subject: Subject, random: Random) -> Iterator[Site]:
    """A number in the graph a thousandth larger: a scale, a slope, an exponent."""
    for index, node in nodes_of(subject):
        for place, operand in enumerate(node.inputs):
            if type(operand) is float and np.isfinite(operand) and operand:
                yield f"{at(index, node)}, operand {place}", \
                    lambda index=index, place=place, value=operand * 1.001: with_operand(subject.model, index, place, value)  # type: ignore[misc]
        for name, value in attributes_of(node).items():
            if type(value) is float and name != "eps" and np.isfinite(value) and value:
                yield f"{at(index, node)}, {name}", \
                    lambda index=index, name=name, value=value * 1.001: attributed(subject.model, index, **{name: value})  # type: ignore[misc]


ORDERED = ("subtract", "divide", "power", "matmul", "remainder", "fmod", "floor_divide", "atan2", "less", "greater", "less_equal",
           "greater_equal", "copysign", "where", "lerp", "cross", "concat", "stack", "scaled_dot_product_attention", "heaviside", "xlogy")


def swapped_operands(subject: Subject, random: Random) -> Iterator[Site]:
    """The last two operands of a node exchanged: a - b for b - a, key for value, one joined before the other."""
    for index, node in nodes_of(subject, *ORDERED):
        if len(node.inputs) > 1 and node.inputs[-1] != node.inputs[-2]:
            swapped = (*node.inputs[:-2], node.inputs[-1], node.inputs[-2])
            yield at(index, node), lambda index=index, swapped=swapped: edited(subject.model, index, inputs=swapped)  # type: ignore[misc]


# What the model promises --------------------------------------------------------------------------------------------------


def dropped_output(subject: Subject, random: Random) -> Iterator[Site]:
    """One of several outputs left out."""
    ports = subject.model.graph.outputs
    for index, port in enumerate(ports if len(ports) > 1 else ()):
        yield port.name, lambda index=index: rebuilt(subject.model, subject.model.graph.nodes, [*ports[:index], *ports[index + 1:]])  # type: ignore[misc]


def reordered_outputs(subject: Subject, random: Random) -> Iterator[Site]:
    """Two outputs exchanged: their places, names going with them, or their values under the names."""
    ports = list(subject.model.graph.outputs)
    for first in range(len(ports) - 1):
        moved = list(ports)
        moved[first], moved[first + 1] = moved[first + 1], moved[first]
        yield f"places {first} and {first + 1}", lambda moved=moved: rebuilt(subject.model, subject.model.graph.nodes, moved)  # type: ignore[misc]
        named = list(ports)
        named[first] = replace(ports[first], value=ports[first + 1].value)
        named[first + 1] = replace(ports[first + 1], value=ports[first].value)
        yield f"values of {ports[first].name} and {ports[first + 1].name}", \
            lambda named=named: rebuilt(subject.model, subject.model.graph.nodes, named)  # type: ignore[misc]


def frozen_size(subject: Subject, random: Random) -> Iterator[Site]:
    """A free size fixed to what it was in the trace: where a node names it, in the inputs, or in the range."""
    graph = subject.model.graph
    for index, node in enumerate(graph.nodes):
        for name, value in attributes_of(node).items():
            frozen = fixed(value, subject.sizes)
            if not isinstance(value, Graph) and frozen != value:
                yield f"{at(index, node)}, {name} {value} as {frozen}", \
                    lambda index=index, name=name, frozen=frozen: attributed(subject.model, index, **{name: frozen})  # type: ignore[misc]
    for name in graph.dims:
        if name in subject.sizes:
            yield f"{name} fixed in the inputs", lambda name=name: without_symbol(subject.model, {name: subject.sizes[name]})  # type: ignore[misc]
            size = subject.sizes[name]
            dims = {**graph.dims, name: DimRange(size, size)}
            yield f"{name} from {size} to {size}", lambda dims=dims: replace(subject.model, graph=replace(graph, dims=dims))  # type: ignore[misc]


def other_dtype(subject: Subject, random: Random) -> Iterator[Site]:
    """A value through a smaller dtype and back, or an output in another dtype."""
    for value in values_of(subject):
        dtype = subject.specs[value].dtype
        for smaller in SMALLER.get(dtype, ()):
            def steps(old: str, new: str, smaller: DType = smaller, dtype: DType = dtype) -> Sequence[Node]:
                return (Node("astype", (old,), (f"{new}.small",), {"dtype": smaller}),
                        Node("astype", (f"{new}.small",), (new,), {"dtype": dtype}))

            yield f"{value} through {smaller}", lambda value=value, steps=steps: passed_through(subject.model, value, steps)  # type: ignore[misc]
    for port in subject.model.graph.outputs:
        for other in OTHER.get(port.spec.dtype, ()):
            def cast(old: str, new: str, other: DType = other) -> Sequence[Node]:
                return (Node("astype", (old,), (new,), {"dtype": other}),)

            yield f"output {port.name} as {other}", lambda port=port, cast=cast: passed_through_output(subject.model, port, cast)  # type: ignore[misc]


SMALLER = {DType.FLOAT32: (DType.BFLOAT16, DType.FLOAT16), DType.FLOAT64: (DType.FLOAT32,), DType.INT64: (DType.INT8,)}
OTHER = {DType.FLOAT32: (DType.FLOAT64, DType.FLOAT16), DType.FLOAT64: (DType.FLOAT32,), DType.INT64: (DType.INT32, DType.FLOAT32),
         DType.BOOL: (DType.UINT8,)}


KINDS: Mapping[str, Callable[[Subject, Random], Iterator[Site]]] = {
    "one bit of a weight": one_bit, "a weight by 1e-3": one_weight, "equal axes swapped": swapped_axes,
    "square weight transposed": transposed, "bias dropped": dropped_bias, "gates permuted": permuted_gates,
    "epsilon": changed_epsilon, "padding off by one": shifted_padding, "the other GELU": other_gelu,
    "softmax axis": other_softmax_axis, "output dropped": dropped_output, "outputs reordered": reordered_outputs,
    "NaN inserted": not_finite, "size frozen": frozen_size, "dtype changed": other_dtype, "another axis": other_axis,
    "operands swapped": swapped_operands, "flag flipped": flipped_flag, "number by a thousandth": other_number,
    "kindred operator": kindred_operator,
}


def faults(subject: Subject, kind: str, random: Random, count: int) -> Iterator[tuple[str, Model]]:
    """Up to `count` faults of a kind, drawn from all its places: (what, the faulty model)."""
    sites = list(KINDS[kind](subject, random))
    for place in random.permutation(len(sites)):
        if count <= 0:
            return
        what, build = sites[place]
        try:
            model = build()
        except (ConverterError, ValueError, OverflowError):
            continue  # no graph can hold it
        if not same_model(subject.model, model):
            count -= 1
            yield what, model
