"""One service's move, as a table: (state, event) -> state, and what to do on the way. Pure and frozen.

`step(placement, event, now)` returns the next placement and the effects. What the table does not list changes nothing:
late, repeated and misplaced events are harmless. Failure before RESUMED leaves the service where it was; RESUMED, and
to be found somewhere, are facts about where it runs, and win whenever they are heard.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

import msgspec

from fmcc.effects import AbortMigration, AgentEffect, PrepareMigration, StartMigration
from fmcc.moves import (
    Activated,
    Admitted,
    Confirmed,
    Deferred,
    Failed,
    Found,
    Move,
    MoveEvent,
    Observed,
    Phase,
    Placement,
    Prepared,
    Progress,
    Requested,
    Resumed,
    SiteAcknowledged,
    State,
    Stopped,
    TimedOut,
    Versioned,
    Warmed,
)
from fmcc.steering import Redirect
from fmcc.world import Limits
from lispfmc.core.effects import Emit, FieldValue
from lispfmc.core.versions import newer, next_version


class Steer(msgspec.Struct, frozen=True, gc=False):
    """Lead the network into a phase: a verb of the Steering seam."""

    verb: str
    redirect: Redirect


MoveEffect: TypeAlias = Emit | Steer | AgentEffect
Outcome: TypeAlias = tuple[Placement, list[MoveEffect]]
Action: TypeAlias = Callable[[Placement, MoveEvent, float, Limits], Outcome]


def step(placement: Placement, event: MoveEvent, now: float, limits: Limits) -> Outcome:
    """The next placement and what is to be done. An event that the table does not list changes nothing."""
    entry = TABLE.get((placement.state, type(event)))
    if entry is None:
        return placement, []
    state, act = entry
    after, effects = act(placement, event, now, limits)
    if after is placement:
        return after, effects
    if after.move is not None and after.move.state is not state:
        after = msgspec.structs.replace(after, move=entered(after.move, state, now, limits))
    return after, effects


def entered(move: Move, state: State, now: float, limits: Limits) -> Move:
    """The move in `state`, with the time that it may stay there."""
    wait = {
        State.PREPARING: limits.prepare_s,
        State.WARMING: 2 * limits.prepare_s,  # the scheme gives up before: one after the other, target and source
        State.COPYING: limits.copy_s,
        State.STOPPED: limits.resume_s,
        State.NOTIFIED: limits.commit_s,
    }.get(state)
    return msgspec.structs.replace(move, state=state, deadline=None if wait is None else now + wait)


def redirect_of(placement: Placement) -> Redirect:
    """What the placement's move changes in the network."""
    move = _move(placement)
    service = placement.service
    return Redirect(
        move.id, service.name, service.eids, move.version, move.source, move.target, move.scheme, move.tells_stop
    )


# --- actions: what happens on the way ---------------------------------------------------------------------------------


def _move(placement: Placement) -> Move:
    assert placement.move is not None, "every state but SETTLED has a move"
    return placement.move


def _with(placement: Placement, phase: str, now: float, **changes: object) -> Placement:
    move = _move(placement)
    phases = (*move.phases, Phase(phase, now)) if phase else move.phases
    return msgspec.structs.replace(placement, move=msgspec.structs.replace(move, phases=phases, **changes))


def _emit(placement: Placement, name: str, now: float, **fields: FieldValue) -> Emit:
    move = _move(placement)
    return Emit(
        name,
        {
            "move": move.id,
            "service": placement.service.name,
            "from": move.source,
            "to": move.target,
            "at_ms": _since(move, now),
            "scheme": move.scheme,
            **fields,
        },
    )


def _since(move: Move, now: float) -> float:
    return round((now - move.phases[0].at) * 1000, 3)


def _request(placement: Placement, event: MoveEvent, now: float, _: Limits) -> Outcome:
    after, requested = _decided(placement, event, now)
    return after, [requested, _prepare(after)]


def _queue(placement: Placement, event: MoveEvent, now: float, _: Limits) -> Outcome:
    after, requested = _decided(placement, event, now)
    return after, [requested, _emit(after, "migration.queued", now)]


def _admit(placement: Placement, event: MoveEvent, now: float, _: Limits) -> Outcome:
    after = _with(placement, "admitted", now)
    return after, [_prepare(after)]


def _prepare(placement: Placement) -> PrepareMigration:
    move = _move(placement)
    return PrepareMigration(move.id, placement.service.name, move.source, move.target, move.scheme)


def _decided(placement: Placement, event: MoveEvent, now: float) -> tuple[Placement, Emit]:
    assert isinstance(event, Requested)
    phases: tuple[Phase, ...] = (Phase("decided", now),)
    if event.heard is not None:
        phases = (Phase("user.moved", event.heard), *phases)
    version = _unused_version(placement)
    scheme = event.scheme or placement.service.scheme
    move = Move(event.move, placement.datacenter, event.target, version, State.SETTLED, phases, scheme=scheme)
    after = msgspec.structs.replace(placement, move=move)
    cause = "policy" if event.heard is not None else "request"
    return after, _emit(after, "migration.requested", now, cause=cause, version=version)


def _unused_version(placement: Placement) -> int:
    """A version of its own for each attempt: one that was given up is never used again."""
    last = placement.move.version if placement.move else 0
    return next_version(last if newer(last, placement.version) else placement.version)


def _prepared(placement: Placement, event: MoveEvent, now: float, _: Limits) -> Outcome:
    """The hypervisors are ready: now the network. The routers of a move that no hypervisor takes are left alone."""
    assert isinstance(event, Prepared)
    tells_stop = event.tells_stop
    after = _with(
        placement, "prepared", now, driver=event.driver, emulated=event.emulated, tells_stop=tells_stop, reason=""
    )
    return after, [Steer("prepare", redirect_of(after))]


def _start(placement: Placement, event: MoveEvent, now: float, _: Limits) -> Outcome:
    after = _with(_with(placement, "warmed", now), "copy.started", now)
    move = _move(after)
    return after, [
        StartMigration(move.id, placement.service.name, move.source, move.target, move.scheme),
        _emit(after, "steering.prepared", now, version=move.version),
        _emit(after, "migration.started", now, driver=move.driver, emulated=move.emulated),
    ]


def _reversion(placement: Placement, event: MoveEvent, now: float, _: Limits) -> Outcome:
    assert isinstance(event, Versioned)
    after = _with(placement, "", now, version=event.version)
    there = placement.datacenter == _move(placement).target
    return msgspec.structs.replace(after, version=event.version) if there else after, []


def _progress(placement: Placement, event: MoveEvent, now: float, _: Limits) -> Outcome:
    assert isinstance(event, Progress)
    return placement, [_emit(placement, "migration.progress", now, percent=event.percent)]


def _stopped(placement: Placement, event: MoveEvent, now: float, _: Limits) -> Outcome:
    assert isinstance(event, Stopped)
    after = _with(placement, "stopped", now, stopped_ns=event.at_ns)
    return after, [
        _emit(after, "migration.stopped", now, monotonic_ns=event.at_ns, clock=event.clock),
        Steer("freeze", redirect_of(after)),
    ]


def _resumed_late(placement: Placement, event: MoveEvent, now: float, _: Limits) -> Outcome:
    """RESUMED heard after the target's router, or the Map-Server, has said that the service is there."""
    assert isinstance(event, Resumed)
    if _move(placement).resumed_ns is not None:
        return placement, []
    after = _with(placement, "resumed", now, resumed_ns=event.at_ns)
    emulated = _move(after).emulated
    return after, [
        _emit(after, "migration.resumed", now, monotonic_ns=event.at_ns, clock=event.clock, emulated=emulated)
    ]


def _active(placement: Placement, event: MoveEvent, now: float, _: Limits) -> Outcome:
    """The target's router says so: before or after the hypervisor, whose event comes by another way."""
    after = _with(placement, "active", now, reason="")
    move = _move(after)
    after = msgspec.structs.replace(after, datacenter=move.target, version=move.version)
    return after, [_emit(after, "steering.active", now, version=move.version)]


def _stopped_late(placement: Placement, event: MoveEvent, now: float, _: Limits) -> Outcome:
    """STOPPED heard after RESUMED: two agents, two paths. It is recorded and changes nothing."""
    assert isinstance(event, Stopped)
    if _move(placement).stopped_ns is not None:
        return placement, []
    after = _with(placement, "stopped", now, stopped_ns=event.at_ns)
    return after, [_emit(after, "migration.stopped", now, monotonic_ns=event.at_ns, clock=event.clock)]


def _resumed(placement: Placement, event: MoveEvent, now: float, _: Limits) -> Outcome:
    assert isinstance(event, Resumed)
    after = _with(placement, "resumed", now, resumed_ns=event.at_ns, reason="")
    after = _with(after, "notified", now)
    move = _move(after)
    after = msgspec.structs.replace(after, datacenter=move.target, version=move.version)
    eids = [str(eid) for eid in placement.service.eids]
    # the messages first: nothing on the switch-over path waits for a log line
    return after, [
        Steer("activate", redirect_of(after)),
        _emit(after, "migration.resumed", now, monotonic_ns=event.at_ns, clock=event.clock, emulated=move.emulated),
        _emit(after, "steering.notified", now, version=move.version, eids=eids),
    ]


def _found(placement: Placement, event: MoveEvent, now: float, _: Limits) -> Outcome:
    """It runs where the mapping does not lead: the network is led there as if RESUMED had been heard."""
    assert isinstance(event, Found)
    move = placement.move
    if event.datacenter == placement.datacenter:
        return placement, []
    given_up = move is not None and move.state is State.FAILED and move.target == event.datacenter
    if move is None or not (placement.in_flight or given_up):
        version, scheme = _unused_version(placement), placement.service.scheme
        move = Move(event.move, placement.datacenter, event.datacenter, version, State.SETTLED, (), scheme=scheme)
        placement = msgspec.structs.replace(placement, move=move)
    elif move.target != event.datacenter:
        return placement, []
    after = _with(placement, "found", now, reason="")
    after = _with(after, "notified", now)
    move = _move(after)
    after = msgspec.structs.replace(after, datacenter=move.target, version=move.version)
    eids = [str(eid) for eid in placement.service.eids]
    return after, [
        Steer("activate", redirect_of(after)),
        _emit(after, "steering.notified", now, version=move.version, eids=eids),
    ]


def _acknowledged(placement: Placement, event: MoveEvent, now: float, _: Limits) -> Outcome:
    assert isinstance(event, SiteAcknowledged)
    move = _move(placement)
    if event.datacenter in move.acknowledged:
        return placement, []
    everyone = move.acknowledged | {event.datacenter}
    both = everyone >= {move.source, move.target}
    after = _with(placement, "acknowledged" if both else "", now, acknowledged=everyone)
    return after, [_emit(after, "steering.acknowledged", now, datacenter=event.datacenter, both=both)]


def _commit(placement: Placement, event: MoveEvent, now: float, _: Limits) -> Outcome:
    """Also when nothing was heard of RESUMED yet: what is published at the target runs there."""
    after = _with(placement, "committed", now, reason="")
    move = _move(after)
    after = msgspec.structs.replace(after, datacenter=move.target, version=move.version)
    return after, [Steer("commit", redirect_of(after)), _placement_changed(after, move.source, now)]


def _placement_changed(placement: Placement, before: str, now: float) -> Emit:
    move = placement.move
    fields: dict[str, FieldValue] = {
        "service": placement.service.name,
        "from": before,
        "to": placement.datacenter,
        "version": placement.version,
        "eids": [str(eid) for eid in placement.service.eids],
    }
    if move is not None and move.target == placement.datacenter:
        fields |= {"move": move.id, "at_ms": _since(move, now), "scheme": move.scheme}
    return Emit("placement.changed", fields)


def _unconfirmed(placement: Placement, event: MoveEvent, now: float, _: Limits) -> Outcome:
    reason = "the Map-Server has not published the new mapping"
    after = _with(placement, "unconfirmed", now, reason=reason)
    return after, [_emit(after, "migration.unconfirmed", now, reason=reason)]


def _fail(placement: Placement, event: MoveEvent, now: float, _: Limits) -> Outcome:
    """Before RESUMED: the service stays, and both agents forget the move (an abort that comes late is refused)."""
    move = _move(placement)
    reason = event.reason if isinstance(event, Failed) else f"no news while {move.state}"
    after = _with(placement, "failed", now, reason=reason)
    return after, [
        AbortMigration(move.id, placement.service.name, move.source, move.target),
        Steer("abort", redirect_of(after)),
        _emit(after, "migration.failed", now, reason=reason, state=str(move.state)),
    ]


def _withdraw(placement: Placement, event: MoveEvent, now: float, _: Limits) -> Outcome:
    """Nobody has been asked for anything yet."""
    assert isinstance(event, Failed)
    after = _with(placement, "failed", now, reason=event.reason)
    return after, [_emit(after, "migration.failed", now, reason=event.reason, state=str(State.QUEUED))]


def _observe(placement: Placement, event: MoveEvent, now: float, _: Limits) -> Outcome:
    assert isinstance(event, Observed)
    if (event.datacenter, event.version) == (placement.datacenter, placement.version):
        return placement, []
    after = msgspec.structs.replace(placement, datacenter=event.datacenter, version=event.version)
    if event.datacenter == placement.datacenter:
        return after, []
    return after, [_placement_changed(after, placement.datacenter, now)]


# --- the table --------------------------------------------------------------------------------------------------------

_RESTING = (State.SETTLED, State.COMMITTED, State.UNCONFIRMED, State.FAILED)
_AFTER_RESUMED = (State.NOTIFIED, State.UNCONFIRMED, State.COMMITTED)
_BEFORE_RESUMED = (State.QUEUED, State.PREPARING, State.WARMING, State.COPYING, State.STOPPED)

TABLE: Mapping[tuple[State, type], tuple[State, Action]] = {
    **{(state, Requested): (State.PREPARING, _request) for state in _RESTING},
    **{(state, Deferred): (State.QUEUED, _queue) for state in _RESTING},
    (State.QUEUED, Admitted): (State.PREPARING, _admit),
    (State.QUEUED, Failed): (State.FAILED, _withdraw),
    **{(state, Observed): (state, _observe) for state in _RESTING},
    **{(state, Found): (State.NOTIFIED, _found) for state in (*_RESTING, *_BEFORE_RESUMED)},
    **{(state, Versioned): (state, _reversion) for state in (*_BEFORE_RESUMED, *_AFTER_RESUMED, State.FAILED)},
    **{(state, Activated): (State.NOTIFIED, _active) for state in (*_BEFORE_RESUMED, State.NOTIFIED, State.FAILED)},
    **{(state, Confirmed): (State.COMMITTED, _commit) for state in (*_BEFORE_RESUMED, State.FAILED)},
    (State.PREPARING, Prepared): (State.WARMING, _prepared),
    (State.WARMING, Warmed): (State.COPYING, _start),
    (State.WARMING, Failed): (State.FAILED, _fail),
    (State.WARMING, TimedOut): (State.FAILED, _fail),
    (State.PREPARING, Failed): (State.FAILED, _fail),
    (State.PREPARING, TimedOut): (State.FAILED, _fail),
    (State.COPYING, Progress): (State.COPYING, _progress),
    (State.COPYING, Stopped): (State.STOPPED, _stopped),
    (State.COPYING, Resumed): (State.NOTIFIED, _resumed),
    (State.COPYING, Failed): (State.FAILED, _fail),
    (State.COPYING, TimedOut): (State.FAILED, _fail),
    (State.STOPPED, Resumed): (State.NOTIFIED, _resumed),
    (State.STOPPED, Failed): (State.FAILED, _fail),
    (State.STOPPED, TimedOut): (State.FAILED, _fail),
    # a move that was given up, and the service runs at its target all the same: the network follows the service
    (State.FAILED, Resumed): (State.NOTIFIED, _resumed),
    **{(state, Stopped): (state, _stopped_late) for state in _AFTER_RESUMED},
    **{(state, Resumed): (state, _resumed_late) for state in _AFTER_RESUMED},
    (State.NOTIFIED, SiteAcknowledged): (State.NOTIFIED, _acknowledged),
    (State.NOTIFIED, Confirmed): (State.COMMITTED, _commit),
    (State.NOTIFIED, TimedOut): (State.UNCONFIRMED, _unconfirmed),
    (State.UNCONFIRMED, SiteAcknowledged): (State.UNCONFIRMED, _acknowledged),
    (State.UNCONFIRMED, Confirmed): (State.COMMITTED, _commit),
    (State.COMMITTED, SiteAcknowledged): (State.COMMITTED, _acknowledged),
}
