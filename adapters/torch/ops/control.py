"""Control flow: torch.cond, while_loop, scan and map, whose bodies are graphs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from adapters.torch.registry import imports, rebuilds
from adapters.torch.sizes.size_numbers import SizeNumber
from adapters.torch.tracing.bodies import bodies, flag, inline
from adapters.torch.tracing.importer import Importer
from converter.builder import Value
from converter.ir import DType
from converter.ops.control import counted_steps

Body = Callable[..., tuple[torch.Tensor, ...]]


@imports("higher_order.cond")
def cond(g: Importer, predicate: Any, then_branch: torch.fx.GraphModule, else_branch: torch.fx.GraphModule,
         operands: Sequence[Any] = ()) -> tuple[Value, ...]:
    if isinstance(predicate, (bool, SizeNumber)):
        predicate = flag(g, predicate)
    if predicate.rank:
        predicate = g.op("reshape", predicate, shape=())
    (then_graph, else_graph), values = bodies(g, (then_branch, else_branch), operands)
    return _results(g, g.add("cond", g.cast(predicate, DType.BOOL), *values, then_branch=then_graph, else_branch=else_graph))


@imports("higher_order.while_loop")
def while_loop(g: Importer, condition: torch.fx.GraphModule, body: torch.fx.GraphModule, carried: Sequence[Any],
               rest: Sequence[Any] = ()) -> tuple[Value, ...]:
    if not all(isinstance(item, Value) for item in carried):
        raise g.refuse("a loop that carries numbers: carry tensors, such as torch.tensor(0)")
    (condition_graph, body_graph), values = bodies(g, (condition, body), (*carried, *rest))
    return _results(g, g.add("while_loop", *values, carried=len(carried), condition=condition_graph, body=body_graph))


@imports("higher_order.scan")
def scan(g: Importer, body: torch.fx.GraphModule, states: Sequence[Any], sequences: Sequence[Any],
         rest: Sequence[Any] = ()) -> tuple[Value, ...]:
    (graph,), values = bodies(g, (body,), (*states, *sequences, *rest))
    return _results(g, g.add("scan", *values, states=len(states), sequences=len(sequences), body=graph))


@imports("higher_order.map_impl")
def map_impl(g: Importer, body: torch.fx.GraphModule, sequences: Sequence[Any], rest: Sequence[Any] = ()) -> tuple[Value, ...]:
    return scan(g, body, (), sequences, rest)


@imports("higher_order.wrap_with_set_grad_enabled")
def wrap_with_set_grad_enabled(g: Importer, enabled: bool, body: torch.fx.GraphModule, *operands: Any) -> list[Any]:
    return inline(g, body, operands)


@imports("higher_order.wrap_with_autocast")
def wrap_with_autocast(g: Importer, device: str, dtype: torch.dtype | None, enabled: bool, cache: bool | None, body: torch.fx.GraphModule,
                       *operands: Any) -> list[Any]:
    """A block that changes no dtypes; the casts of one that does are in the graph once it is traced again."""
    if casts(device, enabled):
        raise g.refuse("a block of torch.autocast whose casts torch does not show")
    return inline(g, body, operands)


def casts(device: str, enabled: bool) -> bool:
    """Whether `torch.autocast` changes what is computed here, which is on the CPU."""
    return enabled and device == "cpu"


def _results(g: Importer, results: tuple[Value, ...]) -> tuple[Value, ...]:
    if not all(isinstance(item, torch.Tensor) for item in g.node.meta["val"]):
        raise g.refuse("a result that is no tensor")
    return results


# Back to torch: plain Python where it runs, so that gradients flow; torch's own operators where it is traced ---------------


def _tracing() -> bool:
    return torch.compiler.is_exporting() or torch.compiler.is_compiling()


@rebuilds("cond")
def rebuild_cond(predicate: Any, *operands: Any, then_branch: Body, else_branch: Body) -> tuple[Any, ...]:
    if _tracing():
        return tuple(torch.cond(predicate, then_branch, else_branch, operands))
    return tuple(then_branch(*operands) if predicate else else_branch(*operands))


@rebuilds("while_loop")
def rebuild_while_loop(*values: Any, carried: int, condition: Body, body: Body) -> tuple[Any, ...]:
    rest = values[carried:]
    if _tracing():
        from torch._higher_order_ops.while_loop import while_loop as loop

        return tuple(loop(lambda *now: condition(*now, *rest)[0], lambda *now: body(*now, *rest), values[:carried]))
    now = values[:carried]
    with counted_steps() as count:
        while condition(*now, *rest)[0]:
            count()
            now = tuple(body(*now, *rest))
    return now


@rebuilds("scan")
def rebuild_scan(*values: Any, states: int, sequences: int, body: Body) -> tuple[Any, ...]:
    state, scanned, rest = values[:states], values[states:states + sequences], values[states + sequences:]
    if _tracing():
        return _traced_scan(state, scanned, rest, body)
    rows = []
    with counted_steps():
        for elements in zip(*(item.unbind(0) for item in scanned), strict=True):
            results = body(*state, *elements, *rest)
            state = tuple(results[:states])
            rows.append(results[states:])
    if not rows:
        raise ValueError("a scan over no elements")
    return (*state, *(torch.stack(column) for column in zip(*rows, strict=True)))


def _traced_scan(state: Sequence[Any], scanned: Sequence[Any], rest: Sequence[Any], body: Body) -> tuple[Any, ...]:
    from torch._higher_order_ops.map import map as torch_map
    from torch._higher_order_ops.scan import scan as torch_scan

    if not state:
        return tuple(torch_map(lambda elements: body(*elements, *rest), tuple(scanned)))  # type: ignore[arg-type, misc]

    def combine(now: Any, elements: Any) -> Any:
        results = body(*now, *elements, *rest)
        return tuple(results[:len(state)]), tuple(results[len(state):])

    last, rows = torch_scan(combine, tuple(state), tuple(scanned))
    return (*last, *rows)


