"""Object headers of an HDF5 file, walked before the HDF5 library reads them.

A header is a list of messages in pieces, each of which may name further ones (HDF5 File Format Specification 3.0, IV.A). The library
reads every piece that a message names, as often as one names it: pieces that hold each other take all memory there is.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from itertools import pairwise
from typing import BinaryIO

from converter.errors import FormatError

SIGNATURE = b"\x89HDF\r\n\x1a\n"
CONTINUED = 0x10
UNDEFINED = (1 << 64) - 1
FIX = "copy or write it again"

_FIRST = struct.Struct("<BBHII4x")  # version, reserved, messages, references, size
_MESSAGE = struct.Struct("<HHB3x")  # type, size, flags
_PAIR = struct.Struct("<QQ")
MOST = 1 << 16
"""Messages of a header: version 1 counts them in 16 bits, and HDF5 numbers attributes and links of later ones so."""
Message = tuple[int, int, int]
"""Its type, where its content begins, and how long that is."""


def read(file: BinaryIO, place: int, form: struct.Struct) -> tuple[int, ...] | None:
    """What stands at a place; None past the end of the file."""
    if place > os.fstat(file.fileno()).st_size - form.size:
        return None
    file.seek(place)
    return form.unpack(file.read(form.size))


def root_headers(file: BinaryIO, path: str) -> tuple[list[int], int]:
    """The addresses of the headers that opening a file reads, of the root group and of the superblock's extension, and what they count
    from (II.A). None of what is no HDF5 file: the library refuses it.

    Raises `FormatError` for addresses of another width than 8 bytes.
    """
    length, base = os.fstat(file.fileno()).st_size, 0
    while base < length and _at(file, base, len(SIGNATURE)) != SIGNATURE:
        base = base * 2 or 512
    head = _at(file, base, 128)
    if len(head) < 48 or head[8] > 3:
        return [], base
    widths = set(head[13:15] if head[8] < 2 else head[9:11])
    if not widths <= {2, 4, 8, 16, 32}:
        return [], base
    if widths != {8}:
        raise FormatError("addresses of another width", where=path, expected="offsets and lengths of 8 bytes",
                          fix="repack it: h5repack in.h5 out.h5")
    places = {0: (64,), 1: (68,)}.get(head[8], (20, 36))
    return [address for place in places if (address := int.from_bytes(head[place:place + 8], "little")) != UNDEFINED], base


def _at(file: BinaryIO, place: int, size: int) -> bytes:
    file.seek(place)
    return file.read(size)


def messages(file: BinaryIO, address: int, base: int) -> list[Message]:
    """The messages of the object header at an address, which counts from `base`, of any version; none of what is no header.

    Raises `FormatError` for pieces that overlap, or reach past the end of the file.
    """
    address += base
    head = _at(file, address, 32) if address < os.fstat(file.fileno()).st_size else b""
    if head[:4] == b"OHDR":
        flags = head[5] if len(head) > 5 else 0
        width, place = 1 << (flags & 3), 6 + (16 if flags & 0x20 else 0) + (4 if flags & 0x10 else 0)
        first = (address + place + width, int.from_bytes(head[place:place + width], "little"))
        return _walk(file, base, first, 4 + (2 if flags & 4 else 0))
    found = read(file, address, _FIRST)
    return _walk(file, base, (address + _FIRST.size, found[4]), _MESSAGE.size) if found is not None and found[0] == 1 else []


def _walk(file: BinaryIO, base: int, first: tuple[int, int], width: int) -> list[Message]:
    """`width`: of what comes before a message's content; 8 in headers of version 1."""
    length = os.fstat(file.fileno()).st_size
    found: list[Message] = []
    waiting, pieces = [first], list[tuple[int, int]]()
    left = length
    while waiting:
        place, size = waiting.pop()
        left -= size
        if left < 0:
            raise _damaged(first[0])
        pieces.append((place, place + size))
        for kind, at, count in _messages(file, place, size, width):
            if len(found) + len(pieces) + len(waiting) > MOST:
                raise FormatError("a damaged HDF5 file: a header of more messages than one can have", where=f"byte {first[0]}",
                                  expected=f"at most {MOST}", fix=FIX)
            pair = read(file, at, _PAIR) if kind == CONTINUED else None
            if pair is None:
                found.append((kind, at, count))
            elif width == _MESSAGE.size:
                waiting.append((pair[0] + base, pair[1]))
            else:
                waiting.append((pair[0] + base + 4, max(0, pair[1] - 8)))  # without its signature and its checksum
    pieces.sort()
    if any(end > start for (_, end), (start, _) in pairwise(pieces)):
        raise _damaged(first[0])
    return found


def _messages(file: BinaryIO, place: int, size: int, width: int) -> Iterator[Message]:
    end = place + size
    while place + width <= end:
        head = _at(file, place, width)
        if len(head) < width:
            return
        kind, count = (int.from_bytes(head[:2], "little"), int.from_bytes(head[2:4], "little")) if width == _MESSAGE.size else (
            head[0], int.from_bytes(head[1:3], "little"))
        yield kind, place + width, count
        place += width + count


def _damaged(address: int) -> FormatError:
    return FormatError("a damaged HDF5 file: the pieces of a header overlap, or hold more than the file", where=f"byte {address}", fix=FIX)
