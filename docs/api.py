"""docs/api.md: the public functions and classes, from their signatures and docstrings."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterator
from dataclasses import MISSING, fields, is_dataclass
from enum import Enum
from types import ModuleType
from typing import Any

SECTIONS = re.compile(r"^(Args|Returns|Raises|Warns|Yields):\s*(.*)$")

WIDTH = 110

MODULES = ("converter", "converter.ports", "converter.discovery", "converter.resolved", "converter.ports.refusals", "converter.size_writer",
           "converter.ports.importing", "converter.conformance", "converter.opset", "converter.facts", "converter.formulas")
"""What users import, then what an adapter or an operator is written with."""


def public(module: ModuleType) -> list[str]:
    """The names that a module defines for others, in the order of `__all__` or of its text."""
    if hasattr(module, "__all__"):
        return list(module.__all__)
    return [name for name, value in vars(module).items() if not name.startswith("_")
            and (inspect.isclass(value) or inspect.isfunction(value)) and value.__module__ == module.__name__]


def signature(name: str, value: Any) -> str:
    """`name(…)` as it is written, a parameter a line where it is long. Defaults that are no numbers or texts are `…`."""
    if inspect.isclass(value) and issubclass(value, Enum):
        return f"{name}: {', '.join(value.__members__)}"
    if getattr(value, "_is_protocol", False):
        return name
    try:
        found = inspect.signature(value)
    except (TypeError, ValueError):
        return name
    parameters, keyword = list[str](), False
    for item in found.parameters.values():
        if item.name in ("self", "cls"):
            continue
        if item.kind is item.KEYWORD_ONLY and not keyword and not any(text.startswith("*") for text in parameters):
            parameters.append("*")
        keyword = keyword or item.kind is item.KEYWORD_ONLY
        text = str(item.replace(default=item.empty)).replace("'", "")
        if item.default is not item.empty:
            simple = item.default is None or isinstance(item.default, (bool, int, float, str, tuple)) and len(repr(item.default)) < 40
            text += f" = {item.default!r}" if simple else " = …"
        parameters.append(text)
    result = "" if found.return_annotation in (found.empty, "None") else f" -> {found.return_annotation}"
    line = f"{name}({', '.join(parameters)}){result}"
    return line if len(line) <= WIDTH else f"{name}(\n" + "".join(f"    {item},\n" for item in parameters) + f"){result}"


def body(text: str) -> Iterator[str]:
    """A docstring as Markdown: sections of arguments and errors are lists, examples code."""
    inside, code, prompt = False, False, False
    for line in inspect.cleandoc(text).split("\n"):
        section = SECTIONS.match(line)
        prompt = line.startswith(">>> ") or prompt and bool(line.strip())
        example = prompt or not inside and line.startswith("    ")
        if line.strip() and example != code:
            yield "```python" if example else "```"
            code = example
        if section:
            inside = True
            yield from ("", f"**{section[1]}**" + (f": {section[2]}" if section[2] else ""), "")
        elif inside and line.startswith("    "):
            yield f"- {line.strip()}" if line[4] != " " else f"  {line.strip()}"
        else:
            inside = inside and not line.strip()
            yield line.removeprefix("    ") if code else line
    if code:
        yield "```"


def members(value: Any) -> Iterator[tuple[str, Any]]:
    """A class's own public methods and properties that say what they do."""
    for name, item in vars(value).items():
        inner = item.fget if isinstance(item, property) else getattr(item, "__func__", item)
        if inspect.isfunction(inner) and inner.__doc__ and (not name.startswith("_") or name == "__call__"):
            yield name, item


def described(name: str, value: Any) -> Iterator[str]:
    """One function's, class's or constant's part of the page."""
    if not (inspect.isclass(value) or callable(value)):
        return
    yield from (f"### {name}", "", "```python", signature(name, value), "```", "")
    yield from (*body(value.__doc__ or ""), "")
    if not inspect.isclass(value):
        return
    if is_dataclass(value):
        given = [item for item in fields(value) if not item.name.startswith("_")]
        yield from ("| field | type | default |", "|---|---|---|")
        for item in given:
            default = "" if item.default is MISSING else f"`{item.default!r}`"
            kind = item.type if isinstance(item.type, str) else getattr(item.type, "__name__", str(item.type))
            yield f"| `{item.name}` | {kind.replace('|', chr(92) + '|')} | {default.replace('|', chr(92) + '|')} |"
        yield ""
    for inner, item in members(value):
        if isinstance(item, property):
            yield from (f"**`{inner}`**", "", *body(item.__doc__ or ""), "")
        else:
            function = getattr(item, "__func__", item)
            yield from ("```python", signature(inner, function), "```", "", *body(function.__doc__ or ""), "")


def api_page() -> str:
    """Every public name by module."""
    lines = ["# API", "", "Generated by `python -m docs.generate` from docstrings. The first part is what users import; the rest is what",
             "adapters and operators are written with.", ""]
    for place in MODULES:
        module = importlib.import_module(place)
        lines += [f"## {place}", "", *body(module.__doc__ or ""), ""]
        for name in public(module):
            lines += described(name, getattr(module, name))
    text = re.sub(r"\n+```\n(?=[^\n`])", "\n```\n\n", "\n".join(lines))
    return re.sub(r"\n{3,}", "\n\n", text).rstrip() + "\n"
