"""How many bytes there are to work with, and texts that say so."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator
from pathlib import Path

from converter.errors import ConverterError

VARIABLE = "CONVERTER_MEMORY"
"""Of the environment: the bytes that a run's values may take, in place of what the machine has left."""


def memory_limit() -> int:
    """The bytes that a run may take: those that `CONVERTER_MEMORY` names ("8GB"), else what the machine has left.

    Raises `ConverterError` for a variable that holds no size.
    """
    return stated_limit() or min(_left(), default=1 << 62)


def stated_limit() -> int | None:
    """Those that the variable names; None where it is not set."""
    stated = os.environ.get(VARIABLE)
    return parse_bytes(stated, VARIABLE) if stated else None


def parse_bytes(text: str, where: str) -> int:
    """`500MB` in bytes: powers of 1000, or of 1024 for `500MiB`. Raises `ConverterError` for what is no size."""
    found = re.fullmatch(r"\s*(\d{1,18}(?:\.\d{1,18})?)\s*([kKMGT]?)(i?)[bB]?\s*", text)
    if found is None or not float(found[1]):
        raise ConverterError("no size", where=where, expected="500MB or 8GB", received=repr(text))
    return int(float(found[1]) * (1024 if found[3] else 1000) ** " KMGT".index(found[2].upper() or " "))


def shown_bytes(nbytes: float) -> str:
    """`1.2 MB`: three digits, powers of 1000; beyond what a float holds, the power of ten."""
    if nbytes >= 1e30:
        return f"10^{math.floor(math.log10(nbytes))} bytes"
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if nbytes < 999.5 or unit == "TB":
            return f"{nbytes:.0f} {unit}" if unit == "B" or 999.5 > nbytes >= 99.5 else f"{nbytes:.3g} {unit}"
        nbytes /= 1000
    raise AssertionError


def _left() -> Iterator[int]:
    """What each of the machine, the group of processes that this one belongs to, and its own limits still give, where they tell."""
    try:
        fields = dict(line.split(":") for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines())
        yield sum(int(fields[name].split()[0]) * 1024 for name in ("MemAvailable", "SwapFree"))
    except (OSError, ValueError, KeyError, IndexError):
        try:
            yield os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        except (AttributeError, ValueError, OSError):
            return
    try:
        whole, resident = (int(pages) * os.sysconf("SC_PAGE_SIZE") for pages in Path("/proc/self/statm").read_text().split()[:2])
    except (OSError, ValueError):
        whole = resident = 0
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            yield max(0, int(Path(path).read_text(encoding="ascii")) - resident)
        except (OSError, ValueError):  # "max"
            continue
    try:
        import resource
    except ImportError:
        return
    for kind, used in ((resource.RLIMIT_AS, whole), (resource.RLIMIT_DATA, resident)):
        limit = resource.getrlimit(kind)[0]
        if limit != resource.RLIM_INFINITY:
            yield max(0, limit - used)
