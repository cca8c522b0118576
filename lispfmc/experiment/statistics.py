"""From the runs of a point to its figures: quantiles, and intervals by bootstrap. Pure; the seed comes in.

Quantiles are nearest-rank: a value that was measured. So the 99th percentile of 50 runs is their maximum, and a gate
belongs on the pooled 95th. No run is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

import msgspec
import numpy as np
from numpy.typing import NDArray

RESAMPLES = 10_000
LEVEL = 0.95


class Interval(msgspec.Struct, frozen=True):
    """Where the figure lies with 95 % confidence (percentile bootstrap)."""

    low: float
    high: float


class Outcome(msgspec.Struct, frozen=True):
    """What of one run goes into a summary."""

    added_ms: float
    lost: int
    duplicated: int
    reordered: int
    added_new_ms: float = 0.0


class Summary(msgspec.Struct, frozen=True):
    """The runs of one point. Added downtime in milliseconds; packets are summed over the runs."""

    n: int
    added_p50: float
    added_p95: float
    added_p99: float
    added_max: float
    added_p50_ci: Interval
    added_p95_ci: Interval
    lost: int
    duplicated: int
    reordered: int
    runs_with_loss: int
    added_new_p50: float
    added_new_p95: float


def quantile(values: Sequence[float], share: float) -> float:
    """The nearest-rank quantile: the smallest value that at least `share` of all are not above."""
    ordered = sorted(values)
    return ordered[max(0, ceil(share * len(ordered) - 1e-9) - 1)]


def median(values: Sequence[float]) -> float:
    """The middle value, or the mean of the two in the middle."""
    return float(np.median(values))


def interval(values: Sequence[float], share: float, seed: int) -> Interval:
    """The bootstrap interval of a quantile (0.5: the median)."""
    rng = np.random.default_rng(seed)
    ordered = np.sort(np.asarray(values, dtype=float))
    picked = ordered[np.sort(rng.integers(0, len(ordered), (RESAMPLES, len(ordered))), axis=1)]
    resampled = _median_of_rows(picked) if share == 0.5 else picked[:, max(0, ceil(share * len(ordered) - 1e-9) - 1)]
    low, high = np.quantile(resampled, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(round(float(low), 3), round(float(high), 3))


def summary(runs: Sequence[Outcome], seed: int) -> Summary:
    """The figures of at least one run."""
    added = [run.added_ms for run in runs]
    return Summary(
        n=len(runs),
        added_p50=round(median(added), 3),
        added_p95=quantile(added, 0.95),
        added_p99=quantile(added, 0.99),
        added_max=max(added),
        added_p50_ci=interval(added, 0.5, seed),
        added_p95_ci=interval(added, 0.95, seed),
        lost=sum(run.lost for run in runs),
        duplicated=sum(run.duplicated for run in runs),
        reordered=sum(run.reordered for run in runs),
        runs_with_loss=sum(run.lost > 0 for run in runs),
        added_new_p50=round(median([run.added_new_ms for run in runs]), 3),
        added_new_p95=quantile([run.added_new_ms for run in runs], 0.95),
    )


def _median_of_rows(ordered: NDArray[np.float64]) -> NDArray[np.float64]:
    count = ordered.shape[1]
    middle: NDArray[np.float64] = (ordered[:, (count - 1) // 2] + ordered[:, count // 2]) / 2
    return middle
