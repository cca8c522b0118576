"""A move told to a person: its phases, the round trips, and what was felt of it, in one table."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from lispfmc.cli.output import print_table, print_text
from lispfmc.lab.analysis import Figures, MoveFigures
from lispfmc.lab.measurement import ALREADY_THERE
from lispfmc.lab.phases import Outcome, Phase
from lispfmc.lab.report import Measured, MoveReport

EMULATED = (
    "EMULATED VM: the service is a process that is frozen and continued;\n"
    "copy time and pause are configured, not a hypervisor's."
)
MEANING = {
    "link_down": "the user's link goes down",
    "link_up": "its link to the new site is up",
    "announced": "it has announced itself there",
    "registered": "the Map-Server has the new mapping",
    "published": "the controller has heard of it",
    "decision": "the controller has decided",
    "prepared": "PREPARE: both tunnel routers are ready for it",
    "copy": "the hypervisor copies the service",
    "stop": "STOP: the service stands still",
    "frozen": "FREEZE: the old site's router sends everything to the new one's, which holds it",
    "resume": "RESUME: it runs at the new site",
    "activated": "ACTIVATE: the new site's router delivers what it held, and all that comes",
    "converging": "CONVERGE: the old site's router has let go, and sends on what still comes",
    "notified": "the controller tells both tunnel routers",
    "acknowledged": "both have answered the controller",
    "committed": "COMMIT: the Map-Server has published it",
}


class _Row(NamedTuple):
    title: str
    value: Callable[[MoveFigures | Figures], object]


_ROWS = (
    _Row("D  gap, ms", lambda one: one.gap_ms),
    _Row("B  blackout, ms", lambda one: one.blackout_ms),
    _Row("A  added = D - B, ms", lambda one: one.added_ms),
    _Row("packets lost", lambda one: one.lost),
    _Row("duplicated", lambda one: one.duplicated),
    _Row("reordered", lambda one: one.reordered),
    _Row("not sent", lambda one: one.not_sent),
)


def phase_text(phase: Phase) -> str:
    """One phase as a line."""
    return f"{phase.at_ms:10.1f} ms  {phase.name:<13} {MEANING[phase.name]}"


def print_report(report: MoveReport) -> None:
    """How it ended and what was felt; the phases have been told as they happened."""
    print_text(_headline(report))
    if report.figures is None:
        return
    print_text("")
    print_text(_round_trips(report, report.figures))
    print_text("")
    _print_figures(report.figures.user_move, report.figures.service_move)
    print_text("")
    print_text(f"D  the receiver's longest silence; one probe per {report.interval_ms:g} ms and direction")
    print_text("B  link down to announcement (user), the longest gap of the service's own heartbeat (service)")
    print_text("A  what the network added: D - B")
    if any(figures.added_ms < 0 for figures in _every_direction(report.figures)):
        print_text("   below 0: the first packets of the new, shorter path came before the last ones of the old path")
    if report.emulated:
        print_text("\n" + EMULATED)


def _round_trips(report: MoveReport, figures: Measured) -> str:
    rtt = figures.rtt_ms
    parts = [f"{_rtt(rtt.before)} before", f"{_rtt(rtt.during)} when the user had moved"]
    if figures.service_move is not None:
        parts.append(f"{_rtt(rtt.after)} when the service had followed")
    return f"round trip {report.user} - {report.service}: " + " -> ".join(parts)


def _every_direction(figures: Measured) -> list[Figures]:
    moves = (figures.user_move, figures.service_move)
    return [direction for one in moves if one is not None for direction in one.directions.values()]


def _headline(report: MoveReport) -> str:
    if report.outcome == ALREADY_THERE:
        return f"{report.user} is at {report.to_site} already"
    moved = f"{report.user} moved from {report.from_site or 'nowhere'} to {report.to_site}"
    if report.outcome == Outcome.committed.value:
        by = f", scheme {report.scheme}" if report.scheme else ""
        return f"{moved}; its service {report.service} followed from {report.service_from} to {report.service_to}{by}"
    if report.outcome == Outcome.stays.value:
        return f"{moved}; its service {report.service} stays: {report.reason}"
    if report.outcome == Outcome.failed.value:
        return f"{moved}; the move of its service {report.service} failed: {report.reason}"
    return moved


def _print_figures(user_move: MoveFigures, service_move: MoveFigures | None) -> None:
    moves = {"USER'S MOVE": user_move}
    if service_move is not None:
        moves["SERVICE'S MOVE"] = service_move
    columns = [""]
    sources: list[MoveFigures | Figures] = []
    for title, figures in moves.items():
        columns += [title, "to service", "to user"]
        sources += [figures, figures.directions["to_service"], figures.directions["to_user"]]
    rows: list[list[object]] = [[row.title, *(row.value(source) for source in sources)] for row in _ROWS]
    if service_move is not None and service_move.blackout_events_ms is not None:
        rows.insert(2, ["   by hypervisor events, ms", None, None, None, service_move.blackout_events_ms, None, None])
    print_table(columns, rows)


def _rtt(value: float | None) -> str:
    return "no answer" if value is None else f"{value:.1f} ms"
