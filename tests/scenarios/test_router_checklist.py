"""What RFC 9301 and RFC 9437 ask of a tunnel router's control plane, a test for each line, IPv4 and IPv6 alike.

The stories beside this file go deeper; here every rule stands by itself, with EIDs and locators of all four
combinations of families.
"""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from lispfmc.core.effects import Emit, Reject, Send
from lispfmc.wire import decode, encode
from lispfmc.wire.address import Endpoint, Ip, Prefix, ip_of
from lispfmc.wire.auth import Key, sign
from lispfmc.wire.messages import (
    Ecm,
    EidRecord,
    Locator,
    MapNotify,
    MapNotifyAck,
    MapRegister,
    MapReply,
    MapRequest,
    RequestRecord,
    address_of,
)
from xtr.effects import Forward, Hop, Install, Undeliver, XtrEffect
from xtr.router import Router
from xtr.settings import XtrSettings

MAC = bytes.fromhex("020000000110")


class Site:
    """A tunnel router with a host of its own, and the world around it. Peers talk to whatever host of it."""

    def __init__(self, eid: int, rloc: int) -> None:
        v4 = eid == 4
        self.home = Prefix.parse("10.1.2.0/24" if v4 else "fd00:1:2::/48")
        self.host = Prefix.parse("10.1.2.9/32" if v4 else "fd00:1:2::9/128")
        self.far = Prefix.parse("10.9.9.9/32" if v4 else "fd00:9:9::9/128")
        base = "198.18.0.{}" if rloc == 4 else "2001:2::{}"
        self.own, server, self.peer, self.other = (ip_of(base.format(number)) for number in (11, 1, 21, 22))
        self.server, self.key = Endpoint(server, 4342), Key(1, b"secret")
        self.now = 0.0
        settings: dict[str, Any] = {
            "name": "access1",
            "rlocs": [base.format(11)],
            "prefixes": [str(self.home)],
            "map_servers": [{"address": base.format(1), "key_id": 1, "secret": "secret"}],
            "dynamic": [{"prefix": str(self.home), "mobility": "presence"}],
            "timers": {"rloc_probe_s": 0, "silence_s": 0},
        }
        nonces = itertools.count(1 << 40), itertools.count(1000)
        self.core = Router(XtrSettings.model_validate(settings), *nonces, lambda _eid: [self.peer])

    def hears(self, datagram: bytes, source: Endpoint | None = None) -> list[XtrEffect]:
        return self.core.received(decode(datagram), datagram, source or self.server, self.now)

    def until(self, end: float) -> list[tuple[float, XtrEffect]]:
        """What it does of its own accord, and when."""
        found: list[tuple[float, XtrEffect]] = []
        while (due := self.core.next_deadline()) is not None and due <= end:
            self.now = max(self.now, due)
            found += [(self.now, effect) for effect in self.core.expired(self.now)]
        self.now = end
        return found

    def acknowledges(self, effects: list[XtrEffect]) -> None:
        """The Map-Server confirms every registration among these."""
        for register in messages(effects, MapRegister):
            self.hears(sign(MapNotify.of(*register.records, nonce=register.nonce), self.key))

    def present(self) -> None:
        """It runs, its host is here, and both are registered."""
        self.acknowledges(self.core.start(self.now))
        self.acknowledges(self.core.announced(self.host, "lan", MAC, self.now))

    def told_that_it_left(self) -> list[XtrEffect]:
        moved = EidRecord.of(self.host, [Locator.of(self.other)], ttl_minutes=1440)
        return self.hears(sign(MapNotify.of(moved, nonce=5), self.key))


def messages(effects: list[XtrEffect], kind: type) -> list[Any]:
    sent = [effect.message for effect in effects if isinstance(effect, Send)]
    inside = [each.message if isinstance(each, Ecm) else each for each in sent]
    return [each for each in inside if isinstance(each, kind)]


def refusals(effects: list[XtrEffect]) -> list[str]:
    return [effect.reason for effect in effects if isinstance(effect, Reject)]


def record(eid: Prefix, rloc: Ip) -> EidRecord:
    return EidRecord.of(eid, [Locator.of(rloc)], ttl_minutes=1440)


@pytest.fixture(params=[(4, 4), (6, 6), (6, 4), (4, 6)], ids=["v4", "v6", "v6-over-v4", "v4-over-v6"])
def site(request: pytest.FixtureRequest) -> Site:
    return Site(*request.param)


def test_a_reply_with_a_nonce_that_is_not_outstanding_is_ignored(site: Site) -> None:
    [request] = messages(site.core.missed(site.far, site.now), MapRequest)
    answer = MapReply.of(record(site.far, site.peer), nonce=request.nonce)
    assert refusals(site.hears(encode(MapReply.of(*answer.records, nonce=request.nonce + 1)))) == ["unasked-reply"]
    assert site.core.map_cache(site.now) == []
    assert Install(site.far, Forward((Hop(site.peer, 100),))) in site.hears(encode(answer))
    assert refusals(site.hears(encode(answer))) == ["unasked-reply"]


def test_a_miss_is_asked_once_a_second_ten_times_and_then_not_for_half_a_minute(site: Site) -> None:
    site.core.missed(site.far, 0.0)
    asked = [at for at, effect in site.until(29.0) if messages([effect], MapRequest)]
    assert asked == pytest.approx([1, 2, 3, 4, 5, 6, 7, 8, 9])
    assert messages(site.core.missed(site.far, site.now), MapRequest) == []
    site.until(45.0)
    assert len(messages(site.core.missed(site.far, site.now), MapRequest)) == 1


def test_a_registration_goes_again_after_a_second_doubling_to_a_minute_with_greater_nonces(site: Site) -> None:
    first = messages(site.core.start(0.0), MapRegister)
    again = [(at, register) for at, each in site.until(190.0) for register in messages([each], MapRegister)]
    assert [at for at, _ in again] == pytest.approx([1, 3, 7, 15, 31, 63, 123, 183])
    nonces = [register.nonce for register in (*first, *(register for _, register in again))]
    assert nonces == sorted(set(nonces))


def test_a_map_notify_makes_the_old_router_an_away_router(site: Site) -> None:
    site.present()
    effects = site.told_that_it_left()
    assert Install(site.host, Forward((Hop(site.other, 100),), away=True)) in effects
    assert [effect.eid for effect in effects if isinstance(effect, Undeliver)] == [site.host]
    [ack] = messages(effects, MapNotifyAck)
    assert ack.nonce == 5


def asked(site: Site, eid: Prefix, *, probe: bool = False) -> list[EidRecord]:
    """What it answers as an ETR."""
    site.now += 1.0
    request = MapRequest.of(RequestRecord.of(eid), nonce=9, itr_rlocs=[site.peer], probe=probe)
    [reply] = messages(site.hears(encode(request), Endpoint(site.peer, 4342)), MapReply)
    return list(reply.records)


def sibling(site: Site, number: int) -> Prefix:
    """Another host of the site."""
    return Prefix.host((int.from_bytes(site.home.ip, "big") + number).to_bytes(len(site.home.ip), "big"))


def test_an_answer_about_a_host_of_a_prefix_has_all_more_specifics_of_that_prefix(site: Site) -> None:
    site.present()
    assert [each.prefix for each in asked(site, sibling(site, 77))] == [site.home, site.host]
    assert [each.prefix for each in asked(site, site.host)] == [site.host]
    assert [each.prefix for each in asked(site, site.home, probe=True)] == [site.home]


def test_an_answer_about_a_prefix_with_more_hosts_than_fit_is_a_part_without_any(site: Site) -> None:
    site.present()
    for number in range(64, 128):
        site.acknowledges(site.core.announced(sibling(site, number), "lan", MAC, site.now))

    [part] = asked(site, sibling(site, 200))
    assert part.prefix is not None
    assert part.locators
    assert part.prefix.covers(sibling(site, 200))
    assert not any(part.prefix.covers(sibling(site, number)) for number in range(64, 128))
    assert [(each.prefix, each.locators) for each in asked(site, site.home)] == [(site.home, ())]
    assert [each.prefix for each in asked(site, site.home, probe=True)] == [site.home]


def test_the_old_router_registers_the_eid_no_more(site: Site) -> None:
    site.present()
    site.told_that_it_left()
    later = [effect for _, effect in site.until(400.0)]
    registered = {each.prefix for register in messages(later, MapRegister) for each in register.records}
    assert registered == {site.home}


def test_a_map_notify_that_is_not_by_the_map_servers_key_changes_nothing(site: Site) -> None:
    site.present()
    moved = record(site.host, site.other)
    effects = site.hears(sign(MapNotify.of(moved, nonce=5), Key(1, b"guessed")))
    assert (len(effects), refusals(effects)) == (1, ["bad-authentication"])


def test_a_solicitation_names_the_eid_that_moved_as_its_source_and_goes_straight_to_the_peer(site: Site) -> None:
    site.present()
    effects = site.told_that_it_left()
    [send] = [each for each in effects if isinstance(each, Send) and isinstance(each.message, MapRequest)]
    smr = send.message
    assert isinstance(smr, MapRequest)
    assert (send.to, smr.smr, smr.no_reply) == (Endpoint(site.peer, 4342), True, True)
    assert smr.source_eid == address_of(site.host)


def test_a_peer_is_solicited_at_most_every_three_seconds(site: Site) -> None:
    site.present()
    site.told_that_it_left()
    found = []
    for tenth in range(1, 70):
        site.now = tenth / 10
        found += [site.now for _ in messages(site.core.moved_away(site.host, site.peer, site.now), MapRequest)]
    assert found == pytest.approx([3.0, 6.0])


def test_a_solicited_request_goes_through_the_mapping_system_at_most_every_three_seconds(site: Site) -> None:
    [request] = messages(site.core.missed(site.far, site.now), MapRequest)
    site.hears(encode(MapReply.of(record(site.far, site.peer), nonce=request.nonce)))
    solicitation = MapRequest.of(
        RequestRecord.of(site.host),
        nonce=7,
        itr_rlocs=[site.peer],
        source_eid=address_of(site.far),
        smr=True,
        no_reply=True,
    )
    found: list[float] = []
    for tenth in range(40, 100):
        effects = [effect for _, effect in site.until(tenth / 10)]  # one that has to wait goes by the timer
        effects += site.hears(encode(solicitation), Endpoint(site.peer, 4342))
        for asked in messages(effects, MapRequest):
            assert asked.smr_invoked
            assert [each.prefix for each in asked.records] == [site.far]
            site.hears(encode(MapReply.of(record(site.far, site.peer), nonce=asked.nonce)))
            found.append(site.now)
    assert found == pytest.approx([4.0, 7.0])


def test_a_flood_of_solicitations_is_one_event_and_otherwise_counted(site: Site) -> None:
    [request] = messages(site.core.missed(site.far, site.now), MapRequest)
    site.hears(encode(MapReply.of(record(site.far, site.peer), nonce=request.nonce)))
    solicitation = MapRequest.of(
        RequestRecord.of(site.host), nonce=7, itr_rlocs=[site.peer], source_eid=address_of(site.far), smr=True
    )
    site.now = 10.0
    effects = [effect for _ in range(50) for effect in site.hears(encode(solicitation), Endpoint(site.peer, 4342))]

    assert [each.name for each in effects if isinstance(each, Emit)] == ["smr.received"]
    assert refusals(effects) == ["rate-limited"] * 49
    assert len(messages(effects, MapRequest)) == 1


def test_a_solicitation_for_what_is_not_in_use_is_ignored(site: Site) -> None:
    solicitation = MapRequest.of(
        RequestRecord.of(site.host), nonce=7, itr_rlocs=[site.peer], source_eid=address_of(site.far), smr=True
    )
    effects = site.hears(encode(solicitation), Endpoint(site.peer, 4342))
    assert (len(effects), refusals(effects)) == (1, ["smr-for-unused-eid"])
