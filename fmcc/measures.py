"""What the controller's moves and decisions took, as metrics: views of its events.

Events go in by `EventLog.watch`; out come the histograms of blackout and decision, and moves by scheme and outcome.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping

import msgspec

from lispfmc.core.effects import FieldValue
from lispfmc.runtime.events import EventLog
from lispfmc.runtime.metrics import Metrics, decades

OUTCOMES = {"placement.changed": "committed", "migration.unconfirmed": "unconfirmed", "migration.failed": "failed"}
ALARMS = ("user.at-two-sites",)
HALVES_KEPT = 1024  # moves of which STOP or RESUME alone has been heard: more than are ever in flight

Fields = Mapping[str, FieldValue]


class _Instant(msgspec.Struct, frozen=True, gc=False):
    """STOP or RESUME: as the hypervisor timed it, and as the controller heard of it."""

    at_ns: int
    clock: str
    heard_ms: float

    @classmethod
    def of(cls, fields: Fields) -> _Instant:
        return cls(int(str(fields["monotonic_ns"])), str(fields["clock"]), float(str(fields["at_ms"])))


class Measures:
    """See the module. `began`: when the input came that an event follows from; CLOCK_MONOTONIC seconds."""

    def __init__(
        self,
        events: EventLog,
        metrics: Metrics,
        schemes: Collection[str],
        *,
        default: str,
        began: Callable[[], float],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`default` is the scheme of moves that name none."""
        self._began, self._clock, self._default = began, clock, default
        self._halves: OrderedDict[str, _Instant] = OrderedDict()
        # all of them from the start, at zero: a rule that looks for an increase misses the first one otherwise
        self._moves: dict[tuple[str, ...], int] = {
            (scheme, outcome): 0 for scheme in schemes for outcome in OUTCOMES.values()
        }
        self._blackout = metrics.histogram(
            "lispfmc_blackout_seconds", "Time that a moving service stood still, STOP to RESUME", decades(0.005, 60)
        )
        self._decision = metrics.histogram(
            "lispfmc_decision_seconds", "From the message that asks for a decision to the decision", decades(5e-5, 0.5)
        )
        metrics.table("lispfmc_moves", "Moves by scheme and outcome", ("scheme", "outcome"), lambda: self._moves)
        metrics.alarms(*ALARMS)
        events.watch("decision.made", self._decided)
        events.watch("migration.stopped", self._stopped)
        events.watch("migration.resumed", self._resumed)
        for name in OUTCOMES:
            events.watch(name, self._ended(OUTCOMES[name]))

    def _decided(self, fields: Fields) -> None:
        if fields["decision"] != "later":  # that is none yet
            self._decision.observe(self._clock() - self._began())

    def _stopped(self, fields: Fields) -> None:
        if (resumed := self._half(fields)) is not None:
            self._observe(_Instant.of(fields), resumed)

    def _resumed(self, fields: Fields) -> None:
        if (stopped := self._half(fields)) is not None:
            self._observe(stopped, _Instant.of(fields))

    def _half(self, fields: Fields) -> _Instant | None:
        """The other end of the blackout, if it has been heard of: two agents, two paths, any order."""
        move = str(fields["move"])
        other = self._halves.pop(move, None)
        if other is None:
            self._halves[move] = _Instant.of(fields)
            if len(self._halves) > HALVES_KEPT:
                self._halves.popitem(last=False)
        return other

    def _observe(self, stopped: _Instant, resumed: _Instant) -> None:
        if stopped.clock and stopped.clock == resumed.clock:
            self._blackout.observe((resumed.at_ns - stopped.at_ns) / 1e9)
        else:  # clocks of two machines: what the controller heard is right but for the difference of the agents' delays
            self._blackout.observe(max(0.0, resumed.heard_ms - stopped.heard_ms) / 1e3)

    def _ended(self, outcome: str) -> Callable[[Fields], None]:
        def count(fields: Fields) -> None:
            move = fields.get("move")
            if move is None:  # a change of place that was no move of ours
                return
            key = (str(fields.get("scheme") or self._default), outcome)
            self._moves[key] = self._moves.get(key, 0) + 1
            if outcome == "failed":
                self._halves.pop(str(move), None)

        return count
