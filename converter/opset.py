"""The operator registry: what operators exist, their signatures, and whether a graph keeps to them.

An operator is one decorated function, its reference NumPy kernel. The signature is the operator's signature:
positional parameters are tensor operands (a default of None makes one optional, `*name` takes any number), and
keyword-only parameters are attributes, whose annotations are their types:

    @op(infer=_linear)
    def linear(x: Array, weight: Array, bias: Array | None = None) -> Array:
        '''What it computes, with shapes and the formula's source: this text becomes docs/operators.md.'''

`infer` takes the same arguments with `TensorSpec` in place of arrays and gives the outputs' specs. Sizes in
attributes are annotated `Dim`: a kernel gets them as integers, `infer` as expressions. Sub-graphs are annotated `Graph`: a
kernel gets them as functions of arrays that give a tuple, made by whatever runs it, and `infer` as graphs.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from converter.dims import Dim, Expr, evaluate, parse, symbols
from converter.errors import ConverterError, GraphError
from converter.ir import DimRange, DType, Graph, Node, Operand, TensorSpec
from converter.parameters import ParameterStore

OPSET = 1

Specs = Mapping[str, TensorSpec]


@dataclass(frozen=True, slots=True)
class OperandSpec:
    """One positional parameter of an operator."""

    name: str
    optional: bool = False
    variadic: bool = False


@dataclass(frozen=True, slots=True)
class AttributeSpec:
    """One keyword parameter of an operator. `type` is its annotation; `default` is `REQUIRED` where there is none."""

    name: str
    type: Any
    default: Any

    @property
    def required(self) -> bool:
        return self.default is REQUIRED


REQUIRED: Any = inspect.Parameter.empty


@dataclass(frozen=True, slots=True)
class Operator:
    """A registered operator."""

    name: str
    family: str
    since: int
    operands: tuple[OperandSpec, ...]
    outputs: tuple[str, ...] | None
    attributes: Mapping[str, AttributeSpec]
    literals: bool
    binds: Mapping[str, tuple[int, int]]
    infer: Callable[..., Any]
    kernel: Callable[..., Any]
    doc: str


_REGISTRY: dict[str, Operator] = {}


def op(*, infer: Callable[..., Any], outputs: tuple[str, ...] | None = ("y",), literals: bool = False, since: int = 1,
       binds: Mapping[str, tuple[int, int]] | None = None, name: str | None = None) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Registers the decorated kernel as an operator. Its family is the name of its module.

    Args:
        infer: the shape rule; raises `GraphError` for operands that do not fit.
        outputs: names of the outputs, for the documentation; None when their number depends on the operands.
        literals: whether numbers may stand in place of tensors.
        since: the opset version that brought the operator.
        binds: for sizes that only the data decide: the attribute that holds such a symbol (default None), and the
            output and axis where a run finds its value. The kernel is not given these attributes.
        name: the operator's name where Python's own name for the function must differ.
    """

    def register(kernel: Callable[..., Any]) -> Callable[..., Any]:
        key = name or kernel.__name__
        if key in _REGISTRY:
            raise RuntimeError(f"operator {key!r} is registered twice")
        if not kernel.__doc__:
            raise RuntimeError(f"operator {key!r} has no docstring")
        hints = typing.get_type_hints(kernel)
        operands, attributes = [], {}
        for parameter in inspect.signature(kernel).parameters.values():
            if parameter.kind is parameter.KEYWORD_ONLY:
                if parameter.name not in hints:
                    raise RuntimeError(f"operator {key!r}: attribute {parameter.name!r} has no type")
                attributes[parameter.name] = AttributeSpec(parameter.name, hints[parameter.name], parameter.default)
            else:
                operands.append(OperandSpec(parameter.name, parameter.default is None,
                                            parameter.kind is parameter.VAR_POSITIONAL))
        _REGISTRY[key] = Operator(key, kernel.__module__.rsplit(".", 1)[-1], since, tuple(operands), outputs, attributes,
                                  literals, binds or {}, infer, kernel, inspect.cleandoc(kernel.__doc__))
        return kernel

    return register


@cache
def _load() -> None:
    import converter.ops

    for module in pkgutil.iter_modules(converter.ops.__path__):
        importlib.import_module(f"converter.ops.{module.name}")


def operators() -> Mapping[str, Operator]:
    """Every operator by name."""
    _load()
    return _REGISTRY


def lookup(name: str) -> Operator:
    """The operator `name`. Raises `GraphError`, with the nearest names, when there is none."""
    found = operators().get(name)
    if found is None:
        import difflib

        near = difflib.get_close_matches(name, _REGISTRY, 3)
        raise GraphError(f"no operator {name!r} in opset {OPSET}", expected=", ".join(near) or "one of docs/operators.md",
                         received=repr(name), fix="a newer version of model-converter may know it")
    return found


# Attributes --------------------------------------------------------------------------------------------------------


def normalize_attributes(operator: Operator, attributes: Mapping[str, Any]) -> dict[str, Any]:
    """The attributes with every value of its declared type, those equal to their default left out, in signature order.

    Raises `GraphError` for an unknown, missing or ill-typed attribute.
    """
    for name in attributes:
        if name not in operator.attributes:
            raise GraphError(f"{operator.name} has no attribute {name!r}", received=repr(name),
                             expected=", ".join(operator.attributes) or "no attributes")
    result = {}
    for name, spec in operator.attributes.items():
        if name in attributes:
            value = _coerce(spec.type, attributes[name], f"attribute {name!r}")
            if spec.required or repr(value) != repr(spec.default):  # repr tells -0.0 from 0.0 and 1 from True
                result[name] = value
        elif spec.required:
            raise GraphError(f"{operator.name} needs the attribute {name!r}", received=", ".join(attributes) or "none")
    return result


def filled_attributes(operator: Operator, attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Normalized attributes with the defaults of those left out."""
    return {name: attributes.get(name, spec.default) for name, spec in operator.attributes.items()}


def _coerce(annotation: Any, value: Any, where: str) -> Any:
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation == Dim:
        if isinstance(value, Expr):
            return value
        return parse(value)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in args:
            return None
        if isinstance(value, bool) and bool in args:
            return value
        kinds = [arg for arg in args if arg not in (type(None), bool)]
        if int in kinds and Expr in kinds:
            kinds = [Dim, *(kind for kind in kinds if kind not in (int, Expr))]
        for kind in kinds:
            try:
                return _coerce(kind, value, where)
            except GraphError:
                continue
        raise _ill_typed(where, annotation, value)
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise _ill_typed(where, annotation, value)
        if len(args) == 2 and args[1] is Ellipsis:
            return tuple(_coerce(args[0], item, f"{where}[{index}]") for index, item in enumerate(value))
        if len(value) != len(args):
            raise _ill_typed(where, annotation, value)
        return tuple(_coerce(arg, item, f"{where}[{index}]") for index, (arg, item) in enumerate(zip(args, value, strict=True)))
    if origin is typing.Literal:
        if value not in args or isinstance(value, bool) != isinstance(args[args.index(value)], bool):
            raise _ill_typed(where, annotation, value)
        return value
    if annotation is DType:
        return DType.of(value)
    if annotation is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    if annotation is complex and isinstance(value, (int, float, complex)) and not isinstance(value, bool):
        return complex(value)
    if annotation is int and isinstance(value, int) and not isinstance(value, bool):
        return int(value)
    if annotation in (bool, str) and isinstance(value, annotation):
        return value
    if annotation is Graph and isinstance(value, Graph):
        return value
    raise _ill_typed(where, annotation, value)


def describe_type(annotation: Any) -> str:
    """An attribute's type in words that the format uses: `size`, `list of size`, `"constant" | "reflect"`."""
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation == Dim:
        return "size"
    if origin in (typing.Union, types.UnionType):
        kinds = [arg for arg in args if arg is not type(None)]
        if int in kinds and Expr in kinds:
            words = ["size", *(describe_type(arg) for arg in kinds if arg not in (int, Expr))]
        else:
            words = [describe_type(arg) for arg in kinds]
        return " | ".join(words + (["null"] if type(None) in args else []))
    if origin is tuple:
        if len(args) == 2 and args[1] is Ellipsis:
            return f"list of {describe_type(args[0])}"
        return f"[{', '.join(map(describe_type, args))}]"
    if origin is typing.Literal:
        return " | ".join(f'"{arg}"' if isinstance(arg, str) else str(arg) for arg in args)
    return {bool: "boolean", int: "integer", float: "number", complex: "complex", str: "string", DType: "dtype",
            Graph: "graph"}.get(annotation, str(annotation))


def _ill_typed(where: str, annotation: Any, value: Any) -> GraphError:
    return GraphError("wrong type", where=where, expected=describe_type(annotation), received=repr(value)[:80])


def concrete_attributes(attributes: Mapping[str, Any], bindings: Mapping[str, int]) -> dict[str, Any]:
    """Attributes as a kernel takes them: every size an integer. Raises `GraphError` for an unbound symbol."""
    return {name: _concrete(value, bindings) for name, value in attributes.items()}


def _concrete(value: Any, bindings: Mapping[str, int]) -> Any:
    if isinstance(value, Expr):
        return evaluate(value, bindings)
    if isinstance(value, tuple):
        return tuple(_concrete(item, bindings) for item in value)
    return value


def attribute_symbols(value: Any) -> set[str]:
    """The symbols in an attribute's value."""
    if isinstance(value, Expr):
        return symbols(value)
    if isinstance(value, tuple):
        return {name for item in value for name in attribute_symbols(item)}
    if isinstance(value, Graph):
        return free_symbols(value)
    return set()


def free_symbols(graph: Graph) -> set[str]:
    """The symbols that a sub-graph takes from the graph around it: those that it names and does not bind."""
    own = {size.symbol for item in graph.inputs for size in item.spec.shape if isinstance(size, Expr) and size.symbol}
    named = {name for spec in (*(item.spec for item in graph.inputs), *(item.spec for item in graph.outputs))
             for size in spec.shape for name in symbols(size)}
    for node in graph.nodes:
        named |= attribute_symbols(tuple(node.attributes.values()))
        bound = (node.attributes.get(name) for name in lookup(node.op).binds)
        own |= {size.symbol for size in bound if isinstance(size, Expr) and size.symbol}
    return named - own


def graphs_in(node: Node) -> list[Graph]:
    """The sub-graphs of a node."""
    return [value for value in node.attributes.values() if isinstance(value, Graph)]


# Shape inference -----------------------------------------------------------------------------------------------------


def infer_node(node: Node, specs: Specs) -> tuple[TensorSpec, ...]:
    """The specs of a node's outputs. Raises `GraphError`, naming the node, where the operator's rules are broken."""
    try:
        operator = lookup(node.op)
        attributes = normalize_attributes(operator, node.attributes)
        operands = bind_operands(operator, node.inputs)
        dtype = literal_dtype(node.inputs, specs)
        arguments: list[TensorSpec | None] = []
        for operand in operands:
            if operand is None:
                arguments.append(None)
            elif isinstance(operand, str):
                if operand not in specs:
                    raise GraphError(f"no value {operand!r} before this node", received=repr(operand),
                                     fix="name a graph input, a parameter, or an earlier node's output")
                arguments.append(specs[operand])
            else:
                arguments.append(TensorSpec(_check_literal(operator, operand, dtype), ()))
        result = operator.infer(*arguments, **filled_attributes(operator, attributes))
        outputs = result if isinstance(result, tuple) else (result,)
        if len(node.outputs) > len(outputs) or not node.outputs:
            raise GraphError(f"{operator.name} has {len(outputs)} outputs here", received=str(len(node.outputs)))
        return outputs
    except ConverterError as error:
        raise error.within(_place(node)) from error
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        # A shape rule that stumbles over operands it did not foresee.
        given = ", ".join(str(specs[item]) if isinstance(item, str) else str(item) for item in node.inputs)
        raise GraphError(f"operands that {node.op} does not take ({error})", where=_place(node), received=given) from error


def _place(node: Node) -> str:
    return f"node {node}" + (f" from {node.source}" if node.source else "")


def bind_operands(operator: Operator, inputs: tuple[Operand, ...]) -> tuple[Operand, ...]:
    """The inputs as the kernel takes them, optional ones that were left out as None. Raises `GraphError`."""
    fixed = [spec for spec in operator.operands if not spec.variadic]
    variadic = len(fixed) != len(operator.operands)
    needed = sum(not spec.optional for spec in fixed)
    if len(inputs) < needed or len(inputs) > len(fixed) and not variadic:
        bounds = f"at least {needed}" if variadic else f"{needed}" if needed == len(fixed) else f"{needed} to {len(fixed)}"
        raise GraphError(f"{operator.name} takes {bounds} inputs", received=str(len(inputs)),
                         expected=", ".join(f"{spec.name}{'?' if spec.optional else '…' if spec.variadic else ''}"
                                            for spec in operator.operands))
    for spec, operand in zip(fixed, inputs, strict=False):
        if operand is None and not spec.optional:
            raise GraphError(f"{operator.name} needs its input {spec.name!r}", received="null")
    return (*inputs, *([None] * max(0, len(fixed) - len(inputs))))


def literal_dtype(inputs: tuple[Operand, ...], specs: Specs) -> DType | None:
    """The dtype that literal numbers take: that of the last tensor among the inputs."""
    for operand in reversed(inputs):
        if isinstance(operand, str) and operand in specs:
            return specs[operand].dtype
    return None


def _check_literal(operator: Operator, value: Any, dtype: DType | None) -> DType:
    if not operator.literals:
        raise GraphError(f"{operator.name} takes no numbers as inputs", received=repr(value), fix="make it with `full`")
    if dtype is None:
        raise GraphError(f"{operator.name} needs at least one tensor", received=repr(value), fix="make it with `full`")
    fits = (isinstance(value, bool) and dtype is DType.BOOL or dtype.is_complex
            or isinstance(value, (int, float)) and not isinstance(value, bool) and dtype.is_float
            or isinstance(value, int) and not isinstance(value, bool) and dtype.is_integer)
    if fits and dtype.is_integer:
        bits, signed = dtype.itemsize * 8, not dtype.value.startswith("u")
        fits = (-(1 << bits - 1) if signed else 0) <= value < (1 << bits - (1 if signed else 0))
    if not fits:
        raise GraphError("a number does not fit the operand beside it", expected=str(dtype), received=repr(value))
    return dtype


def check(graph: Graph, parameters: ParameterStore | Specs | None = None, *, outer: Iterable[str] = ()) -> dict[str, TensorSpec]:
    """Checks a whole graph and infers every value's spec. Sub-graphs are checked too.

    Args:
        graph: the graph.
        parameters: the store, or specs by name.
        outer: for a sub-graph, the symbols that the graph around it binds.

    Returns: the spec of every value by name: inputs, parameters, and nodes' outputs.

    Raises:
        GraphError: an unknown operator or value, a name given twice, an unbound symbol, shapes or dtypes that do not
            fit, or an output whose declared spec differs from the inferred one.
    """
    specs: dict[str, TensorSpec] = {}
    if isinstance(parameters, ParameterStore):
        specs.update((name, parameters.spec(name)) for name in parameters.names())
    elif parameters is not None:
        specs.update(parameters)
    around = frozenset(outer)
    bound: set[str] = set()
    for port in graph.inputs:
        if port.name in specs:
            raise GraphError(f"the name {port.name!r} is given twice", where=f"graph {graph.name!r}",
                             fix="rename the input")
        specs[port.name] = port.spec
        bound |= {size.symbol for size in port.spec.shape if isinstance(size, Expr) and size.symbol}
    for port in graph.inputs:
        _check_symbols(f"input {port.name!r}", port.spec, bound | around)
    for node in graph.nodes:
        outputs = infer_node(node, specs)
        for inner in graphs_in(node):
            try:
                check(inner, outer=bound | around)
            except ConverterError as error:
                raise error.within(_place(node)) from error
        for name, spec in zip(node.outputs, outputs, strict=False):
            if name is None:
                continue
            if name in specs:
                raise GraphError(f"the name {name!r} is given twice", where=f"node {node}", fix="rename one of the two")
            specs[name] = spec
        bound |= {node.attributes[name].symbol for name in lookup(node.op).binds if name in node.attributes}
        unbound = attribute_symbols(tuple(node.attributes.values())) - bound - around
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
    from converter.dims import differ

    same = declared.dtype is inferred.dtype and declared.rank == inferred.rank and not any(
        differ(a, b) for a, b in zip(declared.shape, inferred.shape, strict=True))
    if not same:
        raise GraphError("the declared spec is not what the graph computes", where=where, expected=str(inferred),
                         received=str(declared))


def default_dims(graph_specs: Mapping[str, TensorSpec]) -> dict[str, DimRange]:
    """A range of 1 and up for each symbol in the given specs."""
    return {name: DimRange() for spec in graph_specs.values() for size in spec.shape for name in sorted(symbols(size))}
