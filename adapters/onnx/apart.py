"""ONNX files of anybody in ONNX Runtime, in a process of their own that may take so much time and memory, and may die.

Parent and child send each other a line of JSON and the bytes of the arrays that it describes: nothing that could run.
"""

from __future__ import annotations

import contextlib
import json
import math
import mmap
import os
import re
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from converter.errors import ConverterError, FormatError, RunError
from converter.ir import Array, DType

SECONDS, SPEED = 6.0, 5e6
"""A file may take so long to load, or for a run, and as long as it takes to read it at so many bytes a second."""
BUSY = 10
"""On a machine that is busy with others it may take so many times as long, as long as the processor was not its own for the time it has."""
MEMORY, COPIES = 1_000_000_000, 4
"""It may take so many bytes, and so many times those of the file, of the files of values that it names, and of the inputs."""
TICK = 0.02

_LOCATION = re.compile(rb"\n\x08location\x12([\x01-\x7f]|[\x80-\xff][\x01-\x7f])")
CHILD = "import sys; sys.path[:] = {path!r}; from adapters.onnx.apart import serve; serve({parent})"


class OnnxFileApart:
    """`OnnxFileSession` in a child process. `inputs` and `outputs` are the file's names.

    Args:
        path: the file.
        seconds: how long loading, and each run, may take; None: by the file's length.
        memory: how many bytes the child may hold, beside four times what the file and the inputs have.
        optimised: as of `OnnxFileSession`.

    Raises:
        FormatError: ONNX Runtime does not load the file, ends on it, or takes more time or memory than it may; `run` too.
    """

    def __init__(self, path: str | Path, seconds: float | None = None, memory: int = MEMORY, optimised: bool = True) -> None:
        self.path, self.optimised = Path(path), optimised
        # What takes no room on the disk is none.
        held = [item.stat() for item in {self.path, *named_files(self.path)}]
        self.length = sum(min(item.st_size, 512 * getattr(item, "st_blocks", item.st_size)) for item in held)
        self.seconds = SECONDS + self.length / SPEED if seconds is None else seconds
        self.memory = memory
        self._child: subprocess.Popen[bytes] | None = None
        self.inputs, self.outputs = list[str](), list[str]()
        self._start()

    def run(self, inputs: Mapping[str, Any]) -> dict[str, Array]:
        """The file's outputs by its own names. Inputs that the file does not have are left out. Raises `RunError` for those that do
        not fit."""
        return self._ask({"ask": "run"}, inputs)

    def unoptimised(self) -> OnnxFileApart:
        """The same file, its nodes as they stand."""
        return OnnxFileApart(self.path, self.seconds, self.memory, optimised=False)

    def observe(self, inputs: Mapping[str, Any], names: Collection[str]) -> dict[str, Array]:
        """Values between by the file's names, as `OnnxFileSession.observe`."""
        return self._ask({"ask": "observe", "names": sorted(names)}, inputs)

    def _start(self) -> None:
        code = CHILD.format(path=[os.path.abspath(place) for place in sys.path if place], parent=os.getpid())
        self._child = subprocess.Popen([sys.executable, "-X", "utf8", "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                       stderr=subprocess.DEVNULL)
        weakref.finalize(self, _end, self._child)
        told, _ = self._exchange({"load": os.path.abspath(self.path), "optimised": self.optimised}, {})
        self.inputs, self.outputs = told["inputs"], told["outputs"]

    def _ask(self, what: dict[str, Any], inputs: Mapping[str, Any]) -> dict[str, Array]:
        if self._child is None:
            self._start()
        return self._exchange(what, {name: np.asarray(array) for name, array in inputs.items() if name in self.inputs})[1]

    def _exchange(self, what: dict[str, Any], arrays: Mapping[str, Array]) -> tuple[dict[str, Any], dict[str, Array]]:
        child = self._child
        assert child is not None
        pipes = child.stdin, child.stdout
        found: list[tuple[dict[str, Any], dict[str, Array]]] = []

        def exchange(stdin: Any, stdout: Any) -> None:
            with contextlib.suppress(OSError, EOFError, ValueError, KeyError):
                send(stdin, what, arrays)
                found.append(receive(stdout))

        thread = threading.Thread(target=exchange, args=pipes, daemon=True)
        memory = self.memory + COPIES * (self.length + sum(array.nbytes for array in arrays.values()))
        start, used, over = time.monotonic(), _processor(child.pid), ("", "")
        try:
            thread.start()
            while thread.is_alive() and not any(over):
                thread.join(TICK)
                passed = time.monotonic() - start
                if passed > self.seconds and (not _processor(child.pid) - used <= self.seconds or passed > BUSY * self.seconds):
                    over = "too long", f"{self.seconds:.3g} s"
                elif _resident(child.pid) > memory:
                    over = "too much memory", f"{memory / 1e6:.0f} MB"
        finally:
            if not found:
                _end(child)
                self._child = None
        thread.join(TICK)
        if not found:
            code = child.wait()
            if any(over):
                raise FormatError(f"the file takes ONNX Runtime {over[0]}", where=str(self.path), expected=f"at most {over[1]}",
                                  fix="give it more (--timeout, --memory) if you trust it")
            raise FormatError("ONNX Runtime ends on the file", where=str(self.path), fix="check what wrote it",
                              received=f"signal {-code}" if code < 0 else f"exit {code}")
        told, results = found[0]
        if "error" in told:
            kinds: dict[str, type[ConverterError]] = {"FormatError": FormatError}
            kind = kinds.get(told["kind"], RunError)
            raise kind(told["error"], where=str(self.path), received=told["received"], expected=told["expected"])
        return told, results


def named_files(path: Path) -> set[Path]:
    """The files in an ONNX file's folder that it names as those of its values, found by its bytes.

    They are a `StringStringEntryProto` each, as protobuf writes it: the key "location", and the name with its length before it.
    """
    with path.open("rb") as file:
        if not os.fstat(file.fileno()).st_size:
            return set()
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            names = {data[start:start + (first & 127 | second << 7)] for match in _LOCATION.finditer(data)
                     for first, second, start in [(match[1][0], (match[1][1:] or b"\0")[0], match.end())]}
    places = (Path(os.fsdecode(name)) for name in names if b"\0" not in name)
    inside = (path.parent / place for place in places if not place.is_absolute() and ".." not in place.parts)
    return {item for item in inside if item.is_file()} - {path}


def _end(child: subprocess.Popen[bytes]) -> None:
    child.kill()
    child.wait()
    for pipe in (child.stdin, child.stdout):
        with contextlib.suppress(OSError):
            assert pipe is not None
            pipe.close()


def _resident(pid: int) -> int:
    """The memory that a process holds, in bytes; 0 where the system does not tell."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError, ValueError, AttributeError):
        return 0


def _processor(pid: int) -> float:
    """The seconds of the processor that a process has used; infinite where the system does not tell."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    except (OSError, IndexError, ValueError, AttributeError):
        return math.inf


# What goes between -------------------------------------------------------------------------------------------------------


def send(file: IO[bytes], told: Mapping[str, Any], arrays: Mapping[str, Array]) -> None:
    """A line of JSON, then the arrays' bytes in order; texts are in the line."""
    held = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    texts = {name: array.astype(str).reshape(-1).tolist() for name, array in held.items() if array.dtype.kind in "OUST"}
    specs = [[name, None if name in texts else DType.of(array.dtype).value, list(array.shape)] for name, array in held.items()]
    file.write(json.dumps({**told, "arrays": specs, "texts": texts}).encode() + b"\n")
    for name, array in held.items():
        if name not in texts:
            file.write(array.reshape(-1).view(np.uint8).data)
    file.flush()


def receive(file: IO[bytes]) -> tuple[dict[str, Any], dict[str, Array]]:
    """What `send` sent. Raises `EOFError` at the end."""
    line = file.readline()
    if not line.endswith(b"\n"):
        raise EOFError
    told = json.loads(line)
    arrays: dict[str, Array] = {}
    for name, kind, shape in told["arrays"]:
        if kind is None:
            arrays[name] = np.array(told["texts"][name], object).reshape(shape)
            continue
        dtype = DType(kind)
        data = file.read(math.prod(shape) * dtype.itemsize)
        if len(data) != math.prod(shape) * dtype.itemsize:
            raise EOFError
        arrays[name] = np.frombuffer(bytearray(data), dtype.numpy).reshape(shape)
    return told, arrays


def serve(parent: int) -> None:
    """The child: answers what it is asked until its parent is gone."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_DFL)
    asked, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    from adapters.onnx.file_session import OnnxFileSession

    session: Any = None
    with contextlib.suppress(EOFError):
        while True:
            told, arrays = receive(asked)
            results: Mapping[str, Any] = {}
            try:
                if "load" in told:
                    session = OnnxFileSession(told["load"], told["optimised"])
                    answer: dict[str, Any] = {"inputs": session.inputs, "outputs": session.outputs}
                else:
                    results = session.run(arrays) if told["ask"] == "run" else session.observe(arrays, told["names"])
                    answer = {}
            except Exception as error:  # ONNX Runtime's errors have no common class of their own
                parts = {name: getattr(error, name, None) for name in ("received", "expected")}
                answer = {"error": getattr(error, "message", str(error)), "kind": type(error).__name__, **parts}
                held = {}
            else:
                held = {name: np.asarray(value) for name, value in results.items()}
            send(answers, answer, held)
