"""The source's rows: mirror from PREPARE, forward from the instant of STOP, let go when the target has activated.

It never takes the EIDs back on its own: only the target's word that this epoch is given up lets it deliver again, since
the target may have activated on what it saw itself.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from lispfmc.core.plans import Answered, Ask, Party, Plan, Restarted, Settle, TimedOut
from lispfmc.core.versions import newer
from lispfmc.wire.moves import MovePhase, Verdict
from xtr.roles.state import (
    Abort,
    Activate,
    Commit,
    Event,
    ExportPeers,
    Freeze,
    Held,
    Mode,
    Outcome,
    Prepare,
    Register,
    Remember,
    Returned,
    Role,
    RoleEffect,
    Row,
    State,
    Stopped,
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


def _event_plan(event: Event) -> Plan:
    assert isinstance(event, Prepare | Freeze | Activate | Commit | Abort | Superseded | Answered)
    return event.plan


# --- conditions -------------------------------------------------------------------------------------------------------


def _to_be_source(role: Role, event: Event) -> bool:
    return isinstance(event, Prepare) and event.ours is Party.SOURCE and unheard(role, event.plan)


def _activated(role: Role, event: Event) -> bool:
    """The target says so, of this move or of one that came after it; or the controller, once the target has."""
    return (
        isinstance(event, Activate)
        and event.ours is Party.SOURCE
        and (event.plan.same(role.plan) or unheard(role, event.plan))
    )


def _activated_unprepared(role: Role, event: Event) -> bool:
    """Without PREPARE, a router takes an EID's loss from its controller alone, not from whoever claims it. COMMIT says
    it too: a target that was prepared first may have activated on what it saw, and nobody sends ACTIVATE any more."""
    return (
        isinstance(event, Activate | Commit)
        and (event.ours, event.sender) == (Party.SOURCE, Party.CONTROLLER)
        and unheard(role, event.plan)
    )


def _found_here(role: Role, event: Event) -> bool:
    """The controller knows that the service runs here again, by a move that is to come after the one in hand."""
    return (
        isinstance(event, Activate)
        and (event.ours, event.sender) == (Party.TARGET, Party.CONTROLLER)
        and unheard(role, event.plan)
    )


def _outdone(role: Role, event: Event) -> bool:
    return isinstance(event, Superseded) and newer(event.plan.epoch, role.owned)


def _given_up(role: Role, event: Event) -> bool:
    """The target will never activate this epoch."""
    return (
        same(role, event)
        and isinstance(event, Answered)
        and ((event.by, event.verdict) == (Party.TARGET, Verdict.ABORTED))
    )


def _active_there(role: Role, event: Event) -> bool:
    return (
        same(role, event)
        and isinstance(event, Answered)
        and ((event.by, event.verdict) == (Party.TARGET, Verdict.ACTIVE))
    )


def _freeze_answered(role: Role, event: Event) -> bool:
    return (
        same(role, event)
        and isinstance(event, Answered)
        and ((event.by, event.phase, event.verdict) == (Party.TARGET, MovePhase.FREEZE, Verdict.DONE))
    )


# --- actions ----------------------------------------------------------------------------------------------------------


def _mirror(role: Role, event: Event) -> Outcome:
    plan = _event_plan(event)
    after = replace(role, plan=plan, promised=plan.epoch, reached=False, asking=False)
    return after, [
        Switch(plan, Mode.MIRROR, towards=Party.TARGET),
        _remember(after, State.MIRRORING),
        ExportPeers(plan),
    ]


def _freeze(role: Role, event: Event) -> Outcome:
    """The packets first: what was delivered in the last milliseconds died with the machine, and is sent again."""
    plan = plan_of(role)
    ago_s = event.ago_s if isinstance(event, Stopped) else None
    return role, [
        Switch(plan, Mode.FORWARD, Held.SEND, Party.TARGET, copies=True, stopped_s=ago_s),
        _remember(role, State.FROZEN),
        Ask(Party.TARGET, MovePhase.FREEZE, plan),
    ]


def _let_go(role: Role, event: Event) -> Outcome:
    plan = plan_of(role) if isinstance(event, Answered) else _event_plan(event)
    # a target that has answered FREEZE got what was forwarded; else the copies go once more, and it drops what it has
    held = Held.DISCARD if role.state in (State.HERE, State.GONE) or role.reached else Held.SEND
    promised = plan.epoch if newer(plan.epoch, role.promised) else role.promised
    after = replace(role, plan=plan, promised=promised, reached=False, asking=False)
    return after, [
        Switch(plan, Mode.FORWARD, held, Party.TARGET),
        _remember(after, State.GONE),
        Unregister(plan),
        Settle(plan),
    ]


def _ask(role: Role, event: Event) -> Outcome:
    """Whether the move can be given up is the target's to say."""
    after = replace(role, asking=True, deadline=None)
    return after, [Remember(after), Ask(Party.TARGET, MovePhase.ABORT, plan_of(role))]


def _take_back(role: Role, event: Event) -> Outcome:
    plan = plan_of(role)
    # copies that were made while delivering were delivered then
    held = Held.DELIVER if role.state is State.FROZEN else Held.DISCARD
    after = replace(role, reached=False, asking=False)
    return after, [
        Switch(plan, Mode.DELIVER, held),
        _remember(after, State.HERE),
        Settle(plan),
        Register(plan, role.owned),
    ]


def _reached(role: Role, event: Event) -> Outcome:
    assert isinstance(event, Answered)
    after = replace(role, reached=True)
    again: list[RoleEffect] = [Switch(plan_of(role), Mode.FORWARD, Held.SEND, Party.TARGET, copies=True)]
    return after, again if event.again else []


def _mirror_anew(role: Role, event: Event) -> Outcome:
    plan = plan_of(role)
    return role, [Switch(plan, Mode.MIRROR, towards=Party.TARGET), Register(plan, role.owned), *_asks(role)]


def _forward_anew(role: Role, event: Event) -> Outcome:
    plan = plan_of(role)
    switch = Switch(plan, Mode.FORWARD, towards=Party.TARGET, copies=role.state is State.FROZEN)
    freeze = [Ask(Party.TARGET, MovePhase.FREEZE, plan)] if role.state is State.FROZEN else []
    return replace(role, reached=False), [switch, *freeze, *_asks(role)]


def _asks(role: Role) -> list[RoleEffect]:
    return [Ask(Party.TARGET, MovePhase.ABORT, plan_of(role))] if role.asking else []


def _remember(role: Role, state: State) -> Remember:
    return Remember(replace(role, state=state, deadline=None))


# --- the table --------------------------------------------------------------------------------------------------------


def _rows(state: State) -> dict[tuple[State, type], tuple[Row, ...]]:
    """What MIRRORING and FROZEN have in common."""
    return {
        (state, Activate): (
            Row(State.GONE, _let_go, _activated, "ACTIVATE"),
            # it is asked again until the move in hand has ended, and then obeyed
            Row(state, _ask, _found_here, "ACTIVATE as target: ask the target"),
        ),
        (state, Commit): (Row(State.GONE, _let_go, same, "COMMIT"),),
        (state, Superseded): (Row(State.GONE, _let_go, _outdone, "higher epoch"),),
        (state, Abort): (Row(state, _ask, same, "ABORT: ask the target"),),
        (state, Returned): (Row(state, _ask, of_move, "returned: ask the target"),),
        (state, TimedOut): (Row(state, _ask, always, "time over: ask the target"),),
        # another move wants the EIDs: the one in hand must end first
        (state, Prepare): (Row(state, _ask, _to_be_source, "other PREPARE: ask the target"),),
    }


TABLE: Mapping[tuple[State, type], tuple[Row, ...]] = {
    **_rows(State.MIRRORING),
    **_rows(State.FROZEN),
    (State.HERE, Prepare): (Row(State.MIRRORING, _mirror, _to_be_source, "PREPARE"),),
    (State.HERE, Activate): (Row(State.GONE, _let_go, _activated_unprepared, "ACTIVATE by the controller"),),
    (State.HERE, Commit): (Row(State.GONE, _let_go, _activated_unprepared, "COMMIT by the controller"),),
    (State.HERE, Superseded): (Row(State.GONE, _let_go, _outdone, "higher epoch"),),
    (State.MIRRORING, Freeze): (Row(State.FROZEN, _freeze, same, "FREEZE"),),
    (State.MIRRORING, Stopped): (Row(State.FROZEN, _freeze, of_move, "stopped"),),
    (State.MIRRORING, Answered): (
        Row(State.HERE, _take_back, _given_up, "target aborted"),
        Row(State.GONE, _let_go, _active_there, "target active"),
    ),
    (State.FROZEN, Answered): (
        Row(State.HERE, _take_back, _given_up, "target aborted"),
        Row(State.GONE, _let_go, _active_there, "target active"),
        Row(State.FROZEN, _reached, _freeze_answered, "target holds"),
    ),
    (State.GONE, Superseded): (Row(State.GONE, _let_go, moved_on, "moved on"),),
    (State.GONE, TimedOut): (Row(State.GONE, release, always, "time over: away entry ends"),),
    (State.MIRRORING, Restarted): (Row(State.MIRRORING, _mirror_anew, always, "restart"),),
    (State.FROZEN, Restarted): (Row(State.FROZEN, _forward_anew, always, "restart"),),
    (State.GONE, Restarted): (Row(State.GONE, _forward_anew, always, "restart"),),
}
