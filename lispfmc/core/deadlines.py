"""Many deadlines, one timer: a heap with lazy deletion.

A core keeps one of these, answers `next_deadline()` from it and works off `pop_expired(now)`.
"""

from __future__ import annotations

import heapq
from collections.abc import Hashable, Iterator
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class Deadlines(Generic[K]):
    """Keys with the time at which each is due (monotonic seconds). Setting a key again moves it."""

    def __init__(self) -> None:
        self._due: dict[K, float] = {}
        self._heap: list[tuple[float, int, K]] = []
        self._tick = 0  # keeps heap order total when keys do not compare

    def set(self, key: K, at: float) -> None:
        self._due[key] = at
        self._tick += 1
        heapq.heappush(self._heap, (at, self._tick, key))
        if len(self._heap) > 64 and len(self._heap) > 2 * len(self._due):
            self._rebuild()

    def cancel(self, key: K) -> None:
        """Forget a key; unknown keys are no error."""
        self._due.pop(key, None)

    def at(self, key: K) -> float | None:
        return self._due.get(key)

    def next(self) -> float | None:
        """When the earliest key is due, or None when there is none."""
        while self._heap:
            at, _, key = self._heap[0]
            if self._due.get(key) == at:
                return at
            heapq.heappop(self._heap)
        return None

    def pop_expired(self, now: float) -> Iterator[K]:
        """Remove and yield the keys that are due at `now`, earliest first; keys set meanwhile for `now` included."""
        while (at := self.next()) is not None and at <= now:
            key = heapq.heappop(self._heap)[2]
            del self._due[key]
            yield key

    def __contains__(self, key: K) -> bool:
        return key in self._due

    def __len__(self) -> int:
        return len(self._due)

    def _rebuild(self) -> None:
        # stale entries dominate: a key that is moved often must not grow the heap without bound
        self._heap = [(at, index, key) for index, (key, at) in enumerate(self._due.items())]
        self._tick = len(self._heap)
        heapq.heapify(self._heap)
