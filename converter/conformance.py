"""What an adapter can try itself on: its functions against the ports, a runtime or a format against the conformance files.

    assert misfits(ADAPTER) == []
    assert {outcome(path, "example") for path in folder.glob("*.json")} <= {"equivalent", "refused"}
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

import converter.ports as ports
from converter.discovery import Adapter, Option, resolve
from converter.equivalence import verify
from converter.errors import UnsupportedError
from converter.loading import load, session


def misfits(adapter: Adapter) -> list[str]:
    """The declared functions that do not take what they are called with, each with the reason.

    Raises `MissingDependencyError` where a library of the adapter is not installed.
    """
    found = []
    for role, target, extra, port, keywords in _declared(adapter):
        wanted = list(inspect.signature(port.__call__).parameters.values())[1:]
        positional = [item.name for item in wanted if item.kind is item.POSITIONAL_OR_KEYWORD]
        named = [*(item.name for item in wanted if item.kind is item.KEYWORD_ONLY), *keywords]
        try:
            inspect.signature(resolve(target, extra)).bind(*positional, **dict.fromkeys(named))
        except TypeError as error:
            found.append(f"{role}: {target} is called with {', '.join((*positional, *(f'{name}=' for name in named)))}: {error}")
    return found


def _declared(adapter: Adapter) -> Iterator[tuple[str, str, str | None, Any, list[str]]]:
    def names(options: Iterable[Option]) -> list[str]:
        return [option.name for option in options]

    for item in adapter.formats:
        more = ["verify"] * item.digests + ["key"] * item.entries
        yield from ((f"format {item.name}, {role}", target, item.extra, port, options) for role, target, port, options in (
            ("load", item.load, ports.Loader, more), ("save", item.save, ports.Saver, names(item.options))) if target is not None)
    for runtime in adapter.runtimes:
        yield f"runtime {runtime.name}", runtime.session, runtime.extra, ports.SessionFactory, names(runtime.options)
    for one in adapter.recognisers:
        yield f"recogniser {one.name}", one.recognise, one.extra, ports.Recognises, names(one.options)
    for role, port in (("tracer", ports.Tracer), ("builder", ports.Builder), ("rebuilder", ports.Rebuilder),
                       ("program", ports.ProgramReader)):
        target = getattr(adapter, role)
        if target is not None:
            yield role, target, adapter.extra, port, []


def outcome(path: str | Path, runtime: str) -> Literal["equivalent", "different", "refused"]:
    """What a runtime does with a model's file, in whatever format: computes it, computes something else, or refuses it."""
    model = load(path)
    try:
        ready = session(model, runtime)
    except UnsupportedError:
        return "refused"
    return "equivalent" if verify(model, {runtime: ready}) else "different"
