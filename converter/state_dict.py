"""Finding the state_dict in what a checkpoint holds: under which entry it is, and which wrappers its names tell of."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

from converter.errors import FormatError
from converter.ir import TensorSpec
from converter.parameters import Array, ParameterStore

KEYS = ("state_dict", "model_state_dict", "model", "module", "net", "network", "weights", "params")
"""Where training scripts put the state_dict, the usual names first."""

OPTIMIZERS = ("optimizer", "optimizer_state_dict", "optimizer_states")
"""Entries that are never searched: they hold tensors, and no state_dict of a model."""

DEPTH = 2
"""How many dicts may lie around a state_dict that is found without being named."""

SAVE = "save the tensors alone, where the model's code is at hand: torch.save(model.state_dict(), 'weights.pt')"

IsTensor = Callable[[Any], bool]


def find_state_dict(content: Any, key: str | None, is_tensor: IsTensor) -> tuple[Mapping[str, Any], str | None]:
    """The names and tensors in a checkpoint's content, and the entry they are under (None: the content itself).

    Args:
        content: what the file holds.
        key: the entry to take, `"ema.model"` for a nested one; None: found by its content and the usual names.
        is_tensor: tells tensors from all else.

    Raises:
        FormatError: no such entry, no state_dict, or several.
    """
    finder = _Finder(is_tensor)
    if key is not None:
        for step in key.split("."):
            if not isinstance(content, Mapping) or step not in content:
                raise FormatError(f"the checkpoint has no entry {key!r}", received=finder.describe(content))
            content = content[step]
        if not finder.is_state_dict(content):
            raise FormatError(f"the entry {key!r} is no state_dict", expected="names and tensors", received=finder.describe(content))
        return content, key
    if finder.is_state_dict(content):
        return content, None
    candidates = finder.candidates(content) if isinstance(content, Mapping) else {}
    usual = [name for name in KEYS if name in candidates]
    if len(candidates) == 1:
        (name,) = candidates
    elif len(usual) == 1:
        (name,) = usual
    elif candidates:
        raise FormatError("the checkpoint holds several state_dicts", received=", ".join(list(candidates)[:8]),
                          expected="one", fix=f"say which: --key {next(iter(candidates))}")
    else:
        raise FormatError("the checkpoint holds no state_dict", expected="names and tensors", received=finder.describe(content), fix=SAVE)
    return candidates[name], name


class _Finder:
    """One search. Each dict is looked at once, however often the content refers to it."""

    def __init__(self, is_tensor: IsTensor) -> None:
        self.is_tensor = is_tensor
        self._known: dict[int, bool] = {}

    def is_state_dict(self, content: Any) -> bool:
        """Whether something is names and tensors, at least one, and nothing else."""
        if not isinstance(content, Mapping) or not content:
            return False
        if id(content) not in self._known:
            self._known[id(content)] = all(isinstance(name, str) and self.is_tensor(value) for name, value in content.items())
        return self._known[id(content)]

    def candidates(self, content: Mapping[Any, Any]) -> dict[str, Mapping[str, Any]]:
        """State_dicts within dicts by their entries' names, the nearest first met."""
        found: dict[str, Mapping[str, Any]] = {}
        seen: set[int] = set()
        waiting: list[tuple[str, Mapping[Any, Any], int]] = [("", content, 0)]
        while waiting:
            prefix, current, depth = waiting.pop(0)
            for name, value in current.items():
                if not isinstance(name, str) or not isinstance(value, Mapping) or id(value) in seen:
                    continue
                seen.add(id(value))
                if self.is_state_dict(value):
                    found[prefix + name] = value
                elif depth < DEPTH and name not in OPTIMIZERS:
                    waiting.append((f"{prefix}{name}.", value, depth + 1))
        return found

    def describe(self, content: Any) -> str:
        """What a content is, for an error."""
        if isinstance(content, Mapping):
            if not content:
                return "an empty dict"
            others = [f"{str(name)[:60]!r}: {_kind(value)}" for name, value in content.items() if not self.is_tensor(value)]
            tensors = len(content) - len(others)
            return f"a dict with {tensors} tensors and " + (", ".join(others[:6]) or "nothing else") + (" …" if len(others) > 6 else "")
        return "a Tensor" if self.is_tensor(content) else f"a {_kind(content)}"


def _kind(value: Any) -> str:
    return str(getattr(value, "kind", None) or type(value).__name__)


# Wrappers ----------------------------------------------------------------------------------------------------------------

WRAPPERS: Mapping[str, str] = {
    "module": "nn.DataParallel and DistributedDataParallel",
    "_orig_mod": "torch.compile",
    "_fsdp_wrapped_module": "FullyShardedDataParallel",
    "_checkpoint_wrapped_module": "activation checkpointing",
}
"""The part that a wrapper adds to names, and the wrapper. Those that begin with `_` may stand anywhere in a name."""


def wrappers_of(names: Collection[str]) -> tuple[str, ...]:
    """The parts in the names of a state_dict that wrappers of the module have added, `("module", "_orig_mod")`."""
    parts = [part for part in WRAPPERS if part.startswith("_") and any(part in name.split(".")[:-1] for name in names)]
    plain = [_without(name, frozenset(parts)) for name in names]
    return ("module", *parts) if plain and all(name.startswith("module.") for name in plain) else tuple(parts)


def said(parts: Collection[str]) -> str:
    """What the wrappers' parts tell, for a person."""
    return ", ".join(f"'{part}.' as {WRAPPERS[part]} adds it" if part in WRAPPERS else f"'{part}.' before each" for part in parts)


def unwrapped(name: str, parts: Collection[str]) -> str:
    """A name without the parts that wrappers have added."""
    name = _without(name, frozenset(part for part in parts if part.startswith("_")))
    return name.removeprefix("module.") if "module" in parts else name


def _without(name: str, parts: frozenset[str]) -> str:
    *path, last = name.split(".")
    return ".".join([*(part for part in path if part not in parts), last])


def fitted(store: ParameterStore, wanted: Collection[str]) -> tuple[ParameterStore, tuple[str, ...]]:
    """The store under the names that are wanted, and the parts of names that had to go for that: usually none.

    Names are changed only when those of the file hold no wanted name, and those without the wrappers do; or those without
    a part that every one begins with, as a module within another's attribute has it (Lightning's `model.`), where they
    are then the wanted ones.
    """
    names = store.names()
    parts = wrappers_of(names)
    wanted = frozenset(wanted)
    if not names or wanted & set(names):
        return store, ()
    renamed = {unwrapped(name, parts): name for name in names}
    if len(renamed) < len(names):
        return store, ()
    if parts and wanted & renamed.keys():
        return RenamedParameters(store, renamed), parts
    before: list[str] = []
    while all("." in name for name in renamed) and len({name.partition(".")[0] for name in renamed}) == 1:
        before.append(next(iter(renamed)).partition(".")[0])
        renamed = {name.partition(".")[2]: place for name, place in renamed.items()}
        if wanted >= renamed.keys() or wanted <= renamed.keys():
            return RenamedParameters(store, renamed), (*parts, ".".join(before))
    return store, ()


class RenamedParameters(ParameterStore):
    """A store's tensors under other names; `places` gives the store's name for each."""

    def __init__(self, store: ParameterStore, places: Mapping[str, str]) -> None:
        self._store, self._places = store, dict(places)
        self._names = {place: name for name, place in places.items()}
        self.key = getattr(store, "key", None)

    def _place(self, name: str) -> str:
        try:
            return self._places[name]
        except KeyError:
            raise self.unknown(name) from None

    def names(self) -> tuple[str, ...]:
        return tuple(self._places)

    def __contains__(self, name: object) -> bool:
        return name in self._places

    def alias_of(self, name: str) -> str | None:
        target = self._store.alias_of(self._place(name))
        return None if target is None else self._names.get(target)

    def spec(self, name: str) -> TensorSpec:
        return self._store.spec(self._place(name))

    def read(self, name: str) -> Array:
        return self._store.read(self._place(name))

    def read_private(self, name: str) -> Array:
        return self._store.read_private(self._place(name))

    def sha256(self, name: str) -> str:
        return self._store.sha256(self._place(name))
