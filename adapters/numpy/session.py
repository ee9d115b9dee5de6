"""The NumPy runtime: a graph is planned once, when the session is made, and run many times."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

from adapters.numpy.buffers import Buffers, using
from adapters.numpy.plan import Plan
from converter.ir import Array, Model
from converter.mapped import mapped_files
from converter.passes.folding import fold_layers
from converter.sizes import check_inputs


class NumpySession:
    """`run(inputs) -> {name: array}` in NumPy alone.

    Parameters are read once, when the session is made: mapped, where a file holds them as they are used.
    """

    def __init__(self, model: Model) -> None:
        self.model = model
        planned = fold_layers(model)
        self._plan = Plan(planned.graph, planned.parameters)
        self._own = threading.local()
        self._files = mapped_files(self._plan.constants)

    def run(self, inputs: Mapping[str, Any]) -> dict[str, Array]:
        """The outputs by name, in the graph's order.

        Raises:
            RunError: the inputs do not fit the graph, the values do not fit in memory, or a node fails on them.
            FormatError: a file that holds parameters was changed since the session was made.
        """
        self._check_files()
        arrays, bindings = check_inputs(self.model.graph, inputs)
        buffers = self._own.__dict__.setdefault("buffers", Buffers())
        with using(buffers):
            outputs = self._plan.run([arrays[port.name] for port in self.model.graph.inputs], bindings)
            buffers.release(outputs)
        self._check_files()
        return {port.name: array for port, array in zip(self.model.graph.outputs, outputs, strict=True)}

    def _check_files(self) -> None:
        for file in self._files:
            file.check()
