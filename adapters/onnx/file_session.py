"""Runs an ONNX file in ONNX Runtime exactly as it lies on the disk."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime

from adapters.onnx.feeding import INEXACT_IN_FLOAT64, SILENT, run_session
from adapters.onnx.functions import check_functions, nodes_of
from adapters.onnx.opening import open_proto
from converter.errors import ConverterError, FormatError, RunError
from converter.ir import Array


class OnnxFileSession:
    """`run(inputs) -> {name: array}` through an `onnxruntime.InferenceSession` on the file itself, whoever wrote it.

    Not `optimised`, it runs the nodes that are there, and none that it fuses of them: those may round otherwise, to 8 bits too.

    Raises `FormatError` when ONNX Runtime does not load the file, and for functions that it would write out to very many nodes.
    """

    def __init__(self, path: str | Path, optimised: bool = True) -> None:
        self.path = Path(path)
        self._threads = _threads(self.path)
        try:
            self.session = _session(str(path), self.path, optimised, self._threads)
        except Exception as error:  # onnxruntime's errors have no common class of their own
            raise FormatError("ONNX Runtime does not load the file", where=str(path), received=str(error)[:300]) from error
        self.inputs = [item.name for item in self.session.get_inputs()]
        self.outputs = [item.name for item in self.session.get_outputs()]

    def run(self, inputs: Mapping[str, Any]) -> dict[str, Array]:
        """The file's outputs by its own names, a sequence's as `name_0` and on. Inputs that the file does not have are left out.

        Raises `RunError` for inputs that do not fit.
        """
        arrays = {name: np.asarray(array) for name, array in inputs.items() if name in self.inputs}
        try:
            results = run_session(self.session, self.outputs, arrays)
        except Exception as error:  # as above
            raise RunError("ONNX Runtime does not run the file on these inputs", where=str(self.path), received=str(error)[:300],
                           expected=", ".join(sorted(self.inputs))) from error
        named: dict[str, Array] = {}
        for name, result in zip(self.outputs, results, strict=True):
            parts = {f"{name}_{place}": part for place, part in enumerate(result)} if isinstance(result, list) else {}
            named |= parts if isinstance(result, list) else {name: as_scores(result)}
        return named

    def unoptimised(self) -> OnnxFileSession:
        """The same file, its nodes as they stand."""
        return type(self)(self.path, optimised=False)

    def observe(self, inputs: Mapping[str, Any], names: Collection[str]) -> dict[str, Array]:
        """Values between by the file's names: those of `names` that its nodes make, and its outputs. Raises what ONNX Runtime raises."""
        proto = onnx.load_model(str(self.path), load_external_data=False)
        made = [name for node in proto.graph.node for name in node.output if name in names and name not in self.outputs]
        proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in made)
        wanted = [*self.outputs, *made]
        arrays = {name: np.asarray(array) for name, array in inputs.items() if name in self.inputs}
        results = run_session(_session(proto.SerializeToString(), self.path, threads=self._threads), wanted, arrays)
        return {name: result for name, result in zip(wanted, results, strict=True) if isinstance(result, np.ndarray)}


BY_THREADS = frozenset({"DynamicQuantizeLSTM"})
"""Operators that ONNX Runtime computes otherwise with another number of threads."""


def _threads(path: Path) -> int:
    """How many threads a file is run with: one where their number changes what it computes, else as many as there are, 0.

    Raises `FormatError` for functions that would be written out to very many nodes.
    """
    try:
        proto, _ = open_proto(path)
    except Exception:  # what is no ONNX file, ONNX Runtime refuses: it reads other kinds too
        return 0
    try:
        check_functions(proto)
    except ConverterError as error:
        raise error.within(str(path)) from error
    return int(any(node.op_type in BY_THREADS for graph in (proto.graph, *proto.functions) for node in nodes_of(graph)))


def _session(model: str | bytes, path: Path, optimised: bool = True, threads: int = 0) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    if not optimised:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = SILENT
    if isinstance(model, bytes):
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(path.parent))
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    if any(item.type == "tensor(double)" for item in (*session.get_inputs(), *session.get_outputs())):
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"],
                                               disabled_optimizers=list(INEXACT_IN_FLOAT64))
    return session


def as_scores(result: Any) -> Any:
    """A list of maps from labels to scores as scores [rows, classes], in the ascending order of the labels; anything else as it is."""
    if not isinstance(result, np.ndarray) or result.dtype != object or not all(isinstance(row, dict) for row in result):
        return result
    return np.array([[row[label] for label in sorted(row)] for row in result], np.float32)
