"""A worker that follows the registrations answers each question as the one that writes, byte for byte."""

from __future__ import annotations

import itertools
from typing import Any

import msgspec
import pytest

from lispfmc.wire import encode
from lispfmc.wire.address import Endpoint, Prefix, ip_of
from lispfmc.wire.messages import EidRecord, Locator, MapRegister
from mapserver import feeding
from mapserver.feeding import Frame, Telling
from mapserver.server import MapServer
from mapserver.worker import Replica
from tests.scenarios.mapserver_world import ALICE, SERVICE, World, Xtr

SECURITY_CAPABLE = 0x0400_0000
ASKER = Endpoint(ip_of("198.18.0.12"), 4342)


class Follower:
    """What the writing worker tells, taken by another one."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.telling = Telling()
        self.replica = Replica(world.settings)

    def catches_up(self) -> None:
        for registration in self.world.server.registrations():
            data = self.telling.registered(registration)
            while data:
                size, kind = feeding._HEAD.unpack_from(data)
                end = feeding._HEAD.size + size
                self.replica.take(Frame(kind), data[feeding._HEAD.size : end])
                data = data[end:]

    def answers_alike(self, eid: str) -> bool:
        question = self.world.request(eid)
        other = MapServer(self.world.settings, itertools.count(1), self.replica.store)
        asked: Any = (question, encode(question), ASKER, self.world.now)
        return self.world.server.received(*asked) == other.received(*asked)


def second(world: World, number: int = 2) -> Xtr:
    """Another xTR of the site dc1."""
    xtr = Xtr(world, "dc1")
    xtr.xtr_id = f"dc1 number {number}".encode().ljust(16, b".")
    xtr.rloc = ip_of(f"198.18.1.{number}")
    return xtr


@pytest.mark.parametrize("proxies", [(True, True), (True, False), (False, True), (False, False)])
def test_an_eid_that_xtrs_share_is_answered_by_who_may(proxies: tuple[bool, bool]) -> None:
    world = World()
    Xtr(world, "dc1").registers(SERVICE, merge=True, proxy_reply=proxies[0])
    second(world).registers(SERVICE, merge=True, proxy_reply=proxies[1])
    follower = Follower(world)
    follower.catches_up()

    assert follower.answers_alike(SERVICE)


@pytest.mark.parametrize("capable", [(True, False), (False, True)])
def test_each_that_shares_an_eid_says_for_itself_whether_it_can_sign(capable: tuple[bool, bool]) -> None:
    world = World()
    for xtr, can_sign in zip((Xtr(world, "dc1"), second(world)), capable, strict=True):
        register = MapRegister.of(
            xtr.record(SERVICE), nonce=1, merge=True, proxy_reply=False, xtr_id=xtr.xtr_id, site_id=bytes(8)
        )
        capability = SECURITY_CAPABLE if can_sign else 0
        world.hears(msgspec.structs.replace(register, word=register.word | capability), xtr.endpoint, xtr.key)
    follower = Follower(world)
    follower.catches_up()

    [theirs] = follower.replica.store.registrations()
    assert [each.registrant.security_capable for each in theirs.each] == list(capable)


def test_an_xtr_that_comes_from_ever_other_ports_does_not_fill_the_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feeding, "REGISTRANTS", 8)
    world = World()
    xtr, follower = Xtr(world, "access1"), Follower(world)
    Xtr(world, "dc1").registers(SERVICE)
    for port in range(1000, 1100):
        register = MapRegister.of(xtr.record(ALICE), nonce=port, xtr_id=xtr.xtr_id, site_id=bytes(8))
        world.hears(register, Endpoint(xtr.rloc, port), xtr.key)
        follower.catches_up()

    assert len(follower.replica._leases) <= 10
    told = {str(each.eid): each.registrant for each in follower.replica.store.registrations()}
    assert told[ALICE].source == Endpoint(xtr.rloc, 1099)
    assert told[SERVICE].owner.site == "dc1"
    assert follower.answers_alike(ALICE)


def test_no_more_than_a_bounded_number_of_xtrs_shares_an_eid() -> None:
    world = World()
    for number in range(1, 70):
        second(world, number).registers(SERVICE, merge=True)
    [shared] = world.server.registrations()
    assert len(shared.each) == 64
    assert set(world.rejects) == {"too-many-xtrs"}

    second(world, 3).registers(SERVICE, merge=True)  # one of them again
    world.forget()
    second(world, 99).registers(SERVICE, merge=True)
    assert (world.sent, world.rejects) == ([], ["too-many-xtrs"]), "it is told of no move: there was none"


def test_those_that_share_an_eid_keep_their_places_when_one_says_the_same_again() -> None:
    world = World()
    first, then = Xtr(world, "dc1"), second(world)
    first.registers(SERVICE, first.home, merge=True)
    then.registers(SERVICE, merge=True)
    [before] = world.server.registrations_for(Prefix.parse(SERVICE))

    first.registers(SERVICE, merge=True)

    [after] = world.server.registrations_for(Prefix.parse(SERVICE))
    assert [part.owner for part in after.each] == [part.owner for part in before.each]
    assert (after.owner, after.record) == (before.owner, before.record)


def test_what_is_told_anew_by_the_short_way_is_among_the_changes_that_workers_follow() -> None:
    world = World()
    xtr = Xtr(world, "access1")
    xtr.registers(ALICE, "100.64.1.11/32")
    store = world.server._store
    before = store.last_event
    changed = [EidRecord.of(Prefix.parse(ALICE), [Locator.of(xtr.rloc, weight=7)], ttl_minutes=1440)]

    xtr.says(*changed)

    assert [(each.id, str(each.eid)) for each in store.events(before)] == [(before + 1, ALICE)]
    assert store.last_event == before + 1
