"""Control flow: graphs within a graph, of which one runs, or which run again and again.

A sub-graph reads the operands that its node passes it, in order, and nothing else: parameters are passed too. Symbols in
its inputs' shapes are bound by the operands, as a graph's are by its inputs; other symbols are those of the graph around.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

import numpy as np

from converter.dims import Dim, Expr, substitute, symbols
from converter.equal_sizes import differ
from converter.errors import EndlessLoopError
from converter.ir import Array, DType, Graph, TensorSpec
from converter.ops._rules import require
from converter.opset import lookup, op

# The annotation of an attribute that is a graph: a kernel gets a function of arrays in its place.
if TYPE_CHECKING:
    Body = Callable[..., tuple[Array, ...]]
else:
    Body = Graph

Specs = Sequence[TensorSpec]

MAX_STEPS = 1 << 17
"""Of a loop that only the data end: a file may hold one that never does."""
MAX_STEPS_WITHIN = 1 << 19
"""Of all such loops within another loop, together."""

_left: ContextVar[list[int] | None] = ContextVar("_left", default=None)


@contextmanager
def counted_steps() -> Iterator[Callable[[], None]]:
    """Gives what a loop calls at each step, which counts for the loops around it too, and raises `EndlessLoopError` after the last."""
    left, own = _left.get(), [MAX_STEPS]
    token = _left.set([MAX_STEPS_WITHIN] if left is None else left)

    def count() -> None:
        for counter, most in ((own, MAX_STEPS), (_left.get(), MAX_STEPS_WITHIN)):
            if counter is not None:
                if not counter[0]:
                    raise EndlessLoopError(f"a loop did not end within {most:,} steps")
                counter[0] -= 1

    try:
        yield count
    finally:
        _left.reset(token)


def _call(graph: Graph, operands: Specs, what: str) -> tuple[TensorSpec, ...]:
    """The specs of what a sub-graph gives for operands, in the sizes of the graph around."""
    require(len(graph.inputs) == len(operands), f"the {what} takes another number of operands",
            expected=str(len(graph.inputs)), received=len(operands))
    bindings: dict[str, Dim] = {}
    for port, operand in zip(graph.inputs, operands, strict=True):
        require(port.spec.dtype is operand.dtype and port.spec.rank == operand.rank, f"an operand that the {what} does not take",
                expected=f"{port.name}: {port.spec}", received=operand)
        for size, found in zip(port.spec.shape, operand.shape, strict=True):
            if isinstance(size, Expr) and size.symbol:
                bindings.setdefault(size.symbol, found)
    for port, operand in zip(graph.inputs, operands, strict=True):
        for size, found in zip(port.spec.shape, operand.shape, strict=True):
            require(not differ(substitute(size, bindings), found), f"an operand that the {what} does not take",
                    expected=f"{port.name}: {port.spec}", received=operand)
    inside = _bound_inside(graph)
    results = []
    for output in graph.outputs:
        hidden = {name for size in output.spec.shape for name in symbols(size)} & inside
        require(not hidden, f"a result of the {what} whose size only its data decide", expected="sizes known outside",
                received=f"{output.name}: {output.spec}")
        results.append(TensorSpec(output.spec.dtype, tuple(substitute(size, bindings) for size in output.spec.shape)))
    return tuple(results)


def _bound_inside(graph: Graph) -> set[str]:
    return {node.attributes[name].symbol for node in graph.nodes for name in lookup(node.op).binds if name in node.attributes}


def _agree(left: Specs, right: Specs, what: str) -> None:
    same = len(left) == len(right) and all(
        a.dtype is b.dtype and a.rank == b.rank and not any(differ(p, q) for p, q in zip(a.shape, b.shape, strict=True))
        for a, b in zip(left, right, strict=True))
    require(same, what, expected=", ".join(map(str, left)), received=", ".join(map(str, right)))


def _require_flag(spec: TensorSpec, what: str) -> None:
    require(spec.dtype is DType.BOOL and spec.rank == 0, f"{what} is no single boolean", expected="bool[]", received=spec)


def _cond(predicate: TensorSpec, *operands: TensorSpec, then_branch: Graph, else_branch: Graph) -> tuple[TensorSpec, ...]:
    _require_flag(predicate, "the predicate")
    results, others = _call(then_branch, operands, "then_branch"), _call(else_branch, operands, "else_branch")
    _agree(results, others, "the branches give results of different kinds")
    return results


@op(infer=_cond, outputs=None, passes=lambda operands, **attributes: operands[1:])
def cond(predicate: Array, *operands: Array, then_branch: Body, else_branch: Body) -> tuple[Array, ...]:
    """What `then_branch` gives for the operands where the predicate, bool[], is true; else what `else_branch` gives.

    Only one of the two runs. Both take all operands, and their results have the same dtypes and shapes. torch.cond.
    """
    return then_branch(*operands) if predicate else else_branch(*operands)


def _while_loop(*values: TensorSpec, carried: int, condition: Graph, body: Graph) -> tuple[TensorSpec, ...]:
    require(0 < carried <= len(values), "more is carried than there is", expected=f"1 to {len(values)}", received=carried)
    flags = _call(condition, values, "condition")
    require(len(flags) == 1, "the condition gives more than one value", expected="bool[]", received=", ".join(map(str, flags)))
    _require_flag(flags[0], "the condition's value")
    _agree(values[:carried], _call(body, values, "body"), "the body changes the number, dtype or shape of what is carried")
    return values[:carried]


@op(infer=_while_loop, outputs=None)
def while_loop(*values: Array, carried: int, condition: Body, body: Body) -> tuple[Array, ...]:
    """Runs `body` as long as `condition` gives true: torch's while_loop.

    Both take all values. The body gives new values, of the same dtypes and shapes, for the first `carried` of them; the
    others stay as they are. Gives the carried values once the condition is false, at the start maybe. A loop of more than
    131,072 steps is an error, and so are loops within another of more than 524,288 together.
    """
    with counted_steps() as count:
        while condition(*values)[0]:
            count()
            values = (*body(*values), *values[carried:])
    return values[:carried]


def _scanned(values: Specs, *, states: int, sequences: int, **attributes: object) -> Specs:
    """What the body takes: of the sequences, an element."""
    return [TensorSpec(item.dtype, item.shape[1:]) if states <= place < states + sequences else item for place, item in enumerate(values)]


def _scan(*values: TensorSpec, states: int, sequences: int, body: Graph) -> tuple[TensorSpec, ...]:
    require(states >= 0 and sequences > 0 and states + sequences <= len(values), "fewer operands than states and sequences",
            expected=f"at least {states} + {sequences}, of them at least one sequence", received=len(values))
    initial, scanned = values[:states], values[states:states + sequences]
    require(all(item.rank for item in scanned), "a sequence without an axis", received=", ".join(map(str, scanned)))
    length = scanned[0].shape[0]
    for item in scanned:
        require(not differ(item.shape[0], length), "sequences of different lengths", expected=str(length), received=item)
    results = _call(body, _scanned(values, states=states, sequences=sequences), "body")
    require(len(results) >= states, "the body gives fewer values than there are states", expected=str(states), received=len(results))
    _agree(initial, results[:states], "the body changes the dtype or shape of a state")
    return (*initial, *(TensorSpec(item.dtype, (length, *item.shape)) for item in results[states:]))


@op(infer=_scan, outputs=None, passes=_scanned)
def scan(*values: Array, states: int, sequences: int, body: Body) -> tuple[Array, ...]:
    """Runs `body` on each element of sequences, along their axis 0, in order: torch's scan, and its map without states.

    The values are `states` initial states, then `sequences` sequences of one length, 1 or more, then what the body takes
    besides. The body takes the states, an element of each sequence, and the rest; it gives the new states and further
    values. Gives the last states, then each further value of all steps, stacked along a new axis 0.
    """
    state, scanned, rest = values[:states], values[states:states + sequences], values[states + sequences:]
    if not len(scanned[0]):
        raise ValueError("a scan over no elements")
    rows: list[tuple[Array, ...]] = []
    with counted_steps():
        for elements in zip(*scanned, strict=True):
            results = body(*state, *elements, *rest)
            state = results[:states]
            rows.append(results[states:])
    return (*state, *(np.stack(column) for column in zip(*rows, strict=True)))


