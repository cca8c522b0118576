"""What a Map-Notify does to an xTR, message by message. Every message is really signed and verified."""

from __future__ import annotations

from itertools import count

import pytest

from lispfmc.core.effects import Emit, Reject, Send
from lispfmc.wire import decode
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
)
from xtr.effects import Deliver, Forward, Hop, Install, ProbeHost, Remove, Undeliver, XtrEffect
from xtr.replay import Freshness, Replays
from xtr.router import Router
from xtr.settings import XtrSettings

MAP_SERVER, FMCC, PEER, STRANGER = (
    Endpoint(ip_of(text), 4342) for text in ("198.18.0.1", "198.18.0.2", "198.18.0.12", "198.18.0.77")
)
KEYS = {MAP_SERVER: Key(1, b"site"), FMCC: Key(3, b"fmcc"), PEER: Key(2, b"peer")}
OURS, THERE, THIRD = ip_of("198.18.0.21"), ip_of("198.18.0.12"), ip_of("198.18.0.22")
MAC = b"\x02\0\0\0\0\x01"
USER, APP = Prefix.parse("100.64.1.10/32"), Prefix.parse("100.64.101.10/32")
REMOTE = Prefix.parse("100.64.2.10/32")


def router(*peers: Ip) -> Router:
    """An xTR that has users who come by presence and services that a controller moves."""
    settings = XtrSettings.model_validate(
        {
            "name": "dc1",
            "rlocs": ["198.18.0.21"],
            "prefixes": ["100.64.101.0/24", "100.64.1.0/24"],
            "map_servers": [{"address": "198.18.0.1", "key_id": 1, "secret": "site"}],
            "dynamic": [
                {"prefix": "100.64.1.0/24", "mobility": "presence"},
                {"prefix": "100.64.101.0/24", "mobility": "fig9"},
                {"prefix": "100.64.102.0/24", "mobility": "fig9"},
            ],
            "keys": [{"peer": "198.18.0.12", "id": 2, "secret": "peer"}],
            "timers": {"rloc_probe_s": 0},
            "controllers": [
                {
                    "address": "198.18.0.2",
                    "key_id": 3,
                    "secret": "fmcc",
                    "ranges": ["100.64.101.0/24", "100.64.102.0/24"],
                    "rlocs": ["198.18.0.21", "198.18.0.12", "198.18.0.22"],
                }
            ],
        }
    )
    return Router(settings, count(1), count(1_000_000), lambda _: list(peers))


def record(eid: Prefix, *rlocs: Ip, version: int = 0, minutes: int = 1440) -> EidRecord:
    return EidRecord.of(eid, [Locator.of(rloc) for rloc in rlocs], ttl_minutes=minutes, map_version=version)


def told(core: Router, source: Endpoint, nonce: int, *records: EidRecord, now: float = 10.0) -> list[XtrEffect]:
    data = sign(MapNotify.of(*records, nonce=nonce), KEYS[source])
    return core.received(decode(data), data, source, now)


def reason(effects: list[XtrEffect]) -> str:
    """Of a message that was refused, and did nothing else."""
    (refusal,) = effects
    assert isinstance(refusal, Reject)
    return refusal.reason


def sends(effects: list[XtrEffect], kind: type[MapNotify | MapNotifyAck | MapRegister | MapRequest]) -> list[Send]:
    return [effect for effect in effects if isinstance(effect, Send) and isinstance(effect.message, kind)]


def events(effects: list[XtrEffect]) -> list[str]:
    return [effect.name for effect in effects if isinstance(effect, Emit)]


def serving() -> Router:
    core = router()
    core.announced(APP, "lan", MAC, 1.0)
    return core


def learned(core: Router, eid: Prefix, *rlocs: Ip, version: int = 0, answer: Prefix | None = None) -> None:
    """The mapping system told `core` where `eid` is, or all of `answer`."""
    (ask,) = [effect for effect in core.missed(eid, 2.0) if isinstance(effect, Send)]
    assert isinstance(ask, Send)
    assert isinstance(ask.message, Ecm)
    assert isinstance(ask.message.message, MapRequest)
    reply = MapReply.of(record(answer or eid, *rlocs, version=version), nonce=ask.message.message.nonce)
    core.received(reply, b"", MAP_SERVER, 2.1)


# --- a host leaves ---------------------------------------------------------------------------------------------------


def test_what_comes_for_a_host_that_left_goes_on_before_its_peers_are_told() -> None:
    core = router(PEER.ip)
    core.announced(USER, "lan", MAC, 1.0)
    effects = told(core, MAP_SERVER, 5, record(USER, THIRD))
    (notify,) = sends(effects, MapNotify)
    assert notify.to == PEER
    assert effects.index(notify) > max(effects.index(one) for one in effects if isinstance(one, Install | Undeliver))


def test_where_nothing_goes_on_the_peers_are_told_before_the_kernels_tables_change() -> None:
    core = router(PEER.ip)
    core.announced(APP, "lan", MAC, 1.0)
    effects = told(core, FMCC, 5, record(APP, THIRD, version=2))
    (notify,) = sends(effects, MapNotify)
    assert notify.to == PEER
    assert effects.index(notify) < min(effects.index(one) for one in effects if isinstance(one, Install | Undeliver))


def test_a_host_that_arrives_is_registered_before_the_kernels_tables_change() -> None:
    effects = router().announced(USER, "lan", MAC, 1.0)
    (register,) = sends(effects, MapRegister)
    assert effects.index(register) < effects.index(next(one for one in effects if isinstance(one, Deliver)))


def test_the_map_servers_word_makes_an_away_entry_and_ends_delivery_and_registration() -> None:
    core = router()
    core.announced(USER, "lan", MAC, 1.0)
    effects = told(core, MAP_SERVER, 5, record(USER, THERE))
    away = Install(USER, Forward((Hop(THERE, 100),), away=True))
    # never neither of them: first the new way, then the end of the old one
    assert effects.index(away) < effects.index(Undeliver(USER))
    assert "away.installed" in events(effects)
    (ack,) = sends(effects, MapNotifyAck)
    assert (ack.to, ack.key) == (MAP_SERVER, KEYS[MAP_SERVER])
    later = [effect for second in range(11, 200) for effect in core.expired(float(second))]
    registered = [send.message.records for send in sends(later, MapRegister) if isinstance(send.message, MapRegister)]
    assert not any(each.prefix == USER for records in registered for each in records)


def test_a_user_that_answers_after_all_registers_anew() -> None:
    core = router()
    core.announced(USER, "lan", MAC, 1.0)
    assert ProbeHost(USER) in told(core, MAP_SERVER, 5, record(USER, THERE))
    effects = core.announced(USER, "lan", MAC, 10.01)
    assert Deliver(USER, "lan", MAC) in effects
    assert Remove(USER) in effects
    assert len(sends(effects, MapRegister)) == 1


def test_a_copy_is_acknowledged_again_and_not_applied_again() -> None:
    core = router()
    core.announced(USER, "lan", MAC, 1.0)
    told(core, MAP_SERVER, 5, record(USER, THERE))
    core.announced(USER, "lan", MAC, 11.0)  # back meanwhile
    (ack,) = told(core, MAP_SERVER, 5, record(USER, THERE), now=12.0)
    assert isinstance(ack, Send)
    assert isinstance(ack.message, MapNotifyAck)
    assert [item["eid"] for item in core.hosts(12.0)] == [str(USER)]


def test_messages_about_different_eids_may_overtake_each_other() -> None:
    core = serving()
    core.announced(USER, "lan", MAC, 1.0)
    told(core, MAP_SERVER, 9, record(APP, THERE, version=1))
    assert Undeliver(USER) in told(core, MAP_SERVER, 5, record(USER, THERE))
    assert reason(told(core, MAP_SERVER, 8, record(APP, THIRD, version=2))) == "replayed-nonce"


def test_the_map_servers_older_word_is_acknowledged_and_answered_with_a_registration() -> None:
    core = serving()
    told(core, FMCC, 5, record(APP, OURS, version=4))
    effects = told(core, MAP_SERVER, 5, record(APP, THERE, version=3))
    assert len(sends(effects, MapNotifyAck)) == 1  # until then the Map-Server refuses our registrations
    assert len(sends(effects, MapRegister)) == 1
    assert "registration.refused" in events(effects)
    assert [item["version"] for item in core.hosts(11.0)] == [4]


def test_what_the_map_server_says_of_an_eid_that_is_no_concern_of_ours_is_refused() -> None:
    assert reason(told(router(), MAP_SERVER, 5, record(REMOTE, THERE))) == "unexpected-notify"
    assert reason(told(router(), MAP_SERVER, 5, record(APP, OURS, version=1))) == "unexpected-notify"


def test_an_away_entry_follows_an_eid_that_moves_on() -> None:
    core = router()
    core.announced(USER, "lan", MAC, 1.0)
    told(core, MAP_SERVER, 5, record(USER, THERE))
    effects = told(core, PEER, 5, record(USER, THIRD))
    assert Install(USER, Forward((Hop(THIRD, 100),), away=True)) in effects


# --- who talked to it is told ----------------------------------------------------------------------------------------


def test_peers_are_told_by_a_signed_notify_or_an_smr_and_never_ourselves_or_where_it_went() -> None:
    core = router(PEER.ip, STRANGER.ip, OURS, THIRD)
    core.announced(USER, "lan", MAC, 1.0)
    effects = told(core, MAP_SERVER, 5, record(USER, THIRD))
    (notify,) = sends(effects, MapNotify)
    (smr,) = sends(effects, MapRequest)
    assert (notify.to, notify.key) == (PEER, KEYS[PEER])
    assert smr.to == STRANGER
    assert isinstance(smr.message, MapRequest)
    assert (smr.message.smr, smr.message.no_reply, smr.message.source_eid) == (True, True, USER.ip)


def test_a_peer_is_told_five_times_and_then_solicited() -> None:
    core = router(PEER.ip)
    core.announced(USER, "lan", MAC, 1.0)
    effects = told(core, MAP_SERVER, 5, record(USER, THIRD))
    times: list[float] = []
    solicited: list[float] = []
    while (at := core.next_deadline()) is not None and at < 20.0:
        effects = core.expired(at)
        times += [round(at - 10.0, 3)] * len(sends(effects, MapNotify))
        solicited += [round(at - 10.0, 3)] * len(sends(effects, MapRequest))
    assert times == [0.2, 0.6, 1.4, 3.0]
    assert solicited == [6.2]


def test_an_acknowledgement_with_the_peers_key_ends_the_telling_and_any_other_does_not() -> None:
    core = router(PEER.ip)
    core.announced(USER, "lan", MAC, 1.0)
    (notify,) = sends(told(core, MAP_SERVER, 5, record(USER, THIRD)), MapNotify)
    assert isinstance(notify.message, MapNotify)
    forged = sign(MapNotifyAck.of(notify.message), Key(2, b"guess"))
    assert reason(core.received(decode(forged), forged, PEER, 10.1)) == "bad-authentication"
    assert len(sends(core.expired(10.2), MapNotify)) == 1
    real = sign(MapNotifyAck.of(notify.message), KEYS[PEER])
    assert core.received(decode(real), real, PEER, 10.3) == []
    assert sends([effect for step in range(100) for effect in core.expired(10.3 + step)], MapNotify) == []


def test_a_packet_for_who_left_tells_its_sender_at_most_every_3_s() -> None:
    core = router()
    core.announced(USER, "lan", MAC, 1.0)
    told(core, MAP_SERVER, 5, record(USER, THIRD))
    told_at = [step / 10 for step in range(100) if core.moved_away(USER, STRANGER.ip, 20.0 + step / 10)]
    assert told_at == [0.0, 3.0, 6.0, 9.0]
    assert core.moved_away(REMOTE, STRANGER.ip, 40.0) == []


@pytest.mark.parametrize("mapped", [APP, Prefix.parse("100.64.101.0/28")])
def test_after_a_restart_a_packet_for_who_left_tells_its_sender_by_the_mapping_in_use(mapped: Prefix) -> None:
    core, peer = router(), router()
    learned(core, APP, THIRD, version=3, answer=mapped)  # core serves it no more, and does not know that it did
    (notify,) = sends(core.moved_away(APP, PEER.ip, 20.0), MapNotify)
    assert (notify.to, notify.key) == (PEER, KEYS[PEER])
    assert isinstance(notify.message, MapNotify)
    (said,) = notify.message.records
    assert (said.prefix, said.map_version, said.ttl_minutes) == (APP, 3, 1439)
    assert core.moved_away(APP, PEER.ip, 20.1) == []
    (smr,) = sends(core.moved_away(APP, STRANGER.ip, 20.1), MapRequest)
    assert smr.to == STRANGER
    # and the peer takes it from whom its own mapping names
    learned(peer, APP, PEER.ip, version=2)
    effects = told(peer, PEER, notify.message.nonce, said, now=20.2)
    assert Install(APP, Forward((Hop(THIRD, 100),))) in effects
    assert len(sends(effects, MapNotifyAck)) == 1


def test_a_mapping_says_that_an_eid_has_left_only_of_what_may_be_here_and_is_not() -> None:
    core = router()
    learned(core, REMOTE, THIRD)  # no range of ours: whoever sends that to us is beside himself
    assert core.moved_away(REMOTE, PEER.ip, 20.0) == []
    assert core.moved_away(APP, PEER.ip, 20.0) == []  # nothing is known
    learned(core, APP, OURS)
    assert core.moved_away(APP, PEER.ip, 20.0) == []
    core = serving()
    app = Prefix.parse("100.64.102.10/32")
    told(core, FMCC, 5, record(app, OURS, version=7))  # not seen yet
    core.received(MapReply.of(record(Prefix.parse("100.64.102.0/24"), THIRD), nonce=1), b"", MAP_SERVER, 11.0)
    assert core.moved_away(app, PEER.ip, 20.0) == []


def test_who_comes_back_is_no_longer_said_to_be_elsewhere() -> None:
    core = router(PEER.ip)
    core.announced(USER, "lan", MAC, 1.0)
    told(core, MAP_SERVER, 5, record(USER, THIRD))
    core.announced(USER, "lan", MAC, 10.1)
    assert sends([effect for step in range(50) for effect in core.expired(10.2 + step)], MapNotify) == []
    assert core.moved_away(USER, PEER.ip, 61.0) == []


# --- what peers say --------------------------------------------------------------------------------------------------


def test_the_locator_of_an_eid_may_say_where_it_went() -> None:
    core = router()
    learned(core, REMOTE, PEER.ip)
    effects = told(core, PEER, 5, record(REMOTE, THIRD))
    assert Install(REMOTE, Forward((Hop(THIRD, 100),))) in effects
    assert len(sends(effects, MapNotifyAck)) == 1


@pytest.mark.parametrize(
    ("eid", "located_at", "version", "expected"),
    [
        (REMOTE, THIRD, 0, "not-the-locator"),
        (REMOTE, PEER.ip, 3, "stale-version"),
    ],
)
def test_what_a_peer_may_not_say_changes_nothing(eid: Prefix, located_at: Ip, version: int, expected: str) -> None:
    core = router()
    learned(core, eid, located_at, version=version)
    before = core.map_cache(10.0)
    assert reason(told(core, PEER, 5, record(eid, STRANGER.ip, version=2 if version else 0))) == expected
    assert core.map_cache(10.0) == before


def test_a_peer_cannot_take_a_host_that_is_here() -> None:
    core = serving()
    assert reason(told(core, PEER, 5, record(APP, THERE, version=9))) == "local-eid"
    assert [item["eid"] for item in core.hosts(10.0)] == [str(APP)]


def test_one_wrong_record_refuses_the_whole_message() -> None:
    core = serving()
    good, bad = record(APP, THERE, version=1), record(USER, THERE, version=1)
    assert reason(told(core, FMCC, 5, good, bad)) == "foreign-prefix"
    assert [item["eid"] for item in core.hosts(10.0)] == [str(APP)]
    assert Undeliver(APP) in told(core, FMCC, 5, good)  # its nonce was not used up either


# --- what a controller says ------------------------------------------------------------------------------------------


def test_a_service_that_arrives_is_registered_at_once_with_the_controllers_version() -> None:
    core = router()
    app = Prefix.parse("100.64.102.10/32")
    early = core.announced(app, "lan", MAC, 1.0)
    assert Deliver(app, "lan", MAC) in early
    assert sends(early, MapRegister) == []
    effects = told(core, FMCC, 5, record(app, OURS, version=7))
    (register,) = sends(effects, MapRegister)
    assert isinstance(register.message, MapRegister)
    assert [(each.prefix, each.map_version) for each in register.message.records] == [(app, 7)]
    assert "host.adopted" in events(effects)
    assert ProbeHost(app) not in effects


def test_a_service_that_is_not_seen_yet_is_asked_for() -> None:
    app = Prefix.parse("100.64.102.10/32")
    assert ProbeHost(app) in told(router(), FMCC, 5, record(app, OURS, version=7))


def test_a_service_at_home_is_registered_at_its_first_appearance() -> None:
    effects = router().announced(APP, "lan", MAC, 1.0)
    (register,) = sends(effects, MapRegister)
    assert isinstance(register.message, MapRegister)
    assert [(each.prefix, each.map_version) for each in register.message.records] == [(APP, 0)]


def test_the_same_word_again_changes_nothing_and_the_opposite_with_the_same_version_is_refused() -> None:
    core = serving()
    told(core, FMCC, 5, record(APP, THERE, version=1))
    assert events(told(core, FMCC, 6, record(APP, THERE, version=1))) == []
    assert reason(told(core, FMCC, 7, record(APP, OURS, version=1))) == "stale-version"
    assert "host.adopted" in events(told(core, FMCC, 8, record(APP, OURS, version=2)))


def test_a_service_that_the_controller_brings_back_is_no_longer_said_to_be_elsewhere() -> None:
    core = router(PEER.ip)
    core.announced(APP, "lan", MAC, 1.0)
    told(core, FMCC, 5, record(APP, THIRD, version=1))
    told(core, FMCC, 6, record(APP, OURS, version=2), now=10.1)  # it has not shown itself yet
    assert sends([effect for step in range(50) for effect in core.expired(10.2 + step)], MapNotify) == []
    assert core.moved_away(APP, PEER.ip, 61.0) == []


# --- replay protection -----------------------------------------------------------------------------------------------


def test_a_forgotten_nonce_leaves_a_floor_for_its_key() -> None:
    replays = Replays(capacity=2)
    key, other = KEYS[FMCC], KEYS[PEER]
    eids = [Prefix.host(ip_of(f"100.64.101.{number}")) for number in range(3)]
    for nonce, eid in enumerate(eids, start=10):
        replays.accept(key, eid, nonce)
    assert replays.freshness(key, eids[0], 9) is Freshness.OLD
    assert replays.freshness(key, eids[0], 11) is Freshness.NEW
    assert replays.freshness(key, eids[2], 12) is Freshness.REPEATED
    assert replays.freshness(other, eids[0], 1) is Freshness.NEW
