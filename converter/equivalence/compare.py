"""One output of a runtime against the float64 truth, within the error budget that PyTorch's own float32 run sets.

Errors are counted in *ulps of the output*: |actual - truth| over eps * max(|truth|, rms(truth)), element by element,
where eps is that of the output's dtype. An output may stray `FACTOR` times as far as PyTorch did, and `FLOOR` ulps
more, for when PyTorch happened to be exact.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np

Array = np.ndarray[Any, Any]

FACTOR = 4.0
FLOOR = 8.0
STRUCTURE = 1e-9


@dataclass(frozen=True, slots=True)
class Comparison:
    """The verdict on one output: `reason` is empty when it holds. `error` and `allowed` are in ulps of the output."""

    error: float
    allowed: float
    reason: str = ""

    def __bool__(self) -> bool:
        return not self.reason


def ulps(actual: Array, truth: Array, eps: float) -> Array:
    """Element-wise error in ulps of the output; 0 where both are the same infinity or both NaN, infinite where only one is."""
    wide = np.complex128 if np.iscomplexobj(truth) or np.iscomplexobj(actual) else np.float64
    actual, truth = np.asarray(actual).astype(wide), np.asarray(truth).astype(wide)
    finite = np.isfinite(truth)
    rms = float(np.sqrt(np.mean(np.abs(truth[finite]) ** 2))) if finite.any() else 0.0
    with np.errstate(all="ignore"):
        error = np.abs(actual - truth) / (eps * np.maximum(np.abs(truth), max(rms, np.finfo(np.float32).tiny)))
    same = (actual == truth) | (np.isnan(actual) & np.isnan(truth))
    return np.where(same, 0.0, np.where(np.isfinite(actual) & finite, error, np.inf))


def eps_of(dtype: np.dtype[Any]) -> float:
    """The distance from 1 to the next number of a float or complex dtype."""
    if dtype.kind == "c":
        dtype = np.dtype(f"f{dtype.itemsize // 2}")
    return float(ml_dtypes.finfo(dtype).eps)


def compare(actual: Array, truth: Array, budget: Array | None, *, factor: float = FACTOR, floor: float = FLOOR) -> Comparison:
    """Compares a runtime's output with the float64 truth.

    Args:
        actual: the runtime's output, in the model's own dtype.
        truth: the same output computed in float64 (integers and booleans as they are).
        budget: PyTorch's output in the model's own dtype; None leaves only the floor.
    """
    actual, truth = np.asarray(actual), np.asarray(truth)
    if actual.shape != truth.shape:
        return Comparison(np.inf, 0.0, f"shape {list(actual.shape)}, expected {list(truth.shape)}")
    expected = truth.dtype if budget is None else np.asarray(budget).dtype
    if budget is not None and actual.dtype != expected:
        return Comparison(np.inf, 0.0, f"dtype {actual.dtype}, expected {expected}")
    if actual.size == 0:
        return Comparison(0.0, 0.0)
    if actual.dtype.kind in "biu":
        differing = int(np.count_nonzero(actual != truth))
        return Comparison(float(differing), 0.0, f"{differing} of {actual.size} values differ" if differing else "")
    eps = eps_of(actual.dtype)
    errors = ulps(actual, truth, eps)
    own = ulps(budget, truth, eps) if budget is not None else np.zeros(truth.shape)
    # Where PyTorch itself overflowed or lost a NaN to rounding, its value is the expected one.
    excused = ~np.isfinite(own)
    if budget is not None and excused.any():
        agrees = (actual == budget) | (np.isnan(actual.astype(np.complex128)) & np.isnan(np.asarray(budget).astype(np.complex128)))
        errors = np.where(excused & agrees, 0.0, errors)
        own = np.where(excused, 0.0, own)
    error, allowed = float(errors.max()), factor * float(own.max()) + floor
    if not error <= allowed:
        worst = np.unravel_index(int(np.argmax(np.where(np.isnan(errors), np.inf, errors))), errors.shape)
        place = f"[{', '.join(map(str, worst))}]"
        return Comparison(error, allowed, f"{error:.3g} ulps at {place} ({actual[worst]} for {truth[worst]}), {allowed:.3g} allowed")
    return Comparison(error, allowed)
