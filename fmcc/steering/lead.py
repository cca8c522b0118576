"""The controller's part in a lossless move: a frozen value and a table. Pure: state, event, time in; effects out.

It prepares the target before the source, and lets the copy begin when both are ready. From then on the move finishes
without it: what it says is what the hypervisors and the target say too. It may give a move up only until the target
has activated, and the target says whether it has.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import TypeAlias

import msgspec

from lispfmc.core.plans import Answered, Ask, Party, Plan, Restarted, Settle, TimedOut
from lispfmc.core.versions import newer, next_version
from lispfmc.wire.moves import MovePhase, Verdict


class State(StrEnum):
    """How far the controller has led a move."""

    IDLE = "idle"
    PREPARING_TARGET = "preparing target"
    PREPARING_SOURCE = "preparing source"
    READY = "ready"
    STOPPED = "stopped"
    ACTIVATING = "activating"
    CONVERGING = "converging"
    COMMITTED = "committed"
    ABORTING = "aborting"
    ABORTED = "aborted"


class Lead(msgspec.Struct, frozen=True, gc=False):
    """One move as the controller knows it: what it remembers over a restart."""

    state: State = State.IDLE
    plan: Plan | None = None
    resumed: bool = False
    """The hypervisor has said that the service runs at the target."""
    published: bool = False
    """The mapping system has said so."""
    deadline: float | None = None


# --- events -----------------------------------------------------------------------------------------------------------


class Begin(msgspec.Struct, frozen=True, gc=False):
    plan: Plan


class Stopped(msgspec.Struct, frozen=True, gc=False):
    """The source's hypervisor: the service has stopped."""


class Resumed(msgspec.Struct, frozen=True, gc=False):
    """The target's hypervisor: the service runs."""


class Published(msgspec.Struct, frozen=True, gc=False):
    """The mapping system has the EIDs at the target, by this epoch."""

    epoch: int


class Found(msgspec.Struct, frozen=True, gc=False):
    """The service runs at the plan's target, and no move has brought it there: the network has to follow it."""

    plan: Plan


class GiveUp(msgspec.Struct, frozen=True, gc=False):
    """A hypervisor has failed, or somebody wants the move ended."""


Event: TypeAlias = Begin | Stopped | Resumed | Published | Found | GiveUp | Answered | Restarted | TimedOut

# --- effects ----------------------------------------------------------------------------------------------------------


class Ready(msgspec.Struct, frozen=True, gc=False):
    """Both routers are prepared: the copy may begin."""

    plan: Plan


class Failed(msgspec.Struct, frozen=True, gc=False):
    """The move is being given up: have the hypervisors forget it."""

    plan: Plan


class Remember(msgspec.Struct, frozen=True, gc=False):
    """Write this down before anything else is done."""

    lead: Lead


LeadEffect: TypeAlias = Ask | Settle | Ready | Failed | Remember
Outcome: TypeAlias = tuple[Lead, list[LeadEffect]]


class Row(msgspec.Struct, frozen=True):
    """See `xtr.roles.state.Row`."""

    to: State
    act: Callable[[Lead, Event], Outcome]
    when: Callable[[Lead, Event], bool]
    label: str


WAITS: dict[State, float] = {
    State.PREPARING_TARGET: 10.0,
    State.PREPARING_SOURCE: 10.0,
    State.READY: 600.0,
    State.STOPPED: 30.0,
}
replace = msgspec.structs.replace


def step(lead: Lead, event: Event, now: float, waits: Mapping[State, float] = WAITS) -> Outcome:
    """The next state and what is to be done, in this order. `waits`: how long each state may take."""
    for row in TABLE.get((lead.state, type(event)), ()):
        if row.when(lead, event):
            after, effects = row.act(lead, event)
            after = replace(after, state=row.to)
            if row.to is not lead.state or isinstance(event, Restarted):
                wait = waits.get(row.to)
                after = replace(after, deadline=None if wait is None else now + wait)
            if replace(after, deadline=None) != replace(lead, deadline=None):
                effects.insert(0, Remember(replace(after, deadline=None)))
            return after, effects
    return lead, []


def _plan(lead: Lead) -> Plan:
    assert lead.plan is not None, "every state but IDLE has a plan"
    return lead.plan


# --- conditions -------------------------------------------------------------------------------------------------------


def _always(_lead: Lead, _event: Event) -> bool:
    return True


def _answered(by: Party, *verdicts: Verdict, phase: MovePhase | None = None) -> Callable[[Lead, Event], bool]:
    def holds(lead: Lead, event: Event) -> bool:
        if not isinstance(event, Answered) or not event.plan.same(lead.plan) or event.by is not by:
            return False
        return event.verdict in verdicts and phase in (None, event.phase)

    return holds


def _of_this_epoch(lead: Lead, event: Event) -> bool:
    """Or of a newer one: then the world has moved on, and this move is over as well."""
    return isinstance(event, Published) and not newer(_plan(lead).epoch, event.epoch)


def _active_and_published(lead: Lead, event: Event) -> bool:
    return lead.published and _target_active(lead, event)


def _target_out(lead: Lead, event: Event) -> bool:
    """It has promised never to activate this epoch; or it has the service by another move, knows nothing of this one
    and was never prepared for it: no promise, but a source that no target stands behind has not moved either."""
    return _target_aborted(lead, event) or _never_prepared(lead, event)


def _out_and_resumed(lead: Lead, event: Event) -> bool:
    return lead.resumed and _target_out(lead, event)


_target_ready = _answered(Party.TARGET, Verdict.DONE, phase=MovePhase.PREPARE)
_source_ready = _answered(Party.SOURCE, Verdict.DONE, phase=MovePhase.PREPARE)
_REFUSALS = (Verdict.STALE, Verdict.UNPREPARED, Verdict.ABORTED)
_target_refuses = _answered(Party.TARGET, *_REFUSALS)
_source_refuses = _answered(Party.SOURCE, *_REFUSALS)
_target_active = _answered(Party.TARGET, Verdict.ACTIVE)
_target_aborted = _answered(Party.TARGET, Verdict.ABORTED, Verdict.STALE)
_never_prepared = _answered(Party.TARGET, Verdict.UNPREPARED, phase=MovePhase.ABORT)

# --- actions ----------------------------------------------------------------------------------------------------------


def _prepare_target(_lead: Lead, event: Event) -> Outcome:
    assert isinstance(event, Begin)
    return Lead(plan=event.plan), [Ask(Party.TARGET, MovePhase.PREPARE, event.plan)]


def _prepare_source(lead: Lead, _event: Event) -> Outcome:
    """Only now: a source must never forward to a target that holds nothing."""
    return lead, [Ask(Party.SOURCE, MovePhase.PREPARE, _plan(lead))]


def _ready(lead: Lead, _event: Event) -> Outcome:
    return lead, [Ready(_plan(lead))]


def _freeze(lead: Lead, _event: Event) -> Outcome:
    return lead, [Ask(Party.SOURCE, MovePhase.FREEZE, _plan(lead))]


def _activate(lead: Lead, _event: Event) -> Outcome:
    plan = _plan(lead)
    return replace(lead, resumed=True), [Settle(plan), Ask(Party.TARGET, MovePhase.ACTIVATE, plan)]


def _converge(lead: Lead, _event: Event) -> Outcome:
    """The target is active, by whatever it saw. The source hears it from the target, and from us."""
    plan = _plan(lead)
    return lead, [Settle(plan), Ask(Party.SOURCE, MovePhase.ACTIVATE, plan)]


def _commit(lead: Lead, _event: Event) -> Outcome:
    plan = _plan(lead)
    return replace(lead, published=True), [
        Settle(plan),
        Ask(Party.TARGET, MovePhase.COMMIT, plan),
        Ask(Party.SOURCE, MovePhase.COMMIT, plan),
    ]


def _abort(lead: Lead, _event: Event) -> Outcome:
    """The target says what becomes of it; the source asks the target itself, and waits for no word of ours."""
    plan = _plan(lead)
    return lead, [
        Failed(plan),
        Settle(plan),
        Ask(Party.TARGET, MovePhase.ABORT, plan),
        Ask(Party.SOURCE, MovePhase.ABORT, plan),
    ]


def _never_mind(lead: Lead, _event: Event) -> Outcome:
    """The source was not asked: the service stays, and may go elsewhere even if this target never answers."""
    plan = _plan(lead)
    return lead, [Failed(plan), Settle(plan), Ask(Party.TARGET, MovePhase.ABORT, plan)]


def _note_resumed(lead: Lead, _event: Event) -> Outcome:
    return replace(lead, resumed=True), []


def _note_published(lead: Lead, _event: Event) -> Outcome:
    """It says nothing of this move yet: it may be a later one's. But it is said once only."""
    return replace(lead, published=True), []


def _nothing(lead: Lead, _event: Event) -> Outcome:
    return lead, []


def _follow(lead: Lead, _event: Event) -> Outcome:
    """Given up, and the service runs at the target all the same: the network follows it, by an epoch of its own."""
    plan = replace(_plan(lead), epoch=next_version(_plan(lead).epoch))
    after = replace(lead, plan=plan, resumed=True, published=False)
    return after, [Settle(_plan(lead)), Ask(Party.TARGET, MovePhase.ACTIVATE, plan)]


def _go_there(lead: Lead, event: Event) -> Outcome:
    assert isinstance(event, Found)
    past: list[LeadEffect] = [Settle(lead.plan)] if lead.plan is not None else []
    return Lead(plan=event.plan, resumed=True), [*past, Ask(Party.TARGET, MovePhase.ACTIVATE, event.plan)]


def _again(lead: Lead, _event: Event) -> Outcome:
    """After a restart: what the state was entered with is said once more."""
    return lead, [effect for effect in _ENTRY[lead.state](lead, _event)[1] if not isinstance(effect, Settle)]


def _ask_target(lead: Lead, _event: Event) -> Outcome:
    return lead, [Ask(Party.TARGET, MovePhase.PREPARE, _plan(lead))]


_ENTRY: Mapping[State, Callable[[Lead, Event], Outcome]] = {
    State.PREPARING_TARGET: _ask_target,
    State.PREPARING_SOURCE: _prepare_source,
    State.READY: _ready,
    State.STOPPED: _freeze,
    State.ACTIVATING: _activate,
    State.CONVERGING: _converge,
    State.COMMITTED: _commit,
    State.ABORTING: _abort,
}

# --- the table --------------------------------------------------------------------------------------------------------

_PREPARED = (State.PREPARING_SOURCE, State.READY, State.STOPPED)
_EARLY = (State.PREPARING_TARGET, *_PREPARED)
_RESTING = (State.IDLE, State.COMMITTED, State.ABORTED)

_GIVE_UP = Row(State.ABORTING, _abort, _always, "given up")
_NEVER_MIND = Row(State.ABORTED, _never_mind, _always, "given up")
_TIME_OVER = "time over"
_ACTIVE = Row(State.CONVERGING, _converge, _target_active, "target active")
_PUBLISHED = Row(State.COMMITTED, _commit, _of_this_epoch, "published")

TABLE: Mapping[tuple[State, type], tuple[Row, ...]] = {
    **{(state, Begin): (Row(State.PREPARING_TARGET, _prepare_target, _always, "begin"),) for state in _RESTING},
    **{(state, GiveUp): (_GIVE_UP,) for state in _PREPARED},
    **{(state, TimedOut): (msgspec.structs.replace(_GIVE_UP, label=_TIME_OVER),) for state in _PREPARED},
    (State.PREPARING_TARGET, GiveUp): (_NEVER_MIND,),
    (State.PREPARING_TARGET, TimedOut): (msgspec.structs.replace(_NEVER_MIND, label=_TIME_OVER),),
    (State.PREPARING_TARGET, Answered): (
        Row(State.PREPARING_SOURCE, _prepare_source, _target_ready, "target prepared"),
        Row(State.ABORTED, _never_mind, _target_refuses, "target refuses"),
        _ACTIVE,
    ),
    (State.PREPARING_SOURCE, Answered): (
        Row(State.READY, _ready, _source_ready, "source prepared"),
        Row(State.ABORTING, _abort, _source_refuses, "source refuses"),
        _ACTIVE,
    ),
    (State.READY, Answered): (_ACTIVE,),
    (State.STOPPED, Answered): (_ACTIVE,),
    (State.READY, Stopped): (Row(State.STOPPED, _freeze, _always, "stopped"),),
    **{(state, Resumed): (Row(State.ACTIVATING, _activate, _always, "resumed"),) for state in _EARLY},
    **{
        (state, Found): (Row(State.ACTIVATING, _go_there, _always, "found"),)
        for state in (*_RESTING, State.ABORTING, State.ACTIVATING, State.CONVERGING)
    },
    (State.ACTIVATING, Answered): (
        _ACTIVE,
        Row(State.ACTIVATING, _follow, _target_aborted, "target aborted: a new epoch"),
    ),
    **{(state, Published): (_PUBLISHED,) for state in (*_EARLY, State.ACTIVATING, State.CONVERGING)},
    (State.ABORTING, Published): (_PUBLISHED,),
    (State.ABORTING, Resumed): (Row(State.ABORTING, _note_resumed, _always, "resumed"),),
    (State.ABORTING, Answered): (
        _ACTIVE,
        Row(State.ACTIVATING, _follow, _out_and_resumed, "target aborted, but resumed: a new epoch"),
        Row(State.ABORTED, _nothing, _target_out, "target aborted"),
    ),
    (State.ABORTED, Answered): (
        Row(State.COMMITTED, _commit, _active_and_published, "target active, published"),
        _ACTIVE,
    ),
    (State.ABORTED, Published): (Row(State.ABORTED, _note_published, _of_this_epoch, "published"),),
    (State.ABORTED, Resumed): (Row(State.ACTIVATING, _follow, _always, "resumed: a new epoch"),),
    **{(state, Restarted): (Row(state, _again, _always, "restart"),) for state in _ENTRY},
}
