"""What a program takes: constants in flash, the arena in RAM, and multiplications, a line a layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from adapters.c.source import Program
from adapters.c.views import Buffer
from converter.errors import ConverterError

SHOWN = 12


@dataclass(frozen=True)
class Budget:
    """Bytes that there are; None: any number."""

    ram: int | None = None
    flash: int | None = None


@dataclass
class Layer:
    """The statements of one node of the graph that was converted."""

    name: str
    flash: int = 0
    live: int = 0
    products: int = 0


def layers(program: Program) -> list[Layer]:
    """The layers in order: those that read constants, multiply matrices, or hold memory of their own."""
    found: dict[str, Layer] = {}
    counted: set[int] = set()
    depth = [1]
    for place, item in enumerate(program.g.statements):
        name = item.label.partition(":")[0].partition("/")[0]
        layer = found.setdefault(name, Layer(name))
        for buffer in item.reads:
            if buffer.kind == "constant" and id(buffer) not in counted:
                counted.add(id(buffer))
                layer.flash += buffer.nbytes
        layer.live = max(layer.live, live(program, place))
        if item.kind == "close":
            depth.pop()
        layer.products += program.g.most(item.products) * depth[-1]
        if item.kind == "open":
            depth.append(depth[-1] * program.g.most(item.products or 1))
    return list(found.values())


def live(program: Program, place: int) -> int:
    """Bytes of the arena that are needed at a statement."""
    owners = {id(item.owner): item.owner for item in program.g.buffers if item.kind == "arena" and item.first >= 0}
    return sum(item.nbytes for item in owners.values() if item.first <= place <= item.last)


def flash_of(buffers: Sequence[Buffer]) -> int:
    """Bytes of constants."""
    return sum(buffer.nbytes for buffer in buffers)


def lines(program: Program) -> list[str]:
    """The table."""
    found = layers(program)
    width = max([len("layer"), *(min(len(item.name), 40) for item in found)])
    rows = [f"{'layer':{width}}  {'flash':>10}  {'RAM':>10}  {'multiply-adds':>13}"]
    rows += [
        f"{item.name[:40]:{width}}  {item.flash:>10}  {item.live:>10}  {item.products:>13}" for item in found if item.flash or item.products
    ]
    rows.append(
        f"{'whole':{width}}  {flash_of(program.constants):>10}  {program.plan.arena:>10}  {sum(item.products for item in found):>13}"
    )
    return [
        *rows,
        f"The arena has {program.plan.arena} bytes; at one time no more than {program.plan.live} are needed. Code comes on top of flash.",
    ]


def refuse_beyond(program: Program, budget: Budget) -> None:
    """Raises `ConverterError` for a program that takes more than there is, with the layers that need most."""
    found = layers(program)
    for what, limit, taken, shares in (
        ("RAM", budget.ram, program.plan.arena, {item.name: item.live for item in found}),
        ("flash", budget.flash, flash_of(program.constants), {item.name: item.flash for item in found}),
    ):
        if limit is not None and taken > limit:
            worst = sorted((item for item in shares.items() if item[1]), key=lambda item: -item[1])[:SHOWN]
            raise ConverterError(
                f"the model needs more {what} than there is",
                where=f"--{what.lower()}",
                expected=f"at most {limit} bytes",
                received=f"{taken} bytes; {', '.join(f'{name} {size}' for name, size in worst)}",
                fix="state smaller maxima (--max), or store the parameters in fewer bits (--dtype float16)",
            )


def read_table(path: str | Path) -> list[str]:
    """The table at the top of a file that was written."""
    found: list[str] = []
    with open(path, encoding="ascii") as file:
        for line in file:
            if line.startswith("/* layer") or found:
                if line.startswith("*/"):
                    break
                found.append(line[3:].rstrip())
    return found
