"""What a session's plan is, and what its steps take."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from adapters.numpy.steps import Step
from converter.ir import Array


@dataclass(frozen=True, slots=True)
class PlannedStep:
    """Nodes that run as one step.

    result: the name of the first value that it makes.
    operators: of its nodes, in order.
    way: `"kernel"`, a kernel of the runtime; `"packed"`, one that is made for constant weights; `"blocks"`, a chain of element-wise
        operators; `"reference"`, the operator's reference kernel; `"once"`: computed in the first run.
    """

    result: str
    operators: tuple[str, ...]
    way: str


@dataclass(frozen=True, slots=True)
class Profile:
    """`outputs` of the run; `seconds` of each of `steps`, the median of the runs; `memory`: bytes kept for values between runs."""

    outputs: dict[str, Array]
    steps: tuple[PlannedStep, ...]
    seconds: tuple[float, ...]
    memory: int

    def by_kind(self) -> list[tuple[str, int, float]]:
        """(operators, how many steps, seconds together), the longest first."""
        found: dict[str, tuple[int, float]] = {}
        for step, taken in zip(self.steps, self.seconds, strict=True):
            kind = " + ".join(step.operators)
            count, total = found.get(kind, (0, 0.0))
            found[kind] = count + 1, total + taken
        return sorted(((kind, *rest) for kind, rest in found.items()), key=lambda item: -item[2])


def planned(step: Step, way: str | None = None) -> PlannedStep:
    nodes = [member.resolved.node for member in step.members] or [step.resolved.node]
    result = next((name for name in step.resolved.node.outputs if name is not None), "")
    return PlannedStep(result, tuple(node.op for node in nodes), way or step.way)


class Stopwatch:
    """Takes the seconds of each step of several runs."""

    def __init__(self) -> None:
        self._taken: dict[int, tuple[Step, list[float]]] = {}

    def __call__(self, step: Step, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, which notes how long it takes."""
        taken = self._taken.setdefault(id(step), (step, []))[1]

        def timed(*operands: Any) -> Any:
            started = time.perf_counter()
            try:
                return function(*operands)
            finally:
                taken.append(time.perf_counter() - started)

        return timed

    def medians(self) -> Iterator[tuple[PlannedStep, float]]:
        """Each step that ran, with its median."""
        for step, seconds in self._taken.values():
            if seconds:
                yield planned(step), statistics.median(seconds)
