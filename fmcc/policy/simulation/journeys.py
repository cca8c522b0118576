"""Where users go, as handovers. Nothing that a policy does changes it, so that every threshold has the same past.

A journey is asked for what each threshold would have paid (`pay`) and for the least that any decisions could have paid
(`clairvoyant`), with the whole future known. Arrays hold many users of equally many handovers side by side.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from fmcc.policy.models.arrays import Bools, Floats, Integers
from fmcc.policy.models.checks import BadParameter, probability, summing, whole
from fmcc.policy.models.hexagons import DIRECTIONS

MOST_STEPS = 20_000_000
"""Handovers of all users together: bounded by memory, not by time."""


@dataclass(frozen=True)
class Bill:
    """What each user (row) paid with each threshold (column)."""

    cost: Floats
    migrations: Integers
    distance: Floats
    outward: Integers
    inward: Integers
    same: Integers
    """Handovers from a distance above 0, by what they did to it."""


class Journeys(Protocol):
    @property
    def users(self) -> int: ...

    @property
    def handovers(self) -> int:
        """Of each user."""

    def halves(self) -> tuple[Journeys, Journeys]: ...

    def pay(self, thresholds: Floats, cost: float, quality: float) -> Bill: ...

    def clairvoyant(self, cost: float, quality: float) -> Floats: ...


class _Meter:
    """Sums up a bill. `distances` are those of a handover, before and after the decision."""

    def __init__(self, thresholds: Floats, cost: float, quality: float) -> None:
        self._thresholds, self._price, self._quality = thresholds, cost, quality
        shape = thresholds.shape
        self.cost, self.distance = np.zeros(shape), np.zeros(shape)
        self.migrations, self.outward, self.inward, self.same = (np.zeros(shape, np.int64) for _ in range(4))
        self._last = np.zeros(shape)

    def begin(self) -> None:
        """The services are beside their users, who have not moved."""
        self._last = np.zeros_like(self._last)

    def handover(self, distances: Integers) -> Bools:
        """Which services migrate."""
        counted = self._last > 0
        self.outward += counted & (distances > self._last)
        self.inward += counted & (distances < self._last)
        self.same += counted & (distances == self._last)
        migrate = distances >= self._thresholds
        self._last = np.where(migrate, 0.0, distances)
        self.migrations += migrate
        self.distance += self._last
        self.cost += np.where(migrate, self._price, self._quality * distances)
        return migrate

    def bill(self) -> Bill:
        return Bill(self.cost, self.migrations, self.distance, self.outward, self.inward, self.same)


@dataclass(frozen=True)
class Line:
    """The walk of the decision model: +1 is outward, -1 inward, 0 keeps the distance; from 0 always to 1."""

    moves: Integers

    @classmethod
    def walk(cls, users: int, handovers: int, p: float, stay: float, seed: int) -> Line:
        probability("p", p)
        probability("stay", stay)
        summing("p, stay and the way inward", (p, stay, max(0.0, 1.0 - p - stay)))
        _sized(users, handovers)
        drawn = np.random.default_rng(seed).random((users, handovers))
        return cls(np.where(drawn < p, 1, np.where(drawn < p + stay, 0, -1)).astype(np.int8))

    @property
    def users(self) -> int:
        return len(self.moves)

    @property
    def handovers(self) -> int:
        return int(self.moves.shape[1])

    def halves(self) -> tuple[Line, Line]:
        middle = self.handovers // 2
        return Line(self.moves[:, :middle]), Line(self.moves[:, middle:])

    def pay(self, thresholds: Floats, cost: float, quality: float) -> Bill:
        meter = _Meter(thresholds, cost, quality)
        distances = np.zeros(thresholds.shape, np.int64)
        for number in range(self.handovers):
            distances = np.where(distances == 0, 1, distances + self.moves[:, number, None])
            distances = np.where(meter.handover(distances), 0, distances)
        return meter.bill()

    def clairvoyant(self, cost: float, quality: float) -> Floats:
        """The least cost to be at each distance, handover by handover."""
        farthest = self._farthest() + 1
        least = np.full((self.users, farthest + 1), np.inf)
        least[:, 0] = 0.0
        steps = quality * np.arange(farthest + 1)
        for number in range(self.handovers):
            moves = self.moves[:, number]
            after = np.full_like(least, np.inf)
            after[:, 2:] = np.where(moves[:, None] > 0, least[:, 1:-1], np.inf)
            after[:, :-1] = np.minimum(after[:, :-1], np.where(moves[:, None] < 0, least[:, 1:], np.inf))
            after[:, 1:] = np.minimum(after[:, 1:], np.where(moves[:, None] == 0, least[:, 1:], np.inf))
            after[:, 1] = np.minimum(after[:, 1], least[:, 0])
            migrated = after.min(axis=1) + cost
            least = after + steps
            least[:, 0] = np.minimum(least[:, 0], migrated)
        return np.asarray(least.min(axis=1))

    def _farthest(self) -> int:
        """At least as far as any user gets from any service: never more than one step beyond a walk reflected at 0."""
        walked = np.cumsum(self.moves, axis=1, dtype=np.int64)
        lowest = np.minimum.accumulate(np.minimum(walked, 0), axis=1)
        return int((walked - lowest).max()) + 2


@dataclass(frozen=True)
class Cells:
    """Journeys over hexagons: `cells` is users x positions x 2. Where `begins`, a session does: the service is beside
    its user, and the position is no handover. Every other position is one, over one cell or several."""

    cells: Integers
    begins: Bools

    @classmethod
    def walk(cls, users: int, handovers: int, seed: int) -> Cells:
        """Each neighbour alike."""
        _sized(users, handovers)
        drawn = np.random.default_rng(seed).integers(0, len(DIRECTIONS), (users, handovers))
        steps = np.array(DIRECTIONS, np.int32)[drawn]
        start = np.zeros((users, 1, 2), np.int32)
        return cls(np.concatenate([start, np.cumsum(steps, axis=1)], axis=1), _first(handovers + 1))

    @property
    def users(self) -> int:
        return len(self.cells)

    @property
    def handovers(self) -> int:
        return int((~self.begins).sum())

    def halves(self) -> tuple[Cells, Cells]:
        """By handovers. The second half begins where the first ends."""
        passed = np.cumsum(~self.begins)
        middle = int(np.searchsorted(passed, self.handovers // 2)) if self.handovers else 0
        return self._part(0, middle + 1), self._part(middle, len(self.begins))

    def pay(self, thresholds: Floats, cost: float, quality: float) -> Bill:
        meter = _Meter(thresholds, cost, quality)
        shape = (*thresholds.shape, 2)
        places = np.broadcast_to(self.cells[:, 0, None], shape)
        for number, begins in enumerate(self.begins.tolist()):
            here = self.cells[:, number, None]
            if begins:
                places = np.broadcast_to(here, shape)
                meter.begin()
            else:
                migrate = meter.handover(_distance(places - here))
                places = np.where(migrate[..., None], here, places)
        return meter.bill()

    def clairvoyant(self, cost: float, quality: float) -> Floats:
        return np.array([self._clairvoyant(user, cost, quality) for user in range(self.users)])

    def _clairvoyant(self, user: int, cost: float, quality: float) -> float:
        """The least cost to have the service in each cell that is ever visited; it can only go where the user is."""
        visited, index = np.unique(self.cells[user], axis=0, return_inverse=True)
        least = np.full(len(visited), np.inf)
        base = 0.0
        for number, begins in enumerate(self.begins.tolist()):
            here = index.reshape(-1)[number]
            if begins:
                base = float(least.min()) if number else 0.0
                least = np.full(len(visited), np.inf)
                least[here] = base
            else:
                migrated = least.min() + cost
                least = least + quality * _distance(visited - visited[here])
                least[here] = min(least[here], migrated)
        return float(least.min())

    def _part(self, first: int, end: int) -> Cells:
        begins = self.begins[first:end].copy()
        begins[:1] = True
        return Cells(self.cells[:, first:end], begins)


def _distance(between: Integers) -> Integers:
    q, r = between[..., 0], between[..., 1]
    return np.asarray(np.maximum(np.maximum(np.abs(q), np.abs(r)), np.abs(q + r)))


def _first(positions: int) -> Bools:
    begins = np.zeros(positions, bool)
    begins[0] = True
    return begins


def _sized(users: int, handovers: int) -> None:
    whole("the number of users", users, 1, MOST_STEPS)
    whole("the number of handovers", handovers, 2, MOST_STEPS)
    if users * handovers > MOST_STEPS:
        raise BadParameter(f"{users} users with {handovers} handovers are more than {MOST_STEPS:,}; simulate fewer")
