"""Which hosts are here, on virtual time."""

from __future__ import annotations

from collections.abc import Callable

from lispfmc.core.effects import Emit, Reject
from lispfmc.wire.address import Prefix
from xtr.effects import Deliver, ProbeHost, Undeliver
from xtr.presence import Activation, Presence
from xtr.settings import XtrSettings

HOME, GUEST, STRANGER = (Prefix.parse(text) for text in ("100.64.1.10/32", "100.64.2.10/32", "192.0.2.1/32"))
SERVICE, PRINTER = Prefix.parse("100.64.101.10/32"), Prefix.parse("10.9.0.5/32")
MAC, OTHER_MAC = b"\x02\0\0\0\0\x01", b"\x02\0\0\0\0\x02"


def presence(hosts: int = 100, heard: Callable[[Prefix], float | None] = lambda _: None) -> Presence:
    return Presence(
        XtrSettings.model_validate(
            {
                "name": "access1",
                "rlocs": ["198.18.0.11"],
                "prefixes": ["100.64.1.0/24", "10.9.0.0/24"],
                "map_servers": [{"address": "198.18.0.1", "key_id": 1, "secret": "k"}],
                "dynamic": [
                    {"prefix": "100.64.1.0/24", "mobility": "presence"},
                    {"prefix": "100.64.2.0/24", "mobility": "presence"},
                    {"prefix": "100.64.101.0/24", "mobility": "fig9"},
                ],
                "limits": {"hosts": hosts},
            }
        ),
        heard,
    )


def test_a_host_that_shows_itself_is_delivered_once() -> None:
    core = presence()
    arrived = core.seen(HOME, "lan", MAC, 0.0)
    assert arrived[0] == Deliver(HOME, "lan", MAC)
    assert isinstance(arrived[1], Emit)
    assert arrived[1].name == "host.arrived"
    assert core.seen(HOME, "lan", MAC, 5.0) == []


def test_a_host_with_a_new_mac_or_interface_is_delivered_there_and_has_not_arrived_again() -> None:
    core = presence()
    core.seen(HOME, "lan", MAC, 0.0)
    assert core.seen(HOME, "lan", OTHER_MAC, 1.0) == [Deliver(HOME, "lan", OTHER_MAC)]
    assert core.seen(HOME, "lan2", OTHER_MAC, 1.0) == [Deliver(HOME, "lan2", OTHER_MAC)]


def test_what_an_appearance_means_follows_from_the_most_specific_range() -> None:
    core = presence()
    means = {eid: core.activation(eid) for eid in (HOME, GUEST, SERVICE, PRINTER, STRANGER)}
    assert means == {
        HOME: Activation.PRESENCE,
        GUEST: Activation.PRESENCE,
        SERVICE: Activation.CONTROLLER,
        PRINTER: Activation.LOCAL,
        STRANGER: Activation.FOREIGN,
    }
    assert core.at_home(HOME)
    assert not core.at_home(GUEST)


def test_a_host_that_belongs_elsewhere_is_refused() -> None:
    core = presence()
    for effects in (core.seen(STRANGER, "lan", MAC, 0.0), core.probe(STRANGER, 0.0)):
        (refusal,) = effects
        assert isinstance(refusal, Reject)
        assert refusal.reason == "foreign-host"
    assert STRANGER not in core


def test_a_first_packet_leads_to_one_question_a_second() -> None:
    core = presence()
    assert core.probe(GUEST, 0.0) == [ProbeHost(GUEST)]
    assert core.probe(GUEST, 0.9) == []
    assert core.probe(HOME, 0.9) == [ProbeHost(HOME)]
    assert core.probe(GUEST, 1.0) == [ProbeHost(GUEST)]


def test_a_host_that_left_is_delivered_no_more() -> None:
    core = presence()
    core.seen(GUEST, "lan", MAC, 0.0)
    lost = core.lost(GUEST, "test", 2.0)
    assert lost[0] == Undeliver(GUEST)
    assert GUEST not in core
    assert core.lost(GUEST, "test", 3.0) == []


def test_made_up_hosts_do_not_fill_the_memory() -> None:
    core = presence(hosts=3)
    for number in range(10):
        effects = core.seen(Prefix.parse(f"100.64.2.{number}/32"), "lan", MAC, 0.0)
    assert len(list(core)) == 3
    (refusal,) = effects
    assert isinstance(refusal, Reject)
    assert refusal.reason == "too-many-hosts"


def test_a_silent_host_is_asked_three_times_before_it_is_given_up() -> None:
    core = presence()
    core.seen(HOME, "lan", MAC, 0.0)
    assert core.next_deadline() == 60.0
    for at in (60.0, 61.0, 62.0):
        assert core.expired(at) == ([ProbeHost(HOME)], [])
    assert core.expired(63.0) == ([], [HOME])
    assert HOME in core, "what it means to be given up is the owner's to decide"


def test_an_answer_ends_the_questions() -> None:
    core = presence()
    core.seen(HOME, "lan", MAC, 0.0)
    core.expired(60.0)
    assert core.seen(HOME, "lan", MAC, 60.5) == []
    assert core.next_deadline() == 120.5


def test_a_host_whose_packets_pass_is_not_asked() -> None:
    last = {HOME: 0.0}
    core = presence(heard=last.get)
    core.seen(HOME, "lan", MAC, 0.0)
    last[HOME] = 59.0
    assert core.expired(60.0) == ([], [])
    assert core.next_deadline() == 119.0
    assert core.expired(119.0) == ([ProbeHost(HOME)], [])


def test_a_mac_address_leads_to_the_eids_that_it_had_even_when_they_have_left() -> None:
    core = presence()
    core.seen(HOME, "lan", MAC, 0.0)
    core.seen(GUEST, "lan", MAC, 0.0)
    core.lost(GUEST, "test", 1.0)
    assert core.with_mac(MAC) == [HOME, GUEST]
    assert core.with_mac(OTHER_MAC) == []
