"""Small files that claim large things: refused at once, in little memory, whatever the claim."""

from __future__ import annotations

import contextlib
import os
import struct
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import h5py
import numpy as np
import pytest

import converter
from converter.builder import GraphBuilder
from converter.dims import MAX_NODES, Dim, Expr, symbol
from converter.errors import FormatError, GraphError
from converter.format import load_hdf5, save_hdf5
from converter.format.hdf5_headers import messages, root_headers
from converter.format.samples import read_samples
from converter.ops.joining import MAX_PARTS
from converter.size_text import parse
from tests.format_models import classifier


def with_continuations(path: Path, object_at: int, count: int, ring: bool) -> None:
    """Puts a header of `count` continuations, each of which holds those after it (or, in a ring, all), in place of an object's.

    `object_at`: where the file says the address of the object's header.
    """
    data = bytearray(path.read_bytes())
    header, begin = struct.unpack_from("<Q", data, object_at)[0], len(data)
    for index in range(count):
        target = (index + 1) % count if ring else index + 1
        data += struct.pack("<HHB3xQQ", 0x10, 16, 0, begin + 24 * target, 24 * (count if ring else count - target))
    place = len(data)
    data += data[header:header + 16] + struct.pack("<HHB3xQQ", 0x10, 16, 0, begin, 24 * count) + bytes(24)
    struct.pack_into("<BBHII4x", data, place, 1, 0, min(65535, count), 1, 48)
    struct.pack_into("<Q", data, object_at, place)
    struct.pack_into("<Q", data, 40, len(data))
    path.write_bytes(data)


@pytest.mark.parametrize("ring", [False, True])
@pytest.mark.parametrize("member", [None, "parameters", "document"])
def test_a_header_that_holds_itself(tmp_path: Path, member: str | None, ring: bool) -> None:
    """Of the root, and of what the root names: its entry says the address 8 bytes after the place of its name."""
    path = tmp_path / "model.h5"
    save_hdf5(classifier(), path)
    place = 64
    if member is not None:
        with h5py.File(path) as file:
            address = file.id.links.get_info(member.encode()).u
        places = [at for at in range(0, path.stat().st_size - 8, 8) if path.read_bytes()[at:at + 8] == struct.pack("<Q", address)]
        place = places[0]
    with_continuations(path, place, 2000, ring)
    started = time.process_time()
    with pytest.raises(FormatError, match="pieces of a header overlap"):
        load_hdf5(path)
    assert time.process_time() - started < 2


@pytest.mark.parametrize("flags", [0, 1, 2, 4, 0x30])
def test_a_newer_header_that_holds_itself(tmp_path: Path, flags: int) -> None:
    width, more = 1 << (flags & 3), bytes((16 if flags & 0x20 else 0) + (4 if flags & 0x10 else 0))
    head = b"OHDR" + bytes([2, flags]) + more
    order = bytes(2 if flags & 4 else 0)
    piece = bytes([0x10]) + struct.pack("<HB", 16, 0) + order
    begin = 512 + len(head) + width - 4  # of a continuation that is the piece itself, as if it had a signature and a checksum
    piece += struct.pack("<QQ", begin - 512, len(piece) + 16 + 8)
    (tmp_path / "m").write_bytes(bytes(512) + head + len(piece).to_bytes(width, "little") + piece + bytes(64))
    with (tmp_path / "m").open("rb") as file, pytest.raises(FormatError, match="overlap"):
        messages(file, 0, 512)


@pytest.mark.parametrize("version", [1, 2])
def test_a_header_of_empty_messages(tmp_path: Path, version: int) -> None:
    """Millions of them in some MB."""
    path = tmp_path / "model.h5"
    save_hdf5(classifier(), path)
    data, count = bytearray(path.read_bytes()), 2_000_000
    place = len(data)
    if version == 1:
        data += struct.pack("<BBHII4x", 1, 0, 65535, 1, 8 * count) + bytes(8 * count)
    else:
        data += b"OHDR" + bytes([2, 2]) + struct.pack("<I", 4 * count) + bytes(4 * count + 64)
    struct.pack_into("<Q", data, 64, place)
    struct.pack_into("<Q", data, 40, len(data))
    path.write_bytes(data)
    tracemalloc.start()
    try:
        with pytest.raises(FormatError, match="more messages than one can have"):
            load_hdf5(path)
        assert tracemalloc.get_traced_memory()[1] < 30 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("userblock", [0, 512, 2048])
@pytest.mark.parametrize("version", ["earliest", "v108", "latest"])
def test_plain_files_of_every_version_are_read(tmp_path: Path, version: str, userblock: int) -> None:
    path = tmp_path / "model.h5"
    save_hdf5(classifier(), path)
    with h5py.File(path) as source, h5py.File(tmp_path / "m.h5", "w", libver=(version, "latest"), userblock_size=userblock) as target:
        for name in source:
            source.copy(name, target)
        for number in range(40):
            target.attrs[f"note {number}"] = "x" * 100  # a header in pieces
    with (tmp_path / "m.h5").open("rb") as file:
        addresses, base = root_headers(file, "m.h5")
        assert base == userblock
        assert all(messages(file, address, base) for address in addresses)
    assert load_hdf5(tmp_path / "m.h5").parameters.names()


@pytest.mark.parametrize("size", [1 << 56, (1 << 64) - 1, 4096])
@pytest.mark.parametrize("length", [1, 3])
def test_a_heap_that_claims_more_than_the_file(tmp_path: Path, size: int, length: int) -> None:
    """A list of free blocks that leads into itself after a few, in a heap of any claimed size."""
    path = tmp_path / "model.h5"
    save_hdf5(classifier(), path)
    content = bytearray(path.read_bytes())
    heap = content.find(b"HEAP")
    struct.pack_into("<QQ", content, heap + 8, size, 0)
    data = struct.unpack_from("<Q", content, heap + 24)[0]
    for block in range(length):
        struct.pack_into("<QQ", content, data + 16 * block, 16 * ((block + 1) % length), 16)
    path.write_bytes(content)
    started = time.process_time()
    with pytest.raises(FormatError, match="list without an end"):
        load_hdf5(path)
    assert time.process_time() - started < 2


def nested(form: str, depth: int) -> str:
    text = "b"
    for _ in range(depth):
        text = form.format(text)
    return text


@pytest.mark.parametrize("form", ["(7*b+{}%6)%7", "({}+b)%3", "(b*{}%5)%4", "max(a,{})%7"])
def test_sizes_that_grow_with_every_level_are_refused(form: str) -> None:
    text = nested(form, 25)
    started = time.process_time()
    size = None
    with contextlib.suppress(GraphError):
        size = parse(text)
    assert size is None or isinstance(size, Expr) and 0 < size.nodes <= MAX_NODES
    assert time.process_time() - started < 5


def test_the_bound_holds_for_arithmetic_too() -> None:
    size: Dim = symbol("b")

    def grow() -> None:
        nonlocal size
        for _ in range(64):
            size = (size + symbol("a")) % 7 + size

    with pytest.raises(GraphError, match="grows too large"):
        grow()


def test_nodes_count_what_is_written() -> None:
    for text, nodes in {"a": 1, "3*a*a": 2, "a + b": 2, "a // 2": 2, "max(a, b) + a": 4, "a*b // 3 % c": None}.items():
        size = parse(text)
        assert isinstance(size, Expr)
        assert nodes is None or size.nodes == nodes, text


@pytest.mark.parametrize("count", [MAX_PARTS + 1, 1 << 31, 1 << 62])
def test_slices_that_nothing_names_are_bounded_too(count: int) -> None:
    b = GraphBuilder("g")
    x = b.input("x", "float32", [2, count])
    with pytest.raises(GraphError, match="too many slices"):
        b.op("unstack", x, axis=1)


@pytest.mark.parametrize("level", ["1", "2"])
def test_operators_without_docstrings(level: str) -> None:
    """What PYTHONOPTIMIZE=2 makes of them."""
    code = "import converter; from converter.opset import operators; print(len(operators()), __debug__)"
    found = subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONOPTIMIZE": level, "PYTHONDONTWRITEBYTECODE": "1"},
                           capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    assert found.stdout.split()[1] == "False"


@pytest.mark.parametrize("shape", [[(1 << 53) - 1] * 4, [1 << 50, 1 << 13], [0, 1 << 53, 1 << 53]])
def test_a_sample_of_a_tensor_that_there_cannot_be(shape: list[int]) -> None:
    item = {"shape": shape, "seed": "1", "statistics": {"finite": 1}}
    with pytest.raises(FormatError, match=r"a shape that no tensor has|not a size|beyond"):
        read_samples({"y": item}, {"y": np.ones(1, np.float32)}, "samples")


@pytest.mark.parametrize("runtime", ["reference", "numpy"])
def test_repeating_without_end_is_refused(runtime: str) -> None:
    """A repeated tensor takes no memory, so that a fold over it would not end."""
    builder = GraphBuilder("repeated")
    x = builder.input("x", "float32", ["batch", 4])
    builder.output("y", builder.op("max", builder.op("broadcast_to", x, shape=[1 << 45, 4]), axis=(0,)))
    session = converter.session(converter.Model(builder.graph(), converter.InMemoryParameters({})), runtime)
    with pytest.raises(converter.ConverterError, match=r"repeated tensor|does not fit in memory"):
        session.run({"x": np.ones((1, 4), np.float32)})
