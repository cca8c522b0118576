"""Registration on virtual time: at once, again until acknowledged, then now and then."""

from __future__ import annotations

from itertools import count, pairwise

from lispfmc.core.effects import Emit, Send
from lispfmc.wire import encode
from lispfmc.wire.address import Ip, Prefix, ip_of
from lispfmc.wire.messages import EidRecord, Locator, MapNotify, MapRegister
from xtr.effects import XtrEffect
from xtr.registrar import Registrar
from xtr.settings import XtrSettings

SERVER, OTHER = ip_of("198.18.0.1"), ip_of("198.18.0.3")
ALICE, BOB = Prefix.parse("100.64.1.10/32"), Prefix.parse("100.64.2.10/32")
FIXED = Prefix.parse("100.64.1.0/24")


def registrar(*servers: str) -> Registrar:
    settings = XtrSettings.model_validate(
        {
            "name": "access1",
            "site_id": 7,
            "rlocs": ["2001:2::11", "198.18.0.11"],
            "prefixes": ["100.64.1.0/24"],
            "map_servers": [{"address": server, "key_id": 1, "secret": "k"} for server in servers or ("198.18.0.1",)],
        }
    )
    return Registrar(settings, count(1))


def registers(effects: list[XtrEffect], to: Ip = SERVER) -> list[MapRegister]:
    sends = [effect for effect in effects if isinstance(effect, Send) and effect.to.ip == to]
    return [send.message for send in sends if isinstance(send.message, MapRegister)]


def eids(message: MapRegister) -> list[Prefix | None]:
    return [record.prefix for record in message.records]


def acknowledge(core: Registrar, message: MapRegister, now: float, server: Ip = SERVER) -> list[XtrEffect]:
    answer = core.acknowledged(MapNotify.of(*message.records, nonce=message.nonce), server, now)
    assert answer is not None
    return answer[0]


def run(core: Registrar, until: float) -> list[tuple[float, MapRegister]]:
    """What goes out up to `until` while nobody answers."""
    sent: list[tuple[float, MapRegister]] = []
    while (at := core.next_deadline()) is not None and at <= until:
        sent += [(at, message) for message in registers(core.expired(at))]
    return sent


def test_a_registration_says_all_that_a_map_server_needs() -> None:
    core = registrar()
    (send,) = core.add(ALICE, 3, 0.0)
    assert isinstance(send, Send)
    assert send.key is not None
    (message,) = registers([send])
    (record,) = message.records
    assert message.proxy_reply
    assert message.want_notify
    assert not message.merge
    assert message.xtr_id is not None
    assert message.site_id == (7).to_bytes(8, "big")
    assert (record.map_version, record.authoritative) == (3, True)
    # RFC 9301 §5.4: sorted, IPv4 before IPv6
    assert [(locator.address, locator.priority) for locator in record.locators] == [
        (ip_of("198.18.0.11"), 1),
        (ip_of("2001:2::11"), 2),
    ]


def test_without_an_answer_it_goes_again_after_1_s_doubling_to_60_s_each_time_with_a_greater_nonce() -> None:
    core = registrar()
    first = registers(core.add(ALICE, 0, 0.0))
    again = run(core, 250.0)
    assert [at for at, _ in again] == [1.0, 3.0, 7.0, 15.0, 31.0, 63.0, 123.0, 183.0, 243.0]
    nonces = [message.nonce for message in first] + [message.nonce for _, message in again]
    assert nonces == sorted(set(nonces))


def test_acknowledged_registrations_are_refreshed_every_20_s_at_first_and_every_60_s_later() -> None:
    core = registrar()
    now = 0.0
    sent = [(now, message) for message in registers(core.start([FIXED], now))]
    for _ in range(20):
        acknowledge(core, sent[-1][1], sent[-1][0] + 0.01)
        now = core.next_deadline() or 0.0
        sent += [(now, message) for message in registers(core.expired(now))]
    gaps = [round(after - before, 3) for (before, _), (after, _) in pairwise(sent)]
    assert gaps == [20.0] * 15 + [60.0] * 5


def test_only_the_first_acknowledgement_is_an_event() -> None:
    core = registrar()
    (message,) = registers(core.add(ALICE, 0, 0.0))
    (event,) = acknowledge(core, message, 0.25)
    assert isinstance(event, Emit)
    assert event.fields["took_ms"] == 250.0
    (refresh,) = registers(core.expired(60.0))
    assert acknowledge(core, refresh, 60.1) == []
    assert acknowledge(core, refresh, 60.2) == []  # a copy


def test_an_answer_to_what_was_never_sent_is_none_of_its_business() -> None:
    core = registrar()
    core.add(ALICE, 0, 0.0)
    assert core.acknowledged(MapNotify.of(nonce=99), SERVER, 0.1) is None
    assert core.acknowledged(MapNotify.of(nonce=1), OTHER, 0.1) is None


def test_a_refused_eid_goes_again_and_the_accepted_ones_do_not() -> None:
    core = registrar()
    core.add(ALICE, 0, 0.0)
    core.add(BOB, 0, 0.0)
    (message,) = registers(core.expired(1.0))
    assert set(eids(message)) == {ALICE, BOB}
    accepted = [record for record in message.records if record.prefix == ALICE]
    core.acknowledged(MapNotify.of(*accepted, nonce=message.nonce), SERVER, 1.1)
    (again,) = registers(core.expired(3.0))
    assert eids(again) == [BOB]


def test_an_answer_that_names_another_owner_is_handed_on() -> None:
    core = registrar()
    (message,) = registers(core.add(ALICE, 0, 0.0))
    elsewhere = EidRecord.of(ALICE, [Locator.of(ip_of("198.18.0.12"))], ttl_minutes=1440)
    answer = core.acknowledged(MapNotify.of(elsewhere, nonce=message.nonce), SERVER, 0.1)
    assert answer == ([], [elsewhere])


def test_what_left_is_in_no_later_message_and_a_late_acknowledgement_does_not_bring_it_back() -> None:
    core = registrar()
    (both,) = registers(core.start([FIXED], 0.0))
    (alice,) = registers(core.add(ALICE, 0, 0.0))
    core.drop(ALICE)
    assert core.version(ALICE) is None
    assert acknowledge(core, alice, 0.5) == []
    acknowledge(core, both, 0.5)
    later = [eids(message) for _, message in run(core, 400.0)]
    assert len(later) > 5
    assert all(each == [FIXED] for each in later)


def test_a_new_version_is_registered_at_once_and_old_answers_do_not_count_for_it() -> None:
    core = registrar()
    (old,) = registers(core.add(ALICE, 1, 0.0))
    (new,) = registers(core.add(ALICE, 2, 0.2))
    assert acknowledge(core, old, 0.3) == []
    assert core.next_deadline() == 1.2
    assert acknowledge(core, new, 0.4) != []


def test_each_map_server_is_told_and_answers_for_itself() -> None:
    core = registrar("198.18.0.1", "198.18.0.3")
    effects = core.add(ALICE, 0, 0.0)
    (one,), (other,) = registers(effects, SERVER), registers(effects, OTHER)
    assert one.nonce != other.nonce
    acknowledge(core, one, 0.1)
    later = core.expired(1.0)
    assert registers(later, SERVER) == []
    assert [eids(message) for message in registers(later, OTHER)] == [[ALICE]]


def test_many_eids_go_in_messages_that_fit_a_packet_and_refreshes_travel_together() -> None:
    core = registrar()
    hosts = [Prefix.host(ip_of(f"100.64.1.{number}")) for number in range(1, 101)]
    hosts += [Prefix.host(ip_of(f"fd00::{number}")) for number in range(1, 21)]
    for number, eid in enumerate(hosts):
        (message,) = registers(core.add(eid, 0, number * 0.01))
        acknowledge(core, message, number * 0.01)
    messages = registers(core.expired(core.next_deadline() or 0.0))
    assert sorted(eid for message in messages for eid in eids(message) if eid) == sorted(hosts)
    assert max(len(encode(message)) for message in messages) + 16 <= 576 - 28  # and the authentication data
    assert len(messages) < 20
