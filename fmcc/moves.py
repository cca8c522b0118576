"""The values of one service's move: states, phases, the placement that holds them, and the events that it lives by."""

from __future__ import annotations

from enum import StrEnum
from typing import TypeAlias

import msgspec

from fmcc.world import Service


class State(StrEnum):
    """Where a move stands. `SETTLED` is a service that has not moved yet."""

    SETTLED = "settled"
    QUEUED = "queued"  # until one of its data centres' moves has ended
    PREPARING = "preparing"  # the hypervisors
    WARMING = "warming"  # the tunnel routers, where the scheme prepares them
    COPYING = "copying"
    STOPPED = "stopped"
    NOTIFIED = "notified"
    COMMITTED = "committed"
    UNCONFIRMED = "unconfirmed"  # runs at the target, but the Map-Server has not said so in time
    FAILED = "failed"


UNDER_WAY = frozenset({State.PREPARING, State.WARMING, State.COPYING, State.STOPPED, State.NOTIFIED})
IN_FLIGHT = UNDER_WAY | {State.QUEUED}
BEFORE_STOP = frozenset({State.QUEUED, State.PREPARING, State.WARMING, State.COPYING})


class Phase(msgspec.Struct, frozen=True, gc=False):
    """A step of the move and when it happened (monotonic seconds)."""

    name: str
    at: float


class Move(msgspec.Struct, frozen=True, gc=False):
    """One move of a service. `stopped_ns` and `resumed_ns` are the hypervisors' own clocks (CLOCK_MONOTONIC)."""

    id: str
    source: str
    target: str
    version: int
    state: State
    phases: tuple[Phase, ...]
    deadline: float | None = None
    reason: str = ""
    driver: str = ""
    emulated: bool | None = None
    scheme: str = ""
    tells_stop: bool = True
    acknowledged: frozenset[str] = frozenset()
    stopped_ns: int | None = None
    resumed_ns: int | None = None


class MoveRecord(msgspec.Struct, frozen=True, gc=False):
    """A move and the service that it moved."""

    service: str
    move: Move


class Placement(msgspec.Struct, frozen=True, gc=False):
    """Where a service runs, by which map-version, and its move, the last one or the one in flight."""

    service: Service
    datacenter: str
    version: int = 0
    move: Move | None = None

    @property
    def state(self) -> State:
        return self.move.state if self.move else State.SETTLED

    @property
    def in_flight(self) -> bool:
        return self.state in IN_FLIGHT


# --- events -----------------------------------------------------------------------------------------------------------


class Requested(msgspec.Struct, frozen=True, gc=False):
    """Someone decided: the policy (`heard` = when the user's move was heard) or an operator (`heard` None)."""

    move: str
    target: str
    heard: float | None = None
    scheme: str = ""


class Deferred(Requested, frozen=True, gc=False):
    """As Requested, while as many moves as may be are under way at one of the two data centres."""


class Admitted(msgspec.Struct, frozen=True, gc=False):
    """There is room for a move that had to wait."""


class Prepared(msgspec.Struct, frozen=True, gc=False):
    """Both agents are ready. `tells_stop` False: nobody will say when the service stops."""

    driver: str
    emulated: bool
    tells_stop: bool = True


class Warmed(msgspec.Struct, frozen=True, gc=False):
    """The network is prepared, as far as the scheme prepares it: the copy may begin."""


class Activated(msgspec.Struct, frozen=True, gc=False):
    """The target's tunnel router delivers to the service: it runs there, whoever saw it first."""


class Versioned(msgspec.Struct, frozen=True, gc=False):
    """The scheme leads the move by another map-version than it was asked to."""

    version: int


class Progress(msgspec.Struct, frozen=True, gc=False):
    percent: float


class Stopped(msgspec.Struct, frozen=True, gc=False):
    """`clock` names the clock of `at_ns`; "" = one that nobody else has."""

    at_ns: int
    clock: str = ""


class Resumed(msgspec.Struct, frozen=True, gc=False):
    """As Stopped."""

    at_ns: int
    clock: str = ""


class Failed(msgspec.Struct, frozen=True, gc=False):
    reason: str


class SiteAcknowledged(msgspec.Struct, frozen=True, gc=False):
    """The tunnel router of this data centre has taken over the redirection."""

    datacenter: str


class Confirmed(msgspec.Struct, frozen=True, gc=False):
    """The Map-Server has published every EID of the service at the target, by this move's version."""


class Observed(msgspec.Struct, frozen=True, gc=False):
    """The Map-Server publishes the service at a place, without a move of ours."""

    datacenter: str
    version: int


class Found(msgspec.Struct, frozen=True, gc=False):
    """An agent says that the service runs at a data centre, whatever was heard of its way there. `move` is the id of
    the move that this becomes when none is under way."""

    move: str
    datacenter: str


class TimedOut(msgspec.Struct, frozen=True, gc=False):
    """Nothing came before the move's deadline."""


AgentReport: TypeAlias = Prepared | Progress | Stopped | Resumed | Failed
MoveEvent: TypeAlias = (
    Requested
    | Deferred
    | Admitted
    | Prepared
    | Warmed
    | Progress
    | Stopped
    | Resumed
    | Activated
    | Versioned
    | Failed
    | SiteAcknowledged
    | Confirmed
    | Observed
    | Found
    | TimedOut
)
