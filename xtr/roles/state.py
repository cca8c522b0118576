"""The states, events and effects of the roles in a lossless move, and what rows of both share; the tables are beside.

The order of effects is that of safety: what must survive a crash is remembered first, then the packets are led, then
others are told.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import TypeAlias

import msgspec

from lispfmc.core.plans import Answered, Ask, Party, Plan, Restarted, Settle, TimedOut
from lispfmc.core.versions import newer
from lispfmc.wire.messages import EidRecord
from lispfmc.wire.moves import MovePhase, Verdict


class State(StrEnum):
    """Where the EIDs stand at this router."""

    ABSENT = "absent"
    HERE = "here"
    MIRRORING = "mirroring"  # source, prepared: delivers and keeps copies
    FROZEN = "frozen"  # source: the service has stopped; forwards and keeps copies
    GONE = "gone"  # source: the service runs at the target; forwards
    HOLDING = "holding"  # target, prepared: holds what the source sends
    ABORTED = "aborted"  # target: gave this epoch up, for ever


DELIVERING = frozenset({State.HERE, State.MIRRORING})
IN_HAND = frozenset({State.MIRRORING, State.FROZEN, State.HOLDING})


class Role(msgspec.Struct, frozen=True, gc=False):
    """One router's part in the moves of some EIDs: what it remembers over a restart."""

    state: State = State.ABSENT
    plan: Plan | None = None
    """The move in hand, or the last one."""
    owned: int = 0
    """The epoch under which the EIDs are delivered here, or were last."""
    promised: int = 0
    """The highest epoch heard of: a lower one is refused for ever."""
    reached: bool = False
    """The target has answered the source's FREEZE, so what is forwarded arrives."""
    asking: bool = False
    """The source has asked the target to give the move up."""
    deadline: float | None = None


# --- events -----------------------------------------------------------------------------------------------------------


class Prepare(msgspec.Struct, frozen=True, gc=False):
    """The controller's word: get ready, as `plan.source` or `plan.target` (`ours` says which)."""

    plan: Plan
    ours: Party
    sender: Party = Party.CONTROLLER


class Freeze(msgspec.Struct, frozen=True, gc=False):
    """The service has stopped at the source."""

    plan: Plan
    ours: Party
    sender: Party


class Activate(msgspec.Struct, frozen=True, gc=False):
    """The service runs at the target."""

    plan: Plan
    ours: Party
    sender: Party


class Commit(msgspec.Struct, frozen=True, gc=False):
    """The mapping system has the new mapping."""

    plan: Plan
    ours: Party
    sender: Party


class Abort(msgspec.Struct, frozen=True, gc=False):
    """The move is not to be."""

    plan: Plan
    ours: Party
    sender: Party


class Stopped(msgspec.Struct, frozen=True, gc=False):
    """The hypervisor at this site: the service of this move has stopped here, `ago_s` ago if that is known."""

    move: int
    ago_s: float | None = None


class Resumed(msgspec.Struct, frozen=True, gc=False):
    """The hypervisor at this site: the service of this move runs here now."""

    move: int


class Returned(msgspec.Struct, frozen=True, gc=False):
    """The hypervisor at this site: the migration failed, and the service runs here again."""

    move: int


class Evidence(msgspec.Struct, frozen=True, gc=False):
    """RARP, GARP, NA or a packet from one of the EIDs at the prepared port."""


class Superseded(msgspec.Struct, frozen=True, gc=False):
    """The mapping system says that another router has the EIDs: at `plan.target`, by `plan.epoch`."""

    plan: Plan


Told: TypeAlias = Prepare | Freeze | Activate | Commit | Abort
Event: TypeAlias = Told | Stopped | Resumed | Returned | Evidence | Superseded | Answered | Restarted | TimedOut
MESSAGES: dict[MovePhase, Callable[[Plan, Party, Party], Told]] = {
    MovePhase.PREPARE: Prepare,
    MovePhase.FREEZE: Freeze,
    MovePhase.ACTIVATE: Activate,
    MovePhase.COMMIT: Commit,
    MovePhase.ABORT: Abort,
}

# --- effects ----------------------------------------------------------------------------------------------------------


class Mode(StrEnum):
    """What the data plane does with a packet for a local EID."""

    DELIVER = "deliver"
    MIRROR = "deliver+mirror"
    PUNT = "punt"
    FORWARD = "forward"


class Held(StrEnum):
    """What happens first to the packets that are held or were copied."""

    KEEP = "keep"
    DELIVER = "deliver"
    SEND = "send"
    DISCARD = "discard"


class Switch(msgspec.Struct, frozen=True, gc=False):
    """Treat packets for the EIDs in another way, once what is held was dealt with, in order.

    PUNT holds what the other site sends and leads all else to it; FORWARD leads everything to the other site, but for
    what comes from there (that is dropped: no packet goes in a circle). `copies` keeps what is forwarded, too. What was
    delivered before the service stopped, `stopped_s` ago, need not be sent again.
    """

    plan: Plan
    mode: Mode
    held: Held = Held.KEEP
    towards: Party | None = None
    copies: bool = False
    stopped_s: float | None = None


class Release(msgspec.Struct, frozen=True, gc=False):
    """End the away entry: whoever still sends here asks the mapping system."""

    plan: Plan


class Register(msgspec.Struct, frozen=True, gc=False):
    """Register the EIDs as ours, at once."""

    plan: Plan
    epoch: int


class Unregister(msgspec.Struct, frozen=True, gc=False):
    """Register the EIDs no more: they have another owner."""

    plan: Plan


class ExportPeers(msgspec.Struct, frozen=True, gc=False):
    """Send the target the mappings of those who talk to the EIDs."""

    plan: Plan


class Warm(msgspec.Struct, frozen=True, gc=False):
    """Learn these mappings before the service runs here: its first packets to its peers must not wait for them."""

    records: tuple[EidRecord, ...]


class Remember(msgspec.Struct, frozen=True, gc=False):
    """Write this down before anything else is done: it must survive the process (one write, no fsync)."""

    role: Role


RoleEffect: TypeAlias = Ask | Settle | Switch | Release | Register | Unregister | ExportPeers | Remember
Outcome: TypeAlias = tuple[Role, list[RoleEffect]]


class Row(msgspec.Struct, frozen=True):
    """One row of a table: when it applies, where it leads, what is done, and what the diagram calls it."""

    to: State
    act: Callable[[Role, Event], Outcome]
    when: Callable[[Role, Event], bool]
    label: str


WAITS: dict[State, float] = {
    State.MIRRORING: 900.0,  # a copy takes long; until it ends, copies in a small ring are all that it costs
    State.HOLDING: 900.0,  # who may activate, may so for a limited time
    State.FROZEN: 30.0,
    State.ABORTED: 900.0,  # longer than a source asks; until then its packets are known as ones that went in a circle
    State.GONE: 60.0,  # at least 30 s, and the longest that a router goes without news
}


def entered(before: Role, after: Role, state: State, now: float, *, anew: bool) -> Role:
    """`after` in its new state, with its deadline: a state's time runs from when it was entered, or started anew."""
    if before.state is state and before.plan == after.plan and not anew:
        return msgspec.structs.replace(after, state=state)
    wait = WAITS.get(state)
    return msgspec.structs.replace(after, state=state, deadline=None if wait is None else now + wait)


def plan_of(role: Role) -> Plan:
    assert role.plan is not None, "a router with a part in a move has its plan"
    return role.plan


def always(_role: Role, _event: Event) -> bool:
    return True


def same(role: Role, event: Event) -> bool:
    """The event is about the move in hand, or the last one."""
    return isinstance(event, Told | Answered) and event.plan.same(role.plan)


def of_move(role: Role, event: Event) -> bool:
    """The hypervisor speaks of the move in hand, or the last one."""
    return isinstance(event, Stopped | Resumed | Returned) and role.plan is not None and event.move == role.plan.move


def unheard(role: Role, plan: Plan) -> bool:
    """The epoch is higher than any that this router has heard of."""
    return newer(plan.epoch, role.promised)


def moved_on(role: Role, event: Event) -> bool:
    """The EIDs are elsewhere by a higher epoch than that of the move in hand, or the last one."""
    return isinstance(event, Superseded) and role.plan is not None and newer(event.plan.epoch, role.plan.epoch)


def release(role: Role, _event: Event) -> Outcome:
    return msgspec.structs.replace(role, deadline=None), [Release(plan_of(role))]


def verdict(role: Role, phase: MovePhase, plan: Plan) -> Verdict:
    """What an acknowledgement says after `role` has taken in that `plan` enters `phase`."""
    if not plan.same(role.plan):
        if newer(role.promised, plan.epoch):
            if phase is not MovePhase.ABORT:
                return Verdict.STALE
            # a promise made to a higher epoch is one never to activate this one
            past = role.owned == plan.epoch or newer(role.owned, plan.epoch)
            return Verdict.ACTIVE if past else Verdict.ABORTED
        return Verdict.BUSY if role.state in IN_HAND else Verdict.UNPREPARED
    if role.state is State.GONE:
        return Verdict.ACTIVE
    if role.state is State.HERE:
        return Verdict.ACTIVE if role.owned == plan.epoch else Verdict.ABORTED
    return Verdict.ABORTED if role.state is State.ABORTED else Verdict.DONE
