"""`torch.onnx.export(dynamo=True)` on the same architectures, judged by the live module at the same sizes.

The exporter runs in a process of its own with a limit on its time, which serves one architecture after another and is
started anew when it did not come back.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch

    from campaigns.architectures import Architecture

SECONDS = 300.0
"""The time for one architecture: export, ONNX Runtime's session and all sizes."""

TOLERANCE = 1e-3

PASS, REFUSED, FROZEN, WRONG = "pass", "refused", "frozen", "wrong"


@dataclass
class Outcome:
    """What came of one export.

    `status` is `pass`; `refused` (the export raised or did not end); `frozen` (right wherever the file's inputs allow a
    size, but some size that was asked to be free is fixed in the file); or `wrong` (at a size that the file's inputs
    allow, ONNX Runtime fails or is off by more than `TOLERANCE`). `nodes` counts those in functions too.
    """

    status: str
    reason: str = ""
    nodes: int = 0


def judge_exporter(subject: Architecture, dims: str = "auto", seconds: float = SECONDS) -> Outcome:
    """The exporter's outcome for one architecture: with the sizes free that the subject varies, or at the traced ones."""
    return _SERVER.ask(subject.name, dims, seconds)


class _Server:
    """The process that exports, started at the first question."""

    def __init__(self) -> None:
        self._process: Any = None
        self._pipe: Connection | None = None

    def ask(self, name: str, dims: str, seconds: float) -> Outcome:
        pipe = self._pipe if self._pipe is not None and self._process.is_alive() else self._start()
        pipe.send((name, dims))
        try:
            if pipe.poll(seconds):
                return Outcome(*pipe.recv())
            reason = f"no result after {seconds:.0f} s"
        except (EOFError, ConnectionError):
            reason = "the process ended"
        self.stop()
        return Outcome(REFUSED, reason)

    def _start(self) -> Connection:
        self.stop()
        context = multiprocessing.get_context("spawn")
        pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs,), daemon=True)
        self._process.start()
        theirs.close()
        self._pipe = pipe
        return pipe

    def stop(self) -> None:
        """Ends the process, if there is one."""
        if self._pipe is not None:
            self._process.kill()
            self._process.join()
            self._pipe.close()
            self._pipe = None


_SERVER = _Server()
atexit.register(_SERVER.stop)


def _serve(pipe: Connection) -> None:
    """Answers `(name, dims)` with the fields of an outcome until the other end is closed."""
    from campaigns.architectures import architectures
    from campaigns.judging import quiet

    with open(os.devnull, "w", encoding="utf-8") as nowhere:  # the exporter talks on both
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
    while True:
        try:
            name, dims = pipe.recv()
        except EOFError:
            return
        (subject,) = architectures(name)
        with quiet():
            found = export_and_compare(subject, dims)
        pipe.send((found.status, found.reason, found.nodes))


def export_and_compare(subject: Architecture, dims: str) -> Outcome:
    """One export in this process, run by ONNX Runtime at every size of the subject and compared with the live module."""
    import onnx
    import onnxruntime
    import torch

    from adapters.torch.tracing.caches import register_caches

    module = subject.build()
    register_caches()
    example = subject.arguments(subject.traced)
    cases = [subject.traced] if dims == "static" else [subject.traced, *subject.others]
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        path = Path(folder) / "model.onnx"
        try:
            torch.onnx.export(module, (), str(path), kwargs=example, dynamo=True, external_data=False, verbose=False,
                              dynamic_shapes=None if dims == "static" else free_axes(subject))
        except Exception as error:  # the exporter raises anything
            return Outcome(REFUSED, _said(error))
        model = onnx.load(str(path))
        nodes = count_nodes(model)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        try:
            session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # a file that ONNX Runtime refuses
            return Outcome(WRONG, f"ONNX Runtime: {_said(error)}", nodes)
    frozen = []
    for sizes in cases:
        arguments = subject.arguments(sizes)
        feeds = feeds_of(session, arguments)
        fixed = [f"axis {axis} of {port.name!r} is fixed at {size}" for port in session.get_inputs() if port.name in feeds
                 for axis, (size, given) in enumerate(zip(port.shape, feeds[port.name].shape, strict=True))
                 if isinstance(size, int) and size != given]
        if fixed:
            frozen.append(f"{sizes}: {fixed[0]}")
            continue
        try:
            results = session.run(None, feeds)
        except Exception as error:  # ONNX Runtime's own kinds of error
            return Outcome(WRONG, f"{sizes}: ONNX Runtime: {_said(error)}", nodes)
        with torch.no_grad():
            wanted = [leaf for leaf in torch.utils._pytree.tree_leaves(module(**arguments)) if isinstance(leaf, torch.Tensor)]
        difference = _differs(results, wanted)
        if difference:
            return Outcome(WRONG, f"{sizes}: {difference}", nodes)
    return Outcome(FROZEN, frozen[0], nodes) if frozen else Outcome(PASS, "", nodes)


def feeds_of(session: Any, arguments: Mapping[str, Any]) -> dict[str, np.ndarray[Any, Any]]:
    """Arguments of `forward` for the inputs of the exporter's file: by name, and a cache's tensors in their order."""
    import torch
    from torch.utils import _pytree as pytree

    ports = [port.name for port in session.get_inputs()]
    named = {name: value for name, value in arguments.items() if isinstance(value, torch.Tensor) and name in ports}
    rest = pytree.tree_leaves([value for value in arguments.values() if not isinstance(value, torch.Tensor)])
    nested = [leaf for leaf in rest if isinstance(leaf, torch.Tensor)]
    further = [name for name in ports if name not in named]
    if len(further) == len(nested):
        named |= dict(zip(further, nested, strict=True))
    return {name: tensor.numpy() for name, tensor in named.items()}


def free_axes(subject: Architecture) -> dict[str, Any]:
    """`dynamic_shapes` that frees each axis of an argument whose size differs between the sizes that are run."""
    import torch
    from torch.utils import _pytree as pytree

    from adapters.torch.tracing.inputs import mapped

    example = subject.arguments(subject.traced)
    leaves = iter(list(zip(*(pytree.tree_leaves(subject.arguments(sizes)) for sizes in subject.others), strict=True)))

    def free(leaf: Any) -> Any:
        others = next(leaves)
        if not isinstance(leaf, torch.Tensor):
            return None
        return {axis: torch.export.Dim.AUTO for axis, size in enumerate(leaf.shape) if any(other.shape[axis] != size for other in others)}

    found: dict[str, Any] = mapped(free, example)
    return found


def count_nodes(model: Any) -> int:
    """Nodes of a file, those in its functions and sub-graphs included."""
    def within(nodes: Any) -> int:
        return sum(1 + sum(within(graph.node) for item in node.attribute for graph in (item.g, *item.graphs)) for node in nodes)

    return within(model.graph.node) + sum(within(function.node) for function in model.functions)


def _differs(results: list[Any], wanted: list[torch.Tensor]) -> str:
    if len(results) != len(wanted):
        return f"{len(results)} outputs where the module gives {len(wanted)}"
    for index, (found, tensor) in enumerate(zip(results, wanted, strict=True)):
        truth = tensor.numpy()
        if found.shape != truth.shape:
            return f"output {index} has the shape {found.shape} where the module gives {truth.shape}"
        if not np.allclose(found, truth, rtol=TOLERANCE, atol=TOLERANCE, equal_nan=True):
            off = np.abs(found.astype(np.float64) - truth.astype(np.float64)).max()
            return f"output {index} is off by {off:.2g}"
    return ""


def _said(error: Exception) -> str:
    # torch.onnx prefixes its own advice; what failed is in the last error of the chain.
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    return f"{type(cause).__name__}: {' '.join(str(cause).split())[:200]}"
