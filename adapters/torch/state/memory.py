"""What a module holds and what surrounds it, put back after its code has run: attributes, buffers, parameters, random states.

A conversion runs a module many times: to trace it, to try sizes, to record examples. Each run starts from the same state,
and afterwards the module is as it was given.
"""

from __future__ import annotations

import random
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from types import FunctionType
from typing import Any

import numpy as np
import torch
from torch.nn.parameter import UninitializedTensorMixin  # type: ignore[attr-defined]
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from adapters.torch.state.held_values import (
    PLAIN,
    bind_name,
    copied,
    differs,
    is_plain_object,
    names_in_reach,
    put_items,
    random_state,
    same,
    same_values,
    version_of,
)

DEPTH = 3
"""How deep objects that are no modules are looked into: an attribute, what it holds, and what that holds."""
LARGEST = 256 << 20
"""Bytes: a tensor that is no parameter and no buffer is kept up to this size."""
REGISTERED = ("_parameters", "_buffers", "_modules")

Slot = tuple[Any, str]
"""An object (a module, a class, `_buffers` …) and the name of what it holds."""


@dataclass(eq=False)
class Kept:
    """A tensor's place, values and flags, and the slots it was found under."""

    tensor: torch.Tensor
    place: torch.Tensor
    values: torch.Tensor | None
    version: int
    grad: torch.Tensor | None
    requires_grad: bool
    slot: Slot

    def moved(self) -> bool:
        """Whether `.data` was given other memory, another shape or dtype."""
        one, two = self.tensor, self.place
        return (one.data_ptr(), one.shape, one.stride(), one.dtype) != (two.data_ptr(), two.shape, two.stride(), two.dtype)

    def changed(self, thorough: bool) -> bool:
        """Whether it is another than it was; values that no version counts (`.data`) are compared where `thorough`."""
        if self.moved():
            return True
        if not thorough and version_of(self.tensor) == self.version:
            return False
        return self.values is not None and not same_values(self.tensor.detach(), self.values)

    def restore(self, thorough: bool) -> None:
        """Puts memory, values and flags back."""
        if self.moved():
            self.tensor.data = self.place
        if self.changed(thorough) and self.values is not None:
            with torch.inference_mode(self.tensor.is_inference()):
                self.tensor.data.copy_(self.values)
        self.version = version_of(self.tensor)
        if self.tensor.is_leaf and self.tensor.requires_grad != self.requires_grad:
            self.tensor.requires_grad_(self.requires_grad)
        if self.tensor.is_leaf and self.tensor.grad is not self.grad:
            self.tensor.grad = self.grad


class Memory:
    """Everything that a module's code could change in it, as it was when this was made.

    Args:
        module: the module.
        base: a memory of the same module whose copies are shared where nothing has changed since.
        own: whether nobody else holds the module: large parameters are not copied then, and count as never changed.

    `state` is what forward was found to carry from call to call.
    """

    def __init__(self, module: torch.nn.Module, base: Memory | None = None, own: bool = False) -> None:
        self.module = module
        self.parts = {id(part) for part in module.modules()}
        self.own = own
        self.state: tuple[Slot, ...] = ()
        self._attributes: list[tuple[Any, dict[str, Any]]] = []
        self._containers: list[tuple[Any, Any, Slot]] = []
        self._names: list[tuple[FunctionType, str, Any]] = []
        self._random: list[Callable[[], None]] = []
        self.tensors: dict[int, Kept] = {}
        self._seen: dict[int, Any] = {}
        self._touched: set[int] = set()
        self._base = base.tensors if base is not None else {}
        self._learned = {id(item) for item in module.parameters()}
        self._registered = self._learned | {id(item) for item in module.buffers()}
        self._large = own and sum(item.numel() * item.element_size() for item in module.parameters()
                                  if not isinstance(item, UninitializedTensorMixin)) > LARGEST
        for part in module.modules():
            self._look_into(part)

    def __contains__(self, module: torch.nn.Module) -> bool:
        return id(module) in self.parts

    # Looking -----------------------------------------------------------------------------------------------------------

    def _look_into(self, part: torch.nn.Module) -> None:
        if isinstance(part, torch.jit.ScriptModule):
            for name, tensor in [*part.named_parameters(recurse=False), *part.named_buffers(recurse=False)]:
                self._keep(tensor, (part, name))
            return
        self._seen[id(part)] = part
        self._attributes.append((part, dict(vars(part))))
        for name, value in vars(part).items():
            if name in REGISTERED:
                self._containers.append((value, dict(value), (part, name)))
                for key, item in value.items():
                    self._visit(item, (part, key), 0)
            else:
                self._visit(value, (part, name), 0)
        for cls in type(part).__mro__:
            if cls is object or cls.__module__.partition(".")[0] == "torch" or id(cls) in self._seen:
                continue
            self._seen[id(cls)] = cls
            held = {name: value for name, value in vars(cls).items() if not name.startswith("__")
                    and isinstance(value, (torch.Tensor, list, dict, set, deque, *PLAIN))}
            self._attributes.append((cls, held))
            for name, value in held.items():
                self._visit(value, (cls, name), 0)
            for name, value in vars(cls).items():
                if isinstance(value, FunctionType):
                    self._visit(value, (cls, name), 0)

    def _visit(self, value: Any, slot: Slot, depth: int) -> None:
        if isinstance(value, PLAIN) or id(value) in self._seen or depth > DEPTH:
            return
        if isinstance(value, torch.Tensor):
            self._keep(value, slot)
            return
        self._seen[id(value)] = value
        if isinstance(value, torch.nn.Module):
            if id(value) not in self.parts:
                self.parts.update(id(part) for part in value.modules())
                for part in value.modules():
                    self._look_into(part)
        elif isinstance(value, (list, set, deque, dict)):
            self._containers.append((value, copied(value), slot))
            for item in list(value.values() if isinstance(value, dict) else value):
                self._visit(item, slot, depth)
        elif isinstance(value, FunctionType):
            for name, item in names_in_reach(value):
                if isinstance(item, (torch.Tensor, list, dict, set, deque, *PLAIN)):
                    self._names.append((value, name, item))
                    self._visit(item, (value, name), depth)
        elif isinstance(value, (tuple, frozenset)):
            for item in value:
                self._visit(item, slot, depth)
        elif isinstance(value, np.ndarray):
            if value.flags.writeable and value.nbytes <= LARGEST:
                self._containers.append((value, value.copy(), slot))
        elif (put_back := random_state(value)) is not None:
            self._random.append(put_back)
        elif is_plain_object(value):
            self._containers.append((vars(value), dict(vars(value)), slot))
            for item in list(vars(value).values()):
                self._visit(item, slot, depth + 1)

    def _keep(self, tensor: torch.Tensor, slot: Slot) -> None:
        if id(tensor) in self.tensors or isinstance(tensor, (UninitializedTensorMixin, torch._subclasses.FakeTensor)):
            return
        if tensor.layout is not torch.strided or tensor.is_quantized or is_traceable_wrapper_subclass(tensor):
            return
        size = tensor.numel() * tensor.element_size()
        values: torch.Tensor | None = None
        if not (self._large and id(tensor) in self._learned or id(tensor) not in self._registered and size > LARGEST):
            before = self._base.get(id(tensor))
            values = before.values if before is not None and not before.changed(True) else tensor.detach().clone()
        with torch.no_grad():
            self.tensors[id(tensor)] = Kept(tensor, tensor.detach(), values, version_of(tensor),
                                            tensor.grad if tensor.is_leaf else None, tensor.requires_grad, slot)

    # Comparing ---------------------------------------------------------------------------------------------------------

    def changed(self) -> list[Slot]:
        """What is not as it was, each slot once: buffers, parameters and attributes by name."""
        found: dict[tuple[int, str], Slot] = {}

        def add(owner: Any, name: str) -> None:
            found.setdefault((id(owner), name), (owner, name))

        for owner, before in self._attributes:
            now = _attributes(owner, before)
            for name in dict.fromkeys([*before, *now]):
                if name != "training" and name not in REGISTERED and not same(before.get(name, owner), now.get(name, owner)):
                    add(owner, name)
        for function, name, item in self._names:
            if not same(item, dict(names_in_reach(function)).get(name, function)):
                add(function, name)
        for value, before, slot in self._containers:
            if slot[1] in REGISTERED and isinstance(slot[0], torch.nn.Module):
                for key in dict.fromkeys([*before, *value]):
                    if before.get(key) is not value.get(key):
                        add(slot[0], key)
            elif differs(value, before):
                add(*slot)
        for kept in self.tensors.values():
            if kept.changed(True):
                self._touched.add(id(kept.tensor))
                add(*kept.slot)
        return list(found.values())

    def uncounted(self) -> list[Slot]:
        """Parameters that were changed through `.data`, which torch neither counts nor traces, and buffers that were given other
        memory by it; operators of torch's that keep statistics in buffers do not count these changes either."""
        return [kept.slot for kept in self.tensors.values() if id(kept.tensor) in self._registered and (
            kept.moved() or id(kept.tensor) in self._learned and version_of(kept.tensor) == kept.version and kept.changed(True))]

    def copy_of(self, tensor: torch.Tensor) -> torch.Tensor:
        """The tensor's values in memory that nothing else writes to."""
        kept = self.tensors.get(id(tensor))
        if kept is not None and kept.values is not None and not kept.changed(True):
            return kept.values
        return tensor.detach().clone()

    # Putting back --------------------------------------------------------------------------------------------------------

    def restore(self, *, whole: bool = False) -> None:
        """Puts everything back; `whole`: the training flags too, and values that were changed without torch counting it."""
        for owner, before in self._attributes:
            _put_attributes(owner, before, whole)
        for function, name, item in self._names:
            if dict(names_in_reach(function)).get(name, function) is not item:
                bind_name(function, name, item)
        for value, before, _ in self._containers:
            if differs(value, before):
                put_items(value, before)
        with torch.no_grad():
            for kept in self.tensors.values():
                kept.restore(whole or id(kept.tensor) not in self._learned or id(kept.tensor) in self._touched)
        for put_back in self._random:
            put_back()


def _attributes(owner: Any, before: dict[str, Any]) -> dict[str, Any]:
    if isinstance(owner, type):
        return {name: value for name, value in vars(owner).items() if name in before}
    return vars(owner)


def _put_attributes(owner: Any, before: dict[str, Any], whole: bool) -> None:
    now = _attributes(owner, before)
    if isinstance(owner, type):
        for name, value in before.items():
            if now.get(name, owner) is not value:
                setattr(owner, name, value)
        return
    kept = dict(before)
    if not whole and "training" in now and isinstance(owner, torch.nn.Module):
        kept["training"] = now["training"]
    if now.keys() != kept.keys() or any(now[name] is not value for name, value in kept.items()):
        now.clear()
        now.update(kept)


# Around a conversion -------------------------------------------------------------------------------------------------------

CONVERTING = threading.RLock()
"""Held while parts of torch are replaced, which they are for the whole process: conversions in other threads wait."""
_HELD: ContextVar[tuple[Memory, ...]] = ContextVar("held", default=())


def find_memory(module: torch.nn.Module) -> Memory | None:
    """The memory of a module inside of `evaluation`."""
    return next((memory for memory in reversed(_HELD.get()) if module in memory), None)


@contextmanager
def evaluation(module: torch.nn.Module, own: bool = False) -> Iterator[Memory]:
    """The module in evaluation mode, and everything put back afterwards: the module, random states, torch's own switches.

    Conversions in other threads wait, as parts of torch are replaced while one goes on. Inside of another for the same
    module it does nothing.
    """
    there = find_memory(module)
    if there is not None:
        yield there
        return
    with CONVERTING, _surroundings():
        given, trained = Memory(module, own=own), module.training
        try:
            module.eval()
            memory = Memory(module, given, own=own)
            token = _HELD.set((*_HELD.get(), memory))
            try:
                yield memory
            finally:
                _HELD.reset(token)
                memory.restore()
        finally:
            given.restore(whole=True)
            if isinstance(module, torch.jit.ScriptModule):
                module.train(trained)


@contextmanager
def unchanged(module: torch.nn.Module) -> Iterator[None]:
    """A block after which the module is what it was before, even where forward changes it."""
    memory = find_memory(module) or Memory(module)
    try:
        yield
    finally:
        memory.restore()


@contextmanager
def _surroundings() -> Iterator[None]:
    """Random states, the default dtype and the switches that a conversion, or a forward, may turn."""
    states = torch.get_rng_state(), np.random.get_state(), random.getstate()
    on_devices = torch.cuda.get_rng_state_all() if torch.cuda.is_available() and torch.cuda.is_initialized() else None
    dtype = torch.get_default_dtype()
    deterministic = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    fast = torch.backends.mha.get_fastpath_enabled()
    try:
        yield
    finally:
        torch.set_rng_state(states[0])
        np.random.set_state(states[1])
        random.setstate(states[2])
        if on_devices is not None:
            torch.cuda.set_rng_state_all(on_devices)
        torch.set_default_dtype(dtype)
        torch.use_deterministic_algorithms(deterministic[0], warn_only=deterministic[1])
        with suppress(AttributeError):
            torch.backends.mha.set_fastpath_enabled(fast)
