"""One output against the truth: what passes, what fails, and what neither scale nor floor may hide."""

from __future__ import annotations

import math
import tracemalloc

import ml_dtypes
import numpy as np
import pytest

from converter.equivalence.budget import Budget, factor_of, independent
from converter.equivalence.compare import FACTOR, FLOOR, STRUCTURE, compare, compare_within, eps_of, scales, structure
from converter.equivalence.inputs import EXTREME, PLAIN

EPS = 2.0**-23


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


def rounded(truth: np.ndarray, ulps: float, seed: int = 1) -> np.ndarray:
    """A float32 output whose errors are normal, `ulps` of the whole in size."""
    noise = np.random.default_rng(seed).standard_normal(truth.shape) * ulps * EPS * np.sqrt(np.mean(truth**2))
    return (truth + noise).astype(np.float32)


@pytest.mark.parametrize("seed", range(100))
def test_honest_rounding_passes(seed: int) -> None:
    truth = normal(8, 40, seed=seed)
    assert compare(rounded(truth, 30, seed + 1), truth, rounded(truth, 30, seed + 2))


def test_errors_beyond_the_budget_fail() -> None:
    truth = normal(8, 40)
    assert not compare(rounded(truth, 300), truth, rounded(truth, 30, seed=2))
    verdict = compare(rounded(truth, 300), truth, None)
    assert not verdict
    assert verdict.error > verdict.allowed == FLOOR
    assert "ulps" in verdict.reason


def test_one_wrong_element_fails() -> None:
    truth = normal(8, 40)
    actual, own = rounded(truth, 1), rounded(truth, 1, seed=2)
    assert compare(actual, truth, own)
    actual[3, 7] += 1e-4
    verdict = compare(actual, truth, own)
    assert not verdict
    assert "[3, 7]" in verdict.reason


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_fails(value: float) -> None:
    truth = normal(4, 5)
    actual = truth.astype(np.float32)
    own = actual.copy()
    actual[2, 1] = value
    verdict = compare(actual, truth, own)
    assert not verdict
    assert "[2, 1]" in verdict.reason
    assert not structure(actual.astype(np.float64), truth, {})


def test_what_is_not_finite_in_the_truth_must_stay_so() -> None:
    truth = normal(4, 5)
    truth[0, 0], truth[0, 1], truth[0, 2] = math.nan, math.inf, -math.inf
    actual = truth.astype(np.float32)
    verdict = compare(actual, truth, actual)
    assert verdict
    assert verdict.compared == 17
    for place, value in (((0, 0), 0.0), ((0, 1), -math.inf), ((0, 2), 3.0), ((0, 1), math.nan)):
        changed = actual.copy()
        changed[place] = value
        assert not compare(changed, truth, actual)


def test_an_overflow_is_the_infinity_that_the_truth_rounds_to() -> None:
    truth = np.array([1e39, -1e39, 1.0])
    assert compare(np.array([np.inf, -np.inf, 1], np.float32), truth, None)
    assert not compare(np.array([np.inf, np.inf, 1], np.float32), truth, None)


def test_where_pytorch_itself_overflowed_its_value_is_right_too() -> None:
    truth, own = np.array([5.0, 1.0]), np.array([np.inf, 1.0], np.float32)
    assert compare(own.copy(), truth, own)
    assert compare(truth.astype(np.float32), truth, own)
    assert not compare(np.array([-np.inf, 1], np.float32), truth, own)
    assert not compare(np.array([7, 1], np.float32), truth, own)


@pytest.mark.parametrize(("actual", "word"), [(np.zeros((4, 6), np.float32), "shape"), (np.zeros((5, 4), np.float32), "shape"),
                                              (np.zeros((4, 5), np.float64), "dtype"), (np.zeros((4, 5), np.float16), "dtype"),
                                              (np.zeros((4, 5), np.int32), "dtype")])
def test_wrong_forms_fail(actual: np.ndarray, word: str) -> None:
    truth = np.zeros((4, 5))
    verdict = compare(actual, truth, truth.astype(np.float32))
    assert not verdict
    assert word in verdict.reason


def test_an_empty_output_compares_nothing() -> None:
    verdict = compare(np.zeros((0, 3), np.float32), np.zeros((0, 3)), None)
    assert verdict
    assert verdict.compared == 0


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_small_slice_is_not_hidden_by_a_large_one(axis: int) -> None:
    """One channel of a size of 1e-3 beside channels of 1e3: an error of a tenth of it is seen, by rounding and in structure."""
    truth = normal(6, 7, 8) * 1e3
    index = [slice(None)] * 3
    index[axis] = slice(2, 3)
    truth[tuple(index)] *= 1e-6
    own = (truth * (1 + 0.5 * EPS * normal(6, 7, 8, seed=3))).astype(np.float32)
    wrong = truth.copy()
    wrong[tuple(index)] *= 1.1
    assert compare(truth.astype(np.float32), truth, own)
    assert not compare(wrong.astype(np.float32), truth, own)
    assert not structure(wrong, truth, {})


def test_a_small_element_is_not_hidden_in_structure() -> None:
    truth = np.array([1e6, 1e-3, 5.0])
    assert structure(truth * (1 + 1e-12), truth, {})
    assert not structure(truth * np.array([1, 1.001, 1]), truth, {"output": 0.5})


def test_cancellation_is_no_alarm() -> None:
    """Float64 sums that cancel to 1e-13 of their terms differ by all their digits; PyTorch's own float32 error shows how much."""
    terms = normal(50, 200)
    truth = terms.sum(axis=1)
    truth[7] = 1e-13
    other = truth + 1e-15 * normal(50, seed=5)
    noise = {"output": 3.0}
    assert structure(other, truth, noise)
    other[7] = 1e-8
    assert not structure(other, truth, noise)


def test_structure_follows_the_noise_of_a_deep_network() -> None:
    truth = normal(10, 20)
    other = truth + 1e-8 * normal(10, 20, seed=2)
    assert not structure(other, truth, {})
    assert not structure(other, truth, {"output": 100.0})
    assert structure(other, truth, {"output": 1e6, "axis 0": 1e6, "axis 1": 1e6})


@pytest.mark.parametrize("change", [1e-8, 1e-6, 1e-3])
def test_structure_sees_what_rounding_hides(change: float) -> None:
    truth = normal(10, 20)
    assert not structure(truth * (1 + change), truth, {"output": 2.0})
    assert structure(truth * (1 + STRUCTURE / 2), truth, {"output": 2.0})


def test_integers_and_booleans_are_equal() -> None:
    truth = np.arange(6)
    assert compare(truth.copy(), truth, truth)
    verdict = compare(np.array([0, 1, 2, 9, 4, 5]), truth, truth)
    assert not verdict
    assert verdict.error == 1
    assert "[3]" in verdict.reason
    assert not compare(np.array([True, False]), np.array([True, True]), np.array([True, True]))


def test_a_tie_that_rounding_decided_for_pytorch_too() -> None:
    truth, own = np.array([3, 1]), np.array([3, 2])
    assert compare(own.copy(), truth, own)
    assert not compare(np.array([3, 0]), truth, own)


def test_a_single_value_is_not_its_own_measure() -> None:
    """A loss that cancelled to nearly nothing: its error is measured by the losses' usual size."""
    truth = np.float64(1e-9)
    actual = np.asarray(3e-8, np.float32)
    assert not compare_within(actual, truth, {}, dtype=actual.dtype)
    assert compare_within(actual, truth, {}, dtype=actual.dtype, typical=1.0)
    assert not compare_within(np.asarray(3e-4, np.float32), truth, {}, dtype=actual.dtype, typical=1.0)


def test_huge_values_have_a_scale() -> None:
    truth = normal(5, 6) * 1e300
    with np.errstate(all="raise"):
        assert all(np.isfinite(scale).all() for scale in scales(truth, truth.dtype).values())
    assert compare(truth.copy(), truth, None)


@pytest.mark.parametrize("dtype", [ml_dtypes.bfloat16, np.float16, ml_dtypes.float8_e4m3fn, np.float32, np.float64, np.complex64])
def test_every_float_dtype(dtype: type) -> None:
    truth = normal(4, 30) + (1j * normal(4, 30, seed=2) if dtype is np.complex64 else 0)
    actual = truth.astype(dtype)
    assert compare(actual, truth, actual)
    wrong = actual.copy()
    wrong[1, 1] = wrong[1, 1] + np.asarray(4.0, dtype)
    assert not compare(wrong, truth, actual)
    assert eps_of(np.dtype(dtype)) > 0


def test_subnormal_truths_have_a_floor() -> None:
    truth = np.array([1e-60, 3e-46])
    assert compare(np.zeros(2, np.float32), truth, None)


def test_a_budget_pools_what_one_lucky_case_lacks() -> None:
    budget = Budget(np.dtype(np.float32))
    truth = np.ones((10, 4))
    budget.add(truth.astype(np.float32), truth, PLAIN)
    assert budget.allowed(PLAIN)["output"] == 0
    budget.add((truth * (1 + 4 * EPS)).astype(np.float32), truth, PLAIN)
    assert budget.allowed(PLAIN)["output"] == pytest.approx(4 * FACTOR)
    assert budget.samples() == 40


def test_extreme_cases_loosen_nothing_else() -> None:
    budget = Budget(np.dtype(np.float32))
    truth = np.ones((10, 4))
    budget.add((truth * (1 + EPS)).astype(np.float32), truth, PLAIN)
    budget.add((truth * (1 + 1000 * EPS)).astype(np.float32), truth, EXTREME)
    assert budget.allowed(PLAIN)["output"] == pytest.approx(FACTOR)
    assert budget.allowed(EXTREME)["output"] == pytest.approx(1000 * FACTOR)


@pytest.mark.parametrize(("shape", "count"), [((), 1), ((7,), 7), ((3, 50), 6), ((3, 1), 3), ((0, 4), 0), ((4, 0), 0)])
def test_related_errors_count_little(shape: tuple[int, ...], count: int) -> None:
    assert independent(np.zeros(shape)) == count


def test_few_values_have_a_larger_factor() -> None:
    assert factor_of(40) == factor_of(16) == FACTOR
    assert factor_of(1) > factor_of(4) > factor_of(8) > FACTOR


def test_an_element_without_digits_says_nothing_of_the_others() -> None:
    """Across a jump PyTorch is wrong by the whole value: there a runtime may be too, but nowhere else."""
    truth = np.linspace(1.0, 2.0, 64).reshape(4, 16)
    own = truth.astype(np.float32)
    own[1, 3] = 0.0
    budget = Budget(np.dtype(np.float32))
    budget.add(own, truth, PLAIN)
    allowed = budget.allowed(PLAIN)
    assert allowed["output"] < 4
    assert budget.worst(PLAIN)["output"] > 1e6
    assert compare_within(own, truth, allowed, dtype=own.dtype, own=own)
    right = truth.astype(np.float32)
    assert compare_within(right, truth, allowed, dtype=own.dtype, own=own)
    right[2, 3] *= 1.001
    assert not compare_within(right, truth, allowed, dtype=own.dtype, own=own)


def test_an_allowance_that_zeros_would_pass_compares_nothing() -> None:
    truth = np.ones((4, 16))
    zeros = np.zeros((4, 16), np.float32)
    wide = dict.fromkeys(("output", "axis 0", "axis 1"), 2.0 ** 24)
    found = compare_within(zeros, truth, wide, dtype=zeros.dtype, telling=True)
    assert found
    assert found.compared == 0
    assert compare_within(zeros, truth, wide, dtype=zeros.dtype).compared == 64
    assert compare_within(truth.astype(np.float32), truth, {"output": 4.0}, dtype=zeros.dtype, telling=True).compared == 64


def test_a_tensor_of_many_axes_takes_the_memory_of_a_few_arrays() -> None:
    truth = np.random.default_rng(0).normal(size=(2,) * 17)
    tracemalloc.start()
    compare_within(truth.astype(np.float32), truth, {}, dtype=np.dtype(np.float32))
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 12 * truth.nbytes  # with an array or two for each axis: 35 and more
