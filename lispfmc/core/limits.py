"""Token buckets for answers that strangers can ask for: so many at once, so many a second after that, for each key.

A bucket is one number, the time at which it is full again (the "virtual scheduling" form of the leaky bucket). A full
bucket needs no entry, so entries are kept in two generations and the older one is forgotten as a whole.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class TokenBuckets(Generic[K]):
    """`burst` at once and `rate` a second for each key; at most twice `entries` keys are remembered.

    When senders invent keys faster than buckets fill up, the older generation goes early: memory stays bounded, and
    who loses is the limit, not the service.
    """

    def __init__(self, rate: float, burst: float, entries: int) -> None:
        self._cost_s = 1.0 / rate
        self._depth_s = burst / rate
        self._most_s = self._depth_s + 1e-9  # a float that was added to must not refuse the last of a burst
        self._entries = entries
        self._full_at: dict[K, float] = {}
        self._older: dict[K, float] = {}
        self._rotate_at = float("-inf")

    def take(self, key: K, now: float) -> bool:
        """Take a token; False when there is none."""
        full_at = self._full_at.get(key)
        if full_at is None:
            if now >= self._rotate_at or len(self._full_at) >= self._entries:
                self._rotate(now)
            full_at = self._older.get(key, now)
        full_at = (full_at if full_at > now else now) + self._cost_s
        if full_at > now + self._most_s:
            return False
        self._full_at[key] = full_at
        return True

    def _rotate(self, now: float) -> None:
        # what was in the older generation has not been taken from for a full depth: it has been filled up again; the
        # younger one may have been, however long ago it began
        self._older = self._full_at
        self._full_at = {}
        self._rotate_at = now + self._depth_s

    def __len__(self) -> int:
        return len(self._full_at) + len(self._older)


class Pace:
    """One bucket for what we send of our own accord: `burst` at once, `rate` a second after that."""

    def __init__(self, rate: float, burst: float) -> None:
        self._cost_s = 1.0 / rate
        self._depth_s = burst / rate
        self._full_at = float("-inf")

    def take(self, now: float) -> bool:
        """Take a token; False when there is none."""
        if self.next(now) > now:
            return False
        self._full_at = max(self._full_at, now) + self._cost_s
        return True

    def next(self, now: float) -> float:
        """When there is a token: `now`, or later."""
        return max(now, self._full_at + self._cost_s - self._depth_s - 1e-9)
