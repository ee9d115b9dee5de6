"""The NumPy runtime: a graph is planned once, when the session is made, and run many times."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

import numpy as np

from adapters.numpy.buffers import Buffers, using
from adapters.numpy.plan import KEPT_SIZES, Plan, Watch
from adapters.numpy.profile import PlannedStep, Profile, Stopwatch
from adapters.numpy.threads import check_threads, limited
from converter.ir import Array, Model
from converter.mapped import mapped_files
from converter.passes.folding import fold_layers
from converter.sizes import check_inputs


class NumpySession:
    """`run(inputs) -> {name: array}` in NumPy alone.

    Parameters are read once, when the session is made: mapped, where a file holds them as they are used.
    """

    def __init__(self, model: Model, *, threads: int | None = None) -> None:
        """`threads`: how many a run may use, the matrix products included; as OMP_NUM_THREADS says, or all cores, where it is None.

        Raises `ConverterError` for a number that is none, `MissingDependencyError` without `threadpoolctl`.
        """
        self.model, self._threads = model, check_threads(threads)
        planned = fold_layers(model)
        self._plan = Plan(planned.graph, planned.parameters)
        self._own = threading.local()
        self._files = mapped_files(self._plan.constants)
        self._names = [port.name for port in model.graph.inputs]
        self._outputs = [port.name for port in model.graph.outputs]
        self._met: dict[tuple[Any, ...], dict[str, int]] = {}

    def run(self, inputs: Mapping[str, Any]) -> dict[str, Array]:
        """The outputs by name, in the graph's order.

        Raises:
            RunError: the inputs do not fit the graph, the values do not fit in memory, or a node fails on them.
            FormatError: a file that holds parameters was changed since the session was made.
        """
        return self._run(inputs, None)

    def plan(self) -> tuple[PlannedStep, ...]:
        """The steps of a run, each of one node or of several."""
        return tuple(self._plan.steps())

    def profile(self, inputs: Mapping[str, Any], repeat: int = 5) -> Profile:
        """What each step takes in `repeat` runs after a first one. Raises as `run` does."""
        outputs, watch = self._run(inputs, None), Stopwatch()
        for _ in range(repeat):
            outputs = self._run(inputs, watch)
        measured = list(watch.medians())
        return Profile(outputs, tuple(step for step, _ in measured), tuple(seconds for _, seconds in measured),
                       self._own.buffers.nbytes)

    def _run(self, inputs: Mapping[str, Any], watch: Watch | None) -> dict[str, Array]:
        self._check_files()
        arrays, bindings = self._checked(inputs)
        buffers: Buffers | None = getattr(self._own, "buffers", None)
        if buffers is None:
            buffers = self._own.buffers = Buffers()
        with limited(self._threads), using(buffers):
            outputs = self._plan.run(arrays, bindings, watch)
            buffers.release(outputs)
        self._check_files()
        return dict(zip(self._outputs, outputs, strict=True))

    def _checked(self, inputs: Mapping[str, Any]) -> tuple[list[Array], dict[str, int]]:
        """The inputs in the graph's order, and the sizes: those of dtypes and shapes that were checked before are known."""
        key = None
        if type(inputs) is dict and len(inputs) == len(self._names):
            given = [inputs.get(name) for name in self._names]
            if all(type(array) is np.ndarray for array in given):
                key = tuple([(array.dtype, array.shape) for array in given])  # type: ignore[union-attr]
                if key in self._met:
                    return given, dict(self._met[key])  # type: ignore[return-value]
        arrays, bindings = check_inputs(self.model.graph, inputs)
        if key is not None and len(self._met) < KEPT_SIZES:
            self._met[key] = dict(bindings)
        return list(arrays.values()), bindings

    def _check_files(self) -> None:
        for file in self._files:
            file.check()
