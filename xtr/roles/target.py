"""The target's rows: hold from PREPARE, deliver at the first sign of the service, tell source and peers.

The target is the judge of a move: once it has activated an epoch nobody can abort it, and once it has promised to give
it up nothing can activate it, not even the service itself. Both survive a restart.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from lispfmc.core.plans import Ask, Party, Plan, Restarted, Settle, TimedOut
from lispfmc.core.versions import newer
from lispfmc.wire.moves import MovePhase
from xtr.roles.state import (
    Abort,
    Activate,
    Event,
    Evidence,
    Held,
    Mode,
    Outcome,
    Prepare,
    Register,
    Remember,
    Resumed,
    Role,
    RoleEffect,
    Row,
    State,
    Superseded,
    Switch,
    Unregister,
    always,
    moved_on,
    of_move,
    plan_of,
    release,
    same,
    unheard,
)

replace = msgspec.structs.replace


# --- conditions -------------------------------------------------------------------------------------------------------


def _to_be_target(role: Role, event: Event) -> bool:
    return isinstance(event, Prepare) and event.ours is Party.TARGET and unheard(role, event.plan)


def _named(role: Role, event: Event) -> bool:
    return isinstance(event, Activate) and event.ours is Party.TARGET and same(role, event)


def _named_unprepared(role: Role, event: Event) -> bool:
    """The controller found the service here: a new epoch, prepared and activated in one."""
    return (
        isinstance(event, Activate)
        and (event.ours, event.sender) == (Party.TARGET, Party.CONTROLLER)
        and unheard(role, event.plan)
    )


def _never_heard(role: Role, event: Event) -> bool:
    return isinstance(event, Abort) and event.ours is Party.TARGET and unheard(role, event.plan)


def _outdone(role: Role, event: Event) -> bool:
    return isinstance(event, Superseded) and newer(event.plan.epoch, plan_of(role).epoch)


# --- actions ----------------------------------------------------------------------------------------------------------


def _hold(role: Role, event: Event) -> Outcome:
    assert isinstance(event, Prepare)
    plan = event.plan
    after = replace(role, plan=plan, promised=plan.epoch, reached=False, asking=False)
    held: list[RoleEffect] = [
        Switch(plan, Mode.PUNT, towards=Party.SOURCE),
        Remember(replace(after, state=State.HOLDING, deadline=None)),
    ]
    return after, held


def _open(role: Role, event: Event) -> Outcome:
    """Deliver first; the mapping system, the source and the peers shorten the path, they are not waited for."""
    plan = event.plan if isinstance(event, Activate) else plan_of(role)
    after = replace(role, plan=plan, owned=plan.epoch, promised=plan.epoch, asking=False)
    return after, [
        Switch(plan, Mode.DELIVER, Held.DELIVER),
        Remember(replace(after, state=State.HERE, deadline=None)),
        Settle(plan),
        *_told(plan),
    ]


def _give_up(role: Role, event: Event) -> Outcome:
    """A promise: written down before anybody is told. The source has copies of what is held."""
    plan = event.plan if isinstance(event, Abort) else plan_of(role)
    after = replace(role, plan=plan, promised=plan.epoch)
    return after, [
        Remember(replace(after, state=State.ABORTED, deadline=None)),
        Switch(plan, Mode.FORWARD, Held.DISCARD, Party.SOURCE),
    ]


def _make_way(role: Role, event: Event) -> Outcome:
    """Somebody else has the EIDs by a higher epoch."""
    assert isinstance(event, Superseded)
    plan = event.plan
    after = replace(role, plan=plan, promised=plan.epoch)
    return after, [
        Remember(replace(after, state=State.GONE, deadline=None)),
        Switch(plan, Mode.FORWARD, Held.SEND, Party.TARGET),
        Unregister(plan),
    ]


def _hold_anew(role: Role, event: Event) -> Outcome:
    return role, [Switch(plan_of(role), Mode.PUNT, towards=Party.SOURCE)]


def _open_anew(role: Role, event: Event) -> Outcome:
    plan = role.plan
    if plan is None:  # it has never moved
        return role, []
    ours = role.owned == plan.epoch  # else it came back to us, when the target gave up
    told = _told(plan) if ours else [Register(plan, role.owned)]
    return role, [Switch(plan, Mode.DELIVER), *told]


def _refuse_anew(role: Role, event: Event) -> Outcome:
    return role, [Switch(plan_of(role), Mode.FORWARD, towards=Party.SOURCE)]


def _told(plan: Plan) -> list[RoleEffect]:
    return [
        Register(plan, plan.epoch),
        Ask(Party.SOURCE, MovePhase.ACTIVATE, plan),
        Ask(Party.PEERS, MovePhase.ACTIVATE, plan),
    ]


# --- the table --------------------------------------------------------------------------------------------------------

_HOLD = Row(State.HOLDING, _hold, _to_be_target, "PREPARE")
_TAKE = Row(State.HERE, _open, _named_unprepared, "ACTIVATE by the controller")
_PROMISE = Row(State.ABORTED, _give_up, _never_heard, "ABORT")

TABLE: Mapping[tuple[State, type], tuple[Row, ...]] = {
    **{(state, Prepare): (_HOLD,) for state in (State.ABSENT, State.GONE, State.ABORTED, State.HOLDING)},
    **{(state, Activate): (_TAKE,) for state in (State.ABSENT, State.HERE, State.GONE, State.ABORTED)},
    **{(state, Abort): (_PROMISE,) for state in (State.ABSENT, State.GONE, State.ABORTED)},
    (State.HOLDING, Evidence): (Row(State.HERE, _open, always, "evidence"),),
    (State.HOLDING, Resumed): (Row(State.HERE, _open, of_move, "resumed"),),
    (State.HOLDING, Activate): (Row(State.HERE, _open, _named, "ACTIVATE"), _TAKE),
    (State.HOLDING, Abort): (Row(State.ABORTED, _give_up, same, "ABORT"), _PROMISE),
    (State.HOLDING, TimedOut): (Row(State.ABORTED, _give_up, always, "time over"),),
    (State.HOLDING, Superseded): (Row(State.GONE, _make_way, _outdone, "higher epoch"),),
    (State.ABORTED, Superseded): (Row(State.GONE, _make_way, moved_on, "moved on"),),
    (State.ABORTED, TimedOut): (Row(State.ABORTED, release, always, "time over: nothing is led"),),
    (State.HERE, Restarted): (Row(State.HERE, _open_anew, always, "restart"),),
    (State.HOLDING, Restarted): (Row(State.HOLDING, _hold_anew, always, "restart"),),
    (State.ABORTED, Restarted): (Row(State.ABORTED, _refuse_anew, always, "restart"),),
}
