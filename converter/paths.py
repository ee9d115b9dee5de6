"""What a path is: whether something can be read there, of which format it is, and what it holds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from converter.discovery import Format, format_of, formats, holds_program
from converter.errors import ConverterError, FormatError
from converter.kinds import PROGRAM, kind_by_name, kind_of_file

LONGEST = 500
"""Characters of a path that are told."""


def require_readable(path: str | Path) -> Path:
    """`path`, of something that may be read.

    Raises `FormatError` when nothing is there, or what can have no end (a device, or a pipe for what is not JSON), an empty file, or
    one of which the first bytes say that it is of a kind that nothing here reads.
    """
    path = Path(path)
    try:
        there = path.exists()
    except OSError as error:  # a name that no file can have, or a folder that may not be entered
        raise FormatError("the file cannot be read", where=str(path)[:LONGEST], received=str(error.strerror)) from error
    if not there:
        near = sorted(item.name for item in path.parent.glob("*") if item.suffix == path.suffix)[:5] if path.parent.is_dir() else []
        raise FormatError("there is no such file", where=str(path), fix=f"beside it lies {', '.join(near)}" if near else None)
    if not path.is_file() and not path.is_dir():
        named = next((item for item in formats().values() if path.suffix.lower() in item.suffixes), None)
        if not path.is_fifo() or holds_program(path) or named is not None and not named.streams:
            raise FormatError("neither a file nor a folder", where=str(path), received="a pipe" if path.is_fifo() else "a device",
                              fix="write its content to a file first")
    if path.is_file():
        if not path.stat().st_size:  # those of /proc say so too, some of which wait for ever
            raise FormatError("the file is empty", where=str(path), fix="copy or download it again")
        _refuse_foreign(path)
    return path


def _refuse_foreign(path: Path) -> None:
    try:
        kind = kind_of_file(path)
    except OSError:
        return
    named, suffix = kind_by_name(path), path.suffix.lower()
    if kind is None:
        if named is not None:
            raise FormatError(named.title, where=str(path), fix=named.fix)
    elif kind.format is None and kind is not PROGRAM:
        under = f", under the name of {named.title}" if named is not None and named is not kind else ""
        raise FormatError(f"{kind.title}{under}", where=str(path), fix=kind.fix)
    elif kind.format == "json" and any(suffix in item.suffixes for item in formats().values() if item.name != "json"):
        raise FormatError(f"{kind.title}, under the name of another kind of file", where=str(path), fix=kind.fix)


def refuse_json(path: Path, error: Exception, what: str = "not JSON") -> FormatError:
    """The error for a file that should hold JSON, and what its first bytes say that it is."""
    kind = kind_of_file(path)
    if kind is None or kind.format is not None:
        return FormatError(what, where=str(path), received=str(error)[:200])
    return FormatError(what, where=str(path), received=kind.title, fix=kind.fix)


def misnamed(path: Path, form: Format) -> FormatError | None:
    """The error for a file that could not be read as `form`, where its first bytes say that it is of another format."""
    kind = kind_of_file(path)
    if kind is None or kind.format in (None, form.name, form.variant_of):
        return None
    return FormatError(f"{kind.title}, under the name of another kind of file", where=str(path), expected=form.title,
                       fix=f"use {kind.format}-to-…, or name it after its format")


def format_of_file(path: Path) -> Format:
    """The format of a file: of parameters, by its first bytes where these say it, else by its suffix.

    Raises `ConverterError` where neither says one that can be read.
    """
    kind = kind_of_file(path) if path.is_file() else None
    found = formats().get(kind.format) if kind is not None and kind.format is not None else None
    if found is not None and found.holds == "parameters" and found.load is not None:
        return found
    return format_of(path, to="load")


@dataclass(frozen=True, slots=True)
class Opened:
    """What lies at a path: a file of a `format`, which holds a model or parameters; without one a folder of parameters, or a program."""

    path: Path
    holds: Literal["model", "parameters", "program"]
    format: Format | None = None


def open_path(path: str | Path) -> Opened:
    """What a path is. Raises as `require_readable` and `format_of_file` do."""
    path = require_readable(path)
    if path.is_dir():
        return Opened(path, "parameters")
    if holds_program(path):
        return Opened(path, "program")
    found = format_of_file(path)
    return Opened(path, found.holds, found)


def model_format(path: str | Path) -> Format:
    """The format of a model's file. Raises `FormatError` for what holds no model."""
    found = open_path(path)
    if found.holds == "parameters":
        raise refuse_model(path)
    return found.format or format_of(path, to="load")


def refuse_model(path: str | Path, received: str | None = None) -> ConverterError:
    """The error for a checkpoint where a whole model is needed."""
    path = Path(path)
    beside = path.is_file() and (path.parent / "config.json").is_file()
    return FormatError("a checkpoint holds parameters and no computation", where=str(path), expected="a graph for them", received=received,
                       fix=("give the folder, whose config.json may say what the model is; or " if beside else "")
                       + "give the graph (architecture=, --architecture graph.json) or the code that builds the module "
                         "(from_torch, --module PKG.MOD:CALLABLE)")
