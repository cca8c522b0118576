"""What can happen next in a world: each action with its label, and the one that a fault-free run would take.

Faults are bounded by the budget. A message that is under way is not sent again: a loss or a duplicate says what a
retransmission too early would, in fewer states.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from operator import methodcaller
from typing import Any, NamedTuple

from fmcc.steering import lead as leading
from lispfmc.core.plans import Plan, TimedOut
from lispfmc.core.versions import next_version
from tests.explore.registry import EID, RLOCS
from tests.explore.world import (
    CONTROLLER,
    MAP_SERVER,
    NAMES,
    NODES,
    PEER,
    SITES,
    STOPPED,
    Draft,
    World,
)
from xtr.roles.state import Evidence, State

Change = Callable[[Draft], None]


class Action(NamedTuple):
    """One thing that happens: an arrow from one to the other, or something at one place."""

    source: int
    to: int
    text: str
    change: Change


def fair(world: World) -> Action | None:
    """The next step when nothing goes wrong any more; None when all has come to rest."""
    for each in (_deliveries, _facts, _evidence, _machine, _repeats, _registers, _notices, _timeouts):
        for action in each(world):
            return action
    return None


def possible(world: World) -> Iterator[Action]:
    """Everything that can happen next within the budget."""
    for each in (_deliveries, _facts, _evidence, _machine, _repeats, _registers, _notices):
        yield from each(world)
    if world.budget.timeouts:
        for action in _timeouts(world):
            yield _spending(action, timeouts=1)
    for each in (_lost, _doubled, _overtaken, _crashes, _wishes):
        yield from each(world)


def _spending(action: Action, **what: int) -> Action:
    def change(draft: Draft) -> None:
        draft.spend(**what)
        action.change(draft)

    return action._replace(change=change)


# --- messages ---------------------------------------------------------------------------------------------------------


def _text(message: tuple[Any, ...]) -> str:
    match message:
        case ("ask", phase, plan):
            return f"{phase.name} {plan.epoch}"
        case ("answer", phase, plan, said):
            return f"{phase.name} {plan.epoch}: {said.name}"
        case ("register", epoch, _):
            return f"Map-Register {epoch}"
        case ("registered", epoch):
            return f"Map-Notify {epoch}"
        case ("notice", owner, epoch):
            return f"Map-Notify {epoch} at {NAMES[owner]}"
        case ("noticed", epoch):
            return f"Map-Notify-Ack {epoch}"
        case ("packet", number):
            return f"packet {number}"
    raise AssertionError(message)


def _take(draft: Draft, key: tuple[int, int, bool], at: int) -> tuple[Any, ...]:
    queue: tuple[tuple[Any, ...], ...] = draft.channels[key]
    draft.channels[key] = queue[:at] + queue[at + 1 :]
    return queue[at]


def _delivery(key: tuple[int, int, bool], message: tuple[Any, ...], at: int, remark: str = "") -> Action:
    def change(draft: Draft) -> None:
        _take(draft, key, at)
        draft.deliver(key[0], key[1], message)

    return Action(key[0], key[1], _text(message) + remark, change)


def _deliveries(world: World) -> Iterator[Action]:
    for key, queue in world.channels:
        yield _delivery(key, queue[0], 0)


def _lost(world: World) -> Iterator[Action]:
    """Packets of the user are not lost on the way: nobody promises them a retransmission."""
    if world.budget.losses:
        for key, queue in world.channels:
            if not key[2]:
                action = Action(key[0], key[1], f"{_text(queue[0])} LOST", _drop(key))
                yield _spending(action, losses=1)


def _drop(key: tuple[int, int, bool]) -> Change:
    return lambda draft: draft.channels.update({key: draft.channels[key][1:]})


def _doubled(world: World) -> Iterator[Action]:
    if world.budget.duplicates:
        for key, queue in world.channels:
            if not key[2]:

                def change(draft: Draft, key: tuple[int, int, bool] = key, message: Any = queue[0]) -> None:
                    # the copy goes to the end of the channel: it may come in after everything else
                    draft.channels[key] = (*draft.channels[key][1:], message)
                    draft.deliver(key[0], key[1], message)

                yield _spending(Action(key[0], key[1], f"{_text(queue[0])} (a copy follows)", change), duplicates=1)


def _overtaken(world: World) -> Iterator[Action]:
    if world.budget.reorders:
        for key, queue in world.channels:
            if len(queue) > 1:
                yield _spending(_delivery(key, queue[1], 1, " (overtakes)"), reorders=1)


def _repeats(world: World) -> Iterator[Action]:
    queues = dict(world.channels)
    for query in world.queries:
        there = queues.get((query.by, query.to, False), ())
        back = queues.get((query.to, query.by, False), ())
        same = [one for one in (*there, *back) if one[0] in ("ask", "answer") and one[1:3] == query[2:4]]
        if not same:

            def change(draft: Draft, query: Any = query) -> None:
                draft.queries.discard(query)
                draft.queries.add(query._replace(again=True))
                draft.send(query.by, query.to, ("ask", query.phase, query.plan))

            yield Action(query.by, query.by, f"repeats {query.phase.name} to {NAMES[query.to]}", change)


def _registers(world: World) -> Iterator[Action]:
    queues = dict(world.channels)
    for node in SITES:
        epoch, acknowledged = world.registering[node - 1]
        under_way = queues.get((node, MAP_SERVER, False), ()) + queues.get((MAP_SERVER, node, False), ())
        if not epoch or any(one[0] in ("register", "registered") for one in under_way):
            continue
        if not acknowledged or world.registry.owner != node:
            yield Action(node, node, "registers again", methodcaller("register", node))
        elif world.budget.refreshes:
            again = Action(node, node, "refreshes its registration", methodcaller("register", node))
            yield _spending(again, refreshes=1)


def _notices(world: World) -> Iterator[Action]:
    queues = dict(world.channels)
    for node in world.notices:
        under_way = queues.get((MAP_SERVER, node, False), ()) + queues.get((node, MAP_SERVER, False), ())
        if not any(one[0] in ("notice", "noticed") for one in under_way):
            message = ("notice", world.registry.owner, world.registry.epoch)
            yield Action(
                MAP_SERVER,
                MAP_SERVER,
                f"repeats Map-Notify to {NAMES[node]}",
                methodcaller("send", MAP_SERVER, node, message),
            )


# --- the machine, timers, wishes, crashes -----------------------------------------------------------------------------


def _facts(world: World) -> Iterator[Action]:
    for fact in world.facts:
        yield Action(fact[0], fact[0], f"hears: {fact[1]}", methodcaller("heard", fact))


def _evidence(world: World) -> Iterator[Action]:
    place = world.machine[0]
    if place and world.roles[place - 1].state is State.HOLDING:
        yield Action(place, place, "sees the machine's announcement", lambda draft: draft.site(place, Evidence()))


def _machine(world: World) -> Iterator[Action]:
    place, source, target, _ = world.machine
    if place == source != STOPPED:
        yield Action(source, source, "THE MACHINE STOPS", lambda draft: draft.stop())
    elif place == STOPPED:
        yield Action(target, target, "THE MACHINE RUNS", lambda draft: draft.run(target))
        if world.budget.returns:
            action = Action(source, source, "THE MACHINE RUNS AGAIN", lambda draft: draft.run(source))
            yield _spending(action, returns=1)


def _timeouts(world: World) -> Iterator[Action]:
    for node in SITES:
        role = world.roles[node - 1]
        if role.deadline is not None:
            yield Action(node, node, f"time of {role.state} is over", methodcaller("site", node, TimedOut()))
    if world.lead.deadline is not None:
        state = world.lead.state
        yield Action(CONTROLLER, CONTROLLER, f"time of {state} is over", lambda draft: draft.led(TimedOut()))


def _crashes(world: World) -> Iterator[Action]:
    if world.budget.crashes:
        for node in (*SITES, CONTROLLER, MAP_SERVER):
            crash = Action(node, node, "KILLED AND STARTED AGAIN", methodcaller("crash", node))
            yield _spending(crash, crashes=1)


def _wishes(world: World) -> Iterator[Action]:
    if world.budget.packets:
        number, place = world.sent + 1, NODES[world.peer.rlocs[0]]

        def send(draft: Draft) -> None:
            draft.sent = number
            draft.send(PEER, place, ("packet", number))

        yield _spending(Action(PEER, PEER, f"the user sends packet {number}", send), packets=1)
    if world.budget.give_ups and world.lead.state in (leading.State.READY, leading.State.STOPPED):
        yield _spending(
            Action(CONTROLLER, CONTROLLER, "the operator ends the move", lambda draft: draft.led(leading.GiveUp())),
            give_ups=1,
        )
    place, _, migrating, _ = world.machine
    # by a person, who is slower than what the agents have to say of its last move
    unheard = any(to == CONTROLLER and what in ("resumed", "failed") for to, what, _ in world.facts)
    if world.budget.carried and place and not migrating and not unheard:
        by_hand = Action(place, place, "THE MACHINE IS CARRIED AWAY", lambda draft: draft.carry(3 - place))
        yield _spending(by_hand, carried=1)
    if world.budget.moves_back and world.lead.state is leading.State.COMMITTED and world.machine[0] == 2:
        before = world.lead.plan
        assert before is not None
        plan = Plan(before.move + 1, next_version(before.epoch), (EID,), (RLOCS[2],), (RLOCS[1],))
        back = Action(
            CONTROLLER, CONTROLLER, "the operator moves it back", lambda draft: draft.led(leading.Begin(plan))
        )
        yield _spending(back, moves_back=1)
