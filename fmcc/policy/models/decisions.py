"""A decision problem with two actions in each state, stay (C) and migrate (M), and the two ways of solving it.

Value iteration and policy iteration check the closed forms; the controller runs neither.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fmcc.policy.models.arrays import Bools, Floats
from fmcc.policy.models.checks import BadParameter, discount

ROW_TOLERANCE = 1e-9
TIE = 1e-9
"""Values nearer than this are a tie, and a tie stays: the arithmetic cannot tell them apart."""
MOST_ROUNDS = 200_000


@dataclass(frozen=True)
class Problem:
    """`staying` and `moving` are transition matrices, with the rewards of each state; an action may be barred."""

    staying: Floats
    moving: Floats
    stay_reward: Floats
    move_reward: Floats
    may_stay: Bools
    may_move: Bools
    gamma: float

    def __post_init__(self) -> None:
        discount(self.gamma)
        for name, matrix, allowed in (("C", self.staying, self.may_stay), ("M", self.moving, self.may_move)):
            rows = matrix[allowed]
            wrong = np.flatnonzero((np.abs(rows.sum(axis=1) - 1.0) > ROW_TOLERANCE) | (rows < 0).any(axis=1))
            if wrong.size:
                state = int(np.flatnonzero(allowed)[wrong[0]])
                total = float(matrix[state].sum())
                raise BadParameter(
                    f"action {name} in state {state}: its probabilities sum to {total:.12g} or one is negative; "
                    "correct the transition matrix"
                )
        if not (self.may_stay | self.may_move).all():
            raise BadParameter("a state has no action; allow at least one in each")


@dataclass(frozen=True)
class Solution:
    """The value of each state and whether the service migrates there."""

    values: Floats
    migrate: Bools

    @property
    def threshold(self) -> int:
        """The first state that migrates; the number of states when none does."""
        return int(np.argmax(self.migrate)) if self.migrate.any() else len(self.migrate)


def _worth(problem: Problem, values: Floats) -> tuple[Floats, Floats]:
    """What each action is worth when the future is worth `values`."""
    stay = problem.stay_reward + problem.gamma * (problem.staying @ values)
    move = problem.move_reward + problem.gamma * (problem.moving @ values)
    return np.where(problem.may_stay, stay, -np.inf), np.where(problem.may_move, move, -np.inf)


def value_iteration(problem: Problem, precision: float = 1e-11) -> Solution:
    """Until every value is within `precision` of the optimum, relative to the largest."""
    values = np.zeros(len(problem.stay_reward))
    for _ in range(MOST_ROUNDS):
        stay, move = _worth(problem, values)
        better = np.maximum(stay, move)
        # MacQueen's bounds: the optimum lies between better + low and better + high
        change = (better - values) * problem.gamma / (1 - problem.gamma)
        low, high = change.min(), change.max()
        values = better
        if high - low < precision * max(1.0, float(np.abs(better).max())):
            values = better + (low + high) / 2
            break
    stay, move = _worth(problem, values)
    return Solution(values, move > stay + TIE)


def policy_iteration(problem: Problem) -> Solution:
    """Evaluate exactly, improve, until nothing improves by more than a tie."""
    size = len(problem.stay_reward)
    migrate = ~problem.may_stay
    for _ in range(size + 1_000):
        matrix = np.where(migrate[:, None], problem.moving, problem.staying)
        reward = np.where(migrate, problem.move_reward, problem.stay_reward)
        values = np.linalg.solve(np.eye(size) - problem.gamma * matrix, reward)
        stay, move = _worth(problem, values)
        improved = np.where(migrate, move >= stay - TIE, move > stay + TIE)
        if (improved == migrate).all():
            return Solution(values, move > stay + TIE)
        migrate = improved
    raise AssertionError("policy iteration ends: each round is better than the last")
