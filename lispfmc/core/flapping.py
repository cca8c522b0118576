"""EIDs that change hands too often (damped), and EIDs that two xTRs say they have (contested).

A host is at one place. One that flips about costs every map-cache and every subscriber an update each time, so it is
kept where it is for a while; one that is seen at two sites is a mistake of the network or somebody's attempt.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
from typing import TypeVar

from lispfmc.core.registry import Owner
from lispfmc.wire.address import Prefix

K = TypeVar("K")
V = TypeVar("V")

WATCHED = 65_536  # EIDs that changed hands lately; in a storm the oldest are forgotten, and with them the alarm
CLAIMS = 3  # registrations by an xTR that has lost the EID: once may be under way, the second lost the Map-Notify


class Flapping:
    """More than `alarm` changes in `period_s` raise an alarm, more than `damp` hold the EID where it is for `hold_s`;
    the same owner again within `contest_s` makes it contested."""

    def __init__(self, alarm: int, damp: int, period_s: float, hold_s: float, contest_s: float) -> None:
        self._alarm = alarm
        self._damp = damp
        self._period_s = period_s
        self._hold_s = hold_s
        self._contest_s = contest_s
        self._moves: dict[Prefix, deque[tuple[float, Owner]]] = {}  # when, and away from whom
        self._claims: dict[tuple[Prefix, Owner], list[float]] = {}
        self._held: dict[Prefix, float] = {}  # until when; in that order, and as many as change hands so often
        self._alarmed: dict[Prefix, float] = {}

    def held(self, now: float) -> Collection[Prefix]:
        """The EIDs that are damped."""
        while self._held and self._held[eid := next(iter(self._held))] <= now:
            del self._held[eid]
        return self._held

    def changed(self, eid: Prefix, before: Owner, after: Owner, now: float) -> str | None:
        """The EID went from one xTR to another: "damped", "flapping" or "contested" when that is one too many."""
        moves = self._moves.pop(eid, None)
        if moves is None:
            moves = deque(maxlen=self._damp)
            _bound(self._moves)
        self._moves[eid] = moves
        while moves and now - moves[0][0] > self._period_s:
            moves.popleft()
        back = bool(moves) and moves[-1][1] == after and now - moves[-1][0] <= self._contest_s
        if len(moves) == self._damp:
            self._held.pop(eid, None)
            self._held[eid] = now + self._hold_s
        often = len(moves)
        moves.append((now, before))
        if often == self._damp:
            return "damped"
        if not (back or often >= self._alarm) or not self._first(eid, now):
            return None
        return "flapping" if often >= self._alarm else "contested"

    def claimed(self, eid: Prefix, owner: Owner, now: float) -> bool:
        """An xTR registers what it has lost: whether that makes it contested."""
        key = (eid, owner)
        times = [at for at in self._claims.pop(key, ()) if now - at <= self._period_s]
        _bound(self._claims)
        self._claims[key] = [*times, now][-CLAIMS:]
        return len(times) + 1 >= CLAIMS and self._first(eid, now)

    def _first(self, eid: Prefix, now: float) -> bool:
        """One alarm a period is enough."""
        if now - self._alarmed.get(eid, -self._period_s) < self._period_s:
            return False
        self._alarmed.pop(eid, None)
        _bound(self._alarmed)
        self._alarmed[eid] = now
        return True


def _bound(watched: dict[K, V]) -> None:
    if len(watched) >= WATCHED:
        del watched[next(iter(watched))]
