"""The state_dict of a TorchScript archive: the parameters and buffers of the objects in `data.pkl`, by their attributes' names.

Which attributes are parameters and buffers is declared by the classes' source, `code/__torch__/PACKAGE.py`, which is searched
for the two declarations and never run.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping
from typing import Any

from adapters.torch_files.archive import Archive
from adapters.torch_files.content import OtherTensor, Record, TensorRef
from adapters.torch_files.modules import gather
from converter.errors import FormatError, UnsupportedError
from converter.state_dict import Found

CLASSES = "__torch__."
"""How the names of an archive's own classes begin."""
MOST_CODE = 64 << 20
"""Bytes of source that are looked through."""

FIX = ("give the module's own state_dict, if its Python code is at hand: torch.save(model.state_dict(), 'weights.pt'); or, with example "
       "arguments, converter.from_torch(torch.jit.load(file), args)")

_CLASS = re.compile(r"^class (\w+)\(", re.MULTILINE)
_DECLARED = re.compile(r"^  __(?:parameters|buffers)__ = \[([^\]]*)\]", re.MULTILINE)
_NAME = re.compile(r'"((?:[^"\\]|\\.)*)"')

Declared = Mapping[str, frozenset[str]]


def script_state_dict(archive: Archive, content: Any) -> Found:
    """The parameters and buffers of a TorchScript module.

    Raises:
        FormatError: the archive holds no module, or one without parameters (a frozen one, whose tensors are constants).
        UnsupportedError: objects that keep their weights packed, as quantized modules do.
    """
    if not isinstance(content, Record):
        raise FormatError("a TorchScript archive without a module", fix=FIX)
    declared = _declarations(archive)
    packed: list[str] = []

    def members(prefix: str, item: Record) -> tuple[dict[str, Any], dict[str, Record]]:
        if not isinstance(item.state, dict):
            packed.append(f"{prefix.rstrip('.') or 'the module'} ({item.kind})")
            return {}, {}
        known = declared.get(item.kind)
        return ({name: value for name, value in item.state.items()
                 if isinstance(value, (TensorRef, OtherTensor)) and (known is None or name in known)},
                {name: value for name, value in item.state.items() if isinstance(value, Record) and value.kind.startswith(CLASSES)})

    tensors = gather(content, members)
    if packed:
        raise UnsupportedError("a TorchScript archive with weights that are packed (quantized)", received=", ".join(packed[:5]), fix=FIX)
    if not tensors:
        raise FormatError(f"a TorchScript archive of {content.kind} without parameters: frozen, its tensors are constants of its code",
                          fix=FIX)
    return Found(tensors, None, (f"a TorchScript archive of {content.kind}: its parameters and buffers, without its code",))


def _declarations(archive: Archive) -> Declared:
    """The names of the parameters and buffers of each class, by the class's path."""
    found: dict[str, frozenset[str]] = {}
    left = MOST_CODE
    for name, entry in archive.entries.items():
        if not name.startswith("code/") or not name.endswith(".py"):
            continue
        data = archive.file.read(entry.offset, entry.size).tobytes()
        if entry.deflated:
            try:
                data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, left)
            except zlib.error:
                continue
        left -= len(data)
        if left <= 0:
            raise FormatError("a TorchScript archive with too much code", expected=f"at most {MOST_CODE >> 20} MiB", fix=FIX)
        text = data.decode("utf-8", "replace")
        module = name.removeprefix("code/").removesuffix(".py").replace("/", ".")
        classes = list(_CLASS.finditer(text))
        for match, end in zip(classes, [*(other.start() for other in classes[1:]), len(text)][:len(classes)], strict=True):
            declared = _DECLARED.findall(text, match.start(), end)
            found[f"{module}.{match[1]}"] = frozenset(item for names in declared for item in _NAME.findall(names))
    return found
