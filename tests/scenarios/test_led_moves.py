"""Lossless moves led by the real controller through the real routers, and what happens when any of them dies."""

from __future__ import annotations

import pytest

from fmcc.moves import Failed, State
from fmcc.requests import RequestRefused
from lispfmc.wire.auth import Key, sign
from lispfmc.wire.moves import MoveMessage, MovePhase, Verdict
from tests.scenarios.led import COPY_S, PAUSE_S, Fmcc, LedWorld
from tests.scenarios.led_nodes import OTHER_FMCC
from tests.scenarios.network import Faults
from tests.scenarios.sites import ALICE_APP, rloc
from xtr.roles.state import IN_HAND


def moving(world: LedWorld, to: str = "dc2", for_s: float = 3.0) -> None:
    world.sends_every(0.001, for_s)
    world.run(0.01)
    world.fmcc.asks(to)


def at(world: LedWorld, site: str) -> None:
    """The service is at `site` for everybody."""
    assert world.deliverers(ALICE_APP) == [site]
    assert world.registered_at(ALICE_APP) == rloc(site)
    assert world.fmcc.placement.datacenter == site


def committed(world: LedWorld, site: str = "dc2") -> None:
    at(world, site)
    assert world.fmcc.placement.state is State.COMMITTED
    assert world.fmcc.core.migrations.busy("alice-app") == ""


def test_a_service_moves_and_no_packet_is_lost() -> None:
    world = LedWorld()
    moving(world)
    world.run(6.0)
    committed(world)
    assert world.lost() == []
    phases = [phase.name for phase in world.fmcc.placement.move.phases]
    assert phases[:6] == ["decided", "prepared", "warmed", "copy.started", "stopped", "resumed"]
    assert {"notified", "acknowledged", "committed"} <= set(phases)


def test_the_target_says_what_the_network_has_added_to_the_blackout_and_nobody_else_does() -> None:
    """From the machine's first sign of life until the data plane has worked off what it held."""
    world = LedWorld()
    moving(world)
    world.run(0.2)
    eids = world.fmcc.placement.service.eids
    for name in ("dc1", "dc2"):  # what was held when the move began keeps nobody waiting
        world.xtrs[name].apply(world.xtrs[name].core.worked_off(eids, {"held": 0}, world.network.now))
    world.run(5.8)
    (here,) = [
        when
        for when, event in world.xtrs["dc2"].events
        if event.name == "move.standing" and event.fields["state"] == "here"
    ]
    for name in ("dc1", "dc2"):
        for late_s in (0.004, 1.0):
            world.xtrs[name].apply(world.xtrs[name].core.worked_off(eids, {"held": 7}, here + late_s))
    packets = [
        (name, event.fields.get("added_ms"))
        for name in ("dc1", "dc2")
        for _, event in world.xtrs[name].events
        if event.name == "move.packets"
    ]
    ((name, added_ms),) = [each for each in packets if each[1] is not None]
    assert name == "dc2"
    assert added_ms == pytest.approx(4)
    assert len(packets) == 6


def test_the_copy_waits_until_both_routers_are_prepared() -> None:
    world = LedWorld()
    again = world.network.lose(lambda datagram: datagram.to.ip == rloc("dc1") and datagram.source.ip == rloc("fmcc"))
    moving(world)
    world.run(1.0)
    assert world.fmcc.placement.state is State.WARMING
    assert world.copying == {}
    again()
    world.run(5.0)
    committed(world)
    assert world.lost() == []


@pytest.mark.parametrize("distance_s", [0.0005, 0.1])
def test_the_controllers_distance_delays_nothing_but_its_own_knowledge(distance_s: float) -> None:
    world = LedWorld()
    for site in ("dc1", "dc2", "access1"):
        world.network.delay("fmcc", site, distance_s)
    moving(world, for_s=4.0)
    world.run(8.0)
    committed(world)
    events = [
        (when, event.fields["state"]) for when, event in world.xtrs["dc2"].events if event.name == "move.standing"
    ]
    here = next(when for when, state in events if state == "here")
    move = world.fmcc.placement.move
    assert here == pytest.approx(move.resumed_ns / 1e9, abs=0.0005)
    assert world.lost() == []


@pytest.mark.parametrize("seed", range(6))
def test_what_the_network_loses_or_reorders_changes_nothing(seed: int) -> None:
    world = LedWorld(seed, Faults(loss=0.2, duplicate=0.1, jitter_s=0.02))
    moving(world, for_s=6.0)
    world.run(60.0)
    committed(world)
    assert world.lost() == []


KILLED_AFTER_S = {
    "hypervisors asked": 0.005,
    "target asked": 0.013,
    "source asked": 0.022,
    "copying": 0.3,
    "stopped": 0.036 + COPY_S + 0.02,
    "resumed": 0.036 + COPY_S + PAUSE_S + 0.002,
    "converging": 0.036 + COPY_S + PAUSE_S + 0.008,
    "committed": 3.0,
}


@pytest.mark.parametrize("phase", KILLED_AFTER_S)
@pytest.mark.parametrize("away_s", [0.0, 0.2, 5.0])
def test_a_controller_that_is_killed_goes_on_where_it_was(phase: str, away_s: float) -> None:
    world = LedWorld()
    moving(world, for_s=8.0)
    world.run(KILLED_AFTER_S[phase])
    world.fmcc.killed()
    world.run(away_s)
    world.fmcc.starts_again()
    world.run(90.0)
    committed(world)
    assert world.lost() == []


@pytest.mark.parametrize("phase", ["copying", "stopped", "resumed", "converging"])
def test_a_move_ends_without_its_controller_once_the_routers_are_prepared(phase: str) -> None:
    world = LedWorld()
    moving(world, for_s=4.0)
    world.run(KILLED_AFTER_S[phase])
    world.fmcc.killed()
    world.run(30.0)
    assert world.deliverers(ALICE_APP) == ["dc2"]
    assert world.registered_at(ALICE_APP) == rloc("dc2")
    assert world.lost() == []


def test_the_map_server_may_be_down_for_the_whole_move() -> None:
    world = LedWorld()
    back = world.network.lose(lambda datagram: rloc("mapserver") in (datagram.to.ip, datagram.source.ip))
    moving(world, for_s=4.0)
    world.run(10.0)
    assert world.deliverers(ALICE_APP) == ["dc2"]
    assert world.fmcc.placement.state is State.NOTIFIED
    back()
    world.run(120.0)
    committed(world)
    assert world.lost() == []


def test_a_second_move_waits_until_the_first_is_published() -> None:
    world = LedWorld()
    world.network.lose(lambda datagram: rloc("mapserver") in (datagram.to.ip, datagram.source.ip))
    moving(world)
    with pytest.raises(RequestRefused, match="on its way to dc2"):
        world.fmcc.asks("dc2")
    world.run(70.0)
    assert world.fmcc.placement.state is State.UNCONFIRMED
    with pytest.raises(RequestRefused, match="the Map-Server has not published its last move yet"):
        world.fmcc.asks("dc1")


def test_back_at_once_ends_where_it_began() -> None:
    world = LedWorld()
    moving(world, for_s=5.0)
    while world.fmcc.placement.state is not State.COMMITTED:
        world.run(0.005)
    world.fmcc.asks("dc1")
    world.run(10.0)
    committed(world, "dc1")
    assert world.fmcc.placement.version == 2
    assert world.lost() == []


@pytest.mark.parametrize("site", ["dc1", "dc2"])
@pytest.mark.parametrize("phase", ["copying", "stopped", "resumed"])
def test_a_router_that_is_killed_at_any_phase_ends_the_move_when_it_is_back(site: str, phase: str) -> None:
    world = LedWorld()
    moving(world, for_s=4.0)
    world.run(KILLED_AFTER_S[phase])
    world.router(site).killed()
    world.run(0.3)
    standing = [role.state for role in world.router(site).disk.values()]
    world.router(site).starts_again()
    told = [event.fields["lost"] for _, event in world.router(site).events if event.name == "move.interrupted"]
    assert told == [{"holding": "held"}.get(state, "copies") for state in standing if state in IN_HAND]
    world.run(120.0)
    committed(world)
    world.sends_every(0.01, 0.1)
    before = len(world.sent)
    world.run(1.0)
    assert [number for number in world.lost() if number > before and number in world.sent[before:]] == []


def test_a_target_that_refuses_ends_the_move_before_the_copy() -> None:
    world = LedWorld()
    world.network.lose(lambda datagram: datagram.to.ip == rloc("dc2") and datagram.source.ip == rloc("fmcc"))
    moving(world, for_s=1.0)
    world.run(15.0)
    assert world.fmcc.placement.state is State.FAILED
    assert "no answer from a tunnel router" in world.fmcc.placement.move.reason
    assert world.copying == {}
    assert world.deliverers(ALICE_APP) == ["dc1"]
    assert world.lost() == []


def test_a_hypervisor_that_fails_leaves_the_service_and_the_next_move_has_an_epoch_of_its_own() -> None:
    world = LedWorld()
    moving(world, for_s=3.0)
    world.run(0.2)
    move = world.fmcc.placement.move
    world.copying.clear()
    world.fmcc.hears(move.id, Failed("no memory"))
    world.run(2.0)
    at(world, "dc1")
    world.fmcc.asks("dc2")
    world.run(5.0)
    committed(world)
    assert world.fmcc.placement.move.version > move.version
    assert world.lost() == []


@pytest.mark.parametrize(("tells_stop", "scheme"), [(False, ""), (True, "bicast")])
def test_without_stop_the_source_copies_from_prepare_on(tells_stop: bool, scheme: str) -> None:
    world = LedWorld()
    world.fmcc.tells_stop = world.tells_stop = tells_stop
    world.sends_every(0.001, 3.0)
    world.run(0.01)
    world.fmcc.asks("dc2", scheme)
    world.run(6.0)
    committed(world)
    prepares = [each.message for each in world.network.sent if isinstance(each.message, MoveMessage)]
    assert {each.bicast for each in prepares if each.phase == MovePhase.PREPARE and each.records} == {True}
    assert world.lost() == []


def test_two_controllers_move_one_service_in_turn() -> None:
    world = LedWorld()
    other = Fmcc(world, "fmcc2", OTHER_FMCC)
    world.fmccs.append(other)
    world.run(5.0)
    moving(world, for_s=15.0)
    world.run(8.0)
    committed(world)
    assert other.placement.datacenter == "dc2"
    other.asks("dc1")
    world.run(10.0)
    assert world.deliverers(ALICE_APP) == ["dc1"]
    assert other.placement.state is State.COMMITTED
    at(world, "dc1")
    assert world.lost() == []


def test_two_controllers_that_move_one_service_at_once_end_with_one_owner() -> None:
    world = LedWorld()
    other = Fmcc(world, "fmcc2", OTHER_FMCC)
    world.fmccs.append(other)
    world.run(5.0)
    moving(world, for_s=20.0)
    other.asks("dc2")
    world.run(180.0)
    assert world.deliverers(ALICE_APP) == ["dc2"]
    assert world.registered_at(ALICE_APP) == rloc("dc2")
    assert world.lost() == []


def test_an_acknowledgement_by_the_agents_key_is_not_answered() -> None:
    world = LedWorld()
    router = world.router("dc1")
    answer = MoveMessage.of(MovePhase.FREEZE, nonce=1, move=7, epoch=0).acknowledgement(Verdict.DONE)
    router.datagram(sign(answer, Key(6, b"agent-dc1")), router.agent_at)
    assert router.rejects == {"unusable-move": 1}


def test_nothing_is_refused_when_nothing_is_wrong() -> None:
    world = LedWorld()
    moving(world)
    world.run(120.0)
    nodes = (*world.xtrs.values(), world.mapserver, world.fmcc, *world.agents.values())
    assert {node.name: dict(node.rejects) for node in nodes if node.rejects} == {}
