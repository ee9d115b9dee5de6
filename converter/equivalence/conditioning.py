"""How far an output moves, row by row, when every parameter and float input moves by one ulp, or every result on the way by half an ulp.

The larger is its conditioning: an operator that is rounded as well as can be moves its result by half an ulp. A result that the graph
holds in a coarser dtype than its outputs' moves by half an ulp of theirs: a cast to float16 that the module does not make is a fault
of the model's, and may not excuse itself. Errors that are harmless
in most rows are magnified in an ill-conditioned one, and the runs that set the budget may have been lucky in just that row. A result
that is exact for data one ulp away is as good as any (backward stability).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

from converter.checking import check
from converter.equivalence.compare import eps_of
from converter.equivalence.generator import Generator, stream_seed
from converter.equivalence.ties import gives_exact
from converter.ir import Array, DType, Graph, Model, Node, TensorSpec
from converter.parameters import ParameterStore, ParameterView, places_in
from converter.reference import run_graph
from converter.sizes import check_inputs, promote

PROBES = 4


def measure_moves(model: Model, inputs: Mapping[str, Any], truth: Mapping[str, Array], check_time: Callable[[], None] = lambda: None,
                  dtype: DType | None = None) -> dict[str, Array]:
    """For each float output how far, at most, each row (axis 0) moves in `PROBES` runs of either kind with random directions.

    Args:
        model: the model.
        inputs: arrays by input name.
        truth: the outputs of the reference in float64, which a run with moved data is compared with.
        check_time: called before each run; what it raises ends the search.
        dtype: whose ulps are meant, of every float; None: each one's own.

    Returns: float64 arrays by name that broadcast to the outputs' shapes. Rows that are not finite count as 0.

    Raises:
        RunError: the inputs do not fit, or a node fails on the moved data.
    """
    arrays, bindings = check_inputs(model.graph, inputs)
    specs = check(model.graph, model.parameters)
    on_the_way = partial(rounding, specs, float_dtype=dtype, coarsest=_coarsest(model.graph, dtype))
    found: dict[str, Array] = {}
    for probe in range(2 * PROBES):
        check_time()
        if probe < PROBES:
            moved = {name: nudge(array, stream_seed(probe, "input", name), dtype) for name, array in arrays.items()}
            outputs = run_graph(model.graph, Nudged(model.parameters, probe, dtype), moved, dict(bindings), DType.FLOAT64)
        else:
            outputs = run_graph(model.graph, model.parameters, arrays, dict(bindings), DType.FLOAT64, on_the_way(probe))
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


def _coarsest(graph: Graph, float_dtype: DType | None) -> float:
    """The eps of the coarsest float output of a graph; 0 without one."""
    dtypes = [promote(output.spec.dtype, float_dtype) for output in graph.outputs]
    return max((eps_of(dtype.numpy) for dtype in dtypes if dtype.is_float or dtype.is_complex), default=0.0)


def rounding(specs: Mapping[str, TensorSpec], probe: int, float_dtype: DType | None = None, coarsest: float = math.inf) ->\
        Callable[[Node, tuple[Array, ...]], tuple[Array, ...]]:
    """An observer of a float64 run that moves each result, where its own dtype does not hold it, by half an ulp of that one, or by
    `coarsest / 2` of its size where that is less."""

    def moved(name: str | None, values: Array) -> Array:
        if name is None or values.dtype.kind not in "fc" or not (specs[name].dtype.is_float or specs[name].dtype.is_complex):
            return values
        dtype = promote(specs[name].dtype, float_dtype).numpy
        with np.errstate(all="ignore"):
            inexact = values.astype(dtype).astype(values.dtype) != values
            away = min(eps_of(dtype), coarsest) / 2 * signs(values, stream_seed(probe, "result", name))
            return np.where(inexact, values * (1 + away), values)

    def observe(node: Node, results: tuple[Array, ...]) -> tuple[Array, ...]:
        names = [*node.outputs, *[None] * (len(results) - len(node.outputs))]
        return results if gives_exact(node, specs) else tuple(map(moved, names, results))

    return observe


def signs(values: Array, seed: int) -> Array:
    """1 or -1 for each value, from the bits of the generator's integers, the lowest first."""
    bits = np.unpackbits(Generator(seed).integers64(-(-values.size // 64)).view(np.uint8), bitorder="little")
    return bits[:values.size].astype(np.float64).reshape(values.shape) * 2 - 1


def nudge(values: Array, seed: int, float_dtype: DType | None = None) -> Array:
    """Float and complex values times 1 ± eps of their own dtype, or of another, in float64 (complex128); others as they are."""
    dtype = DType.of(values.dtype)
    if not (dtype.is_float or dtype.is_complex):
        return values
    wide = values.astype(np.complex128 if dtype.is_complex else np.float64)
    return np.asarray(wide * (1 + eps_of(promote(dtype, float_dtype).numpy) * signs(values, seed)))


class Nudged(ParameterView):
    """A store whose float parameters are each an ulp away, read as float64. Names that share memory stay equal."""

    def __init__(self, store: ParameterStore, probe: int, dtype: DType | None = None) -> None:
        super().__init__(places_in(store))
        self.probe, self.dtype = probe, dtype

    def spec(self, name: str) -> TensorSpec:
        found = super().spec(name)
        return TensorSpec(DType.FLOAT64, found.shape) if found.dtype.is_float else found

    def changed(self, name: str) -> bool:
        return True

    def made(self, name: str) -> Array:
        return nudge(self.stored(name), stream_seed(self.probe, "parameter", self.alias_of(name) or name), self.dtype)

