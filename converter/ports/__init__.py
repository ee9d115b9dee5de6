"""What an adapter implements, as types, and what it need not write itself.

A runtime or a target resolves nodes (`converter.resolved`), walks size expressions (`sizes`) and collects refusals (`refusals`); a
reader of another's graph emits nodes (`importing`). `conformance` is the suite that a plug-in runs on itself.
"""

from __future__ import annotations

from converter.ports.protocols import (
    Builder,
    Concern,
    Incoming,
    Loader,
    ProgramReader,
    Rebuilder,
    Recognises,
    Saver,
    Session,
    SessionFactory,
    Tracer,
)

__all__ = ["Builder", "Concern", "Incoming", "Loader", "ProgramReader", "Rebuilder", "Recognises", "Saver", "Session", "SessionFactory",
           "Tracer"]
