"""A model as a program: its graph lowered, its memory planned, its function's arguments named."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from adapters.c.fusion import Pending, store
from adapters.c.lowering import Lowering, in_known_operators
from adapters.c.names import cleaned
from adapters.c.planning import plan
from adapters.c.source import Port, Program
from adapters.c.types import ctype, held
from adapters.c.views import View, row_major
from adapters.c.writer import BAD_SIZE, Writer
from converter.checking import bound_sizes, check
from converter.dims import Dim, Expr, product, substitute, symbol, symbols
from converter.errors import ConverterError, UnsupportedError
from converter.ir import Graph, Model, TensorSpec
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
    g = Writer(stated=stated)
    own = g.names.fresh(name or _snake(graph.name))
    free = [size.symbol for port in graph.inputs for size in port.spec.shape if isinstance(size, Expr) and size.symbol]
    missing = [
        item for item in dict.fromkeys(free) if item not in stated and (graph.dims[item].max is None if item in graph.dims else True)
    ]
    if missing:
        raise UnsupportedError(
            f"nothing says how large {', '.join(map(repr, missing))} may be",
            where=f"graph {graph.name!r}",
            expected="a largest size of each free axis",
            fix=" ".join(f"--max {item}=SIZE" for item in missing),
        )
    specs = check(graph, model.parameters)
    refusals = Refusals()
    for spec in (*(port.spec for port in graph.inputs), *(port.spec for port in graph.outputs)):
        try:
            ctype(held(spec).dtype)
        except UnsupportedError as error:
            refusals.add(error, "graph")
    if refusals:
        raise refused(refusals)
    sizes: dict[str, Dim] = {item: symbol(item) for item in free}
    limits = {}
    for item in sizes:
        allowed = graph.dims.get(item)
        low = allowed.min if allowed else 0
        limits[item] = low, min(size for size in (stated.get(item), allowed.max if allowed else None) if size is not None)
        if limits[item][0] == limits[item][1]:
            sizes[item] = low
    ports: list[Port] = []
    values: dict[str, Any] = {}
    for port in graph.inputs:
        view = _whole(g, port.name, port.spec, sizes, "input")
        values[port.name] = view
        ports.append(Port(view.buffer.name, f"const {ctype(view.dtype).stored} *{view.buffer.name}", f"{port.name}: {port.spec}"))
    outputs = [_whole(g, port.name, port.spec, sizes, "output").buffer for port in graph.outputs]
    ports += [
        Port(buffer.name, f"{ctype(buffer.dtype).stored} *{buffer.name}", f"{port.name}: {port.spec}, a result")
        for buffer, port in zip(outputs, graph.outputs, strict=True)
    ]
    checks = []
    arguments = [item for item, size in sizes.items() if isinstance(size, Expr)]
    for item in arguments:
        (low, high), allowed = limits[item], graph.dims.get(item)
        argument = g.symbols[item] = g.names.fresh(item)
        g.known[item] = (low, high)
        ports.append(Port(argument, f"ptrdiff_t {argument}", f"{item}: a size, {low} to {high}"))
        checks.append(f"if ({argument} < {low} || {argument} > {high}) {{ return {BAD_SIZE}; }}")
        if allowed is not None and allowed.step > 1:
            checks.append(f"if (({argument} - {allowed.min}) % {allowed.step} != 0) {{ return {BAD_SIZE}; }}")
    for condition in graph.requires:
        left = condition.substituted(sizes)
        if left is False:
            raise ConverterError(
                "the largest sizes do not meet a condition of the graph", where=f"graph {graph.name!r}", expected=str(condition)
            )
        if left is not True:
            checks.append(f"if (!({g.condition(left)})) {{ return {BAD_SIZE}; }}")
    for port in graph.inputs:
        for size in values[port.name].shape:
            if isinstance(size, Expr) and size.symbol is None:
                checks.append(f"if ({g.size(size)} < 0) {{ return {BAD_SIZE}; }}")
    store_of = model.parameters
    loaded: dict[str, Any] = {}
    for item in store_of.names():
        if item in graph.uses:
            target = store_of.alias_of(item) or item
            if target not in loaded:
                try:
                    spec = held(store_of.spec(target))
                    ctype(spec.dtype)
                    array = np.ascontiguousarray(store_of.mapped(target))
                    loaded[target] = array if spec.dtype.numpy == array.dtype else array.view(spec.dtype.numpy).reshape(*array.shape, 2)
                except UnsupportedError as error:
                    refusals.add(error, f"parameter {item!r}")
                    continue
            values[item] = g.constant(loaded[target], target)
    if refusals:
        raise refused(refusals)
    lowering = Lowering(g, refusals)
    lowering.kept = frozenset(id(values[item]) for item in store_of.names() if graph.uses[item] > 1 and item in values)
    results = lowering.run(graph, values, specs, sizes)
    if refusals:
        raise refused(refusals)
    _give(g, results, outputs, graph, sizes)
    told, finals = _told(g, graph, sizes)
    ports += told
    found = plan(g)
    upper = own.upper()
    maxima = [
        (f"{upper}_{buffer.name.upper()}_MAX", g.most(buffer.size))
        for buffer in (*(values[port.name].buffer for port in graph.inputs), *outputs)
    ]
    maxima += [(f"{upper}_{g.symbols[item].upper()}_MAX", g.known[item][1]) for item in arguments]
    return Program(
        own,
        f"{graph.name}, written by model-converter",
        g,
        found,
        ports,
        checks,
        finals,
        arguments,
        {item: high for item, (_, high) in limits.items()},
        maxima=maxima,
    )


def _whole(g: Writer, name: str, spec: TensorSpec, sizes: Mapping[str, Dim], kind: str) -> View:
    """An argument that points to a tensor."""
    spec = held(spec)
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
