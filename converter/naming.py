"""What is said of the names in a checkpoint (--prefix, --rename), and state_dicts in parts."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from converter.errors import ConverterError
from converter.parameters import ParameterStore, ParameterView
from converter.state_dict import RenamedParameters, some


@dataclass(frozen=True)
class NameOptions:
    """What the user says of the names in a checkpoint.

    Args:
        prefix: the names to take are those that begin with it, and lose it; what has other names is left out.
        rename: pairs of parts of names, `("gamma", "weight")`, `("model.encoder", "encoder")`; whole parts between dots only.
        allow_extra: whether tensors that nothing asks for are left out.
    """

    prefix: str | None = None
    rename: tuple[tuple[str, str], ...] = ()
    allow_extra: bool = False

    def applied(self, store: ParameterStore) -> ParameterStore:
        """The store under the names that the options give it. Raises `ConverterError` for one that does not apply."""
        if self.prefix is None and not self.rename:
            return store
        places = {name: name for name in store.names()}
        notes: list[str] = []
        for old, new in self.rename:
            pattern = re.compile(rf"(^|\.){re.escape(old.strip('.'))}(?=\.|$)")
            made = {pattern.sub(rf"\g<1>{_literal(new)}", name).replace("..", ".").strip("."): place for name, place in places.items()}
            if made == places or len(made) < len(places):
                raise ConverterError("no name holds the part to rename" if made == places else "two names become one", where="rename",
                                     received=f"{old}={new}", expected=f"parts of {some(list(places))}")
            places = made
        if self.prefix is not None:
            prefix = f"{self.prefix.rstrip('.')}."
            taken = {name.removeprefix(prefix): place for name, place in places.items() if name.startswith(prefix)}
            if not taken:
                raise ConverterError("no name begins with the prefix", where="prefix", received=self.prefix,
                                     expected=f"one of {some(_prefixes(places))}")
            if len(taken) < len(places):
                notes.append(left_out([name for name in places if not name.startswith(prefix)], f"not under {prefix!r}"))
            places = taken
        return RenamedParameters(store, places, notes)


def _literal(text: str) -> str:
    return text.strip(".").replace("\\", r"\\")


def _prefixes(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(name.partition(".")[0] for name in names if "." in name))


def left_out(names: Collection[str], why: str) -> str:
    """The note on tensors that are left out."""
    return f"{len(names)} tensor{'s' * (len(names) > 1)} left out, {why}: {some(list(names), 5)}"


class PartedParameters(ParameterView):
    """Several state_dicts of one file, the names of each behind its entry's: `encoder.weight`."""

    def __init__(self, parts: Mapping[str, ParameterStore]) -> None:
        self.parts = dict(parts)
        super().__init__({f"{key}.{name}": (part, name) for key, part in parts.items() for name in part.names()},
                         next(iter(parts.values())).notes)

