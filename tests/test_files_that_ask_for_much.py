"""Small files that claim large things: refused at once, in little memory, whatever the claim."""

from __future__ import annotations

import contextlib
import os
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest

from converter.builder import GraphBuilder
from converter.dims import MAX_NODES, Dim, Expr, parse, symbol
from converter.errors import FormatError, GraphError
from converter.format import load_hdf5, save_hdf5
from converter.ops.joining import MAX_PARTS
from tests.format_models import classifier


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
