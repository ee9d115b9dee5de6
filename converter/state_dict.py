"""Finding the state_dict in what a checkpoint holds: under which entry it is, and which wrappers its names tell of."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from converter.errors import FormatError, UnsafePickleError
from converter.parameters import ParameterStore, ParameterView

KEYS = ("state_dict", "model_state_dict", "model", "module", "net", "network", "weights", "params")
"""Where training scripts put the state_dict, the usual names first."""

OPTIMIZERS = ("optimizer", "optimizer_state_dict", "optimizer_states")
"""Entries that are never searched: they hold tensors, and no state_dict of a model."""

DEPTH, DEEPEST = 2, 8
"""How many dicts may lie around a state_dict that is found without being named, and around one that an error tells of."""

SAVE = "save the tensors alone, where the model's code is at hand: torch.save(model.state_dict(), 'weights.pt')"
UNSAFE = f"{SAVE}; or, if you trust the file as you trust a program, --allow-pickle loads it with PyTorch"

IsTensor = Callable[[Any], bool]
KindOf = Callable[[Any], str | None]

HARMLESS = re.compile(r"numpy\.(core|_core)\.multiarray\.scalar|torch\.torch_version\.TorchVersion|"
                      r"(pathlib|datetime|decimal|uuid|fractions)\..*")
"""Objects that hold no tensor: numbers, dates, paths, versions."""

EXTRA_STATE = "_extra_state"
"""How names of what is no tensor end in a state_dict (`nn.Module.get_extra_state`)."""

QUANTISED = ("give the quantised module without this file, --module PKG.MOD:CALLABLE, where the callable builds it and calls "
             "load_state_dict(torch.load(...)) itself")

PACKED = "_packed_params"
"""How names of packed weights end (`torch.ao.nn.quantized`): a weight and a bias in one."""

LISTED = 8

MOST_WITHIN = 100_000
"""Values beside a state_dict that are looked through for tensors."""


class SeveralStateDicts(FormatError):
    """A checkpoint with several state_dicts, of which none is the usual one. `keys` are their entries."""

    def __init__(self, keys: Sequence[str]) -> None:
        self.keys = tuple(keys)
        super().__init__("the checkpoint holds several state_dicts", received=some(keys), expected="one",
                         fix=f"say which: --key {keys[0]}")


TOLD = ("stride", "padding", "dilation", "groups", "eps")
"""Attributes of layers that leave no trace in names and shapes, and are called the same in PyTorch's modules and in graphs."""


@dataclass(frozen=True)
class Found:
    """A state_dict in a checkpoint: its tensors, the entry it is under (None: the content itself), and what to say of it.

    `layers` are the attributes `TOLD` of the layer that a tensor belongs to, by the tensor's name, where the file has them.
    """

    tensors: Mapping[str, Any]
    key: str | None
    notes: tuple[str, ...] = ()
    layers: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def find_state_dict(content: Any, key: str | None, is_tensor: IsTensor, kind_of: KindOf = lambda value: None,
                    objects: Sequence[str] = ()) -> Found:
    """The names and tensors in a checkpoint's content.

    Entries of a state_dict that are no tensors (`_extra_state`, `epoch`) are left out, with a note.

    Args:
        content: what the file holds; of a list or a tuple without tensors in it, the entries are called `"0"`, `"1"`, ….
        key: the entry to take, `"ema.model"` for a nested one; None: found by its content and the usual names.
        is_tensor: tells tensors from all else.
        kind_of: the class of an object whose content is not known, None for tensors and plain values.
        objects: the classes of all such objects, wherever they are.

    Raises:
        UnsafePickleError: such an object stands where the state_dict is, or in it, and could hold tensors.
        SeveralStateDicts: several, and no `key`.
        FormatError: no such entry, no state_dict, or one of packed weights.
    """
    finder = _Finder(is_tensor, kind_of)
    content = finder.numbered(content)
    if key is not None:
        taken, below = finder.at(content, key.split("."))
        if taken is None:
            raise finder.unsafe(below) or FormatError(f"the checkpoint has no entry {key!r}", received=finder.describe(content),
                                                      fix=finder.advice(content))
        (value,) = taken
        if not finder.is_state_dict(value):
            raise finder.unsafe(value) or FormatError(f"the entry {key!r} is no state_dict", expected="names and tensors",
                                                      received=finder.describe(value), fix=finder.advice(value, f"{key}."))
        return finder.found(value, key)
    candidates = finder.candidates(content) if isinstance(content, Mapping) else {}
    if not candidates:
        raise finder.unsafe(content, more=objects) or FormatError("the checkpoint holds no state_dict", expected="names and tensors",
                                                    received=finder.describe(content), fix=finder.advice(content, depth=DEEPEST) or SAVE)
    usual = [name for name in KEYS if name in candidates]
    if "" in candidates:
        name = ""
    elif len(usual) == 1:
        (name,) = usual
    else:
        hidden = finder.hidden(content, candidates)
        if hidden is not None:
            raise finder.unsafe(content[hidden], hidden) or FormatError(
                f"the entry {hidden!r}, where the state_dict would be, is none", expected="names and tensors",
                received=finder.describe(content[hidden]), fix=f"if another is meant, say which: --key {next(iter(candidates))}")
        if len(candidates) > 1:
            raise SeveralStateDicts(list(candidates))
        (name,) = candidates
        first, _, last = name.partition(".")
        beside = [other for other in finder.candidates(content, DEEPEST) if other.partition(".")[0] == first]
        if len(beside) > 1 and last.rpartition(".")[2] not in KEYS:
            raise SeveralStateDicts(beside)
    found = finder.found(candidates[name], name or None)
    others = [other for other in candidates if other != name]
    if name and others:
        found = replace(found, notes=(*found.notes, f"other entries hold state_dicts too, which are left out: {some(others)} "
                                                    f"(--key {others[0]} takes that one)"))
    return found


class _Finder:
    """One search. Each dict is looked at once, however often the content refers to it."""

    def __init__(self, is_tensor: IsTensor, kind_of: KindOf) -> None:
        self.is_tensor, self.kind_of = is_tensor, kind_of
        self._known: dict[int, int] = {}

    def tensors(self, content: Any) -> int:
        """How many tensors a state_dict has; 0 for what is none: at least half of a state_dict's entries are tensors."""
        if not isinstance(content, Mapping) or not content:
            return 0
        if id(content) not in self._known:
            names = [name for name, value in content.items() if self.is_tensor(value)]
            others = sum(value is not None and not str(name).endswith(EXTRA_STATE) for name, value in content.items()) - len(names)
            self._known[id(content)] = len(names) if all(isinstance(name, str) for name in names) and len(names) >= others else 0
        return self._known[id(content)]

    def numbered(self, content: Any) -> Any:
        """A list or a tuple of whole things, `(state_dict, optimizer)`, as a dict. Tensors in a list have no names, and stay there."""
        if isinstance(content, (list, tuple)) and any(isinstance(item, Mapping) for item in content):
            return content if any(map(self.is_tensor, content)) else {str(number): item for number, item in enumerate(content)}
        return content

    def is_state_dict(self, content: Any) -> bool:
        return self.tensors(content) > 0

    def found(self, content: Mapping[Any, Any], key: str | None) -> Found:
        """A state_dict without what is no tensor in it."""
        tensors = {name: value for name, value in content.items() if self.is_tensor(value)}
        others = {str(name): value for name, value in content.items() if not self.is_tensor(value)}
        unknown = [name for name, value in others.items()
                   if (kind := self.kind_of(value)) is not None and not HARMLESS.fullmatch(kind) and not name.endswith(EXTRA_STATE)]
        if unknown:
            raise UnsafePickleError("the state_dict holds Python objects among its tensors, and reading those would run code",
                                    received=some([f"{name[:60]!r}: {self.kind_of(others[name])}" for name in unknown]),
                                    expected="names and tensors", fix=UNSAFE)
        packed = [name for name in others if name.rpartition(".")[2] == PACKED]
        if packed:
            raise FormatError("the state_dict's weights are quantised and packed by torch.ao", received=some(packed),
                              expected="dense, unquantised tensors", fix=QUANTISED)
        notes = [*getattr(content, "notes", ())]
        notes += [f"entries of the state_dict that are no tensors, left out: {some([name[:60] for name in others])}"] * bool(others)
        within = {name: count for name, value in others.items() if (count := self.within(value))}
        if within:
            told = some([f"{name[:60]} ({count} tensor{'s' * (count > 1)})" for name, count in within.items()])
            notes.append(f"tensors are left out that lie in lists or dicts among these: {told}")
        return Found(tensors, key, tuple(notes), getattr(content, "layers", {}))

    def within(self, content: Any) -> int:
        """How many tensors lie in lists and dicts in each other; what is there twice is counted once."""
        seen, waiting, count = set[int](), [content], 0
        while waiting and len(seen) < MOST_WITHIN:
            value = waiting.pop()
            if id(value) in seen:
                continue
            seen.add(id(value))
            if self.is_tensor(value):
                count += 1
            elif isinstance(value, Mapping):
                waiting += value.values()
            elif isinstance(value, (list, tuple)):
                waiting += value
        return count

    def at(self, content: Any, steps: Sequence[str]) -> tuple[tuple[Any] | None, Any]:
        """The value under a key, in a tuple, the longest names tried first; None and where the search ended if it is not there."""
        if not steps:
            return (content,), content
        deepest = content
        for count in range(len(steps), 0, -1):
            name = ".".join(steps[:count])
            if isinstance(content, Mapping) and name in content:
                taken, deepest = self.at(content[name], steps[count:])
                if taken is not None:
                    return taken, deepest
        return None, deepest

    def candidates(self, content: Mapping[Any, Any], deepest: int = DEPTH) -> dict[str, Mapping[str, Any]]:
        """State_dicts by their entries' names, `""` for the content itself, the nearest first; of two in each other, one."""
        found: dict[str, Mapping[str, Any]] = {"": content} if self.is_state_dict(content) else {}
        seen: set[int] = {id(content)}
        waiting: list[tuple[str, Mapping[Any, Any], int]] = [("", content, 0)]
        around: dict[str, tuple[str, ...]] = {"": ()}
        outer: dict[str, tuple[str, ...]] = {"": ("",) if found else ()}
        while waiting:
            prefix, current, depth = waiting.pop(0)
            for name, value in current.items():
                if not isinstance(name, str) or not isinstance(value, Mapping) or id(value) in seen or name in OPTIMIZERS:
                    continue
                seen.add(id(value))
                full = prefix + name
                around[full] = outer[prefix]
                if self.is_state_dict(value):
                    found[full] = value
                if depth < deepest:
                    outer[f"{full}."] = (*outer[prefix], full) if full in found else outer[prefix]
                    waiting.append((f"{full}.", value, depth + 1))
        lost = {name if self._is_outer(found[other], name, value) else other for name, value in found.items() for other in around[name]}
        return {name: value for name, value in found.items() if name not in lost}

    def _is_outer(self, outer: Mapping[Any, Any], name: str, inner: Mapping[Any, Any]) -> bool:
        """Whether the outer of two state_dicts is the model's: it has more tensors, and looks like one where the inner one is usual."""
        if self.tensors(outer) < self.tensors(inner):
            return False
        return name.rpartition(".")[2] not in KEYS or any("." in str(item) for item, value in outer.items() if self.is_tensor(value))

    def hidden(self, content: Any, candidates: Mapping[str, Any]) -> str | None:
        """The entry of a usual name that may well be the state_dict, and cannot be read as one."""
        for name in KEYS:
            value = content.get(name)
            if value is None or name in candidates or any(other.startswith(f"{name}.") for other in candidates):
                continue
            inside = list(value.values())[:1000] if isinstance(value, Mapping) else [value]
            if any(self.is_tensor(item) or self._may_hold(item) for item in inside):
                return name
        return None

    def _may_hold(self, value: Any) -> bool:
        kind = self.kind_of(value)
        return kind is not None and not HARMLESS.fullmatch(kind)

    def unsafe(self, content: Any, name: str | None = None, more: Sequence[str] = ()) -> UnsafePickleError | None:
        """The error where objects stand in the place of tensors; None where there are none."""
        inside = [content, *content.values()] if isinstance(content, Mapping) else [content]
        kinds = list(dict.fromkeys([*more, *(kind for item in inside if (kind := self.kind_of(item)) is not None)]))
        if not kinds:
            return None
        return UnsafePickleError("the checkpoint holds Python objects in the place of tensors, and reading those would run code",
                                 where=name and f"the entry {name!r}", received=some(kinds, 12),
                                 expected="a state_dict: names and tensors", fix=UNSAFE)

    def advice(self, content: Any, prefix: str = "", depth: int = DEPTH) -> str | None:
        """Where the state_dicts of a content are."""
        names = [name for name in (self.candidates(content, depth) if isinstance(content, Mapping) else {}) if name]
        return f"state_dicts are under {some([prefix + name for name in names])}: --key {prefix}{names[0]}" if names else None

    def describe(self, content: Any) -> str:
        """What a content is, for an error."""
        if isinstance(content, Mapping):
            if not content:
                return "an empty dict"
            others = [f"{str(name)[:60]!r}: {_kind(value)}" for name, value in content.items() if not self.is_tensor(value)]
            tensors = len(content) - len(others)
            odd = next((name for name in content if not isinstance(name, str)), None)
            if odd is not None:
                return f"a dict with {tensors} tensors, whose names are no text: {type(odd).__name__}"
            return f"a dict with {tensors} tensors and " + (", ".join(others[:6]) or "nothing else") + (" …" if len(others) > 6 else "")
        if isinstance(content, (list, tuple)) and any(map(self.is_tensor, content)):
            return f"a {_kind(content)} of tensors, which have no names there"
        kind = "Tensor" if self.is_tensor(content) else _kind(content)
        return f"{'an' if kind[:1] in 'aeiou' else 'a'} {kind}"


def some(names: Sequence[str], most: int = LISTED) -> str:
    """The first names of a list, for a person, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(name if name.isprintable() else ascii(name) for name in names[:most]) + more


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


def find_wrappers(names: Collection[str]) -> tuple[str, ...]:
    """The parts in the names of a state_dict that wrappers of the module have added, `("module", "_orig_mod")`."""
    parts = [part for part in WRAPPERS if part.startswith("_") and any(part in name.split(".")[:-1] for name in names)]
    plain = [_without(name, frozenset(parts)) for name in names]
    return ("module", *parts) if plain and all(name.startswith("module.") for name in plain) else tuple(parts)


def describe_wrappers(parts: Collection[str]) -> str:
    """What the wrappers' parts tell, for a person."""
    return ", ".join(f"'{part}.' as {WRAPPERS[part]} adds it" if part in WRAPPERS else f"'{part}.' before each"
                     for part in dict.fromkeys(parts))


def origin(store: ParameterStore, wrappers: Collection[str] = (), notes: Sequence[str] = ()) -> dict[str, Any]:
    """What a model's metadata says of the checkpoint that its parameters are of, beside the file's name and digest."""
    facts = {"key": store.key, "wrappers": list(wrappers), "notes": [*store.notes, *notes]}
    return {name: value for name, value in facts.items() if value}


def strip_wrappers(name: str, parts: Collection[str]) -> str:
    """A name without the parts that wrappers have added."""
    name = _without(name, frozenset(part for part in parts if part.startswith("_")))
    return name.removeprefix("module.") if "module" in parts else name


def _without(name: str, parts: frozenset[str]) -> str:
    *path, last = name.split(".")
    return ".".join([*(part for part in path if part not in parts), last])


class RenamedParameters(ParameterView):
    """Tensors of a store under other names; `places` gives the store's name for each."""

    def __init__(self, store: ParameterStore, places: Mapping[str, str], notes: Sequence[str] = ()) -> None:
        super().__init__({name: (store, place) for name, place in places.items()}, (*store.notes, *notes), store.key)

