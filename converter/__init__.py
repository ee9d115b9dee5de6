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

TYPE_CHECKING = False
# `typing` takes longer to import than all else before the command line can be interrupted quietly.
if TYPE_CHECKING:
    from typing import Any

    from converter.builder import GraphBuilder as GraphBuilder
    from converter.equivalence.verify import verify as verify
    from converter.errors import ConversionWarning as ConversionWarning
    from converter.errors import ConverterError as ConverterError
    from converter.errors import DigestError as DigestError
    from converter.errors import FormatError as FormatError
    from converter.errors import GraphError as GraphError
    from converter.errors import MissingDependencyError as MissingDependencyError
    from converter.errors import ParameterError as ParameterError
    from converter.errors import RunError as RunError
    from converter.errors import UnsafePickleError as UnsafePickleError
    from converter.errors import UnsupportedError as UnsupportedError
    from converter.format import model_digest as model_digest
    from converter.ir import DimRange as DimRange
    from converter.ir import DType as DType
    from converter.ir import Example as Example
    from converter.ir import Graph as Graph
    from converter.ir import GraphInput as GraphInput
    from converter.ir import GraphOutput as GraphOutput
    from converter.ir import Model as Model
    from converter.ir import Node as Node
    from converter.ir import TensorSpec as TensorSpec
    from converter.loading import from_checkpoint as from_checkpoint
    from converter.loading import from_torch as from_torch
    from converter.loading import load as load
    from converter.loading import save as save
    from converter.loading import session as session
    from converter.loading import to_torch as to_torch
    from converter.parameters import InMemoryParameters as InMemoryParameters
    from converter.parameters import ParameterStore as ParameterStore
    from converter.ports import Session as Session

__version__ = "0.1.0"

_WHERE = {
    "converter.builder": ("GraphBuilder",),
    "converter.equivalence": ("verify",),
    "converter.errors": ("ConversionWarning", "ConverterError", "DigestError", "FormatError", "GraphError", "MissingDependencyError",
                         "ParameterError", "RunError", "UnsafePickleError", "UnsupportedError"),
    "converter.format": ("model_digest",),
    "converter.ir": ("DType", "DimRange", "Example", "Graph", "GraphInput", "GraphOutput", "Model", "Node", "TensorSpec"),
    "converter.loading": ("from_checkpoint", "from_torch", "load", "save", "session", "to_torch"),
    "converter.parameters": ("InMemoryParameters", "ParameterStore"),
    "converter.ports": ("Session",),
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
