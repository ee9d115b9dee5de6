"""One output against the float64 truth: in structure, and within the error budget that PyTorch's own run sets.

An error is counted in *ulps of a scale*: |actual - truth| / (eps * scale), where eps is that of the output's dtype and
the scale is, element by element, the larger of |truth| and the root mean square of what the element belongs to. What it
belongs to is taken in several ways at once, and each must hold: the whole output, and for every axis the slice at the
element's own index (its row, its channel). So a small channel is not judged by the size of a large one beside it, and
a value that cancelled to almost nothing is not judged by itself alone.

`docs/equivalence.md` gives the formulas and the reasons for the constants.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import ml_dtypes
import numpy as np

from converter.ir import Array, DType

FACTOR = 4.0
"""A runtime may stray this many times as far as PyTorch did."""

FLOOR = 8.0
"""And this many ulps more, for when PyTorch happened to be exact."""

SMALL_FLOOR, SMALL_EPS = 2.0, 2.0**-10
"""The floor of float16, bfloat16 and float8, which runtimes compute in float32 and round."""

STRUCTURE = 1e-9
"""What float64 runs may differ by, relative to the element itself."""

ROUNDINGS = 1024.0
"""And this many float64 roundings of the size that PyTorch's float32 run shows. Also the floor of float64 outputs, whose
truth is no better than what is judged."""

SLICE = 16
"""A slice has a scale of its own when it holds at least this many elements."""

GUARD = 2.0**-20
"""A slice's scale is at least this part of the whole output's."""

WHOLE = "output"


@dataclass(frozen=True, slots=True)
class Comparison:
    """The verdict on one output: `reason` is empty when it holds.

    `error` and `allowed` are in ulps, or relative for float64 structure, or counts of values for integers and booleans;
    they are those of the scale that comes nearest to its limit. `compared` counts the values that were judged: nothing is
    learnt where truth and output are both not finite, or where an allowance is so wide that zeros would do (`tells_from_zeros`).
    """

    error: float
    allowed: float
    reason: str = ""
    compared: int = 0
    unit: str = "ulps"

    def __bool__(self) -> bool:
        return not self.reason


def eps_of(dtype: np.dtype[Any]) -> float:
    """The distance from 1 to the next number of a float or complex dtype."""
    return float(_finfo(dtype).eps)


def _finfo(dtype: np.dtype[Any]) -> Any:
    return ml_dtypes.finfo(_real(dtype))


def _real(dtype: np.dtype[Any]) -> np.dtype[Any]:
    return np.dtype(f"f{dtype.itemsize // 2}") if dtype.kind == "c" else dtype


def floor_of(dtype: np.dtype[Any], floor: float = FLOOR) -> float:
    """How many ulps a runtime is always allowed: fewer in the small floats, whose ulps are wide; more in float64."""
    eps = eps_of(dtype)
    if eps >= SMALL_EPS:
        return min(floor, SMALL_FLOOR)
    return max(floor, ROUNDINGS) if eps <= np.finfo(np.float64).eps else floor


def is_exact(dtype: np.dtype[Any]) -> bool:
    """Whether values of a dtype are compared for equality: integers and booleans."""
    return dtype.kind in "biu" or DType.of(dtype).is_integer


def distances(actual: Array, truth: Array, dtype: np.dtype[Any]) -> Array:
    """|actual - truth|, float64; 0 where both are one infinity or both NaN, infinite where only one is finite.

    A truth beyond the range of `dtype` is the infinity that it rounds to.
    """
    actual, truth = _wide(actual), _wide(truth)
    with np.errstate(all="ignore"):
        nearest = _wide(truth.astype(dtype))
        error = np.abs(actual - truth)
        same = (actual == truth) | (np.isnan(actual) & np.isnan(truth)) | (np.isinf(nearest) & (actual == nearest))
        return np.where(same, 0.0, np.where(np.isfinite(actual) & np.isfinite(truth), error, np.inf))


def _wide(values: Array) -> Array:
    values = np.asarray(values)
    return values.astype(np.complex128 if values.dtype.kind == "c" else np.float64, copy=False)


class ByScale(Mapping[str, Array]):
    """An array for each scale, worked out where it is asked for and not kept: a tensor of many axes has as many scales."""

    def __init__(self, makers: Mapping[str, Callable[[], Array]]) -> None:
        self._makers = makers

    def __getitem__(self, name: str) -> Array:
        return self._makers[name]()

    def __iter__(self) -> Iterator[str]:
        return iter(self._makers)

    def __len__(self) -> int:
        return len(self._makers)


def scales(truth: Array, dtype: np.dtype[Any], typical: float = 0.0) -> ByScale:
    """The scale of every element under each way of taking it, by name: `"output"`, `"axis 0"`, …

    `typical` is the root mean square of the output over many cases, which stands in for that of an output of fewer than
    `SLICE` values: a single value is no measure of its own size.
    """
    magnitude = np.abs(_wide(truth))
    magnitude = np.where(np.isfinite(magnitude), magnitude, 0.0)
    finfo = _finfo(dtype)
    # Squares of the largest float64 values overflow, so they are taken of parts of the largest.
    peak = float(magnitude.max(initial=0.0)) or 1.0
    squares = np.square(magnitude / peak)
    whole = max(peak * float(np.sqrt(squares.mean())) if magnitude.size else 0.0, float(finfo.smallest_normal))
    if magnitude.size < SLICE:
        whole = max(whole, typical)

    def along(axis: int) -> Array:
        others = tuple(other for other in range(magnitude.ndim) if other != axis)
        rms = peak * np.sqrt(squares.mean(axis=others, keepdims=True))
        return np.asarray(np.maximum(magnitude, np.maximum(rms, max(GUARD * whole, float(finfo.smallest_normal)))))

    makers: dict[str, Callable[[], Array]] = {WHOLE: lambda: np.asarray(np.maximum(magnitude, whole))}
    makers |= {f"axis {axis}": partial(along, axis) for axis, size in enumerate(magnitude.shape)
               if size > 1 and magnitude.size // size >= SLICE}
    return ByScale(makers)


def ulps(actual: Array, truth: Array, dtype: np.dtype[Any], typical: float = 0.0) -> ByScale:
    """Element-wise errors in ulps of each scale."""
    error, eps, whole = distances(actual, truth, dtype), eps_of(dtype), scales(truth, dtype, typical)

    def of(name: str) -> Array:
        return np.asarray(error / (eps * whole[name]))

    return ByScale({name: partial(of, name) for name in whole})


def find_lost(own: Array, truth: Array, dtype: np.dtype[Any], typical: float = 0.0) -> Array:
    """Where a finite value has no digit of the truth left: it is half its scale away, or more, as across a jump of a function."""
    gap = distances(own, truth, dtype)
    with np.errstate(over="ignore"):  # twice the distance of the largest numbers is beyond any scale
        return np.asarray(np.isfinite(gap) & (2 * gap >= scales(truth, dtype, typical)[WHOLE]))


def agrees(actual: Array, expected: Array) -> Array:
    """Where two arrays hold the same values, NaN being equal to NaN."""
    return np.asarray((actual == expected) | (actual != actual) & (expected != expected))


def refuse_form(actual: Array, truth: Array, dtype: np.dtype[Any]) -> Comparison | None:
    """The failing verdict on a wrong shape or dtype, or None."""
    if actual.shape != truth.shape:
        return Comparison(np.inf, 0.0, f"shape {list(actual.shape)}, expected {list(truth.shape)}")
    if actual.dtype != dtype:
        return Comparison(np.inf, 0.0, f"dtype {actual.dtype}, expected {dtype}")
    return None


def compare(actual: Array, truth: Array, budget: Array | None, *, factor: float = FACTOR, floor: float = FLOOR) -> Comparison:
    """Compares a runtime's output with the float64 truth, the budget being that of this one run.

    Args:
        actual: the runtime's output, in the model's own dtype.
        truth: the same output computed in float64 (integers and booleans as they are).
        budget: PyTorch's output in the model's own dtype; None leaves only the floor.
    """
    actual, truth = np.asarray(actual), np.asarray(truth)
    own = None if budget is None else np.asarray(budget)
    allowed: dict[str, float] = {}
    if own is not None and own.shape == truth.shape and not is_exact(own.dtype):
        allowed = {name: factor * peak(errors) for name, errors in ulps(own, truth, own.dtype).items()}
    return compare_within(actual, truth, allowed, dtype=actual.dtype if own is None else own.dtype, own=own, floor=floor)


def peak(errors: Array) -> float:
    """The largest finite error; 0 when there is none."""
    return float(np.max(errors, where=np.isfinite(errors), initial=0.0))


def compare_within(actual: Array, truth: Array, allowed: Mapping[str, float], *, dtype: np.dtype[Any], own: Array | None = None,
                   floor: float = FLOOR, ties: Array | None = None, typical: float = 0.0, moves: Array | None = None,
                   telling: bool = False) -> Comparison:
    """Compares an output with the truth under given allowances.

    Args:
        actual, truth: as for `compare`.
        allowed: ulps by scale, the floor not counted; a scale that is not named has only the floor.
        dtype: what `actual` must have.
        own: PyTorch's output. Where it is not finite although the truth is (it overflowed), or the other way, and for an
            integer or boolean where it differs from the truth (a tie that rounding decided), its value is right as well.
            Where it has no digit of the truth left (`find_lost`), an element may stray `FACTOR` times as far as any such one did.
        floor: ulps that are always allowed; `ROUNDINGS` for float64.
        ties: for integers and booleans, where a difference is a tie.
        typical: as for `scales`.
        moves: how far each element moves when the data move by an ulp (see `conditioning`); an element may stray `FACTOR`
            times as far, where that is more than `allowed`.
        telling: whether elements do not count as compared whose allowance is so wide that it tells nothing (`tells_from_zeros`).
    """
    wrong = refuse_form(actual, truth, dtype)
    if wrong is not None:
        return wrong
    unit = "values" if is_exact(dtype) else "ulps"
    if actual.size == 0:
        return Comparison(0.0, 0.0, unit=unit)
    if own is not None and own.shape != truth.shape:
        own = None
    if is_exact(dtype):
        return _equal(actual, truth, own, ties)
    errors = ulps(actual, truth, dtype, typical)
    floor = floor_of(dtype, floor)
    excused = gone = np.zeros(truth.shape, bool)
    furthest = 0.0
    if own is not None:
        gaps = distances(own, truth, dtype)
        excused = ~np.isfinite(gaps) & agrees(actual, own)
        gone = find_lost(own, truth, dtype, typical)
        furthest = float(np.max(gaps, where=gone, initial=0.0))
    worst = Comparison(0.0, floor)
    nearest = -1.0
    own_scales = scales(truth, dtype, typical)
    told = np.full(truth.shape, not telling)
    for name, values in errors.items():
        values = np.where(excused, 0.0, values)
        limits = np.asarray(allowed.get(name, 0.0) + floor)
        if moves is not None:
            limits = np.maximum(limits, FACTOR * moves / (eps_of(dtype) * own_scales[name]) + floor)
        if furthest:
            limits = np.where(gone, np.maximum(limits, FACTOR * furthest / (eps_of(dtype) * own_scales[name]) + floor), limits)
        limits = np.broadcast_to(limits, values.shape)
        told |= tells_from_zeros(limits - floor, dtype)
        with np.errstate(all="ignore"):
            shares = np.where(values > 0, values / limits, 0.0)
        place = np.unravel_index(int(np.argmax(shares)), shares.shape)
        share, error, limit = float(shares[place]), float(values[place]), float(limits[place])
        if share <= nearest:
            continue
        nearest = share
        reason = "" if share <= 1.0 else _reason(name, values, place, actual, truth, limit)
        worst = Comparison(error, limit, reason)
    return replace(worst, compared=int(np.count_nonzero(np.isfinite(_wide(truth)) & ~excused & told)))


def tells_from_zeros(allowed: Array, dtype: np.dtype[Any]) -> Array:
    """Where an allowance, in ulps and the floor not counted, tells an output from zeros: what it is beyond that of one rounding is less
    than the output's own size."""
    return np.asarray((allowed - FACTOR / 2) * eps_of(dtype) < 1.0)


def _equal(actual: Array, truth: Array, own: Array | None, ties: Array | None) -> Comparison:
    differs = actual != truth
    if own is not None:
        differs &= actual != own
    if ties is not None:
        differs &= ~ties
    count = int(np.count_nonzero(differs))
    if not count:
        return Comparison(0.0, 0.0, "", actual.size, "values")
    place = tuple(int(index) for index in np.argwhere(differs)[0])
    reason = f"{count} of {actual.size} values differ, first at {_place(place)} ({actual[place]} for {truth[place]})"
    return Comparison(float(count), 0.0, reason, actual.size, "values")


def structure(actual: Array, truth: Array, noise: Mapping[str, float], *, ties: Array | None = None,
              typical: float = 0.0) -> Comparison:
    """Compares two float64 runs of what should be one model.

    Every element must agree to `STRUCTURE` of itself and `ROUNDINGS` float64 roundings, one rounding being as large as
    PyTorch's run in the model's own dtype shows: `noise` has its largest error, in ulps, by scale.

    Args:
        actual, truth: the reference's and PyTorch's outputs, in float64 (complex128, integers, booleans).
        noise: ulps by scale; at least 1 is taken, and 1 for a scale that is not named.
        ties: for integers and booleans, where a difference is a tie.
        typical: as for `scales`.
    """
    actual, truth = np.asarray(actual), np.asarray(truth)
    wrong = refuse_form(actual, truth, truth.dtype)
    if wrong is not None:
        return wrong
    unit = "values" if is_exact(truth.dtype) else "relative"
    if actual.size == 0:
        return Comparison(0.0, 0.0, unit=unit)
    if is_exact(truth.dtype):
        return _equal(actual, truth, None, ties)
    error = distances(actual, truth, truth.dtype)
    magnitude = np.where(np.isfinite(_wide(truth)), np.abs(_wide(truth)), 0.0)
    step = ROUNDINGS * eps_of(truth.dtype)
    own_scales = scales(truth, truth.dtype, typical)
    rounding = np.full(truth.shape, np.inf)
    for name, scale in own_scales.items():
        rounding = np.minimum(rounding, step * max(1.0, noise.get(name, 0.0)) * scale)
    limit = STRUCTURE * magnitude + rounding
    ratio = error / limit
    place = np.unravel_index(int(np.argmax(ratio)), ratio.shape)
    scale = own_scales[WHOLE][place]
    relative, allowed = float(error[place] / scale), float(limit[place] / scale)
    compared = int(np.count_nonzero(np.isfinite(_wide(truth))))
    reason = ""
    if not ratio[place] <= 1.0:
        reason = f"{_number(actual[place])} for {_number(truth[place])} at {_place(place)}: " \
                 f"{float(error[place]):.3g} apart, {float(limit[place]):.3g} allowed"
    return Comparison(relative, allowed, reason, compared, "relative")


def _reason(scale: str, errors: Array, place: tuple[Any, ...], actual: Array, truth: Array, limit: float) -> str:
    if not np.isfinite(errors[place]):
        count = int(np.count_nonzero(~np.isfinite(errors)))
        return f"{_number(actual[place])} for {_number(truth[place])} at {_place(place)} ({count} such value{'s' * (count != 1)})"
    of = "" if scale == WHOLE else f" of its slice along {scale}"
    return f"{errors[place]:.3g} ulps{of} at {_place(place)} ({_number(actual[place])} for {_number(truth[place])}), " \
           f"{limit:.3g} allowed"


def _number(value: Any) -> str:
    return f"{value:.9g}" if not isinstance(value, complex) and np.asarray(value).dtype.kind == "f" else str(value)


def _place(index: tuple[Any, ...]) -> str:
    return f"[{', '.join(str(int(item)) for item in index)}]"
