"""The phases of a user's move and of the service's move that follows, gathered from what the daemons say. Pure.

In: the node agent's answer to `attach`, and events of the Map-Server, the controller and the data centres' tunnel
routers with the time of each on the monotonic clock. Out: each phase with its milliseconds since the user's link went
down, and how it ended.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from enum import Enum
from typing import Any

import msgspec

from lispfmc.lab.analysis import NS_PER_MS

PHASES = (
    "link_down",
    "link_up",
    "announced",
    "registered",
    "published",
    "decision",
    "prepared",
    "copy",
    "stop",
    "frozen",
    "resume",
    "activated",
    "converging",
    "notified",
    "acknowledged",
    "committed",
)
"""In the order in which they are due; the names are an API. `prepared`, `frozen`, `activated` and `converging` are of
moves that the tunnel routers are prepared for."""

LED_BY_ROUTERS = ("lossless", "bicast")
STANDINGS = {"frozen": "frozen", "here": "activated", "gone": "converging"}
"""What a tunnel router's part in a move (`move.standing`) is as a phase."""

MAX_EARLY = 1024  # events kept until the node agent has answered: a busy network must not fill the memory


class Outcome(Enum):
    """How far it went."""

    pending = "pending"
    stays = "stays"  # the policy leaves the service where it is
    committed = "committed"
    failed = "failed"


class Phase(msgspec.Struct, frozen=True):
    name: str
    at_ms: float


class Phases:
    """Tell it what happened; ask it what that means."""

    def __init__(self, user: str, user_eids: frozenset[str], site: str, service: str | None) -> None:
        self._user, self._user_eids, self._site, self._service = user, user_eids, site, service
        self._at: dict[str, int] = {}
        self._early: deque[tuple[str, Mapping[str, Any], int]] = deque(maxlen=MAX_EARLY)
        self._standings: deque[tuple[Mapping[str, Any], int]] = deque(maxlen=MAX_EARLY)
        self.outcome = Outcome.pending
        self.reason = ""
        self.move: str | None = None

    def attached(self, answer: Mapping[str, Any]) -> None:
        """The node agent's answer to `attach`."""
        self._at |= {
            "link_down": int(answer["down_ns"]),
            "link_up": int(answer["up_ns"]),
            "announced": int(answer["announced_ns"]),
        }
        for name, fields, at_ns in self._early:
            self.happened(name, fields, at_ns)
        self._early.clear()

    def happened(self, name: str, fields: Mapping[str, Any], at_ns: int) -> None:
        """An event of the Map-Server, the controller or a tunnel router, in any order: each has its own stream."""
        if "link_down" not in self._at:
            self._early.append((name, fields, at_ns))  # it may overtake the node agent's answer
        elif at_ns >= self._at["link_down"]:  # what happened before is not ours
            self._mapping_event(name, fields, at_ns)

    def _mapping_event(self, name: str, fields: Mapping[str, Any], at_ns: int) -> None:
        if name in ("registration.added", "registration.changed"):
            if fields.get("eid") in self._user_eids:
                self._first("registered", at_ns)
        elif name == "user.moved":
            if (fields.get("user"), fields.get("to")) == (self._user, self._site):
                self._first("published", at_ns)
        elif name == "move.standing":
            self._standing(fields, at_ns)
        elif fields.get("service") == self._service is not None:
            self._service_event(name, fields, at_ns)

    def _standing(self, fields: Mapping[str, Any], at_ns: int) -> None:
        if self.move is None:
            self._standings.append((fields, at_ns))  # it may overtake the controller's word of which move is ours
        elif fields.get("move") == self.move and fields.get("state") in STANDINGS:
            self._first(STANDINGS[fields["state"]], at_ns)

    def _begun(self, move: str | None) -> None:
        self.outcome, self.move = Outcome.pending, move
        early, self._standings = self._standings, deque(maxlen=MAX_EARLY)
        for fields, at_ns in early:
            self._standing(fields, at_ns)

    def _service_event(self, name: str, fields: Mapping[str, Any], at_ns: int) -> None:
        at_ns = int(fields.get("monotonic_ns") or at_ns)  # the hypervisor's own time, where it is passed on
        if name == "decision.made":
            self._decided(fields, at_ns)
        elif name == "migration.requested":
            self._begun(fields.get("move"))
        elif self.move is None or fields.get("move") != self.move:
            return  # of a move that was in flight before, and that ours waits for
        elif name == "steering.prepared":
            if fields.get("scheme") in LED_BY_ROUTERS:
                self._first("prepared", at_ns)
        elif name == "migration.started":
            self._first("copy", at_ns)
        elif name == "migration.stopped":
            self._first("stop", at_ns)
        elif name == "migration.resumed":
            self._first("resume", at_ns)
        elif name == "steering.notified":
            self._first("notified", at_ns)
        elif name == "steering.acknowledged":
            if fields.get("both", True):
                self._first("acknowledged", at_ns)
        elif name == "placement.changed":
            self._first("committed", at_ns)
            self.outcome = Outcome.committed
        elif name == "migration.failed":
            self.outcome, self.reason = Outcome.failed, str(fields.get("reason", ""))

    def _decided(self, fields: Mapping[str, Any], at_ns: int) -> None:
        if fields.get("decision") == "later":
            return
        self._first("decision", at_ns)
        observes = fields.get("mode") == "observe"
        if self.move is None and (fields.get("decision") == "stay" or observes):
            advice = f"the controller only observes, it would choose {fields.get('to')}: " if observes else ""
            self.outcome, self.reason = Outcome.stays, advice + str(fields.get("reason", ""))

    def _first(self, phase: str, at_ns: int) -> None:
        self._at.setdefault(phase, at_ns)

    def at_ns(self, phase: str) -> int | None:
        return self._at.get(phase)

    @property
    def over(self) -> bool:
        """True when nothing more is to come."""
        if self._service is None:
            return "published" in self._at
        return self.outcome is not Outcome.pending and "published" in self._at

    def list(self) -> list[Phase]:
        """What happened so far, in order of time."""
        began = self._at.get("link_down")
        if began is None:
            return []
        known = sorted((at, PHASES.index(name), name) for name, at in self._at.items())
        return [Phase(name, round((at - began) / NS_PER_MS, 3)) for at, _, name in known]
