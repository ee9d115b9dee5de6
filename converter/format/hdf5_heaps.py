"""A group's local heap in an HDF5 file, checked before the HDF5 library reads it.

The heap's free space is a linked list (HDF5 File Format Specification 3.0, III.D). The library follows it without
counting: a list that leads back into itself takes all memory there is.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import BinaryIO

from converter.errors import FormatError

_HEADER = struct.Struct("<BBHII4x")  # version, reserved, messages, references, size
_MESSAGE = struct.Struct("<HHB3x")  # type, size, flags
_HEAP = struct.Struct("<IB3xQQQ")  # signature, version, size of the data, first free block, address of the data
_PAIR = struct.Struct("<QQ")
_CONTINUED, _SYMBOL_TABLE = 0x10, 0x11
_LAST = 1
_SIGNATURE = int.from_bytes(b"HEAP", "little")


def refuse_ring(path: Path, address: int) -> None:
    """Raises `FormatError` where the group whose object header lies at `address` has a heap whose free list has no end.

    Groups without a local heap, and what is damaged in another way, are left to the library, which refuses those itself.
    """
    with path.open("rb") as file:
        length = os.fstat(file.fileno()).st_size
        for heap in _heaps(file, address):
            found = _read(file, heap, _HEAP)
            if found is None or found[0] != _SIGNATURE:
                continue
            _, _, size, block, data = found
            seen = set[int]()
            while block not in seen and len(seen) <= min(size, length) // _PAIR.size:
                following = None if block == _LAST or block + _PAIR.size > size else _read(file, data + block, _PAIR)
                if following is None:
                    break
                seen.add(block)
                block = following[0]
            else:
                raise FormatError("a damaged HDF5 file: the free space of a group's heap is a list without an end",
                                  where=f"byte {heap}", fix="copy or write it again")


def _heaps(file: BinaryIO, address: int) -> list[int]:
    """Addresses of the local heaps that an object header of version 1 names."""
    head = _read(file, address, _HEADER)
    if head is None or head[0] != 1:
        return []
    heaps: list[int] = []
    left = length = os.fstat(file.fileno()).st_size
    pieces, seen = [(address + _HEADER.size, head[4])], set[int]()
    while pieces:
        place, size = pieces.pop()
        if place in seen:
            continue
        seen.add(place)
        left -= min(size, length)
        if left < 0:
            raise FormatError("a damaged HDF5 file: the pieces of a group's header hold more than the file", where=f"byte {address}",
                              fix="copy or write it again")
        end = place + size
        while place + _MESSAGE.size <= end:
            message = _read(file, place, _MESSAGE)
            if message is None:
                break
            place += _MESSAGE.size
            pair = _read(file, place, _PAIR)
            if pair is not None and message[0] == _CONTINUED:
                pieces.append((pair[0], pair[1]))
            elif pair is not None and message[0] == _SYMBOL_TABLE:
                heaps.append(pair[1])
            place += message[1]
    return heaps


def _read(file: BinaryIO, place: int, form: struct.Struct) -> tuple[int, ...] | None:
    """What stands at a place; None past the end of the file."""
    if place > os.fstat(file.fileno()).st_size - form.size:
        return None
    file.seek(place)
    return form.unpack(file.read(form.size))
