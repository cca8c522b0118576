"""Token buckets and round-trip estimates on virtual time."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lispfmc.core.limits import Pace, TokenBuckets
from lispfmc.core.roundtrips import PEERS_KEPT, RoundTrips


def test_a_bucket_gives_its_burst_at_once_and_then_its_rate() -> None:
    buckets = TokenBuckets[str](rate=2, burst=3, entries=10)
    assert [buckets.take("a", 100.0) for _ in range(5)] == [True, True, True, False, False]
    assert buckets.take("a", 100.5)
    assert not buckets.take("a", 100.6)


def test_each_key_has_its_own_bucket() -> None:
    buckets = TokenBuckets[str](rate=1, burst=1, entries=10)
    assert buckets.take("a", 0.0)
    assert buckets.take("b", 0.0)
    assert not buckets.take("a", 0.0)


def test_a_refusal_costs_no_token() -> None:
    buckets = TokenBuckets[str](rate=1, burst=1, entries=10)
    buckets.take("a", 0.0)
    for tenth in range(10):
        assert not buckets.take("a", tenth / 10)
    assert buckets.take("a", 1.0)


def test_invented_keys_fill_no_memory() -> None:
    buckets = TokenBuckets[int](rate=1, burst=5, entries=100)
    for key in range(10_000):
        assert buckets.take(key, 0.0)
        assert len(buckets) <= 200


@given(st.lists(st.tuples(st.sampled_from("ab"), st.floats(0, 3)), max_size=60))
@example([("a", 0.0), ("a", 2.0), ("a", 0.0), ("a", 0.0), ("b", 0.0), ("a", 0.0)])  # a generation that goes on for long
def test_no_key_ever_gets_more_than_burst_and_rate_allow(takes: list[tuple[str, float]]) -> None:
    buckets = TokenBuckets[str](rate=4, burst=3, entries=100)
    now, given_at = 0.0, dict[str, list[float]]()
    for key, pause in takes:
        now += pause
        if buckets.take(key, now):
            given_at.setdefault(key, []).append(now)
    for times in given_at.values():
        for first, start in enumerate(times):
            for last in range(first, len(times)):
                assert last - first + 1 <= 3 + (times[last] - start) * 4 + 1e-6


def test_an_unknown_peer_is_waited_for_as_configured_and_a_known_one_by_its_round_trips() -> None:
    trips = RoundTrips(first_s=0.2, least_s=0.05, most_s=3.0)
    assert trips.timeout_s(b"near") == 0.2
    for _ in range(50):
        trips.measured(b"near", 0.002)
        trips.measured(b"far", 0.3)
    assert trips.timeout_s(b"near") == 0.05
    assert trips.timeout_s(b"far") == pytest.approx(0.3, abs=0.02)
    trips.measured(b"lost", 60.0)
    assert trips.timeout_s(b"lost") == 3.0


def test_round_trip_times_are_kept_of_so_many_peers() -> None:
    trips = RoundTrips(first_s=0.2, least_s=0.05, most_s=3.0)
    for peer in range(PEERS_KEPT + 10):
        trips.measured(peer.to_bytes(4, "big"), 0.001)
    assert len(trips) == PEERS_KEPT


def test_a_pace_says_when_its_next_token_comes() -> None:
    pace = Pace(rate=10, burst=2)
    assert [pace.take(5.0) for _ in range(3)] == [True, True, False]
    assert pace.next(5.0) == pytest.approx(5.1)
    assert pace.take(pace.next(5.0))
    assert not pace.take(5.1)
    assert [pace.take(9.0) for _ in range(3)] == [True, True, False]
