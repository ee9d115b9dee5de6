"""A state_dict bound to a graph's declared parameters, or refused with everything that does not fit."""

from __future__ import annotations

from collections.abc import Mapping

from converter.errors import ParameterError
from converter.ir import TensorSpec
from converter.parameters import ParameterStore, ParameterView, places_in

LISTED = 50
"""Tensors of each kind (missing, extra, other) that an error lists."""


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
        store = ParameterView({**places_in(store), **places_in(constants, (name for name in constants.names() if name not in store))})
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
    return ParameterView({name: (store, places[name]) for name in specs}, aliases=_shares(specs, aliases, store))


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


def _tensor(store: ParameterStore, name: str) -> str:
    return store.alias_of(name) or name

