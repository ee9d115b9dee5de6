"""Damage to valid files: of bytes, and of what a kind of file is made of (JSON, pickles, zip entries, protobuf fields)."""

from __future__ import annotations

import io
import json
import random
import struct
import warnings
import zipfile
from collections.abc import Callable, Sequence
from typing import Any

Draw = random.Random

EDGES = (
    0,
    1,
    2,
    3,
    4,
    7,
    8,
    31,
    32,
    33,
    64,
    127,
    128,
    255,
    256,
    1 << 15,
    (1 << 16) - 1,
    1 << 16,
    (1 << 31) - 1,
    1 << 31,
    (1 << 32) - 1,
    1 << 32,
    1 << 40,
    (1 << 53) - 1,
    1 << 53,
    (1 << 62),
    (1 << 63) - 1,
    1 << 63,
    (1 << 64) - 1,
)
"""Numbers at which lengths, offsets and counts go wrong."""

TEXTS = (
    "",
    " ",
    ".",
    "..",
    "../secret",
    "/etc/passwd",
    "a/b",
    "x" * 5000,
    "\0",
    "\x1b[2K",
    "é",
    "\u202e",
    "\U0001f600",
    "batch",
    "batch*2",
    "7 // batch",
    "time - 1",
    "__class__",
    "float32",
    "int64",
    "bool",
    "bfloat16",
    "float8_e4m3fn",
    "complex64",
    "values",
    "base64",
    "AAAA",
    "NaN",
    "sha256:" + "0" * 64,
    "None",
    "True",
    "1e400",
    "-1",
    "9" * 400,
)
NUMBERS = (*EDGES, -1, -2, -(1 << 31), -(1 << 63), 10**30, 0.5, -0.0, 1e-320, 1e308, float("inf"), float("nan"))

MARKS = (b"TREE", b"SNOD", b"HEAP", b"OHDR", b"FRHP", b"FHDB", b"FHIB", b"BTHD", b"BTLF", b"BTIN", b"GCOL", b"OCHK", b"\x89HDF")
"""Where structures of HDF5 begin."""

PICKLED = (
    b"cos\nsystem\n",
    b"cbuiltins\neval\n",
    b"ctorch._utils\n_rebuild_tensor_v2\n",
    b"ctorch\nFloatStorage\n",
    b"ccollections\nOrderedDict\n",
    b")R",
    b"(t",
    b"}",
    b"]",
    b"(lp",
    b"X\x03\x00\x00\x00abc",
    b"X\xff\xff\xff\x7f",
    b"\x8a\x08" + b"\xff" * 7 + b"\x7f",
    b"J\xff\xff\xff\xff",
    b"K\x05",
    b"G" + bytes(8),
    b"Q",
    b"\x85",
    b"\x86",
    b"\x87",
    b"u",
    b"s",
    b"e",
    b"b",
    b"\x81",
    b"0",
    b"1",
    b"2",
    b".",
    b"N",
    b"\x88",
    b"h\x00",
    b"q\x00",
    b"j\xff\xff\xff\xff",
    b"r\xff\xff\xff\xff",
    b"\x8f",
    b"\x90",
    b"\x91",
    b"\x93",
    b"\x94",
    b"\x95" + b"\xff" * 8,
)
"""Steps of pickles."""


def _count(draw: Draw) -> int:
    return draw.choice((1, 1, 1, 1, 2, 3))


def edit_bytes(data: bytes, draw: Draw, other: bytes = b"") -> bytes:
    """Flipped bits, other bytes, length fields at their edges, pieces that are gone, doubled, moved, or another file's."""
    out = bytearray(data)
    for _ in range(_count(draw)):
        if not out:
            break
        at, kind = draw.randrange(len(out)), draw.randrange(10)
        if kind < 3:
            out[at] ^= 1 << draw.randrange(8)
        elif kind < 5:
            width = draw.choice((1, 2, 4, 8))
            number = draw.choice(
                (
                    draw.choice(EDGES),
                    len(out),
                    len(out) + draw.randrange(-9, 9),
                    at,
                    int.from_bytes(out[at : at + width], "little") + draw.choice((-8, -1, 1, 8, 1 << 16)),
                )
            )
            out[at : at + width] = (number % (1 << 8 * width)).to_bytes(width, draw.choice(("little", "little", "big")))
        elif kind == 5:
            del out[at : at + draw.choice((1, 4, 32, 512))]
        elif kind == 6:
            out[at:at] = out[at : at + draw.choice((1, 4, 32, 512))]
        elif kind == 7:
            start, width = draw.randrange(len(out)), draw.choice((4, 16, 128))
            out[at : at + width] = out[start : start + width]
        elif kind == 8 and other:
            start = draw.randrange(len(other))
            piece = other[start : start + draw.choice((4, 32, 256))]
            out[at : at + len(piece)] = piece
        elif draw.random() < 0.3:
            del out[at:]
        else:
            out[at:at] = draw.choice((bytes(16), b"\xff" * 16, draw.randbytes(8)))
    return bytes(out)


def edit_near(data: bytes, draw: Draw, other: bytes, marks: Sequence[bytes], reach: int = 160) -> bytes:
    """`edit_bytes` of what follows one of the marks."""
    places = [at for mark in marks for at in _places(data, mark)]
    if not places:
        return edit_bytes(data, draw, other)
    at = draw.choice(places)
    piece = data[at : at + reach]
    edited = edit_bytes(piece, draw, other)
    return data[:at] + (edited[: len(piece)].ljust(len(piece), b"\0") if draw.random() < 0.8 else edited) + data[at + reach :]


def _places(data: bytes, mark: bytes) -> list[int]:
    found: list[int] = []
    at = data.find(mark)
    while at >= 0 and len(found) < 60:
        found.append(at)
        at = data.find(mark, at + 1)
    return found


# JSON --------------------------------------------------------------------------------------------------------------------


def edit_tree(tree: Any, draw: Draw) -> Any:
    """One to five members of a JSON tree that are changed, moved, renamed, doubled or gone. Changes it in place."""
    for _ in range(_count(draw)):
        members = list(_members(tree))
        if not members:
            return tree
        (holder, key), (source, origin) = draw.choice(members), draw.choice(members)
        kind, value = draw.randrange(10), holder[key]
        if kind < 2:
            holder[key] = _replacement(draw)
        elif kind < 5:
            holder[key] = _nudged(value, draw)
        elif kind == 5:
            holder[key] = _copy(source[origin])
        elif kind == 6:
            del holder[key]
        elif kind == 7:
            holder[key] = draw.choice(([value], [value] * 3, {"x": value}, str(value)))
        elif isinstance(holder, dict):
            other = draw.choice([name for found, name in members if isinstance(found, dict)])
            holder[other] = value if draw.random() < 0.5 else holder.pop(key)
        else:
            holder.insert(key, _copy(draw.choice((value, source[origin]))))
    return tree


def _members(tree: Any) -> list[tuple[Any, Any]]:
    found: list[tuple[Any, Any]] = []
    waiting = [tree]
    while waiting and len(found) < 20_000:
        item = waiting.pop()
        for key, value in item.items() if isinstance(item, dict) else enumerate(item) if isinstance(item, list) else ():
            found.append((item, key))
            waiting.append(value)
    return found


def _copy(value: Any) -> Any:
    return json.loads(json.dumps(value)) if isinstance(value, (dict, list)) else value


def _replacement(draw: Draw) -> Any:
    return draw.choice(
        (
            draw.choice(TEXTS),
            draw.choice(NUMBERS),
            draw.choice((None, True, False)),
            _copy(
                draw.choice(
                    ([], {}, [[]], [0], [-1], ["batch"], [1, 2, 3], [1 << 40], {"literal": "NaN"}, {"literal": "1" * 40}, {"x": {}})
                )
            ),
        )
    )


def _nudged(value: Any, draw: Draw) -> Any:
    """A value of the same type, near to it."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, (int, float)):
        number = draw.choice(NUMBERS) if draw.random() < 0.5 else value + draw.choice((1, -1, 2, -2, 16, 0.5))
        return number if isinstance(value, float) or not isinstance(number, float) or draw.random() < 0.2 else 0
    if isinstance(value, str):
        return _text(value, draw)
    if isinstance(value, list):
        return draw.choice((value[1:], value[:-1], value * 2, value[::-1], [value]))
    return draw.choice((None, {}, []))


def _text(value: str, draw: Draw) -> str:
    at = draw.randrange(len(value) + 1)
    return draw.choice(
        (
            value[:at] + draw.choice('()+-*/%,0a\0"\\ \u202e\x1b.') + value[at:],
            value[:at],
            value + value,
            value.upper(),
            "../" + value,
            draw.choice(TEXTS),
        )
    )


def edit_json(data: bytes, draw: Draw, other: bytes = b"", bytes_share: float = 0.2) -> bytes:
    """A JSON text: mostly its tree, else its bytes. The digest that a changed tree would be refused for goes, mostly."""
    if draw.random() < bytes_share:
        return edit_bytes(data, draw, other)
    tree = edit_tree(json.loads(data), draw)
    if isinstance(tree, dict) and draw.random() < 0.85:
        tree.pop("digest", None)
    return json.dumps(tree, ensure_ascii=draw.random() < 0.7).encode("utf-8", "surrogatepass")


# Files of parts ----------------------------------------------------------------------------------------------------------


def edit_pickle(data: bytes, draw: Draw, other: bytes = b"") -> bytes:
    """A pickle with a step more, or other bytes."""
    out = data
    for _ in range(_count(draw)):
        at = draw.randrange(len(out) + 1)
        if draw.random() < 0.5:
            out = out[:at] + draw.choice((draw.choice(PICKLED), bytes([draw.randrange(256)]))) + out[at + draw.choice((0, 0, 1, 4)) :]
        else:
            out = edit_bytes(out, draw, other)
    return out


def edit_safetensors(data: bytes, draw: Draw, other: bytes = b"") -> bytes:
    """The header's tree or the file's bytes."""
    if draw.random() < 0.3:
        return edit_bytes(data, draw, other)
    length = int.from_bytes(data[:8], "little")
    text = json.dumps(edit_tree(json.loads(data[8 : 8 + length]), draw)).encode("utf-8", "surrogatepass")
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text) + draw.choice((0,) * 20 + (1, -1, 8))) + text + data[8 + length :]


def edit_zip(data: bytes, draw: Draw, other: bytes = b"") -> bytes:
    """One entry by its own kind, the list of entries, or the archive's bytes."""
    if draw.random() < 0.3:
        return edit_bytes(data, draw, other)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        entries = [(info.filename, archive.read(info), info.compress_type) for info in archive.infolist()]
    at = draw.choice([*range(len(entries)), *(number for number, entry in enumerate(entries) if entry[0].endswith((".pkl", ".json")))])
    name, content, packed = entries[at]
    kind = draw.randrange(12)
    if kind == 0:
        del entries[at]
    elif kind == 1:
        entries.insert(at, (_text(name, draw).replace("\0", "") or "x", content, packed))
    elif kind == 2:
        entries[at] = (name, content, draw.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)))
    else:
        edit = (
            edit_pickle
            if name.endswith(".pkl")
            else edit_json
            if name.endswith(".json")
            else edit_array
            if name.endswith(".npy")
            else edit_bytes
        )
        entries[at] = (name, edit(content, draw, other), packed)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # names that are there twice are meant
        for name, content, packed in entries:
            archive.writestr(zipfile.ZipInfo(name[:60_000]), content, packed)
    return out.getvalue()


def edit_array(data: bytes, draw: Draw, other: bytes = b"") -> bytes:
    """An .npy entry: mostly its header."""
    return edit_bytes(data[:128], draw, other) + data[128:] if draw.random() < 0.8 else edit_bytes(data, draw, other)


def edit_message(message: Any, draw: Draw) -> None:
    """One field somewhere within a protobuf message: changed, doubled, moved, or gone."""
    fields = list(message.ListFields())
    if not fields:
        return
    field, value = draw.choice(fields)
    many = hasattr(value, "append") or hasattr(value, "add")
    if field.message_type is not None:
        inner = list(value) if many else [value]
        kind = draw.random()
        if kind < 0.1:
            message.ClearField(field.name)
        elif many and kind < 0.2:
            value.add().CopyFrom(draw.choice(inner))
        elif many and kind < 0.3:
            del value[draw.randrange(len(inner))]
        elif many and kind < 0.36 and len(inner) > 1:
            draw.choice(inner).CopyFrom(draw.choice(inner))
        else:
            edit_message(draw.choice(inner), draw)
        return
    if not many:
        if draw.random() < 0.1:
            message.ClearField(field.name)
        else:
            setattr(message, field.name, _field(value, draw))
    elif draw.random() < 0.3:
        value.append(_field(draw.choice(value), draw))
    elif draw.random() < 0.3:
        del value[draw.randrange(len(value))]
    else:
        value[draw.randrange(len(value))] = _field(draw.choice(value), draw)


def _field(value: Any, draw: Draw) -> Any:
    if isinstance(value, int):
        return draw.choice((value + 1, value - 1, -value, draw.randrange(-4, 30), draw.choice(EDGES), -draw.choice(EDGES)))
    if isinstance(value, float):
        return draw.choice((0.0, -1.0, 0.5, 3e38, float("nan"), float("inf")))
    return edit_bytes(value, draw) if isinstance(value, bytes) else _text(value, draw)


def edit_onnx(data: bytes, draw: Draw, other: bytes = b"") -> bytes:
    """Fields of the message, the document in its metadata where it has one, or bytes."""
    import onnx

    if draw.random() < 0.2:
        return edit_bytes(data, draw, other)
    proto = onnx.ModelProto.FromString(data)
    if proto.metadata_props and draw.random() < 0.5:
        note = draw.choice(proto.metadata_props)
        note.value = (edit_json(note.value.encode(), draw) if note.value[:1] == "{" else edit_bytes(note.value.encode(), draw)).decode(
            "utf-8", "replace"
        )
    else:
        for _ in range(_count(draw)):
            try:
                edit_message(proto.graph if draw.random() < 0.8 else proto, draw)
            except (ValueError, TypeError):
                continue  # a number or a text that the field cannot hold
    return proto.SerializeToString()


def edit_hdf5(data: bytes, draw: Draw, other: bytes = b"") -> bytes:
    """The structures of HDF5, the document in place, or bytes."""
    begin = data.find(b'{"format"')
    kind = draw.random()
    if kind < 0.25 and begin >= 0:
        document, length = json.JSONDecoder().raw_decode(data[begin : begin + (1 << 20)].decode("latin-1"))
        document.pop("digest", None)
        text = json.dumps(edit_tree(document, draw), separators=(",", ":")).encode("utf-8", "surrogatepass")
        if len(text) <= length:
            return data[:begin] + text.ljust(length) + data[begin + length :]
    return edit_near(data, draw, other, MARKS) if kind < 0.85 else edit_bytes(data, draw, other)


EDITS: dict[str, Callable[[bytes, Draw, bytes], bytes]] = {
    ".json": edit_json,
    ".safetensors": edit_safetensors,
    ".h5": edit_hdf5,
    ".onnx": edit_onnx,
    ".pt": edit_zip,
    ".bin": edit_zip,
    ".pt2": edit_zip,
    ".npz": edit_zip,
    ".npy": edit_array,
    ".metadata": edit_pickle,
    ".distcp": lambda data, draw, other: edit_near(data, draw, other, (b"PK", b"ctorch"), 64),
}


def edit_file(name: str, data: bytes, draw: Draw, other: bytes) -> bytes:
    """A file by its suffix; one that the edit does not know by its bytes."""
    edit = EDITS.get(name[name.rfind(".") :], edit_bytes)
    if edit is edit_zip and data[:2] != b"PK":
        edit = edit_pickle
    return edit(data, draw, other) if data else draw.randbytes(16)
