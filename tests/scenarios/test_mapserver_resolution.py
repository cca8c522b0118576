"""Map-Requests as RFC 9301 §5.5 and §8 have them: the match, its more-specifics, holes, and what is not answered."""

from __future__ import annotations

import pytest

from lispfmc.wire.address import Endpoint, Prefix, ip_of
from lispfmc.wire.messages import Action, Ecm, EidRecord, Locator, MapRegister, MapReply, MapRequest, RequestRecord
from tests.scenarios.mapserver_world import ALICE, World, Xtr


def eids(reply: MapReply) -> list[str]:
    return [str(record.prefix) for record in reply.records]


def home_and_roamer() -> tuple[World, Xtr, Xtr]:
    """access1's prefix is registered, and Alice roams to access2."""
    world = World()
    home, away = Xtr(world, "access1"), Xtr(world, "access2")
    home.registers(home.home, home.home6)
    away.registers(ALICE)
    return world, home, away


def test_a_host_is_answered_by_its_longest_match() -> None:
    world, _, away = home_and_roamer()
    reply = world.ask(ALICE)
    assert reply.nonce == 77
    assert eids(reply) == [ALICE]
    assert reply.records[0].locators[0].address == away.rloc


def test_a_match_comes_with_all_its_more_specifics_and_one_ttl() -> None:
    world, home, away = home_and_roamer()
    away.says(away.record("100.64.1.20/32", ttl_minutes=5))
    reply = world.ask("100.64.1.9/32")
    assert eids(reply) == [home.home, ALICE, "100.64.1.20/32"]
    assert {record.ttl_minutes for record in reply.records} == {5}


def test_too_many_more_specifics_are_answered_by_the_part_of_the_match_that_has_none() -> None:
    world, home, away = home_and_roamer()
    away.registers(*(f"100.64.1.{host}/32" for host in range(128, 160)))
    reply = world.ask("100.64.1.70/32")
    assert eids(reply) == ["100.64.1.64/26"]
    assert reply.records[0].locators[0].address == home.rloc
    assert eids(world.ask("100.64.1.140/32")) == ["100.64.1.140/32"]


def test_a_proxy_reply_is_not_authoritative_and_no_locator_is_local() -> None:
    world, _, _ = home_and_roamer()
    [record] = world.ask(ALICE).records
    assert not record.authoritative
    assert not any(locator.local for locator in record.locators)
    assert all(locator.reachable for locator in record.locators)


def test_locators_are_told_in_order_whatever_the_order_of_registration() -> None:
    world = World()
    xtr = Xtr(world, "access1")
    shuffled = [Locator.of(xtr.rloc6), Locator.of(ip_of("198.18.0.99")), Locator.of(xtr.rloc)]
    xtr.says(EidRecord.of(Prefix.parse(ALICE), shuffled, ttl_minutes=1440))
    [record] = world.ask(ALICE).records
    assert [each.address for each in record.locators] == [xtr.rloc, ip_of("198.18.0.99"), xtr.rloc6]


@pytest.mark.parametrize(
    ("eid", "hole", "minutes"),
    [
        ("100.64.1.10/32", "100.64.1.0/24", 1),  # configured, nobody there
        ("100.64.2.130/32", "100.64.2.128/25", 1),  # beside the host that is registered inside it
        ("fd00:0:0:1::10/128", "fd00:0:0:1::/64", 1),
        ("100.64.3.1/32", "100.64.3.0/24", 15),  # nobody's: up to the edge of what is configured
        ("100.64.100.1/32", "100.64.100.0/24", 15),  # ... even where nothing is registered yet
        ("10.1.2.3/32", "0.0.0.0/2", 15),
        ("[9]10.1.2.3/32", "[9]0.0.0.0/0", 15),
    ],
)
def test_an_eid_that_nobody_registered_gets_the_hole_around_it(eid: str, hole: str, minutes: int) -> None:
    world = World()
    Xtr(world, "access2").registers("100.64.2.10/32")
    [record] = world.ask(eid).records
    assert str(record.prefix) == hole
    assert (record.ttl_minutes, record.action, record.locators) == (minutes, Action.NATIVELY_FORWARD, ())


def test_a_question_about_a_range_without_a_match_gets_what_is_registered_inside() -> None:
    world, home, _ = home_and_roamer()
    assert eids(world.ask("100.64.0.0/10")) == [home.home, ALICE]


def test_the_reply_goes_to_the_first_itr_rloc_of_a_family_that_we_have() -> None:
    world = World(listen=["2001:2::1"])
    world.ask(ALICE, "198.18.0.12", "198.18.0.12", "2001:2::12")
    assert world.sent[0].to == Endpoint(ip_of("2001:2::12"), 61000)


def test_an_ipv6_eid_is_resolved_over_ipv4_and_the_reverse() -> None:
    world, home, _ = home_and_roamer()
    assert eids(world.ask("fd00:0:0:1::5/128", "198.18.0.12")) == [home.home6]
    assert ALICE in eids(world.ask(ALICE, "2001:2::12"))


def test_without_the_proxy_bit_the_request_goes_on_to_the_etr() -> None:
    world = World()
    xtr = Xtr(world, "access1")
    xtr.registers(xtr.home, proxy_reply=False)
    world.forget()
    request = world.request(ALICE)
    world.hears(request, Endpoint(ip_of("198.18.0.12"), 4342))
    [send] = world.sent
    assert isinstance(send.message, Ecm)
    assert send.message.message == request.message
    assert send.to == xtr.endpoint


def ecm(request: MapRequest, *, port: int = 61000) -> Ecm:
    return Ecm.of(request, source=ip_of("100.64.2.1"), destination=ip_of("100.64.1.10"), source_port=port)


QUESTION = RequestRecord.of(Prefix.parse(ALICE))
ITR = [ip_of("198.18.0.12")]


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (MapRequest.of(QUESTION, nonce=1, itr_rlocs=ITR, probe=True), "probe"),
        (ecm(MapRequest.of(QUESTION, nonce=1, itr_rlocs=ITR, probe=True)), "probe"),
        (MapRequest.of(QUESTION, nonce=1, itr_rlocs=ITR, smr=True), "unexpected-message"),
        (MapRequest.of(QUESTION, nonce=1, itr_rlocs=ITR), "unencapsulated-request"),
        (ecm(MapRequest.of(QUESTION, nonce=1, itr_rlocs=[None])), "no-itr-rloc"),
        (ecm(MapRequest.of(QUESTION, nonce=1, itr_rlocs=ITR), port=0), "bad-port"),
        (ecm(MapRequest.of(*[QUESTION] * 9, nonce=1, itr_rlocs=ITR)), "record-count"),
        (MapReply.of(nonce=1), "unexpected-message"),
        (ecm(MapRequest.of(RequestRecord(0, 0, None), nonce=1, itr_rlocs=ITR)), "unsupported-eid"),
    ],
)
def test_what_a_map_resolver_does_not_answer_is_counted(message: MapRequest | MapReply | Ecm, reason: str) -> None:
    world, _, _ = home_and_roamer()
    before = world.server.counts()
    world.forget()
    world.hears(message, Endpoint(ip_of("198.18.0.12"), 4342))
    assert (world.rejects, world.sent, world.events) == ([reason], [], [])
    assert world.server.counts() == before


def test_a_registration_inside_an_ecm_is_no_registration() -> None:
    world = World()
    xtr = Xtr(world, "access1")
    register = MapRegister.of(xtr.record(xtr.home), nonce=1)
    inside = Ecm.of(register, source=xtr.rloc, destination=ip_of("198.18.0.1"), source_port=4342)
    world.hears(inside, xtr.endpoint)
    assert (world.rejects, world.mappings()) == (["unexpected-message"], {})
