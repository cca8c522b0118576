"""What the controller depends on, and whether it answers: each part is up or down, since when. A change is an event."""

from __future__ import annotations

import time
from collections.abc import Callable

from fmcc.api.answers import PartView
from lispfmc.runtime.events import EventLog


class Parts:
    """Bounded by the configuration: agents, tunnel routers, the Map-Server."""

    def __init__(self, events: EventLog, wall_clock: Callable[[], float] = time.time) -> None:
        self._events = events
        self._wall_clock = wall_clock
        self._parts: dict[str, PartView] = {}

    def expect(self, name: str, kind: str) -> None:
        """A part that has not answered yet: it counts as down from now on."""
        self._parts[name] = PartView(name, kind, up=False, since=round(self._wall_clock(), 3))

    def found(self, name: str, *, up: bool, why: str = "") -> None:
        """The part answers, or does not."""
        part = self._parts[name]
        if part.up is up:
            return
        self._parts[name] = PartView(name, part.kind, up=up, since=round(self._wall_clock(), 3))
        fields = {"part": name, "kind": part.kind}
        if up:
            self._events.append("part.back", fields)
        else:
            self._events.append("part.lost", {**fields, "why": why})

    def view(self) -> list[PartView]:
        return list(self._parts.values())
