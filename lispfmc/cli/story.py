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
    "EMULATED VM: the service is a process in a namespace that is frozen and continued; "
    "copy time and pause are configured, not a hypervisor's."
)
MEANING = {
    "link_down": "the user's link goes down",
    "link_up": "its link to the new site is up",
    "announced": "it has announced itself there",
    "registered": "the Map-Server has the new mapping",
    "published": "the controller has heard of it",
    "decision": "the controller has decided",
    "copy": "the hypervisor copies the service",
    "stop": "STOP: the service stands still",
    "resume": "RESUME: it runs at the new site",
    "notified": "both tunnel routers are told",
    "acknowledged": "both have acknowledged",
    "committed": "the Map-Server has published it",
}


class _Row(NamedTuple):
    title: str
    value: Callable[[MoveFigures | Figures], object]


_ROWS = (
    _Row("gap D, ms", lambda one: one.gap_ms),
    _Row("blackout B, ms", lambda one: one.blackout_ms),
    _Row("added A = D - B, ms", lambda one: one.added_ms),
    _Row("packets lost", lambda one: one.lost),
    _Row("duplicated", lambda one: one.duplicated),
    _Row("reordered", lambda one: one.reordered),
    _Row("not sent", lambda one: one.not_sent),
)


def phase_text(phase: Phase) -> str:
    """One phase as a line."""
    return f"{phase.at_ms:10.1f} ms  {phase.name:<13} {MEANING[phase.name]}"


def print_report(report: MoveReport, *, phases: bool) -> None:
    """The whole story; `phases` = also the phases (they may have been told already as they happened)."""
    if report.emulated and report.figures is not None:
        print_text(EMULATED)
    print_text(_headline(report))
    if phases:
        print_text("\n".join(phase_text(phase) for phase in report.phases))
    if report.figures is None:
        return
    rtt = report.figures.rtt_ms
    print_text("")
    print_text(
        f"round trip {report.user} - {report.service}: {_rtt(rtt.before)} -> {_rtt(rtt.during)} -> {_rtt(rtt.after)}"
    )
    print_text("(before; when the user had moved and the service had not; when the service had followed)")
    print_text("")
    _print_figures(report.figures.user_move, report.figures.service_move)
    print_text("")
    print_text(
        f"one probe per {report.interval_ms:g} ms and direction; D: the receiver's longest silence; "
        "B: link down to announcement (user), the service's own heartbeat (service)"
    )
    if any(figures.added_ms < 0 for figures in _every_direction(report.figures)):
        print_text("A below 0: the first packets of the new, shorter path came before the last ones of the old path")


def _every_direction(figures: Measured) -> list[Figures]:
    moves = (figures.user_move, figures.service_move)
    return [direction for one in moves if one is not None for direction in one.directions.values()]


def _headline(report: MoveReport) -> str:
    if report.outcome == ALREADY_THERE:
        return f"{report.user} is at {report.to_site} already"
    moved = f"{report.user} moved from {report.from_site or 'nowhere'} to {report.to_site}"
    if report.outcome == Outcome.committed.value:
        return f"{moved}; its service {report.service} followed from {report.service_from} to {report.service_to}"
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
        rows.insert(2, ["B by hypervisor events, ms", None, None, None, service_move.blackout_events_ms, None, None])
    print_table(columns, rows)


def _rtt(value: float | None) -> str:
    return "no answer" if value is None else f"{value:.1f} ms"
