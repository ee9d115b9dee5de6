"""Functions of C that the code of a model calls, in files beside this one: those that it calls are written before it.

A function begins with `/*@ name: others that it calls */`. One whose name ends in `_S` is there for many dtypes: `S` is a dtype's suffix,
`T` its type, `A` the type in which its sums are taken; of 16-bit floats, `READ` and `STORE` widen and round.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from adapters.c.types import all_types, sum_type

_HEAD = re.compile(r"^/\*@ (\w+):([\w ]*)\*/\n", re.MULTILINE)


@cache
def functions() -> dict[str, tuple[tuple[str, ...], str]]:
    """(what it calls, its text) by name, in the order of the files."""
    found = {}
    for path in sorted(Path(__file__).parent.glob("*.c")):
        parts = _HEAD.split(path.read_text(encoding="utf-8"))[1:]
        for name, needs, text in zip(parts[::3], parts[1::3], parts[2::3], strict=True):
            found[name] = (tuple(needs.split()), text.strip() + "\n")
    return found


def function(name: str) -> tuple[tuple[str, ...], str]:
    """What a function calls, and its text. A dtype's suffix at the end stands for `S`."""
    known = functions()
    if name in known:
        return known[name]
    stem, _, suffix = name.rpartition("_")
    needs, text = known[f"{stem}_S"]
    dtype, form = next((dtype, form) for dtype, form in all_types().items() if form.suffix == suffix)
    text = text.replace("READ(", f"read_{suffix}(" if form.narrow else "(").replace("STORE(", f"store_{suffix}(" if form.narrow else "(")
    text = re.sub(r"\bA\b", sum_type(dtype), text)
    text = re.sub(r"\bV\b", form.scalar, text)
    text = re.sub(r"_S\b", f"_{suffix}", re.sub(r"\bT\b", form.stored, text))
    more = tuple(item for item in (f"read_{suffix}", f"store_{suffix}") if form.narrow and f"{item}(" in text)
    return (*(item.replace("_S", f"_{suffix}") if item.endswith("_S") else item for item in needs), *more), text


def written(names: Iterable[str]) -> list[str]:
    """The texts of functions and of what they call, each after what it calls."""
    texts: dict[str, str] = {}

    def add(name: str) -> None:
        if name not in texts:
            needs, text = function(name)
            for item in needs:
                add(item)
            texts[name] = text

    for name in sorted(names):
        add(name)
    return list(texts.values())
