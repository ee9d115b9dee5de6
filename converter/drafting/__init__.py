"""Graphs to fill in, for checkpoints of plain layers: what a state_dict's names and shapes say, and what they leave open.

A state_dict of `nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))` says that there are two linear layers and that
something stood between them, and not what. A draft is a small JSON file with all that is known and a "?" for every choice
that is open, with what may stand there; filled in, it is the graph. docs/drafts.md describes the file.
"""

from __future__ import annotations

from pathlib import Path

from converter.drafting.document import Draft, is_draft, load_draft, save_draft
from converter.drafting.known import draft, undraftable
from converter.format import Architecture, load_architecture

__all__ = ["Draft", "draft", "graph_of_file", "is_draft", "load_draft", "save_draft", "undraftable"]


def graph_of_file(path: str | Path) -> Architecture:
    """The graph of a file: a neutral model as JSON, with or without values, or a draft that is filled in.

    Raises what `load_draft` and `converter.format.load_architecture` do.
    """
    return load_draft(path) if is_draft(path) else load_architecture(path)
