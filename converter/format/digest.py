"""Digests: SHA-256 over canonical documents. Two say which model a file holds, the third covers all that the file says.

`docs/format.md` gives the algorithm step by step.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import numpy as np

from converter.errors import DigestError
from converter.format.canonical import canonical_json
from converter.format.document import graph_to_document, parameter_to_document, spec_to_document
from converter.format.limits import FORMAT
from converter.format.literals import number_to_document
from converter.format.samples import recorded_members
from converter.ir import DType, Example, Graph, Model, TensorSpec
from converter.parameters import as_bytes
from converter.recorded import Sample


def graph_digest(graph: Graph) -> str:
    """`"sha256:<hex>"` of the canonical graph document: without code lines, default attributes left out."""
    return _sha256({"format": FORMAT, "graph": graph_to_document(graph, source=False)})


class ModelDigest:
    """The digests of a model, given its parameters one at a time, in any order."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self.graph = graph_to_document(graph, source=False)
        self.parameters: dict[str, Any] = {}

    def add(self, name: str, spec: TensorSpec, sha256: str | None = None, alias: str | None = None) -> None:
        """One parameter: the hexadecimal SHA-256 of its little-endian bytes in C order, or the name that it shares."""
        entry = parameter_to_document(spec, alias)
        self.parameters[name] = entry if sha256 is None else {**entry, "sha256": sha256}

    def value(self) -> str:
        """`"sha256:<hex>"`."""
        return _sha256({"format": FORMAT, "graph": self.graph, "parameters": self.parameters})

    def document(self, constants: Collection[str], examples: Iterable[Example], metadata: Mapping[str, Any]) -> str:
        """`"sha256:<hex>"` of all that a document says: lines of code, constants, examples and metadata too."""
        table = {name: {**entry, **({"constant": True} if name in constants else {})} for name, entry in self.parameters.items()}
        return _sha256({"format": FORMAT, "graph": graph_to_document(self._graph), "parameters": table,
                        "examples": [_example_to_digest(example) for example in examples], "metadata": _exact(metadata)})

    def members(self, constants: Collection[str], examples: Iterable[Example], metadata: Mapping[str, Any]) -> dict[str, str]:
        """The member `digest` of a document of a whole model."""
        return {"graph": _sha256({"format": FORMAT, "graph": self.graph}), "model": self.value(),
                "document": self.document(constants, examples, metadata)}


def _example_to_digest(example: Example) -> dict[str, Any]:
    inputs = {name: array for name, array in example.inputs.items() if name not in example.draws}
    recorded = {key: _exact(described) for key, described in recorded_members(example).items() if described}
    return {"inputs": _tensors(inputs), "outputs": _tensors(example.outputs), **recorded, "made_by": str(example.made_by)}


def _tensors(tensors: Mapping[str, Any]) -> dict[str, Any]:
    found = {}
    for name, array in tensors.items():
        array = np.asarray(array.values if isinstance(array, Sample) else array)
        dtype = DType.of(array.dtype)
        values = np.asarray(array, dtype.numpy)
        found[name] = {**spec_to_document(TensorSpec(dtype, array.shape)), "sha256": hashlib.sha256(as_bytes(values)).hexdigest()}
    return found


def _exact(value: Any) -> Any:
    """A JSON value with each number as graphs have it, so that no digit is lost to the canonical text."""
    if isinstance(value, Mapping):
        return {key: _exact(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_exact(item) for item in value]
    return number_to_document(value) if isinstance(value, (int, float)) else value


def hash_model(model: Model) -> ModelDigest:
    """The digests of a model, whose parameters are read one at a time."""
    digest = ModelDigest(model.graph)
    store = model.parameters
    for name in store.names():
        alias = store.alias_of(name)
        digest.add(name, store.spec(name), store.sha256(name) if alias is None else None, alias)
    return digest


def model_digest(model: Model) -> str:
    """`"sha256:<hex>"` of a model: its graph and parameters, whatever file they came from.

    Examples, metadata, code lines and the order of the parameters do not count. Parameters are read one at a time.
    """
    return hash_model(model).value()


def _sha256(document: Any) -> str:
    return "sha256:" + hashlib.sha256(canonical_json(document)).hexdigest()


def check_digest(kind: str, declared: str, found: str) -> None:
    """Raises `DigestError` when a digest in a file is not that of what the file holds."""
    if declared != found:
        raise DigestError(f"the {kind} is not the one that its digest names", expected=declared, received=found,
                          fix='get the file again; if the change is meant, remove the field "digest", or do not compare '
                              "(--no-check, load(path, check=False))")
