"""The state_dict of whole modules, `torch.save(model)`, from the inert objects in the pickle: none of them is made, no code runs.

`nn.Module` keeps what it holds in three dicts among its attributes: `_parameters`, `_buffers` (those that
`_non_persistent_buffers_set` names are in no state_dict) and `_modules`. `state_dict()` walks them in this order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from adapters.torch_files.content import OtherTensor, Record, TensorRef
from converter.errors import FormatError
from converter.state_dict import DEEPEST, TOLD, some

MOST_DEPTH = 200
MOST_NAMES = 64 << 20
"""Characters of the names of modules and tensors, 64 more for each: a module may stand in many places of others."""

PACKED = "torch.ScriptObject"
"""The class that quantized modules keep their tensors in."""

Members = Callable[[str, Record], tuple[Mapping[str, Any], Mapping[str, Record]]]


def gather(root: Record, members: Members) -> dict[str, Any]:
    """Names and tensors of an object and of those within it, in the order of `state_dict()`.

    `members` gives an object's own tensors, and the objects in it, by their names; it is told the object's place, `"layers.0."`.

    Raises:
        FormatError: objects within themselves, or in more places than any model's are.
    """
    found: dict[str, Any] = {}
    left = MOST_NAMES
    waiting: list[tuple[str, Record, int]] = [("", root, 0)]
    while waiting:
        prefix, item, depth = waiting.pop()
        own, inner = members(prefix, item)
        left -= sum(64 + len(prefix) + len(name) for held in (own, inner) for name in held)
        if depth > MOST_DEPTH or left < 0:
            raise FormatError("modules that lie too deep in each other, or in too many places", received=f"at {prefix[:80]!r}",
                              expected=f"at most {MOST_DEPTH} within each other")
        found.update((prefix + name, value) for name, value in own.items())
        waiting += [(f"{prefix}{name}.", value, depth + 1) for name, value in reversed([*inner.items()])]
    return found


def attributes(value: Any) -> Mapping[Any, Any] | None:
    """The attributes of an inert object: its state, or the first of a state with slots; None where it has none."""
    state = value.state if isinstance(value, Record) else None
    state = state[0] if isinstance(state, tuple) and state else state
    return state if isinstance(state, dict) else None


def is_module(value: Any) -> bool:
    held = attributes(value)
    return held is not None and all(isinstance(held.get(name), dict) for name in ("_parameters", "_buffers", "_modules"))


class Unfolded(dict[Any, Any]):
    """What an object holds, by its names; of a module its state_dict. `kind` is its class, `layers` what `Found.layers` is."""

    def __init__(self, kind: str, items: Mapping[Any, Any], notes: tuple[str, ...] = (),
                 layers: Mapping[str, Mapping[str, Any]] | None = None) -> None:
        super().__init__(items)
        self.kind, self.notes, self.layers = kind, notes, layers or {}


class Unfolding:
    """What a checkpoint holds, each module as its state_dict, other objects as their attributes. `kinds` are the modules' classes."""

    def __init__(self) -> None:
        self.kinds: set[str] = set()
        self._known: dict[int, Any] = {}

    def unfold(self, value: Any, depth: int = 0) -> Any:
        if depth > DEEPEST or not isinstance(value, (dict, list, tuple, Record)):
            return value
        if id(value) not in self._known:
            self._known[id(value)] = value  # of a content within itself
            self._known[id(value)] = self._unfold(value, depth)
        return self._known[id(value)]

    def _unfold(self, value: Any, depth: int) -> Any:
        if is_module(value):
            return self._state_dict(value)
        if isinstance(value, (list, tuple)):  # torch.save([model, criterion, optimizer], …)
            return self.unfold({str(at): item for at, item in enumerate(value)}, depth) if any(map(is_module, value)) else value
        held = attributes(value) if isinstance(value, Record) else value
        if held is None:
            return value
        items = {name: self.unfold(item, depth + 1) for name, item in held.items()}
        if all(items[name] is item for name, item in held.items()):
            return value  # an object without modules stays one, which may hide what is looked for
        return Unfolded(value.kind, items) if isinstance(value, Record) else items

    def _state_dict(self, root: Record) -> Record | Unfolded:
        aside: dict[str, list[str]] = {"buffers that are not persistent": [], "tensors that are neither parameters nor buffers": [],
                                       "hooks of state_dict(), which did not run": []}
        volatile, plain, hooks = aside.values()
        layers: dict[str, Mapping[str, Any]] = {}

        def members(prefix: str, module: Record) -> tuple[dict[str, Any], dict[str, Record]]:
            held = attributes(module) or {}
            self.kinds.add(module.kind)
            unkept = held.get("_non_persistent_buffers_set") or ()
            unkept = unkept if isinstance(unkept, (set, frozenset, list)) else ()
            own: dict[str, Any] = {}
            inner: dict[str, Record] = {}
            for group in ("_parameters", "_buffers", "_modules"):
                for name, item in held[group].items():
                    if item is None or not isinstance(name, str):
                        continue
                    if group == "_buffers" and name in unkept:
                        volatile.append(prefix + name)
                    elif group == "_modules" and is_module(item):
                        inner[name] = item
                    else:  # a module that is no plain one stays what it is, and is refused with the tensors that it hides
                        own[name] = item
            plain.extend(prefix + str(name) for name, item in held.items() if isinstance(item, (TensorRef, OtherTensor)))
            own.update((name, item) for name, item in held.items() if isinstance(item, Record) and item.kind == PACKED)
            hooks.extend(f"{prefix}{name}" for name in ("_state_dict_hooks", "_state_dict_pre_hooks") if held.get(name))
            told = {name: held[name] for name in TOLD if isinstance(held.get(name), (int, float, tuple))}
            layers.update((prefix + name, told) for name in own if told)
            return own, inner

        tensors = gather(root, members)
        if not tensors:
            return root
        notes = [f"a whole module, {root.kind}: its parameters and buffers as nn.Module names them; its code did not run"]
        notes += [f"{what}, left out: {some(names)}" for what, names in aside.items() if names]
        return Unfolded(root.kind, tensors, tuple(notes), layers)
