"""State that a forward pass keeps from one call to the next: found by calling a module twice, and said."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import FunctionType
from typing import Any

import numpy as np
import torch
import torch.utils._pytree as pytree

from adapters.torch.state.held_values import PLAIN, bind_name, names_in_reach, same_values
from adapters.torch.state.memory import Memory, Slot
from adapters.torch.tracing.caches import register_caches
from adapters.torch.tracing.effort import current
from adapters.torch.tracing.inputs import call
from converter.errors import UnsupportedError
from converter.ports import Concern

PROBED = 32
"""Up to this many slots are tried one by one."""


@dataclass(frozen=True)
class State:
    """What a call changes. `kept` carries over to what later calls give or leave; `noted` is the same after every call."""

    kept: tuple[Slot, ...] = ()
    noted: tuple[Slot, ...] = ()


def find_state(module: torch.nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any], memory: Memory) -> State:
    """Calls a module twice on the same arguments, the second time in the state that the first call left.

    What holds the same after both calls is a record (an attention map kept to be looked at, a mask made once) as long as
    the outputs are equal too; so is what changes nothing where it alone is as these calls left it. Anything else is
    state, and so is every buffer that is written to. `memory` is restored.

    Raises `UnsupportedError` where parameters or buffers are changed through `.data`, past what torch traces.
    """
    register_caches()
    states = torch.get_rng_state(), np.random.get_state()

    def again() -> list[torch.Tensor]:
        torch.set_rng_state(states[0])
        np.random.set_state(states[1])
        return _outputs(call(module, args, kwargs))

    try:
        with torch.no_grad():
            effort = current()
            began = effort.spent
            first = again()
            effort.note_run(effort.spent - began, (args, kwargs))
            changed = memory.changed()
            if not changed:
                return State()
            if memory.uncounted():
                raise _refuse_data(names_of(memory.uncounted(), module), module)
            prints, values = {slot: fingerprint(value_of(slot)) for slot in changed}, [{slot: copied(value_of(slot)) for slot in changed}]
            same = _equal(first, again())
            values.append({slot: copied(value_of(slot)) for slot in changed})
            slots = list(dict.fromkeys([*changed, *memory.changed()]))
            kept = [slot for slot in slots if not same or slot not in prints or _is_registered(slot)
                    or fingerprint(value_of(slot)) != prints[slot]]

            def is_read(slot: Slot, value: Any) -> bool:
                memory.restore()
                put(slot, copied(value))
                return not _equal(first, again()) or any(fingerprint(value_of(other)) != before for other, before in prints.items())

            kept = [slot for slot in kept if slot not in prints or _is_registered(slot) or not _is_copied(values[0][slot])
                    or len(slots) > PROBED or any(is_read(slot, held[slot]) for held in values)]
    except UnsupportedError:
        raise
    except Exception:  # the trace says what fails
        return State()
    finally:
        memory.restore()
    return State(tuple(kept), tuple(slot for slot in slots if slot not in kept))


def begin_with_copies(module: torch.nn.Module, slots: Sequence[Slot]) -> None:
    """Has forward begin with copies of the tensors in attributes that are state: the tracer refuses changes of constants in place.

    Within `unchanged`, which takes this back.
    """
    slots = [slot for slot in slots if isinstance(slot[0], torch.nn.Module) and not _is_registered(slot) and _is_copied(value_of(slot))]
    if not slots:
        return
    original, initial = module.forward, [(slot, value_of(slot)) for slot in slots]

    def forward(*args: Any, **kwargs: Any) -> Any:
        for slot, value in initial:
            put(slot, pytree.tree_map(lambda leaf: leaf.clone() if isinstance(leaf, torch.Tensor) else leaf, value))
        try:
            return original(*args, **kwargs)
        finally:
            for slot, value in initial:
                put(slot, value)

    forward.__signature__ = inspect.signature(original)  # type: ignore[attr-defined]
    vars(module)["forward"] = forward


def _equal(one: list[torch.Tensor], two: list[torch.Tensor]) -> bool:
    return len(one) == len(two) and all(same_values(a, b) for a, b in zip(one, two, strict=True))


def _refuse_data(names: list[str], module: torch.nn.Module) -> UnsupportedError:
    return UnsupportedError(f"forward changes {_listed(names)} through .data, which torch does not trace", where=type(module).__name__,
                            fix="change it once before converting and take the line out of forward, or compute with the changed value "
                                "(weight = torch.renorm(self.weight, …)) and leave the parameter")


def describe_state(state: State, module: torch.nn.Module) -> list[str]:
    """What a person should know of it."""
    said: list[str] = []
    if state.kept:
        said.append(Concern(f"forward keeps state in {_listed(names_of(state.kept, module))}: a graph has none, so each run of the model "
                            "starts from their values at conversion"))
    if state.noted:
        said.append(f"forward leaves values in {_listed(names_of(state.noted, module))}, which the model does not give")
    return said


def _listed(names: list[str], most: int = 12) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def names_of(slots: Sequence[Slot], module: torch.nn.Module) -> list[str]:
    """`encoder.h` for the attribute `h` of the part `encoder`."""
    paths = {id(part): f"{path}." if path else "" for path, part in module.named_modules()}

    def place(owner: Any) -> str:
        if isinstance(owner, (type, FunctionType)):
            return f"{owner.__qualname__}."
        return paths.get(id(owner), f"{type(owner).__name__}.")

    return [f"{place(owner)}{name}" for owner, name in slots]


def _is_registered(slot: Slot) -> bool:
    owner, name = slot
    return isinstance(owner, torch.nn.Module) and (name in owner._buffers or name in owner._parameters)


def value_of(slot: Slot) -> Any:
    """What a slot holds; None where it is not there."""
    owner, name = slot
    if isinstance(owner, FunctionType):
        return dict(names_in_reach(owner)).get(name)
    for registered in ("_buffers", "_parameters") if isinstance(owner, torch.nn.Module) else ():
        if name in vars(owner).get(registered, ()):
            return vars(owner)[registered][name]
    return vars(owner).get(name)


def put(slot: Slot, value: Any) -> None:
    """Gives a slot another value; a buffer or parameter stays one by name."""
    owner, name = slot
    if isinstance(owner, (type, FunctionType)):
        setattr(owner, name, value) if isinstance(owner, type) else bind_name(owner, name, value)
        return
    for registered in ("_buffers", "_parameters") if isinstance(owner, torch.nn.Module) else ():
        if name in vars(owner).get(registered, ()):
            vars(owner)[registered][name] = value
            return
    owner.__dict__[name] = value


def copied(value: Any) -> Any:
    """A value in containers and tensors of its own."""
    return pytree.tree_map(lambda leaf: leaf.detach().clone() if isinstance(leaf, torch.Tensor) else leaf, value)


def _is_copied(value: Any) -> bool:
    """Whether `copied` gives another value, and not the same object of somebody's class."""
    return all(isinstance(leaf, (torch.Tensor, *PLAIN)) for leaf in pytree.tree_leaves(value))


def _outputs(result: Any) -> list[torch.Tensor]:
    return [leaf.detach().clone() for leaf in pytree.tree_leaves(result) if isinstance(leaf, torch.Tensor)]


def fingerprint(value: Any, depth: int = 4) -> Any:
    """What can be compared of a value: numbers and text as they are, tensors by dtype, shape and a digest of their bytes."""
    if isinstance(value, PLAIN):
        return (type(value), repr(value))
    if isinstance(value, torch.Tensor):
        data = value.detach().cpu().resolve_conj().resolve_neg().contiguous().flatten().view(torch.uint8) if value.numel() else None
        digest = hashlib.blake2b(data.numpy().data).hexdigest() if data is not None and not value.is_meta else ""
        return (str(value.dtype), tuple(value.shape), digest)
    if isinstance(value, np.ndarray):
        return (str(value.dtype), value.shape, hashlib.blake2b(value.tobytes()).hexdigest())
    if depth == 0:
        return type(value)
    if isinstance(value, Mapping):
        return (type(value), tuple((repr(key), fingerprint(item, depth - 1)) for key, item in value.items()))
    if isinstance(value, (set, frozenset)):
        return (type(value), frozenset(map(repr, value)))
    if isinstance(value, Sequence) or hasattr(value, "popleft"):
        return (type(value), tuple(fingerprint(item, depth - 1) for item in value))
    held = getattr(value, "__dict__", None)
    return (type(value), fingerprint(held, depth - 1) if isinstance(held, dict) else None)
