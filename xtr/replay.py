"""Replay protection for what a sender tells us: the last nonce for each (key, EID-Prefix).

For each EID apart, because messages about different EIDs may overtake each other and are retransmitted on their own
(RFC 9437 §7 counts them that way too). Bounded: what is pushed out leaves a floor for its key behind.
"""

from __future__ import annotations

from enum import Enum

from lispfmc.wire.address import Prefix
from lispfmc.wire.auth import Key

MOST_REMEMBERED = 65_536  # only who has a key can add to it, but one of them may be broken


class Freshness(Enum):
    NEW = "new"
    REPEATED = "repeated"
    OLD = "old"


class Replays:
    """The highest nonces that took effect."""

    def __init__(self, capacity: int = MOST_REMEMBERED) -> None:
        self._capacity = capacity
        self._last: dict[tuple[Key, Prefix], int] = {}
        self._floor: dict[Key, int] = {}

    def freshness(self, key: Key, eid: Prefix, nonce: int) -> Freshness:
        """How `nonce` compares with what the holder of `key` last said about `eid`."""
        last = self._last.get((key, eid), self._floor.get(key, -1))
        if nonce > last:
            return Freshness.NEW
        return Freshness.REPEATED if nonce == last else Freshness.OLD

    def accept(self, key: Key, eid: Prefix, nonce: int) -> None:
        """`nonce` took effect."""
        self._last.pop((key, eid), None)
        self._last[key, eid] = nonce
        while len(self._last) > self._capacity:
            oldest = next(iter(self._last))
            self._floor[oldest[0]] = max(self._floor.get(oldest[0], -1), self._last.pop(oldest))
