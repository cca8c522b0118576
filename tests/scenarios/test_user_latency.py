"""How long a user's move lasts: until both directions flow again, in one-way delays (docs/moves.md)."""

from __future__ import annotations

import pytest

from tests.scenarios.sites import ALICE, ALICE_APP, BOB, World

TO_MAPSERVER, MAPSERVER_TO_DC, DC_TO_NEW, OLD_TO_NEW, STEP = 0.020, 0.015, 0.004, 0.009, 0.0005


def delayed() -> World:
    world = World()
    for site in ("access1", "access2"):
        world.network.delay("mapserver", site, TO_MAPSERVER)
        world.network.delay(site, "dc1", DC_TO_NEW)
    world.network.delay("mapserver", "dc1", MAPSERVER_TO_DC)
    world.network.delay("access1", "access2", OLD_TO_NEW)
    return world


@pytest.mark.parametrize("warm", [True, False])
def test_a_user_who_has_moved_waits_for_one_way_delays_and_no_question(warm: bool) -> None:
    world = delayed()
    alice = world.host("alice", ALICE, at="access1")
    world.host("alice-app", ALICE_APP, at="dc1")
    world.run(40.0)
    if warm:
        other = world.host("bob", BOB, at="access2")
        world.talk(other.eids[0], ALICE_APP, 1.0)
    world.talk(ALICE, ALICE_APP, 1.0)
    before = world.network.now
    world.attach(alice, "access2")
    sent_out: set[int] = set()
    inbound = outbound = None
    app = world.hosts[ALICE_APP]
    seen_in, seen_out = len(alice.got), len(app.got)
    while inbound is None or outbound is None:
        assert world.network.now < before + 2.0
        sent_out.add(world.send(ALICE, ALICE_APP))
        world.send(ALICE_APP, ALICE)
        world.run(STEP)
        if inbound is None and len(alice.got) > seen_in:
            inbound = world.network.now - before
        if outbound is None and any(packet.number in sent_out for packet in app.got[seen_out:]):
            outbound = world.network.now - before
    # the old router is told by the Map-Server and sends on what arrives late: d(2,M) + d(M,1) + d(1,2)
    sent_on = TO_MAPSERVER + TO_MAPSERVER + OLD_TO_NEW
    told = TO_MAPSERVER + MAPSERVER_TO_DC + DC_TO_NEW  # issue 6: e + d(2,M) + d(M,3) + d(3,2)
    assert inbound <= max(sent_on, told) + 5 * STEP
    asked = 0.0 if warm else 2 * TO_MAPSERVER
    assert outbound <= asked + DC_TO_NEW + 5 * STEP
