"""What has changed since somebody last took note: users, services, moves, decisions. Pure, and cheap to tell.

The cores tell it on the way; whoever keeps history (`fmcc.history`) takes it all now and then. Bounded by the users and
services there are, and by constants for moves and decisions when nobody takes.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import TYPE_CHECKING

from fmcc.moves import MoveRecord

if TYPE_CHECKING:
    from fmcc.deliberation import Considered

DECISIONS_PENDING = 20_000
"""A storm of handovers makes more decisions than a disk should see: of those beyond, the oldest are let go, counted."""
MOVES_PENDING = 4096


class Changes:
    """See the module. Names are kept in order and once each."""

    def __init__(self) -> None:
        self.users: dict[str, None] = {}
        self.services: dict[str, None] = {}
        # the oldest is to leave at once, which a plain dict finds by walking over all that have left
        self.moves: OrderedDict[str, MoveRecord] = OrderedDict()
        self.decisions: deque[Considered] = deque(maxlen=DECISIONS_PENDING)
        self.lost = 0
        """Decisions that nobody took in time."""

    def moved(self, record: MoveRecord) -> None:
        self.moves[record.move.id] = record
        if len(self.moves) > MOVES_PENDING:
            self.moves.popitem(last=False)

    def decided(self, considered: Considered) -> None:
        self.lost += len(self.decisions) == DECISIONS_PENDING
        self.decisions.append(considered)

    def __bool__(self) -> bool:
        return bool(self.users or self.services or self.moves or self.decisions)
