"""When a receiver that was told to stop may: nothing that is only late counts as lost, and nobody waits for ever."""

from __future__ import annotations

from lispfmc.lab.workload import DRAIN_S, SILENT_S, Ebb


def test_a_receiver_that_is_told_to_stop_waits_for_silence() -> None:
    ebb = Ebb()
    ebb.came(9.9)
    assert not ebb.over(10.0), "it is told now"
    ebb.came(10.0 + 0.9 * SILENT_S)
    assert not ebb.over(10.0 + 1.5 * SILENT_S), "a late packet prolongs it"
    assert ebb.over(10.0 + 2 * SILENT_S)
    assert not ebb.cut_short


def test_where_packets_never_end_it_stops_all_the_same_and_says_so() -> None:
    ebb = Ebb()
    at = 10.0
    while not ebb.over(at):
        at += 0.5 * SILENT_S
        ebb.came(at)
        assert at <= 10.0 + DRAIN_S + SILENT_S
    assert ebb.cut_short
