"""From probe logs to the figures of a move. Pure: logs and instants in, report values out.

A packet belongs to the window in which it was sent. A gap is the longest silence at the receiver minus the probe
interval (D); the blackout (B) is what the mover itself could not help; added is D - B, signed and never clipped, so
a negative figure shows that the two were measured with different means and not that something was gained.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from statistics import median
from typing import NamedTuple

import msgspec

NS_PER_MS = 1_000_000
SPLIT_AT = 0.75  # the user's window takes this share of the time from its announcement to the service's STOP


class Arrival(NamedTuple):
    """One packet at the receiver; a duplicate is a second arrival of its number."""

    number: int
    sent_ns: int
    received_ns: int


class Echo(NamedTuple):
    """One answered round-trip probe."""

    sent_ns: int
    rtt_ns: int


class Gap(NamedTuple):
    """One silence of the heartbeat: the beat that ended it, and how long after the one before."""

    ended_ns: int
    length_ns: int


class Skip(NamedTuple):
    """Slots that a sender missed because it did not run: when the first one was due, and how many."""

    due_ns: int
    slots: int


class Window(NamedTuple):
    """Half-open: a packet sent at `end_ns` belongs to the next window."""

    begin_ns: int
    end_ns: int

    def holds(self, at_ns: int) -> bool:
        return self.begin_ns <= at_ns < self.end_ns


class Flow(msgspec.Struct, frozen=True):
    """What was seen of one direction. `sent` maps each number to its time; numbers count the sender's slots."""

    interval_ns: int
    sent: Mapping[int, int]
    arrivals: Sequence[Arrival]


def flow_of(first_ns: int, packets: int, skips: Iterable[Skip], interval_ns: int, arrivals: Iterable[Arrival]) -> Flow:
    """The flow of a sender that numbered its `packets` consecutively and skipped the slots of `skips`.

    Packets that arrived say when they were sent; for the lost ones the slot says it.
    """
    missed: dict[int, int] = {}
    for skip in skips:
        missed[round((skip.due_ns - first_ns) / interval_ns)] = skip.slots
    slots: list[int] = []
    slot = 0
    for _ in range(packets):
        while slot in missed:
            slot += missed.pop(slot)
        slots.append(slot)
        slot += 1
    renumbered = [
        Arrival(slots[arrival.number], arrival.sent_ns, arrival.received_ns)
        for arrival in arrivals
        if arrival.number < packets
    ]
    sent = {slot: first_ns + slot * interval_ns for slot in slots}
    sent.update((arrival.number, arrival.sent_ns) for arrival in renumbered)
    return Flow(interval_ns, sent, renumbered)


class Figures(msgspec.Struct, frozen=True):
    """One direction through one move."""

    gap_ms: float
    blackout_ms: float
    added_ms: float
    sent: int
    lost: int
    duplicated: int
    reordered: int
    not_sent: int
    added_new_ms: float = 0.0
    """The same with first copies alone: a duplicate ends a silence, but tells nothing new."""


class MoveFigures(msgspec.Struct, frozen=True):
    """Both directions through one move; each figure above them is the worse direction's."""

    gap_ms: float
    blackout_ms: float
    added_ms: float
    lost: int
    duplicated: int
    reordered: int
    not_sent: int
    directions: Mapping[str, Figures]
    blackout_events_ms: float | None = None
    added_new_ms: float = 0.0


class RttMs(msgspec.Struct, frozen=True):
    """Median round trips: before the moves, between them (user moved, service not yet), and after both."""

    before: float | None
    during: float | None
    after: float | None


def figures(flow: Flow, window: Window, blackout_ms: float) -> Figures:
    """What one direction went through in `window`."""
    numbers = {number for number, at in flow.sent.items() if window.holds(at)}
    copies = [arrival for arrival in flow.arrivals if arrival.number in numbers]
    first_copies = {arrival.number for arrival in copies}
    gap_ms = max(0, longest_silence_ns(flow, window) - flow.interval_ns) / NS_PER_MS
    new = msgspec.structs.replace(flow, arrivals=_firsts(flow.arrivals))
    new_gap_ms = max(0, longest_silence_ns(new, window) - flow.interval_ns) / NS_PER_MS
    return Figures(
        gap_ms=_ms(gap_ms),
        blackout_ms=_ms(blackout_ms),
        added_ms=_ms(gap_ms - blackout_ms),
        sent=len(numbers),
        lost=len(numbers) - len(first_copies),
        duplicated=len(copies) - len(first_copies),
        reordered=sum(1 for number in _reordered(flow.arrivals) if number in numbers),
        not_sent=_skipped_slots(flow, window),
        added_new_ms=_ms(new_gap_ms - blackout_ms),
    )


def move_figures(
    flows: Mapping[str, Flow], window: Window, blackout_ms: float, blackout_events_ms: float | None = None
) -> MoveFigures:
    """Every direction of `flows` through one move, and the worse figure of each kind."""
    directions = {name: figures(flow, window, blackout_ms) for name, flow in flows.items()}
    every = directions.values()
    return MoveFigures(
        gap_ms=max(one.gap_ms for one in every),
        blackout_ms=_ms(blackout_ms),
        added_ms=max(one.added_ms for one in every),
        lost=max(one.lost for one in every),
        duplicated=max(one.duplicated for one in every),
        reordered=max(one.reordered for one in every),
        not_sent=max(one.not_sent for one in every),
        directions=directions,
        blackout_events_ms=None if blackout_events_ms is None else _ms(blackout_events_ms),
        added_new_ms=max(one.added_new_ms for one in every),
    )


def longest_silence_ns(flow: Flow, window: Window) -> int:
    """The longest time without a packet at the receiver that the packets of `window` bear witness to.

    A silence that reaches over an edge of the window counts whole: it is what the receiver felt. Before the first
    arrival of the log the time counts from the first packet sent (a slow path is no silence); after the last arrival
    it counts to the window's end.
    """
    arrivals = sorted(flow.arrivals, key=lambda arrival: arrival.received_ns)
    if not arrivals:
        return window.end_ns - window.begin_ns
    silences = [
        later.received_ns - earlier.received_ns
        for earlier, later in pairwise(arrivals)
        if later.sent_ns >= window.begin_ns and earlier.sent_ns < window.end_ns
    ]
    first, last = arrivals[0], arrivals[-1]
    if first.sent_ns >= window.begin_ns and flow.sent:
        silences.append(min(first.sent_ns, window.end_ns) - max(window.begin_ns, min(flow.sent.values())))
    if last.sent_ns < window.end_ns:
        silences.append(window.end_ns - max(last.received_ns, window.begin_ns))
    return max(silences, default=0)


def longest_gap_ms(gaps: Iterable[Gap], interval_ns: int, window: Window) -> float:
    """The heartbeat's longest gap: how long the process that beats did not run, minus what it sleeps anyway."""
    lengths = (
        gap.length_ns for gap in gaps if gap.ended_ns > window.begin_ns and gap.ended_ns - gap.length_ns < window.end_ns
    )
    return max(0, max(lengths, default=0) - interval_ns) / NS_PER_MS


def first_arrival_ns(flow: Flow, after_ns: int, *, sent_after: bool = False) -> int | None:
    """When the first packet came at or after an instant; `sent_after`: of those that also left after it."""
    times = (
        arrival.received_ns
        for arrival in flow.arrivals
        if arrival.received_ns >= after_ns and (not sent_after or arrival.sent_ns >= after_ns)
    )
    return min(times, default=None)


def lateness(flow: Flow, window: Window, *, without: Window | None = None) -> tuple[int, int]:
    """How well the sender kept its schedule: the worst lateness of a packet (ns), and how many slots it missed.

    What falls into `without` is not the sender's fault: it was stopped. Only packets that arrived say when they left.
    """
    if not flow.sent:
        return 0, 0
    order = sorted(flow.sent.items())
    first = min(at - slot * flow.interval_ns for slot, at in order)
    worst = missed = 0
    before = order[0][0] - 1
    for slot, at in order:
        if window.holds(at) and not (without and without.holds(at)):
            worst = max(worst, at - first - slot * flow.interval_ns)
            missed += slot - before - 1
        before = slot
    return worst, missed


def split_ns(announced_ns: int, stopped_ns: int) -> int:
    """Where the user's move ends and the service's begins: late enough for the user's flows to have converged, and
    long enough before STOP that no packet sent before it can still be on its way then."""
    return announced_ns + int((stopped_ns - announced_ns) * SPLIT_AT)


def median_rtt_ms(echoes: Sequence[Echo], window: Window) -> float | None:
    """The median round trip of the probes sent in `window`; None when none was answered."""
    inside = [echo.rtt_ns for echo in echoes if window.holds(echo.sent_ns)]
    return _ms(median(inside) / NS_PER_MS) if inside else None


def _firsts(arrivals: Sequence[Arrival]) -> list[Arrival]:
    """The first copy of each packet, in the order of arrival."""
    seen: set[int] = set()
    firsts = []
    for arrival in sorted(arrivals, key=lambda arrival: arrival.received_ns):
        if arrival.number not in seen:
            seen.add(arrival.number)
            firsts.append(arrival)
    return firsts


def _reordered(arrivals: Sequence[Arrival]) -> list[int]:
    """Numbers whose first copy came after a later packet's (RFC 4737 §3: a number below the next expected one)."""
    late: list[int] = []
    highest = -1
    for arrival in _firsts(arrivals):
        if arrival.number < highest:
            late.append(arrival.number)
        highest = max(highest, arrival.number)
    return late


def _skipped_slots(flow: Flow, window: Window) -> int:
    """Slots of the window in which the sender did not run (a frozen sender skips them and does not burst later)."""
    order = sorted(flow.sent.items())
    skipped = 0
    for (number, _), (later, later_at) in pairwise(order):
        for slot in range(number + 1, later):
            skipped += window.holds(later_at - (later - slot) * flow.interval_ns)
    if order and order[-1][1] < window.end_ns:
        last_at = max(order[-1][1], window.begin_ns)
        skipped += max(0, (window.end_ns - last_at) // flow.interval_ns - 1)  # it never came back
    return skipped


def _ms(value: float) -> float:
    return round(value, 3)
