"""Misses, Map-Requests and Map-Replies on virtual time."""

from __future__ import annotations

from itertools import count

from lispfmc.core.effects import Reject, Send
from lispfmc.wire.address import Endpoint, Ip, Prefix, ip_of
from lispfmc.wire.messages import Action, Ecm, EidRecord, Locator, MapReply, MapRequest, RequestRecord
from xtr.effects import Deliver, Drop, Forward, Hop, Install, Native, Remove, XtrEffect
from xtr.router import Router
from xtr.settings import XtrSettings

RESOLVER = Endpoint(ip_of("198.18.0.1"), 4342)
DC1, DC2, OURS = ip_of("198.18.0.21"), ip_of("198.18.0.22"), ip_of("198.18.0.11")
APP, HOLE = Prefix.parse("100.64.101.10/32"), Prefix.parse("100.64.101.0/24")


def router(**limits: float) -> Router:
    settings = XtrSettings.model_validate(
        {
            "name": "access1",
            "rlocs": ["198.18.0.11", "2001:2::11"],
            "prefixes": ["100.64.1.0/24"],
            "map_servers": [{"address": "198.18.0.1", "key_id": 1, "secret": "k"}],
            "dynamic": [{"prefix": "100.64.1.0/24", "mobility": "presence"}],
            "limits": limits,
            "timers": {"rloc_probe_s": 0},
            "interworking": {"natively_forward": "drop"},
        }
    )
    return Router(settings, count(1), count(1000), lambda _: [])


def requests(effects: list[XtrEffect]) -> list[MapRequest]:
    ecms = [effect.message for effect in effects if isinstance(effect, Send) and isinstance(effect.message, Ecm)]
    return [ecm.message for ecm in ecms if isinstance(ecm.message, MapRequest)]


def record(eid: Prefix, *rlocs: Ip, minutes: int = 1440, action: Action = Action.NO_ACTION) -> EidRecord:
    return EidRecord.of(eid, [Locator.of(rloc) for rloc in rlocs], ttl_minutes=minutes, action=action)


def reply(core: Router, request: MapRequest, now: float, *records: EidRecord) -> list[XtrEffect]:
    return core.received(MapReply.of(*records, nonce=request.nonce), b"", RESOLVER, now)


def installs(effects: list[XtrEffect]) -> list[Install]:
    return [effect for effect in effects if isinstance(effect, Install)]


def asked(core: Router, eid: Prefix = APP, now: float = 0.0) -> MapRequest:
    (request,) = requests(core.missed(eid, now))
    return request


def test_a_miss_asks_the_map_resolver_for_the_host() -> None:
    (send,) = router().missed(APP, 0.0)
    assert isinstance(send, Send)
    assert isinstance(send.message, Ecm)
    assert send.to == RESOLVER
    assert (send.message.destination, send.message.source_port) == (APP.ip, 4342)
    (request,) = requests([send])
    assert [each.prefix for each in request.records] == [APP]
    assert request.itr_rlocs == (OURS, ip_of("2001:2::11"))
    assert not request.smr_invoked


def test_the_answer_and_its_more_specifics_are_installed() -> None:
    core = router()
    effects = reply(core, asked(core), 0.1, record(HOLE, DC1), record(APP, DC2))
    assert Install(HOLE, Forward((Hop(DC1, 100),))) in effects
    assert installs(effects)[-1] == Install(APP, Forward((Hop(DC2, 100),)))
    assert requests(core.missed(APP, 0.2)) == []


def test_a_negative_answer_drops_for_as_long_as_it_says() -> None:
    core = router()
    effects = reply(core, asked(core), 0.0, record(HOLE, minutes=1, action=Action.NATIVELY_FORWARD))
    assert installs(effects)[-1] == Install(HOLE, Drop(native=True))
    assert core.next_deadline() == 60.0
    assert core.expired(60.0)[0] == Remove(HOLE)
    assert len(requests(core.missed(APP, 61.0))) == 1


def test_an_unanswered_question_is_repeated_once_a_second_ten_times_and_then_rests_for_30_s() -> None:
    core = router()
    first = asked(core)
    for second in range(1, 10):
        assert core.next_deadline() == float(second)
        (again,) = requests(core.expired(float(second)))
        assert again == first
        assert core.missed(APP, second + 0.5) == []
    effects = core.expired(10.0)
    assert requests(effects) == []
    assert installs(effects) == [Install(APP, Drop())]
    assert core.missed(APP, 39.0) == installs(effects)
    assert core.expired(40.0)[0] == Remove(APP)
    assert len(requests(core.missed(APP, 40.1))) == 1


def test_an_answer_nobody_asked_for_is_refused() -> None:
    core = router()
    request = asked(core)
    for nonce in (request.nonce + 1, 0):
        (refusal,) = core.received(MapReply.of(record(APP, DC1), nonce=nonce), b"", RESOLVER, 0.1)
        assert isinstance(refusal, Reject)
        assert refusal.reason == "unasked-reply"
    reply(core, request, 0.2, record(APP, DC1))
    (refusal,) = reply(core, request, 0.3, record(APP, DC2))
    assert isinstance(refusal, Reject)
    assert [item["source"] for item in core.map_cache(0.3)] == ["map-reply"]


def test_an_answer_may_not_speak_of_what_was_not_asked() -> None:
    core = router()
    request = asked(core)
    elsewhere = record(Prefix.parse("100.64.102.0/24"), DC2)
    for records in ([elsewhere], [record(APP, DC1), elsewhere]):
        (refusal,) = reply(core, request, 0.1, *records)
        assert isinstance(refusal, Reject)
        assert refusal.reason == "unrelated-reply"
    assert core.map_cache(0.1) == []
    assert installs(reply(core, request, 0.2, record(APP, DC1)))  # the question was still open


def solicit(core: Router, eid: Prefix, now: float) -> list[XtrEffect]:
    smr = MapRequest.of(
        RequestRecord.of(Prefix.parse("100.64.1.10/32")),
        nonce=5,
        itr_rlocs=[DC1],
        source_eid=eid.ip,
        smr=True,
        no_reply=True,
    )
    return core.received(smr, b"", Endpoint(DC1, 4342), now)


def test_a_ttl_of_zero_really_deletes() -> None:
    core = router()
    reply(core, asked(core), 0.0, record(APP, DC1))
    (again,) = requests(solicit(core, APP, 5.0))
    effects = reply(core, again, 5.1, record(APP, minutes=0))
    assert Remove(APP) in effects
    assert [item["state"] for item in core.map_cache(5.2)] == ["drop"]  # it may be asked for once a second
    assert core.expired(6.2)[0] == Remove(APP)
    assert core.map_cache(6.2) == []


def test_a_solicited_request_goes_through_the_mapping_system_once_in_3_s() -> None:
    core = router()
    reply(core, asked(core), 0.0, record(APP, DC1))
    (first,) = requests(solicit(core, APP, 10.0))
    assert first.smr_invoked
    assert requests(solicit(core, APP, 10.1)) == []
    reply(core, first, 10.2, record(APP, DC2))
    assert requests(solicit(core, APP, 11.0)) == []  # a second change is not forgotten, it waits
    assert core.next_deadline() == 13.0
    assert len(requests(core.expired(13.0))) == 1


def test_a_solicitation_for_what_is_not_in_use_is_refused() -> None:
    (refusal,) = solicit(router(), APP, 0.0)
    assert isinstance(refusal, Reject)
    assert refusal.reason == "smr-for-unused-eid"


def test_while_a_solicited_question_is_open_the_old_mapping_is_used_and_it_stays_without_an_answer() -> None:
    core = router()
    reply(core, asked(core), 0.0, record(APP, DC1))
    solicit(core, APP, 10.0)
    effects = [effect for second in range(11, 40) for effect in core.expired(float(second))]
    assert len(requests(effects)) == 9
    assert [item["state"] for item in core.map_cache(40.0)] == ["forward"]


def test_an_eid_that_is_said_to_be_here_and_is_not_is_dropped_for_a_while() -> None:
    core = router()
    absent = Prefix.parse("100.64.1.77/32")
    effects = reply(core, asked(core, absent), 0.0, record(Prefix.parse("100.64.1.0/24"), OURS))
    assert installs(effects) == [Install(absent, Drop())]
    arrived = core.announced(absent, "lan", bytes(6), 1.0)
    assert Remove(absent) in arrived


def test_an_answer_replaces_what_it_covers_and_does_not_name() -> None:
    core = router()
    reply(core, asked(core), 0.0, record(APP, DC2))
    other = Prefix.parse("100.64.101.99/32")
    reply(core, asked(core, other), 1.0, record(HOLE, DC1))
    assert [(item["eid"], item["state"]) for item in core.map_cache(1.0)] == [(str(HOLE), "forward")]


def test_an_answer_that_a_newer_version_overtook_is_not_used() -> None:
    core = router()
    first = EidRecord.of(APP, [Locator.of(DC2)], ttl_minutes=1440, map_version=5)
    reply(core, asked(core), 0.0, first)
    (again,) = requests(solicit(core, APP, 10.0))
    late = EidRecord.of(APP, [Locator.of(DC1)], ttl_minutes=1440, map_version=4)
    assert installs(reply(core, again, 10.1, late)) == [Install(APP, Forward((Hop(DC2, 100),)))]


def test_a_scan_gets_no_more_requests_than_the_budget_allows() -> None:
    core = router(map_requests_per_s=10)
    sent = 0
    for step in range(1000):  # 100 new EIDs a second for 10 s
        now = step / 100
        sent += len(requests(core.missed(Prefix.host(ip_of(f"100.64.{step // 250}.{step % 250}")), now)))
        while (at := core.next_deadline()) is not None and at <= now:
            sent += len(requests(core.expired(now)))
    assert 90 <= sent <= 10 * 10 + 10


def test_a_miss_for_a_host_that_is_here_is_delivered_and_not_asked_for() -> None:
    core = router()
    user = Prefix.parse("100.64.1.10/32")
    core.announced(user, "lan", bytes(6), 0.0)
    assert core.missed(user, 1.0) == [Deliver(user, "lan", bytes(6))]


def test_the_data_plane_forgets_what_the_map_cache_has_no_room_for() -> None:
    core = router(map_cache_entries=2)
    held: set[Prefix] = set()
    for number in range(5):
        eid = Prefix.parse(f"100.64.101.{number}/32")
        for effect in reply(core, asked(core, eid, float(number)), float(number), record(eid, DC1)):
            if isinstance(effect, Install):
                held.add(effect.eid)
            elif isinstance(effect, Remove):
                held.remove(effect.eid)
    assert {str(eid) for eid in held} == {item["eid"] for item in core.map_cache(5.0)}
    assert len(held) == 2


def test_forged_solicitations_do_not_take_the_room_of_misses() -> None:
    core = router(map_requests_per_s=10, smr_requests_per_s=2)
    eids = [Prefix.parse(f"100.64.101.{number}/32") for number in range(100)]
    reply(core, asked(core), 0.0, record(HOLE, DC1))
    for eid in eids:
        solicit(core, eid, 10.0)
    sent = len([0 for _ in requests(core.expired(10.0))])
    while (at := core.next_deadline()) is not None and at <= 15.0:
        sent += len(requests(core.expired(at)))
    assert sent <= 2 * 7
    assert len(requests(core.missed(Prefix.parse("100.64.200.1/32"), 12.0))) == 1, "a miss is asked at once"


def test_a_miss_that_meets_a_solicited_question_gets_its_end_when_nobody_answers() -> None:
    core = router()
    reply(core, asked(core), 0.0, record(HOLE, DC1, minutes=1))
    other = Prefix.parse("100.64.101.11/32")
    solicit(core, other, 55.0)
    effects = core.expired(60.0)  # the mapping has expired, the question has not
    assert core.missed(other, 60.5) == []
    while (at := core.next_deadline()) is not None and at < 80.0:
        effects += core.expired(at)
    assert Install(other, Drop()) in effects, "packets do not wait for ever"


def interworking(**settings: object) -> Router:
    values = {
        "name": "access1",
        "rlocs": ["198.18.0.11"],
        "map_servers": [{"address": "198.18.0.1", "key_id": 1, "secret": "k"}],
        "timers": {"rloc_probe_s": 0},
        "interworking": settings,
    }
    return Router(XtrSettings.model_validate(values), count(1), count(1000), lambda _: [])


def test_natively_forward_goes_to_a_proxy_etr_or_to_the_plain_routing_table_or_nowhere() -> None:
    negative = record(HOLE, minutes=15, action=Action.NATIVELY_FORWARD)
    ways = {
        "route": interworking(),
        "drop": interworking(natively_forward="drop"),
        "petr": interworking(petrs=["198.18.0.21", "2001:2::21"]),
    }
    found = {name: installs(reply(core, asked(core), 0.0, negative))[-1].forwarding for name, core in ways.items()}
    assert found == {"route": Native(), "drop": Drop(native=True), "petr": Forward((Hop(DC1, 1),))}


def test_other_negative_answers_are_never_forwarded() -> None:
    for action in (Action.NO_ACTION, Action.DROP_NO_REASON, Action.DROP_POLICY_DENIED):
        core = interworking(petrs=["198.18.0.21"])
        assert installs(reply(core, asked(core), 0.0, record(HOLE, action=action)))[-1].forwarding == Drop()


def test_a_proxy_itr_says_so_and_names_no_source() -> None:
    request = asked(interworking(pitr=True))
    assert request.pitr
    assert request.source_eid is None
    assert not asked(interworking()).pitr
