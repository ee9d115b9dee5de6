"""The text of the file and of its header."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from adapters.c import kernels
from adapters.c.names import comment, quoted
from adapters.c.planning import Plan
from adapters.c.types import ctype, stored_numbers
from adapters.c.views import Buffer
from adapters.c.writer import BAD_DATA, BAD_SIZE, ENDLESS, Statement, Writer
from converter.ir import Array

SELFTEST = "Runs the model on inputs that it draws: 0 where it gives what it should, k where result k, from 1, strays, -k for error k."
ROW = 12
"""Numbers in a line."""
PART = 60
"""Statements in one function: compilers take long over functions that are larger."""
ALIAS = {
    name: f"any_{name.removesuffix('_t')}"
    for name in ("float", "double", *(f"{u}int{bits}_t" for u in ("", "u") for bits in (8, 16, 32, 64)))
}
"""Types of elements of the arena, whose bytes are floats at one time and integers at another: compilers have to know."""
_WORD = re.compile(r"[A-Za-z_]\w*")


@dataclass
class Port:
    """An argument of the model's function, which points to elements or is a size."""

    name: str
    text: str
    """Its declaration."""
    title: str


@dataclass
class Program:
    """All that the text is made of."""

    name: str
    title: str
    g: Writer
    plan: Plan
    ports: list[Port]
    checks: list[str]
    results: list[str]
    """What is done at the end: sizes that the data decided are told."""
    sizes: list[str]
    """The free sizes that are arguments, in their order."""
    limits: dict[str, int]
    """The largest of each free size."""
    facts: dict[str, str] = field(default_factory=dict)
    blob: dict[int, int] | None = None
    """Where in the file of weights each constant lies, by identity, where there is one."""
    maxima: list[tuple[str, int]] = field(default_factory=list)
    selftest: str | None = None
    strings: dict[str, str] = field(default_factory=dict)
    """What the compiled model says of itself."""

    @property
    def constants(self) -> list[Buffer]:
        """The arrays that the code reads."""
        used = {word for item in self.g.statements for word in _WORD.findall(item.text)}
        return [buffer for buffer in self.g.buffers if buffer.kind == "constant" and buffer.name in used]


def header(program: Program) -> str:
    """The header."""
    upper = program.name.upper()
    lines = [
        f"/* {comment(program.title)} */",
        f"#ifndef {upper}_H",
        f"#define {upper}_H",
        "",
        "#include <stddef.h>",
        "#include <stdint.h>",
        "",
        "#ifdef __cplusplus",
        'extern "C" {',
        "#endif",
        "",
    ]
    lines += [f"#define {upper}_{code} {value}" for code, value in (("BAD_SIZE", BAD_SIZE), ("BAD_DATA", BAD_DATA), ("ENDLESS", ENDLESS))]
    lines += [f"#define {upper}_ARENA_BYTES {program.plan.arena}"]
    lines += [f"#define {name} {value}" for name, value in program.maxima]
    lines += ["", *_signature_comment(program), f"{_signature(program)};"]
    if program.blob is not None:
        lines += [
            "",
            "/* Where the file of weights lies in memory, aligned to 16 bytes; it is read there. To be called first. */",
            f"void {program.name}_weights(const void *file);",
        ]
    if program.selftest is not None:
        lines += ["", f"/* {comment(SELFTEST)} */", f"int {program.name}_selftest(void);"]
    lines += ["", *(f"extern const char {program.name}_{key}[];" for key in program.strings)]
    lines += ["", "#ifdef __cplusplus", "}", "#endif", "", "#endif", ""]
    return "\n".join(lines)


def _signature_comment(program: Program) -> list[str]:
    upper = program.name.upper()
    lines = [f"/* {comment(port.title)} */" for port in program.ports]
    return [
        *lines,
        f"/* Gives 0, {upper}_BAD_SIZE, {upper}_BAD_DATA or {upper}_ENDLESS. Not for two threads at a time: the memory is static. */",
    ]


def _signature(program: Program) -> str:
    return f"int {program.name}({', '.join(port.text for port in program.ports) or 'void'})"


def source(program: Program, header_name: str, table: Sequence[str] = ()) -> Iterable[str]:
    """The pieces of the file. `table`: what it takes, for the comment at its top."""
    g = program.g
    yield f"/* {comment(program.title)} */\n"
    for key, value in program.facts.items():
        yield f"/* {comment(key)}: {comment(value)} */\n"
    if table:
        yield "".join(f"{'/*' if not place else '  '} {comment(line)}\n" for place, line in enumerate(table)) + "*/\n"
    yield f'#include "{comment(header_name).replace(chr(34), "?")}"\n\n#include <math.h>\n#include <string.h>\n\n'
    for text in kernels.written(g.helpers):
        yield f"{text}\n"
    if program.plan.arena:
        yield _arena(program.plan.arena, {ctype(item.dtype).stored for item in g.buffers if item.kind == "arena"})
    for name in g.bound:
        yield f"static ptrdiff_t {name};\n"
    if program.blob is None:
        for buffer in program.constants:
            yield from _array(buffer)
    else:
        yield f"\nstatic const unsigned char *weights;\n\nvoid {program.name}_weights(const void *file) {{ weights = file; }}\n"
    groups = _grouped(g.statements)
    pointers = {item.name: item for item in (*g.buffers,) if item.kind == "arena" or item.kind == "constant" and program.blob is not None}
    arguments = {port.name: port.text for port in program.ports}
    body = []
    for number, group in enumerate(groups):
        text = _code(group)
        words = {word for item in group for word in _WORD.findall(item.text)}
        declared = [_pointer(item, program) for name, item in pointers.items() if name in words]
        if len(groups) == 1:
            body += [*declared, *text.split("\n")]
            continue
        given = [name for name in arguments if name in words]
        yield (
            f"\nstatic int part_{number + 1}({', '.join(arguments[name] for name in given) or 'void'}) {{\n"
            + "".join(f"  {line}\n" if line else "\n" for line in (*declared, *text.split("\n")))
            + "  return 0;\n}\n"
        )
        body.append(f"if ((error = part_{number + 1}({', '.join(given)})) != 0) {{ return error; }}")
    for key, value in program.strings.items():
        yield f"\nconst char {program.name}_{key}[] = {quoted(value)};\n"
    yield f"\n{_signature(program)} {{\n"
    for line in (*(["int error;"] if len(groups) > 1 else []), *program.checks, *body, *program.results, "return 0;"):
        yield f"  {line}\n" if line else "\n"
    yield "}\n"
    if program.selftest is not None:
        yield f"\n{program.selftest}"


def _grouped(statements: Sequence[Statement]) -> list[list[Statement]]:
    """Statements in groups of no more than `PART`, as far as blocks are whole."""
    groups: list[list[Statement]] = [[]]
    depth = 0
    for statement in statements:
        if depth == 0 and len(groups[-1]) >= PART:
            groups.append([])
        groups[-1].append(statement)
        depth += (statement.kind == "open") - (statement.kind == "close")
    return groups


def _code(group: Sequence[Statement]) -> str:
    lines: list[str] = []
    depth, label = 0, ""
    for statement in group:
        depth -= statement.kind == "close"
        pad = "  " * depth
        if statement.label != label and statement.kind != "close":
            label = statement.label
            lines += ["", f"{pad}/* {comment(label)} */"]
        lines += [f"{pad}{line}" for line in statement.text.split("\n")]
        depth += statement.kind == "open"
    return "\n".join(lines)


def _pointer(item: Buffer, program: Program) -> str:
    stored = ctype(item.dtype).stored
    if item.kind == "constant":
        return f"const {stored} *const {item.name} = (const {stored} *)(const void *)(weights + {(program.blob or {})[id(item)]});"
    return f"{ALIAS[stored]} *const {item.name} = ({ALIAS[stored]} *)(void *)(arena.bytes + {item.offset});"


def _arena(size: int, types: Iterable[str]) -> str:
    kinds = "".join(f"typedef {name} MAY_ALIAS {ALIAS[name]};\n" for name in sorted(types))
    return (
        "\n#ifdef __GNUC__\n#define MAY_ALIAS __attribute__((may_alias))\n#define ALIGNED __attribute__((aligned(64)))\n#else\n"
        f"#define MAY_ALIAS\n#define ALIGNED\n#endif\n{kinds}ALIGNED "
        f"static union {{ double alignment; int64_t whole; unsigned char bytes[{size}]; }} arena;\n"
    )


def _array(buffer: Buffer) -> Iterable[str]:
    assert buffer.array is not None
    flat: Array = np.asarray(buffer.array).reshape(-1)
    yield f"\nstatic const {ctype(buffer.dtype).stored} {buffer.name}[{max(flat.size, 1)}] = {{"
    for start in range(0, flat.size, ROW):
        yield "\n  " + ", ".join(stored_numbers(flat[start : start + ROW], buffer.dtype)) + ","
    yield "0" * (not flat.size) + "\n};\n"
