"""When registrations end: one entry in one queue for each Map-Register, however many EIDs it brought.

A refresh moves the lease's `expires_at` and touches no queue: a lease whose turn has come while it lives on goes back.
One to which nothing belongs any more waits for its turn too, unless most that wait are such.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator

from lispfmc.core.registry import Lease

_FEW = 1024  # leases that are not worth a look at each


class Leases:
    """Leases in the order in which they end."""

    def __init__(self) -> None:
        self._queue: list[Lease] = []
        self._left = 0  # of those in the queue, about: the ones to which nothing belongs any more
        self.last_number = 0

    def add(self, lease: Lease) -> None:
        """Number it, unless it has come back with its number, and keep its deadline."""
        if not lease.number:
            self.last_number += 1
            lease.number = self.last_number
        self.last_number = max(self.last_number, lease.number)
        if lease.expires_at < math.inf:
            lease.due = lease.expires_at
            heapq.heappush(self._queue, lease)

    def left(self) -> None:
        """Nothing belongs to one of them any more. An xTR that says something else each time leaves a lease each time,
        which would stay in memory for as long as a registration lasts."""
        self._left += 1
        if self._left > _FEW and self._left * 2 > len(self._queue):
            self._queue = [lease for lease in self._queue if lease.live]
            heapq.heapify(self._queue)
            self._left = 0

    def next(self) -> float | None:
        """When the next one ends, or None."""
        queue = self._queue
        while queue:
            lease = queue[0]
            if not lease.live:
                heapq.heappop(queue)
                self._left -= 1
            elif lease.expires_at != lease.due:
                lease.due = lease.expires_at
                heapq.heapreplace(queue, lease)
            else:
                return lease.due
        return None

    def pop(self, now: float) -> Lease | None:
        """Take out one that has ended, or None when there is none."""
        due = self.next()
        return heapq.heappop(self._queue) if due is not None and due <= now else None

    def __iter__(self) -> Iterator[Lease]:
        """All that live, in no order."""
        return (lease for lease in self._queue if lease.live)

    def __len__(self) -> int:
        return len(self._queue)
