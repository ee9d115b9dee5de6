"""Digests: SHA-256 over the canonical graph and every parameter's bytes. They say which model a file holds.

`docs/format.md` gives the algorithm step by step.
"""

from __future__ import annotations

import hashlib
from typing import Any

from converter.errors import DigestError
from converter.format.canonical import canonical_json
from converter.format.document import graph_to_document, parameter_to_document
from converter.format.limits import FORMAT
from converter.ir import Graph, Model, TensorSpec


def graph_digest(graph: Graph) -> str:
    """`"sha256:<hex>"` of the canonical graph document: without code lines, default attributes left out."""
    return _sha256({"format": FORMAT, "graph": graph_to_document(graph, source=False)})


class ModelDigest:
    """The digest of a model, given its parameters one at a time, in any order."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph_to_document(graph, source=False)
        self.parameters: dict[str, Any] = {}

    def add(self, name: str, spec: TensorSpec, sha256: str | None = None, alias: str | None = None) -> None:
        """One parameter: the hexadecimal SHA-256 of its little-endian bytes in C order, or the name that it shares."""
        entry = parameter_to_document(spec, alias)
        self.parameters[name] = entry if sha256 is None else {**entry, "sha256": sha256}

    def value(self) -> str:
        """`"sha256:<hex>"`."""
        return _sha256({"format": FORMAT, "graph": self.graph, "parameters": self.parameters})


def model_digest(model: Model) -> str:
    """`"sha256:<hex>"` of a model: its graph and parameters, whatever file they came from.

    Examples, metadata, code lines and the order of the parameters do not count. Parameters are read one at a time.
    """
    digest = ModelDigest(model.graph)
    store = model.parameters
    for name in store.names():
        alias = store.alias_of(name)
        digest.add(name, store.spec(name), store.sha256(name) if alias is None else None, alias)
    return digest.value()


def _sha256(document: Any) -> str:
    return "sha256:" + hashlib.sha256(canonical_json(document)).hexdigest()


def check_digest(kind: str, declared: str, found: str) -> None:
    """Raises `DigestError` when a digest in a file is not that of what the file holds."""
    if declared != found:
        raise DigestError(f"the {kind} is not the one that its digest names", expected=declared, received=found,
                          fix='get the file again; if the change is meant, remove the field "digest", or do not compare '
                              "(--no-check, load(path, check=False))")
