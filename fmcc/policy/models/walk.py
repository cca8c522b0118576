"""When to migrate on a line: the policy that the controller runs, in closed form.

On a handover to distance d the service moves to the user (d' = 0, costs `cost`) or stays (d' = d); the cell is served
at quality -K d'; the next handover goes outward with p, inward with q = 1 - p - stay, or keeps the distance with
`stay`; from 0 always to 1. At `thr` it must migrate. The best policy is a threshold T, and its value solves a linear
recurrence: V(s) = A m1^(s-T) + B m2^s + a + b s.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from fmcc.policy.models.arrays import Floats, Integers
from fmcc.policy.models.checks import amount, discount, probability, summing, whole
from fmcc.policy.models.decisions import Problem

MOST_DISTANCE = 100_000


@dataclass(frozen=True)
class Walk:
    """A walk and what it costs. `quality` is K, what one step of distance costs for one handover's time."""

    p: float
    stay: float = 0.0
    cost: float = 5.0
    gamma: float = 0.95
    thr: int = 50
    quality: float = 1.0

    def __post_init__(self) -> None:
        probability("p", self.p)
        probability("stay", self.stay)
        # whoever gives p and stay leaves 1 - p - stay to the way in; rounding must not make that negative
        summing("p, stay and the way inward", (self.p, self.stay, max(0.0, 1.0 - self.p - self.stay)))
        amount("the migration's cost", self.cost)
        amount("the quality lost by a step", self.quality, positive=True)
        discount(self.gamma)
        whole("thr", self.thr, 1, MOST_DISTANCE)

    @property
    def q(self) -> float:
        return max(0.0, 1.0 - self.p - self.stay)


def threshold(walk: Walk) -> int:
    """The smallest distance at which to migrate; `thr` when only necessity moves the service."""
    found = thresholds(walk.p, walk.stay, walk.cost, gamma=walk.gamma, thr=walk.thr, quality=walk.quality)
    return int(found)


def thresholds(
    p: ArrayLike, stay: ArrayLike, cost: ArrayLike, *, gamma: float, thr: int, quality: float = 1.0
) -> Integers:
    """The thresholds of many walks at once; p, stay and cost are broadcast against one another."""
    p, stay, cost = np.broadcast_arrays(*(np.asarray(each, float)[..., None] for each in (p, stay, cost)))
    at = np.arange(1.0, thr + 1)
    with np.errstate(divide="ignore", over="ignore", under="ignore"):
        gain = _gain(p, stay, cost, gamma, quality, at)
    migrate = gain > 0
    migrate[..., -1] = True  # at thr there is no choice
    return np.asarray(migrate.argmax(axis=-1) + 1)


def _gain(p: Floats, stay: Floats, cost: Floats, gamma: float, quality: float, at: Floats) -> Floats:
    """Whether migrating at T beats one more step, by its sign: p (W(T + 1) - V(T)), where V is the value of threshold T
    and W goes on beyond T without migrating. Unlike V(0) as a function of T, this does not flatten out at small p."""
    q = np.maximum(0.0, 1.0 - p - stay)
    middle = 1 - gamma * stay
    root = np.sqrt(middle**2 - 4 * gamma**2 * p * q)
    outward = (middle + root) / (2 * gamma)  # p m1, finite even when p is 0
    m1 = outward / p
    m2 = 2 * gamma * q / (middle + root)  # the smaller root without cancellation
    b = -quality / (1 - gamma)
    a = gamma * (p - q) * b / (1 - gamma)
    # V(0) = gamma V(1) and V(T) = V(0) - cost, for A and B
    a1 = m1**-at - gamma * m1 ** (1 - at)
    b1 = 1 - gamma * m2
    c1 = gamma * (a + b) - a
    a2 = 1 - m1**-at
    b2 = m2**at - 1
    c2 = -cost - b * at
    determinant = a1 * b2 - a2 * b1
    big_a = (c1 * b2 - c2 * b1) / determinant
    big_b = (a1 * c2 - a2 * c1) / determinant
    gain: Floats = big_a * (outward - p) + p * (big_b * m2**at * (m2 - 1) + b)
    return gain


def problem(walk: Walk) -> Problem:
    """The same walk as a decision problem over the distances 0 .. thr."""
    size = walk.thr + 1
    staying, moving = np.zeros((size, size)), np.zeros((size, size))
    moving[:, 1] = 1.0  # the service is beside its user, who goes on to distance 1
    staying[0, 1] = 1.0
    inner = np.arange(1, walk.thr)
    staying[inner, inner + 1] = walk.p
    staying[inner, inner - 1] = walk.q
    staying[inner, inner] = walk.stay
    states = np.arange(size)
    return Problem(
        staying,
        moving,
        stay_reward=-walk.quality * states,
        move_reward=np.full(size, -walk.cost),
        may_stay=states < walk.thr,
        may_move=states > 0,
        gamma=walk.gamma,
    )
