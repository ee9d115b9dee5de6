"""A graph as lines of text."""

from __future__ import annotations

from pathlib import Path

from converter.format.atomic import atomic_path, written_files
from converter.ir import Model


def save_listing(model: Model, path: str | Path) -> tuple[Path, ...]:
    """Writes a line a node: its outputs, its operator, its operands."""
    lines = [f"{', '.join(name or '_' for name in node.outputs)} = {node.op}({', '.join(map(str, node.inputs))})"
             for node in model.graph.nodes]
    with atomic_path(path) as temporary:
        temporary.write_text("\n".join([model.graph.name, *lines]) + "\n", encoding="utf-8")
    return written_files(path)
