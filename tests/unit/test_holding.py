"""Held packets come out once, in order, within their bounds; what does not is counted."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from xtr.dataplane.holding import SEQUENCES, HoldQueue, MarkerGate, ReplayRing, Room, Seen

PEER = b"\xc6\x12\x00\x0b"


@given(st.integers(0, SEQUENCES - 1), st.permutations(range(20)), st.lists(st.integers(0, 19)))
def test_each_packet_comes_out_once_in_the_order_of_the_source(first: int, order: list[int], copies: list[int]) -> None:
    queue = HoldQueue(most_bytes=10_000, most_s=1.0)
    for number in [*order, *copies]:
        queue.put((first + number) % SEQUENCES, bytes([number]), 0.0)
    assert queue.drain(0.5) == [bytes([number]) for number in range(20)]
    assert queue.counters["duplicate"] == len(copies)
    assert not any(queue.fresh((first + number) % SEQUENCES) for number in range(20))


def test_a_full_queue_drops_at_its_tail_and_says_so() -> None:
    queue = HoldQueue(most_bytes=8, most_s=1.0)
    assert [queue.put(number, b"1234", 0.0) for number in range(3)] == [True, True, False]
    assert queue.put(2, b"1234", 2.0)  # what was there is too old by now, and the one that found no room is no copy
    assert queue.drain(2.0) == [b"1234"]
    assert (queue.counters["dropped.hold-full"], queue.counters["dropped.hold-late"]) == (1, 2)


def test_what_is_late_makes_room_though_a_later_packet_comes_before_it_in_order() -> None:
    queue = HoldQueue(most_bytes=8, most_s=1.0)
    assert queue.put(5, b"late", 0.0)
    assert queue.put(3, b"good", 0.9)
    assert queue.put(6, b"more", 1.1)
    assert queue.counters["dropped.hold-late"] == 1
    assert queue.drain(1.1) == [b"good", b"more"]


def test_numbers_far_behind_the_window_count_as_seen() -> None:
    seen = Seen()
    assert [seen.first(number) for number in (10_000, 10_000, 9_999, 1, 10_001)] == [True, False, True, False, True]


def test_the_ring_replays_the_last_milliseconds_and_then_keeps_everything() -> None:
    ring = ReplayRing(most_bytes=100, recent_s=0.01)
    for at in range(5):
        ring.put(bytes([at]), at * 0.004)
    assert [one.packet for one in ring.freeze(0.016)] == [b"\2", b"\3", b"\4"]
    ring.put(b"\5", 5.0)
    assert [one.sequence for one in ring.copies()] == [2, 3, 4, 5]
    assert ring.clear() == 4


def test_a_stop_that_is_heard_of_late_is_replayed_from_the_instant_when_it_was() -> None:
    ring = ReplayRing(most_bytes=100, recent_s=0.01)
    for at in range(5):
        ring.put(bytes([at]), at * 0.1)
    assert [one.packet for one in ring.freeze(0.5, 0.25)] == [b"\3", b"\4"]


def test_without_replay_nothing_is_sent_again_however_late_the_stop_is_heard_of() -> None:
    ring = ReplayRing(most_bytes=100, recent_s=0.0)
    ring.put(b"1", 0.0)
    assert ring.freeze(0.5, 0.6) == []


def test_copies_of_what_a_stopped_machine_was_given_that_are_gone_when_stop_is_heard_of_are_counted() -> None:
    ring = ReplayRing(most_bytes=20, recent_s=0.01)
    for number in range(100):
        ring.put(bytes([number]), number * 0.1)
    assert len(ring.freeze(10.0, 3.0)) == 10
    # those of 7.0 to 8.9 s made room; the copies of what came before STOP are missed by nobody
    assert ring.counters["dropped.stop-late"] == 20
    in_time = ReplayRing(most_bytes=20, recent_s=0.01)
    for number in range(100):
        in_time.put(bytes([number]), number * 0.1)
    in_time.freeze(10.0, 0.5)
    assert in_time.counters["dropped.stop-late"] == 0


def test_copies_of_a_running_service_leave_half_of_the_room_to_what_is_held() -> None:
    room = Room(10)
    ring, queue = ReplayRing(100, 0.01, room), HoldQueue(100, 1.0, room)
    for _ in range(4):
        ring.put(b"12", 0.0)
    assert (len(ring), queue.put(1, b"123456", 0.0)) == (2, True)


def test_a_frozen_ring_that_is_full_leaves_out_the_newest_and_says_so() -> None:
    ring = ReplayRing(most_bytes=4, recent_s=0.01)
    ring.freeze(0.0)
    for _ in range(3):
        ring.put(b"12", 1.0)
    assert (len(ring), ring.counters["dropped.copies-full"]) == (2, 1)


def test_direct_packets_wait_for_the_end_of_the_old_path() -> None:
    gate = MarkerGate(most_bytes=100, most_s=0.05)
    assert gate.direct(PEER, b"2", 0.0) == []
    assert gate.marked(PEER) == [b"2"]
    assert gate.direct(PEER, b"3", 0.01) == [b"3"]


def test_a_lost_end_marker_costs_a_bounded_wait() -> None:
    gate = MarkerGate(most_bytes=100, most_s=0.05)
    assert gate.direct(PEER, b"1", 0.0) == []
    assert gate.expired(0.04) == []
    assert gate.expired(0.06) == [b"1"]
    assert gate.direct(PEER, b"2", 0.07) == [b"2"]
    assert gate.counters["marker-missed"] == 1
