"""When to migrate on hexagons: the decision of `walk`, over the classes of cells of `hexagons`.

A handover goes to each of the six neighbours alike. There is no closed form; policy iteration solves it once.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fmcc.policy.models.checks import amount, discount, whole
from fmcc.policy.models.decisions import Problem, Solution, policy_iteration
from fmcc.policy.models.hexagons import CellClass, classes, neighbours

MOST_DISTANCE = 60


@dataclass(frozen=True)
class Plane:
    """Rings 0 .. thr, at `thr` the service must migrate."""

    cost: float = 5.0
    gamma: float = 0.95
    thr: int = 10
    quality: float = 1.0

    def __post_init__(self) -> None:
        amount("the migration's cost", self.cost)
        amount("the quality lost by a step", self.quality, positive=True)
        discount(self.gamma)
        whole("thr", self.thr, 1, MOST_DISTANCE)


@dataclass(frozen=True)
class PlanePolicy:
    """Which classes migrate. The thresholds are the first rings that do; a corner is never later than the edges."""

    migrate: dict[CellClass, bool]
    thr: int

    @property
    def threshold(self) -> int:
        return min(ring for (ring, _), moves in self.migrate.items() if moves)

    @property
    def corner_threshold(self) -> int:
        return min(ring for (ring, hops), moves in self.migrate.items() if moves and hops == 0)

    @property
    def edge_threshold(self) -> int:
        """The first ring from which the whole ring migrates."""
        whole_rings = {ring for ring, _ in self.migrate} - {
            ring for (ring, _), moves in self.migrate.items() if not moves
        }
        return min(whole_rings)


def problem(plane: Plane) -> Problem:
    """The decision problem over the classes of the rings 0 .. thr."""
    states = classes(plane.thr + 1)
    index = {state: number for number, state in enumerate(states)}
    size = len(states)
    staying, moving = np.zeros((size, size)), np.zeros((size, size))
    ring = np.array([state[0] for state in states], float)
    moving[:, index[(1, 0)]] = 1.0
    for number, state in enumerate(states):
        if state[0] < plane.thr:
            for after in neighbours(state):
                staying[number, index[after]] += 1 / 6
    return Problem(
        staying,
        moving,
        stay_reward=-plane.quality * ring,
        move_reward=np.full(size, -plane.cost),
        may_stay=ring < plane.thr,
        may_move=ring > 0,
        gamma=plane.gamma,
    )


def policy(plane: Plane) -> PlanePolicy:
    return named(plane, policy_iteration(problem(plane)))


def named(plane: Plane, solution: Solution) -> PlanePolicy:
    """A solution's decisions by class of cell."""
    return PlanePolicy(dict(zip(classes(plane.thr + 1), solution.migrate.tolist(), strict=True)), plane.thr)
