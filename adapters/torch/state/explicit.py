"""The state of a module as further inputs and outputs of its forward: `state.h` in, `next_state.h` out."""

from __future__ import annotations

import inspect
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.utils._pytree as pytree
from torch.export import Dim

from adapters.torch.state.kept import copied, find_state, fingerprint, names_of, put, value_of
from adapters.torch.state.memory import Memory, Slot, evaluation
from adapters.torch.tracing.inputs import call, flat_names
from adapters.torch.tracing.trace import Prepared
from converter.errors import ConverterError, UnsupportedError
from converter.ir import Model

GIVEN, LEFT = "state", "next_state"


@dataclass(frozen=True)
class Carried:
    """One slot: its name, what it holds at first, and the dtypes of its tensors."""

    slot: Slot
    name: str
    initial: Any


@contextmanager
def with_explicit_state(ready: Prepared) -> Iterator[Prepared]:
    """While active, the module's forward takes its state by the keyword `state` and gives what it leaves as `next_state`.

    Raises `UnsupportedError` for state that no tensors hold, and where the first call goes another way than later ones.
    """
    module = ready.module
    with evaluation(module) as memory:
        found = find_state(module, ready.args, ready.kwargs, memory).kept
        carried = [_carried(ready, slot, name, memory) for slot, name in zip(found, names_of(found, module), strict=True)]
        carried = _without_first_calls(ready, carried, memory)
    if not carried:
        yield replace(ready, notes=(*ready.notes, "forward keeps no state: there is none to make explicit"))
        return
    keyword = GIVEN
    while keyword in inspect.signature(module.forward).parameters:
        keyword = f"{keyword}_"
    there = "forward" in vars(module)
    original = module.forward
    vars(module)["forward"] = _forward(original, carried, keyword)
    try:
        yield replace(ready, kwargs={**ready.kwargs, keyword: _tree({item.name: _given(copied(item.initial)) for item in carried})})
    finally:
        if there:
            vars(module)["forward"] = original
        else:
            vars(module).pop("forward", None)


def with_state_sizes(dims: Any, ready: Prepared) -> Any:
    """`dims` by input with the sizes of the state free too, as far as the module lets them."""
    keyword = next(reversed(ready.kwargs), "")
    if not isinstance(dims, Mapping) or not keyword.startswith(GIVEN):
        return dims
    tree = {keyword: ready.kwargs[keyword]}
    sizes = {name: [Dim.AUTO] * leaf.dim() for name, leaf in zip(flat_names(tree), pytree.tree_leaves(tree), strict=True)
             if isinstance(leaf, torch.Tensor)}
    return {**sizes, **dims}


def with_pairs(model: Model) -> Model:
    """The model with `metadata["state"]`: the input to give at the next run for each output that holds state."""
    left = [port.name.removeprefix(f"{LEFT}.") for port in model.graph.outputs if port.name.startswith(f"{LEFT}.")]
    given = {port.name.partition(".")[2]: port.name for port in model.graph.inputs if port.name.startswith(GIVEN)}
    pairs = {given[name]: f"{LEFT}.{name}" for name in left if name in given}
    return replace(model, metadata={**model.metadata, "state": pairs}) if pairs else model


def _forward(original: Any, carried: Sequence[Carried], keyword: str) -> Any:
    def forward(*args: Any, **kwargs: Any) -> Any:
        given = _leaves(kwargs.pop(keyword), carried)
        own = [(vars(owner), dict(vars(owner))) for owner in {id(item.slot[0]): item.slot[0] for item in carried}.values()]
        tables = [(table, dict(table)) for item in carried if (table := _registered(item.slot)) is not None]
        try:
            for item in carried:
                owner, name = item.slot
                table = _registered(item.slot)
                if table is not None:  # the tracer takes what is given to a buffer for a change of the buffer
                    del table[name]
                owner.__dict__[name] = _cloned(deque(given[item.name], item.initial.maxlen) if isinstance(item.initial, deque)
                                               else given[item.name])
            result = original(*args, **kwargs)
            left = {item.name: _like(vars(item.slot[0])[item.slot[1]], item) for item in carried}
        finally:
            for table, before in [*own, *tables]:
                table.clear()
                table.update(before)
        return {**_named(result), LEFT: _tree(left)}

    signature = inspect.signature(original)
    own = inspect.Parameter(keyword, inspect.Parameter.KEYWORD_ONLY)
    items = list(signature.parameters.values())
    place = len(items) - bool(items and items[-1].kind is inspect.Parameter.VAR_KEYWORD)
    forward.__signature__ = signature.replace(parameters=[*items[:place], own, *items[place:]])  # type: ignore[attr-defined]
    return forward


def _given(value: Any) -> Any:
    """A value in containers that the tracer knows sizes of: a list for a deque."""
    return [_given(item) for item in value] if isinstance(value, deque) else value


def _cloned(value: Any) -> Any:
    return pytree.tree_map(lambda leaf: leaf.clone() if isinstance(leaf, torch.Tensor) else leaf, value)


def _registered(slot: Slot) -> Any:
    """The dict of a module's buffers, or parameters, that has the slot; None for an attribute."""
    owner, name = slot
    return next((vars(owner)[kind] for kind in ("_buffers", "_parameters") if name in vars(owner).get(kind, ())), None)


def _named(result: Any) -> dict[str, Any]:
    """A result as a dict of its leaves under the names that the outputs of a model have."""
    names = [path or "output" for path in flat_names(result)]
    return {f"output_{name}" if name.isdigit() else name: leaf for name, leaf in zip(names, pytree.tree_leaves(result), strict=True)}


def _tree(values: Mapping[str, Any]) -> dict[str, Any]:
    """`{"part": {"h": …}}` for `{"part.h": …}`."""
    tree: dict[str, Any] = {}
    for name, value in values.items():
        *path, last = name.split(".")
        place = tree
        for step in path:
            place = place.setdefault(step, {})
        place[last] = value
    return tree


def _leaves(tree: Any, carried: Sequence[Carried]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for item in carried:
        value = tree
        for step in item.name.split("."):
            value = value[step]
        found[item.name] = value
    return found


def _like(value: Any, item: Carried) -> Any:
    """What is left in a slot, of the kind that it was given in."""
    leaves, structure = pytree.tree_flatten(value)
    wanted, known = pytree.tree_flatten(item.initial)
    if len(leaves) != len(wanted) or structure != known:
        raise _refuse(item.name, "is of another structure after a call")
    filled = [torch.as_tensor(leaf, dtype=like.dtype) if isinstance(like, torch.Tensor) and not isinstance(leaf, torch.Tensor) else leaf
              for leaf, like in zip(leaves, wanted, strict=True)]
    return pytree.tree_unflatten(filled, structure)


# What there is at first ------------------------------------------------------------------------------------------------------


def _carried(ready: Prepared, slot: Slot, name: str, memory: Memory) -> Carried:
    """The slot with its numbers as tensors; what a first call makes of nothing is None still."""
    value = value_of(slot)
    if not isinstance(slot[0], torch.nn.Module):
        raise _refuse(name, "is kept outside of the module")
    if value is None:
        return Carried(slot, name, None)
    after = _after_a_call(ready, [slot], memory)[1][0]
    if pytree.tree_structure(value) != pytree.tree_structure(after):
        raise _refuse(name, "is of another structure after a call: it grows, or is made in it")
    if not any(isinstance(leaf, (torch.Tensor, bool, int, float)) for leaf in pytree.tree_leaves(value)):
        raise _refuse(name, f"is held in {type(value).__name__}, not in tensors and numbers")
    return Carried(slot, name, pytree.tree_map(_tensor, copied(value)))


def _without_first_calls(ready: Prepared, carried: list[Carried], memory: Memory) -> list[Carried]:
    """State that is not there at first as zeros, where these give what the first call gives.

    Raises `UnsupportedError` where they do not.
    """
    missing = [item for item in carried if item.initial is None]
    if not missing:
        return carried
    slots = [item.slot for item in carried]
    wanted, after = _after_a_call(ready, slots, memory)
    zeros = {item.name: pytree.tree_map(lambda leaf: torch.zeros_like(_tensor(leaf)), value)
             for item, value in zip(carried, after, strict=True) if item.initial is None}
    found, left = _after_a_call(ready, slots, memory, {item.slot: zeros[item.name] for item in missing})
    if fingerprint(after, 8) != fingerprint(left, 8) or not all(torch.equal(one, two) for one, two in zip(wanted, found, strict=True)):
        names = ", ".join(item.name for item in missing)
        raise _refuse(names, "is not there before the first call, which gives something else than a call on zeros",
                      "call the module once and reset the state to tensors, then convert it")
    return [replace(item, initial=zeros[item.name]) if item.initial is None else item for item in carried]


def _after_a_call(ready: Prepared, slots: Sequence[Slot], memory: Memory,
                  given: Mapping[Slot, Any] | None = None) -> tuple[list[torch.Tensor], list[Any]]:
    """What a call gives and leaves in the slots."""
    try:
        for slot, value in (given or {}).items():
            put(slot, copied(value))
        with torch.no_grad():
            result = call(ready.module, ready.args, ready.kwargs)
        return ([leaf.detach().clone() for leaf in pytree.tree_leaves(result) if isinstance(leaf, torch.Tensor)],
                [copied(value_of(slot)) for slot in slots])
    finally:
        memory.restore()


def _tensor(leaf: Any) -> Any:
    return torch.as_tensor(leaf, dtype=torch.float64 if isinstance(leaf, float) else None) if isinstance(leaf, (bool, int, float)) else leaf


def _refuse(name: str, reason: str, fix: str | None = None) -> ConverterError:
    return UnsupportedError(f"the state {name} {reason}", where="state='explicit'",
                            expected="tensors, numbers, and tuples, lists and dicts of these, as many after a call as before it",
                            fix=fix or "keep it in tensors of fixed number, or convert the module without state='explicit'")
