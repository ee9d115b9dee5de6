"""State that a forward pass keeps from one call to the next: found by calling a module twice, and said."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.utils._pytree as pytree

from adapters.torch.memory import PLAIN, Memory, Slot, same_values
from adapters.torch.notes import Concern
from converter.errors import UnsupportedError


@dataclass(frozen=True)
class State:
    """What a call changes. `kept` carries over to what later calls give or leave; `noted` is the same after every call."""

    kept: tuple[Slot, ...] = ()
    noted: tuple[Slot, ...] = ()


def find_state(module: torch.nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any], memory: Memory) -> State:
    """Calls a module twice on the same arguments, the second time in the state that the first call left.

    What holds the same after both calls is a record (an attention map kept to be looked at, a mask made once) as long as
    the outputs are equal too; anything else is state, and so is every buffer that is written to. `memory` is restored.

    Raises `UnsupportedError` where parameters or buffers are changed through `.data`, past what torch traces.
    """
    states = torch.get_rng_state(), np.random.get_state()
    try:
        with torch.no_grad():
            first = _outputs(module(*args, **kwargs))
            changed = memory.changed()
            if not changed:
                return State()
            if memory.uncounted():
                raise _refuse_data(names_of(memory.uncounted(), module), module)
            before = {slot: fingerprint(_value(slot)) for slot in changed}
            torch.set_rng_state(states[0])
            np.random.set_state(states[1])
            second = _outputs(module(*args, **kwargs))
            slots = list(dict.fromkeys([*changed, *memory.changed()]))
            same = len(first) == len(second) and all(same_values(one, two) for one, two in zip(first, second, strict=True))
            kept = [slot for slot in slots if not same or slot not in before or _is_registered(slot)
                    or fingerprint(_value(slot)) != before[slot]]
    except UnsupportedError:
        raise
    except Exception:  # the trace says what fails
        return State()
    finally:
        memory.restore()
    return State(tuple(kept), tuple(slot for slot in slots if slot not in kept))


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
    return [f"{owner.__name__}.{name}" if isinstance(owner, type) else f"{paths.get(id(owner), type(owner).__name__ + '.')}{name}"
            for owner, name in slots]


def _is_registered(slot: Slot) -> bool:
    owner, name = slot
    return isinstance(owner, torch.nn.Module) and (name in owner._buffers or name in owner._parameters)


def _value(slot: Slot) -> Any:
    owner, name = slot
    for registered in ("_buffers", "_parameters") if isinstance(owner, torch.nn.Module) else ():
        if name in vars(owner).get(registered, ()):
            return vars(owner)[registered][name]
    return vars(owner).get(name)


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
