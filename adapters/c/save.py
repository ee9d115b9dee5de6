"""Writing a model as C: the file, its header, and, where they are asked for apart, its weights."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

import converter
from adapters.c.blob import laid_out
from adapters.c.program import program_of
from adapters.c.report import Budget, lines, refuse_beyond
from adapters.c.selftest import written
from adapters.c.source import header, source
from converter.errors import ConverterError
from converter.format.atomic import STDOUT, atomic_path
from converter.format.digest import model_digest
from converter.ir import Model

UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def save_c(
    model: Model,
    path: str | Path,
    *,
    max: str | Mapping[str, int] | None = None,
    weights: str | Path | None = None,
    ram: str | int | None = None,
    flash: str | int | None = None,
    no_selftest: bool = False,
) -> tuple[Path, ...]:
    """Writes `model` as `path`, the header beside it, and gives the files.

    Args:
        max: the largest size of each free axis, `"time=64,batch=1"` or `{"time": 64, "batch": 1}`.
        weights: a file for the parameters, in place of arrays in the source: `NAME_weights` is told where it lies in memory.
        ram, flash: what the memory and the parameters may take, `"64K"` or a number of bytes; more is refused before anything is written.
        no_selftest: whether to leave out `NAME_selftest`.

    Raises:
        UnsupportedError: what C lacks, all of it; a free size without a maximum.
        ConverterError: an option that cannot be read, or more memory than there is.
    """
    path = Path(path)
    if str(path) == STDOUT:
        raise ConverterError("C source is two files, which do not fit into one stream", where="-", fix="name a file with -o")
    if weights is not None and Path(weights).resolve() in (path.resolve(), path.with_suffix(".h").resolve()):
        raise ConverterError("the weights would be written over the source", where=str(weights), fix="give them another name")
    budget = Budget(_bytes("ram", ram), _bytes("flash", flash))
    program = program_of(model, maxima(max))
    refuse_beyond(program, budget)
    program.strings = {"digest": model_digest(model), "version": f"model-converter {converter.__version__}"}
    program.selftest = None if no_selftest else written(model, program)
    block = None if weights is None else laid_out(program)
    table = lines(program)
    beside = path.with_suffix(".h")
    with ExitStack() as stack:
        text, top = (stack.enter_context(atomic_path(item)) for item in (path, beside))
        if block is not None and weights is not None:
            stack.enter_context(atomic_path(weights)).write_bytes(block.tobytes())
        with open(text, "w", encoding="ascii", newline="\n") as file:
            file.writelines(source(program, beside.name, table))
        top.write_text(header(program), encoding="ascii", newline="\n")
    return (path, beside, *([Path(weights)] if weights is not None else []))


def maxima(stated: str | Mapping[str, int] | None) -> dict[str, int]:
    """Sizes by name. Raises `ConverterError` for what is no list of them."""
    found: dict[str, int] = {}
    text = stated or "" if not isinstance(stated, Mapping) else ",".join(f"{name}={size}" for name, size in stated.items())
    for part in text.split(","):
        name, equals, size = (piece.strip() for piece in part.partition("="))
        if not part.strip():
            continue
        if not equals or not size.isdecimal() or name in found or len(size) > 12:
            raise ConverterError(
                "not a list of largest sizes",
                where="--max",
                expected="NAME=SIZE, each name once, with commas between",
                received=part.strip()[:80],
            )
        found[name] = int(size)
    return found


def _bytes(option: str, stated: str | int | None) -> int | None:
    if stated is None:
        return None
    text = str(stated)
    number, unit = (text[:-1], text[-1].upper()) if text[-1:].isalpha() else (text, "")
    if not number.isdecimal() or unit not in UNITS or len(number) > 12:
        raise ConverterError(
            "not a number of bytes", where=f"--{option}", expected="a number, and K, M or G after it: 64K", received=text[:80]
        )
    return int(number) * UNITS[unit]
