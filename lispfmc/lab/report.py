"""The report of a move: which instants part the windows, what was measured in each, and the JSON that says so. Pure."""

from __future__ import annotations

from typing import Any

import msgspec

from lispfmc.lab.analysis import (
    NS_PER_MS,
    MoveFigures,
    RttMs,
    Window,
    longest_gap_ms,
    median_rtt_ms,
    move_figures,
    split_ns,
)
from lispfmc.lab.phases import Phase
from lispfmc.lab.probes import Logs


class Instants(msgspec.Struct, frozen=True):
    """The monotonic times that part the windows. None = that did not happen."""

    begin: int
    link_down: int
    announced: int
    stop: int | None
    resume: int | None
    committed: int | None
    end: int


class Measured(msgspec.Struct, frozen=True):
    """What was measured."""

    user_move: MoveFigures
    service_move: MoveFigures | None
    rtt_ms: RttMs


class MoveReport(msgspec.Struct, frozen=True):
    """One user's move, measured or not."""

    lab: str
    user: str
    service: str | None
    from_site: str | None
    to_site: str
    outcome: str
    reason: str = ""
    phases: list[Phase] = []
    service_from: str | None = None
    service_to: str | None = None
    scheme: str | None = None
    driver: str | None = None
    emulated: bool | None = None
    figures: Measured | None = None
    interval_ms: float | None = None
    logs: str | None = None
    environment: dict[str, Any] | None = None

    def document(self) -> dict[str, Any]:
        """The report as one JSON object; its keys are an API."""
        measured: dict[str, Any] = {}
        if self.figures is not None:
            user_move, service_move = self.figures.user_move, self.figures.service_move
            rtt_ms = msgspec.to_builtins(self.figures.rtt_ms)
            measured = {
                "interval_ms": self.interval_ms,
                "user_move": _move_document(self.from_site, self.to_site, user_move, rtt_ms),
                "service_move": service_move
                and _move_document(self.service_from, self.service_to, service_move, rtt_ms),
                "rtt_ms": rtt_ms,
                "logs": self.logs,
                "environment": self.environment,
            }
        return {
            "emulated": self.emulated,
            "driver": self.driver,
            "scheme": self.scheme,
            "lab": self.lab,
            "user": self.user,
            "service": self.service,
            "from": self.from_site,
            "to": self.to_site,
            "outcome": self.outcome,
            "reason": self.reason,
            "phases": msgspec.to_builtins(self.phases),
            **measured,
        }


def figures_of(logs: Logs, at: Instants) -> Measured:
    """The figures of both moves. The user's window ends, and the service's begins, well before STOP."""
    split = at.end if at.stop is None else split_ns(at.announced, at.stop)
    user_window, service_window = Window(at.begin, split), Window(split, at.end)
    # for a user's move the blackout is the time without a link (the user runs on)
    user_move = move_figures(logs.flows, user_window, (at.announced - at.link_down) / NS_PER_MS)
    service_move = None
    if at.stop is not None and at.resume is not None:
        blackout = longest_gap_ms(logs.gaps, logs.heartbeat_interval_ns, service_window)
        service_move = move_figures(logs.flows, service_window, blackout, (at.resume - at.stop) / NS_PER_MS)
    rtt = RttMs(
        before=median_rtt_ms(logs.echoes, Window(at.begin, at.link_down)),
        during=median_rtt_ms(logs.echoes, Window(at.announced, at.stop or at.end)),
        after=median_rtt_ms(logs.echoes, Window(at.committed or at.resume or at.end, at.end)),
    )
    return Measured(user_move, service_move, rtt)


def _move_document(
    source: str | None, target: str | None, figures: MoveFigures, rtt_ms: dict[str, float | None]
) -> dict[str, Any]:
    """One move's figures; it repeats the round-trip times, so that it can be read alone."""
    return {"from": source, "to": target, **msgspec.to_builtins(figures), "rtt_ms": rtt_ms}
