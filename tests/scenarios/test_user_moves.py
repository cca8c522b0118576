"""A user changes sites while others talk to it: who delivers, who is registered, who is told."""

from __future__ import annotations

import pytest

from lispfmc.wire.messages import MapNotify, MapNotifyAck, MapRegister, MapRequest
from tests.scenarios.network import Datagram, Faults
from tests.scenarios.sites import ALICE, ALICE6, ALICE_APP, World, rloc

ROUGH = Faults(loss=0.25, duplicate=0.1, jitter_s=0.03)


def registers_of(world: World, site: str, since: float) -> list[Datagram]:
    sent = world.network.sent
    return [d for d in sent if d.at > since and d.source.ip == rloc(site) and isinstance(d.message, MapRegister)]


def eids_of(datagram: Datagram) -> set[object]:
    assert isinstance(datagram.message, MapRegister)
    return {record.prefix for record in datagram.message.records}


def talking(seed: int = 1, faults: Faults = Faults()) -> World:  # noqa: B008 - frozen
    """Alice at access1 has talked to her service at dc1."""
    world = World(seed, faults)
    world.host("alice", ALICE, ALICE6, at="access1")
    world.host("alice-app", ALICE_APP, at="dc1")
    world.run(20)
    world.talk(ALICE, ALICE_APP, 1.0)
    return world


def test_a_host_at_home_is_registered_as_a_host_route_and_reached() -> None:
    world = talking()
    assert world.registered_at(ALICE) == rloc("access1")
    assert world.registered_at(ALICE6) == rloc("access1")
    assert len(world.hosts[ALICE_APP].got) == 20
    assert len(world.hosts[ALICE].got) == 20


@pytest.mark.parametrize("seed", range(12))
def test_one_xtr_delivers_a_moved_user_in_the_end_whatever_is_lost_or_overtaken(seed: int) -> None:
    world = talking(seed, ROUGH)
    alice = world.hosts[ALICE]
    world.attach(alice, "access2")
    world.talk(ALICE, ALICE_APP, 30.0, every=0.25)
    for eid in (ALICE, ALICE6):
        assert world.deliverers(eid) == ["access2"]
        assert world.registered_at(eid) == rloc("access2")
    assert world.next_hops("dc1", ALICE) == (rloc("access2"),)
    last = world.send(ALICE_APP, ALICE)
    world.run(1)
    assert alice.got[-1].number == last
    assert alice.got[-1].hops == ("dc1", "access2")


@pytest.mark.parametrize("seed", range(4))
def test_the_old_xtrs_later_refreshes_lack_the_moved_eid(seed: int) -> None:
    world = talking(seed, ROUGH)
    world.attach(world.hosts[ALICE], "access2")
    world.run(10)
    noted = world.network.now
    world.run(400)
    refreshes = registers_of(world, "access1", noted)
    assert len(refreshes) >= 6
    assert not any(eids_of(refresh) & {ALICE, ALICE6} for refresh in refreshes)
    assert world.registered_at(ALICE) == rloc("access2")
    assert world.deliverers(ALICE) == ["access2"]


def test_what_still_goes_to_the_old_site_is_sent_on_and_its_sender_is_told_at_once() -> None:
    world = talking()
    alice = world.hosts[ALICE]
    world.attach(alice, "access2")
    world.run(0.012)  # alice -> access2 -> Map-Server -> access1: 10 ms; access1 -> dc1: 5 ms more
    assert world.deliverers(ALICE) == ["access2"]
    late = world.send(ALICE_APP, ALICE)
    world.run(0.5)
    assert [packet.hops for packet in alice.got if packet.number == late] == [("dc1", "access1", "access2")]
    assert world.next_hops("dc1", ALICE) == (rloc("access2"),)
    assert "peers.informed" in world.xtrs["access1"].names()
    assert "smr.sent" not in world.xtrs["access1"].names()


def test_a_peer_without_a_shared_key_is_solicited_and_asks_the_mapping_system() -> None:
    world = World(keys=False)
    world.host("alice", ALICE, at="access1")
    world.host("alice-app", ALICE_APP, at="dc1")
    world.talk(ALICE, ALICE_APP, 1.0)
    world.attach(world.hosts[ALICE], "access2")
    world.run(1)
    assert "smr.sent" in world.xtrs["access1"].names()
    assert "smr.received" in world.xtrs["dc1"].names()
    assert world.next_hops("dc1", ALICE) == (rloc("access2"),)
    smr = next(d.message for d in world.network.sent if isinstance(d.message, MapRequest) and d.message.smr)
    assert smr.source_eid == ALICE.ip
    assert smr.records[0].prefix == ALICE_APP  # RFC 9301 §6.1: an EID of the receiver's


def test_a_lost_map_notify_is_sent_again_until_it_is_acknowledged() -> None:
    world = talking()
    heal = world.network.lose(lambda d: isinstance(d.message, MapNotify) and d.to.ip == rloc("access1"))
    world.attach(world.hosts[ALICE], "access2")
    world.run(0.5)
    assert world.deliverers(ALICE) == ["access1", "access2"]
    heal()
    world.run(1)
    assert world.deliverers(ALICE) == ["access2"]


def test_when_every_map_notify_was_lost_the_next_refresh_is_answered_with_the_move() -> None:
    world = talking()
    heal = world.network.lose(lambda d: isinstance(d.message, MapNotify) and d.to.ip == rloc("access1"))
    world.attach(world.hosts[ALICE], "access2")
    world.run(15)  # the Map-Server has given up
    heal()
    world.run(21)
    assert world.deliverers(ALICE) == ["access2"]
    assert world.registered_at(ALICE) == rloc("access2")


def test_a_lost_acknowledgement_makes_a_copy_that_is_acknowledged_and_not_applied_again() -> None:
    world = talking()
    access1 = world.xtrs["access1"]
    heal = world.network.lose(lambda d: isinstance(d.message, MapNotifyAck) and d.source.ip == rloc("access1"))
    world.attach(world.hosts[ALICE], "access2")
    world.run(1)
    heal()
    world.run(5)
    assert access1.names().count("away.installed") == 2  # alice's two EIDs, once each
    assert access1.rejects["replayed-nonce"] == 0
    assert world.mapserver.names().count("move.acknowledged") == 2


@pytest.mark.parametrize("seed", range(6))
def test_a_user_who_comes_back_at_once_is_at_home_again_everywhere(seed: int) -> None:
    world = talking(seed, Faults(loss=0.1, jitter_s=0.02))
    alice = world.hosts[ALICE]
    world.attach(alice, "access2")
    world.run(0.008)  # the Map-Notify for access1 is still on its way
    world.attach(alice, "access1")
    world.talk(ALICE, ALICE_APP, 30.0, every=0.25)
    assert world.deliverers(ALICE) == ["access1"]
    assert world.registered_at(ALICE) == rloc("access1")
    assert world.next_hops("dc1", ALICE) == (rloc("access1"),)


@pytest.mark.parametrize("seed", range(4))
def test_a_user_may_wander_for_minutes_and_ends_at_one_place(seed: int) -> None:
    world = talking(seed, ROUGH)
    alice = world.hosts[ALICE]
    for step in range(20):
        world.attach(alice, ("access2", "access1")[step % 2])
        world.talk(ALICE, ALICE_APP, 0.3 + step % 5, every=0.3)
    world.talk(ALICE, ALICE_APP, 30.0, every=0.5)
    assert world.deliverers(ALICE) == ["access1"]
    assert world.registered_at(ALICE) == rloc("access1")
    last = world.send(ALICE_APP, ALICE)
    world.run(1)
    assert alice.got[-1].number == last
