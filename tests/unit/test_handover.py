"""What becomes of a moving service's packets at each of the two sites, step by step."""

from __future__ import annotations

import pytest

from lispfmc.core.plans import Party, Plan
from lispfmc.wire.address import Prefix, ip_of
from xtr.dataplane.handover import MARKER_WAIT_S, MARKERS_S, Handover, Verb
from xtr.dataplane.holding import Room
from xtr.roles.state import Held, Mode, Switch

EID = Prefix.parse("100.64.101.10/32")
SOURCE, TARGET, PEER, OTHER = (ip_of(f"198.18.0.{last}") for last in (21, 22, 11, 12))
PLAN = Plan(7, 2, (EID,), (SOURCE,), (TARGET,))


def at(mode: Mode, held: Held = Held.KEEP, towards: Party | None = None, *, copies: bool = False) -> Handover:
    handover = Handover(PLAN, 0.0)
    handover.switch(Switch(PLAN, mode, held, towards, copies), 0.0)
    return handover


def steps(handover: Handover) -> list[tuple[Verb, bytes]]:
    done = []
    while handover.todo:
        done.append((handover.todo[0].verb, handover.todo[0].packet))
        handover.done()
    return done


def test_the_target_holds_what_the_source_sends_and_leads_all_else_to_it() -> None:
    target = at(Mode.PUNT, towards=Party.SOURCE)
    target.packet(b"2", SOURCE, 64, 0.0, 2)
    target.packet(b"1", SOURCE, 64, 0.0, 1)
    target.packet(b"direct", PEER, 64, 0.0)
    target.packet(b"from this site", None, 64, 0.0)
    assert target.to == (SOURCE,)
    assert steps(target) == [(Verb.LEAD, b"direct"), (Verb.LEAD, b"from this site")]
    target.switch(Switch(PLAN, Mode.DELIVER, Held.DELIVER), 0.1)
    target.packet(b"3", SOURCE, 64, 0.1, 3)
    assert steps(target) == [(Verb.DELIVER, each) for each in (b"1", b"2", b"3")]
    target.packet(b"2", SOURCE, 64, 0.2, 2)
    assert (steps(target), target.packets()["duplicate"]) == ([], 1)


def test_the_source_replays_what_it_delivered_last_and_then_numbers_everything() -> None:
    source = at(Mode.MIRROR, towards=Party.TARGET)
    source.packet(b"long ago", PEER, 64, 0.0)
    source.packet(b"just now", PEER, 64, 1.0)
    assert steps(source) == [(Verb.DELIVER, b"long ago"), (Verb.DELIVER, b"just now")]
    source.switch(Switch(PLAN, Mode.FORWARD, Held.SEND, Party.TARGET, copies=True), 1.001)
    source.packet(b"after", PEER, 64, 1.002)
    numbers = [step.number for step in source.todo]
    assert numbers == [numbers[0], numbers[0] + 1]
    assert steps(source) == [(Verb.NUMBER, b"just now"), (Verb.NUMBER, b"after")]
    source.switch(Switch(PLAN, Mode.DELIVER, Held.DELIVER), 1.1)
    assert steps(source) == [(Verb.DELIVER, b"just now"), (Verb.DELIVER, b"after")]


def test_a_router_that_is_started_anew_goes_on_above_the_numbers_that_it_gave_out() -> None:
    given: list[int] = []
    for started in (100.0, 100.5):
        source = Handover(PLAN, started)
        source.switch(Switch(PLAN, Mode.FORWARD, towards=Party.TARGET, copies=True), started)
        for _ in range(100):
            source.packet(b"x", PEER, 64, started)
        given += [step.number for step in source.todo]
    assert given == sorted(set(given))


def test_no_packet_goes_in_a_circle() -> None:
    away = at(Mode.FORWARD, towards=Party.TARGET)
    away.packet(b"came from there", TARGET, 64, 0.0)
    frozen = at(Mode.FORWARD, towards=Party.TARGET, copies=True)
    frozen.packet(b"came from there with a number", TARGET, 64, 0.0, 5)
    assert (steps(away), steps(frozen)) == ([], [])
    assert (away.packets()["lost.circle"], frozen.packets()["lost.circle"]) == (1, 1)


def test_what_the_target_leads_to_a_frozen_source_is_turned_back_once_to_be_held() -> None:
    frozen, target = at(Mode.FORWARD, towards=Party.TARGET, copies=True), at(Mode.PUNT, towards=Party.SOURCE)
    frozen.packet(b"from the target's own site", TARGET, 64, 0.0)
    (step,) = frozen.todo
    assert step.verb is Verb.NUMBER
    target.packet(step.packet, SOURCE, step.ttl, 0.0, step.number)
    assert (steps(target), target.packets()["held"]) == ([], 1)


@pytest.mark.parametrize("ttl", [0, 1])
def test_a_packet_that_was_passed_on_too_often_is_dropped(ttl: int) -> None:
    away = at(Mode.FORWARD, towards=Party.TARGET)
    away.packet(b"old", PEER, ttl, 0.0)
    assert (steps(away), away.newly_lost(), away.newly_lost()) == ([], [("lost.ttl", 1)], [])


def test_a_peers_direct_packets_wait_for_its_end_marker_and_others_do_not() -> None:
    target = at(Mode.DELIVER)
    target.wait_for((PEER,), 0.0)
    target.packet(b"direct", PEER, 64, 0.0)
    target.packet(b"of another", OTHER, 64, 0.0)
    target.packet(b"the last by the old path", SOURCE, 64, 0.0)
    assert not target.settled
    target.marked(SOURCE, PEER)
    assert target.waits is False
    target.packet(b"next", PEER, 64, 0.0)
    assert [packet for _, packet in steps(target)] == [b"of another", b"the last by the old path", b"direct", b"next"]
    assert target.settled


def test_an_end_marker_that_is_lost_costs_a_moment() -> None:
    target = at(Mode.DELIVER)
    target.wait_for((PEER,), 0.0)
    target.packet(b"direct", PEER, 64, 0.0)
    target.expire(MARKER_WAIT_S / 2)
    assert not target.todo
    target.expire(MARKER_WAIT_S * 1.1)
    assert steps(target) == [(Verb.DELIVER, b"direct")]
    target.expire(MARKERS_S)
    assert (target.settled, target.packets()["marker-missed"]) == (True, 1)


def test_the_source_leads_an_end_marker_on_and_nobody_else_may_send_one() -> None:
    frozen, target = at(Mode.FORWARD, towards=Party.TARGET, copies=True), at(Mode.DELIVER)
    frozen.packet(b"last", PEER, 64, 0.0)
    frozen.marked(PEER, None)
    assert steps(frozen) == [(Verb.NUMBER, b"last"), (Verb.MARK, PEER)]
    target.wait_for((PEER,), 0.0)
    target.marked(OTHER, PEER)
    assert target.waits


def test_without_stop_events_each_packet_is_delivered_and_copied() -> None:
    plan = Plan(7, 2, (EID,), (SOURCE,), (TARGET,), bicast=True)
    source = Handover(plan, 0.0)
    source.switch(Switch(plan, Mode.MIRROR, towards=Party.TARGET), 0.0)
    source.packet(b"both", PEER, 64, 0.0)
    assert sorted(verb.value for verb, _ in steps(source)) == ["deliver", "number"]


def test_what_is_to_be_worked_off_is_bounded() -> None:
    plan = Plan(7, 2, (EID,), (SOURCE,), (TARGET,), hold_bytes=100)
    away = Handover(plan, 0.0)
    away.switch(Switch(plan, Mode.FORWARD, towards=Party.TARGET), 0.0)
    for _ in range(30):
        away.packet(bytes(10), PEER, 64, 0.0)
    assert (len(away.todo), away.packets()["lost.busy"]) == (20, 10)


def test_another_moves_router_gets_what_was_held_without_numbers() -> None:
    target = at(Mode.PUNT, towards=Party.SOURCE)
    target.packet(b"held", SOURCE, 64, 0.0, 1)
    on = Plan(8, 3, (EID,), (TARGET,), (OTHER,))
    target.switch(Switch(on, Mode.FORWARD, Held.SEND, Party.TARGET), 0.0)
    assert (target.to, steps(target)) == ((OTHER,), [(Verb.LEAD, b"held")])


def test_all_moves_of_a_router_share_its_room_and_give_it_back() -> None:
    room = Room(10)
    others = Plan(8, 2, (Prefix.parse("100.64.101.11/32"),), (SOURCE,), (TARGET,))
    one, other = (Handover(plan, 0.0, room) for plan in (PLAN, others))
    for handover in (one, other):
        handover.switch(Switch(handover.plan, Mode.PUNT, towards=Party.SOURCE), 0.0)
    one.packet(b"123456", SOURCE, 64, 0.0, 1)
    other.packet(b"7890", SOURCE, 64, 0.0, 1)
    other.packet(b"too much", SOURCE, 64, 0.0, 2)
    assert (other.packets()["lost.room-full"], other.packets()["lost"]) == (1, 1)
    one.switch(Switch(PLAN, Mode.DELIVER, Held.DELIVER), 0.1)
    assert not room.take(1), "what is worked off takes room as well"
    assert steps(one) == [(Verb.DELIVER, b"123456")]
    other.packet(b"again", SOURCE, 64, 0.1, 3)
    other.end()
    assert room.take(10)


@pytest.mark.parametrize("mode", [Mode.PUNT, Mode.MIRROR])
def test_what_was_kept_for_a_move_that_another_takes_the_place_of_leaves_its_room(mode: Mode) -> None:
    room = Room(20)
    handover = Handover(PLAN, 0.0, room)
    towards = Party.SOURCE if mode is Mode.PUNT else Party.TARGET
    handover.switch(Switch(PLAN, mode, towards=towards), 0.0)
    handover.packet(b"123456", SOURCE, 64, 0.0, 1 if mode is Mode.PUNT else None)
    steps(handover)
    assert not room.fits(20)
    again = Plan(8, 3, PLAN.eids, PLAN.source, PLAN.target)
    handover.switch(Switch(again, mode, towards=towards), 0.1)
    assert room.fits(20)


def test_copies_make_room_for_newer_ones_while_the_service_runs() -> None:
    room = Room(16)
    source = Handover(PLAN, 0.0, room)
    source.switch(Switch(PLAN, Mode.MIRROR, towards=Party.TARGET), 0.0)
    for packet in (b"1111", b"2222", b"3333", b"4444"):
        source.packet(packet, PEER, 64, 0.0)
        assert steps(source) == [(Verb.DELIVER, packet)]
    source.switch(Switch(PLAN, Mode.FORWARD, Held.SEND, Party.TARGET, copies=True), 0.001)
    assert steps(source)[0] == (Verb.NUMBER, b"3333")
    source.end()
    assert room.take(16)
