"""Distributed checkpoints (`torch.distributed.checkpoint`: FSDP, tensor parallelism) without PyTorch: tensors from their chunks.

Layout: `.metadata`, a pickle that gives each tensor's dtype, shape and chunks, and for each chunk the file, the offset and the length
where it lies; and `__RANK_N.distcp`, files of chunks, each of them what `torch.save` writes of one tensor.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from adapters.torch_files.archive import COPY, MAX_PICKLE, Archive
from adapters.torch_files.assembled import AssembledParameters, Piece
from adapters.torch_files.content import (
    MAX_KEY,
    WIDEST,
    Kind,
    Malformed,
    OtherTensor,
    Record,
    TensorRef,
    refuse_others,
    require_span,
    sizes,
    text,
)
from adapters.torch_files.read import CheckpointParameters, content_of
from adapters.torch_files.unpickle import unpickle
from converter.errors import ConverterError, FormatError, UnsupportedError
from converter.ir import DType, TensorSpec
from converter.kinds import join_distributed, names_in
from converter.mapped import MappedFile
from converter.parameters import ParameterStore
from converter.side_files import read_small
from converter.state_dict import find_state_dict, some

INDEX = ".metadata"
CLASSES = "torch.distributed."
MAX_CELLS = 4_000_000
"""Cells of the grids that the chunks' edges draw in their tensors."""
MAX_DEPTH, MAX_DICTS = 32, 500_000
"""Dicts and lists around a tensor, and around all of them."""
SPARE = 1000
"""Chunks that an index may list beyond twice as many as have a place."""

Offsets = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Saved:
    """A tensor as the index tells of it: its dtype (None: one that cannot be carried), its shape, and the boxes of its chunks."""

    name: str
    dtype: DType | None
    kind: str
    shape: tuple[int, ...]
    chunks: tuple[tuple[Offsets, tuple[int, ...]], ...]


@dataclass(frozen=True, slots=True)
class Bytes:
    """An entry that is no tensor: an object that was pickled by itself."""

    kind: str = "a pickled object"


@dataclass(slots=True)
class Index:
    """The content of `.metadata`: what was saved, nested as it was given, and the file, the offset and the length of each chunk."""

    content: dict[Any, Any]
    places: dict[tuple[str, Offsets], tuple[str, int, int]]
    files: dict[str, MappedFile] = field(default_factory=dict)


def distributed_files(folder: Path) -> list[Path] | None:
    """The files of the distributed checkpoint that a folder is or holds (beside its optimizer's); None for another folder."""
    inner = _folder(folder)
    return None if inner is None else [inner / INDEX, *(inner / name for name in names_in(inner) if name.endswith(".distcp"))]


def _folder(folder: Path) -> Path | None:
    if (folder / INDEX).is_file():
        return folder
    found = [name for name in names_in(folder) if (folder / name / INDEX).is_file() and not name.startswith("optim")]
    if len(found) > 1:
        raise FormatError("a folder of several distributed checkpoints", where=str(folder), received=some(found),
                          fix=f"give one of them: {folder / found[-1]}")
    return folder / found[0] if found else None


def load_distributed(folder: Path, key: str | None = None) -> ParameterStore:
    """The tensors of a distributed checkpoint: those of its model, where an optimizer's lie beside them.

    Args:
        folder: the one with `.metadata`, or one that holds it.
        key: the entry that holds the state_dict; default: found by its content.

    Raises:
        FormatError: a damaged index, chunks that do not cover a tensor exactly once, files that are missing or cut short.
        UnsupportedError: tensors that cannot be carried, or chunks that are compressed.
    """
    inner = _folder(Path(folder))
    if inner is None:
        raise FormatError("no distributed checkpoint", where=str(folder), expected=INDEX)
    try:
        index = _read_index(inner)
        found = find_state_dict(index.content, key, lambda value: isinstance(value, Saved))
        refuse_others({name: OtherTensor(saved.kind) for name, saved in found.tensors.items() if saved.dtype is None})
        specs = {name: TensorSpec(saved.dtype, saved.shape) for name, saved in found.tensors.items()}
        left = [MAX_CELLS]
        for name, saved in found.tensors.items():
            _check_cover(name, saved, left)
        pieces = _pieces(inner, index, found.tensors)
    except ConverterError as error:
        raise error.within(str(inner)) from error
    return AssembledParameters(specs, pieces, found.key, (f"a distributed checkpoint of {len(index.files)} files", *found.notes))


# The index ---------------------------------------------------------------------------------------------------------------


def _read_index(folder: Path) -> Index:
    content, _, _ = unpickle(memoryview(read_small(folder / INDEX, MAX_PICKLE)), _no_storage, where=INDEX, kept=(CLASSES,))
    if not isinstance(content, Record) or not isinstance(content.state, dict):
        raise FormatError("the index is none of torch.distributed.checkpoint", where=INDEX, received=type(content).__name__, fix=COPY)
    state = content.state
    try:
        places = dict(_place(index, info) for index, info in (state.get("storage_data") or {}).items())
        entries = state["state_dict_metadata"]
        # Each chunk has a place, but for those without elements: an index may name one list of chunks many times.
        listed = sum(len(item.state["chunks"]) for item in entries.values() if _has_chunks(item))
        if listed > 2 * len(places) + len(entries) + SPARE:
            raise ValueError(f"{listed} chunks, and {len(places)} places where they lie")
        saved = {name: _saved(text(name, "a name"), item) for name, item in entries.items()}
        return Index(_nested(saved, state.get("planner_data")), places)
    except (KeyError, TypeError, AttributeError, ValueError, Malformed) as error:
        raise FormatError("the index lacks what torch.distributed.checkpoint writes", where=INDEX, received=str(error)[:120],
                          fix=join_distributed(folder)) from error


def _no_storage(key: str, count: int, width: int) -> None:
    raise FormatError("the index holds tensors", where=INDEX, fix=COPY)


def _has_chunks(item: Any) -> bool:
    return isinstance(item, Record) and isinstance(item.state, dict) and "chunks" in item.state


def _saved(name: str, item: Any) -> Saved | Bytes:
    if not _has_chunks(item):
        return Bytes()
    state = item.state
    properties = state["properties"].state
    dtype = properties[0] if isinstance(properties, tuple) else properties["dtype"]
    chunks = tuple((sizes(chunk.state["offsets"], "offsets"), sizes(chunk.state["sizes"], "sizes")) for chunk in state["chunks"])
    shape = sizes(state["size"], "shape")
    require_span(shape, WIDEST)
    return Saved(name, dtype.dtype if isinstance(dtype, Kind) else None, f"of the dtype {getattr(dtype, 'kind', '?')}", shape, chunks)


def _place(index: Any, info: Any) -> tuple[tuple[str, Offsets], tuple[str, int, int]]:
    of, at = index.state, info.state
    if at.get("transform_descriptors"):
        raise UnsupportedError("chunks that are compressed or transformed", where=INDEX,
                               fix="join the parts where PyTorch and the transforms are installed: "
                                   "torch.distributed.checkpoint.format_utils.dcp_to_torch_save")
    name, offset, length = at["relative_path"], at["offset"], at["length"]
    if not isinstance(name, str) or type(offset) is not int or type(length) is not int or offset < 0 or length < 0:
        raise ValueError("a chunk whose place is none")
    return (text(of["fqn"], "a name"), sizes(of.get("offset") or (), "offset")), (name, offset, length)


def _nested(saved: Mapping[str, Saved | Bytes], paths: Any) -> dict[Any, Any]:
    """What was saved in the dicts that it was given in: names are flattened, and `planner_data` has the path of each."""
    content: dict[Any, Any] = {}
    made = 0
    for name, item in saved.items():
        path = paths.get(name) if isinstance(paths, dict) else None
        steps = path if isinstance(path, tuple) and 0 < len(path) <= MAX_DEPTH else (name,)
        if not all(isinstance(step, str) or type(step) is int and abs(step) < MAX_KEY for step in steps):
            raise ValueError(f"{name[:80]!r} lies under what is neither a text nor a number")
        target = content
        for step in steps[:-1]:
            made += step not in target
            target = target.setdefault(step, {})
            if not isinstance(target, dict):
                raise ValueError(f"{name[:80]!r} lies within what is no dict")
        if made > MAX_DICTS:
            raise ValueError(f"more than {MAX_DICTS} dicts around the tensors")
        if steps[-1] in target:
            raise ValueError(f"{name[:80]!r} lies where another entry does")
        target[steps[-1]] = item
    return content


# Chunks ------------------------------------------------------------------------------------------------------------------


def _check_cover(name: str, saved: Saved, left: list[int]) -> None:
    """Raises `FormatError` where a tensor's chunks do not hold each of its elements exactly once.

    The chunks' edges cut each axis into parts, and so the tensor into cells, each of which must lie in one chunk.
    """
    where, shape = f"tensor {name[:200]!r}", saved.shape
    if 0 in shape:
        return
    for offsets, size in saved.chunks:
        if not len(offsets) == len(size) == len(shape) or any(start + count > whole for start, count, whole in
                                                              zip(offsets, size, shape, strict=True)):
            raise FormatError("a chunk reaches out of its tensor", where=where, expected=f"within {list(shape)}", fix=COPY,
                              received=f"{list(size)} at {list(offsets)}")
    full = [(offsets, size) for offsets, size in saved.chunks if 0 not in size]
    edges = [sorted({0, whole, *(offsets[axis] for offsets, _ in full), *(offsets[axis] + size[axis] for offsets, size in full)})
             for axis, whole in enumerate(shape)]
    cells = math.prod(len(axis) - 1 for axis in edges)
    left[0] -= cells
    if left[0] < 0:
        raise FormatError("the chunks are cut in too many ways", where=where, expected=f"at most {MAX_CELLS} parts in all")
    numbers = [{edge: number for number, edge in enumerate(axis)} for axis in edges]
    held = np.zeros([len(axis) - 1 for axis in edges], np.int32)
    for offsets, size in full:
        box = tuple(slice(number[start], number[start + count]) for number, start, count in zip(numbers, offsets, size, strict=True))
        cells -= math.prod(part.stop - part.start for part in box)
        if cells < 0:  # before as many chunks of the whole tensor as an index may name are counted
            raise FormatError("chunks overlap", where=where, expected=f"{list(shape)}, each element once", fix=COPY)
        held[box] += 1
    wrong = np.argwhere(held != 1)
    if len(wrong):
        cell = [int(axis[place]) for axis, place in zip(edges, wrong[0], strict=True)]
        twice = held[tuple(wrong[0])] > 1
        raise FormatError("chunks overlap" if twice else "a part of the tensor is in no chunk", where=where, received=f"from {cell} on",
                          expected=f"{list(shape)}, each element once", fix=COPY)


def _pieces(folder: Path, index: Index, tensors: Mapping[str, Saved]) -> dict[str, tuple[Piece, ...]]:
    """The pieces of each tensor. Raises `FormatError` for files that are missing or cut short, and for chunks that share bytes."""
    found: dict[str, tuple[Piece, ...]] = {}
    taken: dict[str, list[tuple[int, int, str]]] = {}
    for name, saved in tensors.items():
        where = f"tensor {name[:200]!r}"
        pieces = []
        for offsets, size in saved.chunks:
            if 0 in size or saved.dtype is None:
                continue
            place = index.places.get((saved.name, offsets)) or (index.places.get((saved.name, ())) if len(saved.chunks) == 1 else None)
            if place is None:
                raise FormatError("a chunk of which the index does not say where it lies", where=where, received=f"at {list(offsets)}",
                                  fix=COPY)
            file, start, length = place
            opened = index.files.get(file) or index.files.setdefault(file, _open(folder, file))
            if start + length > opened.size or length < math.prod(size) * saved.dtype.itemsize:
                raise FormatError("a chunk that its file cannot hold", where=f"{where}, {file}", expected=f"{length} bytes from {start} on",
                                  received=f"a file of {opened.size} bytes", fix=COPY)
            taken.setdefault(file, []).append((start, start + length, name))
            spec = TensorSpec(saved.dtype, size)
            pieces.append(Piece(tuple(slice(first, first + count) for first, count in zip(offsets, size, strict=True)),
                                cache(partial(_chunk, opened.part(start, length), spec, f"{file}, byte {start}"))))
        found[name] = tuple(pieces)
    for file, ranges in taken.items():
        for (_, end, name), (start, _, other) in itertools.pairwise(sorted(ranges)):
            if start < end:
                raise FormatError("two chunks share bytes of a file", where=file, received=f"{name[:80]!r} and {other[:80]!r}", fix=COPY)
    return found


def _open(folder: Path, name: str) -> MappedFile:
    if not name or "/" in name or "\\" in name or "\0" in name or name in (".", "..") or len(name) > 255:
        raise FormatError("the index places a chunk outside of the folder", where=INDEX, expected="a file beside it",
                          received=repr(name)[:120])
    if not (folder / name).is_file():
        raise FormatError("a file of the checkpoint is missing", expected=name, fix="copy or download the whole folder again")
    return MappedFile(folder / name)


def _chunk(file: MappedFile, spec: TensorSpec, where: str) -> ParameterStore:
    """The one tensor of a chunk, under the name ''. Raises `FormatError` where it is another than the index says."""
    try:
        archive = Archive(file)
        archive.refuse_others()
        content, _ = content_of(archive)
        if not isinstance(content, TensorRef):
            raise FormatError("a chunk that is no tensor", expected=str(spec), received=type(content).__name__)
        store = CheckpointParameters(archive, {"": content}, None)
        if store.spec("") != spec:
            raise FormatError("a chunk of another dtype or shape than the index says", expected=str(spec), received=str(store.spec("")),
                              fix=COPY)
    except ConverterError as error:
        raise error.within(where) from error
    return store


