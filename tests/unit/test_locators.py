"""RLOC-probing on virtual time: who is probed, what an answer says, what silence means, and how we answer."""

from __future__ import annotations

from itertools import count

from lispfmc.core.effects import Emit, Reject, Send
from lispfmc.wire.address import Endpoint, Ip, Prefix, ip_of
from lispfmc.wire.messages import Ecm, EidRecord, Locator, MapReply, MapRequest, RequestRecord
from xtr.effects import Forward, Hop, Install, XtrEffect
from xtr.router import Router
from xtr.settings import XtrSettings

RESOLVER = Endpoint(ip_of("198.18.0.1"), 4342)
DC1, DC2 = ip_of("198.18.0.21"), ip_of("198.18.0.22")
APP, HOME = Prefix.parse("100.64.101.10/32"), Prefix.parse("100.64.1.0/24")


def router(targets: tuple[str, ...] = (), **limits: int) -> Router:
    settings = XtrSettings.model_validate(
        {
            "name": "access1",
            "rlocs": ["198.18.0.11"],
            "prefixes": ["100.64.1.0/24"],
            "map_servers": [{"address": "198.18.0.1", "key_id": 1, "secret": "k"}],
            "limits": limits,
            "distances": {"probe_s": 5.0, "targets": [{"rloc": rloc, "prefix": str(APP)} for rloc in targets]},
        }
    )
    core = Router(settings, count(1), count(1000), lambda _: [])
    core.start(0.0)
    return core


def maps(core: Router, eid: Prefix, *rlocs: Ip, now: float = 0.0, version: int = 0) -> list[XtrEffect]:
    """The mapping system tells `core` where `eid` is; the first RLOC is preferred."""
    (ask,) = [effect for effect in core.missed(eid, now) if isinstance(effect, Send)]
    assert isinstance(ask.message, Ecm)
    assert isinstance(ask.message.message, MapRequest)
    locators = [Locator.of(rloc, priority=1 + place) for place, rloc in enumerate(rlocs)]
    record = EidRecord.of(eid, locators, ttl_minutes=1440, map_version=version)
    return core.received(MapReply.of(record, nonce=ask.message.message.nonce), b"", RESOLVER, now)


def probes(effects: list[XtrEffect]) -> dict[Ip, MapRequest]:
    return {
        effect.to.ip: effect.message
        for effect in effects
        if isinstance(effect, Send) and isinstance(effect.message, MapRequest) and effect.message.probe
    }


def until(core: Router, end: float) -> list[tuple[float, XtrEffect]]:
    found: list[tuple[float, XtrEffect]] = []
    while (at := core.next_deadline()) is not None and at <= end:
        found += [(at, effect) for effect in core.expired(at)]
    return found


def answer(
    core: Router, rloc: Ip, probe: MapRequest, now: float, *rlocs: Ip, version: int = 0, authoritative: bool = True
) -> list[XtrEffect]:
    told = enumerate(rlocs or (rloc,))
    locators = [Locator.of(each, priority=1 + place, local=True, probed=each == rloc) for place, each in told]
    record = EidRecord.of(APP, locators, ttl_minutes=1440, authoritative=authoritative, map_version=version)
    return core.received(MapReply.of(record, nonce=probe.nonce, probe=True), b"", Endpoint(rloc, 4342), now)


def test_each_locator_of_a_mapping_is_probed_by_itself_and_its_round_trip_time_is_known() -> None:
    core = router()
    maps(core, APP, DC1, DC2)
    sent = {}
    for at, effect in until(core, 1.3):
        for rloc, probe in probes([effect]).items():
            sent[rloc] = at
            assert probe.source_eid is None, "RFC 9301 §5.3"
            assert [record.prefix for record in probe.records] == [APP]
            answer(core, rloc, probe, at + 0.02, DC1, DC2)
    assert set(sent) == {DC1, DC2}
    (entry,) = core.map_cache(2.0)
    assert [(each["up"], each["rtt_ms"]) for each in entry["locators"]] == [(True, 20.0)] * 2  # type: ignore[attr-defined]
    again = [at for at, effect in until(core, 60.0) if DC1 in probes([effect])]
    assert 22 <= again[0] - sent[DC1] <= 38


def test_three_probes_without_an_answer_move_the_flows_and_an_answer_brings_them_back() -> None:
    core = router()
    maps(core, APP, DC1, DC2)
    timeline: list[tuple[float, XtrEffect]] = []
    latest: dict[Ip, MapRequest] = {}
    while (at := core.next_deadline()) is not None and at <= 10.0:
        for effect in core.expired(at):
            timeline.append((at, effect))
            for rloc, probe in probes([effect]).items():
                latest[rloc] = probe
                if rloc == DC2:
                    answer(core, rloc, probe, at + 0.01, DC1, DC2)
    [(moved, _)] = [(at, e) for at, e in timeline if e == Install(APP, Forward((Hop(DC2, 100),)))]
    assert 3.0 <= moved <= 4.5
    assert [e.name for _, e in timeline if isinstance(e, Emit)] == ["locator.down"]
    back = answer(core, DC1, latest[DC1], 11.0, DC1, DC2)
    assert Install(APP, Forward((Hop(DC1, 100),))) in back


def test_a_peer_that_answers_no_probes_keeps_its_traffic() -> None:
    core = router()
    maps(core, APP, DC1)
    effects = [effect for _, effect in until(core, 20.0)]
    assert Install(APP, Forward((Hop(DC1, 100),))) in effects
    assert {str(e.forwarding) for e in effects if isinstance(e, Install)} == {str(Forward((Hop(DC1, 100),)))}


def test_the_answer_to_a_probe_carries_the_mapping_as_it_is_now() -> None:
    core = router()
    maps(core, APP, DC1, version=4)
    probe = next(p for _, e in until(core, 2.0) for p in probes([e]).values())
    assert Install(APP, Forward((Hop(DC2, 100),))) in answer(core, DC1, probe, 2.0, DC2, version=5)
    (entry,) = core.map_cache(3.0)
    assert (entry["source"], entry["version"]) == ("probe", 5)


def test_an_answer_that_is_not_the_probed_locators_or_not_authoritative_is_refused() -> None:
    core = router()
    maps(core, APP, DC1)
    probe = next(p for _, e in until(core, 2.0) for p in probes([e]).values())
    reply = MapReply.of(EidRecord.of(APP, ttl_minutes=1, authoritative=True), nonce=probe.nonce, probe=True)
    (forged,) = core.received(reply, b"", Endpoint(DC2, 4342), 2.0)
    (unknown,) = core.received(MapReply.of(nonce=5, probe=True), b"", Endpoint(DC1, 4342), 2.0)
    (half,) = answer(core, DC1, probe, 2.0, authoritative=False)
    assert [each.reason for each in (forged, unknown, half) if isinstance(each, Reject)] == [
        "unasked-reply",
        "unasked-reply",
        "not-authoritative",
    ]


def test_no_more_locators_are_probed_than_the_limit_says_and_none_that_nobody_uses() -> None:
    core = router(rlocs_probed=3, map_cache_entries=5)
    for number in range(5):
        maps(core, Prefix.parse(f"100.64.7.{number}/32"), bytes([198, 18, 1, number]))
    first = {rloc for _, effect in until(core, 1.5) for rloc in probes([effect])}
    assert len(first) == 3
    for number in range(5):  # other mappings push these out
        maps(core, Prefix.parse(f"100.64.8.{number}/32"), bytes([198, 18, 2, number]), now=2.0)
    later = {rloc for at, effect in until(core, 120.0) if at > 60 for rloc in probes([effect])}
    assert not later & first


def ask(core: Router, eid: Prefix, source: Ip = DC1, now: float = 0.0, *, probe: bool = True) -> list[XtrEffect]:
    request = MapRequest.of(RequestRecord.of(eid), nonce=77, itr_rlocs=[DC1, DC2], probe=probe)
    return core.received(request, b"", Endpoint(source, 61000), now)


def test_a_probe_is_answered_with_the_current_mapping_and_the_probed_bit() -> None:
    (send,) = ask(router(), Prefix.parse("100.64.1.7/32"), DC2)
    assert isinstance(send, Send)
    assert send.to == Endpoint(DC2, 61000), "RFC 9301 §5.4: the port that the request came from"
    reply = send.message
    assert isinstance(reply, MapReply)
    assert (reply.probe, reply.nonce) == (True, 77)
    (record,) = reply.records
    assert (record.prefix, record.authoritative) == (HOME, True)
    assert [(locator.local, locator.probed) for locator in record.locators] == [(True, True)]


def test_a_request_that_a_map_server_passes_on_is_answered_to_the_itr() -> None:
    request = MapRequest.of(RequestRecord.of(Prefix.parse("100.64.1.7/32")), nonce=9, itr_rlocs=[DC2])
    ecm = Ecm.of(request, source=DC2, destination=ip_of("100.64.1.7"), source_port=50000)
    (send,) = router().received(ecm, b"", RESOLVER, 0.0)
    assert isinstance(send, Send)
    assert send.to == Endpoint(DC2, 50000)
    assert isinstance(send.message, MapReply)
    assert [locator.probed for record in send.message.records for locator in record.locators] == [False]


def test_requests_are_answered_for_our_eids_only_and_not_faster_than_the_limit() -> None:
    core = router()
    (refusal,) = ask(core, APP)
    assert isinstance(refusal, Reject)
    assert refusal.reason == "not-our-eid"
    assert isinstance(ask(core, HOME, now=1.0)[0], Send)
    (refusal,) = ask(core, HOME, now=1.1)
    assert isinstance(refusal, Reject)
    assert refusal.reason == "too-many-requests"
    assert isinstance(ask(core, HOME, DC2, now=1.1)[0], Send), "another asker is not the same"
    answered = 0
    for number in range(5000):  # 5000 forged askers in a second
        itr = (3 << 24 | number).to_bytes(4, "big")
        request = MapRequest.of(RequestRecord.of(HOME), nonce=1, itr_rlocs=[itr])
        answered += isinstance(core.received(request, b"", Endpoint(itr, 4342), 2.0 + number / 5000)[0], Send)
    assert answered <= 1010


def test_a_locator_whose_distance_is_wanted_is_probed_without_any_mapping_and_measured_as_it_is() -> None:
    core = router(targets=("198.18.0.22", "198.18.0.11", "2001:2::22"))
    now = 0.0
    for delay_s in (0.020, 0.300, 0.300):
        while not (sent := probes(core.expired(now))):
            due = core.next_deadline()
            assert due is not None
            now = max(now, due)
        assert set(sent) == {DC2}, "neither ourselves nor an address family that we have not"
        now += delay_s
        answer(core, DC2, sent[DC2], now)
        ((last_s, at),) = core.measured().values()
        assert (round(last_s, 6), at) == (delay_s, now), "not smoothed: that is the business of who asks"


def test_a_locator_that_answers_no_more_is_not_measured() -> None:
    core = router(targets=("198.18.0.22",))
    ((at, effect),) = [each for each in until(core, 0.5) if probes([each[1]])]
    answer(core, DC2, probes([effect])[DC2], at + 0.02)
    assert set(core.measured()) == {DC2}
    until(core, 30.0)
    assert core.measured() == {}
