"""No room while a checkpoint is written: the error says so, whatever library writes, and the target stays as it was."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

CODE = """
import resource, sys
import numpy as np
from converter.discovery import format_of, resolve
from converter.errors import ConverterError
from converter.parameters import InMemoryParameters

store = InMemoryParameters({f"w{index}": np.ones((64, 64), np.float32) for index in range(20)})
found = format_of(sys.argv[1], to="save")
save = resolve(found.save, found.extra)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
try:
    save(store, sys.argv[1])
except ConverterError as error:
    print(error.message)
"""


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("room", [100, 100_000, 300_000])
def test_no_room(tmp_path: Path, suffix: str, room: int) -> None:
    target = tmp_path / f"o{suffix}"
    target.write_bytes(b"old")
    found = subprocess.run([sys.executable, "-c", CODE, str(target), str(room)], capture_output=True, text=True, check=False)
    assert found.stdout == "cannot write (File too large)\n", found.stderr
    assert target.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == [target.name]


def test_a_closed_stderr(tmp_path: Path) -> None:
    model = Path(__file__).parents[2] / "fixtures" / "format" / "doubled.json"
    subprocess.run(f"exec {sys.executable} -m converter json-to-hdf5 {model} -o {tmp_path}/o.h5 2>&-", shell=True, check=True)
    assert (tmp_path / "o.h5").stat().st_size > 0
