"""The error budget of one output: PyTorch's own errors against the truth, pooled over the cases of a run.

One case's largest error is one draw of a random quantity and may be luckily small, most of all for an output of one
value. So a runtime is held to the largest error of all cases of its kind, and `samples` says how many values that
rests on. Cases with extreme values have a pool of their own beside the plain one, so that they loosen nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from converter.equivalence.compare import FACTOR, peak, ulps
from converter.equivalence.inputs import PLAIN

Array = np.ndarray[Any, Any]

MIN_SAMPLES = 32
"""How many values a pool should rest on: with so many, an honest runtime's chance to leave the budget is below 1e-9."""


def typical_size(truths: Iterable[Array]) -> float:
    """The root mean square of an output over the cases, each counted once; 0 when no value is finite."""
    squares = []
    for truth in truths:
        magnitude = np.abs(truth.astype(np.complex128 if truth.dtype.kind == "c" else np.float64))
        finite = magnitude[np.isfinite(magnitude)]
        if finite.size:
            squares.append(float(finite.max()) ** 2 * float(np.mean(np.square(finite / (finite.max() or 1.0)))))
    return math.sqrt(sum(squares) / len(squares)) if squares else 0.0


@dataclass
class Budget:
    """The pooled errors of one output, in ulps of each scale, by profile. `typical` is as for `compare.scales`."""

    dtype: np.dtype[Any]
    typical: float = 0.0
    pools: dict[str, dict[str, float]] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    def add(self, own: Array, truth: Array, profile: str) -> None:
        """One case: the output of the run that sets the budget, and the truth. Values that are not finite do not count."""
        if own.shape != truth.shape or own.dtype != self.dtype or not own.size:
            return
        pool = self.pools.setdefault(profile, {})
        for name, errors in ulps(own, truth, self.dtype, self.typical).items():
            pool[name] = max(pool.get(name, 0.0), peak(errors))
        self.counts[profile] = self.counts.get(profile, 0) + int(np.count_nonzero(np.isfinite(truth.astype(np.complex128))))

    def noise(self, profile: str) -> dict[str, float]:
        """The largest error by scale, of the plain cases and those of `profile`."""
        merged = dict(self.pools.get(PLAIN, {}))
        for name, error in self.pools.get(profile, {}).items():
            merged[name] = max(merged.get(name, 0.0), error)
        return merged

    def allowed(self, profile: str, factor: float = FACTOR) -> dict[str, float]:
        """What a runtime is allowed by scale, in ulps, the floor not counted."""
        return {name: factor * error for name, error in self.noise(profile).items()}

    def samples(self, profile: str = PLAIN) -> int:
        """How many values the pool rests on."""
        return self.counts.get(PLAIN, 0) + (self.counts.get(profile, 0) if profile != PLAIN else 0)
