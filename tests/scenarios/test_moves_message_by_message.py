"""One message of a move at a time is lost, doubled, overtaken or held up past the next phase; everything else is well.

Every message that the real controller, routers, Map-Server and agents send in a move without faults has its
turn, once with each fault. What must hold afterwards does not depend on which it was.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from typing import NamedTuple

import pytest

from fmcc.moves import State
from lispfmc.wire.address import ip_text
from lispfmc.wire.moves import MoveMessage, MovePhase
from tests.scenarios.led import COPY_S, PAUSE_S, LedWorld
from tests.scenarios.network import AS_IT_IS, Datagram
from tests.scenarios.sites import ALICE_APP, rloc

SENT_FOR_S = 1.2
FAULTS: dict[str, Sequence[float]] = {
    "lost": (),
    "doubled": (0.0, 0.025),
    "overtaken": (0.012,),  # by what the same sender says next
    "late": (COPY_S + PAUSE_S + 0.1,),  # of PREPARE past STOP and RESUME, of FREEZE past COMMIT
}


class Which(NamedTuple):
    """One message of the move, whenever it is sent first."""

    source: str
    to: str
    kind: str
    part: int

    @classmethod
    def of(cls, datagram: Datagram) -> Which:
        message = datagram.message
        kind, part = type(message).__name__, 0
        if isinstance(message, MoveMessage):
            kind = f"{MovePhase(message.phase).name}{' answered' if message.is_acknowledgement else ''}"
            part = message.part
        return cls(ip_text(datagram.source.ip), ip_text(datagram.to.ip), kind, part)


class Bent:
    """The first message that is `which` suffers; which ones there were is told."""

    def __init__(self, which: Which | None, copies: Sequence[float]) -> None:
        self.which, self.copies = which, copies
        self.seen: dict[Which, None] = {}

    def __call__(self, datagram: Datagram) -> Sequence[float]:
        which = Which.of(datagram)
        first = which not in self.seen
        self.seen[which] = None
        return self.copies if first and which == self.which else AS_IT_IS


def moved(which: Which | None, copies: Sequence[float]) -> tuple[LedWorld, Bent]:
    world, bent = LedWorld(), Bent(which, copies)
    world.network.bend = bent
    world.sends_every(0.002, SENT_FOR_S)
    world.run(0.01)
    world.fmcc.asks("dc2")
    world.run(SENT_FOR_S + 8.0)
    return world, bent


@cache
def messages() -> tuple[Which, ...]:
    """Those of a move in which nothing goes wrong; what is said every minute anyway comes later."""
    world, bent = moved(None, AS_IT_IS)
    assert world.lost() == []
    return tuple(bent.seen)


def kinds() -> Iterator[str]:
    for phase in MovePhase:
        yield phase.name
        yield f"{phase.name} answered"


def test_a_move_has_every_kind_of_message_from_everybody_who_has_a_part_in_it() -> None:
    """Else the test below would prove less than it says. ABORT is for moves in which something has gone wrong."""
    said = {which.kind for which in messages()}
    assert said >= {kind for kind in kinds() if not kind.startswith("ABORT")}
    assert said >= {"MapRegister", "MapNotify", "MapNotifyAck"}
    senders = {which.source for which in messages()}
    assert senders >= {ip_text(rloc(name)) for name in ("dc1", "dc2", "access1", "fmcc", "mapserver")}


@pytest.mark.parametrize("fault", FAULTS)
def test_no_message_is_needed_once_in_time_or_in_order(fault: str) -> None:
    for which in messages():
        world, bent = moved(which, FAULTS[fault])
        story = f"{which} {fault}"
        assert which in bent.seen, story
        assert world.deliverers(ALICE_APP) == ["dc2"], story
        assert world.registered_at(ALICE_APP) == rloc("dc2"), story
        assert world.lost() == [], story
        assert world.fmcc.placement.state is State.COMMITTED, story
        assert world.fmcc.core.migrations.busy("alice-app") == "", story
