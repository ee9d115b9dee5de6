"""A group's local heap in an HDF5 file, checked before the HDF5 library reads it.

The heap's free space is a linked list (HDF5 File Format Specification 3.0, III.D). The library follows it without
counting: a list that leads back into itself takes all memory there is.
"""

from __future__ import annotations

import os
import struct
from typing import BinaryIO

from converter.errors import FormatError
from converter.format.hdf5_headers import FIX, messages, read

_HEAP = struct.Struct("<IB3xQQQ")  # signature, version, size of the data, first free block, address of the data
_PAIR = struct.Struct("<QQ")
_SYMBOL_TABLE = 0x11
_LAST = 1
_SIGNATURE = int.from_bytes(b"HEAP", "little")


def refuse_ring(file: BinaryIO, address: int, base: int = 0) -> None:
    """Raises `FormatError` for an object of which the library would not get to the end.

    Its header lies at `address`, counted from `base`; its pieces overlap, or the free list of its heap has no end.

    Groups without a local heap, and what is damaged in another way, are left to the library, which refuses those itself.
    """
    length = os.fstat(file.fileno()).st_size
    for kind, place, _ in messages(file, address, base):
        pair = read(file, place, _PAIR) if kind == _SYMBOL_TABLE else None
        heap = length if pair is None else pair[1] + base
        found = read(file, heap, _HEAP)
        if found is None or found[0] != _SIGNATURE:
            continue
        _, _, size, block, data = found
        seen = set[int]()
        while block not in seen and len(seen) <= min(size, length) // _PAIR.size:
            following = None if block == _LAST or block + _PAIR.size > size else read(file, base + data + block, _PAIR)
            if following is None:
                break
            seen.add(block)
            block = following[0]
        else:
            raise FormatError("a damaged HDF5 file: the free space of a group's heap is a list without an end",
                              where=f"byte {heap}", fix=FIX)
