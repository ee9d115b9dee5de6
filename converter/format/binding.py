"""A state_dict bound to a graph's declared parameters, or refused with everything that does not fit."""

from __future__ import annotations

from collections.abc import Mapping

from converter.errors import ParameterError
from converter.ir import TensorSpec
from converter.mapped import FileRange
from converter.parameters import Array, ParameterStore

LISTED = 50
"""Tensors of each kind (missing, extra, other) that an error lists."""


class BoundParameters(ParameterStore):
    """The tensors of a store under a graph's names, in its order, with its aliases.

    `places` gives the store's name for each.
    """

    def __init__(self, specs: Mapping[str, TensorSpec], aliases: Mapping[str, str], places: Mapping[str, str],
                 store: ParameterStore) -> None:
        self._specs, self._aliases, self._places, self._store = dict(specs), dict(aliases), dict(places), store

    def names(self) -> tuple[str, ...]:
        return tuple(self._specs)

    def __contains__(self, name: object) -> bool:
        return name in self._specs

    def spec(self, name: str) -> TensorSpec:
        if name not in self._specs:
            raise self.unknown(name)
        return self._specs[name]

    def alias_of(self, name: str) -> str | None:
        return self._aliases.get(name)

    def read(self, name: str) -> Array:
        self.spec(name)
        return self._store.read(self._places[name])

    def file_range(self, name: str) -> FileRange | None:
        self.spec(name)
        return self._store.file_range(self._places[name])

    def sha256(self, name: str) -> str:
        self.spec(name)
        return self._store.sha256(self._places[name])


def bind_parameters(specs: Mapping[str, TensorSpec], aliases: Mapping[str, str], store: ParameterStore, *,
                    constants: ParameterStore | None = None, fix: str | None = None) -> ParameterStore:
    """`store` as the parameters of a graph that declares `specs` and `aliases`.

    A declared alias may be absent from the store (as safetensors files leave tied weights out), and so may the tensor
    that it shares when the alias is there. Where both are there with memory of their own, they must be equal bit for bit.

    Args:
        specs: dtype and shape of every parameter by name, aliases too.
        aliases: the tensor that a name shares.
        store: the tensors to bind.
        constants: parameters that no checkpoint holds, with values of their own; they need not be in the store.
        fix: what the error says is to be done.

    Raises:
        ParameterError: listing every missing, every extra and every unfitting parameter.
    """
    if constants is not None and len(constants):
        store = _Joined(store, constants)
    held = {name: store.spec(name) for name in store.names()}
    places = _places(specs, aliases, held)
    problems = (
        [f"missing: {name!r} {specs[name]}" for name, place in places.items() if place not in held],
        [f"extra: {name!r} {spec}" for name, spec in held.items() if name not in specs],
        [f"{name!r}: expected {spec}, received {held[name]}" for name, spec in specs.items() if name in held and held[name] != spec],
        [f"{name!r}: tied to {target!r} in the graph, but its values differ" for name, target in aliases.items()
         if name in held and target in held and held[name] == held[target] and _tensor(store, name) != _tensor(store, target)
         and store.sha256(name) != store.sha256(target)])
    if any(problems):
        shown = [line for kind in problems for line in (*kind[:LISTED], *([f"… and {len(kind) - LISTED} more"] * (len(kind) > LISTED)))]
        raise ParameterError("the checkpoint does not belong to this graph",
                             expected=f"the {len(specs)} parameters that the graph declares",
                             received=f"{len(held)} parameters\n  - " + "\n  - ".join(shown) + "\n" * (fix is not None), fix=fix)
    return BoundParameters(specs, _shares(specs, aliases, store), places, store)


def _places(specs: Mapping[str, TensorSpec], aliases: Mapping[str, str], held: Mapping[str, TensorSpec]) -> dict[str, str]:
    """The store's name for each parameter: its own, or that of a tensor that it is tied to."""
    first = {target: target for target in aliases.values() if target in held}
    for name, target in aliases.items():
        if name in held:
            first.setdefault(target, name)
    return {name: name if name in held else first.get(aliases.get(name, name), name) for name in specs}


def _shares(specs: Mapping[str, TensorSpec], aliases: Mapping[str, str], store: ParameterStore) -> dict[str, str]:
    """The aliases of the graph and, beside them, those that the store knows of."""
    shares, own = dict(aliases), set(aliases.values())
    members: dict[str, list[str]] = {}
    for alias, shared in aliases.items():
        members.setdefault(shared, []).append(alias)
    for name in store.names():
        target = store.alias_of(name)
        if target is None or name not in specs or target not in specs or specs[name] != specs[target]:
            continue
        first, second = shares.get(target, target), shares.get(name, name)
        if first != second:
            # Two groups become one; the graph's own name for the tensor is kept.
            keep, drop = (second, first) if second in own and first not in own else (first, second)
            moved = [*members.pop(drop, ()), drop]
            shares.update(dict.fromkeys(moved, keep))
            members.setdefault(keep, []).extend(moved)
    return shares


class _Joined(ParameterStore):
    """A store, and the tensors of another whose names it does not have."""

    def __init__(self, store: ParameterStore, more: ParameterStore) -> None:
        own = set(store.names())
        self._homes = dict.fromkeys(store.names(), store) | {name: more for name in more.names() if name not in own}

    def names(self) -> tuple[str, ...]:
        return tuple(self._homes)

    def __contains__(self, name: object) -> bool:
        return name in self._homes

    def _home(self, name: str) -> ParameterStore:
        if name not in self._homes:
            raise self.unknown(name)
        return self._homes[name]

    def spec(self, name: str) -> TensorSpec:
        return self._home(name).spec(name)

    def alias_of(self, name: str) -> str | None:
        return self._home(name).alias_of(name)

    def read(self, name: str) -> Array:
        return self._home(name).read(name)

    def file_range(self, name: str) -> FileRange | None:
        return self._home(name).file_range(name)

    def sha256(self, name: str) -> str:
        return self._home(name).sha256(name)


def _tensor(store: ParameterStore, name: str) -> str:
    return store.alias_of(name) or name

