"""How many moves a data centre takes part in at once, and which ones wait for their turn. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TypeAlias

from fmcc.moves import UNDER_WAY, Placement, State

Ends: TypeAlias = tuple[str, str]
"""Source and target."""


class Queue:
    """Moves under way are counted at both of their ends; services that wait go by pairs of data centres, first come,
    first served: one that has no room keeps none of another pair waiting."""

    def __init__(self, most: int | None) -> None:
        """`most` at each data centre; None: no limit, nothing waits."""
        self._most = most
        self._under_way: Counter[str] = Counter()
        self._waiting: dict[Ends, dict[str, None]] = {}

    def room(self, source: str, target: str) -> bool:
        """Whether one more may begin."""
        return self._most is None or max(self._under_way[source], self._under_way[target]) < self._most

    def changed(self, before: Placement, after: Placement) -> None:
        """A service's placement was replaced."""
        if before.state is after.state and before.move is after.move:
            return
        self._under_way.subtract(_ends(before) if before.state in UNDER_WAY else ())
        self._under_way.update(_ends(after) if after.state in UNDER_WAY else ())
        if (before.state is State.QUEUED) is (after.state is State.QUEUED):
            return
        if after.state is State.QUEUED:
            self._waiting.setdefault(_ends(after), {})[after.service.name] = None
        else:  # begun, given up, or found somewhere
            del self._waiting[_ends(before)][before.service.name]

    def next(self) -> Iterator[str]:
        """Services whose moves may begin now, one after the other: each is to be begun before the next is taken."""
        for ends, waiting in list(self._waiting.items()):
            while waiting and self.room(*ends):
                yield next(iter(waiting))
            if not waiting:
                del self._waiting[ends]


def _ends(placement: Placement) -> Ends:
    assert placement.move is not None, "every state but SETTLED has a move"
    return placement.move.source, placement.move.target
