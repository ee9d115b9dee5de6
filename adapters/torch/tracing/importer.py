"""Walks the graph of an exported program and emits neutral nodes through the importers of `adapters/torch/ops`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

import torch

from adapters.torch.dtypes import from_torch_dtype, to_dim
from adapters.torch.registry import importers
from adapters.torch.sizes.size_numbers import SizeNumber, Symbols, checked_conditions, emit
from converter.builder import GraphBuilder, Value
from converter.dims import Dim, Expr
from converter.errors import ConverterError, UnsupportedError
from converter.ir import DType, TensorSpec
from converter.parameters import InMemoryParameters
from converter.ports.importing import GraphImporter
from converter.ports.refusals import Refusals

# What an exported graph holds that computes nothing: checks that the neutral graph's declared shapes make.
CHECKS = frozenset({
    "aten._assert_tensor_metadata.default", "aten._assert_scalar.default", "aten._assert_async.msg", "aten._assert_async.default",
    "aten._functional_assert_async.msg", "aten.sym_constrain_range_for_size.default", "aten.sym_constrain_range.default",
    "aten._functional_assert_scalar.default",
})


ITEMS = frozenset({"aten.item.default", "aten._local_scalar_dense.default"})
"""The operators that read a number from a tensor."""

def target_name(target: Any) -> str:
    """`aten.add.Tensor` for an ATen overload, `higher_order.cond` for control flow, else the function's qualified name."""
    if isinstance(target, torch._ops.HigherOrderOperator):
        return f"higher_order.{target.name()}"
    if isinstance(target, torch._ops.OpOverload):
        namespace, _, name = target._schema.name.partition("::")
        return f"{namespace}.{name}.{target._overloadname}"
    return f"{getattr(target, '__module__', '')}.{getattr(target, '__name__', str(target))}".removeprefix("_")


class Importer(GraphImporter):
    """What an importer works with: the builder, the current ATen node, and helpers that emit nodes."""

    def __init__(self, builder: GraphBuilder, symbols: Mapping[str, str | Dim]) -> None:
        super().__init__(builder, Refusals(keys=("operator", "reason", "cause", "source")))
        self.numbers: dict[str, Value] = {}
        self.refused: list[torch.fx.Node] = []
        self.checked: list[Any] = []
        self.symbols = Symbols(self, symbols)
        self._node: torch.fx.Node | None = None
        self.environment: Mapping[torch.fx.Node, Any] = {}
        self.attached: dict[int, Value] = {}
        self.constants: dict[str, torch.Tensor] = {}
        self.no_parameters = InMemoryParameters()
        self.kept: dict[str, Any] = {}
        """What importers know of values beside their specs, by the values' names."""

    # For importers ---------------------------------------------------------------------------------------------------

    @property
    def node(self) -> torch.fx.Node:
        """The current ATen node."""
        assert self._node is not None
        return self._node

    @property
    def schema(self) -> Any:
        """The signature of the current ATen operator."""
        return self.node.target._schema  # type: ignore[union-attr]

    @property
    def operator(self) -> str:
        return target_name(self.node.target)

    @property
    def source(self) -> str | None:
        """`file.py:12 in forward`: the user's line that the current ATen node came from."""
        return None if self._node is None else source_of(self._node)

    def result_dtype(self, output: int | None = None) -> DType:
        """The dtype that PyTorch gave the current node's result: what its promotion rules decided."""
        return from_torch_dtype(self._result(output).dtype)

    def result_shape(self, output: int | None = None) -> tuple[Dim, ...]:
        """The shape that PyTorch gave the current node's result."""
        return tuple(to_dim(size, self.symbols) for size in self._result(output).shape)

    def _result(self, output: int | None) -> torch.Tensor:
        value = self.node.meta["val"]
        return value if output is None and isinstance(value, torch.Tensor) else value[output or 0]

    def cast(self, value: Value, dtype: DType | torch.dtype | None) -> Value:
        """`value` in `dtype`; no node when it is so already."""
        target = from_torch_dtype(dtype) if isinstance(dtype, torch.dtype) else dtype
        return value if target is None else super().cast(value, target)

    def operand(self, value: Any, dtype: DType) -> Value | bool | int | float | complex:
        """A tensor cast to `dtype`, a number as a literal of it, or a size as a 0-d tensor of it."""
        if isinstance(value, Value):
            return self.cast(value, dtype)
        if isinstance(value, Expr):
            return self.op("full", shape=(), fill_value=value, dtype=dtype)
        if isinstance(value, SizeNumber):
            return self.cast(emit(self, value), dtype)
        if dtype is DType.BOOL:
            return bool(value)
        if dtype.is_integer:
            return int(value)
        return complex(value) if isinstance(value, complex) else float(value)

    def tensor(self, value: Any, dtype: DType) -> Value:
        """Like `operand`, but always a tensor: a number becomes a 0-d `full`."""
        operand = self.operand(value, dtype)
        return operand if isinstance(operand, Value) else self.op("full", shape=(), fill_value=operand, dtype=dtype)

    def constant(self, tensor: torch.Tensor, name: str = "constant") -> Value:
        """A tensor of the module's code that the trace did not make an argument; `constants` gains it."""
        if id(tensor) not in self.attached:
            name = self.builder.unique(name)
            self.constants[name] = tensor
            self.attached[id(tensor)] = self.builder.parameter(name, from_torch_dtype(tensor.dtype), tuple(tensor.shape))
        return self.attached[id(tensor)]

    # For the walk ----------------------------------------------------------------------------------------------------

    def walk(self, graph: torch.fx.Graph, environment: dict[torch.fx.Node, Any]) -> list[Any]:
        """Emits every node; `environment` starts with the placeholders. Gives the output node's arguments.

        Raises `UnsupportedError` that lists every node that could not be expressed.
        """
        unknown: set[torch.fx.Node] = set()
        live = needed(graph)
        self.checked = checked_conditions(graph)
        self.environment = environment
        for node in graph.nodes:
            if node.op == "output":
                if self.refusals:
                    break
                results = [self._resolve(item, environment) for item in _flat(node.args[0])]
                return [emit(self, item) if isinstance(item, SizeNumber) else item for item in results]
            if node.op == "get_attr":
                found = attribute(graph.owning_module, str(node.target))
                environment[node] = self.constant(found, str(node.target)) if isinstance(found, torch.Tensor) else found
            if node.op != "call_function":
                continue
            name = target_name(node.target)
            if name in CHECKS or node not in live or _is_size(node) and _is_checked_only(node):
                continue
            if unknown.intersection(node.all_input_nodes):
                unknown.add(node)
                if name not in importers() and not _is_size(node) and name != "operator.getitem":
                    self._node = node
                    self.refusals.add(self.refuse(*_missing(node)), name)
                continue
            self._node = node
            try:
                environment[node] = self._emit(node, name, environment)
            except UnsupportedError as error:
                self.refused.append(node)
                if not self._stand_in(node, environment):
                    unknown.add(node)
                self.refusals.add(error, name, source_of(node))
            except ConverterError as error:
                if not self.refusals:
                    raise error.within(f"{name} from {source_of(node)}") from error
                unknown.add(node)  # what stands in for a refused value need not fit everywhere
        self._node = None
        raise self.refusals.error(lambda count: f"{count} operators cannot be converted",
                                  "rewrite the lines named, or report the operators as gaps")

    def _stand_in(self, node: torch.fx.Node, environment: dict[torch.fx.Node, Any]) -> bool:
        """Gives a refused node values of the right kind, so that the walk goes on and finds all that is to be refused."""

        def value(fake: Any) -> Any:
            if isinstance(fake, torch.Tensor):
                shape = [to_dim(size, self.symbols) for size in fake.shape]
                return self.builder.parameter(self.builder.unique("refused"), from_torch_dtype(fake.dtype), shape)
            return to_dim(fake, self.symbols) if isinstance(fake, torch.SymInt) else fake

        fakes = node.meta.get("val")
        try:
            environment[node] = [value(fake) for fake in fakes] if isinstance(fakes, (list, tuple)) else value(fakes)
        except ConverterError:
            return False
        return fakes is not None

    def _emit(self, node: torch.fx.Node, name: str, environment: Mapping[torch.fx.Node, Any]) -> Any:
        if name in ITEMS and not isinstance(node.meta.get("val"), (int, float, bool)):
            return self._item(environment[node.args[0]], node.meta.get("val"))  # type: ignore[index]
        if _is_size(node):
            return self._size(node)
        if name in ("operator.getitem",):
            return environment[node.args[0]][node.args[1]]  # type: ignore[index]
        importer = importers().get(name)
        if importer is None:
            raise self.refuse(*_missing(node))
        args, kwargs = self._arguments(node, environment)
        try:
            result = importer(self, *args, **kwargs)
        except TypeError as error:
            if any(isinstance(environment.get(item), (Value, SizeNumber)) for item in node.all_input_nodes if _is_size(item)):
                raise self.refuse("a number read from a tensor stands where only a fixed one may") from error
            raise
        self._agree(node, result)
        return result

    def _item(self, tensor: Value, number: Any) -> Any:
        """A number read from a tensor: the tensor itself, of no axes, which stands wherever an operand may.

        A size that the trace found to be a known one is that.
        """
        expression = number.node.expr if isinstance(number, (torch.SymInt, torch.SymFloat, torch.SymBool)) else None
        own = [] if expression is None else [item for item in expression.free_symbols if not is_known(item, self.symbols)]
        if isinstance(number, torch.SymInt) and not own:
            return to_dim(number, self.symbols)
        if any(user.op == "output" for user in self.node.users):
            # What Python's own numbers are.
            if tensor.dtype is not DType.BOOL:
                tensor = self.cast(tensor, DType.FLOAT64 if tensor.dtype.is_float else DType.INT64)
        scalar = tensor if tensor.rank == 0 else self.op("reshape", tensor, shape=())
        if len(own) == 1:
            self.numbers.setdefault(str(own[0]), scalar)
        return scalar

    def _arguments(self, node: torch.fx.Node, environment: Mapping[torch.fx.Node, Any]) -> tuple[list[Any], dict[str, Any]]:
        """A node's operands and attributes, numbers as sizes where the operator takes integers."""
        schema = node.target._schema.arguments if isinstance(node.target, torch._ops.OpOverload) else ()
        types = {item.name: str(item.type).lower() for item in schema}
        counts = "arange" in target_name(node.target)
        places = [counts or "int" in types[item.name] for item in schema]
        args = [self._resolve(item, environment, place < len(places) and places[place]) for place, item in enumerate(node.args)]
        kwargs = {key: self._resolve(item, environment, counts or "int" in types.get(key, ""))
                  for key, item in node.kwargs.items() if key not in PLACEMENT}
        return args, kwargs

    def _size(self, node: torch.fx.Node) -> Any:
        value = node.meta["val"]
        if isinstance(value, torch.SymFloat) and value.node.expr.is_number:
            return float(value.node.expr)
        if isinstance(value, (torch.SymFloat, torch.SymBool)):
            return SizeNumber(value.node.expr)
        if not isinstance(value, torch.SymInt):
            return value
        # A number of the data becomes a size only where one is needed.
        of_data = any(str(item) in self.numbers for item in value.node.expr.free_symbols)
        return SizeNumber(value.node.expr) if of_data else to_dim(value, self.symbols)

    def _resolve(self, item: Any, environment: Mapping[torch.fx.Node, Any], as_size: bool = False) -> Any:
        if isinstance(item, torch.fx.Node):
            found = environment[item]
            if as_size and isinstance(found, (Value, SizeNumber)) and isinstance(item.meta.get("val"), torch.SymInt):
                return to_dim(item.meta["val"], self.symbols)
            return found
        if isinstance(item, (list, tuple)):
            return [self._resolve(entry, environment, as_size) for entry in item]
        if isinstance(item, slice):
            return slice(*(self._resolve(entry, environment, as_size) for entry in (item.start, item.stop, item.step)))
        return item

    def _agree(self, node: torch.fx.Node, result: Any) -> None:
        """Raises when an importer's result has not the dtype and shape that PyTorch says: never guess past that."""
        values = node.meta.get("val")
        pairs = zip(values, result, strict=False) if isinstance(values, (list, tuple)) else [(values, result)]
        for fake, value in pairs:
            if not isinstance(value, Value) or not isinstance(fake, torch.Tensor):
                continue
            expected = TensorSpec(from_torch_dtype(fake.dtype), tuple(to_dim(size, self.symbols) for size in fake.shape))
            from converter.checking import require_same

            require_same(value.spec, expected, f"{target_name(node.target)} -> {value.name}")


TORCHS_OWN = frozenset({"aten", "prim", "prims", "rngprims", "inductor", "profiler", "_c10d_functional"})
"""The namespaces of operators that come with torch."""

PLACEMENT = frozenset({"device", "layout", "pin_memory", "memory_format"})


def is_known(item: Any, symbols: Mapping[str, Any]) -> bool:
    """Whether a symbol of torch's is an input's size, or one that a result has given a value; else a number that only the data decide."""
    return str(item) in symbols or not str(item).startswith(("u", "zuf"))


def _is_size(node: torch.fx.Node) -> bool:
    """Whether the node computes a size and not a tensor."""
    return isinstance(node.meta.get("val"), (torch.SymInt, torch.SymFloat, torch.SymBool, int, float, bool))


WAY_OUT = ("compute it with torch's operators, as the body of torch.library.custom_op or in forward itself, "
           "and what needs values outside of the model")
"""What a person can do about an operator of their own that is refused."""


def _missing(node: torch.fx.Node) -> tuple[str, str | None]:
    """The reason for which an operator without an importer is refused, and its cause."""
    if "refused" in node.meta:
        return str(node.meta["refused"]), None
    if isinstance(node.target, torch._ops.OpOverload) and node.target.namespace not in TORCHS_OWN:
        return f"an operator without a Python body: {WAY_OUT}", None
    if torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ()):
        return "random", "random"
    return "no importer for this operator", None


def _is_checked_only(node: torch.fx.Node) -> bool:
    """Whether a size is computed for nothing but checks."""
    return bool(node.users) and all(user.op == "call_function" and (target_name(user.target) in CHECKS or _is_size(user)
                                                                    and _is_checked_only(user)) for user in node.users)


def needed(graph: torch.fx.Graph) -> set[torch.fx.Node]:
    """The nodes that a graph's outputs, its checks or what it writes in place are computed from."""
    found: set[torch.fx.Node] = set()
    for node in reversed(graph.nodes):
        if node.op != "call_function" or node in found or target_name(node.target) in CHECKS or node.is_impure():
            found.update((node, *node.all_input_nodes))
    return found


def attribute(module: Any, path: str) -> Any:
    """What a get_attr node names."""
    for step in path.split("."):
        module = getattr(module, step)
    return module


def _flat(value: Any) -> list[Any]:
    if isinstance(value, (list, tuple)):
        return [item for entry in value for item in _flat(entry)]
    return [value]


def source_of(node: torch.fx.Node) -> str | None:
    """The innermost line of user code that a node came from, as `file.py:12 in forward`: folders have names of people in them."""
    trace = node.meta.get("stack_trace")
    if not trace:
        return None
    for line in reversed(trace.splitlines()):
        line = line.strip()
        if line.startswith("File ") and "/torch/" not in line and "<eval_with_key>" not in line:
            path, _, rest = line[len("File "):].partition(", line ")
            number, _, function = rest.partition(", in ")
            return f"{PurePath(path.strip(chr(34))).name}:{number} in {function}"
    return None


