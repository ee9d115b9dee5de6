"""A runtime that compiles: the model's source, a shared library, and a call."""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from adapters.c.blob import laid_out
from adapters.c.program import program_of
from adapters.c.source import Program, header, source
from converter.dims import Expr, evaluate, symbols
from converter.errors import MissingDependencyError, RunError, UnsupportedError
from converter.footprint import check_memory
from converter.ir import Array, Model
from converter.sizes import check_inputs

FLAGS = ("-std=c99", "-O3", "-march=native", "-fno-math-errno", "-ffp-contract=fast", "-shared", "-fPIC", "-w")
LEAST = 16
"""What a free size is compiled for at least: a larger one is compiled for when it comes, up to the next power of two."""
ERRORS = {
    1: "a size outside its range, or sizes that do not fit",
    2: "an index outside its axis, a division by zero, or a number out of range",
    3: "a loop that does not end",
}


def compiler() -> str:
    """The path of a C compiler. Raises `MissingDependencyError` where there is none."""
    stated = os.environ.get("CC")
    for name in ([stated] if stated else []) + ["gcc", "cc", "clang"]:
        found = shutil.which(name)
        if found:
            return found
    raise MissingDependencyError("no C compiler is installed", expected="gcc, cc or clang", fix="install one, or name it in CC")


def cache_folder() -> Path:
    """Where compiled models are kept, by the digest of their source: a folder of the user's own."""
    place = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(place) / "model-converter" / "c"


class CSession:
    """`run(inputs) -> {name: array}` in compiled C. `max` gives the largest size of each free axis; default: as runs ask for it.

    Raises:
        UnsupportedError: the model has what C lacks.
        MissingDependencyError: no C compiler.
    """

    def __init__(self, model: Model, max: Mapping[str, int] | None = None) -> None:
        self.model = model
        self._fixed = dict(max or {})
        self._compiler = compiler()
        self._lock = threading.Lock()
        self._most: dict[str, int] = {}
        self._library: _Library | None = None
        self._inputs = [size.symbol for port in model.graph.inputs for size in port.spec.shape if isinstance(size, Expr) and size.symbol]
        # What C lacks is told now, whatever the sizes will be.
        self._prepare({name: self._fixed.get(name, LEAST) for name in self._inputs}, compile=False)

    def _prepare(self, sizes: Mapping[str, int], compile: bool = True) -> _Library | None:
        dims = self.model.graph.dims
        most = dict(self._fixed)
        for name, size in sizes.items():
            if name not in self._fixed:
                wanted = max(LEAST, self._most.get(name, 0), 1 << max(size - 1, 0).bit_length())
                limit = dims[name].max if name in dims else None
                most[name] = max(wanted if limit is None else min(wanted, limit), dims[name].min if name in dims else 0, 1)
        for name in _data_sizes(self.model):
            most.setdefault(name, self._most.get(name, 1 << 16))
        program = program_of(self.model, most, "model")
        if not compile:
            return None
        self._most = most
        self._library = _Library(program, self._compiler)
        return self._library

    def run(self, inputs: Mapping[str, Any]) -> dict[str, Array]:
        """The outputs by name, in the graph's order. Raises `RunError` for inputs that do not fit, and where the model does."""
        arrays, bindings = check_inputs(self.model.graph, inputs)
        check_memory(self.model, bindings)
        with self._lock:
            library = self._library
            if library is None or any(bindings[name] > self._most.get(name, bindings[name]) for name in self._inputs):
                library = self._prepare({name: bindings[name] for name in self._inputs})
            assert library is not None
            return library.run(self.model, arrays, bindings)


def _data_sizes(model: Model) -> list[str]:
    """Sizes that only the data decide, without anything that bounds them."""
    from converter.opset import lookup

    return [node.attributes[name].symbol for node in model.graph.nodes for name in lookup(node.op).binds if name in node.attributes]


class _Library:
    """A compiled program."""

    def __init__(self, program: Program, compiler_path: str) -> None:
        self.blob = laid_out(program)
        text = "".join(source(program, "model.h"))
        top = header(program)
        digest = hashlib.sha256("\0".join((text, top, compiler_path, *FLAGS, os.uname().nodename)).encode()).hexdigest()
        folder = cache_folder()
        path = folder / f"{digest}.so"
        if not path.exists():
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=folder) as work:
                Path(work, "model.c").write_text(text, encoding="ascii")
                Path(work, "model.h").write_text(top, encoding="ascii")
                built = subprocess.run(
                    [compiler_path, *FLAGS, "model.c", "-o", "model.so", "-lm"], cwd=work, capture_output=True, text=True, check=False
                )
                if built.returncode:
                    raise UnsupportedError("the C compiler does not take the source", received=built.stderr[:400])
                os.replace(Path(work, "model.so"), path)
        self._call = ctypes.CDLL(str(path))
        self.program = program
        if program.blob is not None:
            self._call.model_weights(ctypes.c_void_p(self.blob.ctypes.data))

    def run(self, model: Model, arrays: Mapping[str, Array], bindings: Mapping[str, int]) -> dict[str, Array]:
        """One call."""
        graph = model.graph
        given = [np.ascontiguousarray(arrays[port.name]) for port in graph.inputs]
        known = set(bindings)
        results: list[Array] = []
        outputs = [buffer for buffer in self.program.g.buffers if buffer.kind == "output"]
        by_name = {buffer.name: buffer for buffer in outputs}
        names = [port.name for port in self.program.ports][len(graph.inputs) : len(graph.inputs) + len(graph.outputs)]
        for port, name in zip(graph.outputs, names, strict=True):
            free = {item for size in port.spec.shape for item in symbols(size)} - known
            count = (
                self.program.g.most(by_name[name].size) if free else int(np.prod([evaluate(size, bindings) for size in port.spec.shape]))
            )
            results.append(np.empty(max(count, 1), port.spec.dtype.numpy))
        sizes = [ctypes.c_ssize_t(bindings[item]) for item in self.program.sizes]
        told = [ctypes.c_ssize_t(0) for _ in self.program.results]
        code = self._call.model(*(ctypes.c_void_p(item.ctypes.data) for item in (*given, *results)), *sizes, *map(ctypes.byref, told))
        if code:
            raise RunError(f"the compiled model stopped: {ERRORS.get(code, f'code {code}')}", where=f"graph {graph.name!r}")
        everything = dict(bindings)
        found = dict.fromkeys(
            item for port in graph.outputs for size in port.spec.shape for item in sorted(symbols(size)) if item not in known
        )
        everything.update(zip(found, (item.value for item in told), strict=True))
        shaped = {}
        for port, array in zip(graph.outputs, results, strict=True):
            shape = tuple(evaluate(size, everything) for size in port.spec.shape)
            shaped[port.name] = array[: int(np.prod(shape))].reshape(shape)
        return shaped
