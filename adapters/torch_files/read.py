"""Checkpoints in without PyTorch: the state_dict of a file that `torch.save` wrote, its tensors as they are asked for."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from adapters.torch_files.archive import COPY, MAGIC, PICKLE, RESAVE, SAVE_ARRAYS, Archive
from adapters.torch_files.arrays import ArrayRecord, HeldArray, array_of, in_memory, load_npz
from adapters.torch_files.content import OtherTensor, TensorRef, refuse_others
from adapters.torch_files.legacy import LegacyFile, is_legacy
from adapters.torch_files.modules import Unfolding
from adapters.torch_files.script import CLASSES, script_state_dict
from adapters.torch_files.unpickle import INERT, unpickle
from converter.discovery import formats, requiring, resolve
from converter.errors import ConverterError, FormatError, MissingDependencyError
from converter.ir import Array, DType, TensorSpec
from converter.kinds import NPZ, PICKLED, is_pickle, kind_of_file
from converter.mapped import FileRange, MappedFile, usable_range
from converter.parameters import ParameterStore
from converter.state_dict import KEYS, Found, SeveralStateDicts, find_state_dict

FORMAT = "torch"
"""The format of `converter.discovery` whose files these are; its `fallback` reads the older kinds."""

_TAR = (257, b"ustar")
_LISTED = 8
MAX_HELD = 1 << 30
"""Bytes of a pickle of arrays, which is held in memory whole."""
_GROWTH, _ROOM = 64, 256 << 20
"""Tensors of repeated elements may take this many times the file's length, and this many bytes besides."""


class CheckpointParameters(ParameterStore):
    """The tensors of a checkpoint, read as they are asked for.

    Two names with the same storage, offset, shape, strides and dtype are one tensor: the later is an alias.

    Args:
        archive: the file, and where its storages lie.
        tensors: names and references, each within its storage, or arrays that the pickle itself holds.
        key: the entry that the state_dict was found under, None where it is the whole file.
        notes: what a person should know of the file.
        layers: as `converter.state_dict.Found.layers`.
        kind: what the file is, where it is no state_dict by itself.

    Raises:
        UnsupportedError: tensors that are sparse, quantized, nested or of a dtype that the format lacks; all are listed.
        FormatError: tensors without values, or such as would take far more memory than the file.
    """

    def __init__(self, archive: Archive | LegacyFile, tensors: Mapping[str, Any], key: str | None, notes: tuple[str, ...] = (),
                 layers: Mapping[str, Mapping[str, Any]] | None = None, kind: str | None = None) -> None:
        self.key, self.notes, self._layers, self.kind = key, notes, layers or {}, kind
        self._archive = archive
        self._big = archive.big
        refuse_others(tensors)
        self._tensors: dict[str, TensorRef | HeldArray] = dict(tensors)
        self._aliases: dict[str, str] = {}
        first: dict[TensorRef | HeldArray, str] = {}
        total = 0
        for name, tensor in self._tensors.items():
            size = math.prod(tensor.shape) * tensor.dtype.itemsize
            if not size:
                continue
            target = first.setdefault(tensor, name)
            if target != name:
                self._aliases[name] = target
            else:
                total += size
        _require_growth(total, archive.file.size)

    def names(self) -> tuple[str, ...]:
        return tuple(self._tensors)

    def __contains__(self, name: object) -> bool:
        return name in self._tensors

    def alias_of(self, name: str) -> str | None:
        return self._aliases.get(name)

    def _tensor(self, name: str) -> TensorRef | HeldArray:
        try:
            return self._tensors[name]
        except KeyError:
            raise self.unknown(name) from None

    def spec(self, name: str) -> TensorSpec:
        tensor = self._tensor(name)
        return TensorSpec(tensor.dtype, tensor.shape)

    def layer(self, name: str) -> Mapping[str, Any]:
        return self._layers.get(name, {})

    def sha256(self, name: str) -> str:
        return super().sha256(self._aliases.get(name, name))

    def read(self, name: str) -> Array:
        tensor = self._tensor(name)
        if isinstance(tensor, HeldArray):
            return tensor.values
        values = self._values(tensor, name)
        values.flags.writeable = False
        return values

    def file_range(self, name: str) -> FileRange | None:
        tensor = self._tensor(name)
        if isinstance(tensor, HeldArray):
            return None
        plain = all(size == 1 or stride == math.prod(tensor.shape[axis + 1:])
                    for axis, (size, stride) in enumerate(zip(tensor.shape, tensor.strides, strict=True)))
        if 0 in tensor.shape or not plain or tensor.conj or tensor.neg or (self._big and tensor.dtype.itemsize > 1):
            return None
        self._archive.check_storage(tensor.storage.key)
        start = self._archive.offset(tensor.storage.key) + tensor.storage.start + tensor.offset * tensor.dtype.itemsize
        return usable_range(self._archive.file, start, self.spec(name))

    def _values(self, tensor: TensorRef, name: str) -> Array:
        dtype, width = tensor.dtype, tensor.dtype.itemsize
        if 0 in tensor.shape:
            return np.empty(tensor.shape, dtype.numpy)
        last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.strides, strict=True))
        self._archive.check_storage(tensor.storage.key)
        start = self._archive.offset(tensor.storage.key) + tensor.storage.start
        data = self._archive.file.read(start + tensor.offset * width, (last + 1) * width)
        if dtype is DType.BOOL and data.max() > 1:
            raise FormatError("a bool that is neither 0 nor 1", where=f"tensor {name[:80]!r}", received=str(int(data.max())))
        # The small floats' dtypes are none of NumPy's own, which is all that as_strided takes: it moves bits instead.
        bits = data.view(dtype.numpy if dtype.is_complex else f"u{width}")
        values: Array = np.lib.stride_tricks.as_strided(bits, tensor.shape, [stride * width for stride in tensor.strides])
        values = (values if values.flags.c_contiguous else values.copy(order="C")).view(dtype.numpy)
        if self._big and width > 1:
            values = _swapped(values)
        if tensor.conj:
            values = np.conjugate(values)
        if tensor.neg:
            values = np.negative(values)
        return values


def _require_growth(total: int, size: int) -> None:
    """Raises `FormatError` where tensors of `total` bytes would be made of a file of `size` bytes."""
    if total > _GROWTH * size + _ROOM:
        raise FormatError("the tensors would take far more memory than the file: they repeat its elements",
                          expected=f"at most {_GROWTH} times {size} bytes", received=f"{total} bytes",
                          fix="call .contiguous() on expanded tensors before saving them")


def load_checkpoint(path: str | Path, key: str | None = None) -> ParameterStore:
    """The state_dict of a `.pt`, `.pth` or `.bin` file. Runs no code from the file, and needs no PyTorch.

    Files of PyTorch before 1.6 too, which are no zip archives, and TorchScript archives, whose parameters and buffers are taken;
    `.npz` files and plain pickles of names and NumPy arrays.
    Tar files of PyTorch before 0.2 are read by PyTorch where it is installed.

    Args:
        path: the file.
        key: the entry that holds the state_dict, `"ema.model"` for a nested one; default: found by its content.

    Raises:
        UnsafePickleError: Python objects stand where the state_dict is, or in it. Those beside it are left alone.
        FormatError: not a checkpoint, a damaged or a hostile one, or one with several state_dicts or none.
        UnsupportedError: tensors that cannot be carried; all are listed.
        MissingDependencyError: a tar file, and no PyTorch.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            head = file.read(_TAR[0] + len(_TAR[1]))
        if not head:
            raise FormatError("the file is empty", expected="a file that torch.save wrote", fix=COPY)
        if head.startswith(MAGIC):
            return load_npz(path, key) if kind_of_file(path) is NPZ else _load(Archive(MappedFile(path)), key)
        if is_legacy(head):
            older = LegacyFile(path)
            return CheckpointParameters(older, *_chosen(older.content, older.foreign, key, older.file.size))
        if is_pickle(head):
            return _load_pickle(path, key)
        if head[_TAR[0]:] == _TAR[1]:
            return _older(path, key)
        raise FormatError("not a file that torch.save wrote, or a damaged one", received=f"it begins with {head[:8]!r}",
                          expected="a PyTorch checkpoint", fix="check that the file is complete, and what wrote it")
    except ConverterError as error:
        raise (error if (error.where or "").startswith(str(path)) else error.within(str(path))) from error


def content_of(archive: Archive) -> tuple[Any, tuple[str, ...]]:
    """What an archive's pickle holds, and the classes that it asks for. Raises as `unpickle`, and for storages of another length."""

    def storage_of(name: str, count: int, width: int) -> None:
        nbytes = count * width
        entry = archive.entries.get(f"data/{name}")
        if entry is None:
            raise FormatError("a storage is missing", where=f"data/{name[:80]}", expected=f"{nbytes} bytes", fix=COPY)
        if entry.size != nbytes:
            raise FormatError("a storage of another length than the pickle says", where=f"data/{name[:80]}", expected=f"{nbytes} bytes",
                              received=f"{entry.size} bytes", fix=COPY)

    content, foreign, _ = unpickle(archive.pickle(), storage_of, kept=(CLASSES,) if archive.is_script else ())
    return content, foreign


def open_content(path: Path) -> tuple[Archive | LegacyFile, Any]:
    """A file that `torch.save` wrote, and what its pickle holds. Raises as `load_checkpoint` does."""
    try:
        with path.open("rb") as file:
            head = file.read(len(MAGIC) + 32)
        if is_legacy(head):
            older = LegacyFile(path)
            return older, older.content
        archive = Archive(MappedFile(path))
        archive.refuse_others()
        return archive, content_of(archive)[0]
    except ConverterError as error:
        raise error.within(path.name) from error


def _load(archive: Archive, key: str | None) -> CheckpointParameters:
    if not archive.is_script or PICKLE not in archive:
        archive.refuse_others()
    content, foreign = content_of(archive)
    if archive.is_script:
        if key is not None:
            raise FormatError("a TorchScript archive is one state_dict, without entries", received=f"key {key!r}", fix="leave the key out")
        found = script_state_dict(archive, content)
        return CheckpointParameters(archive, found.tensors, found.key, found.notes, kind="TorchScript archive")
    return CheckpointParameters(archive, *_chosen(content, foreign, key, archive.file.size))


def _chosen(content: Any, foreign: Sequence[str], key: str | None,
            size: int) -> tuple[Mapping[str, Any], str | None, tuple[str, ...], Any, str | None]:
    """The state_dict of a file of `size` bytes, the entry that it is under, what to say of it, and of its layers, and what the file is."""

    def find(content: Any, objects: Sequence[str], tensors: tuple[type, ...] = (TensorRef, OtherTensor)) -> Found:
        return find_state_dict(content, key, lambda value: isinstance(value, tensors),
                               lambda value: value.kind if isinstance(value, INERT) else None, objects)

    kind = None
    try:
        found = find(content, foreign)
    except SeveralStateDicts:
        raise
    except FormatError as error:
        found, foreign, kind = _otherwise(content, foreign, key, find, error)
    tensors = dict(found.tensors)
    records = dict.fromkeys(value for value in tensors.values() if isinstance(value, ArrayRecord))
    _require_growth(sum(record.nbytes for record in records), size)
    arrays = {record: array_of(record) for record in records}
    tensors.update((name, arrays[value]) for name, value in found.tensors.items() if isinstance(value, ArrayRecord))
    beside = (f"Python objects beside the state_dict, left alone: {', '.join(foreign[:_LISTED])}"
              + (f" and {len(foreign) - _LISTED} more" if len(foreign) > _LISTED else ""),) if foreign else ()
    return tensors, found.key, (*found.notes, *beside), found.layers, kind


def _otherwise(content: Any, foreign: Sequence[str], key: str | None, find: Callable[..., Found],
               error: FormatError) -> tuple[Found, Sequence[str], str]:
    """The state_dict of a whole module or, where there is none, of NumPy's arrays, which are its parameters where the name is usual;
    what is left of `foreign`, and what the file is.

    Raises `error` where there is neither.
    """
    modules = Unfolding()
    unfolded = modules.unfold(content)
    left = [name for name in foreign if name not in modules.kinds]
    try:
        if modules.kinds:
            return find(unfolded, left), left, "whole PyTorch module"
        found = find(content, foreign, (TensorRef, OtherTensor, ArrayRecord))
    except SeveralStateDicts:
        raise
    except FormatError:
        raise error from None
    if key is None and found.key is not None and found.key.rpartition(".")[2] not in KEYS:
        raise FormatError("the checkpoint holds no tensors of PyTorch, but NumPy arrays", received=f"arrays under {found.key[:80]!r}",
                          fix=f"if these are the parameters, say so: --key {found.key}")
    return found, foreign, "NumPy arrays in a file of torch.save"


def _load_pickle(path: Path, key: str | None) -> ParameterStore:
    """The arrays of a pickle that torch.save did not write."""

    def no_storage(name: str, count: int, width: int) -> None:
        raise FormatError("a storage is missing", where=f"storage {name[:80]}", fix=RESAVE)

    file = MappedFile(path)
    if file.size > MAX_HELD:
        raise FormatError("a Python pickle that is too large", expected=f"at most {MAX_HELD} bytes", received=str(file.size),
                          fix=SAVE_ARRAYS)
    try:
        data: Any = file.view(0, file.size)
        content, foreign, _ = unpickle(memoryview(data), no_storage, where="the pickle")
        tensors, found, notes, *_ = _chosen(content, foreign, key, file.size)
    except SeveralStateDicts:
        raise
    except FormatError as error:
        raise FormatError(PICKLED.title, received=error.received or error.message, expected="names and NumPy arrays",
                          fix=error.fix if "--key" in (error.fix or "") else PICKLED.fix) from error
    store = in_memory(tensors)
    store.key, store.notes, store.kind = found, notes, "Python pickle of NumPy arrays"
    return store


def _older(path: Path, key: str | None) -> ParameterStore:
    """What PyTorch makes of a file of its oldest kind, tensors and plain containers only."""
    form = formats().get(FORMAT)
    if form is None or form.fallback is None:
        raise FormatError("a checkpoint of PyTorch before 0.2, which only PyTorch reads", expected="a zip checkpoint", fix=RESAVE)
    try:
        with requiring(form.extra):
            return resolve(form.fallback, form.extra)(path, key=key)
    except MissingDependencyError as error:
        error.message = f"a checkpoint of PyTorch before 0.2, which only PyTorch reads, and {error.message}"
        error.fix = f"{error.fix}; or {RESAVE}"
        raise


def _swapped(values: Array) -> Array:
    """Big-endian values as little-endian ones; the halves of a complex number are swapped each."""
    width = values.dtype.itemsize // (2 if values.dtype.kind == "c" else 1)
    bits = np.atleast_1d(values).view(np.dtype(f"u{width}"))
    return bits.byteswap().view(values.dtype).reshape(values.shape)
