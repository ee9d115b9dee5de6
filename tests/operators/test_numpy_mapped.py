"""Weights of a file that a session maps: what is not read takes no memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

import converter
from converter import GraphBuilder, InMemoryParameters, Model

ROWS, WIDTH = 2_500_000, 1024
READ = """
import sys
import numpy as np, converter

def peak():  # not ru_maxrss, which a process takes over from the one that began it
    return 1024 * int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1])

session = converter.session(converter.load(sys.argv[1], check=False))
before = peak()
y = session.run({"ids": np.linspace(0, int(sys.argv[2]) - 1, 32).astype(np.int64)})["y"]
after = peak()
print(y[0, 0], y[-1, -1], after - before, after)
"""


def table_of_ten_gigabytes(path: Path) -> None:
    """An embedding whose file has holes: its first and its last row are there."""
    b = GraphBuilder("words")
    b.output("y", b.op("embedding", b.input("ids", "int64", ("n",)), b.parameter("table", "float32", (2, WIDTH))))
    converter.save(Model(b.graph(), InMemoryParameters({"table": np.zeros((2, WIDTH), np.float32)})), path)
    with h5py.File(path, "r+") as file:
        document = json.loads(file["document"][()].tobytes())
        del file["document"], file["parameters/table"]
        text = json.dumps(document).replace(f"[2, {WIDTH}]", f"[{ROWS}, {WIDTH}]").encode()
        file["document"] = np.frombuffer(text, np.uint8)
        made = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        made.set_layout(h5py.h5d.CONTIGUOUS)
        made.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
        h5py.h5d.create(file["parameters"].id, b"table", h5py.h5t.IEEE_F32LE, h5py.h5s.create_simple((ROWS, WIDTH)), made)
        file["parameters/table"][0] = 1.0
        file["parameters/table"][ROWS - 1] = 2.0


@pytest.mark.skipif(sys.platform != "linux", reason="needs files with holes, and /proc")
def test_of_a_table_of_ten_gigabytes_the_rows_that_are_read_are_read(tmp_path: Path) -> None:
    path = tmp_path / "words.h5"
    table_of_ten_gigabytes(path)
    assert path.stat().st_size > 10_000_000_000
    assert path.stat().st_blocks * 512 < 10_000_000
    done = subprocess.run([sys.executable, "-c", READ, str(path), str(ROWS)], capture_output=True, text=True, timeout=100, check=False,
                          env=dict(os.environ))
    assert done.returncode == 0, done.stderr
    first, last, grown, whole = map(float, done.stdout.split())
    assert (first, last) == (1.0, 2.0)
    assert grown < 20_000_000
    assert whole < 500_000_000
