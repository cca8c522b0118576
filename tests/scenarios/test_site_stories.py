"""Sites in ordinary trouble: hosts that fall silent, that are at two places, routers that are switched off."""

from __future__ import annotations

from lispfmc.wire.messages import MapRegister
from tests.scenarios.sites import ALICE, ALICE_APP, BOB, Host, World, rloc


def registers_of(world: World, name: str, since: float) -> int:
    sent = (d for d in world.network.sent if d.at >= since and d.source.ip == rloc(name))
    return sum(isinstance(d.message, MapRegister) for d in sent)


def test_a_user_who_falls_silent_is_asked_and_then_given_up_everywhere() -> None:
    world = World()
    alice = world.host("alice", ALICE, at="access1")
    world.host("alice-app", ALICE_APP, at="dc1")
    world.talk(ALICE, ALICE_APP, 1.0)
    alice.site = None  # the battery is empty
    world.run(50)
    assert world.deliverers(ALICE) == ["access1"], "a minute of silence is nothing yet"
    world.run(20)
    assert world.deliverers(ALICE) == []
    assert world.registered_at(ALICE) is None
    (lost,) = [event for _, event in world.xtrs["access1"].events if event.name == "host.lost"]
    assert lost.fields["cause"] == "silent"


def test_a_user_who_answers_stays() -> None:
    world = World()
    world.host("alice", ALICE, at="access1")
    world.run(600)
    assert world.deliverers(ALICE) == ["access1"]
    assert world.registered_at(ALICE) == rloc("access1")


def test_a_service_that_stands_still_is_not_given_up() -> None:
    world = World()
    service = world.host("alice-app", ALICE_APP, at="dc1")
    service.site = None  # frozen, to be moved; its controller will say when it has gone
    world.run(300)
    assert world.deliverers(ALICE_APP) == ["dc1"]
    assert world.registered_at(ALICE_APP) == rloc("dc1")


def test_an_eid_at_two_sites_raises_an_alarm_and_does_not_flood_the_mapping_system() -> None:
    world = World()
    alice = world.host("alice", ALICE, at="access1")
    impostor = Host("impostor", (ALICE,), bytes([2, 0, 0, 0, 9, 9]))

    def both_answer() -> None:  # whichever site asks, somebody there says "here I am"
        for host, name in ((alice, "access1"), (impostor, "access2")):
            world.xtrs[name].hears(host, ALICE)
        world.network.at(world.network.now + 0.5, both_answer)

    world.network.at(world.network.now + 1.0, both_answer)
    world.run(60)
    names = world.xtrs["access1"].names() + world.xtrs["access2"].names()
    assert "host.at-two-sites" in names
    assert "host.flapping" in names
    since = world.network.now
    world.run(60)
    together = registers_of(world, "access1", since) + registers_of(world, "access2", since)
    assert together < 40, "once in some seconds for each site, not twice a second"


def test_a_router_that_is_switched_off_takes_its_registrations_along() -> None:
    world = World()
    world.host("alice", ALICE, at="access1")
    world.host("bob", BOB, at="access2")
    access1 = world.xtrs["access1"]
    access1.apply(access1.core.stop(world.network.now))
    world.run(1)
    owners = {str(r.eid): r.mapping.locators[0].address for r in world.server.registrations() if r.mapping.locators}
    assert rloc("access1") not in owners.values()
    assert owners[str(BOB)] == rloc("access2")
