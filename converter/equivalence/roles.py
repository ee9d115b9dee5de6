"""What an input is for, read off the graph: ids of a table, a mask, a value of a function's domain.

Values follow an input from node to node as long as only their place, shape or dtype changes. The first operator that
does more with them says what they are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from converter.checking import check
from converter.dims import Dim, Expr, floor_divide
from converter.ir import DType, Graph, Node, TensorSpec
from converter.opset import facts_of, lookup
from converter.parameters import ParameterStore
from converter.resolved import resolve

Specs = Mapping[str, TensorSpec]
Ends = Mapping[str, Dim]

LARGE = 1000.0
"""A literal factor of at least this much makes what it multiplies an additive mask."""

DEFAULT_INTEGERS = (0, 10)


@dataclass(frozen=True, slots=True)
class Role:
    """What an input's values must be.

    `bounds` are upper bounds (sizes of tables, exclusive) with what the graph adds to the ids, which may come as floats, before it looks
    them up, and `low` the least id, where it is not that of the tables; `hides` says that a mask is true where nothing is to be seen;
    `domain` is an interval of floats; `offsets` is the size of the
    axis that they part into bags, in order, with its end as the last of them where `closed`; `divisor` says that none is 0;
    `matrix` that the last two axes hold matrices that can be inverted ("regular"), or factored ("definite"); `ordered` that
    values ascend along the last axis, `falling` that they descend; `wide` that an integer may be any
    number; `unscaled` that no row may be zero.
    """

    bounds: tuple[tuple[Dim, int], ...] = ()
    low: int | None = None
    mask: bool = False
    hides: bool = False
    domain: tuple[float, float] | None = None
    offsets: Dim | None = None
    closed: bool = False
    divisor: bool = False
    matrix: Literal["", "regular", "definite"] = ""
    ordered: bool = False
    falling: bool = False
    wide: bool = False
    unscaled: bool = False

    @property
    def scaled(self) -> bool:
        """Whether floats may have rows of any size, zeros too."""
        return self.domain is None and not self.matrix and not self.unscaled and not self.bounds

    def integer_range(self, size: Callable[[Dim], int]) -> tuple[int, int] | None:
        """[low, high) that every table allows, `size` giving a bound's value; None when there is no such id or no table."""
        if not self.bounds:
            return None
        low = max(-shift for _, shift in self.bounds) if self.low is None else self.low
        high = min(size(bound) - shift for bound, shift in self.bounds)
        return (low, high) if low < high else None


@dataclass(frozen=True, slots=True)
class _Use:
    """A value that holds an input's values plus `shift`, `sorted` where they were put in order on the way."""

    value: str
    shift: int = 0
    sorted: bool = False


def roles(graph: Graph, parameters: ParameterStore | Specs | None = None) -> dict[str, Role]:
    """The role of every input by name. Raises `GraphError` as `converter.checking.check` does."""
    specs = check(graph, parameters)
    graph = _with_numbers(graph)
    consumers: dict[str, list[tuple[Node, int]]] = {}
    for node in graph.nodes:
        for position, operand in enumerate(node.inputs):
            if isinstance(operand, str):
                consumers.setdefault(operand, []).append((node, position))
    ends, touchy = _ends(graph), _touchy(graph, consumers)
    found = {port.name: _role(port.name, port.spec.dtype, consumers, specs, ends) for port in graph.inputs}
    return {name: replace(role, unscaled=role.unscaled or name in touchy) for name, role in found.items()}


def _with_numbers(graph: Graph) -> Graph:
    """The graph with numbers in the place of tensors that are one: files of other tools hold these."""
    numbers = {node.outputs[0]: node.attributes["fill_value"] for node in graph.nodes
               if node.op == "full" and node.attributes["shape"] == ()}
    nodes = []
    for node in graph.nodes:
        inputs = tuple(numbers.get(item, item) if isinstance(item, str) else item for item in node.inputs)
        whole = lookup(node.op).literals and inputs != node.inputs and any(isinstance(item, str) for item in inputs)
        nodes.append(replace(node, inputs=inputs) if whole else node)
    return replace(graph, nodes=tuple(nodes))


def _touchy(graph: Graph, consumers: Mapping[str, list[tuple[Node, int]]]) -> set[str]:
    """The values that matrices to be inverted are computed from, and those from which a place is chosen that the graph goes on with: rows
    of zeros make such matrices singular, and such choices ties."""
    found: set[str] = set()
    for node in reversed(graph.nodes):
        facts = facts_of(node.op)
        chosen = node.outputs[len(lookup(node.op).outputs or ()) - 1:] if facts.chooses else ()
        if found.intersection(filter(None, node.outputs)):
            found.update(node.names)
        elif facts.matrix and _attribute(node, "n", -1) < 0 or any(consumers.get(str(name)) for name in chosen):
            found.update(node.names[:1])
    return found


def _ends(graph: Graph) -> dict[str, Dim]:
    """The values that count from 0, with their ends: what lengths are compared with to make a mask."""
    ends: dict[str, Dim] = {}
    for node in graph.nodes:
        if node.op == "arange" and _attribute(node, "start", 0) == 0 and _attribute(node, "step", 1) == 1:
            ends[str(node.outputs[0])] = _attribute(node, "stop", 0)
        elif facts_of(node.op).whole and isinstance(node.inputs[0], str) and node.inputs[0] in ends:
            ends[str(node.outputs[0])] = ends[node.inputs[0]]
    return ends


def _role(name: str, dtype: DType, consumers: Mapping[str, list[tuple[Node, int]]], specs: Specs, ends: Ends) -> Role:
    role = Role(mask=dtype is DType.BOOL, wide=dtype.is_integer)
    waiting, seen = [_Use(name)], set()
    while waiting:
        use = waiting.pop()
        if use in seen:
            continue
        seen.add(use)
        for node, position in consumers.get(use.value, ()):
            role = _read(role, node, position, use, dtype, specs, ends)
            followed = _follow(node, position, use)
            if not followed and position not in facts_of(node.op).wide:
                role = replace(role, wide=False)
            waiting += followed
    if role.mask:
        return replace(role, wide=False, hides=_hides(name, consumers))
    return replace(role, wide=False) if role.bounds or role.divisor or role.offsets is not None else role


def _hides(name: str, consumers: Mapping[str, list[tuple[Node, int]]]) -> bool:
    """Whether a mask, where it is true, puts a large negative number in the place of what there is."""
    waiting, seen = [(name, True)], set()
    while waiting:
        use = value, hidden = waiting.pop()
        for node, position in consumers.get(value, ()) if use not in seen else ():
            if node.op == "where" and position == 0:
                covers = [isinstance(item, (int, float)) and item <= -LARGE for item in node.inputs[1:]]
                if any(covers):
                    return covers[0] is hidden
            turned = node.op in ("logical_not", "bitwise_not") or node.op == "equal" and _literal(node) == 0
            if turned or node.op == "not_equal" and _literal(node) == 0 or position in facts_of(node.op).carries:
                waiting += [(str(output), hidden is not turned) for output in node.outputs[:1]]
        seen.add(use)
    return False


def _read(role: Role, node: Node, position: int, use: _Use, dtype: DType, specs: Specs, ends: Ends) -> Role:
    """What one node says about the values that reach it."""
    if node.op == "searchsorted" and position == 0:
        return replace(role, ordered=True)
    facts = facts_of(node.op)
    if facts.matrix == "definite":
        return replace(role, matrix="definite")
    if facts.matrix == "factored":
        return replace(role, unscaled=True)
    if facts.matrix == "inverted" and position == 0 and _attribute(node, "n", -1) < 0:
        return replace(role, matrix=role.matrix or "regular")
    bound = _table(node, position, specs)
    if dtype.is_float:
        if bound is not None:
            return replace(role, bounds=(*role.bounds, (bound, use.shift)))
        if role.domain is not None:
            return role
        return replace(role, domain=_state(node, position) if facts.states else facts.interval(position))
    if position == facts.divisor:
        return replace(role, divisor=True)
    if facts.states:
        # torch packs sequences that are not sorted by length only where it sorts them itself.
        time = specs[str(node.inputs[0])].shape[1 if _attribute(node, "batch_first", False) else 0]
        return replace(role, bounds=(*role.bounds, (time + 1, 0)), low=1, falling=role.falling or not use.sorted)
    counted = ends.get(str(node.inputs[1 - position])) if facts.compares == "order" else None
    if counted is not None:
        return replace(role, bounds=(*role.bounds, (counted + 1, use.shift)), low=1)
    if node.op == "ctc_loss":
        return _sequences(role, node, position, specs)
    if node.op == "embedding_bag" and position == 2 and isinstance(node.inputs[0], str):
        return replace(role, offsets=specs[node.inputs[0]].shape[0], closed=bool(_attribute(node, "include_last_offset", False)))
    if bound is not None:
        return replace(role, bounds=(*role.bounds, (bound, use.shift)))
    if not role.mask and _masks(node, specs):
        return replace(role, mask=True)
    return role


def _state(node: Node, position: int) -> tuple[float, float] | None:
    """The range of the initial state at this position of a recurrent layer: what such a layer can give."""
    each = 2 + 2 * bool(_attribute(node, "bias", True)) + bool(_attribute(node, "proj_size", 0))
    first = 1 + each * int(_attribute(node, "num_layers", 1)) * (1 + bool(_attribute(node, "bidirectional", False)))
    ranges = facts_of(node.op).states if _attribute(node, "nonlinearity", "tanh") == "tanh" else ()
    return ranges[position - first] if 0 <= position - first < len(ranges) else None


def _sequences(role: Role, node: Node, position: int, specs: Specs) -> Role:
    """`ctc_loss`: targets are the classes below the blank, or above it where it is class 0; lengths go from 1 to what there is."""
    log_probs, targets = (specs[operand].shape for operand in node.inputs[:2] if isinstance(operand, str))
    if position == 1:
        blank = int(_attribute(node, "blank", 0))
        return replace(role, bounds=(*role.bounds, (blank or log_probs[-1], 0)), low=int(not blank))
    if position == 2:
        return replace(role, bounds=(*role.bounds, (log_probs[0] + 1, 0)), low=1)
    count = log_probs[1] if len(log_probs) == 3 else 1
    longest = targets[-1] if len(targets) == 2 else floor_divide(targets[-1], count)
    return replace(role, bounds=(*role.bounds, (longest + 1, 0)), low=1)


def _table(node: Node, position: int, specs: Specs) -> Dim | None:
    """How many ids the node takes at this position, or None when it looks nothing up there."""
    ids = facts_of(node.op).ids
    if ids is None or position != ids.at and not (ids.onward and position > ids.at):
        return None
    axis = _attribute(node, ids.axis, lookup(node.op).attributes[ids.axis].default) if isinstance(ids.axis, str) else ids.axis
    if ids.table is None:
        return axis if isinstance(axis, (int, Expr)) and not isinstance(axis, bool) and axis != -1 else None
    table = node.inputs[ids.table]
    if not isinstance(table, str) or not isinstance(axis, int):
        return None
    shape, axis = specs[table].shape, axis + (position - ids.at if ids.onward else 0)
    return shape[axis] if -len(shape) <= axis < len(shape) else None


def _attribute(node: Node, name: str, default: Any) -> Any:
    return resolve(node).filled.get(name, default)


def _literal(node: Node) -> float | None:
    for operand in node.inputs:
        if isinstance(operand, (int, float)) and not isinstance(operand, bool):
            return float(operand)
    return None


def _masks(node: Node, specs: Specs) -> bool:
    """Whether a node treats an integer as a truth value."""
    literal = _literal(node)
    if node.op == "astype":
        return _attribute(node, "dtype", None) is DType.BOOL
    if facts_of(node.op).compares:
        return literal in (0.0, 1.0)
    if node.op == "subtract":
        return literal == 1.0 and isinstance(node.inputs[0], (int, float))
    if node.op == "multiply":
        return literal is not None and abs(literal) >= LARGE
    return facts_of(node.op).truth


def _follow(node: Node, position: int, use: _Use) -> list[_Use]:
    """The outputs in which the values live on."""
    outputs = [name for name in node.outputs if name is not None]
    literal = _literal(node)
    if node.op in ("add", "subtract") and literal is not None and literal == int(literal) and position == 0:
        shift = int(literal) if node.op == "add" else -int(literal)
        return [replace(use, value=name, shift=use.shift + shift) for name in outputs]
    if node.op == "add" and literal is not None and literal == int(literal):
        return [replace(use, value=name, shift=use.shift + int(literal)) for name in outputs]
    if node.op == "subtract" and literal == 1.0:
        return [replace(use, value=name) for name in outputs]
    if position not in facts_of(node.op).carries:
        return []
    if lookup(node.op).outputs is not None:
        outputs = [name for name in node.outputs[:1] if name is not None]  # the others are places or counts
    return [replace(use, value=name, sorted=use.sorted or node.op == "sort") for name in outputs]
