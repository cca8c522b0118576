"""An EID moves: who is told, who owns it, and what an xTR that lost it can no longer do."""

from __future__ import annotations

import pytest

from lispfmc.wire.auth import Key
from tests.scenarios.mapserver_world import ALICE, SERVICE, World, Xtr, told


def moved(world: World) -> tuple[Xtr, Xtr]:
    """Alice was at access1 and has just been registered by access2."""
    old, new = Xtr(world, "access1"), Xtr(world, "access2")
    old.registers(old.home, ALICE)
    world.forget()
    new.registers(ALICE)
    return old, new


def test_the_previous_xtr_is_told_the_new_mapping() -> None:
    world = World()
    old, new = moved(world)
    [notify] = old.notifies()
    assert told(notify) == {ALICE: (new.rloc,)}
    assert world.event_names() == ["registration.changed", "move.notified"]


def test_the_previous_xtr_is_told_before_anybody_else() -> None:
    world = World()
    old, new = moved(world)
    assert [send.to.ip for send in world.sent] == [old.rloc, new.rloc]


def test_a_host_that_was_only_covered_by_its_home_prefix_has_moved_as_well() -> None:
    world = World()
    home, new = Xtr(world, "access1"), Xtr(world, "access2")
    home.registers(home.home)
    world.forget()
    new.registers(ALICE)
    assert told(home.notifies()[0]) == {ALICE: (new.rloc,)}


def test_it_is_told_again_until_it_acknowledges() -> None:
    world = World()
    old, _ = moved(world)
    world.run(0.7)  # due at 0.2 and 0.6
    assert len(old.notifies()) == 3
    old.acknowledges(old.notifies()[-1])
    world.run(60)
    assert len(old.notifies()) == 3
    assert world.event_names()[-1] == "move.acknowledged"


def test_only_its_own_key_acknowledges() -> None:
    world = World()
    old, new = moved(world)
    notify = old.notifies()[0]
    old.acknowledges(notify, key=Key(1, b"guessed"))
    old.acknowledges(notify, key=new.key)
    assert world.rejects == ["bad-authentication", "bad-authentication"]
    world.run(0.3)
    assert len(old.notifies()) == 2


def test_a_repeated_acknowledgement_is_no_fault() -> None:
    world = World()
    old, _ = moved(world)
    notify = old.notifies()[0]
    old.acknowledges(notify)
    old.acknowledges(notify)
    assert world.rejects == []


def test_a_late_refresh_of_the_old_xtr_does_not_steal_the_eid_back() -> None:
    world = World()
    old, _ = moved(world)
    first = old.notifies()[0]
    world.forget()
    old.registers(ALICE)
    assert world.mappings()[ALICE] == "access2"
    assert world.rejects == ["displaced"]
    assert old.notifies() == [first]  # the pending notify, not a second one


def test_the_old_xtr_is_told_again_even_after_it_was_given_up() -> None:
    world = World()
    old, new = moved(world)
    for _ in range(3):
        world.run(50)
        new.registers(ALICE)
    world.forget()
    old.registers(ALICE)
    assert told(old.notifies()[0]) == {ALICE: (new.rloc,)}
    assert world.mappings()[ALICE] == "access2"


def test_after_its_acknowledgement_the_old_xtr_may_register_anew() -> None:
    world = World()
    old, new = moved(world)
    old.acknowledges(old.notifies()[0])
    world.forget()
    old.registers(ALICE)
    assert world.mappings()[ALICE] == "access1"
    assert told(new.notifies()[0]) == {ALICE: (old.rloc,)}


def test_an_xtr_that_withdraws_what_it_lost_has_understood() -> None:
    world = World()
    old, _ = moved(world)
    old.withdraws(ALICE)
    assert world.mappings()[ALICE] == "access2"
    old.registers(ALICE)
    assert world.rejects == []
    assert world.mappings()[ALICE] == "access1"


def test_an_eid_that_moves_on_is_told_to_every_xtr_that_has_not_acknowledged() -> None:
    world = World()
    first, second, third = Xtr(world, "access1"), Xtr(world, "access2"), Xtr(world, "access2")
    third.xtr_id, third.rloc = b"third".ljust(16, b"."), b"\xc6\x12\x00\x63"
    first.registers(ALICE)
    second.registers(ALICE)
    world.forget()
    third.registers(ALICE)
    assert told(first.notifies()[0]) == {ALICE: (third.rloc,)}
    assert told(second.notifies()[0]) == {ALICE: (third.rloc,)}
    world.run(60)
    assert {told(notify)[ALICE] for notify in first.notifies()} == {(third.rloc,)}


def test_when_the_new_registration_ends_nobody_is_told_any_more_and_anybody_may_register() -> None:
    world = World()
    old, new = moved(world)
    new.withdraws(ALICE)
    world.forget()
    world.run(10)
    assert world.sent == []
    old.registers(ALICE)
    assert world.mappings()[ALICE] == "access1"


def test_when_the_new_registration_expires_nobody_is_told_any_more() -> None:
    world = World(timers={"expiry_s": 2.0})
    old, new = Xtr(world, "access1"), Xtr(world, "access2")
    old.registers(ALICE)
    new.registers(ALICE)
    world.run(2.0)
    assert ALICE not in world.mappings()
    world.forget()
    world.run(60)
    assert world.sent == []


def test_a_service_that_came_by_a_move_is_not_taken_by_an_unversioned_registration() -> None:
    world = World()
    source, target = Xtr(world, "dc1"), Xtr(world, "dc2")
    source.registers(source.home, SERVICE)
    target.registers(SERVICE, version=1)
    assert world.mappings()[SERVICE] == "dc2"
    source.acknowledges(source.notifies()[-1])
    world.forget()
    source.registers(SERVICE)
    assert world.mappings()[SERVICE] == "dc2"
    assert world.rejects == ["stale-version"]
    assert told(source.notifies()[0]) == {SERVICE: (target.rloc,)}


@pytest.mark.parametrize(("held", "offered", "wins"), [(1, 2, True), (2, 1, False), (4095, 1, True), (1, 4095, False)])
def test_the_later_epoch_wins_across_the_wrap_of_the_version(held: int, offered: int, *, wins: bool) -> None:
    world = World()
    source, target = Xtr(world, "dc1"), Xtr(world, "dc2")
    source.registers(SERVICE, version=held)
    target.registers(SERVICE, version=offered)
    assert world.mappings()[SERVICE] == ("dc2" if wins else "dc1")
    assert world.rejects == ([] if wins else ["stale-version"])


def test_a_higher_epoch_brings_the_eid_back_without_waiting_for_an_acknowledgement() -> None:
    world = World()
    source, target = Xtr(world, "dc1"), Xtr(world, "dc2")
    source.registers(SERVICE)
    target.registers(SERVICE, version=1)
    world.forget()
    source.registers(SERVICE, version=2)
    assert world.mappings()[SERVICE] == "dc1"
    world.run(60)
    assert {told(notify)[SERVICE] for notify in target.notifies() if SERVICE in told(notify)} == {(source.rloc,)}
    assert [told(notify) for notify in source.notifies()] == [{SERVICE: (source.rloc,)}]  # its acknowledgement


def test_an_xtr_that_restarted_without_its_version_keeps_the_eid_and_the_epoch() -> None:
    world = World()
    source, target = Xtr(world, "dc1"), Xtr(world, "dc2")
    target.registers(SERVICE, version=3)
    target.registers(SERVICE)
    assert world.rejects == []
    source.registers(SERVICE, version=2)
    assert world.mappings()[SERVICE] == "dc2"
    assert world.rejects == ["stale-version"]


def test_an_xtr_that_only_changed_its_id_is_not_told_that_its_own_eid_moved() -> None:
    world = World()
    before, after = Xtr(world, "access1"), Xtr(world, "access1")
    after.xtr_id = b"restarted".ljust(16, b".")
    before.registers(ALICE)
    after.registers(ALICE)
    assert "move.notified" not in world.event_names()
