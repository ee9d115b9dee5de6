"""Free sizes are sought for a while, and no longer, whatever torch does meanwhile."""

from __future__ import annotations

import sys
import threading
import time
from typing import Any

import pytest
import sympy
import torch
from torch import Tensor, nn

import converter
from adapters.torch.tracing.effort import Effort, EffortSpent, bounded, budget, current, require_time
from adapters.torch.tracing.free_sizes import takes
from adapters.torch.tracing.trace import trace
from adapters.torch.tracing.trials import agrees_at
from converter import ConversionWarning, UnsupportedError


def simplify_for(seconds: float) -> None:
    """Keeps sympy at work for so many processor seconds."""
    end, symbol = time.thread_time() + seconds, sympy.Symbol("x")
    while time.thread_time() < end:
        sympy.expand((symbol + 1) ** 30)
        sympy.simplify(sympy.sin(symbol) ** 2 + sympy.cos(symbol) ** 2)


class Slow(nn.Module):
    """A view that takes torch 30 seconds wherever sizes are free."""

    def __init__(self, axes: int) -> None:
        super().__init__()
        self.axes = axes

    def forward(self, x: Tensor) -> Tensor:
        free = [not str(size).isdecimal() for size in x.shape]
        if any(free[self.axes:]):
            simplify_for(30)
        return x * 2 + 1


def test_a_bound_holds_inside_of_simplification() -> None:
    started = time.thread_time()
    with pytest.raises(EffortSpent, match="no trace in 0 s"), bounded(0.2):
        simplify_for(30)
    assert time.thread_time() - started < 5


@pytest.mark.parametrize("seconds", [0.0, 5.0])
def test_a_bound_ends_beside_a_profiler_or_a_measurement_of_coverage(seconds: float) -> None:
    ended = []

    def run() -> None:
        sys.setprofile(lambda *event: None)
        sys.settrace(lambda *event: None)
        try:
            with bounded(0.05):
                simplify_for(seconds)
            ended.append("in time")
        except EffortSpent:
            ended.append("spent")

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(20)
    assert ended == ["spent" if seconds else "in time"]


def test_what_others_compute_does_not_count() -> None:
    over = threading.Event()

    def spin() -> None:
        while not over.is_set():
            pass

    others = [threading.Thread(target=spin) for _ in range(3)]
    for thread in others:
        thread.start()
    effort = Effort(5.0)
    try:
        with bounded(0.5):
            simplify_for(0.1)  # which takes four times as long on the clock
            time.sleep(0.6)
            simplify_for(0.1)
    finally:
        over.set()
    assert 0.1 < effort.spent < 0.5
    assert effort.left(0.5) == pytest.approx(2.5 - effort.spent, abs=0.1)


def test_a_thread_that_gets_no_processor_is_let_go_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("adapters.torch.tracing.effort.BACKSTOP", 2.0)
    effort = Effort(0.1)
    time.sleep(0.3)
    assert effort.left() <= 0
    with budget(effort), pytest.raises(EffortSpent, match="--effort"):
        require_time()


def test_what_ends_in_time_is_not_disturbed() -> None:
    for _ in range(20):
        with bounded(20.0):
            simplify_for(0.001)
        simplify_for(0.001)
    with bounded(0.1):
        time.sleep(0.3)  # no symbolic code: nothing is raised there
    simplify_for(0.2)


def test_a_budget_is_for_the_conversion_that_began_it() -> None:
    with budget(Effort(5.0)) as own:
        assert current() is own
    assert current() is not own


def test_a_module_is_not_run_where_its_run_takes_more_than_is_left() -> None:
    module, example = nn.Linear(3, 3), {"input": torch.randn(2, 3)}
    program = trace(module, (example["input"],))

    def agrees(batch: int) -> bool | None:
        return agrees_at(program.model, {"batch": batch}, module, example, program.input_names, program.output_names)

    with budget(Effort(60.0)) as effort:
        effort.note_run(2.0, example)
        assert agrees(4) is True
        assert agrees(40) is None  # twenty times as much as the example, and the graph's run with it
        assert takes(module, {"input": torch.randn(20, 3)})
        with pytest.raises(EffortSpent, match="no more free sizes"):
            takes(module, {"input": torch.randn(60, 3)})


@pytest.mark.parametrize(("axes", "spec"), [(1, "float32[batch, 3]"), (0, "float32[2, 3]")])
def test_fewer_sizes_are_free_where_the_time_is_up(axes: int, spec: str) -> None:
    started = time.thread_time()
    with pytest.warns(ConversionWarning, match="no trace in"):
        model = converter.from_torch(Slow(axes), (torch.randn(2, 3),), effort=4.0)
    assert time.thread_time() - started < 20
    assert str(model.graph.inputs[0].spec) == spec
    assert bool(converter.verify(model, ["numpy"]))


def test_named_sizes_that_are_not_found_in_time_are_an_error_with_the_way_out() -> None:
    with pytest.raises(UnsupportedError, match="--effort") as caught:
        converter.from_torch(Slow(1), (torch.randn(2, 3),), dims={"x": ["batch", "width"]}, effort=2.0)
    assert "--fix" in str(caught.value)


def test_progress_is_told() -> None:
    told: list[Any] = []
    with budget(Effort(60.0, told.append)):
        current().tell("tracing")
    assert told == ["tracing"]
    assert trace(nn.Linear(3, 3), (torch.randn(2, 3),)).model.graph.nodes
