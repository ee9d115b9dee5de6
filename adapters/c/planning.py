"""Where each buffer lies in the arena: two share bytes only if never both are needed.

A buffer is needed from the statement that first writes it to the last that touches it; what a block reads from outside, or keeps from one
time to the next, is needed until the block ends. Large ones are placed first, each at the lowest place that is free all that time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from adapters.c.types import ctype
from adapters.c.views import Buffer
from adapters.c.writer import Statement, Writer

ALIGNED = 16
WIDE = 64


@dataclass(frozen=True)
class Plan:
    """The arena's bytes, and the most bytes that are needed at one time."""

    arena: int
    live: int


def plan(g: Writer) -> Plan:
    """Gives every buffer of the arena its place."""
    lifetimes(g.statements)
    for buffer in g.buffers:
        buffer.nbytes = g.most(buffer.size) * buffer.dtype.itemsize
    _take_over(g.statements)
    owners = [item for item in g.buffers if item.kind == "arena" and item.first >= 0 and item.shares is None]
    align = WIDE if any(item.nbytes >= 1 << 14 for item in owners) else ALIGNED
    sizes = {
        id(item): -(-max(item.nbytes, 1) // align) * align if item.nbytes >= align else -(-max(item.nbytes, 1) // 8) * 8 for item in owners
    }
    best: dict[int, int] | None = None
    least = 0
    for order in (
        sorted(owners, key=lambda item: -sizes[id(item)]),
        sorted(owners, key=lambda item: (item.first, -sizes[id(item)])),
        sorted(owners, key=lambda item: -sizes[id(item)] * (item.last - item.first + 1)),
    ):
        places, whole = _placed(order, sizes)
        if best is None or whole < least:
            best, least = places, whole
    for item in owners:
        item.offset = (best or {})[id(item)]
    for item in g.buffers:
        if item.shares is not None:
            item.offset = item.owner.offset
    return Plan(least, _live(owners, sizes, len(g.statements)))


def lifetimes(statements: Sequence[Statement]) -> None:
    """Says of each buffer when it is first and last needed."""
    blocks: list[tuple[int, list[Buffer]]] = []
    for place, statement in enumerate(statements):
        for buffer in (*statement.reads, *statement.writes):
            buffer.first = place if buffer.first < 0 else buffer.first
            buffer.last = max(buffer.last, place)
            for _, touched in blocks:
                touched.append(buffer)
        if statement.kind == "open":
            blocks.append((place, [*statement.reads, *statement.writes]))
        elif statement.kind == "close":
            start, touched = blocks.pop()
            for buffer in touched:
                if buffer.first <= start:
                    buffer.last = max(buffer.last, place)


def _take_over(statements: Sequence[Statement]) -> None:
    """Lets a result take the memory of an operand that is read for the last time, where elements lie alike."""
    for place, statement in enumerate(statements):
        if not statement.aligned:
            continue
        target = statement.writes[0]
        for source in statement.aligned:
            owner = source.owner
            if (
                target.kind == owner.kind == "arena"
                and target.first == place
                and owner.last == place
                and target.shares is None
                and ctype(target.dtype).stored == ctype(owner.dtype).stored
                and target.nbytes <= owner.nbytes
                and target is not owner
            ):
                target.shares = owner
                owner.last = max(owner.last, target.last)
                break


def _placed(order: Sequence[Buffer], sizes: dict[int, int]) -> tuple[dict[int, int], int]:
    places: dict[int, int] = {}
    done: list[tuple[int, int, int, int]] = []
    whole = 0
    for item in order:
        size, at = sizes[id(item)], 0
        for start, end in sorted((start, end) for start, end, first, last in done if first <= item.last and item.first <= last):
            if start - at >= size:
                break
            at = max(at, end)
        places[id(item)] = at
        done.append((at, at + size, item.first, item.last))
        whole = max(whole, at + size)
    return places, whole


def _live(owners: Sequence[Buffer], sizes: dict[int, int], count: int) -> int:
    changes = [0] * (count + 2)
    for item in owners:
        changes[item.first] += sizes[id(item)]
        changes[item.last + 1] -= sizes[id(item)]
    total = most = 0
    for change in changes:
        total += change
        most = max(most, total)
    return most
