"""Policies judged on journeys: the first half teaches those that learn, the second half scores all of them.

Beside the policies that are asked for stand never and always, each user's best fixed threshold in hindsight, and the
clairvoyant bound: what decisions with the whole future known would have cost, which no policy can beat.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from fmcc.policy.learned import ENOUGH
from fmcc.policy.mdp import PRIOR
from fmcc.policy.models.arrays import Floats, Integers
from fmcc.policy.models.checks import BadParameter, amount
from fmcc.policy.registry import KNOWN, threshold_of
from fmcc.policy.simulation.journeys import Bill, Journeys
from fmcc.policy.table import ThresholdTable

BEST, BOUND = "best-fixed", "clairvoyant"
ALWAYS_THERE = ("never", "always")
NEVER = np.inf


@dataclass(frozen=True)
class Score:
    """Of one policy over all users. `over_best` and `over_bound` are how much more it cost, as a share."""

    policy: str
    cost_per_handover: float
    migrations_per_handover: float | None
    mean_distance: float | None
    over_best: float | None
    over_bound: float | None


@dataclass(frozen=True)
class _Sum:
    """What a policy paid, over users."""

    cost: float = 0.0
    migrations: float = 0.0
    distance: float = 0.0

    def __add__(self, other: _Sum) -> _Sum:
        return _Sum(self.cost + other.cost, self.migrations + other.migrations, self.distance + other.distance)


class Scorer:
    """Scores one set of policies; journeys of any length and number may be added up."""

    def __init__(
        self, policies: Iterable[str], *, cost: float = 5.0, quality: float = 1.0, gamma: float = 0.95, thr: int = 10
    ) -> None:
        """Raises BadParameter."""
        self._cost = amount("the migration's cost", cost)
        self._quality = amount("the quality lost by a step", quality, positive=True)
        self._table = ThresholdTable(gamma=gamma, thr=thr)
        self._thr = thr
        self.policies = list(dict.fromkeys([*ALWAYS_THERE, *policies]))
        for name in self.policies:
            _known(name)
        self._sums = dict.fromkeys([*self.policies, BEST, BOUND], _Sum())
        self.handovers = 0
        self.users = 0

    def add(self, journeys: Journeys) -> None:
        """Users that made equally many handovers."""
        learning, scored = journeys.halves()
        lesson = learning.pay(self._every(learning), self._cost, self._quality)
        chosen = [self._thresholds(name, lesson, learning.handovers) for name in self.policies]
        bill = scored.pay(np.stack(chosen, axis=1), self._cost, self._quality)
        for column, name in enumerate(self.policies):
            self._sums[name] += _total(bill, np.full(scored.users, column))
        fixed = np.concatenate([self._every(scored), np.full((scored.users, 1), NEVER)], axis=1)
        every = scored.pay(fixed, self._cost, self._quality)
        self._sums[BEST] += _total(every, every.cost.argmin(axis=1))
        self._sums[BOUND] += _Sum(float(scored.clairvoyant(self._cost, self._quality).sum()))
        self.handovers += scored.handovers * scored.users
        self.users += scored.users

    def scores(self) -> list[Score]:
        if not self.handovers:
            raise BadParameter("no handover to score; give longer journeys")
        best, bound = self._sums[BEST].cost, self._sums[BOUND].cost
        return [
            Score(
                name,
                each.cost / self.handovers,
                None if name == BOUND else each.migrations / self.handovers,
                None if name == BOUND else each.distance / self.handovers,
                _more(each.cost, best),
                _more(each.cost, bound),
            )
            for name, each in self._sums.items()
        ]

    def _every(self, journeys: Journeys) -> Floats:
        """Each threshold 1 .. thr for each user."""
        return np.broadcast_to(np.arange(1.0, self._thr + 1), (journeys.users, self._thr))

    def _thresholds(self, name: str, lesson: Bill, handovers: int) -> Floats:
        """The threshold that a policy has for each user after the lesson."""
        users = len(lesson.cost)
        match name:
            case "never":
                return np.full(users, NEVER)
            case "always" | "nearest":
                return np.ones(users)
            case "mdp":
                return self._modelled(lesson).astype(float)
            case "learned":
                start = self._modelled(lesson)
                if handovers < ENOUGH:
                    return start.astype(float)
                return np.array([_best(costs, at) for costs, at in zip(lesson.cost, start, strict=True)], float)
            case _:
                return np.full(users, threshold_of(name))

    def _modelled(self, lesson: Bill) -> Integers:
        """The table's threshold for each user's walk, counted while the service followed as for a symmetric walk."""
        column = self._table.threshold(0.5, 0.0, self._cost / self._quality) - 1
        outward, inward, same = (each[:, column] for each in (lesson.outward, lesson.inward, lesson.same))
        total = outward + inward + same + 2 * PRIOR
        walks = zip((outward + PRIOR) / total, same / total, strict=True)
        return np.array([self._table.threshold(p, stay, self._cost / self._quality) for p, stay in walks])


def score(journeys: Sequence[Journeys], scorer: Scorer) -> list[Score]:
    for each in journeys:
        scorer.add(each)
    return scorer.scores()


def _known(name: str) -> None:
    if name in ("never", "always", "nearest", "mdp", "learned"):
        return
    try:
        threshold_of(name)
    except BadParameter as error:
        raise BadParameter(f"no policy {name!r}, known are {KNOWN}; choose one") from error


def _best(costs: Floats, start: int) -> int:
    """The cheapest threshold; among equals the one nearest to where it started."""
    equal = np.flatnonzero(costs <= costs.min() + 1e-9 * max(1.0, abs(float(costs.min())))) + 1
    return int(min(equal.tolist(), key=lambda threshold: (abs(threshold - start), threshold)))


def _total(bill: Bill, columns: Integers) -> _Sum:
    rows = np.arange(len(columns))
    picked = (each[rows, columns].sum() for each in (bill.cost, bill.migrations, bill.distance))
    return _Sum(*map(float, picked))


def _more(cost: float, than: float) -> float | None:
    return cost / than - 1 if than > 0 else None
