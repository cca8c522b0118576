"""Registration as RFC 9301 §5.6 and §8.2 have it: who may register what, what is refused, when it ends."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from lispfmc.wire.address import Prefix
from lispfmc.wire.auth import Key
from lispfmc.wire.messages import Action, EidRecord
from tests.scenarios.mapserver_world import ALICE, SERVICE, World, Xtr, told


def test_a_registration_is_acknowledged_with_its_nonce_and_records() -> None:
    world = World()
    xtr = Xtr(world, "access1")
    sent = xtr.registers(xtr.home, xtr.home6, ALICE)
    [notify] = xtr.notifies()
    assert (notify.nonce, notify.records) == (sent.nonce, sent.records)
    assert world.mappings() == {xtr.home: "access1", xtr.home6: "access1", ALICE: "access1"}


def test_a_registration_that_wants_no_notify_gets_none() -> None:
    world = World()
    xtr = Xtr(world, "access1")
    xtr.registers(xtr.home, want_notify=False)
    assert world.sent == []
    assert world.mappings() == {xtr.home: "access1"}


def test_a_roaming_host_is_registered_by_any_access_site_but_only_as_a_host() -> None:
    world = World()
    xtr = Xtr(world, "access2")
    xtr.registers(ALICE, "fd00:0:0:1::10/128")
    assert world.mappings() == {ALICE: "access2", "fd00:0:0:1::10/128": "access2"}
    xtr.registers("100.64.1.128/25")
    assert world.rejects == ["foreign-prefix"]


def test_one_foreign_prefix_refuses_the_whole_message() -> None:
    world = World()
    xtr = Xtr(world, "access1")
    xtr.registers(xtr.home, SERVICE)
    assert (world.rejects, world.mappings(), world.sent) == (["foreign-prefix"], {}, [])


def test_more_specifics_of_a_home_prefix_count_only_where_they_are_accepted() -> None:
    site = {"name": "access1", "key_id": 1, "secret": "secret of access1", "prefixes": ["100.64.1.0/24"]}
    accepts, refuses = World(sites=[site]), World(sites=[site | {"accept_more_specifics": False}])
    for world in (accepts, refuses):
        Xtr(world, "access1").registers("100.64.1.0/25")
    assert accepts.mappings() == {"100.64.1.0/25": "access1"}
    assert refuses.rejects == ["foreign-prefix"]


def wrong_key(xtr: Xtr) -> None:
    xtr.says(xtr.record(xtr.home), key=Key(1, b"guessed"))


def unknown_key_id(xtr: Xtr) -> None:
    xtr.says(xtr.record(xtr.home), key=Key(200, xtr.key.secret))


def equal_nonce(xtr: Xtr) -> None:
    xtr.says(xtr.record(ALICE), nonce=9)


def lower_nonce(xtr: Xtr) -> None:
    xtr.says(xtr.record(ALICE), nonce=8)


def no_records(xtr: Xtr) -> None:
    xtr.says()


@pytest.mark.parametrize(
    ("attack", "reason"),
    [
        (wrong_key, "bad-authentication"),
        (unknown_key_id, "unknown-key"),
        (equal_nonce, "replayed-nonce"),
        (lower_nonce, "replayed-nonce"),
        (no_records, "no-records"),
    ],
)
def test_what_is_refused_changes_nothing_and_is_counted(attack: Callable[[Xtr], None], reason: str) -> None:
    world = World()
    xtr = Xtr(world, "access1")
    xtr.says(xtr.record(xtr.home), nonce=9)
    before = (world.mappings(), world.server.next_deadline(), world.server.counts())
    world.forget()
    attack(xtr)
    assert world.rejects == [reason]
    assert world.sent == []
    assert world.events == []
    assert (world.mappings(), world.server.next_deadline(), world.server.counts()) == before


def test_replay_protection_counts_for_each_xtr_by_itself() -> None:
    world = World()
    one, other = Xtr(world, "access1"), Xtr(world, "access1")
    other.xtr_id = b"the other one".ljust(16, b".")
    one.says(one.record(one.home), nonce=1000)
    other.says(other.record("100.64.1.7/32"), nonce=5)
    assert world.rejects == []


def test_sites_that_share_a_key_id_are_told_apart_by_their_secrets() -> None:
    world = World()
    for site in ("access1", "access2", "dc1", "dc2"):
        xtr = Xtr(world, site)
        xtr.registers(xtr.home)
    assert set(world.mappings().values()) == {"access1", "access2", "dc1", "dc2"}


def test_instance_ids_are_isolated() -> None:
    world = World()
    xtr = Xtr(world, "access1")
    xtr.registers("[7]100.64.1.0/24")
    assert world.ask("[7]100.64.1.10/32").records[0].locators
    assert not world.ask(ALICE).records[0].locators


def test_a_registration_ends_three_minutes_after_the_last_refresh() -> None:
    world = World()
    xtr = Xtr(world, "access1")
    xtr.registers(xtr.home, ALICE)
    world.run(100)
    xtr.registers(xtr.home, ALICE)
    world.run(179)
    assert len(world.mappings()) == 2
    world.run(2)
    assert world.mappings() == {}
    assert world.event_names().count("registration.expired") == 2
    assert world.server.next_deadline() is None


def test_an_unchanged_refresh_is_silent_and_keeps_one_deadline() -> None:
    world = World()
    xtr = Xtr(world, "access1")
    xtr.registers(xtr.home, xtr.home6, ALICE)
    world.forget()
    for _ in range(50):
        world.run(60)
        xtr.registers(xtr.home, xtr.home6, ALICE)
    assert world.events == []
    assert len(xtr.notifies()) == 50
    assert world.server.next_deadline() == pytest.approx(world.now + 180)


def test_refreshing_some_of_the_eids_lets_the_others_expire() -> None:
    world = World()
    xtr = Xtr(world, "access1")
    xtr.registers(xtr.home, ALICE)
    world.run(100)
    xtr.registers(xtr.home)
    world.run(100)
    assert world.mappings() == {xtr.home: "access1"}


def test_the_t_bit_makes_the_record_ttl_the_lifetime() -> None:
    world = World()
    xtr = Xtr(world, "access1")
    xtr.says(xtr.record(xtr.home, ttl_minutes=1), use_ttl=True)
    world.run(59)
    assert len(world.mappings()) == 1
    world.run(2)
    assert world.mappings() == {}


@pytest.mark.parametrize(
    "withdrawal",
    [
        EidRecord.of(Prefix.parse(ALICE), ttl_minutes=0),
        EidRecord.of(Prefix.parse(ALICE), ttl_minutes=1440, action=Action.DROP_NO_REASON),
    ],
)
def test_the_registering_xtr_withdraws(withdrawal: EidRecord) -> None:
    world = World()
    xtr = Xtr(world, "access1")
    xtr.registers(xtr.home, ALICE)
    xtr.says(withdrawal)
    assert world.mappings() == {xtr.home: "access1"}
    assert world.event_names()[-1] == "registration.withdrawn"


def test_another_xtr_cannot_withdraw() -> None:
    world = World()
    Xtr(world, "access1").registers(ALICE)
    Xtr(world, "access2").withdraws(ALICE)
    assert world.mappings() == {ALICE: "access1"}
    assert world.rejects == ["not-owner"]


def test_the_tables_are_bounded() -> None:
    world = World(limits={"registrations": 2, "xtrs": 1})
    xtr = Xtr(world, "access1")
    xtr.registers(xtr.home, ALICE)
    xtr.registers("100.64.1.11/32")
    Xtr(world, "access2").registers("100.64.2.0/24")
    assert world.rejects == ["table-full", "too-many-xtrs"]
    assert len(world.mappings()) == 2


def test_an_acknowledgement_leaves_out_the_records_that_were_refused() -> None:
    world = World()
    old, new = Xtr(world, "access1"), Xtr(world, "access2")
    old.registers(ALICE)
    new.registers(ALICE)
    world.forget()
    sent = old.registers(old.home, ALICE)
    moved, acknowledgement = old.notifies()
    assert set(told(moved)) == {ALICE}
    assert acknowledgement.nonce == sent.nonce
    assert set(told(acknowledgement)) == {old.home}


def test_after_a_reload_a_refresh_is_decided_once_and_then_takes_the_short_way_again() -> None:
    world = World()
    xtr = Xtr(world, "access1")
    xtr.registers(ALICE)
    world.configures(mobility_ranges=[])

    ways = [world.refreshes_shortly(xtr, ALICE) for _ in range(2)]

    assert ways == [False, True]


def test_a_part_that_is_told_again_by_itself_is_refreshed_by_the_short_way() -> None:
    world = World()
    xtr = Xtr(world, "access1")
    xtr.registers(ALICE, "100.64.1.11/32")
    xtr.registers(ALICE)
    assert world.refreshes_shortly(xtr, ALICE)
