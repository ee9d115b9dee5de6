"""The error budget of one output: PyTorch's own errors against the truth, pooled over the cases of a run.

One case's largest error is one draw of a random quantity and may be luckily small, most of all for an output of one
value. So a runtime is held to the largest error of all cases of its kind, and `samples` says how many values that
rests on. Cases with extreme values have a pool of their own beside the plain one, so that they loosen nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from converter.equivalence.compare import FACTOR, find_lost, floor_of, peak, ulps
from converter.equivalence.inputs import EXTREME, PLAIN
from converter.ir import Array

MIN_SAMPLES = 16
"""How many independent values (`independent`) a pool should rest on; with fewer, the factor grows (`factor_of`)."""

CHANCE = 1e-6
"""The chance of a false alarm that the factor for few values is made for."""


def factor_of(samples: int, factor: float = FACTOR) -> float:
    """How many times the largest of `samples` errors a runtime may stray.

    That all n errors of a normal kind are below m of their deviations has the chance (0.8 m)^n, for small m. A runtime
    whose largest error is 1.5 deviations then leaves a budget of k times the largest with the chance (1.2 / k)^n.
    """
    return max(factor, 1.2 * CHANCE ** (-1 / samples)) if samples else factor


def independent(truth: Array) -> int:
    """How many independent errors an output shows: two for each row (axis 0) that has as many finite values.

    The errors within a row are related: a softmax divides them all by one sum.
    """
    finite = np.isfinite(truth.astype(np.complex128))
    if truth.ndim < 2:
        return int(np.count_nonzero(finite))
    return int(np.minimum(np.count_nonzero(finite.reshape(len(truth), math.prod(truth.shape[1:])), axis=1), 2).sum())


def typical_size(truths: Iterable[Array]) -> float:
    """The root mean square of an output over the cases, each counted once; 0 when no value is finite."""
    sizes = []
    for truth in truths:
        magnitude = np.abs(truth.astype(np.complex128 if truth.dtype.kind == "c" else np.float64))
        finite = magnitude[np.isfinite(magnitude)]
        if finite.size:
            sizes.append(_root_mean_square(finite))
    return _root_mean_square(np.array(sizes)) if sizes else 0.0


def _root_mean_square(values: Array) -> float:
    """Of values that are not negative, whose squares may overflow."""
    largest = float(values.max())
    return largest * math.sqrt(float(np.mean(np.square(values / (largest or 1.0)))))


@dataclass
class Budget:
    """The pooled errors of one output, in ulps of each scale, by profile. `typical` is as for `compare.scales`, by profile.

    An element of which no digit is left (`compare.lost`) says nothing of how the others are rounded: `losses` has those apart.
    """

    dtype: np.dtype[Any]
    typical: Mapping[str, float] = field(default_factory=dict)
    pools: dict[str, dict[str, float]] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    losses: dict[str, dict[str, float]] = field(default_factory=dict)

    def add(self, own: Array, truth: Array, profile: str) -> None:
        """One case: the output of the run that sets the budget, and the truth. Values that are not finite do not count."""
        if own.shape != truth.shape or own.dtype != self.dtype or not own.size:
            return
        typical = self.typical.get(profile, 0.0)
        gone = find_lost(own, truth, self.dtype, typical)
        for name, errors in ulps(own, truth, self.dtype, typical).items():
            for pools, kept in ((self.pools, ~gone), (self.losses, gone)):
                pool = pools.setdefault(profile, {})
                pool[name] = max(pool.get(name, 0.0), peak(np.where(kept, errors, 0.0)))
        self.counts[profile] = self.counts.get(profile, 0) + independent(truth)

    def noise(self, profile: str) -> dict[str, float]:
        """The largest error by scale, of the plain cases and those of `profile`."""
        return larger(self.pools.get(PLAIN, {}), self.pools.get(profile, {}))

    def worst(self, profile: str) -> dict[str, float]:
        """The same with the elements of which no digit is left."""
        return larger(self.noise(profile), larger(self.losses.get(PLAIN, {}), self.losses.get(profile, {})))

    def allowed(self, profile: str) -> dict[str, float]:
        """What a runtime is allowed by scale, in ulps, the floor not counted."""
        factor = factor_of(self.samples(profile))
        return {name: factor * error for name, error in self.noise(profile).items()}

    def samples(self, profile: str = PLAIN) -> int:
        """How many values the budget of a profile rests on. Plain cases tell nothing of extreme ones."""
        own = self.counts.get(profile, 0)
        return own if profile in (PLAIN, EXTREME) else own + self.counts.get(PLAIN, 0)

    def witnessed(self, other: Budget) -> Budget:
        """These errors with another run's as a second witness, which counts as far as it is within this budget itself."""
        pools = {name: dict(pool) for name, pool in self.pools.items()}
        for profile, pool in other.pools.items():
            allowed = self.allowed(profile)
            for name, error in pool.items():
                limit = allowed.get(name, 0.0) + floor_of(self.dtype)
                mine = pools.setdefault(profile, {})
                mine[name] = max(mine.get(name, 0.0), min(error, limit))
        return Budget(self.dtype, self.typical, pools, self._counts(other), self.losses)

    def joined(self, other: Budget) -> Budget:
        """The errors of both."""
        pools, losses = ({name: larger(mine.get(name, {}), others.get(name, {})) for name in {**mine, **others}}
                         for mine, others in ((self.pools, other.pools), (self.losses, other.losses)))
        return Budget(self.dtype, self.typical, pools, self._counts(other), losses)

    def _counts(self, other: Budget) -> dict[str, int]:
        return {name: self.counts.get(name, 0) + other.counts.get(name, 0) for name in {**self.counts, **other.counts}}


def larger(first: Mapping[str, float], second: Mapping[str, float]) -> dict[str, float]:
    """The larger error of each scale."""
    return {name: max(first.get(name, 0.0), second.get(name, 0.0)) for name in {**first, **second}}
