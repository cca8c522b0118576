"""An xTR tells its hosts anew: taken undecoded, as a whole, it comes to what it comes to record by record."""

from __future__ import annotations

import itertools

import pytest

from lispfmc.core.effects import Effect, EmitEach, Send, Transmit
from lispfmc.wire import decode
from lispfmc.wire.address import Endpoint, Prefix, ip_of
from lispfmc.wire.auth import Key, sign
from lispfmc.wire.messages import EidRecord, Locator, MapNotify, MapRegister
from mapserver.server import MapServer
from mapserver.settings import MapServerSettings

KEY = Key(1, b"secret")
SETTINGS = MapServerSettings.model_validate(
    {
        "name": "ms",
        "listen": ["198.18.0.1"],
        "sites": [{"name": "one", "key_id": 1, "secret": "secret", "prefixes": ["10.0.0.0/8"]}],
    }
)
FIRST, SECOND = "198.18.0.11", "198.18.0.12"


class Pair:
    """Two Map-Servers that hear the same, one by the way of the daemon and one that decodes everything."""

    def __init__(self, settings: MapServerSettings = SETTINGS) -> None:
        self.short, self.long = (MapServer(settings, itertools.count(1)) for _ in range(2))
        self.nonces = itertools.count(1)
        self.now = 0.0
        self.answer: list[Effect] = []

    def hears(self, hosts: str, weight: int, version: int = 0, xtr: str = FIRST, merge: bool = False) -> bool:
        """Whether the short way took it. Both are in the same state afterwards."""
        self.now += 1.0
        locators = [Locator.of(ip_of(xtr), weight=weight)]
        of = [EidRecord.of(eid(each), locators, ttl_minutes=1440, map_version=version) for each in hosts.split()]
        said = MapRegister.of(
            *of, nonce=next(self.nonces), want_notify=True, merge=merge, xtr_id=ip_of(xtr) * 4, site_id=bytes(8)
        )
        datagram, source = sign(said, KEY), Endpoint(ip_of(xtr), 4342)
        answer = self.short.at_once(datagram, source, self.now)
        if answer is None:
            self.short.received(decode(datagram), datagram, source, self.now)
        self.answer = self.long.received(decode(datagram), datagram, source, self.now)
        sent = [each for each in answer if isinstance(each, Send)] if isinstance(answer, list) else []
        assert answer is None or sent == [each for each in self.answer if isinstance(each, Send)]
        assert kept(self.short) == kept(self.long)
        return answer is not None


def eid(text: str) -> Prefix:
    """A host of 10.0.0.0/24 by its last byte, or what is written out."""
    whole = text if text.count(".") == 3 else f"10.0.0.{text}"
    return Prefix.parse(whole if "/" in whole else f"{whole}/32")


def kept(server: MapServer) -> list[object]:
    return [
        (part.record, part.since, part.registrant, part.lease.expires_at, part.lease.live, len(part.lease.members))
        for each in server.registrations()
        for part in each.each
    ]


def lease_of(server: MapServer, host: int) -> object:
    return next(each.lease for each in server.registrations() if each.eid == eid(str(host)))


def test_what_is_told_anew_stays_with_its_lease() -> None:
    both = Pair()
    both.hears("1 2 3", 1)
    lease = lease_of(both.short, 1)
    assert both.hears("1 2 3", 2)
    assert lease_of(both.short, 1) is lease_of(both.short, 3) is lease


def test_what_was_said_before_is_no_refresh_after_something_else_was_said() -> None:
    both = Pair()
    for weight in (1, 2, 1, 2, 2):
        both.hears("1 2", weight)


@pytest.mark.parametrize("again", ["1 2", "2 3", "3 2 1 4", "4 1", "1"])
def test_hosts_of_several_leases_are_told_together(again: str) -> None:
    both = Pair()
    both.hears("1 2", 1)
    both.hears("3 4", 1)
    assert both.hears(again, 2)
    assert both.hears("1 2 3 4", 3)
    both.short.expired(both.now + 1000.0)
    both.long.expired(both.now + 1000.0)
    assert kept(both.short) == kept(both.long) == []


def test_the_hosts_of_an_xtr_that_starts_are_taken_short_as_soon_as_it_is_known() -> None:
    both = Pair()
    assert [both.hears(hosts, 1) for hosts in ("1 2", "5 4", "3", "250 9 70")] == [False, True, True, True]
    assert len(kept(both.short)) == 8


def test_a_host_is_taken_short_inside_nobodys_prefix_alone() -> None:
    both = Pair()
    both.hears("1", 1)
    both.hears("0/24", 1, version=1, xtr=SECOND)
    both.hears("3", 1)
    told = [each.to.ip for each in both.answer if isinstance(each, Send)]
    assert told == [ip_of(SECOND)], "who registers what covers a host has lost the host"


def test_new_hosts_among_others_are_left_to_the_whole_rule() -> None:
    both = Pair()
    both.hears("1", 1)
    both.hears("2 1", 1)
    both.hears("1 3", 2)
    both.hears("4 1 5", 2)


def test_what_the_site_may_not_register_is_not_taken_short() -> None:
    both = Pair()
    both.hears("1", 1)
    assert not both.hears("2 11.0.0.1", 1)
    assert len(kept(both.short)) == 1


def test_no_more_hosts_are_taken_short_than_there_is_room_for() -> None:
    both = Pair(SETTINGS.model_copy(update={"limits": SETTINGS.limits.model_copy(update={"registrations": 3})}))
    both.hears("1", 1)
    assert [both.hears(hosts, 1) for hosts in ("2 3 4", "2 3", "4")] == [False, True, False]


def test_a_host_that_comes_twice_counts_once() -> None:
    both = Pair()
    both.hears("1 2", 1)
    both.hears("3 3", 1)
    both.hears("1 1", 2)
    both.hears("2 2", 3)


def test_an_older_version_and_none_are_left_to_the_whole_rule() -> None:
    both = Pair()
    for version in (0, 0, 4, 4, 3, 0, 5):
        both.hears("1 2", 1 + both.now.__trunc__(), version)


def test_xtrs_that_share_a_host_are_left_to_the_whole_rule() -> None:
    both = Pair()
    for weight, xtr in enumerate((FIRST, SECOND, SECOND, FIRST, FIRST), 1):
        both.hears("1", weight, xtr=xtr, merge=True)


def test_an_xtr_that_lost_a_host_does_not_get_it_back_by_the_short_way() -> None:
    both = Pair()
    both.hears("1 2", 1)
    both.hears("1", 1, version=1, xtr=SECOND)
    assert not both.hears("1 2", 2), "refused, and answered with the Map-Notify that it has not acknowledged"
    both.hears("1", 3, version=1, xtr=SECOND)
    told = [each.to.ip for each in both.answer if isinstance(each, Send)]
    assert told == [ip_of(FIRST)], "who was displaced, and has not said that it knows, is told the new locators"


def test_who_never_acknowledged_that_a_host_moved_is_told_its_new_locators() -> None:
    both = Pair()
    both.hears("1", 1)
    both.hears("1", 1, version=1, xtr=SECOND)
    while both.long.counts()["notifies_pending"]:
        both.now += 1.0
        for server in (both.short, both.long):
            server.expired(both.now)
    both.hears("1", 2, version=1, xtr=SECOND)
    assert [each.to.ip for each in both.answer if isinstance(each, Send)] == [ip_of(FIRST)]


def test_after_the_configuration_was_read_anew_the_next_refresh_is_decided_on_and_those_that_follow_are_short() -> None:
    both = Pair()
    both.hears("1 2", 1)
    assert both.hears("1 2", 1)
    for server in (both.short, both.long):
        server.configured(SETTINGS, both.now)
    assert [both.hears("1 2", 1) for _ in range(3)] == [False, True, True]


@pytest.mark.parametrize("text", ["[7]10.0.0.1/32", "10.0.0.0/24", "fd00::1/128"])
def test_a_refresh_of_any_eid_is_taken_short(text: str) -> None:
    sites = [
        {"name": "one", "key_id": 1, "secret": "secret", "prefixes": ["10.0.0.0/24", "fd00::/64"]},
        {"name": "two", "key_id": 2, "secret": "secret", "prefixes": ["10.0.0.0/24"], "instance_id": 7},
    ]
    settings = MapServerSettings.model_validate({"name": "ms", "listen": ["198.18.0.1"], "sites": sites})
    server, source = MapServer(settings, itertools.count(1)), Endpoint(ip_of(FIRST), 4342)
    key = Key(2 if text.startswith("[") else 1, b"secret")
    prefix = Prefix.parse(text.rpartition("]")[2], 7 if text.startswith("[") else 0)
    record = EidRecord.of(prefix, [Locator.of(ip_of(FIRST))], ttl_minutes=1440)
    first, second = (sign(MapRegister.of(record, nonce=nonce, want_notify=True), key) for nonce in (1, 2))
    assert server.at_once(first, source, 1.0) is None
    server.received(decode(first), first, source, 1.0)
    assert server.counts()["registrations"] == 1
    assert isinstance(server.at_once(second, source, 2.0), Transmit)


def test_the_events_are_one_effect_and_the_answer_another() -> None:
    server, locator = MapServer(SETTINGS, itertools.count(1)), Locator.of(ip_of(FIRST), weight=7)
    source = Endpoint(ip_of(FIRST), 4342)
    for nonce, locators in ((1, [Locator.of(ip_of(FIRST))]), (2, [locator])):
        of = [EidRecord.of(Prefix.parse(f"10.0.0.{each}/32"), locators, ttl_minutes=1440) for each in range(3)]
        said = MapRegister.of(*of, nonce=nonce, want_notify=True, xtr_id=bytes(16), site_id=bytes(8))
        datagram = sign(said, KEY)
        answer = server.at_once(datagram, source, 1.0) or server.received(decode(datagram), datagram, source, 1.0)
    assert isinstance(answer, list)
    events, notify = answer
    assert isinstance(events, EmitEach)
    assert [each.fields["eid"] for each in events.apart()] == ["10.0.0.0/32", "10.0.0.1/32", "10.0.0.2/32"]
    assert {each.name for each in events.apart()} == {"registration.changed"}
    assert isinstance(notify, Transmit)
    message = decode(notify.datagram)
    assert isinstance(message, MapNotify)
    assert message.nonce == 2
    assert {record.locators for record in message.records} == {(locator,)}
