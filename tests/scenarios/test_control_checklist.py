"""What RFC 9301 and RFC 9437 ask of a mapping system's control plane, a test for each line, IPv4 and IPv6 alike.

The stories beside this file go deeper; here every rule stands by itself, so that a red line names what is not kept.
Each runs with EIDs and locators of all four combinations of families.
"""

from __future__ import annotations

import itertools
import struct
import time
from pathlib import Path
from typing import Any

import pytest

from lispfmc.core.effects import Effect
from lispfmc.runtime.driver import Driver
from lispfmc.runtime.events import EventLog
from lispfmc.runtime.rejects import Rejects
from lispfmc.store.sqlite import SqliteStore
from lispfmc.wire import decode, encode
from lispfmc.wire.address import Endpoint, Ip, Prefix, ip_of
from lispfmc.wire.auth import Key, sign
from lispfmc.wire.checksum import internet_checksum
from lispfmc.wire.errors import PeerError
from lispfmc.wire.messages import (
    Action,
    Ecm,
    EidRecord,
    Locator,
    MapNotify,
    MapNotifyAck,
    MapRegister,
    MapReply,
    MapRequest,
    RequestRecord,
)
from mapserver.server import MapServer
from mapserver.sites import Sites
from tests.scenarios.mapserver_world import World

XTR_ID, OTHER_ID, SUBSCRIBER_ID = b"one".ljust(16), b"other".ljust(16), b"subscriber".ljust(16)
KEYS = {"one": Key(1, b"secret one"), "other": Key(1, b"secret other"), "watcher": Key(9, b"secret watcher")}


class Families:
    """EIDs of one family behind locators of one family."""

    def __init__(self, eid: int, rloc: int) -> None:
        v4 = eid == 4
        self.wide = Prefix.parse("10.1.0.0/16" if v4 else "fd00:1::/32")
        self.home = Prefix.parse("10.1.2.0/24" if v4 else "fd00:1:2::/48")
        self.host = Prefix.parse("10.1.2.9/32" if v4 else "fd00:1:2::9/128")
        self.neighbour = Prefix.parse("10.1.2.8/32" if v4 else "fd00:1:2::8/128")
        self.unserved = Prefix.parse("203.0.113.0/24" if v4 else "2001:db8:2::/48")  # no site may register it
        self.foreign = Prefix.parse("192.0.2.0/24" if v4 else "2001:db8::/32")
        base = "198.18.0.{}" if rloc == 4 else "2001:2::{}"
        self.one, self.other, self.itr, self.watcher = (ip_of(base.format(number)) for number in (1, 2, 3, 4))
        self.nonces = itertools.count(100)
        text = [str(self.wide), str(self.home)]
        sites = [{"name": name, "key_id": 1, "secret": f"secret {name}", "prefixes": text} for name in ("one", "other")]
        watcher = {"name": "watcher", "key_id": 9, "secret": "secret watcher"}
        watcher["ranges"] = [*text, str(self.unserved)]
        watcher["address"] = [base.format(4), base.format(5)]
        self.configuration: dict[str, Any] = {
            "listen": ["198.18.0.100", "2001:2::100"],
            "sites": sites,
            "subscribers": [watcher],
            "mobility_ranges": [{"prefix": str(self.wide)}],
        }
        self.world = World(**self.configuration)

    def record(self, eid: Prefix, rloc: Ip | None = None, **fields: Any) -> EidRecord:
        values: dict[str, Any] = {"ttl_minutes": 1440} | fields
        return EidRecord.of(eid, [Locator.of(rloc or self.one)], **values)

    def registers(self, *records: EidRecord, who: str = "one", key: Key | None = None, **fields: Any) -> MapRegister:
        source = self.one if who == "one" else self.other
        xtr_id = XTR_ID if who == "one" else OTHER_ID
        values: dict[str, Any] = {"nonce": next(self.nonces), "xtr_id": xtr_id, "site_id": bytes(8)} | fields
        message = MapRegister.of(*records, **values)
        self.world.hears_bytes(sign(message, key or KEYS[who]), Endpoint(source, 4342))
        return message

    def asks(self, eid: Prefix) -> MapReply:
        self.world.forget()
        self.world.hears(self.question(eid), Endpoint(self.itr, 4342))
        [send] = self.world.sent
        assert isinstance(send.message, MapReply)
        assert send.to == Endpoint(self.itr, 61000)
        return send.message

    def question(self, eid: Prefix, **fields: Any) -> Ecm:
        values: dict[str, Any] = {"nonce": next(self.nonces), "itr_rlocs": [self.itr]} | fields
        request = MapRequest.of(RequestRecord.of(eid), **values)
        return Ecm.of(request, source=bytes(len(eid.ip)), destination=eid.ip, source_port=61000)

    def subscribes(self, eid: Prefix, nonce: int, rlocs: list[Any] | None = None) -> None:
        rlocs = rlocs or [self.watcher, ip_of("2001:2::5" if len(self.watcher) == 16 else "198.18.0.5")]
        record = RequestRecord.of(eid, notify=True)
        request = MapRequest.of(record, nonce=nonce, itr_rlocs=rlocs, xtr_id=SUBSCRIBER_ID, site_id=bytes(8))
        ecm = Ecm.of(request, source=self.watcher, destination=self.watcher, source_port=4342)
        self.world.hears(ecm, Endpoint(self.watcher, 4342))

    def watches(self, eid: Prefix, nonce: int = 1000) -> None:
        """Subscribed, and the answer acknowledged."""
        self.subscribes(eid, nonce)
        self.acknowledges(self.published()[-1])
        self.world.forget()

    def published(self) -> list[MapNotify]:
        sent = (send.message for send in self.world.sent if send.key == KEYS["watcher"])
        return [message for message in sent if isinstance(message, MapNotify)]

    def acknowledges(self, notify: MapNotify) -> None:
        ack = MapNotifyAck.of(notify)
        self.world.hears_bytes(sign(ack, KEYS["watcher"]), Endpoint(self.watcher, 4342))

    def notified(self, rloc: Ip) -> list[MapNotify]:
        sent = (send.message for send in self.world.sent if send.to == Endpoint(rloc, 4342))
        return [message for message in sent if isinstance(message, MapNotify)]

    def state(self) -> tuple[Any, ...]:
        held = [(str(each.eid), each.owner.xtr, each.record) for each in self.world.server.registrations()]
        return held, self.world.server.counts()


@pytest.fixture(params=[(4, 4), (6, 6), (6, 4), (4, 6)], ids=["v4", "v6", "v6-over-v4", "v4-over-v6"])
def net(request: pytest.FixtureRequest) -> Families:
    return Families(*request.param)


# --- bad input: no change of state, one counter ---------------------------------------------------------------------


def test_a_cut_message_never_gets_past_the_parser(net: Families) -> None:
    register = sign(MapRegister.of(net.record(net.home), nonce=1, xtr_id=XTR_ID, site_id=bytes(8)), KEYS["one"])
    for datagram in (register, encode(net.question(net.host))):
        for size in range(len(datagram)):
            with pytest.raises(PeerError):
                decode(datagram[:size])


def test_an_unknown_afi_is_refused_with_the_whole_message(net: Families) -> None:
    datagram = bytearray(encode(MapRequest.of(RequestRecord.of(net.host), nonce=1, itr_rlocs=[net.itr])))
    datagram[-len(net.host.ip) - 2 : -len(net.host.ip)] = (99).to_bytes(2, "big")
    with pytest.raises(PeerError):
        decode(bytes(datagram))


@pytest.mark.parametrize(
    "what", ["key", "key-id", "eid", "replayed nonce", "equal nonce", "no records", "changed bits"]
)
def test_a_wrong_register_changes_nothing_and_is_counted(net: Families, what: str) -> None:
    net.registers(net.record(net.home), nonce=50)
    before = net.state()
    net.world.forget()
    match what:
        case "key":
            net.registers(net.record(net.host), key=Key(1, b"guessed"))
        case "key-id":
            net.registers(net.record(net.host), key=Key(77, b"secret one"))
        case "eid":
            net.registers(net.record(net.foreign))
        case "replayed nonce":
            net.registers(net.record(net.host), nonce=49)
        case "equal nonce":
            net.registers(net.record(net.host), nonce=50)
        case "no records":
            net.registers()
        case _:
            message = MapRegister.of(net.record(net.host), nonce=99, xtr_id=XTR_ID, site_id=bytes(8))
            datagram = bytearray(sign(message, KEYS["one"]))
            datagram[-25] ^= 1  # in the last locator; xTR-ID and Site-ID follow it
            net.world.hears_bytes(bytes(datagram), Endpoint(net.one, 4342))
    assert net.state() == before
    assert (len(net.world.rejects), net.world.sent) == (1, [])


def ecm_in_ecm(net: Families) -> bytes:
    inner = encode(net.question(net.host))
    udp = struct.pack("!HHHH", 61000, 4342, 8 + len(inner), 0) + inner  # over IPv4 a checksum is optional
    header = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 0, 0, 64, 17, 0, bytes(4), bytes(4))
    header = header[:10] + internet_checksum(header).to_bytes(2, "big") + header[12:]
    return b"\x80\0\0\0" + header + udp


def test_an_ecm_in_an_ecm_is_refused_by_the_parser(net: Families) -> None:
    with pytest.raises(PeerError, match="an ECM inside an ECM"):
        decode(ecm_in_ecm(net))


@pytest.mark.parametrize("what", ["cut", "unknown AFI", "an ECM in an ECM", "more records than there are", "noise"])
def test_what_is_no_message_is_counted_once_and_does_nothing(net: Families, what: str) -> None:
    net.registers(net.record(net.home))
    before = net.state()
    plain = encode(MapRequest.of(RequestRecord.of(net.host), nonce=1, itr_rlocs=[net.itr]))
    size = len(net.host.ip)
    datagram = {
        "cut": plain[:-1],
        "unknown AFI": plain[: -size - 2] + b"\0\x63" + plain[-size:],
        "an ECM in an ECM": ecm_in_ecm(net),
        "more records than there are": plain[:3] + b"\xff" + plain[4:],
        "noise": bytes(range(256)),
    }[what]
    rejects, sent = Rejects(), list[bytes]()
    driver: Driver[Effect] = Driver(
        net.world.server,
        perform=lambda _effect: None,
        send=lambda data, _to: sent.append(data),
        events=EventLog(),
        rejects=rejects,
        quick=net.world.server.at_once,
        strict=True,
    )
    driver.datagram(datagram, Endpoint(net.itr, 4342))
    assert (dict(rejects.counts), sent, net.state()) == ({"malformed": 1}, [], before)


def test_a_flood_of_subscriptions_ends_at_the_subscribers_limit(net: Families) -> None:
    net.world.configures(**net.configuration, limits={"subscriptions_per_subscriber": 8})
    for number in range(50):
        ip = net.host.ip[:-1] + bytes([100 + number])
        net.subscribes(Prefix.host(ip), 1)
    assert net.world.server.counts()["subscriptions"] == 8
    assert net.world.rejects == ["subscription-refused"] * 42


def test_a_subscription_in_anothers_name_changes_nothing(net: Families) -> None:
    net.watches(net.home)
    before = net.state()
    net.subscribes(net.home, 5000, [net.itr])  # the xTR-ID and nonces are no secret; the address is not the watcher's
    assert (net.world.rejects, net.published(), net.state()) == (["subscription-refused"], [], before)


def test_more_questions_than_anybody_asks_at_once_are_refused(net: Families) -> None:
    before = net.state()
    request = MapRequest.of(*[RequestRecord.of(net.host)] * 255, nonce=1, itr_rlocs=[net.itr])
    net.world.hears(Ecm.of(request, source=net.itr, destination=net.itr, source_port=61000), Endpoint(net.itr, 4342))
    assert (net.world.rejects, net.world.sent, net.state()) == (["record-count"], [], before)


def test_a_flood_with_invented_addresses_fills_no_table(net: Families) -> None:
    net.registers(net.record(net.home))
    before = net.state()
    for number in range(2000):
        spoofed = number.to_bytes(4, "big").rjust(len(net.itr), net.itr[:1])
        request = net.question(net.host, itr_rlocs=[spoofed])
        net.world.hears(request, Endpoint(spoofed, 4342))
    assert net.state() == before


# --- requests and replies -------------------------------------------------------------------------------------------


def test_a_probe_is_dropped(net: Families) -> None:
    net.world.hears(net.question(net.host, probe=True), Endpoint(net.itr, 4342))
    assert (net.world.rejects, net.world.sent) == (["probe"], [])


def test_a_match_brings_its_more_specifics_with_the_same_ttl(net: Families) -> None:
    net.registers(net.record(net.home))
    net.registers(net.record(net.host, net.other, ttl_minutes=10), who="other")
    reply = net.asks(net.neighbour)
    assert [each.prefix for each in reply.records] == [net.home, net.host]
    assert {each.ttl_minutes for each in reply.records} == {10}


def test_what_nobody_registered_is_negative_for_a_minute_where_it_may_come_and_for_fifteen_elsewhere(
    net: Families,
) -> None:
    [soon] = net.asks(net.host).records
    assert (soon.action, soon.locators, soon.ttl_minutes) == (Action.NATIVELY_FORWARD, (), 1)
    [never] = net.asks(net.foreign).records
    assert (never.action, never.locators, never.ttl_minutes) == (Action.NATIVELY_FORWARD, (), 15)
    hole = never.prefix
    assert hole is not None
    assert hole.covers(net.foreign)
    assert not hole.covers(net.wide)


def test_answers_for_one_address_about_one_prefix_are_limited(net: Families) -> None:
    net.registers(net.record(net.home))
    net.world.forget()
    for _ in range(9):
        net.world.hears(net.question(net.host), Endpoint(net.itr, 4342))
    assert (len(net.world.sent), net.world.rejects) == (5, ["rate-limited"] * 4)
    net.world.run(1.0)
    net.world.hears(net.question(net.host), Endpoint(net.itr, 4342))
    assert len(net.world.sent) == 6


# --- registration ---------------------------------------------------------------------------------------------------


def test_a_registration_lasts_three_minutes(net: Families) -> None:
    net.registers(net.record(net.home))
    net.world.run(179)
    assert net.world.mappings()
    net.world.run(2)
    assert not net.world.mappings()


def test_with_the_t_bit_it_lasts_as_long_as_its_records_say(net: Families) -> None:
    net.registers(net.record(net.home, ttl_minutes=10), use_ttl=True)
    net.world.run(599)
    assert net.world.mappings()
    net.world.run(2)
    assert not net.world.mappings()


def test_with_the_m_bit_it_is_acknowledged_with_nonce_and_records(net: Families) -> None:
    message = net.registers(net.record(net.home))
    [notify] = net.notified(net.one)
    assert (notify.nonce, notify.records) == (message.nonce, message.records)


def test_without_the_m_bit_it_is_not(net: Families) -> None:
    net.registers(net.record(net.home), want_notify=False)
    assert net.notified(net.one) == []


def test_a_nonce_is_remembered_over_a_restart(net: Families, tmp_path: Path) -> None:
    for _ in range(2):
        net.world = World(**net.configuration)
        store = SqliteStore(tmp_path, Sites(net.world.settings.sites).key, now=net.world.now, wall_now=time.time())
        net.world.server = MapServer(net.world.settings, net.nonces, store)
        net.world.server.started(net.world.now)
        net.registers(net.record(net.home), nonce=50)
        store.commit()
        store.close()
    assert net.world.rejects == ["replayed-nonce"]
    assert [str(each.eid) for each in net.world.server.registrations()] == [str(net.home)]


@pytest.mark.parametrize("merge", [True, False])
def test_the_merge_bit_joins_locators_and_without_it_the_last_one_counts(net: Families, merge: bool) -> None:
    net.registers(net.record(net.home), merge=merge)
    second = MapRegister.of(net.record(net.home, net.other), nonce=7, merge=merge, xtr_id=OTHER_ID, site_id=bytes(8))
    net.world.hears_bytes(sign(second, KEYS["one"]), Endpoint(net.other, 4342))
    [record] = net.asks(net.home).records
    assert {each.address for each in record.locators} == ({net.one, net.other} if merge else {net.other})


# --- mobility -------------------------------------------------------------------------------------------------------


def test_the_xtr_that_an_eid_left_is_told_until_it_acknowledges(net: Families) -> None:
    net.registers(net.record(net.host))
    net.world.forget()
    net.registers(net.record(net.host, net.other), who="other")
    [notify] = net.notified(net.one)
    assert [each.address for each in notify.records[0].locators] == [net.other]
    net.world.run(0.7)
    assert len(net.notified(net.one)) == 3
    net.world.hears_bytes(sign(MapNotifyAck.of(notify), KEYS["one"]), Endpoint(net.one, 4342))
    net.world.run(60)
    assert len(net.notified(net.one)) == 3


def test_its_late_refresh_does_not_take_the_eid_back(net: Families) -> None:
    net.registers(net.record(net.host))
    net.registers(net.record(net.host, net.other), who="other")
    net.registers(net.record(net.host))
    [record] = net.asks(net.host).records
    assert [each.address for each in record.locators] == [net.other]


def test_a_lower_version_does_not_either(net: Families) -> None:
    net.registers(net.record(net.host, map_version=3))
    net.registers(net.record(net.host, net.other, map_version=2), who="other")
    [record] = net.asks(net.host).records
    assert [each.address for each in record.locators] == [net.one]


# --- publish/subscribe ----------------------------------------------------------------------------------------------


def test_a_subscription_is_answered_by_a_map_notify_with_its_nonce(net: Families) -> None:
    net.registers(net.record(net.home))
    net.world.forget()
    net.subscribes(net.home, 1000)
    [notify] = net.published()
    assert (notify.nonce, [each.prefix for each in notify.records]) == (1000, [net.home])


def test_a_change_of_a_more_specific_is_published_as_that_with_the_next_nonce(net: Families) -> None:
    net.registers(net.record(net.home))
    net.watches(net.home)
    net.registers(net.record(net.host, net.other), who="other")
    [notify] = net.published()
    assert (notify.nonce, [each.prefix for each in notify.records]) == (1001, [net.host])


def test_a_removal_is_published_with_ttl_zero(net: Families) -> None:
    net.registers(net.record(net.home))
    net.watches(net.home)
    net.registers(EidRecord.of(net.home, ttl_minutes=0))
    [record] = net.published()[0].records
    assert (record.prefix, record.ttl_minutes, record.locators) == (net.home, 0, ())


def test_a_subscription_with_a_stale_nonce_is_dropped(net: Families) -> None:
    net.watches(net.home)
    net.subscribes(net.home, 1000)
    assert (net.published(), net.world.rejects) == ([], ["replayed-nonce"])


@pytest.mark.parametrize(
    ("eid", "rloc", "action"),
    [("foreign", None, Action.DROP_POLICY_DENIED), ("home", "itr", Action.DROP_POLICY_DENIED)],
)
def test_a_refused_subscription_is_a_negative_reply_that_says_why(
    net: Families, eid: str, rloc: str | None, action: Action
) -> None:
    net.subscribes(getattr(net, eid), 1, [getattr(net, rloc)] if rloc else None)
    [reply] = [send.message for send in net.world.sent if isinstance(send.message, MapReply)]
    assert [(each.action, each.locators) for each in reply.records] == [(action, ())]
    assert net.world.server.counts()["subscriptions"] == 0


def test_a_subscription_to_what_no_site_may_register_is_temporary(net: Families) -> None:
    net.subscribes(net.unserved, 1000)
    [notify] = net.published()
    assert [(each.action, each.locators) for each in notify.records] == [(Action.NATIVELY_FORWARD, ())]
    net.acknowledges(notify)
    net.world.run(14 * 60)
    assert net.world.server.counts()["subscriptions"] == 1
    net.world.run(60)
    assert net.world.server.counts()["subscriptions"] == 0


def test_what_a_subscriber_does_not_acknowledge_goes_again_after_a_fifth_of_a_second_doubling(net: Families) -> None:
    net.subscribes(net.home, 1000)  # an address that nothing is known of yet
    seen = [len(net.published())]
    for seconds in (0.19, 0.02, 0.38, 0.02, 0.78, 0.02):
        net.world.run(seconds)
        seen.append(len(net.published()))
    assert seen == [1, 1, 2, 2, 3, 3, 4]


def test_unsubscribing_is_confirmed_and_ends_it(net: Families) -> None:
    net.registers(net.record(net.home))
    net.watches(net.home)
    net.subscribes(net.home, 1001, [None])
    assert [notify.nonce for notify in net.published()] == [1001]
    net.world.forget()
    net.registers(net.record(net.home, net.other))
    assert net.published() == []


def test_unsubscribing_a_part_silences_that_part(net: Families) -> None:
    net.registers(net.record(net.home))
    net.watches(net.home)
    net.subscribes(net.host, 1, [None])
    net.world.forget()
    net.registers(net.record(net.host, net.other), who="other")
    assert net.published() == []
    net.registers(net.record(net.neighbour, net.other), who="other")
    assert len(net.published()) == 1


def test_without_acknowledgement_the_other_address_is_tried_and_then_the_end_is_told(net: Families) -> None:
    net.registers(net.record(net.home))
    net.watches(net.home)
    net.registers(net.record(net.host, net.other), who="other")
    net.world.run(150)
    told = [send for send in net.world.sent if send.key == KEYS["watcher"]]
    assert len({send.to.ip for send in told}) == 2
    last = told[-1].message
    assert isinstance(last, MapNotify)
    assert [(each.action, each.locators) for each in last.records] == [(Action.DROP_AUTH_FAILURE, ())]
    assert net.world.server.counts()["subscriptions"] == 0
