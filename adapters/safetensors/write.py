"""Safetensors files out, a tensor at a time."""

from __future__ import annotations

import json
from pathlib import Path

from adapters.safetensors.dtypes import TO_FILE
from adapters.safetensors.read import FORMAT, FORMAT_KEY, MAX_RANK, METADATA
from converter.dims import fixed
from converter.errors import UnsupportedError
from converter.format.atomic import atomic_path, written_files
from converter.ir import TensorSpec
from converter.parameters import ParameterStore

ALIGNMENT = 8


def save_safetensors(parameters: ParameterStore, path: str | Path) -> tuple[Path, ...]:
    """Writes a state_dict as a safetensors file.

    Tied weights are written once, as `safetensors.torch.save_model` does: the metadata holds `{alias: kept name}`.

    Raises:
        UnsupportedError: dtypes that safetensors lacks (complex128); every such tensor is listed.
    """
    specs = {name: parameters.spec(name) for name in parameters.names() if parameters.alias_of(name) is None}
    refused: list[dict[str, object]] = [{"operator": name, "reason": f"safetensors has no {spec.dtype}"} for name, spec in specs.items()
               if spec.dtype not in TO_FILE]
    refused += [{"operator": name[:80], "reason": reason} for name in parameters.names()
                if (reason := _unwritable(name, parameters.spec(name).rank)) is not None]
    aliases = {name: target for name in parameters.names() if (target := parameters.alias_of(name)) is not None}
    if FORMAT_KEY in aliases:
        refused.append({"operator": FORMAT_KEY, "reason": "a tied weight of this name, which the metadata has for a word of its own"})
    if refused:
        raise UnsupportedError(f"{len(refused)} tensors cannot be written as safetensors", items=refused,
                               fix="write a .pt, .json or .h5 file")
    # Wide elements first, so that every tensor begins at a multiple of its element's size.
    layout = sorted(specs, key=lambda name: -specs[name].dtype.itemsize)
    offsets: dict[str, tuple[int, int]] = {}
    position = 0
    for name in layout:
        offsets[name] = (position, position + _nbytes(specs[name]))
        position = offsets[name][1]
    header: dict[str, object] = {METADATA: {FORMAT_KEY: FORMAT, **aliases}}
    for name, spec in specs.items():
        header[name] = {"dtype": TO_FILE[spec.dtype], "shape": list(spec.shape), "data_offsets": list(offsets[name])}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
    text += b" " * (-len(text) % ALIGNMENT)
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        file.write(len(text).to_bytes(8, "little"))
        file.write(text)
        for name in layout:
            for piece in parameters.pieces(name):
                file.write(piece)
    return written_files(path)


def _unwritable(name: str, rank: int) -> str | None:
    """Why a tensor cannot be written, or None."""
    if name == METADATA:
        return "safetensors keeps this name for itself"
    if rank > MAX_RANK:
        return f"{rank} axes, where {MAX_RANK} can be read"
    if not name.isprintable() and any(0xD800 <= ord(letter) < 0xE000 for letter in name):
        return "half a surrogate pair in the name, which is no UTF-8"
    return None


def _nbytes(spec: TensorSpec) -> int:
    total = spec.dtype.itemsize
    for size in spec.shape:
        total *= fixed(size)
    return total
