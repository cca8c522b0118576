"""Publish/subscribe, rule by rule of RFC 9437: subscription, refusal, publication, acknowledgement, the end."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest

from lispfmc.store.sqlite import SqliteStore
from lispfmc.wire.address import Prefix, ip_of
from lispfmc.wire.auth import Key
from lispfmc.wire.messages import Action, MapNotify, MapReply, MapRequest, RequestRecord
from mapserver.server import MapServer
from mapserver.sites import Sites
from tests.scenarios.mapserver_world import ALICE, FMCC, SUBSCRIBER, Controller, World, Xtr, told

RANGE = "100.64.1.0/24"


class Lab:
    """The controller has subscribed to access1's range and acknowledged the answer, after so long or its repetition."""

    def __init__(self, round_trip_s: float | None = None) -> None:
        self.world = World()
        self.home, self.away = Xtr(self.world, "access1"), Xtr(self.world, "access2")
        self.controller = Controller(self.world)
        self.home.registers(self.home.home, ALICE)
        self.controller.subscribes(RANGE, 100)
        self.first = self.controller.notifies()[0]
        # what was sent twice tells nothing about the round trip: nobody knows which of them was acknowledged
        self.world.run(0.3 if round_trip_s is None else round_trip_s)
        self.controller.acknowledges(self.first)
        self.world.forget()

    @property
    def published(self) -> list[MapNotify]:
        return self.controller.notifies()


def told_of(world: World, event: str) -> list[object]:
    """The EIDs of the events of that name."""
    return [each.fields["eid"] for each in world.events if each.name == event]


def refusal(world: World) -> tuple[list[str], Action]:
    [reply] = [send.message for send in world.sent if isinstance(send.message, MapReply)]
    [record] = reply.records
    assert record.locators == ()
    return world.rejects, Action(record.action)


def test_a_subscription_is_answered_with_everything_that_is_known_of_the_range() -> None:
    lab = Lab()
    assert lab.first.nonce == 100
    assert told(lab.first) == {RANGE: (lab.home.rloc,), ALICE: (lab.home.rloc,)}


def test_the_answer_is_sent_again_until_it_is_acknowledged() -> None:
    world = World()
    controller = Controller(world)
    controller.subscribes(RANGE, 100)
    world.run(0.7)
    assert [notify.nonce for notify in controller.notifies()] == [100, 100, 100]
    controller.acknowledges(controller.notifies()[0])
    world.run(30)
    assert len(controller.notifies()) == 3


def test_a_change_of_a_more_specific_is_published_as_the_more_specific_with_the_next_nonce() -> None:
    lab = Lab()
    lab.away.registers(ALICE)
    [notify] = lab.published
    assert notify.nonce == 101
    assert told(notify) == {ALICE: (lab.away.rloc,)}
    lab.controller.acknowledges(notify)
    lab.home.acknowledges(lab.home.notifies()[0])
    lab.home.registers(ALICE)
    assert lab.published[-1].nonce == 102
    assert lab.world.event_names().count("publication.acknowledged") == 1


def test_only_the_publication_of_a_change_is_told_as_acknowledged() -> None:
    lab = Lab()
    lab.controller.subscribes(RANGE, 200)  # as it does every minute
    lab.controller.acknowledges(lab.published[-1])
    assert "publication.acknowledged" not in lab.world.event_names()
    lab.controller.subscribes(RANGE, 300)
    lab.away.registers(ALICE)  # before that answer is acknowledged
    lab.controller.acknowledges(lab.published[-1])
    assert told_of(lab.world, "publication.sent") == told_of(lab.world, "publication.acknowledged") == [ALICE]


def test_a_change_that_a_new_subscription_answers_with_is_acknowledged_with_it() -> None:
    lab = Lab()
    lab.away.registers(ALICE)
    lab.controller.subscribes(RANGE, 200)
    lab.controller.acknowledges(lab.published[-1])
    assert told_of(lab.world, "publication.acknowledged") == [ALICE]


def changed_ms(world: World) -> list[object]:
    """How long ago the changes were that subscribers have acknowledged."""
    return [each.fields["change_ms"] for each in world.events if each.name == "publication.acknowledged"]


def test_an_acknowledgement_says_how_long_ago_the_change_was() -> None:
    lab = Lab()
    lab.away.registers(ALICE)
    lab.world.run(0.04)
    lab.controller.acknowledges(lab.published[-1])
    assert changed_ms(lab.world) == [pytest.approx(40)]


def test_the_oldest_of_several_changes_counts_and_an_answer_to_a_request_does_not() -> None:
    lab = Lab()
    lab.away.registers(ALICE)
    lab.world.run(0.04)
    lab.away.registers("100.64.1.20/32")  # joins what is in flight
    lab.world.run(0.03)
    lab.controller.acknowledges(lab.published[-1])
    assert changed_ms(lab.world) == [pytest.approx(70), pytest.approx(70)]
    lab.world.forget()
    lab.controller.subscribes(RANGE, 200)
    lab.world.run(0.1)
    lab.away.registers("100.64.1.30/32")  # before the answer is acknowledged
    lab.world.run(0.02)
    lab.controller.acknowledges(lab.published[-1])
    assert changed_ms(lab.world) == [pytest.approx(20)]


def test_a_refresh_is_not_published() -> None:
    lab = Lab()
    lab.home.registers(lab.home.home, ALICE)
    assert lab.published == []


def test_a_new_version_alone_is_published() -> None:
    lab = Lab()
    lab.home.registers(ALICE, version=1)
    assert [record.map_version for record in lab.published[0].records] == [1]


def test_the_end_of_a_mapping_is_published_with_ttl_zero() -> None:
    lab = Lab()
    lab.home.withdraws(ALICE)
    [record] = lab.published[0].records
    assert (str(record.prefix), record.ttl_minutes, record.locators) == (ALICE, 0, ())


def test_expiry_is_published_too() -> None:
    lab = Lab()
    lab.world.run(181)
    published = lab.published[0]
    assert {str(record.prefix) for record in published.records} == {RANGE, ALICE}
    assert {record.ttl_minutes for record in published.records} == {0}


@pytest.mark.parametrize(("round_trip_s", "first_s"), [(None, 0.2), (0.001, 0.05), (0.04, 0.12), (0.15, 0.2)])
def test_a_publication_is_retransmitted_after_the_round_trip_time_doubling(
    round_trip_s: float | None, first_s: float
) -> None:
    lab = Lab(round_trip_s)
    start = lab.world.now
    lab.away.registers(ALICE)
    times = []
    while len(lab.published) < 6:
        due = lab.world.server.next_deadline()
        assert due is not None
        before = len(lab.published)
        lab.world.run(due - lab.world.now)
        times.extend([round(lab.world.now - start, 3)] * (len(lab.published) - before))
    assert times == pytest.approx([first_s * factor for factor in (1, 3, 7, 15, 31)], abs=0.002)


def test_what_changes_before_the_acknowledgement_joins_the_next_publication() -> None:
    lab = Lab()
    lab.away.registers(ALICE)
    lab.away.registers("100.64.1.20/32")
    last = lab.published[-1]
    assert last.nonce == 102
    assert set(told(last)) == {ALICE, "100.64.1.20/32"}
    lab.controller.acknowledges(last)
    lab.world.forget()
    lab.world.run(20)
    assert lab.published == []


def test_a_long_list_goes_in_parts_each_after_the_acknowledgement_of_the_one_before() -> None:
    world = World()
    home, controller = Xtr(world, "access1"), Controller(world)
    hosts = [f"100.64.1.{host}/32" for host in range(1, 41)]
    home.registers(*hosts)
    controller.subscribes(RANGE, 100)
    seen: dict[str, tuple[bytes, ...]] = {}
    while world.server.counts()["notifies_pending"]:
        notify = controller.notifies()[-1]
        assert len(notify.records) <= 16
        seen |= told(notify)
        controller.acknowledges(notify)
    assert set(seen) == set(hosts)
    assert [notify.nonce for notify in controller.notifies()] == [100, 101, 102]


def test_a_subscription_to_a_host_hears_of_the_prefix_that_answers_it() -> None:
    world = World()
    home, controller = Xtr(world, "access1"), Controller(world)
    home.registers(home.home)
    controller.subscribes(ALICE, 100)
    controller.acknowledges(controller.notifies()[0])
    world.forget()
    home.registers(home.home, version=2)
    assert set(told(controller.notifies()[0])) == {home.home}


def test_two_subscriptions_of_one_subscriber_are_one_publication() -> None:
    lab = Lab()
    lab.controller.subscribes(ALICE, 7)
    lab.controller.acknowledges(lab.published[-1])
    lab.world.forget()
    lab.away.registers(ALICE)
    assert [notify.nonce for notify in lab.published] == [8]


def test_nonces_count_for_each_subscriber_by_itself() -> None:
    lab = Lab()
    other = Controller(lab.world)
    other.xtr_id = b"another".ljust(16, b".")
    other.subscribes(RANGE, 5)
    other.acknowledges(other.notifies()[-1])
    lab.world.forget()
    lab.away.registers(ALICE)
    assert sorted(notify.nonce for notify in lab.published) == [6, 101]


def test_only_the_subscribers_key_acknowledges() -> None:
    lab = Lab()
    lab.away.registers(ALICE)
    lab.controller.acknowledges(lab.published[0], key=Key(9, b"guessed"))
    assert lab.world.rejects == ["bad-authentication"]
    lab.world.run(0.3)
    assert len(lab.published) == 2


@pytest.mark.parametrize("nonce", [100, 99])
def test_a_subscription_with_an_old_nonce_is_dropped(nonce: int) -> None:
    lab = Lab()
    lab.controller.subscribes(RANGE, nonce)
    assert (lab.world.rejects, lab.world.sent) == (["replayed-nonce"], [])


def test_subscribing_again_takes_the_place_of_the_subscription() -> None:
    lab = Lab()
    lab.controller.subscribes(RANGE, 500)
    assert lab.published[0].nonce == 500
    assert lab.world.server.counts()["subscriptions"] == 1


def test_a_foreign_range_is_refused_by_policy() -> None:
    lab = Lab()
    lab.controller.subscribes("10.0.0.0/8", 1)
    assert refusal(lab.world) == (["subscription-refused"], Action.DROP_POLICY_DENIED)
    assert lab.world.server.counts()["subscriptions"] == 1


def test_an_unknown_subscriber_is_refused_by_policy() -> None:
    lab = Lab()
    lab.controller.subscribes(RANGE, 1, rlocs=[ip_of("198.18.0.66")], xtr_id=bytes(16))
    assert refusal(lab.world) == (["subscription-refused"], Action.DROP_POLICY_DENIED)


def test_a_known_xtr_id_with_foreign_itr_rlocs_is_refused_as_not_authentic() -> None:
    world = World(subscribers=[SUBSCRIBER | {"address": FMCC, "xtr_id": "66" * 16}])
    Controller(world).subscribes(RANGE, 1, rlocs=[ip_of("198.18.0.66")], xtr_id=b"f" * 16)
    assert refusal(world) == (["subscription-refused"], Action.DROP_AUTH_FAILURE)


def test_the_n_bit_without_an_xtr_id_is_refused() -> None:
    world = World()
    controller = Controller(world)
    record = RequestRecord.of(Prefix.parse(RANGE), notify=True)
    world.hears(MapRequest.of(record, nonce=1, itr_rlocs=controller.rlocs), controller.endpoint)
    assert refusal(world) == (["subscription-refused"], Action.DROP_AUTH_FAILURE)


def test_subscriptions_are_bounded() -> None:
    world = World(limits={"subscriptions_per_subscriber": 1})
    controller = Controller(world)
    controller.subscribes(RANGE, 1)
    controller.subscribes("100.64.2.0/24", 1)
    assert refusal(world) == (["subscription-refused"], Action.DROP_POLICY_DENIED)


def test_unsubscribing_is_confirmed_to_the_source_and_ends_the_publications() -> None:
    lab = Lab()
    lab.controller.unsubscribes(RANGE, 101)
    assert [notify.nonce for notify in lab.published] == [101]
    lab.world.forget()
    lab.away.registers(ALICE)
    assert lab.published == []
    assert lab.world.server.counts()["subscriptions"] == 0


def test_after_unsubscribing_the_last_nonce_still_counts() -> None:
    lab = Lab()
    lab.controller.unsubscribes(RANGE, 101)
    lab.world.forget()
    lab.controller.subscribes(RANGE, 101)
    assert lab.world.rejects == ["replayed-nonce"]
    lab.controller.subscribes(RANGE, 102)
    assert [notify.nonce for notify in lab.published] == [102]


def test_unsubscribing_a_more_specific_silences_it_alone() -> None:
    lab = Lab()
    lab.controller.unsubscribes(ALICE, 1)
    lab.world.forget()
    lab.away.registers(ALICE)
    assert lab.published == []
    lab.away.registers("100.64.1.20/32")
    assert set(told(lab.published[0])) == {"100.64.1.20/32"}


def test_a_subscriber_that_stays_silent_is_tried_at_its_other_address_and_then_dropped_with_a_word() -> None:
    lab = Lab()
    lab.away.registers(ALICE)
    lab.world.run(120)
    to_controller = [send for send in lab.world.sent if send.key == lab.controller.key]
    addresses = [send.to.ip for send in to_controller]
    assert addresses[:8] == [lab.controller.rlocs[0]] * 8
    assert addresses[8:] == [lab.controller.rlocs[1]] * 9
    last = to_controller[-1].message
    assert isinstance(last, MapNotify)
    assert last.nonce == 101
    assert [(record.action, record.locators) for record in last.records] == [(Action.DROP_AUTH_FAILURE, ())]
    assert lab.world.server.counts()["subscriptions"] == 0


def test_a_subscription_to_an_unknown_eid_is_temporary() -> None:
    subscriber = {
        "name": "fmcc",
        "key_id": 9,
        "secret": "secret of fmcc",
        "ranges": ["10.0.0.0/8"],
        "address": [FMCC, "2001:2::2"],
    }
    world = World(subscribers=[subscriber])
    controller = Controller(world)
    controller.subscribes("10.1.0.0/16", 100)
    notify = controller.notifies()[0]
    assert [(record.action, record.ttl_minutes) for record in notify.records] == [(Action.NATIVELY_FORWARD, 15)]
    controller.acknowledges(notify)
    world.run(15 * 60 - 1)
    assert world.server.counts()["subscriptions"] == 1
    world.run(2)
    assert world.server.counts()["subscriptions"] == 0


def test_a_subscription_to_a_configured_range_waits_for_its_first_registration() -> None:
    world = World()
    controller, home = Controller(world), Xtr(world, "access1")
    controller.subscribes(RANGE, 100)
    controller.acknowledges(controller.notifies()[0])
    world.run(3600)
    home.registers(ALICE)
    assert told(controller.notifies()[-1]) == {ALICE: (home.rloc,)}


def test_an_unacknowledged_measurement_does_not_count() -> None:
    """Karn's rule: after a repetition nobody knows which one was acknowledged."""
    lab = Lab(0.3)
    lab.away.registers(ALICE)
    assert lab.world.server.next_deadline() == pytest.approx(lab.world.now + 0.2)


def test_a_request_for_a_mapping_whose_etr_answers_itself_goes_there_and_is_no_subscription() -> None:
    world = World()
    home, controller = Xtr(world, "access1"), Controller(world)
    home.registers(home.home, proxy_reply=False)
    world.forget()
    controller.subscribes(RANGE, 100)
    [send] = world.sent
    assert send.to == home.endpoint
    assert world.server.counts()["subscriptions"] == 0


def test_requests_of_one_subscriber_for_one_eid_are_limited() -> None:
    lab = Lab()
    for nonce in range(200, 210):
        lab.controller.subscribes(RANGE, nonce)
    assert lab.world.rejects == ["rate-limited"] * 6  # a burst of five, less the one that it began with
    lab.world.run(1.01)
    lab.controller.subscribes(RANGE, 300)
    assert lab.published[-1].nonce == 300


def test_a_request_cannot_use_the_nonces_up() -> None:
    """Publications count on from it, and the subscriber takes no lower one ever again."""
    lab = Lab()
    lab.controller.subscribes(RANGE, (1 << 64) - 1)
    assert (lab.world.rejects, lab.world.sent) == (["exhausted-nonce"], [])
    lab.away.registers(ALICE)
    assert [notify.nonce for notify in lab.published] == [101]


def test_a_range_with_more_registrations_than_one_subscription_may_hold_is_refused() -> None:
    world = World(limits={"records_per_subscription": 3})
    home, controller = Xtr(world, "access1"), Controller(world)
    home.registers(home.home, *(f"100.64.1.{host}/32" for host in range(1, 4)))
    world.forget()
    controller.subscribes(RANGE, 1)
    assert refusal(world) == (["subscription-refused"], Action.DROP_POLICY_DENIED)
    controller.subscribes(ALICE, 1)
    assert world.server.counts()["subscriptions"] == 1


def test_a_foreign_site_id_is_refused_as_not_authentic() -> None:
    world = World(subscribers=[SUBSCRIBER | {"xtr_id": b"fmcc".ljust(16, b".").hex(), "site_id": 7}])
    Controller(world).subscribes(RANGE, 1)
    assert refusal(world) == (["subscription-refused"], Action.DROP_AUTH_FAILURE)


def test_a_large_fan_out_is_paced_and_tells_what_is_current_by_then() -> None:
    world = World(limits={"publications_burst": 2, "publications_rate": 10, "subscribe_burst": 100})
    home, away = Xtr(world, "access1"), Xtr(world, "access2")
    home.registers(home.home, ALICE)
    subscribers = [Controller(world) for _ in range(5)]
    for number, each in enumerate(subscribers):
        each.xtr_id = bytes([number]).ljust(16, b".")
        each.subscribes(RANGE, 1000 * (number + 1))
        each.acknowledges(each.notifies()[-1])
    world.forget()
    start = world.now
    away.registers(ALICE)
    assert [send.message.nonce for send in publications(world)] == [1001, 2001]
    assert world.server.counts()["publications_queued"] == 3
    home.says(home.record(ALICE, version=3))
    due = world.server.next_deadline()
    assert due is not None
    assert due - start == pytest.approx(0.05, abs=0.06)
    world.run(1.0)
    last = {send.message.nonce // 1000: told(send.message)[ALICE] for send in publications(world)}
    assert set(last) == {1, 2, 3, 4, 5}
    assert last[5] == (home.rloc,)
    assert world.server.counts()["publications_queued"] == 0


def publications(world: World) -> list[Any]:
    return [send for send in world.sent if isinstance(send.message, MapNotify) and send.key == Controller(world).key]


class Lasting(World):
    """A Map-Server whose store lasts."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder
        self.store: SqliteStore | None = None
        self.restarts()

    def restarts(self) -> None:
        if self.store is not None:
            self.store.commit()
            self.store.close()
        keys = Sites(self.settings.sites).key
        self.store = SqliteStore(self._folder, keys, now=self.now, wall_now=5000.0 + self.now)
        self.server = MapServer(self.settings, itertools.count(1 << 40), self.store)
        self._take(self.server.started(self.now))


def test_a_subscriber_subscribes_again_by_its_own_next_nonce_after_restarts(tmp_path: Path) -> None:
    world = Lasting(tmp_path)
    fmcc = Controller(world)
    fmcc.subscribes("100.64.1.0/24", 100)
    world.restarts()
    world.restarts()
    world.forget()

    fmcc.subscribes("100.64.1.0/24", 100)
    assert world.rejects == ["replayed-nonce"]
    fmcc.subscribes("100.64.1.0/24", 101)  # RFC 9437 §5: the last one that it knows, plus one
    [answer] = fmcc.notifies()
    assert answer.nonce == 101

    world.restarts()
    world.forget()
    Xtr(world, "access1").registers(ALICE)
    [publication] = fmcc.notifies()
    assert publication.nonce > 101
    world.forget()
    fmcc.subscribes("100.64.1.0/24", 102)
    assert world.rejects == ["replayed-nonce"], "a publication has told it a greater one"


def test_a_more_specific_that_was_unsubscribed_stays_so_over_a_restart(tmp_path: Path) -> None:
    world = Lasting(tmp_path)
    fmcc = Controller(world)
    fmcc.subscribes("100.64.1.0/24", 1)
    fmcc.unsubscribes(ALICE, 2)
    world.restarts()
    world.forget()
    Xtr(world, "access2").registers(ALICE, "100.64.1.11/32")
    published = [str(record.prefix) for notify in fmcc.notifies() for record in notify.records]
    assert published == ["100.64.1.11/32"]
