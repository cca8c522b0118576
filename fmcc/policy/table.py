"""The closed form's thresholds, computed once over a grid of walks and costs: a decision is a look-up.

Rows are walks (the outward share of the handovers that change the distance, and the share that do not) and costs.
`migrate` decides for arrays of users at once.
"""

from __future__ import annotations

import math

import numpy as np

from fmcc.policy.models.arrays import Bools, Integers
from fmcc.policy.models.checks import BadParameter, discount, whole
from fmcc.policy.models.walk import thresholds

SHARES = 41  # p in steps of 1/40
STAYS = 11  # stay in steps of 1/10, up to .9
LEAST_COST, MOST_COST, COSTS = 0.01, 1e4, 61  # in steps of a quarter of an e-fold
MOST_DISTANCE = 100
"""The table grows with it: 3 MB and two thirds of a second here."""


class ThresholdTable:
    """Thresholds by (p, stay, cost), for one discount and one longest distance."""

    def __init__(self, *, gamma: float = 0.95, thr: int = 10) -> None:
        discount(gamma)
        self.thr = whole("thr", thr, 1, MOST_DISTANCE)
        share = np.linspace(0.0, 1.0, SHARES)
        stay = np.linspace(0.0, 1.0, STAYS)
        cost = np.geomspace(LEAST_COST, MOST_COST, COSTS)
        grid = [
            thresholds(share[:, None] * (1 - each), each, cost, gamma=gamma, thr=thr).astype(np.int16) for each in stay
        ]
        self.thresholds: Integers = np.stack(grid, axis=1).reshape(-1)
        self._plain: list[int] = self.thresholds.tolist()  # a list answers one question faster than an array
        distances = np.arange(thr + 1)
        self._migrate: Bools = (distances >= self.thresholds[:, None]).reshape(-1)

    def row(self, p: float, stay: float, cost: float) -> int:
        """Which row a walk and a cost are nearest to. `p` and `stay` are of all handovers, as in `walk`."""
        if not (0.0 <= p <= 1.0 and 0.0 <= stay <= 1.0 and p + stay <= 1.0 + 1e-9):
            raise BadParameter(f"p {p} and stay {stay} are no probabilities of one walk; together they are at most 1")
        share = round((p / (1 - stay) if stay < 1 else 0.0) * (SHARES - 1))
        scaled = math.log(min(max(cost, LEAST_COST), MOST_COST) / LEAST_COST) / math.log(MOST_COST / LEAST_COST)
        return (min(share, SHARES - 1) * STAYS + round(stay * (STAYS - 1))) * COSTS + round(scaled * (COSTS - 1))

    def threshold(self, p: float, stay: float, cost: float) -> int:
        return self._plain[self.row(p, stay, cost)]

    def migrate(self, rows: Integers, distances: Integers) -> Bools:
        """For each user, by its row and its distance 0 .. thr, whether its service moves."""
        return np.take(self._migrate, rows * (self.thr + 1) + distances)
