"""How many moves a data centre takes part in at once, and which ones wait for their turn. Pure."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator
from typing import TypeAlias

from fmcc.moves import UNDER_WAY, Move, Placement, State

Ends: TypeAlias = tuple[str, str]
"""Source and target."""


class Queue:
    """Moves under way are counted at both of their ends; those that wait go by pairs of data centres, first come, first
    served: one that has no room keeps none of another pair waiting."""

    def __init__(self, most: int | None) -> None:
        """`most` at each data centre; None: no limit, nothing waits."""
        self._most = most
        self._under_way: Counter[str] = Counter()
        self._waiting: dict[Ends, deque[tuple[str, str]]] = {}

    def room(self, source: str, target: str) -> bool:
        """Whether one more may begin."""
        return self._most is None or max(self._under_way[source], self._under_way[target]) < self._most

    def changed(self, before: Placement | None, after: Placement | None) -> None:
        """A service's placement was replaced; None: there was none, or there is none any more."""
        left, entered = _ends(before), _ends(after)
        if left != entered:
            self._under_way.subtract(left)
            self._under_way.update(entered)
        if after is not None and after.state is State.QUEUED and (before is None or before.state is not State.QUEUED):
            move = _move(after)
            self._waiting.setdefault((move.source, move.target), deque()).append((after.service.name, move.id))

    def next(self) -> Iterator[tuple[str, str]]:
        """Services and moves that may begin now, one after the other: each is to be begun before the next is taken."""
        for ends in list(self._waiting):
            waiting = self._waiting[ends]
            while waiting and self.room(*ends):
                yield waiting.popleft()
            if not waiting:
                del self._waiting[ends]


def _ends(placement: Placement | None) -> Ends | tuple[()]:
    if placement is None or placement.state not in UNDER_WAY:
        return ()
    move = _move(placement)
    return move.source, move.target


def _move(placement: Placement) -> Move:
    assert placement.move is not None, "every state but SETTLED has a move"
    return placement.move
