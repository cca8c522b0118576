"""Moves that lose nothing, and what goes wrong with them: on virtual time, with real messages and real queues."""

from __future__ import annotations

import pytest

from fmcc.steering.lead import State as LeadState
from lispfmc.core.plans import Plan
from lispfmc.wire.address import Endpoint
from lispfmc.wire.auth import Key, sign
from lispfmc.wire.moves import MoveMessage, MovePhase
from tests.scenarios.moving import APP, RLOCS, World, key_of
from tests.scenarios.network import CONTROL_PORT, Datagram, Faults, Network
from xtr.dataplane.holding import HoldQueue
from xtr.roles import State
from xtr.roles.state import Stopped

FORGED = Plan(9, 9, (APP,), (RLOCS["dc1"],), (RLOCS["dc2"],))


def new(seed: int = 1, faults: Faults = Faults()) -> World:  # noqa: B008 - frozen
    return World(Network(seed, faults))


def prepared(world: World) -> World:
    world.begins()
    world.network.run(1.0)
    assert world.fmcc.heard == ["ready"]
    return world


def moved(world: World, blackout_s: float = 0.06) -> World:
    world.sends_every(0.001, 500)
    world.network.run(0.1)
    world.stops()
    world.network.run(blackout_s)
    world.runs("dc2")
    world.network.run(0.5)
    world.published()
    world.network.run(5.0)
    return world


def at_dc2(world: World, *, directly: bool = True) -> None:
    assert world.owners() == ["dc2"]
    assert world.sites["dc1"].role.state is State.GONE
    assert (set(world.sites["dc2"].registered), world.sites["dc1"].registered) == ({2}, [])
    assert not directly or world.sites["access1"].peer.rlocs == (RLOCS["dc2"],)


def test_a_move_loses_no_packet() -> None:
    world = moved(prepared(new()))
    at_dc2(world)
    assert world.missing() == []
    assert world.fmcc.lead.state is LeadState.COMMITTED


@pytest.mark.parametrize("distance_s", [0.0005, 0.05, 0.1])
def test_the_controllers_distance_changes_nothing(distance_s: float) -> None:
    world = new()
    for site in ("dc1", "dc2", "access1"):
        world.network.delay("fmcc", site, distance_s)
    at = world.network.now
    moved(prepared(world))
    (there,) = [when - at for when, event in world.sites["dc2"].events if event.fields["state"] == "here"]
    assert there == pytest.approx(1.0 + 0.1 + 0.06)
    assert world.missing() == []


@pytest.mark.parametrize("seed", range(10))
def test_loss_duplicates_and_reordering_of_every_message_change_nothing(seed: int) -> None:
    world = new(seed, Faults(loss=0.2, duplicate=0.1, jitter_s=0.03))
    world.begins()
    world.network.run(8.0)
    assert world.fmcc.heard == ["ready"]
    moved(world)
    world.network.run(30.0)
    at_dc2(world)
    assert world.missing() == []


@pytest.mark.parametrize("phase", list(MovePhase))
@pytest.mark.parametrize("answers", [False, True])
def test_every_single_message_may_be_late(phase: MovePhase, answers: bool) -> None:
    """All copies of the first half second are lost: they come in past the next phase."""
    world = new()

    def matching(datagram: Datagram) -> bool:
        message = datagram.message
        return isinstance(message, MoveMessage) and (message.phase, message.is_acknowledgement) == (phase, answers)

    again = world.network.lose(matching)
    world.begins()
    world.network.run(0.5)
    if phase is MovePhase.PREPARE:
        again()
        world.network.run(2.0)
    moved(world)
    if phase is not MovePhase.PREPARE:
        again()
    world.network.run(10.0)
    at_dc2(world)
    assert world.missing() == []


@pytest.mark.parametrize("when", ["prepared", "stopped", "resumed"])
@pytest.mark.parametrize("back", [False, True])
def test_a_controller_that_is_killed_does_not_stop_the_move(when: str, back: bool) -> None:
    world = prepared(new())
    world.sends_every(0.001, 300)
    world.network.run(0.05)
    world.fmcc.down = when == "prepared"
    world.stops()
    world.network.run(0.06)
    world.fmcc.down = world.fmcc.down or when == "stopped"
    world.runs("dc2")
    world.fmcc.down = True
    world.network.run(2.0)
    if back:
        world.fmcc.restarts()
        world.network.run(2.0)
        world.published()
        world.network.run(2.0)
        assert world.fmcc.lead.state is LeadState.COMMITTED
    at_dc2(world)
    assert world.missing() == []


@pytest.mark.parametrize("site", ["dc1", "dc2"])
@pytest.mark.parametrize("when", ["prepared", "stopped", "resumed"])
def test_a_router_that_is_killed_and_comes_back_ends_the_move(site: str, when: str) -> None:
    world = prepared(new())
    for step in ("prepared", "stopped", "resumed"):
        if step == "stopped":
            world.stops()
        if step == "resumed":
            world.runs("dc2")
        if step == when:
            world.sites[site].restarts()
        world.network.run(0.06)
    world.network.run(5.0)
    world.published()
    world.network.run(5.0)
    at_dc2(world, directly=site == "dc1")  # a target that was killed has forgotten the peers: the away entry leads them


def test_a_target_that_never_resumes_leaves_the_service_at_the_source_with_its_packets() -> None:
    world = prepared(new())
    world.sends_every(0.001, 100)
    world.network.run(0.02)
    world.stops()
    world.network.run(10.0)
    world.machine = "dc1"  # the hypervisor goes on where it was
    world.network.run(60.0)
    assert world.owners() == ["dc1"]
    assert world.sites["dc2"].role.state is State.ABORTED
    assert world.missing() == []


def test_an_abort_that_comes_after_activation_is_refused() -> None:
    world = prepared(new())
    world.stops()
    world.runs("dc2", controller=False)
    world.fmcc.led(list(world.fmcc.steering.abort(world.redirect, world.network.now)))
    world.network.run(5.0)
    world.published()
    world.network.run(5.0)
    at_dc2(world)
    assert world.fmcc.lead.state is LeadState.COMMITTED


def test_an_abort_before_stop_leaves_everything_as_it_was() -> None:
    world = prepared(new())
    world.sends_every(0.001, 50)
    world.network.run(0.02)
    world.fmcc.led(list(world.fmcc.steering.abort(world.redirect, world.network.now)))
    world.network.run(5.0)
    assert (world.owners(), world.missing()) == (["dc1"], [])
    assert len(world.received) == 50  # the copies were delivered when they were made
    assert world.fmcc.lead.state is LeadState.ABORTED
    assert world.fmcc.heard == ["ready", "failed"]


def test_a_service_that_resumes_where_the_move_was_given_up_is_followed_by_a_new_epoch() -> None:
    world = prepared(new())
    world.stops()
    world.fmcc.led(list(world.fmcc.steering.abort(world.redirect, world.network.now)))
    world.network.run(2.0)
    assert world.sites["dc2"].role.state is State.ABORTED
    world.runs("dc2")
    world.network.run(5.0)
    assert world.owners() == ["dc2"]
    assert world.sites["dc2"].role.owned == 3


def test_stop_that_nobody_tells_of_costs_copies_and_no_packet() -> None:
    world = prepared(new())
    world.sends_every(0.001, 200)
    world.network.run(0.1)
    world.stops(said=False, controller=False)
    world.network.run(0.005)
    world.runs("dc2")
    world.network.run(5.0)
    assert world.owners() == ["dc2"]
    assert world.missing() == []


def test_an_announcement_of_an_eid_that_is_not_prepared_does_nothing() -> None:
    world = new()
    world.runs("dc2", controller=False)
    world.network.run(1.0)
    assert (world.owners(), world.sites["dc2"].role.state) == (["dc1"], State.ABSENT)


@pytest.mark.parametrize("phase", [MovePhase.PREPARE, MovePhase.ACTIVATE, MovePhase.ABORT])
def test_a_forged_message_is_refused(phase: MovePhase) -> None:
    world = prepared(new())
    before = world.sites["dc2"].role
    source = Endpoint(RLOCS["fmcc"], CONTROL_PORT)
    _inject(world, FORGED.message(phase, 1), source, Key(4, b"wrong"))
    assert world.sites["dc2"].rejects == {"bad-authentication": 1}
    assert world.sites["dc2"].role == before


@pytest.mark.parametrize("phase", [MovePhase.PREPARE, MovePhase.COMMIT])
def test_a_router_cannot_speak_as_a_controller(phase: MovePhase) -> None:
    world = new()
    source = Endpoint(RLOCS["access1"], CONTROL_PORT)
    _inject(world, FORGED.message(phase, 1), source, key_of("access1", "dc2"))
    assert world.sites["dc2"].rejects == {"not-a-party": 1}
    assert world.sites["dc2"].role.state is State.ABSENT


def test_messages_of_the_past_that_are_played_again_change_nothing() -> None:
    world = moved(prepared(new()))
    for datagram in list(world.network.sent):
        world.network.carry(datagram, "fmcc")
    world.network.run(10.0)
    at_dc2(world)


def test_a_move_back_at_once_ends_where_it_started() -> None:
    world = prepared(new())
    world.stops()
    world.runs("dc2")
    world.network.run(0.2)
    world.published()
    back = type(world.redirect)(f"{8:016x}", "app", (APP,), 3, "dc2", "dc1")
    world.redirect = back
    world.begins()
    world.sends_every(0.001, 500)
    world.network.run(0.3)
    _stops_at_dc2(world)
    world.network.run(0.06)
    world.runs("dc1")
    world.network.run(5.0)
    assert world.owners() == ["dc1"]
    assert (world.sites["dc1"].role.owned, world.sites["dc2"].role.state) == (3, State.GONE)
    assert world.missing() == []


def test_a_second_move_of_the_same_service_is_refused_while_one_is_in_hand() -> None:
    world = prepared(new())
    source = Endpoint(RLOCS["fmcc"], CONTROL_PORT)
    other = Plan(12, 2, (APP,), (RLOCS["dc1"],), (RLOCS["dc2"],))
    _inject(world, other.message(MovePhase.PREPARE, 1 << 62), source, key_of("fmcc", "dc2"))
    moved(world)
    at_dc2(world)


def test_what_the_hold_queue_has_no_room_for_is_counted() -> None:
    queue = HoldQueue(most_bytes=10, most_s=1.0)
    assert [queue.put(number, b"1234", 0.0) for number in range(4)] == [True, True, False, False]
    assert queue.counters["dropped.hold-full"] == 2
    assert queue.drain(0.1) == [b"1234", b"1234"]


def _stops_at_dc2(world: World) -> None:
    site = world.sites["dc2"]
    world.machine = None
    site.apply(list(site.lossless._step((APP,), Stopped(8), world.network.now)))
    world.fmcc.led(list(world.fmcc.steering.freeze(world.redirect, world.network.now)))


def _inject(world: World, message: MoveMessage, source: Endpoint, key: Key) -> None:
    world.sites["dc2"].datagram(sign(message, key), source)
