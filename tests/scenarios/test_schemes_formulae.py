"""Every scheme's messages on the wire are those of its source, and its redirection takes what its formula says.

The formulae are those of docs/schemes.md. `lossless` and `bicast` add nothing: `test_led_moves.py` and the tests of the
roles show that.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from lispfmc.core.plans import TTL_MINUTES
from lispfmc.lab.schemes import mobility_of
from lispfmc.wire.address import Endpoint, Prefix
from lispfmc.wire.auth import Key, sign
from lispfmc.wire.messages import EidRecord, Locator, MapNotify
from lispfmc.wire.moves import MoveMessage, MovePhase, Verdict
from tests.scenarios.schemes_world import (
    AGENT,
    ANSWERS_S,
    BLACKOUT_S,
    CLIENT,
    FMCC,
    MS,
    NEW,
    OLD,
    PROBE_S,
    SILENT_S,
    SchemeWorld,
    d,
)
from tests.scenarios.sites import ALICE_APP, BOB, pair_secret, rloc

APP6 = Prefix.parse("fd00:0:0:101::10/128")
REGISTERED = ("dc2 register mapserver", "mapserver notify dc1", "mapserver notify dc2", "dc1 ack mapserver")
"""RFC 9301 §8.2: the new router registers, the Map-Server acknowledges that and tells the old one."""
ASKED = ("dc2 request mapserver", "mapserver reply dc2")
"""The machine's own first packet finds no mapping for the client."""
INFORMED = ("dc1 notify access2", "access2 ack dc1")
SOLICITED = ("dc1 smr access2", "access2 request mapserver", "mapserver reply access2")
WIRE: dict[str, tuple[tuple[str, ...], ...]] = {
    "fig9": (
        REGISTERED,
        ASKED,
        INFORMED,
        ("dc1 notify access2", "dc1 ack fmcc"),
        ("dc2 register mapserver", "dc2 ack fmcc"),
    ),
    "cp": (
        REGISTERED,
        ASKED,
        INFORMED,
        ("dc2 register mapserver", "dc2 notify dc1", "dc1 notify access2", "dc1 ack dc2"),
    ),
    "dataplane": (REGISTERED, ASKED, SOLICITED, (REGISTERED[-1], SOLICITED[0])),
    "pubsub": (
        REGISTERED,
        ("dc2 request mapserver", "dc2 ack mapserver"),  # a subscription, too: answered by a Map-Notify
        ("dc2 register mapserver", "mapserver notify access2", "access2 ack mapserver"),
    ),
    "garp": (REGISTERED, ASKED, INFORMED, ("mapserver notify dc1", INFORMED[0])),
    "smr": (REGISTERED, ASKED, SOLICITED, ("mapserver notify dc1", SOLICITED[0])),
}
"""What goes over the wire: chains, each in this order, and nothing else. What nothing orders may come either way."""


def fig9() -> float:
    return d(NEW, FMCC) + max(d(FMCC, OLD) + d(OLD, CLIENT) + d(CLIENT, NEW), d(FMCC, NEW))


def cp() -> float:
    return d(NEW, OLD) + d(OLD, CLIENT) + d(CLIENT, NEW)


def dataplane() -> float:
    told = SILENT_S + ANSWERS_S + d(NEW, MS) + d(MS, OLD)
    return told + d(OLD, CLIENT) + 2 * d(CLIENT, MS) + d(CLIENT, NEW)


def pubsub() -> float:
    return d(NEW, MS) + d(MS, CLIENT) + d(CLIENT, NEW)


def garp() -> float:
    return d(NEW, MS) + d(MS, OLD) + d(OLD, NEW)


def smr() -> float:
    return d(NEW, MS) + d(MS, OLD) + d(OLD, CLIENT) + 2 * d(CLIENT, MS) + d(CLIENT, NEW)


FORMULAE: dict[str, Callable[[], float]] = {
    "fig9": fig9,
    "cp": cp,
    "dataplane": dataplane,
    "pubsub": pubsub,
    "garp": garp,
    "smr": smr,
}


def moved(scheme: str) -> SchemeWorld:
    world = SchemeWorld(scheme, mobility_of(scheme))
    world.move()
    return world


@pytest.mark.parametrize("scheme", FORMULAE)
def test_the_network_adds_what_the_formula_says(scheme: str) -> None:
    world = moved(scheme)
    added = world.gap_end() - world.began
    assert 0 <= added - FORMULAE[scheme]() + 1e-9 <= 2 * PROBE_S


@pytest.mark.parametrize("scheme", FORMULAE)
def test_what_the_client_sends_is_lost_from_before_the_stop_until_it_takes_the_new_way(scheme: str) -> None:
    world = moved(scheme)
    if scheme == "garp":  # what reaches the old router is sent on from when it is told
        expected = BLACKOUT_S + d(NEW, MS) + d(MS, OLD)
    else:
        expected = BLACKOUT_S + FORMULAE[scheme]() - d(CLIENT, NEW) + d(CLIENT, OLD)
    assert world.lost_s() == pytest.approx(expected, abs=2 * PROBE_S)


@pytest.mark.parametrize("scheme", FORMULAE)
def test_the_messages_are_those_of_the_source_and_no_others(scheme: str) -> None:
    world = moved(scheme)
    said = world.wire()
    for chain in WIRE[scheme]:
        at = [said.index(each) for each in chain]
        assert at == sorted(at), chain
    assert set(said) == {each for chain in WIRE[scheme] for each in chain}
    assert {node.name: dict(node.rejects) for node in (*world.xtrs.values(), world.mapserver) if node.rejects} == {}


@pytest.mark.parametrize("scheme", FORMULAE)
def test_afterwards_the_service_is_at_one_place_for_everybody(scheme: str) -> None:
    world = moved(scheme)
    assert world.deliverers(ALICE_APP) == [NEW]
    assert world.registered_at(ALICE_APP) == rloc(NEW)
    assert world.next_hops(CLIENT, ALICE_APP) == (rloc(NEW),)
    before = len(world.client.got), len(world.app.got)
    world.send(ALICE_APP, BOB)
    world.send(BOB, ALICE_APP)
    world.run(1)
    assert (len(world.client.got), len(world.app.got)) == (before[0] + 1, before[1] + 1)
    assert world.app.got[-1].hops == (CLIENT, NEW)


@pytest.mark.parametrize("scheme", sorted(set(FORMULAE) - {"fig9"}))  # the way back of fig9: test_service_moves.py
def test_the_way_back_is_a_move_like_any_other(scheme: str) -> None:
    world = moved(scheme)
    world.move(back=True)
    assert world.deliverers(ALICE_APP) == [OLD]
    assert world.registered_at(ALICE_APP) == rloc(OLD)
    assert world.next_hops(CLIENT, ALICE_APP) == (rloc(OLD),)


def test_a_machine_that_sends_nothing_is_never_found_by_its_packets() -> None:
    world = SchemeWorld("dataplane", mobility_of("dataplane"))
    world.silent = True
    world.move()
    assert world.deliverers(ALICE_APP) == [OLD]
    assert world.registered_at(ALICE_APP) == rloc(OLD)


def test_a_machine_that_asks_for_a_mac_address_is_found_by_that() -> None:
    world = SchemeWorld("dataplane", mobility_of("dataplane"))
    world.silent = True
    world.move()
    router = world.xtrs[NEW]
    router.apply(router.core.sought(BOB, "lan", ALICE_APP.ip, world.app.mac, world.network.now))
    world.run(1)
    assert world.registered_at(ALICE_APP) == rloc(NEW)


def test_what_a_hypervisor_sends_for_a_machine_neither_finds_it_nor_delays_its_being_found() -> None:
    world = SchemeWorld("dataplane", mobility_of("dataplane"))
    router = world.xtrs[NEW]
    world.attach(world.app, NEW)
    router.apply(router.core.mac_announced(world.app.mac, "lan", 0, world.network.now))
    world.run(0.1)
    assert world.deliverers(ALICE_APP) == [OLD]
    router.apply(router.core.unknown_source(ALICE_APP, world.network.now))
    world.run(0.01)
    assert NEW in world.deliverers(ALICE_APP)


@pytest.mark.parametrize("announced_late", [False, True])
def test_a_machine_that_has_sent_something_is_there_with_its_other_addresses_too(announced_late: bool) -> None:
    world = SchemeWorld("dataplane", mobility_of("dataplane"))
    both = world.app.eids = (ALICE_APP, APP6)
    world.hosts[APP6] = world.app
    world.attach(world.app, OLD)
    if announced_late:
        world.app.eids = (ALICE_APP,)
    world.move()
    if announced_late:
        world.xtrs[NEW].hears(world.app, APP6)
        world.run(1)
    assert [world.registered_at(eid) for eid in both] == [rloc(NEW), rloc(NEW)]


# --- who may change priorities ----------------------------------------------------------------------------------------


def test_only_a_data_centres_router_is_believed_that_a_service_has_come_to_it() -> None:
    world = SchemeWorld("cp", "cp")
    record = EidRecord.of(ALICE_APP, [Locator.of(rloc("access1"))], ttl_minutes=TTL_MINUTES)
    claim = MapNotify.of(record, nonce=1 << 62)
    world.xtrs[OLD].datagram(sign(claim, Key(2, pair_secret(OLD, "access1").encode())), world.endpoint("access1"))
    assert world.xtrs[OLD].rejects == {"local-eid": 1}
    assert world.deliverers(ALICE_APP) == [OLD]


@pytest.mark.parametrize("scheme", ["garp", "fig9"])
def test_where_services_do_not_move_by_priorities_no_router_is_believed_that(scheme: str) -> None:
    world = SchemeWorld(scheme, mobility_of(scheme))
    record = EidRecord.of(ALICE_APP, [Locator.of(rloc(NEW))], ttl_minutes=TTL_MINUTES)
    claim = MapNotify.of(record, nonce=1 << 62)
    world.xtrs[OLD].datagram(sign(claim, Key(2, pair_secret(OLD, NEW).encode())), world.endpoint(NEW))
    assert world.xtrs[OLD].rejects == {"local-eid": 1}


@pytest.mark.parametrize(("scheme", "eid"), [("garp", ALICE_APP), ("cp", BOB)])
def test_a_hypervisors_word_counts_for_services_that_move_by_priorities_alone(scheme: str, eid: Prefix) -> None:
    world = SchemeWorld(scheme, mobility_of(scheme))
    router = world.xtrs[NEW]
    before = router.names()
    record = EidRecord.of(eid, ttl_minutes=TTL_MINUTES)
    word = MoveMessage.of(MovePhase.ACTIVATE, record, nonce=1, move=7, epoch=0)
    router.datagram(sign(word, AGENT), Endpoint(rloc(NEW), 9350))
    assert router.rejects == {"unusable-move": 1}
    assert router.names() == before


def test_a_hypervisors_word_that_is_repeated_changes_nothing() -> None:
    world = moved("cp")
    router = world.xtrs[NEW]
    before, sent = router.names(), len(world.network.sent)
    record = EidRecord.of(ALICE_APP, ttl_minutes=TTL_MINUTES)
    word = MoveMessage.of(MovePhase.ACTIVATE, record, nonce=1 << 62, move=7, epoch=0)
    router.datagram(sign(word, AGENT), Endpoint(rloc(NEW), 9350))
    assert router.names() == before
    (answer,) = world.network.sent[sent:]
    assert isinstance(answer.message, MoveMessage)
    assert answer.message.verdict == Verdict.ACTIVE
