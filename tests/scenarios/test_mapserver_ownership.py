"""Who holds an EID: keys that are rolled over, xTRs that merge, static mappings, EIDs that flip, other settings."""

from __future__ import annotations

from typing import Any

import pytest

from lispfmc.wire.address import Prefix, ip_of
from lispfmc.wire.auth import Key
from lispfmc.wire.messages import Action, EidRecord, Locator
from tests.scenarios.mapserver_world import ALICE, Controller, World, Xtr, settings, told

NEW_KEY = Key(2, b"the next secret")
ROLLING = {
    "name": "access1",
    "key_id": 1,
    "secret": "secret of access1",
    "prefixes": ["100.64.1.0/24"],
    "keys": [{"key_id": 2, "secret": "the next secret"}],
}


def locators(world: World, eid: str) -> set[Any]:
    return {each.address for each in world.ask(eid).records[0].locators}


def test_during_a_rollover_both_keys_count_and_each_has_its_own_nonces() -> None:
    world = World(sites=[ROLLING])
    xtr = Xtr(world, "access1")
    xtr.says(xtr.record(xtr.home), nonce=1000)
    world.forget()
    xtr.key = NEW_KEY
    xtr.says(xtr.record(xtr.home), nonce=5)
    assert world.rejects == []
    assert xtr.notifies()[-1].nonce == 5  # checked with the new key
    xtr.says(xtr.record(xtr.home), nonce=5)
    assert world.rejects == ["replayed-nonce"]


def test_after_a_rollover_the_old_key_counts_no_more() -> None:
    world = World(sites=[ROLLING])
    xtr = Xtr(world, "access1")
    xtr.registers(xtr.home)
    world.configures(sites=[ROLLING | {"key_id": 2, "secret": "the next secret", "keys": []}])
    assert world.mappings() == {xtr.home: "access1"}
    xtr.registers(xtr.home)
    assert world.rejects == ["unknown-key"]


def two_of_one_site(world: World) -> tuple[Xtr, Xtr]:
    one, other = Xtr(world, "access1"), Xtr(world, "access1")
    other.xtr_id = b"the other one".ljust(16, b".")
    other.rloc, other.rloc6 = ip_of("198.18.0.99"), ip_of("2001:2::99")
    return one, other


def test_xtrs_of_a_site_that_ask_for_it_are_merged() -> None:
    world = World()
    one, other = two_of_one_site(world)
    one.registers(one.home, merge=True)
    other.registers(one.home, merge=True)
    assert locators(world, one.home) == {one.rloc, one.rloc6, other.rloc, other.rloc6}
    assert world.rejects == []


def test_the_locators_of_a_merged_xtr_go_when_it_falls_silent() -> None:
    world = World()
    one, other = two_of_one_site(world)
    one.registers(one.home, merge=True)
    other.registers(one.home, merge=True)
    for _ in range(4):
        world.run(60)
        other.registers(one.home, merge=True)
    assert locators(world, one.home) == {other.rloc, other.rloc6}
    other.withdraws(one.home)
    assert world.mappings() == {}


def test_without_the_merge_bit_the_last_registration_replaces() -> None:
    world = World()
    one, other = two_of_one_site(world)
    one.registers(one.home, merge=True)
    other.registers(one.home, merge=True)
    other.registers(one.home)
    assert locators(world, one.home) == {other.rloc, other.rloc6}


def test_xtrs_of_different_sites_are_never_merged() -> None:
    world = World()
    one, other = Xtr(world, "access1"), Xtr(world, "access2")
    one.registers(ALICE, merge=True)
    other.registers(ALICE, merge=True)
    assert told(one.notifies()[-1]) == {ALICE: (other.rloc,)}
    assert locators(world, ALICE) == {other.rloc, other.rloc6}


def test_a_static_mapping_answers_and_cannot_be_registered() -> None:
    world = World(static=[{"prefix": "100.64.1.200/32", "rlocs": ["198.18.0.77"]}])
    xtr = Xtr(world, "access1")
    xtr.registers(xtr.home, "100.64.1.200/32")
    assert world.rejects == ["static-mapping"]
    assert told(xtr.notifies()[0]) == {xtr.home: (xtr.rloc,)}
    assert locators(world, "100.64.1.200/32") == {ip_of("198.18.0.77")}
    world.run(100_000)
    assert world.mappings() == {"100.64.1.200/32": "static"}


@pytest.mark.parametrize(
    ("action", "told_as"),
    [
        ("drop", Action.DROP_NO_REASON),
        ("policy-denied", Action.DROP_POLICY_DENIED),
        ("native", Action.NATIVELY_FORWARD),
    ],
)
def test_a_policy_for_a_prefix_is_what_map_caches_are_told(action: str, told_as: Action) -> None:
    world = World(static=[{"prefix": "100.64.9.0/24", "action": action, "ttl_minutes": 5}])
    [record] = world.ask("100.64.9.7/32").records
    assert (str(record.prefix), record.action, record.ttl_minutes) == ("100.64.9.0/24", told_as, 5)


def test_new_settings_change_static_mappings_and_publish_them() -> None:
    world = World(static=[{"prefix": "100.64.1.200/32", "rlocs": ["198.18.0.77"]}])
    fmcc = Controller(world)
    fmcc.subscribes("100.64.1.0/24", 7)
    fmcc.acknowledges(fmcc.notifies()[-1])
    world.configures(static=[{"prefix": "100.64.1.200/32", "rlocs": ["198.18.0.78"]}])
    assert told(fmcc.notifies()[-1]) == {"100.64.1.200/32": (ip_of("198.18.0.78"),)}
    world.configures()
    assert world.mappings() == {}


def test_new_settings_end_what_they_do_not_allow() -> None:
    world = World()
    one, other, fmcc = Xtr(world, "access1"), Xtr(world, "access2"), Controller(world)
    one.registers(one.home, ALICE)
    other.registers(other.home)
    fmcc.subscribes("100.64.1.0/24", 7)
    sites = [site for site in settings().model_dump()["sites"] if site["name"] != "access1"]
    world.configures(sites=sites, subscribers=[])
    assert world.mappings() == {other.home: "access2"}
    assert {"registration.withdrawn", "subscription.removed"} <= set(world.event_names())
    one.registers(one.home)
    assert world.rejects == ["bad-authentication"]


def test_an_eid_that_flips_about_raises_an_alarm_and_is_held_in_the_end() -> None:
    world = World(damping={"alarm_after": 4, "damp_after": 8, "contest_s": 0})
    xtrs = [Xtr(world, "access1"), Xtr(world, "access2")]
    for turn in range(12):
        xtrs[turn % 2].registers(ALICE)
        for notify in xtrs[1 - turn % 2].notifies():
            xtrs[1 - turn % 2].acknowledges(notify)
        world.run(1)
    assert world.event_names().count("registration.flapping") == 1
    assert world.event_names().count("registration.damped") == 1
    assert "damped" in world.rejects
    held = world.mappings()[ALICE]
    last = next(xtr for xtr in xtrs if not xtr.xtr_id.startswith(held.encode()))
    world.run(61)
    for notify in last.notifies():
        last.acknowledges(notify)
    last.registers(ALICE)
    assert world.mappings()[ALICE] != held


def test_a_controller_moves_an_eid_even_when_it_is_damped() -> None:
    world = World(damping={"alarm_after": 1, "damp_after": 2, "contest_s": 0})
    xtrs = [Xtr(world, "access1"), Xtr(world, "access2")]
    for turn in range(6):
        xtrs[turn % 2].registers(ALICE)
        for notify in xtrs[1 - turn % 2].notifies():
            xtrs[1 - turn % 2].acknowledges(notify)
    assert "damped" in world.rejects
    for site in ("access2", "access1"):
        version = 1 + (site == "access1")
        Xtr(world, site).says(xtrs[0].record(ALICE, version), nonce=1000 + version)
        assert world.mappings()[ALICE] == site


def test_an_xtr_that_keeps_claiming_what_it_lost_raises_an_alarm_once() -> None:
    world = World()
    one, other = Xtr(world, "access1"), Xtr(world, "access2")
    one.registers(ALICE)
    other.registers(ALICE)
    for _ in range(6):
        world.run(5)
        one.registers(ALICE)
    contested = [event for event in world.events if event.name == "registration.contested"]
    assert [event.fields["eid"] for event in contested] == [ALICE]
    assert world.mappings() == {ALICE: "access2"}


def test_each_map_server_of_a_site_keeps_its_own_nonces() -> None:
    worlds = [World(), World()]
    xtrs = [Xtr(world, "access1") for world in worlds]
    xtrs[0].says(xtrs[0].record(xtrs[0].home), nonce=900)
    xtrs[1].says(xtrs[1].record(xtrs[1].home), nonce=3)
    assert [world.rejects for world in worlds] == [[], []]
    assert worlds[0].mappings() == worlds[1].mappings()


def test_prefixes_of_other_instance_ids_cannot_be_taken() -> None:
    world = World()
    xtr = Xtr(world, "access1")
    xtr.registers("[8]100.64.1.0/24")
    assert world.rejects == ["foreign-prefix"]
    assert str(Prefix.parse("[8]100.64.1.0/24")) not in world.mappings()


def test_who_says_the_newer_version_again_is_told_no_more_of_the_older_one() -> None:
    world = World()
    xtr = Xtr(world, "access1")
    xtr.registers(ALICE, version=5)
    xtr.registers(ALICE, version=3)
    assert world.rejects == ["stale-version"]

    moved = EidRecord.of(Prefix.parse(ALICE), [Locator.of(xtr.rloc, weight=7)], ttl_minutes=1440, map_version=5)
    xtr.says(moved)
    world.forget()
    world.run(60.0)

    assert xtr.notifies() == []
