"""EIDs that come and go too often: each further arrival has to wait, and an alarm says so.

An EID that arrives more than a few times a minute is either handed to and fro, or at two sites at once. Taking each
arrival at its word would have two xTRs register it by turns for ever. So it is held off, longer each time, and asked
again when the time is over: if it is still here then, it is taken.
"""

from __future__ import annotations

from lispfmc.core.deadlines import Deadlines
from lispfmc.core.effects import Emit
from lispfmc.wire.address import Prefix

WINDOW_S = 60.0
FREE = 5  # arrivals in the window that are taken at their word
LONGEST_HOLD_S = 8.0
MOST_EIDS = 65_536  # whose arrivals are remembered; the oldest is forgotten


class Damping:
    """Who arrived how often."""

    def __init__(self) -> None:
        self._arrivals: dict[Prefix, tuple[float, ...]] = {}
        self._held: Deadlines[Prefix] = Deadlines()
        self._waited: set[Prefix] = set()

    def arrives(self, eid: Prefix, now: float) -> tuple[bool, list[Emit]]:
        """Whether the arrival is taken now, and the alarm if one is due."""
        if eid in self._held:
            return False, []
        recent = (*self._recent(eid, now), now)
        if len(recent) > FREE and eid not in self._waited:
            hold_s = min(2.0 ** (len(recent) - FREE - 1), LONGEST_HOLD_S)
            self._held.set(eid, now + hold_s)
            return False, [Emit("host.flapping", {"eid": str(eid), "arrivals": len(recent), "held_s": hold_s})]
        self._waited.discard(eid)
        self._arrivals.pop(eid, None)
        self._arrivals[eid] = recent[-16:]
        while len(self._arrivals) > MOST_EIDS:
            del self._arrivals[next(iter(self._arrivals))]
        return True, []

    def count(self, eid: Prefix, now: float) -> int:
        """Arrivals in the last minute."""
        return len(self._recent(eid, now))

    def next_deadline(self) -> float | None:
        return self._held.next()

    def expired(self, now: float) -> list[Prefix]:
        """The EIDs that have waited long enough: ask whether they are still here."""
        released = list(self._held.pop_expired(now))
        if len(self._waited) > MOST_EIDS:  # they never showed themselves again
            self._waited.clear()
        self._waited.update(released)
        return released

    def _recent(self, eid: Prefix, now: float) -> tuple[float, ...]:
        return tuple(at for at in self._arrivals.get(eid, ()) if now - at < WINDOW_S)
