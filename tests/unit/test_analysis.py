"""The figures of a move from logs written by hand: what counts as a gap, a loss, a duplicate, a skipped slot."""

from __future__ import annotations

import pytest

from lispfmc.lab.analysis import (
    NS_PER_MS,
    Arrival,
    Echo,
    Flow,
    Gap,
    Skip,
    Window,
    figures,
    flow_of,
    lateness,
    longest_gap_ms,
    longest_silence_ns,
    median_rtt_ms,
    move_figures,
    split_ns,
)

MS = NS_PER_MS
ALL = Window(0, 1000 * MS)


def flow(
    *,
    sent: range | list[int],
    transit_ms: int = 6,
    lost: tuple[int, ...] | list[int] | range = (),
    extra: tuple[tuple[int, int], ...] = (),
) -> Flow:
    """Packet n leaves at n ms and arrives `transit_ms` later; `extra` adds more arrivals as (number, at_ms)."""
    times = {number: number * MS for number in sent}
    arrivals = [Arrival(n, at, at + transit_ms * MS) for n, at in times.items() if n not in lost]
    arrivals += [Arrival(number, number * MS, at * MS) for number, at in extra]
    return Flow(MS, times, sorted(arrivals, key=lambda arrival: arrival.received_ns))


def test_a_quiet_path_has_no_gap_and_no_loss() -> None:
    found = figures(flow(sent=range(1000)), ALL, 0.0)
    assert (found.sent, found.lost, found.duplicated, found.reordered, found.not_sent) == (1000, 0, 0, 0, 0)
    assert found.gap_ms == 0


def test_a_gap_is_the_longest_silence_less_the_probe_interval() -> None:
    found = figures(flow(sent=range(1000), lost=range(100, 160)), ALL, 50.0)
    assert found.lost == 60
    assert found.gap_ms == 60.0  # 61 ms from packet 99 to packet 160, of which 1 ms would be silent anyway
    assert found.added_ms == 10.0


def test_the_added_part_is_signed() -> None:
    assert figures(flow(sent=range(1000), lost=range(10)), ALL, 40.0).added_ms < 0


def test_a_duplicate_is_no_second_packet_and_does_not_hide_a_loss() -> None:
    found = figures(flow(sent=range(1000), lost=(7,), extra=((5, 20), (5, 21))), ALL, 0.0)
    assert (found.lost, found.duplicated, found.reordered) == (1, 2, 0)


def test_a_duplicate_ends_a_silence_but_brings_nothing_new() -> None:
    again = tuple((number, 150 + number - 90) for number in range(90, 100))
    found = figures(flow(sent=range(1000), lost=range(100, 170), extra=again), ALL, 40.0)
    assert found.gap_ms == 150 - 105 - 1
    assert (found.added_ms, found.added_new_ms) == (4.0, 30.0)


def test_a_packet_overtaken_by_later_ones_is_reordered_once() -> None:
    found = figures(flow(sent=range(1000), lost=(50,), extra=((50, 300),)), ALL, 0.0)
    assert (found.lost, found.reordered, found.duplicated) == (0, 1, 0)


def test_a_thawed_sender_skips_slots_which_are_not_losses() -> None:
    found = figures(flow(sent=[*range(400), *range(460, 1000)]), ALL, 60.0)
    assert (found.sent, found.lost, found.not_sent) == (940, 0, 60)
    assert found.gap_ms == 60.0


def test_a_sender_that_never_thaws_skips_to_the_end_of_the_window() -> None:
    found = figures(flow(sent=range(400)), ALL, 0.0)
    assert found.not_sent == 600
    assert found.gap_ms == pytest.approx(1000 - 399 - 6 - 1)


def test_packets_belong_to_the_window_they_were_sent_in() -> None:
    path = flow(sent=range(1000), transit_ms=125, lost=range(495, 505))
    before, after = Window(0, 500 * MS), Window(500 * MS, 1000 * MS)
    assert figures(path, before, 0.0).lost == 5
    assert figures(path, after, 0.0).lost == 5
    assert figures(path, before, 0.0).sent + figures(path, after, 0.0).sent == 1000


def test_a_silence_across_the_edge_counts_whole_on_both_sides() -> None:
    path = flow(sent=range(1000), lost=range(495, 505))
    assert longest_silence_ns(path, Window(0, 500 * MS)) == 11 * MS
    assert longest_silence_ns(path, Window(500 * MS, 1000 * MS)) == 11 * MS
    assert longest_silence_ns(path, Window(600 * MS, 1000 * MS)) == 1 * MS


def test_a_silence_before_or_after_the_window_is_not_its_own() -> None:
    path = flow(sent=range(1000), lost=[*range(100, 160), *range(700, 760)])
    assert longest_silence_ns(path, Window(200 * MS, 600 * MS)) == MS


def test_a_silence_that_never_ends_counts_to_the_end_of_the_window() -> None:
    path = flow(sent=range(1000), lost=range(700, 1000))
    assert longest_silence_ns(path, ALL) == (1000 - 699 - 6) * MS


def test_packets_still_in_flight_at_the_end_are_no_silence() -> None:
    assert longest_silence_ns(flow(sent=range(1000), transit_ms=125), ALL) == MS


def test_a_first_packet_that_never_came_counts_from_when_it_was_sent() -> None:
    assert longest_silence_ns(flow(sent=range(1000), transit_ms=125, lost=range(30)), ALL) == 30 * MS


def test_a_direction_without_any_packet_is_silent_throughout() -> None:
    assert figures(flow(sent=range(1000), lost=range(1000)), ALL, 0.0).gap_ms == 999.0


def test_a_longer_path_shows_as_a_gap_of_the_difference() -> None:
    times = {number: number * MS for number in range(1000)}
    arrivals = [Arrival(n, at, at + (6 if n < 500 else 125) * MS) for n, at in times.items()]
    assert figures(Flow(MS, times, arrivals), ALL, 0.0).gap_ms == 119.0


def test_the_heartbeat_tells_how_long_the_process_stood_still() -> None:
    gaps = [Gap(361 * MS, 62 * MS), Gap(900 * MS, 3 * MS)]
    assert longest_gap_ms(gaps, MS, ALL) == 61.0
    assert longest_gap_ms(gaps, MS, Window(0, 200 * MS)) == 0.0
    assert longest_gap_ms(gaps, MS, Window(320 * MS, 1000 * MS)) == 61.0
    assert longest_gap_ms(gaps, MS, Window(400 * MS, 1000 * MS)) == 2.0


def test_consecutive_numbers_and_skipped_slots_give_back_when_each_packet_was_sent() -> None:
    # ten packets in slots 0-4 and 8-12; packet 6 (slot 9) is lost
    arrivals = [
        Arrival(n, slot * MS, (slot + 6) * MS) for n, slot in enumerate((0, 1, 2, 3, 4, 8, 9, 10, 11, 12)) if n != 6
    ]
    found = flow_of(0, 10, [Skip(5 * MS, 3)], MS, arrivals)
    assert sorted(found.sent) == [0, 1, 2, 3, 4, 8, 9, 10, 11, 12]
    assert found.sent[9] == 9 * MS
    whole = figures(found, Window(0, 13 * MS), 0.0)
    assert (whole.sent, whole.lost, whole.not_sent) == (10, 1, 3)
    assert figures(found, Window(9 * MS, 13 * MS), 0.0).lost == 1


def test_the_top_figures_are_the_worse_direction() -> None:
    both = {"to_service": flow(sent=range(1000), lost=range(10, 20)), "to_user": flow(sent=range(1000), lost=range(40))}
    found = move_figures(both, ALL, 5.0, 4.5)
    assert (found.gap_ms, found.lost) == (found.directions["to_user"].gap_ms, 40)
    assert found.directions["to_service"].lost == 10
    assert found.added_ms == pytest.approx(found.gap_ms - found.blackout_ms)
    assert found.blackout_events_ms == 4.5


def test_a_sender_that_was_late_is_told_from_one_that_was_stopped() -> None:
    late = {0: 0, 1: MS + 400_000, 2: 2 * MS, 5: 5 * MS + 100_000, 6: 6 * MS, 50: 50 * MS}
    path = Flow(MS, late, [])
    assert lateness(path, ALL) == (400_000, 2 + 43)
    assert lateness(path, ALL, without=Window(10 * MS, 60 * MS)) == (400_000, 2)
    assert lateness(path, Window(2 * MS, 8 * MS)) == (100_000, 2)
    assert lateness(Flow(MS, {}, []), ALL) == (0, 0)


def test_round_trips_are_medians_of_their_window() -> None:
    echoes = [Echo(at * MS, (12 if at < 500 else 250) * MS) for at in range(1000)]
    assert median_rtt_ms(echoes, Window(0, 500 * MS)) == 12.0
    assert median_rtt_ms(echoes, Window(500 * MS, 900 * MS)) == 250.0
    assert median_rtt_ms(echoes, Window(2000 * MS, 3000 * MS)) is None


def test_the_windows_part_well_before_the_service_stops() -> None:
    assert split_ns(1000 * MS, 6000 * MS) == 4750 * MS
