"""The map-cache on virtual time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lispfmc.core.mapcache import LONGEST_TTL_S, MapCache, Mapping, best, ttl_s
from lispfmc.core.versions import newer
from lispfmc.wire.address import OpaqueLcaf, Prefix, ip_of
from lispfmc.wire.messages import TTL_RECEIVER_DECIDES, Action, EidRecord, Locator

ONE, TWO, SIX = ip_of("198.18.0.1"), ip_of("198.18.0.2"), ip_of("2001:2::1")
BOTH = (4, 16)


def mapping(eid: str, expires: float, *rlocs: bytes) -> Mapping:
    locators = tuple(Locator.of(rloc) for rloc in rlocs or (ONE,))
    return Mapping(Prefix.parse(eid), locators, Action.NO_ACTION, 0, "map-reply", 0.0, expires)


def held(cache: MapCache) -> set[str]:
    return {str(entry.eid) for entry in cache}


def test_an_entry_answers_until_its_time_is_over() -> None:
    cache = MapCache()
    cache.put(mapping("10.0.0.0/24", 60.0))
    host = Prefix.parse("10.0.0.5/32")
    assert cache.lookup(host) is not None
    assert cache.next_deadline() == 60.0
    assert cache.expired(59.9) == []
    assert cache.expired(60.0) == [Prefix.parse("10.0.0.0/24")]
    assert cache.lookup(host) is None
    assert cache.next_deadline() is None


def test_the_most_specific_entry_answers() -> None:
    cache = MapCache()
    cache.put(mapping("10.0.0.0/24", 60.0, ONE))
    cache.put(mapping("10.0.0.5/32", 60.0, TWO))
    for eid, rloc in (("10.0.0.5/32", TWO), ("10.0.0.6/32", ONE)):
        found = cache.lookup(Prefix.parse(eid))
        assert found is not None
        assert found.rlocs == (rloc,)


def test_instances_are_apart() -> None:
    cache = MapCache()
    cache.put(mapping("[7]10.0.0.0/24", 60.0))
    assert cache.lookup(Prefix.parse("10.0.0.5/32")) is None
    assert cache.lookup(Prefix.parse("[7]10.0.0.5/32")) is not None


@pytest.mark.parametrize("order", [("10.0.0.0/24", "10.0.0.5/32"), ("10.0.0.5/32", "10.0.0.0/24")])
def test_a_less_specific_goes_with_its_more_specific_whichever_came_first(order: tuple[str, str]) -> None:
    cache = MapCache()
    for eid in order:
        cache.put(mapping(eid, 30.0 if eid.endswith("/32") else 600.0))
    assert set(map(str, cache.expired(30.0))) == set(order)


def test_removing_a_more_specific_uncovers_nothing_stale() -> None:
    cache = MapCache()
    for eid in ("10.0.0.0/16", "10.0.0.0/24", "10.0.0.5/32", "10.0.1.0/24"):
        cache.put(mapping(eid, 600.0))
    assert set(map(str, cache.remove(Prefix.parse("10.0.0.5/32")))) == {"10.0.0.5/32", "10.0.0.0/24", "10.0.0.0/16"}
    assert held(cache) == {"10.0.1.0/24"}
    assert cache.remove(Prefix.parse("10.0.0.5/32")) == []


def scanned(number: int, *, positive: bool, now: float) -> Mapping:
    eid = Prefix.parse(f"10.0.{number // 250}.{number % 250}/32")
    locators = (Locator.of(ONE),) if positive else ()
    return Mapping(eid, locators, Action.NATIVELY_FORWARD, 0, "map-reply", now, now + 86400.0)


@pytest.mark.parametrize("positive", [False, True], ids=["EIDs that are not there", "EIDs that are there"])
def test_a_scan_pushes_out_what_it_brought_and_not_the_mappings_in_use(positive: bool) -> None:
    used: dict[Prefix, float] = {}
    cache = MapCache(10, used.get)
    in_use = [mapping(f"100.64.{number}.0/24", 600.0) for number in range(5)]
    for each in in_use:
        cache.put(each)
    for number in range(500):
        now = 2.0 + number / 10
        used.update({each.eid: now for each in in_use})
        brought = scanned(number, positive=positive, now=now)
        cache.put(brought)
        used[brought.eid] = now + 0.02  # the one packet that the scan sent
    assert len(cache) == 10
    assert all(each.eid in [entry.eid for entry in cache] for each in in_use)


def test_a_cache_full_of_mappings_in_use_gives_up_the_oldest() -> None:
    cache = MapCache(10, lambda _: 100.0)
    for number in range(30):
        cache.put(scanned(number, positive=True, now=90.0))
    assert len(cache) == 10


def test_a_locator_that_does_not_answer_is_used_only_when_there_is_no_other() -> None:
    locators = [Locator.of(ONE, priority=1), Locator.of(TWO, priority=2)]
    assert best(locators, BOTH, {ONE}) == ((TWO, 100),)
    assert best(locators, BOTH, {ONE, TWO}) == ((ONE, 100),)


def test_an_rloc_leads_to_an_eid_behind_it_while_there_is_one() -> None:
    cache = MapCache()
    cache.put(mapping("10.0.0.0/24", 60.0, ONE))
    assert cache.behind(ONE) == Prefix.parse("10.0.0.0/24")
    cache.put(mapping("10.0.0.0/24", 60.0, TWO))
    assert cache.behind(ONE) is None
    cache.expired(60.0)
    assert cache.behind(TWO) is None


def test_a_ttl_that_is_left_to_us_or_absurd_ends_after_a_day() -> None:
    eid = Prefix.parse("10.0.0.0/24")
    assert ttl_s(EidRecord.of(eid, ttl_minutes=3)) == 180.0
    assert ttl_s(EidRecord.of(eid, ttl_minutes=TTL_RECEIVER_DECIDES)) == LONGEST_TTL_S
    assert ttl_s(EidRecord.of(eid, ttl_minutes=10_000_000)) == LONGEST_TTL_S


def test_the_lowest_priority_is_used_by_weight() -> None:
    locators = [
        Locator.of(SIX, priority=2, weight=100),
        Locator.of(ONE, priority=1, weight=25),
        Locator.of(TWO, priority=1, weight=75),
    ]
    assert best(locators, BOTH) == ((ONE, 25), (TWO, 75))


def test_locators_that_cannot_be_used_are_passed_over() -> None:
    locators = [
        Locator.of(ONE, priority=255),
        Locator.of(TWO, priority=1, reachable=False),
        Locator.of(OpaqueLcaf(10, b""), priority=1),
        Locator.of(SIX, priority=9),
    ]
    assert best(locators, BOTH) == ((SIX, 100),)
    assert best(locators, (4,)) == ()


@pytest.mark.parametrize(
    "rloc",
    ["0.0.0.0", "127.0.0.1", "224.0.0.1", "255.255.255.255", "::", "::1", "::ffff:198.18.0.1", "fe80::1", "ff02::1"],
)
def test_a_locator_that_no_xtr_can_have_is_passed_over(rloc: str) -> None:
    assert best([Locator.of(ip_of(rloc)), Locator.of(TWO)], BOTH) == ((TWO, 100),)
    assert best([Locator.of(ip_of(rloc))], BOTH) == ()


def test_weights_of_zero_take_no_flows_unless_all_are_zero() -> None:
    assert best([Locator.of(ONE, weight=0), Locator.of(TWO, weight=5)], BOTH) == ((TWO, 5),)
    assert best([Locator.of(ONE, weight=0), Locator.of(TWO, weight=0)], BOTH) == ((ONE, 1), (TWO, 1))


@pytest.mark.parametrize(
    ("version", "than", "expected"),
    [
        (1, 0, True),
        (0, 1, False),
        (0, 0, False),
        (5, 5, False),
        (6, 5, True),
        (69 + 2048, 69, True),
        (69 + 2049, 69, False),
        (1, 4095, True),
    ],
)
def test_map_versions_are_ordered_round_the_circle(version: int, than: int, *, expected: bool) -> None:
    assert newer(version, than) is expected


@given(st.integers(1, 4095), st.integers(1, 4095))
def test_of_two_different_map_versions_exactly_one_is_newer(one: int, other: int) -> None:
    assert newer(one, other) + newer(other, one) == (one != other)


EIDS = st.builds(
    lambda bits, length: Prefix.of(bits.to_bytes(4, "big"), length), st.integers(0, 255), st.integers(22, 32)
)


@given(st.lists(st.tuples(EIDS, st.integers(1, 50), st.booleans()), max_size=40), st.integers(1, 12))
def test_no_less_specific_ever_outlives_a_more_specific(steps: list[tuple[Prefix, int, bool]], capacity: int) -> None:
    cache = MapCache(capacity)
    told: set[Prefix] = set()
    for now, (eid, life, remove) in enumerate(steps):
        told.difference_update(cache.expired(float(now)))
        if remove:
            told.difference_update(cache.remove(eid))
        else:
            told.add(eid)
            told.difference_update(cache.put(mapping(str(eid), float(now + life))))
        entries = list(cache)
        assert {entry.eid for entry in entries} == told  # who follows the answers holds what the cache holds
        assert len(entries) <= capacity
        for one in entries:
            assert all(one.expires <= other.expires for other in entries if one.eid.covers(other.eid))
