"""Where a user is relative to the data centre that serves it, when the service moves at ring k (paper B, Figs 10-13).

A random walk over hexagonal cells; a move into ring k migrates the service, and the user is at distance 0 again. The
chain over classes of cells (`aggregated`) equals the chain over single cells (`full`), which is kept as its check.
Residence times are equal everywhere, so that the embedded chain's distribution is the continuous one's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fmcc.policy.models.arrays import Floats
from fmcc.policy.models.checks import amount, whole
from fmcc.policy.models.hexagons import DIRECTIONS, CellClass, cells, class_of, classes, distance, neighbours

MOST_RINGS = 80
"""The classes grow with the square of k and the solution with their cube: 1,680 classes take about a second."""
MOST_RINGS_FULL = 24
DELAY_S = 0.02
"""The paper's latency law: a user at ring i sees 0.02 i^2 seconds."""
OBJECT_BITS = 1e9
"""The paper's service: 1 Gb, of 10^9 bit."""
SIGNALS = 3
"""Signalling messages of a migration (the paper's 3 SIG)."""


@dataclass(frozen=True)
class Position:
    """The stationary position: the probability of each class, and what follows from it."""

    rings: int
    probability: dict[CellClass, float]
    migrations_per_handover: float

    @property
    def pi0(self) -> float:
        """The probability that the user is served by its optimal data centre."""
        return self.probability[(0, 0)]

    @property
    def ring_probability(self) -> list[float]:
        totals = [0.0] * self.rings
        for (ring, _), value in self.probability.items():
            totals[ring] += value
        return totals

    @property
    def mean_distance(self) -> float:
        return sum(ring * value for ring, value in enumerate(self.ring_probability))

    @property
    def mean_delay_s(self) -> float:
        return sum(DELAY_S * ring**2 * value for ring, value in enumerate(self.ring_probability))

    def cost(self, object_bits: float = OBJECT_BITS, signal_bits: float = 0.0) -> float:
        """Bits that migrations move for each handover; the paper gives signalling messages no size."""
        size = amount("the object's size", object_bits) + SIGNALS * amount("a signalling message's size", signal_bits)
        return self.migrations_per_handover * size


def aggregated(rings: int) -> Position:
    """The chain over classes. Raises BadParameter."""
    whole("rings", rings, 1, MOST_RINGS)
    states = classes(rings)
    index = {state: number for number, state in enumerate(states)}
    matrix = np.zeros((len(states), len(states)))
    leaving = np.zeros(len(states))
    for number, state in enumerate(states):
        for after in neighbours(state):
            matrix[number, index.get(after, 0)] += 1 / 6
            leaving[number] += (after[0] == rings) / 6
    share = stationary(matrix)
    return Position(rings, dict(zip(states, share.tolist(), strict=True)), float(share @ leaving))


def full(rings: int) -> Position:
    """The chain over all 3 k (k - 1) + 1 cells, summed up by class: what the aggregated chain must equal."""
    whole("rings", rings, 1, MOST_RINGS_FULL)
    states = cells(rings)
    index = {state: number for number, state in enumerate(states)}
    centre = index[(0, 0)]
    matrix = np.zeros((len(states), len(states)))
    leaving = np.zeros(len(states))
    for number, (q, r) in enumerate(states):
        for step_q, step_r in DIRECTIONS:
            after = (q + step_q, r + step_r)
            matrix[number, index.get(after, centre)] += 1 / 6
            leaving[number] += (distance(after, (0, 0)) == rings) / 6
    share = stationary(matrix)
    probability = dict.fromkeys(classes(rings), 0.0)
    for state, value in zip(states, share.tolist(), strict=True):
        probability[class_of(state)] += value
    return Position(rings, probability, float(share @ leaving))


def stationary(matrix: Floats) -> Floats:
    """pi with pi P = pi and sum 1: one balance equation is redundant, and gives way to the sum."""
    size = len(matrix)
    equations = matrix.T - np.eye(size)
    equations[-1] = 1.0
    right = np.zeros(size)
    right[-1] = 1.0
    return np.linalg.solve(equations, right)


def by_rings(most: int) -> Sequence[Position]:
    """k = 1 .. most: the x axis of the paper's figures."""
    return [aggregated(rings) for rings in range(1, most + 1)]
