"""Whom we answer for when a host looks for a MAC address, on virtual time."""

from __future__ import annotations

from itertools import count

from lispfmc.core.effects import Send
from lispfmc.wire.address import Endpoint, Prefix, ip_of
from lispfmc.wire.messages import Ecm, EidRecord, Locator, MapReply, MapRequest
from xtr.effects import ProbeHost, StandIn, TakeOver, XtrEffect
from xtr.router import Router
from xtr.settings import XtrSettings

ALICE, MAC = ip_of("100.64.1.10"), bytes.fromhex("020000000110")
NEIGHBOUR, OTHER_MAC = Prefix.parse("100.64.1.20/32"), bytes.fromhex("020000000120")
GATEWAY, PRINTER = Prefix.parse("100.64.1.1/32"), Prefix.parse("10.0.0.9/32")
SERVICE = Prefix.parse("100.64.101.10/32")


def router(**site: object) -> Router:
    settings = XtrSettings.model_validate(
        {
            "name": "access1",
            "rlocs": ["198.18.0.11"],
            "prefixes": ["100.64.1.0/24"],
            "map_servers": [{"address": "198.18.0.1", "key_id": 1, "secret": "k"}],
            "dynamic": [{"prefix": "100.64.0.0/19", "mobility": "presence"}],
            "dataplane": {"eid_ranges": ["100.64.0.0/10"]},
            "timers": {"rloc_probe_s": 0},
            "site": {"interfaces": ["lan", "lan2"]} | site,
        }
    )
    return Router(settings, count(1), count(1000), lambda _: [])


def sought(core: Router, eid: Prefix, now: float = 0.0, interface: str = "lan") -> list[XtrEffect]:
    return core.sought(eid, interface, ALICE, MAC, now)


def test_an_eid_that_cannot_be_here_is_answered_at_once() -> None:
    assert sought(router(), SERVICE) == [StandIn(SERVICE, "lan", ALICE, MAC)]


def test_what_is_no_eid_is_the_links_own_business() -> None:
    assert sought(router(), PRINTER) == []


def test_a_gateway_is_answered_at_once_when_it_is_configured() -> None:
    assert sought(router(gateways=["100.64.1.1"]), GATEWAY) == [StandIn(GATEWAY, "lan", ALICE, MAC)]
    assert sought(router(gateways=["100.64.1.1"], proxy=False), GATEWAY) == [StandIn(GATEWAY, "lan", ALICE, MAC)]


def test_an_eid_that_may_be_here_answers_for_itself_or_we_do_after_a_moment() -> None:
    core = router()
    assert sought(core, GATEWAY) == [ProbeHost(GATEWAY)]
    assert core.next_deadline() == 0.15
    assert core.expired(0.15) == [StandIn(GATEWAY, "lan", ALICE, MAC)]
    assert sought(core, NEIGHBOUR, 1.0) == [ProbeHost(NEIGHBOUR)]
    core.announced(NEIGHBOUR, "lan", OTHER_MAC, 1.01)
    assert not [effect for effect in core.expired(1.15) if isinstance(effect, StandIn)]


def test_a_host_behind_the_same_interface_answers_for_itself_and_one_behind_another_does_not() -> None:
    core = router()
    core.announced(NEIGHBOUR, "lan", OTHER_MAC, 0.0)
    assert sought(core, NEIGHBOUR, 1.0) == []
    assert sought(core, NEIGHBOUR, 1.0, "lan2") == [StandIn(NEIGHBOUR, "lan2", ALICE, MAC)]


def test_an_eid_that_is_known_to_be_elsewhere_is_answered_at_once() -> None:
    core = router()
    sends = [effect for effect in core.missed(NEIGHBOUR, 0.0) if isinstance(effect, Send)]
    assert isinstance(sends[0].message, Ecm)
    assert isinstance(sends[0].message.message, MapRequest)
    nonce = sends[0].message.message.nonce
    record = EidRecord.of(NEIGHBOUR, [Locator.of(ip_of("198.18.0.12"))], ttl_minutes=60)
    core.received(MapReply.of(record, nonce=nonce), b"", Endpoint(ip_of("198.18.0.1"), 4342), 0.1)
    assert sought(core, NEIGHBOUR, 1.0) == [StandIn(NEIGHBOUR, "lan", ALICE, MAC)]


def test_when_a_host_has_left_its_neighbours_are_told() -> None:
    core = router()
    core.announced(NEIGHBOUR, "lan", OTHER_MAC, 0.0)
    effects: list[XtrEffect] = []
    while (at := core.next_deadline()) is not None and at < 70.0:
        effects += core.expired(at)
    assert TakeOver(NEIGHBOUR) in effects


def test_a_flood_of_questions_is_bounded() -> None:
    core = router()
    for number in range(5000):
        core.sought(Prefix.host(bytes([100, 64, number >> 8 & 31, number & 255])), "lan", ALICE, MAC, 0.0)
    late = [effect for effect in core.expired(0.15) if isinstance(effect, StandIn)]
    assert len(late) == 1024


def test_without_proxying_only_gateways_are_answered() -> None:
    assert sought(router(proxy=False), SERVICE) == []
