"""A model as a program: its graph lowered, its memory planned, its function's arguments named."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from adapters.c.fusion import Pending, store
from adapters.c.lowering import Lowering, in_known_operators
from adapters.c.names import cleaned
from adapters.c.planning import plan
from adapters.c.source import Port, Program
from adapters.c.types import ctype, spec_in_memory
from adapters.c.views import Buffer, View, row_major
from adapters.c.writer import BAD_SIZE, Writer
from converter.checking import bound_sizes, check
from converter.dims import Dim, Expr, product, substitute, symbol, symbols
from converter.errors import ConverterError, UnsupportedError
from converter.ir import DimRange, Graph, Model, TensorSpec
from converter.parameters import ParameterStore
from converter.passes.folding import fold_layers
from converter.ports.refusals import Refusals

WHOLE = 1 << 31
"""Elements: more would not be counted by the offsets of a small machine."""


def program_of(model: Model, most: Mapping[str, int] | None = None, name: str | None = None) -> Program:
    """The program.

    Args:
        model: any; operators without a lowering are put in terms of those that have one.
        most: the largest size of each free axis.

    Raises:
        UnsupportedError: what C lacks, all of it; or a free size without a maximum.
    """
    model = fold_layers(model)
    graph = in_known_operators(model.graph, model.parameters)
    stated = dict(most or {})
    refuse_maxima(graph, stated)
    limits = _limits(graph, stated)
    specs = check(graph, model.parameters)
    _refuse_dtypes(graph)
    g = Writer(stated=stated)
    own = g.names.fresh(name or _snake(graph.name))
    sizes: dict[str, Dim] = {item: low if low == high else symbol(item) for item, (low, high) in limits.items()}
    inputs = {port.name: _whole(g, port.name, port.spec, sizes, "input") for port in graph.inputs}
    outputs = [_whole(g, port.name, port.spec, sizes, "output").buffer for port in graph.outputs]
    ports = _pointers(graph, [view.buffer for view in inputs.values()], outputs)
    arguments = [item for item, size in sizes.items() if isinstance(size, Expr)]
    ports += [_size_argument(g, item, *limits[item]) for item in arguments]
    checks = _checks(g, graph, sizes, arguments, inputs)
    refusals = Refusals()
    constants = _constants(g, graph, model.parameters, refusals)
    lowering = Lowering(g, refusals)
    lowering.kept = frozenset(id(value) for item, value in constants.items() if graph.uses[item] > 1)
    results = lowering.run(graph, {**inputs, **constants}, specs, sizes)
    if refusals:
        raise refused(refusals)
    _give(g, results, outputs, graph, sizes)
    told, finals = _told(g, graph, sizes)
    found = plan(g)
    return Program(
        own,
        f"{graph.name}, written by model-converter",
        g,
        found,
        [*ports, *told],
        checks,
        finals,
        arguments,
        {item: high for item, (_, high) in limits.items()},
        maxima=_maxima(g, own.upper(), [*(view.buffer for view in inputs.values()), *outputs], arguments),
    )


def _limits(graph: Graph, stated: Mapping[str, int]) -> dict[str, tuple[int, int]]:
    """The least and the largest size of each free axis. Raises `UnsupportedError` for those without a largest."""
    free = dict.fromkeys(size.symbol for port in graph.inputs for size in port.spec.shape if isinstance(size, Expr) and size.symbol)
    ranges = {item: graph.dims.get(item, DimRange(0)) for item in free}
    missing = [item for item in free if item not in stated and ranges[item].max is None]
    if missing:
        raise UnsupportedError(
            f"nothing says how large {', '.join(map(repr, missing))} may be",
            where=f"graph {graph.name!r}",
            expected="a largest size of each free axis",
            fix=" ".join(f"--max {item}=SIZE" for item in missing),
        )
    return {item: (span.min, min(size for size in (stated.get(item), span.max) if size is not None)) for item, span in ranges.items()}


def _refuse_dtypes(graph: Graph) -> None:
    refusals = Refusals()
    for spec in (*(port.spec for port in graph.inputs), *(port.spec for port in graph.outputs)):
        try:
            ctype(spec_in_memory(spec).dtype)
        except UnsupportedError as error:
            refusals.add(error, "graph")
    if refusals:
        raise refused(refusals)


def _pointers(graph: Graph, inputs: Sequence[Buffer], outputs: Sequence[Buffer]) -> list[Port]:
    """The arguments that point to tensors."""
    return [
        *(
            Port(buffer.name, f"const {ctype(buffer.dtype).stored} *{buffer.name}", f"{port.name}: {port.spec}")
            for buffer, port in zip(inputs, graph.inputs, strict=True)
        ),
        *(
            Port(buffer.name, f"{ctype(buffer.dtype).stored} *{buffer.name}", f"{port.name}: {port.spec}, a result")
            for buffer, port in zip(outputs, graph.outputs, strict=True)
        ),
    ]


def _size_argument(g: Writer, name: str, low: int, high: int) -> Port:
    """The argument that is a free size, which the writer knows from here on."""
    argument = g.symbols[name] = g.names.fresh(name)
    g.known[name] = DimRange(low, high)
    return Port(argument, f"ptrdiff_t {argument}", f"{name}: a size, {low} to {high}")


def _checks(g: Writer, graph: Graph, sizes: Mapping[str, Dim], arguments: Sequence[str], inputs: Mapping[str, View]) -> list[str]:
    """Statements that leave the function where its sizes are none of the graph's."""
    wrong = []
    for item in arguments:
        argument, span, allowed = g.symbols[item], g.known[item], graph.dims.get(item)
        wrong.append(f"{argument} < {span.min} || {argument} > {span.max}")
        if allowed is not None and allowed.step > 1:
            wrong.append(f"({argument} - {allowed.min}) % {allowed.step} != 0")
    for condition in graph.requires:
        left = condition.substituted(sizes)
        if left is False:
            raise ConverterError(
                "the largest sizes do not meet a condition of the graph", where=f"graph {graph.name!r}", expected=str(condition)
            )
        if left is not True:
            wrong.append(f"!({g.condition(left)})")
    computed = [size for view in inputs.values() for size in view.shape if isinstance(size, Expr) and size.symbol is None]
    wrong += [f"{g.size(size)} < 0" for size in computed]
    return [f"if ({item}) {{ return {BAD_SIZE}; }}" for item in wrong]


def _constants(g: Writer, graph: Graph, store: ParameterStore, refusals: Refusals) -> dict[str, Any]:
    """The parameters that the graph uses; those that are one tensor are one constant."""
    loaded: dict[str, Any] = {}
    found: dict[str, Any] = {}
    for item in filter(graph.uses.__contains__, store.names()):
        target = store.alias_of(item) or item
        try:
            if target not in loaded:
                spec = spec_in_memory(store.spec(target))
                ctype(spec.dtype)
                array = np.ascontiguousarray(store.mapped(target))
                loaded[target] = array if spec.dtype.numpy == array.dtype else array.view(spec.dtype.numpy).reshape(*array.shape, 2)
            found[item] = g.constant(loaded[target], target)
        except UnsupportedError as error:
            refusals.add(error, f"parameter {item!r}")
    if refusals:
        raise refused(refusals)
    return found


def _maxima(g: Writer, prefix: str, buffers: Sequence[Buffer], arguments: Sequence[str]) -> list[tuple[str, int]]:
    """The macros of the header that say how large tensors and sizes may be."""
    return [
        *((f"{prefix}_{buffer.name.upper()}_MAX", g.most(buffer.size)) for buffer in buffers),
        *((f"{prefix}_{g.symbols[item].upper()}_MAX", g.most(symbol(item))) for item in arguments),
    ]


def _whole(g: Writer, name: str, spec: TensorSpec, sizes: Mapping[str, Dim], kind: str) -> View:
    """An argument that points to a tensor."""
    spec = spec_in_memory(spec)
    shape = tuple(substitute(size, sizes) for size in spec.shape)
    return View(g.buffer(name, spec.dtype, product(shape), kind), shape, row_major(shape))


def _snake(text: str) -> str:
    """A class's name as a function's."""
    return cleaned(re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", cleaned(text)).lower())


def refuse_maxima(graph: Graph, most: Mapping[str, int]) -> None:
    """Raises `ConverterError` for a maximum of no size of the graph, or below what the graph takes."""
    known = bound_sizes(graph)
    for name, size in most.items():
        if name not in known:
            raise ConverterError(
                f"the graph has no free size {name!r}",
                where=f"graph {graph.name!r}",
                received=f"{name}={size}",
                expected=", ".join(sorted(known)) or "no maximum, as no size is free",
            )
        least = graph.dims[name].min if name in graph.dims else 0
        if size < max(least, 1):
            raise ConverterError(
                f"the largest {name!r} is less than the graph takes",
                where=f"graph {graph.name!r}",
                received=str(size),
                expected=f"{max(least, 1)} or more",
            )


def refused(refusals: Refusals) -> UnsupportedError:
    """The error that lists all that C lacks."""
    return refusals.error(lambda count: f"{count} operator{'s have' if count != 1 else ' has'} no code in C")


def _give(g: Writer, results: list[Any], outputs: list[Any], graph: Graph, sizes: Mapping[str, Dim]) -> None:
    """Writes the results to the caller's memory: what nothing else would be written from is made there."""
    seen: set[int] = set()
    for value, buffer in zip(results, outputs, strict=True):
        if isinstance(value, Pending):
            value = value.view or value
        if isinstance(value, View) and value.is_whole and value.buffer.kind == "arena" and id(value.buffer) not in seen:
            seen.add(id(value.buffer))
            value.buffer.kind, old = "output", value.buffer.name
            for statement in g.statements:
                statement.text = _renamed(statement.text, old, buffer.name)
            value.buffer.name = buffer.name
            continue
        shape = value.shape
        g.label = f"{buffer.name}: result"
        store(g, value, View(buffer, shape, row_major(shape)))


def _renamed(text: str, old: str, new: str) -> str:
    return re.sub(rf"\b{old}\b", new, text)


def _told(g: Writer, graph: Graph, sizes: Mapping[str, Dim]) -> tuple[list[Port], list[str]]:
    """Arguments through which the caller gets sizes that the data decided."""
    given = {size.symbol for port in graph.inputs for size in port.spec.shape if isinstance(size, Expr)}
    found = dict.fromkeys(name for port in graph.outputs for size in port.spec.shape for name in sorted(symbols(size)) if name not in given)
    ports, lines = [], []
    for name in found:
        variable = g.size(sizes.get(name, symbol(name)))
        argument = g.names.fresh(f"{name}_out")
        ports.append(Port(argument, f"ptrdiff_t *{argument}", f"{name}: where that size is put, which the data decide"))
        lines.append(f"*{argument} = {variable};")
    return ports, lines
