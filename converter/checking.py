"""Whether a graph keeps to the operators' rules, and the dtype and shape of every value in it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from converter.attributes import attribute_symbols, graphs_in
from converter.dims import Expr, symbols
from converter.equal_sizes import differ, is_recorded
from converter.errors import ConverterError, GraphError
from converter.ir import DType, Graph, Node, TensorSpec
from converter.opset import Operator, lookup
from converter.parameters import ParameterStore
from converter.resolved import Specs, resolve


def infer_node(node: Node, specs: Specs) -> tuple[TensorSpec, ...]:
    """The specs of a node's outputs. Raises `GraphError`, naming the node, where the operator's rules are broken."""
    try:
        resolved = resolve(node)
        operator, dtype = resolved.operator, resolved.literal_dtype(specs)
        arguments: list[TensorSpec | None] = []
        for operand in resolved.operands:
            if operand is None:
                arguments.append(None)
            elif isinstance(operand, str):
                if operand not in specs:
                    raise GraphError(f"no value {operand!r} before this node", received=repr(operand),
                                     fix="name a graph input, a parameter, or an earlier node's output")
                arguments.append(specs[operand])
            else:
                arguments.append(TensorSpec(_check_literal(operator, operand, dtype), ()))
        result = operator.infer(*arguments, **resolved.filled)
        outputs = result if isinstance(result, tuple) else (result,)
        if operator.family not in MOVING and operator.name != "full":
            for spec in (*arguments, *outputs):
                if spec is not None and spec.dtype.bits < 8:
                    raise GraphError(f"{operator.name} does not compute with {spec.dtype}", received=str(spec),
                                     expected="a dtype of 8 bits or more", fix="convert it with astype first")
        if len(node.outputs) > len(outputs) or not node.outputs:
            raise GraphError(f"{operator.name} has {len(outputs)} outputs here", received=str(len(node.outputs)))
        return outputs
    except ConverterError as error:
        raise error.within(_place(node)) from error
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        # A shape rule that stumbles over operands it did not foresee.
        given = ", ".join(str(specs[item]) if isinstance(item, str) else str(item) for item in node.inputs)
        raise GraphError(f"operands that {node.op} does not take ({error})", where=_place(node), received=given) from error


MOVING = frozenset({"conversion", "control", "indexing", "joining", "manipulation", "slicing"})
"""Families of operators that move elements as they are: those take dtypes of fewer than 8 bits."""


def _place(node: Node) -> str:
    return f"node {node}" + (f" from {node.source}" if node.source else "")


def _check_literal(operator: Operator, value: Any, dtype: DType | None) -> DType:
    if not operator.literals:
        raise GraphError(f"{operator.name} takes no numbers as inputs", received=repr(value), fix="make it with `full`")
    if dtype is None:
        raise GraphError(f"{operator.name} needs at least one tensor", received=repr(value), fix="make it with `full`")
    fits = (isinstance(value, bool) and dtype is DType.BOOL or dtype.is_complex
            or isinstance(value, (int, float)) and not isinstance(value, bool) and dtype.is_float
            or isinstance(value, int) and not isinstance(value, bool) and dtype.is_integer)
    if fits and dtype.is_integer:
        fits = dtype.limits[0] <= value <= dtype.limits[1]
    if not fits:
        raise GraphError("a number does not fit the operand beside it", expected=str(dtype), received=repr(value))
    return dtype


def bound_sizes(graph: Graph) -> set[str]:
    """The symbols that a graph's inputs or its nodes give a value."""
    given = {size.symbol for port in graph.inputs for size in port.spec.shape if isinstance(size, Expr) and size.symbol}
    return given | {node.attributes[name].symbol for node in graph.nodes for name in lookup(node.op).binds if name in node.attributes}


@dataclass(frozen=True, slots=True)
class _Checked:
    """What one check of a graph was given, and what it found."""

    parameters: Specs
    outer: frozenset[str]
    specs: Specs


def check(graph: Graph, parameters: ParameterStore | Specs | None = None, *, outer: Iterable[str] = ()) -> Specs:
    """Checks a whole graph and infers every value's spec. Sub-graphs are checked too.

    A graph does not change, and carries what was found the last time: with equal parameters and symbols it is not inferred again.

    Args:
        graph: the graph.
        parameters: the store, or specs by name.
        outer: for a sub-graph, the symbols that the graph around it binds.

    Returns: the spec of every value by name: inputs, parameters, and nodes' outputs.

    Raises:
        GraphError: an unknown operator or value, a name given twice, an unbound symbol, shapes or dtypes that do not
            fit, or an output whose declared spec differs from the inferred one.
    """
    given = dict(parameters or {}) if not isinstance(parameters, ParameterStore) else {
        name: parameters.spec(name) for name in parameters.names()}
    around = frozenset(outer)
    if is_recorded():  # what sizes are compared on the way is part of the answer
        return MappingProxyType(_inferred(graph, given, around))
    carried: _Checked | None = graph.__dict__.get(_CARRIED)
    if carried is None or carried.parameters != given or carried.outer != around:
        carried = graph.__dict__[_CARRIED] = _Checked(given, around, _inferred(graph, dict(given), around))
    return MappingProxyType(carried.specs)


_CARRIED = "_checked"


def _inferred(graph: Graph, specs: dict[str, TensorSpec], around: frozenset[str]) -> dict[str, TensorSpec]:
    """The specs of all values, of those of the parameters, which are added to."""
    bound: set[str] = set()
    for port in graph.inputs:
        if port.name in specs:
            raise GraphError(f"the name {port.name!r} is given twice", where=f"graph {graph.name!r}",
                             fix="rename the input")
        specs[port.name] = port.spec
        bound |= {size.symbol for size in port.spec.shape if isinstance(size, Expr) and size.symbol}
    seen = bound | around
    for port in graph.inputs:
        _check_symbols(f"input {port.name!r}", port.spec, seen)
    negative = sorted(size for size in bound & graph.dims.keys() if graph.dims[size].min < 0)
    if negative:
        raise GraphError(f"the size {negative[0]!r} of an input may be negative", where=f"graph {graph.name!r}",
                         expected="min of 0 or more", received=str(graph.dims[negative[0]]))
    for condition in graph.requires:
        unbound = condition.symbols - seen
        if unbound:
            raise GraphError("a condition on a size that no input's shape holds by itself", where=f"graph {graph.name!r}",
                             received=str(condition), expected=f"{min(unbound)!r} alone in some input's shape")
    for node in graph.nodes:
        outputs = infer_node(node, specs)
        for inner in graphs_in(node):
            try:
                check(inner, outer=seen)
            except ConverterError as error:
                raise error.within(_place(node)) from error
        for name, spec in zip(node.outputs, outputs, strict=False):
            if name is None:
                continue
            if name in specs:
                raise GraphError(f"the name {name!r} is given twice", where=f"node {node}", fix="rename one of the two")
            specs[name] = spec
        made = {node.attributes[name].symbol for name in lookup(node.op).binds if name in node.attributes}
        bound |= made
        seen |= made
        unbound = attribute_symbols(tuple(node.attributes.values())) - seen
        if unbound:
            raise GraphError(f"the size {min(unbound)!r} is bound by no input", where=f"node {node}",
                             expected="a symbol of an input's shape", received=", ".join(sorted(unbound)))
    for name in bound:
        if name not in graph.dims:
            raise GraphError(f"the size {name!r} has no range", where=f"graph {graph.name!r}",
                             fix=f'add "{name}": {{"min": 1}} to "dims"')
    names = set()
    for output in graph.outputs:
        where = f"output {output.name!r}"
        if output.name in names:
            raise GraphError("two outputs have one name", where=where, fix="rename one of the two")
        names.add(output.name)
        if output.value not in specs:
            raise GraphError(f"no value {output.value!r}", where=where, fix="name a value that the graph makes")
        require_same(output.spec, specs[output.value], where)
    if not graph.outputs:
        raise GraphError("a graph without outputs", where=f"graph {graph.name!r}", expected="at least one output")
    return specs


def _check_symbols(where: str, spec: TensorSpec, bound: set[str]) -> None:
    for size in spec.shape:
        missing = symbols(size) - bound
        if missing:
            raise GraphError("a size that no input's shape holds by itself", where=where, received=str(size),
                             expected=f"{min(missing)!r} alone in some input's shape")


def require_same(declared: TensorSpec, inferred: TensorSpec, where: str) -> None:
    """Raises `GraphError` unless dtypes are equal and no two sizes are known to differ."""
    same = declared.dtype is inferred.dtype and declared.rank == inferred.rank and not any(
        differ(a, b) for a, b in zip(declared.shape, inferred.shape, strict=True))
    if not same:
        raise GraphError("the declared spec is not what the graph computes", where=where, expected=str(inferred),
                         received=str(declared))
