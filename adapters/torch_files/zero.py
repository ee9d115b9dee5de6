"""DeepSpeed's folders without DeepSpeed: the float32 weights that ZeRO keeps in flat pieces with each process, put together again.

Layout, as DeepSpeed's own `zero_to_fp32.py` reads it: `latest` names a folder of one step. In it `mp_rank_00_model_states.pt` (ZeRO 1
and 2) or `zero_pp_rank_R_mp_rank_00_model_states.pt` (ZeRO 3) have the parameters' names and shapes, the buffers and what is frozen;
`zero_pp_rank_R_mp_rank_00_optim_states.pt` the flat weights of the process R:

- ZeRO 1 and 2, `single_partition_of_fp32_groups`: of each group of parameters the processes' pieces, one after the other, are the group's
  parameters one after the other, and padding to a multiple of twice the number of processes;
- ZeRO 3, `fp32_flat_groups`: each process has of every parameter, one after the other, ceil(elements / processes) elements; the processes'
  pieces of a parameter, one after the other, are the parameter and padding.
"""

from __future__ import annotations

import bisect
import itertools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapters.torch_files.archive import COPY
from adapters.torch_files.assembled import AssembledParameters, Piece, held
from adapters.torch_files.content import WIDEST, Malformed, TensorRef, require_span, sizes, text
from adapters.torch_files.read import CheckpointParameters, open_content
from converter.dims import fixed
from converter.errors import ConverterError, FormatError, UnsupportedError
from converter.ir import DType, TensorSpec
from converter.kinds import JOIN_ZERO, names_in
from converter.parameters import ParameterStore
from converter.side_files import read_small

LATEST, MAX_LATEST = "latest", 4096
_OPTIMIZER = re.compile(r"(?:bf16_|fp16_)?zero_pp_rank_(\d{1,7})_mp_rank_(\d{1,7})_optim_states\.pt")
_MODEL = re.compile(r"(?:zero_pp_rank_(\d{1,7})_)?mp_rank_(\d{1,7})_model_states\.pt")

Flat = tuple[ParameterStore, str, int]
"""A stored tensor: the store, the name, the number of elements."""


class Flats:
    """Stored tensors that make one long one, one after the other."""

    def __init__(self, parts: Sequence[Flat]) -> None:
        self._parts = parts
        self._ends = list(itertools.accumulate(length for _, _, length in parts))
        self.length = self._ends[-1] if parts else 0

    def runs(self, start: int, count: int, place: int) -> Iterator[Piece]:
        """The pieces that hold `count` elements from `start` on, for a tensor's elements from `place` on."""
        end = start + count
        for number in range(bisect.bisect_right(self._ends, start), len(self._parts)):
            store, name, length = self._parts[number]
            first = self._ends[number] - length
            low, high = max(start, first), min(end, first + length)
            if low >= high:
                return
            yield Piece(slice(place + low - start, place + high - start), held(store), name, slice(low - first, high - first))


@dataclass(frozen=True, slots=True)
class Content:
    """One file: what it holds, and a store of the tensors in it by the places that were asked for."""

    file: Path
    archive: Any
    value: Mapping[str, Any]

    def store(self, tensors: Mapping[str, Any]) -> CheckpointParameters:
        """Some of its tensors. Raises `FormatError` where one of them is none."""
        wrong = [name for name, value in tensors.items() if not isinstance(value, TensorRef)]
        if wrong:
            raise FormatError("something else than a tensor, where a tensor belongs", where=self.file.name, received=wrong[0][:120])
        return CheckpointParameters(self.archive, tensors, None)


def zero_files(folder: Path) -> list[Path] | None:
    """The files of the DeepSpeed checkpoint that a folder is or holds; None for another folder."""
    step = _step(folder)
    if step is None:
        return None
    return [step / name for name in names_in(step) if _OPTIMIZER.fullmatch(name) or _MODEL.fullmatch(name)]


def _step(folder: Path) -> Path | None:
    names = names_in(folder)
    if any(_MODEL.fullmatch(name) for name in names):
        return folder
    if LATEST in names:
        named = read_small(folder / LATEST, MAX_LATEST).decode("utf-8-sig", "replace").strip()
        if not named or "/" in named or "\\" in named or "\0" in named or named in (".", ".."):
            raise FormatError("the file that names the latest step names none", where=str(folder / LATEST), received=repr(named)[:120])
        steps = [named]
    else:
        steps = [name for name in names if name.startswith("global_step")]
    found = [name for name in steps if (folder / name).is_dir() and any(_MODEL.fullmatch(item) for item in names_in(folder / name))]
    if len(found) > 1:
        raise FormatError("a DeepSpeed folder of several steps", where=str(folder), received=", ".join(found[:8]),
                          fix=f"give one of them: {folder / found[-1]}")
    return folder / found[0] if found else None


def load_zero(folder: Path, key: str | None = None) -> ParameterStore:
    """The float32 weights and the buffers of a DeepSpeed checkpoint.

    Where the optimizer's files are not there, and the weights are not in pieces (ZeRO 0 to 2), those that the module itself has.

    Raises:
        FormatError: files that are missing, damaged, or do not fit each other.
        UnsupportedError: tensor or pipeline parallelism, or experts of several processes.
    """
    step = _step(Path(folder))
    if step is None:
        raise FormatError("no DeepSpeed checkpoint", where=str(folder), expected="mp_rank_00_model_states.pt")
    if key is not None:
        raise FormatError("a DeepSpeed checkpoint is one state_dict, without entries", where=str(folder), received=f"key {key!r}",
                          fix="leave the key out")
    try:
        return _load(step)
    except Malformed as error:
        raise FormatError("the shapes of the parameters are none", where=str(step), received=str(error), fix=COPY) from error
    except ConverterError as error:
        raise error.within(str(step)) from error


def _load(step: Path) -> ParameterStore:
    names = names_in(step)
    models, optimizers = _ranks(names, _MODEL), _ranks(names, _OPTIMIZER)
    parted = [name for name in names if name.startswith(("layer_", "expp_rank_")) or (found := _MODEL.fullmatch(name)) and int(found[2])]
    if parted:
        raise UnsupportedError("a model whose parts lie with several processes (tensor or pipeline parallel, or experts)",
                               received=", ".join(parted[:4]), fix=JOIN_ZERO)
    first = _open(step / models[0])
    if len(models) == 1 and not optimizers:
        return _module(first, "the module's own: no files of an optimizer lie beside it")
    if sorted(optimizers) != list(range(len(optimizers))):
        raise FormatError("files of processes are missing", expected="zero_pp_rank_0_mp_rank_00_optim_states.pt, 1, 2, …",
                          received=", ".join(optimizers.values())[:200], fix="copy or download the whole folder again")
    contents = [_open(step / optimizers[rank]) for rank in sorted(optimizers)]
    states = [_state(content) for content in contents]
    counts = states[0].get("partition_count", len(states))
    count = max(counts) if isinstance(counts, list) and counts and all(type(item) is int for item in counts) else counts
    if type(count) is not int:
        raise Malformed("a number of processes that is none")
    if count != len(states):
        raise FormatError("the files of some processes are missing", expected=f"{count} …_optim_states.pt"[:60], received=str(len(states)),
                          fix="copy or download the whole folder again")
    three = "fp32_flat_groups" in states[0]
    flats = [_flats(content, state, "fp32_flat_groups" if three else "single_partition_of_fp32_groups")
             for content, state in zip(contents, states, strict=True)]
    if "param_shapes" not in first.value:
        if three:
            raise FormatError("the parameters' shapes are not told: an old DeepSpeed", where=first.file.name, fix=JOIN_ZERO)
        return _module(first, "the module's own: this version of DeepSpeed does not tell how the optimizer's are ordered")
    if three and sorted(models) != sorted(optimizers):
        raise FormatError("files of processes are missing", expected=f"{len(optimizers)} …_model_states.pt", received=str(len(models)),
                          fix="copy or download the whole folder again")
    groups = _shapes(first)
    pieces = _of_three(groups, flats) if three else _of_two(groups, flats)
    specs = {name: TensorSpec(DType.FLOAT32, shape) for group in groups for name, shape in group.items()}
    return _with_the_rest([first, *(_open(step / models[rank]) for rank in sorted(models)[1:])], specs, pieces, three,
                          f"a DeepSpeed checkpoint (ZeRO {'3' if three else '1 or 2'}) of {len(optimizers)} processes: its float32 weights")


def _ranks(names: Sequence[str], pattern: re.Pattern[str]) -> dict[int, str]:
    matches = {name: match for name in names if (match := pattern.fullmatch(name)) and not int(match[2])}
    return {int(match[1] or 0): name for name, match in sorted(matches.items(), key=lambda item: int(item[1][1] or 0))}


def _open(path: Path) -> Content:
    archive, value = open_content(path)
    if not isinstance(value, Mapping):
        raise FormatError("no file of a DeepSpeed checkpoint", where=path.name, received=type(value).__name__, fix=COPY)
    return Content(path, archive, value)


def _module(first: Content, what: str) -> ParameterStore:
    tensors = first.value.get("module")
    if not isinstance(tensors, Mapping) or not tensors:
        raise FormatError("the file holds no weights of the module", where=first.file.name, expected="an entry 'module'", fix=JOIN_ZERO)
    store = first.store({text(name, "a name"): value for name, value in tensors.items() if value is not None})
    store.notes = (f"a DeepSpeed checkpoint, of which the weights are {what}",)
    return store


def _state(content: Content) -> Mapping[str, Any]:
    found = content.value.get("optimizer_state_dict")
    if not isinstance(found, Mapping):
        raise FormatError("a file of the optimizer without its state", where=content.file.name, expected="an entry 'optimizer_state_dict'",
                          fix=JOIN_ZERO)
    return found


def _flats(content: Content, state: Mapping[str, Any], entry: str) -> list[tuple[ParameterStore, str, int]]:
    """The flat weights of one process. Raises `FormatError` for what is no list of float32 vectors."""
    listed = state.get(entry)
    if not isinstance(listed, (list, tuple)) or not listed:
        raise FormatError("a file of the optimizer without float32 weights", where=content.file.name, fix=JOIN_ZERO,
                          expected=f"an entry {entry!r}",
                          received=", ".join(item for item in list(state)[:8] if isinstance(item, str))[:200])
    store = content.store({str(number): value for number, value in enumerate(listed)})
    if any(store.alias_of(name) is not None and store.nbytes for name in store.names()):
        raise FormatError("flat weights that are there twice", where=content.file.name, fix=COPY)
    for name in store.names():
        if store.spec(name).dtype is not DType.FLOAT32 or store.spec(name).rank != 1:
            raise FormatError("flat weights of another dtype or shape", where=content.file.name, expected="float32[any]",
                              received=str(store.spec(name)), fix=JOIN_ZERO)
    return [(store, name, fixed(store.spec(name).shape[0])) for name in store.names()]


def _shapes(first: Content) -> list[dict[str, tuple[int, ...]]]:
    """The names and shapes of the parameters in each group, in the order in which they are laid one after the other."""
    given = first.value["param_shapes"]
    groups = [given] if isinstance(given, Mapping) else given
    if not isinstance(groups, (list, tuple)) or not all(isinstance(group, Mapping) for group in groups):
        raise FormatError("the parameters' shapes are none", where=first.file.name, fix=JOIN_ZERO)
    found = [{text(name, "a name"): _shape(shape) for name, shape in group.items()} for group in groups]
    if len({name for group in found for name in group}) < sum(map(len, found)):
        raise FormatError("a parameter in two groups", where=first.file.name, fix=JOIN_ZERO)
    return found


def _shape(value: Any) -> tuple[int, ...]:
    found = sizes(value, "shape")
    require_span(found, WIDEST)
    return found


def _of_two(groups: Sequence[Mapping[str, tuple[int, ...]]], flats: Sequence[Sequence[Flat]]) -> dict[str, tuple[Piece, ...]]:
    found: dict[str, tuple[Piece, ...]] = {}
    if any(len(flat) != len(groups) for flat in flats):
        raise FormatError("groups of parameters that are not those of the flat weights", expected=f"{len(groups)} groups",
                          received=", ".join(str(len(flat)) for flat in flats[:8]), fix=JOIN_ZERO)
    unit = 2 * len(flats)
    for number, group in enumerate(groups):
        own = Flats([flat[number] for flat in flats])
        place = 0
        for name, shape in group.items():
            count = math.prod(shape)
            found[name] = tuple(own.runs(place, count, 0))
            place += count
        total = own.length
        if place > total or -(-place // unit) != -(-total // unit):
            raise _misfit(f"group {number}", place, total)
    return found


def _of_three(groups: Sequence[Mapping[str, tuple[int, ...]]], flats: Sequence[Sequence[Flat]]) -> dict[str, tuple[Piece, ...]]:
    found: dict[str, tuple[Piece, ...]] = {}
    place, processes = 0, len(flats)
    owned = list(map(Flats, flats))
    for name, shape in ((name, shape) for group in groups for name, shape in group.items()):
        count = math.prod(shape)
        each = -(-count // processes)
        found[name] = tuple(piece for rank, own in enumerate(owned)
                            for piece in own.runs(place, min(each, max(0, count - rank * each)), rank * each))
        place += each
    for own in owned:
        if own.length != place:
            raise _misfit("each process", place, own.length)
    return found


def _refuse_growth(models: Sequence[Content], wanted: int) -> None:
    """Raises `FormatError` where the frozen parameters would take more memory than the files: many names for one fragment."""
    held_bytes = sum(content.file.stat().st_size for content in models)
    if wanted > held_bytes:
        raise FormatError("frozen parameters that would take more memory than their files", expected=f"at most {held_bytes} bytes",
                          received=f"{wanted} bytes", fix=COPY)


def _misfit(where: str, wanted: int, held: int) -> FormatError:
    return FormatError("the flat weights are not those of the parameters", where=where, expected=f"{wanted} elements",
                       received=f"{held} elements", fix=JOIN_ZERO)


def _with_the_rest(models: Sequence[Content], specs: dict[str, TensorSpec], pieces: dict[str, tuple[Piece, ...]],
                   three: bool, note: str) -> AssembledParameters:
    """The trained weights with the frozen ones, the buffers, and the names that share a tensor, in the module's own order."""
    first = models[0]
    value = first.value
    frozen = value.get("frozen_param_shapes") or {}
    if not isinstance(frozen, Mapping):
        raise FormatError("the frozen parameters' shapes are none", where=first.file.name, fix=JOIN_ZERO)
    fragments = [content.value.get("frozen_param_fragments") or {} for content in models]
    if not all(isinstance(item, Mapping) for item in fragments):
        raise Malformed("frozen parameters that are no dict")
    for name, shape in ((text(name, "a name"), _shape(shape)) for name, shape in frozen.items()):
        parts = [content.store({name: item.get(name)}) for content, item in zip(models, fragments, strict=True)]
        flats = Flats([(store, name, store.nbytes // store.spec(name).dtype.itemsize) for store in parts])
        total, count = flats.length, math.prod(shape)
        if not count <= total < count + max(2, len(models)) or len({store.spec(name).dtype for store in parts}) > 1:
            raise _misfit(f"frozen {name[:80]!r}", count, total)
        specs[name] = TensorSpec(parts[0].spec(name).dtype, shape)
        pieces[name] = tuple(flats.runs(0, count, 0))
    _refuse_growth(models, AssembledParameters({name: specs[name] for name in frozen}, {}).nbytes)
    shared = value.get("shared_params") or {}
    pairs = list(shared.items()) if isinstance(shared, Mapping) else shared
    if not isinstance(pairs, (list, tuple)) or not all(
            isinstance(pair, (list, tuple)) and len(pair) == 2 and all(isinstance(name, str) for name in pair) for pair in pairs):
        raise Malformed("shared parameters that are no pairs of names")
    aliases = {name: target for name, target in pairs if target in specs and name not in specs}
    given = value.get("module")
    module: Mapping[Any, Any] = given if isinstance(given, Mapping) else {}
    # Of ZeRO 3 the module's parameters are empty, and only its buffers are there. Else all is: ZeRO 1 keeps what is frozen there alone.
    if not all(isinstance(name, str) for name in module):
        raise Malformed("a module's entry whose name is no text")
    buffers = value.get("buffer_names") or ()
    if not isinstance(buffers, (list, tuple)) or not all(isinstance(name, str) for name in buffers):
        raise Malformed("names of buffers that are none")
    names = buffers if three else [name for name in module if name not in specs and name not in aliases]
    store = first.store({name: module[name] for name in names if isinstance(module.get(name), TensorRef)})
    for name in store.names():
        specs[name] = store.spec(name)
        pieces[name] = (Piece(tuple(slice(None) for _ in store.spec(name).shape), held(store), name),)
    # Names that share another's tensor come after it.
    order = dict.fromkeys(name for name in (*module, *specs) if name in specs)
    listed = {**{name: specs[name] for name in order}, **{name: specs[target] for name, target in aliases.items()}}
    return AssembledParameters(listed, pieces, None, (note,), aliases)
