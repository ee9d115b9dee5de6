"""Parameters from a checkpoint: one file, or a folder of shards with an index, whatever format each file has."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from threading import Thread
from typing import Any

from converter.discovery import Folder, adapters, formats, read, requiring, resolve
from converter.errors import FormatError, UnsafePickleError
from converter.kinds import SHARD, kind_of_folder, names_in
from converter.naming import NameOptions, PartedParameters
from converter.parameters import ParameterStore, ParameterView, places_in
from converter.paths import format_of_file, refuse_json, require_readable
from converter.side_files import is_regular, parse_json, read_small
from converter.state_dict import SeveralStateDicts, some

WHOLE = ("model.safetensors", "pytorch_model.bin")
"""The single file of a Hugging Face folder, the preferred one first; `<name>.index.json` lists its shards."""


MOST_PARTS = 16
"""State_dicts of one file that are joined."""
ASIDE = ("training_args.bin", "scheduler.pt", "optimizer.bin", "optimizer.pt", "rng_state.pth", "scaler.pt", "scheduler.bin")
"""Files that training leaves beside a checkpoint."""

MAX_INDEX = 64 << 20
"""Bytes of an index."""

LONGEST = 500
"""Characters of a shard's name."""


def load_parameters(path: str | Path, key: str | None = None, *, allow_pickle: bool = False, names: NameOptions | None = None,
                    parts: bool = False) -> ParameterStore:
    """The tensors of a checkpoint file or of a folder as Hugging Face lays it out. Runs no code from any file.

    Args:
        path: the file or the folder.
        key: the entry of the file that holds the state_dict, where it holds several.
        allow_pickle: whether a file that holds Python objects beside tensors is loaded by the library that wrote it, which
            RUNS THE CODE THAT THE FILE NAMES. Files of tensors alone are read as without it.
        names: what is said of the names in it.
        parts: whether several state_dicts of a file give `PartedParameters`, for `match_names` to join or to choose from.

    Raises:
        UnsafePickleError: a file that holds Python objects, and `allow_pickle` is not given.
        FormatError: nothing there that can be read as a checkpoint.
        MissingDependencyError: the format's library is not installed.
    """
    try:
        store = _load(require_readable(path), key, allow_pickle)
    except SeveralStateDicts as error:
        if not parts or len(error.keys) > MOST_PARTS:
            raise
        store = PartedParameters({name: _load(Path(path), name, allow_pickle) for name in error.keys})
    return store if names is None else names.applied(store)


def _load(path: Path, key: str | None, allow_pickle: bool) -> ParameterStore:
    if path.is_dir():
        return _load_folder(path, key)
    try:
        return _load_file(path, key)
    except UnsafePickleError:
        found = format_of_file(path)
        if not allow_pickle or found.unsafe is None:
            raise
    function = resolve(found.unsafe, found.extra)
    with requiring(found.extra):
        return function(path, key=key)


def _load_file(path: Path, key: str | None) -> ParameterStore:
    require_readable(path)
    found = format_of_file(path)
    if found.holds != "parameters":
        raise FormatError(f"a {found.title}, not a checkpoint", where=str(path), fix=f"load it with converter.load({path.name!r})",
                          expected=", ".join(text for item in formats().values() if item.holds == "parameters" and item.load
                                             for text in item.suffixes))
    if found.load is None:
        raise FormatError(f"a {found.title} cannot be read", where=str(path))
    if key is not None and not found.entries:
        raise FormatError(f"a {found.title} file is one state_dict, without entries", where=str(path), received=f"key {key!r}",
                          fix="leave the key out")
    store: ParameterStore = read(found, path, key=key)
    return store


# Folders -----------------------------------------------------------------------------------------------------------------


def checkpoint_files(path: str | Path) -> list[Path]:
    """The files that a checkpoint's tensors come from. Raises `FormatError` as `load_parameters` does."""
    path = require_readable(path)
    if not path.is_dir():
        return [path]
    index = _index(path)
    if index is not None:
        return list(dict.fromkeys(path / name for name in _weight_map(index).values()))
    parted = _parted(path)
    return parted[1] if parted is not None else _unindexed(path)


def _parted(folder: Path) -> tuple[Folder, list[Path]] | None:
    """The kind of a folder whose tensors lie in pieces, as adapters declare them, and its files; None where it holds whole ones."""
    if any((folder / name).is_file() for name in WHOLE):
        return None
    for item in (item for adapter in adapters().values() for item in adapter.folders):
        files = resolve(item.files)(folder)
        if files:
            return item, files
    return None


def folder_title(path: Path) -> str:
    """What a folder that holds a checkpoint is called."""
    parted = None if _index(path) is not None else _parted(path)
    return "Hugging Face folder" if parted is None else parted[0].title


def _load_folder(folder: Path, key: str | None) -> ParameterStore:
    index = _index(folder)
    parted = None if index is not None else _parted(folder)
    if parted is not None:
        found_parts: ParameterStore = resolve(parted[0].load)(folder, key)
        return found_parts
    if index is None:
        files = _unindexed(folder)
        if len(files) == 1:
            store = _load_file(files[0], key)
            if files[0].name not in WHOLE:
                store.notes = (*store.notes, f"the folder's one checkpoint, {files[0].name}")
            return store
        _refuse_key(folder, key)
        whole = {file.name: _load_file(file, None) for file in files}
        twice = [name for name, count in Counter(name for store in whole.values() for name in store.names()).items() if count > 1]
        if twice:
            raise FormatError("shards without an index that hold the same tensors", where=str(folder), received=some(twice))
        return ParameterView({name: (store, name) for store in whole.values() for name in store.names()},
                             (f"{len(files)} shards without an index, all of them there",))
    _refuse_key(folder, key)
    places = _weight_map(index)
    shards: dict[str, ParameterStore] = {}
    for name in dict.fromkeys(places.values()):
        shard = folder / name
        if not is_regular(shard):
            raise FormatError("a shard of the checkpoint is missing", where=str(index), expected=name,
                              fix="download the folder again")
        shards[name] = _load_file(shard, None)
    held = {tensor: name for name, shard in shards.items() for tensor in shard.names()}
    missing = [tensor for tensor, name in places.items() if tensor not in shards[name]]
    extra = [tensor for tensor in held if tensor not in places]
    if missing or extra:
        raise FormatError("the index does not fit the shards", where=str(index),
                          received="; ".join(f"{label}: {', '.join(names[:8])}{' …' if len(names) > 8 else ''}"
                                             for label, names in (("missing", missing), ("not in the index", extra)) if names))
    return ParameterView({tensor: (shards[name], tensor) for tensor, name in places.items()})


def _refuse_key(folder: Path, key: str | None) -> None:
    if key is not None:
        raise FormatError("a folder of shards is one state_dict, without entries", where=str(folder), received=f"key {key!r}",
                          fix="leave the key out")


def _index(folder: Path) -> Path | None:
    for name in WHOLE:
        if (folder / name).is_file():
            return None
        if (folder / f"{name}.index.json").is_file():
            return folder / f"{name}.index.json"
    return None


def _unindexed(folder: Path) -> list[Path]:
    """The file of a folder's checkpoint, or its shards where they are all there without an index.

    Where no file has a usual name, the only one of its kind beside a config.json is it: `model.fp16.safetensors`.
    """
    for name in WHOLE:
        if (folder / name).is_file():
            return [folder / name]
    names = names_in(folder)
    shards = [found for name in names if (found := SHARD.fullmatch(name))]
    if shards and len({(found["stem"], found["suffix"], int(found["count"])) for found in shards}) == 1:
        if [int(found["index"]) for found in shards] == list(range(1, int(shards[0]["count"]) + 1)):
            return [folder / found[0] for found in shards]
    elif not shards and "config.json" in names and "adapter_config.json" not in names:
        for suffix in (".safetensors", ".bin", ".pt", ".pth"):
            files = [name for name in names if name.endswith(suffix) and name not in ASIDE]
            if len(files) == 1:
                return [folder / files[0]]
            if files:
                break
    kind = kind_of_folder(folder)
    raise FormatError(f"the folder holds no checkpoint that can be read: {kind.title}", where=str(folder),
                      expected=", ".join(text for name in WHOLE for text in (name, f"{name}.index.json")),
                      received=", ".join(names[:8]) or "an empty folder", fix=kind.fix)


def _weight_map(index: Path) -> dict[str, str]:
    """Tensor names to files beside the index. Raises `FormatError` for a file outside of the folder."""
    try:
        content = parse_json(read_small(index, MAX_INDEX))
    except (ValueError, RecursionError) as error:
        raise refuse_json(index, error, "the index is not JSON") from error
    places = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(places, dict) or not places or not all(isinstance(name, str) for name in places.values()):
        raise FormatError("the index has no map of tensors to files", where=str(index),
                          expected='{"weight_map": {"tensor": "file", …}}')
    folder = index.parent.resolve()
    for tensor, name in places.items():
        # A link within the folder is how download caches store files; a name that leads out of it is not.
        if not name or len(name) > LONGEST or Path(name).is_absolute() or ".." in Path(name).parts or "\0" in name or "\\" in name:
            raise FormatError(f"the index places {tensor[:80]!r} outside of the folder", where=str(index),
                              expected=f"a file in {folder.name}", received=repr(name)[:120])
    return places


class SelectedParameters(ParameterView):
    """A store without some of its names. An alias of a name left out becomes the tensor that the other aliases share."""

    def __init__(self, store: ParameterStore, without: frozenset[str]) -> None:
        super().__init__(places_in(store, (name for name in store.names() if name not in without)))


# Where it came from ------------------------------------------------------------------------------------------------------


def origin_of(path: str | Path) -> Origin:
    """`source_metadata`, worked out meanwhile."""
    return Origin(checkpoint_files(path), Path(path))


def source_metadata(path: str | Path) -> dict[str, Any]:
    """The file's name and SHA-256, or those of each shard, for a model's metadata. Reads the files whole."""
    return file_metadata(checkpoint_files(path), Path(path))


def file_metadata(files: Sequence[Path], root: Path) -> dict[str, Any]:
    """As `source_metadata`, for files that may lie in folders of `root`."""
    digests = {}
    for file in files:
        with file.open("rb") as stream:
            digests[_name_in(file, root)] = hashlib.file_digest(stream, "sha256").hexdigest()
    if len(digests) == 1:
        ((name, digest),) = digests.items()
        return {"file": name, "sha256": digest}
    return {"files": digests}


def _name_in(file: Path, root: Path) -> str:
    name = file.relative_to(root).as_posix() if root in file.parents else file.name
    # Bytes that are no UTF-8 are shown as escapes: documents hold text.
    return name.encode("utf-8", "backslashreplace").decode("utf-8")


class Origin(Mapping[str, Any]):
    """Where a model came from: what is known at once, and `file_metadata`, which a thread works out meanwhile.

    Reading a file's digest waits for it. The files' bytes are hashed while tensors are read, hashed and written, which
    takes about as long.
    """

    def __init__(self, files: Sequence[Path], root: Path) -> None:
        names = {_name_in(file, root) for file in files}
        self._names: tuple[str, ...] = ("file", "sha256") if len(names) == 1 else ("files",)
        self._before: Mapping[str, Any] = {}
        self._after: Mapping[str, Any] = {}
        self._digests: Future[dict[str, Any]] = Future()
        # A daemon: an interrupted program does not wait for it.
        Thread(target=self._work, args=(list(files), root), daemon=True).start()

    def _work(self, files: list[Path], root: Path) -> None:
        try:
            self._digests.set_result(file_metadata(files, root))
        except BaseException as error:
            self._digests.set_exception(error)

    def beside(self, before: Mapping[str, Any], after: Mapping[str, Any]) -> Origin:
        """The same with more facts, those of the files and `after` standing above those of the same name in `before`."""
        made = object.__new__(Origin)
        made._names, made._digests = self._names, self._digests
        made._before, made._after = {**before, **self._before}, {**self._after, **after}
        return made

    def __getitem__(self, name: str) -> Any:
        if name in self._after:
            return self._after[name]
        return self._digests.result()[name] if name in self._names else self._before[name]

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys((*self._before, *self._names, *self._after)))

    def __len__(self) -> int:
        return len(list(iter(self)))

    def __contains__(self, name: object) -> bool:
        return name in self._before or name in self._names or name in self._after

    def __repr__(self) -> str:
        return repr(dict(self))

    def __reduce__(self) -> tuple[Any, ...]:
        return dict, (dict(self),)
