"""The neutral format: one document, as JSON text or in HDF5. `docs/format.md` is its contract."""

from __future__ import annotations

from typing import Any

from converter.format.atomic import atomic_path
from converter.format.binding import bind_parameters
from converter.format.digest import graph_digest, model_digest
from converter.format.json_encoding import Architecture, load_architecture, load_graph, load_json, save_graph, save_json

_LAZY = ("load_hdf5", "save_hdf5")
"""Names whose module imports h5py."""

__all__ = [
    "Architecture", "atomic_path", "bind_parameters", "graph_digest", "load_architecture", "load_graph", "load_hdf5", "load_json",
    "model_digest", "save_graph", "save_hdf5", "save_json",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        from converter.format import hdf5_encoding

        return getattr(hdf5_encoding, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
