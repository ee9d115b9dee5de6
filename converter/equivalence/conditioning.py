"""How far an output moves, row by row, when every parameter and float input moves by one ulp: its conditioning.

Rounding errors that are harmless in most rows are magnified in an ill-conditioned one, and the runs that set the budget may
have been lucky in just that row. A result that is exact for data one ulp away is as good as any (backward stability).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from converter.equivalence.compare import eps_of
from converter.equivalence.generator import Generator, stream_seed
from converter.ir import DType, Model, TensorSpec
from converter.parameters import ParameterStore
from converter.reference import run_graph
from converter.sizes import check_inputs

Array = np.ndarray[Any, Any]

PROBES = 4


def moves(model: Model, inputs: Mapping[str, Any], truth: Mapping[str, Array]) -> dict[str, Array]:
    """For each float output how far, at most, each row (axis 0) moves in `PROBES` runs with random directions.

    Args:
        model: the model.
        inputs: arrays by input name.
        truth: the outputs of the reference in float64, which a run with moved data is compared with.

    Returns: float64 arrays by name that broadcast to the outputs' shapes. Rows that are not finite count as 0.

    Raises:
        RunError: the inputs do not fit, or a node fails on the moved data.
    """
    arrays, bindings = check_inputs(model.graph, inputs)
    found: dict[str, Array] = {}
    for probe in range(PROBES):
        moved = {name: nudge(array, stream_seed(probe, "input", name)) for name, array in arrays.items()}
        outputs = run_graph(model.graph, Nudged(model.parameters, probe), moved, dict(bindings), DType.FLOAT64)
        for name, output in outputs.items():
            if output.dtype.kind not in "fc" or output.shape != truth[name].shape:
                continue
            with np.errstate(all="ignore"):
                distance = np.abs(output - truth[name]).astype(np.float64)
            distance = np.where(np.isfinite(distance), distance, 0.0)
            if distance.ndim > 1:
                distance = distance.max(axis=tuple(range(1, distance.ndim)), keepdims=True, initial=0.0)
            found[name] = np.maximum(found[name], distance) if name in found else distance
    return found


def nudge(values: Array, seed: int) -> Array:
    """Float and complex values times 1 ± eps of their own dtype, in float64 (complex128); others as they are."""
    dtype = DType.of(values.dtype)
    if not (dtype.is_float or dtype.is_complex):
        return values
    signs = (Generator(seed).integers64(values.size) & np.uint64(1)).astype(np.float64).reshape(values.shape) * 2 - 1
    return np.asarray(values.astype(np.complex128 if dtype.is_complex else np.float64) * (1 + eps_of(values.dtype) * signs))


class Nudged(ParameterStore):
    """A store whose float parameters are each an ulp away, read as float64. Names that share memory stay equal."""

    def __init__(self, store: ParameterStore, probe: int) -> None:
        self.store, self.probe = store, probe

    def names(self) -> tuple[str, ...]:
        return self.store.names()

    def spec(self, name: str) -> TensorSpec:
        found = self.store.spec(name)
        return TensorSpec(DType.FLOAT64, found.shape) if found.dtype.is_float else found

    def read(self, name: str) -> Array:
        return nudge(self.store.read(name), stream_seed(self.probe, "parameter", self.store.alias_of(name) or name))

    def alias_of(self, name: str) -> str | None:
        return self.store.alias_of(name)
