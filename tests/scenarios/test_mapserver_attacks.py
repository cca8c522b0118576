"""What somebody without a key can do with what he has captured, and how much a question brings to a victim."""

from __future__ import annotations

import itertools

import pytest

from lispfmc.wire import encode
from lispfmc.wire.address import Endpoint, Prefix, ip_of
from lispfmc.wire.auth import sign, tagged
from lispfmc.wire.messages import Action, Ecm, EidRecord, Locator, MapRegister, MapReply, MapRequest, RequestRecord
from lispfmc.wire.records import packed
from mapserver.resolver import ANSWER_BYTES
from tests.scenarios.mapserver_world import ALICE, World, Xtr

ELSEWHERE = Endpoint(ip_of("198.18.9.9"), 4342)


def captured(xtr: Xtr, record: EidRecord, nonce: int, xtr_id: bytes | None = None) -> bytes:
    """A Map-Register as it is on the wire."""
    site_id = bytes(8) if xtr_id else None
    return sign(MapRegister.of(record, nonce=nonce, xtr_id=xtr_id, site_id=site_id, want_notify=True), xtr.key)


def replied(world: World) -> MapReply:
    [send] = world.sent
    assert isinstance(send.message, MapReply)
    return send.message


def test_an_old_register_without_xtr_id_does_not_count_from_another_address() -> None:
    world = World()
    xtr = Xtr(world, "access1")
    before = EidRecord.of(Prefix.parse(ALICE), [Locator.of(ip_of("198.18.0.99"))], ttl_minutes=1440)
    old = captured(xtr, before, 5)
    world.hears_bytes(captured(xtr, xtr.record(ALICE), 6), xtr.endpoint)
    world.forget()

    world.hears_bytes(old, ELSEWHERE)

    [registration] = world.server.registrations_for(Prefix.parse(ALICE))
    assert xtr.rloc in [each.address for each in registration.mapping.locators]
    assert (world.sent, world.rejects) == ([], ["unknown-xtr"])


def test_a_register_without_xtr_id_is_replayed_from_no_number_of_addresses() -> None:
    world = World(limits={"xtrs": 2})
    xtr = Xtr(world, "access1")
    withdrawal = EidRecord.of(Prefix.parse(ALICE), ttl_minutes=0)
    for number in range(1, 9):
        world.hears_bytes(captured(xtr, withdrawal, 5), Endpoint(ip_of(f"198.18.9.{number}"), 4342))

    Xtr(world, "access2").registers(ALICE)

    assert world.mappings() == {ALICE: "access2"}, "the replay state is not used up"


def test_an_xtr_without_xtr_id_registers_withdraws_and_is_protected() -> None:
    world = World()
    xtr = Xtr(world, "access1")
    first = captured(xtr, xtr.record(ALICE), 1)
    world.hears_bytes(first, xtr.endpoint)
    world.hears_bytes(first, xtr.endpoint)
    assert (world.mappings(), world.rejects) == ({ALICE: "access1"}, ["replayed-nonce"])

    world.hears_bytes(captured(xtr, EidRecord.of(Prefix.parse(ALICE), ttl_minutes=0), 2), xtr.endpoint)
    assert world.mappings() == {}


def test_a_replayed_register_leaves_nothing_behind_wherever_it_comes_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mapserver.registrar.REGISTRANTS", 4)
    world = World()
    xtr = Xtr(world, "access1")
    taken = captured(xtr, xtr.record(ALICE), 1, xtr.xtr_id)
    world.hears_bytes(taken, xtr.endpoint)
    [before] = world.server.registrations_for(Prefix.parse(ALICE))
    for port in range(1, 20):
        world.hears_bytes(taken, Endpoint(xtr.rloc, port))
    assert set(world.rejects) == {"replayed-nonce"}

    xtr.nonces = itertools.count(2)
    xtr.says(EidRecord.of(Prefix.parse(ALICE), [Locator.of(xtr.rloc)], ttl_minutes=1440, authoritative=True))

    [after] = world.server.registrations_for(Prefix.parse(ALICE))
    assert after.registrant is before.registrant, "an xTR's registrations go on sharing what is known of it"


@pytest.mark.parametrize("questions", [1, 8])
def test_one_question_however_long_brings_no_more_than_a_packet(questions: int) -> None:
    world = World()
    for number in range(8):
        Xtr(world, "access1").registers(*(f"100.64.2.{number * 16 + host}/32" for host in range(16)), nonce=number + 1)
    asked = [RequestRecord.of(Prefix.parse(f"100.64.2.{number * 16}/28")) for number in range(questions)]
    request = MapRequest.of(*asked, nonce=1, itr_rlocs=[ip_of("198.18.0.12")])
    world.forget()
    world.hears(
        Ecm.of(request, source=ip_of("100.64.2.1"), destination=ip_of("100.64.2.2"), source_port=61000), ELSEWHERE
    )

    records = replied(world).records
    assert records
    assert len(encode(replied(world))) <= 12 + ANSWER_BYTES


def test_an_etr_that_answers_itself_is_not_answered_for_as_a_second_question() -> None:
    world = World()
    xtr = Xtr(world, "access1")
    xtr.registers("100.64.2.1/32")
    xtr.registers("100.64.2.2/32", proxy_reply=False)
    asked = [RequestRecord.of(Prefix.parse(eid)) for eid in ("100.64.2.1/32", "100.64.2.2/32")]
    request = MapRequest.of(*asked, nonce=1, itr_rlocs=[ip_of("198.18.0.12")])
    world.forget()
    world.hears(
        Ecm.of(request, source=ip_of("100.64.2.1"), destination=ip_of("100.64.2.2"), source_port=61000), ELSEWHERE
    )

    assert [str(record.prefix) for record in replied(world).records] == ["100.64.2.1/32"]


def test_a_question_about_a_part_with_too_many_hosts_is_not_answered_with_that_part() -> None:
    world = World()
    xtr = Xtr(world, "access1")
    xtr.registers("100.64.1.0/24")
    xtr.registers(*(f"100.64.1.{host}/32" for host in range(128, 188)))

    [record] = world.ask("100.64.1.128/25").records
    assert (record.locators, record.action, record.ttl_minutes) == ((), Action.SEND_MAP_REQUEST, 1)
    assert world.ask("100.64.1.150/32").records[0].prefix == Prefix.parse("100.64.1.150/32")


def test_a_plain_question_by_ipv4_is_not_answered_where_there_is_no_ipv4() -> None:
    world = World(listen=["2001:2::1"])
    Xtr(world, "access1").registers(ALICE)
    world.forget()
    world.hears(world.request(ALICE), ELSEWHERE)
    assert (world.sent, world.rejects) == ([], ["no-itr-rloc"])


def test_one_address_gets_so_many_answers_whatever_is_asked() -> None:
    world = World(limits={"rloc_rate": 1, "rloc_burst": 3})
    hosts = [f"100.64.1.{number}/32" for number in range(1, 11)]
    Xtr(world, "access1").registers(*hosts)
    world.forget()
    for host in hosts:
        world.hears(world.request(host), ELSEWHERE)
    assert (len(world.sent), world.rejects) == (3, ["rate-limited"] * 7)


def test_records_with_something_behind_them_are_not_taken_undecoded() -> None:
    world = World()
    xtr = Xtr(world, "access1")
    whole = captured(xtr, xtr.record(ALICE), 1)
    world.hears_bytes(whole, xtr.endpoint)
    changed = EidRecord.of(Prefix.parse(ALICE), xtr.record(ALICE).locators, ttl_minutes=7)
    word = int.from_bytes(whole[:4], "big")
    for behind, number in ((b"", 2), (bytes(12), 3)):
        said = tagged(word, number.to_bytes(8, "big"), packed(changed) + behind, xtr.key)
        taken = world.server.at_once(said, xtr.endpoint, world.now)
        assert (taken is None) == bool(behind)


def test_an_xtr_that_is_known_registers_no_foreign_host_by_the_short_way() -> None:
    world = World()
    xtr = Xtr(world, "access1")
    xtr.registers(ALICE)
    xtr.registers(ALICE, "100.64.7.1/32")
    xtr.registers("100.64.7.1/32")
    assert (world.mappings(), world.rejects) == ({ALICE: "access1"}, ["foreign-prefix"] * 2)
