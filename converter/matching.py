"""A checkpoint's names brought to those that a graph or a module wants: wrappers, prefixes, older spellings, what is left over."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from converter.errors import FormatError, ParameterError
from converter.ir import Graph, TensorSpec
from converter.naming import PartedParameters, left_out
from converter.opset import lookup
from converter.parameters import ParameterStore
from converter.state_dict import RenamedParameters, SeveralStateDicts, find_wrappers, some, strip_wrappers

if TYPE_CHECKING:
    from converter.format import Architecture

ADVICE = ("where the names differ, --prefix takes those under a prefix and --rename OLD=NEW changes parts of them; --allow-extra leaves "
          "out tensors that nothing asks for (in Python: prefix=, rename=, allow_extra=)")

_TRAINING = re.compile(
    r"((.*_)?(criterion|criterions|loss|losses|metric|metrics|ema|swa)(_(fn|fns|func|funcs|function|functions|model|net|network|module|weights?))?"
    r"|(train|val|valid|validation|test)_(acc|accuracy|f1|auroc|auc|iou|mae|mse|rmse|psnr|ssim|precision|recall|perplexity)(_\w+)?"
    r"|(model|net)_ema|(averaged|shadow)_model|n_averaged)")
"""First parts of the names of what a training run keeps beside its model: losses, metrics, running averages."""

COUNTERS = ("num_batches_tracked",)

# The newer spelling of what torch.nn.utils keeps for a weight, and the older one.
_SPELLINGS = tuple((re.compile(rf"(^|\.)parametrizations\.(\w+)\.{new}$"), rf"\g<1>\g<2>_{old}") for new, old in (
    ("original0", "g"), ("original1", "v"), ("original", "orig"), (r"0\._u", "u"), (r"0\._v", "v")))


@dataclass(frozen=True)
class Matched:
    """A store under the names that are wanted, the parts of names that had to go for that, and what to say of it."""

    store: ParameterStore
    wrappers: tuple[str, ...] = ()
    notes: tuple[str, ...] = field(default=())


def match_names(store: ParameterStore, wanted: Collection[str], *, needed: Collection[str] | None = None, recognised: bool = False,
                allow_extra: bool = False) -> Matched:
    """A store under the names that are wanted, as far as they can be found in it; names are changed only where all are found.

    Tried in this order: the names as they are; without what wrappers add to them; under a prefix, `model.`; under one that the
    wanted names have and the file's do not. The two spellings of `torch.nn.utils`' weight norm and spectral norm are one, and
    so are `gamma`, `beta` and `weight`, `bias` where the wanted names know the latter only.

    What is left over is left out with a note where it is a training run's own (losses, metrics, running averages), a counter,
    or outside of the prefix; else it stays, for the caller to refuse.

    Args:
        store: the checkpoint.
        wanted: names; `needed` are those that must be there (default: all).
        recognised: whether names and shapes alone say what the model is: then nothing is left out for its prefix.
        allow_extra: whether all that is left over is left out.

    Raises:
        ParameterError: the names are there under several prefixes.
    """
    wanted = frozenset(wanted)
    needed = wanted if needed is None else wanted & frozenset(needed)
    names = store.names()
    if isinstance(store, PartedParameters):
        store, more = _of_parts(store, wanted, needed)
        of_one = match_names(store, wanted, needed=needed, recognised=recognised, allow_extra=allow_extra)
        return replace(of_one, notes=(*more, *of_one.notes))
    if not names or not needed:
        return Matched(store)
    training = [name for name in names if _is_training(name, wanted)]
    kept = [name for name in names if name not in set(training)] or list(names)
    parts = find_wrappers(kept)
    views: list[tuple[dict[str, str], tuple[str, ...]]] = [({name: name for name in kept}, ())]
    bare = {strip_wrappers(name, parts): name for name in kept}
    if parts and len(bare) == len(kept):
        views.append((bare, parts))
    # The names as they are first; under a prefix without the wrappers' parts, where that is possible.
    for places, removed, as_they_are in [(*views[0], True), *((*view, False) for view in reversed(views))]:
        for prefix in _fitting(places, needed, store, only_exact=as_they_are):
            found = {name.removeprefix(prefix): place for name, place in places.items() if name.startswith(prefix)}
            outside = [place for name, place in places.items() if not name.startswith(prefix)]
            if recognised and outside:
                continue
            found = _spelled(found, wanted)
            return _matched(store, found, wanted, (*removed, *([prefix.rstrip(".")] if prefix else [])), outside, training, allow_extra)
        added = "" if as_they_are else _added(places, needed)
        if added:
            return _matched(store, {f"{added}{name}": place for name, place in places.items()}, wanted, removed, [], training, allow_extra)
    places, removed = _nearest(views, wanted)
    return _matched(store, places, wanted, removed, [], training if len(kept) < len(names) else [], allow_extra)


def declared(architecture: Architecture) -> tuple[dict[str, TensorSpec], set[str]]:
    """The parameters of a graph, and those that it cannot do without: what a node or an output uses, and what is tied to it."""
    graph, aliases = architecture.graph, architecture.aliases
    used = set(graph.uses)
    used |= {aliases[name] for name in used if name in aliases}
    needed = {name for name in architecture.specs if name in used or aliases.get(name) in used}
    constants = set(architecture.constants.names())
    return dict(architecture.specs), {name for name in needed if name not in constants}


def fit(store: ParameterStore, architecture: Architecture, *, recognised: bool = False, allow_extra: bool = False,
        narrow: bool = False) -> tuple[Matched, ParameterStore]:
    """A checkpoint's tensors as the parameters of a graph, and what was done to their names.

    Parameters that no node uses (`num_batches_tracked`) may be absent, and are then no parameters of the model.

    Args:
        store, recognised, allow_extra: as for `match_names`.
        architecture: the graph.
        narrow: whether floats may be rounded to the graph's dtypes.

    Raises:
        ParameterError: tensors that are missing, extra, or of another dtype or shape; all are listed.
    """
    from converter.checking import check
    from converter.format import bind_parameters
    from converter.passes.casting import fit_dtypes

    specs, needed = declared(architecture)
    # Of names that share a tensor one is enough.
    groups = {architecture.aliases.get(name, name) for name in needed}
    matched = match_names(store, specs, needed=groups if all(name in needed for name in groups) else needed, recognised=recognised,
                          allow_extra=allow_extra)
    if recognised:
        refuse_other_layers(architecture.graph, matched.store)
    store, cast = fit_dtypes(matched.store, specs, narrow=narrow)
    held = set(store.names()) | set(architecture.constants.names())
    absent = {name for name in specs if name not in needed and name not in held and name not in architecture.aliases
              and name not in architecture.aliases.values()}
    specs = {name: spec for name, spec in specs.items() if name not in absent}
    notes = [*matched.notes, *cast]
    if absent:
        notes.append(f"{len(absent)} tensors of the graph that no node uses are not in the checkpoint, and left out: "
                     f"{some(sorted(absent), 3)}")
    parameters = bind_parameters(specs, architecture.aliases, store, constants=architecture.constants, fix=_fix(store, specs))
    check(architecture.graph, parameters)
    return Matched(store, matched.wrappers, tuple(notes)), parameters


def refuse_other_layers(graph: Graph, store: ParameterStore) -> None:
    """Raises `FormatError` where the file's own layers, if it tells of them, have other attributes than the graph's nodes."""
    wrong = []
    for node in graph.nodes:
        attributes = {**{name: item.default for name, item in lookup(node.op).attributes.items()}, **node.attributes}
        told = {key: (name, value) for name in node.names if name in store for key, value in store.layer(name).items()}
        wrong += [f"{name}: {key} {value}, there {attributes[key]}" for key, (name, value) in told.items()
                  if key in attributes and _other(value, attributes[key] if attributes[key] != () else int(key != "padding"))]
    if wrong:
        raise FormatError("the file holds another module than its names and shapes were taken for", received=some(wrong, 4),
                          fix="give its code (--module) or its graph (--architecture)")


def _other(value: Any, wanted: Any) -> bool:
    """Whether a layer's attribute is not a node's; an integer stands for one on each axis, and a pad for both ends of one."""
    if isinstance(value, tuple) and isinstance(wanted, tuple) and len(value) == len(wanted):
        return any((one, one) != two if isinstance(two, tuple) else one != two for one, two in zip(value, wanted, strict=True))
    if isinstance(value, tuple) and isinstance(wanted, int):
        return any(one != wanted for one in value)
    return type(value) is type(wanted) and value != wanted


def _fix(store: ParameterStore, specs: Mapping[str, TensorSpec]) -> str:
    dtypes = any(name in specs and store.spec(name).dtype is not specs[name].dtype for name in store.names())
    return (f"{ADVICE}; --dtype float32 (in Python: dtype=) casts the floats" if dtypes else ADVICE)


def drop_training(store: ParameterStore, wanted: Collection[str] = ()) -> ParameterStore:
    """A store without what a training run keeps beside its model, where there is a model beside it; `wanted`: names of the model's own."""
    training = [name for name in store.names() if _is_training(name, wanted)]
    kept = {name: name for name in store.names() if name not in set(training)}
    return RenamedParameters(store, kept, [left_out(training, "of the training run")]) if training and kept else store


def unwrap(store: ParameterStore) -> tuple[ParameterStore, tuple[str, ...]]:
    """A store without what wrappers add to its names, and what they added."""
    parts = find_wrappers(store.names())
    places = {strip_wrappers(name, parts): name for name in store.names()}
    return (RenamedParameters(store, places), parts) if parts and len(places) == len(store.names()) else (store, ())


def _of_parts(store: PartedParameters, wanted: frozenset[str], needed: frozenset[str]) -> tuple[ParameterStore, tuple[str, ...]]:
    """The one state_dict that has the needed names, or all of them joined where these have them."""
    joined = RenamedParameters(store, {name: name for name in store.names()})

    def has_all(part: ParameterStore) -> bool:
        found = match_names(part, wanted, needed=needed).store
        return all(name in found for name in needed)

    fits = [key for key, part in store.parts.items() if has_all(part)]
    if len(fits) == 1:
        others = [key for key in store.parts if key not in fits]
        return store.parts[fits[0]], (f"of several state_dicts, the one with the names that are wanted: not {some(others)}",)
    if not fits and has_all(joined):
        return joined, (f"the state_dicts under {some(list(store.parts))} are joined",)
    raise SeveralStateDicts(fits or list(store.parts))


def _is_training(name: str, wanted: Collection[str]) -> bool:
    first = name.partition(".")[0]
    return _TRAINING.fullmatch(first) is not None and name not in wanted and not any(item.partition(".")[0] == first for item in wanted)


def _canonical(name: str) -> str:
    for pattern, old in _SPELLINGS:
        name, count = pattern.subn(old, name)
        if count:
            break
    return name


def _fitting(places: Mapping[str, str], needed: Collection[str], store: ParameterStore, *, only_exact: bool) -> list[str]:
    """The prefix under which every needed name is there, if any; `""` where the names are there as they are."""
    layers = not any(name.endswith((".gamma", ".beta")) for name in needed)
    held = {_modern(_canonical(name), layers) for name in places}
    want = {_modern(_canonical(name), layers) for name in needed}
    if want <= held:
        return [""]
    if only_exact:
        return []
    longest = max(want, key=len)
    found = [name.removesuffix(longest) for name in held if name.endswith(f".{longest}")]
    found = sorted(prefix for prefix in found if all(prefix + name in held for name in want))
    if len(found) > 1:
        own = [prefix for prefix in found if not any(_TRAINING.fullmatch(part) for part in prefix.split("."))]
        found = own if len(own) == 1 else found
    if len(found) > 1 and all(_tensor(store, places.get(found[0] + name)) == _tensor(store, places.get(prefix + name))
                              for prefix in found[1:] for name in needed):
        found = found[:1]
    if len(found) > 1:
        raise ParameterError("the names are in the checkpoint more than once", received=f"under {some([repr(item) for item in found])}",
                             expected="one prefix", fix=f"say which: --prefix {found[0].rstrip('.')} (in Python: prefix=)")
    return found


def _tensor(store: ParameterStore, name: str | None) -> str | None:
    return None if name is None else store.alias_of(name) or name


def _modern(name: str, layers: bool) -> str:
    if layers and name.endswith(".gamma"):
        return name.removesuffix("gamma") + "weight"
    return name.removesuffix("beta") + "bias" if layers and name.endswith(".beta") else name


def _spelled(places: Mapping[str, str], wanted: Collection[str]) -> dict[str, str]:
    """The names in the spelling of those that are wanted."""
    layers = not any(name.endswith((".gamma", ".beta")) for name in wanted)
    spelling = {_modern(_canonical(name), layers): name for name in wanted}
    made = {name if name in wanted else spelling.get(_modern(_canonical(name), layers), name): place for name, place in places.items()}
    return made if len(made) == len(places) else dict(places)


def _added(places: Mapping[str, str], needed: Collection[str]) -> str:
    """What every needed name begins with, where without it all are names of the file; else nothing."""
    prefix = ""
    while all(name.startswith(prefix) and "." in name.removeprefix(prefix) for name in needed):
        firsts = {name.removeprefix(prefix).partition(".")[0] for name in needed}
        if len(firsts) > 1:
            return ""
        prefix = f"{prefix}{firsts.pop()}."
        if all(name.removeprefix(prefix) in places for name in needed):
            return prefix
    return ""


def _nearest(views: list[tuple[dict[str, str], tuple[str, ...]]], wanted: frozenset[str]) -> tuple[dict[str, str], tuple[str, ...]]:
    """Names for an error to be of: changed only where those of the file hold no wanted name and the changed ones do."""
    places, removed = views[0]
    if len(views) > 1 and not wanted & places.keys() and wanted & views[1][0].keys() and len(views[1][0]) == len(views[0][0]):
        places, removed = views[1]
    before: list[str] = []
    current = places
    while current and not wanted & places.keys() and len({name.partition(".")[0] for name in current}) == 1 and all(
            "." in name for name in current):
        before.append(next(iter(current)).partition(".")[0])
        current = {name.partition(".")[2]: place for name, place in current.items()}
        if wanted >= current.keys():
            return current, (*removed, ".".join(before))
    return places, removed


def _matched(store: ParameterStore, places: dict[str, str], wanted: frozenset[str], removed: tuple[str, ...], outside: list[str],
             training: list[str], allow_extra: bool) -> Matched:
    left = [name for name in places if name not in wanted and (allow_extra or name.rpartition(".")[2] in COUNTERS)]
    counters = [name for name in left if name.rpartition(".")[2] in COUNTERS]
    extra = [name for name in left if name not in set(counters)]
    notes = [left_out(names, why) for names, why in (
        (training, "of the training run"), (outside, f"not under {'.'.join(removed)!r}"), (counters, "which nothing counts with"),
        (extra, "that nothing asks for")) if names]
    kept = {name: place for name, place in places.items() if name not in set(left)}
    spelled = [place for name, place in kept.items() if _canonical(place) != place and name != place and not place.endswith(name)]
    if spelled:
        notes.append(f"{len(spelled)} names in the other spelling of their parametrization: {some(spelled, 3)}")
    if list(kept.items()) == [(name, name) for name in store.names()]:
        return Matched(store, removed, tuple(notes))
    return Matched(RenamedParameters(store, kept), removed, tuple(notes))
