"""Recorded examples as proof: the verdict on a sampled output, and recording again."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from converter.equivalence.compare import WHOLE, Comparison, eps_of, floor_of, is_exact, scales
from converter.errors import ConverterError
from converter.ir import Array, Example, Model
from converter.recorded import Sample, sampled, statistics_of

SLACK = 1e-12
"""What float64 sums of many values may differ by, relative to the largest value."""


def sample_verdict(found: Comparison, sample: Sample, truth: Array, kernels: Array, allowed: Mapping[str, float],
                   typical: float) -> Comparison:
    """The verdict on a sampled output: `found` for the values that are known, then the statistics of all.

    No element strays further than `allowed` of the largest scale, so neither does the mean, the root mean square (a norm), the
    smallest or the largest value.

    Args:
        found: the verdict on the sampled values.
        sample: what was recorded.
        truth: the whole output in float64.
        kernels: the reference's output in the model's own dtypes, where it may have overflowed like PyTorch.
        allowed: ulps by scale, the floor not counted.
        typical: as for `compare.scales`.
    """
    known = int(np.unique(sample.positions()).size)
    found = replace(found, compared=min(found.compared, known))
    dtype = sample.dtype
    if not found or is_exact(dtype) or sample.shape != truth.shape:
        return found
    with np.errstate(all="ignore"):
        whole = truth.astype(np.complex128 if dtype.kind == "c" else np.float64)
        whole = np.where(np.isfinite(truth.astype(dtype).astype(whole.dtype)), whole, np.nan)
    expected, recorded = statistics_of(whole), sample.statistics
    if expected["finite"] != recorded.get("finite"):
        if statistics_of(kernels)["finite"] == recorded.get("finite"):
            return found
        return replace(found, reason=f"{recorded.get('finite'):.0f} values are recorded as finite, {expected['finite']} are")
    largest = float(np.max(scales(truth, dtype, typical)[WHOLE]))
    limit = (allowed.get(WHOLE, 0.0) + floor_of(dtype)) * eps_of(dtype) * largest + SLACK * largest
    for name in ("mean", "rms", "min", "max"):
        if name in expected and not abs(recorded.get(name, np.nan) - expected[name]) <= limit:
            return replace(found, reason=f"the {name} of all values is recorded as {recorded.get(name, np.nan):.9g}, and is "
                                         f"{expected[name]:.9g}: {limit:.3g} apart allowed")
    return found


def settle_infinities(recorded: Array, truth: Array) -> Array:
    """A recorded output with the truth where it is NaN and the truth an infinity.

    Whether arithmetic on infinities comes to one or to NaN depends on how an operator is computed, which in PyTorch differs between
    dtypes and even between the elements of a vector. The other way round, and beside numbers, NaN is a difference.
    """
    if recorded.dtype.kind not in "fcV" or recorded.shape != truth.shape:
        return recorded
    with np.errstate(all="ignore"):
        open_ = np.isnan(recorded) & np.isinf(truth)
        return np.where(open_, truth.astype(recorded.dtype), recorded) if np.any(open_) else recorded


def recorded_again(model: Model) -> Model:
    """The model with the outputs of its examples as PyTorch gives them now, run by the `torch` runtime.

    Raises:
        MissingDependencyError: PyTorch is not installed.
        ConverterError: the model has no examples.
    """
    from converter.loading import session

    if not model.examples:
        raise ConverterError("no example to record again", where=model.graph.name, expected="a model with recorded examples",
                             fix="convert it with torch-to-json, which records some, or give assert_equivalent the live module")
    runtime = session(model, "torch")
    made_by = f"torch {importlib.metadata.version('torch')}"
    return replace(model, examples=tuple(
        Example(example.inputs, {name: sampled(np.asarray(value), name) for name, value in runtime.run(example.inputs).items()}, made_by,
                example.draws) for example in model.examples))
