"""A router whose service has just resumed delivers first, and tells the others in its next turn, before all else."""

from __future__ import annotations

from typing import Any

from lispfmc.core.effects import Send
from lispfmc.wire.messages import EidRecord, Locator
from lispfmc.wire.moves import MoveMessage, MovePhase
from tests.scenarios.moving import APP, RLOCS, Site, World
from tests.scenarios.network import Network
from xtr.roles import State
from xtr.roles.peer import Await
from xtr.roles.state import Register, Remember, Switch, Unregister


def holding() -> tuple[World, Site]:
    world = World(Network(1))
    world.begins()
    world.network.run(1.0)
    world.stops()
    world.network.run(0.05)
    dc2 = world.sites["dc2"]
    assert dc2.role.state is State.HOLDING
    return world, dc2


def kinds(effects: list[Any]) -> list[str]:
    named = []
    for effect in effects:
        message = getattr(effect, "message", None)
        named.append(MovePhase(message.phase).name if isinstance(message, MoveMessage) else type(effect).__name__)
    return named


def test_the_packets_are_set_free_before_anybody_is_told() -> None:
    world, dc2 = holding()
    first = dc2.lossless.announced(APP, world.network.now)
    assert kinds(first) == ["Switch", "Remember", "Emit"]
    assert isinstance(first[0], Switch)
    assert isinstance(first[1], Remember)
    assert dc2.lossless.next_deadline() == world.network.now, "the next turn is at once"
    owed = dc2.lossless.expired(world.network.now)
    assert kinds(owed) == ["Register", "ACTIVATE", "Await", "ACTIVATE"]
    told = {each.to.ip for each in owed if isinstance(each, Send)}
    assert told == {RLOCS["dc1"], RLOCS["access1"]}
    assert any(isinstance(each, Register) and each.epoch == 2 for each in owed)
    assert any(isinstance(each, Await) and each.rlocs == (RLOCS["access1"],) for each in owed)


def test_what_is_owed_is_told_once() -> None:
    world, dc2 = holding()
    dc2.lossless.announced(APP, world.network.now)
    dc2.lossless.expired(world.network.now)
    assert "Register" not in kinds(dc2.lossless.expired(world.network.now))
    assert (dc2.lossless.next_deadline() or 0) > world.network.now


def test_what_is_owed_comes_before_what_happens_next() -> None:
    """Else a router that is outdone at once would register after it has let go."""
    world, dc2 = holding()
    dc2.lossless.announced(APP, world.network.now)
    record = EidRecord.of(APP, [Locator.of(RLOCS["dc1"])], ttl_minutes=60, map_version=9)
    effects = dc2.lossless.superseded(record, world.network.now)
    registers = next(at for at, each in enumerate(effects) if isinstance(each, Register))
    lets_go = next(at for at, each in enumerate(effects) if isinstance(each, Unregister))
    assert registers < lets_go
    assert "Register" not in kinds(dc2.lossless.expired(world.network.now))


def test_a_router_that_is_killed_before_its_turn_tells_everybody_when_it_is_back() -> None:
    world, dc2 = holding()
    for effect in dc2.lossless.announced(APP, world.network.now):
        if isinstance(effect, Remember):
            dc2.perform(effect)
    dc2.start(None)
    again = dc2.lossless.restored(dc2.remembered.values(), world.network.now)
    assert {"Register", "ACTIVATE"} <= set(kinds(again))
