"""Trained PyTorch models as one neutral file, run in NumPy and ONNX Runtime, and shown to be the same model.

    model   = converter.from_torch(module, args)
    converter.save(model, "model.json")
    model   = converter.load("model.json")
    session = converter.session(model, runtime="numpy")
    outputs = session.run({"tokens": tokens})
    report  = converter.verify(model, runtimes=["numpy", "onnxruntime"])

Names are imported as they are used: `import converter` loads no framework.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from converter.builder import GraphBuilder
    from converter.errors import (
        ConverterError,
        FormatError,
        GraphError,
        MissingDependencyError,
        ParameterError,
        RunError,
        UnsupportedError,
    )
    from converter.format import model_digest
    from converter.ir import DimRange, DType, Example, Graph, GraphInput, GraphOutput, Model, Node, TensorSpec
    from converter.loading import Session, from_checkpoint, from_torch, load, save, session, verify
    from converter.parameters import InMemoryParameters, ParameterStore

__version__ = "0.1.0"

_WHERE = {
    "converter.builder": ("GraphBuilder",),
    "converter.errors": ("ConverterError", "FormatError", "GraphError", "MissingDependencyError", "ParameterError", "RunError",
                         "UnsupportedError"),
    "converter.format": ("model_digest",),
    "converter.ir": ("DType", "DimRange", "Example", "Graph", "GraphInput", "GraphOutput", "Model", "Node", "TensorSpec"),
    "converter.loading": ("Session", "from_checkpoint", "from_torch", "load", "save", "session", "verify"),
    "converter.parameters": ("InMemoryParameters", "ParameterStore"),
}
_MODULES = {name: module for module, names in _WHERE.items() for name in names}

__all__ = sorted(_MODULES)


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_MODULES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_MODULES])
