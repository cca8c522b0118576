"""How far a data centre is from a user, as a service feels it: its latency curve over the round-trip time.

The curve turns milliseconds into loss of quality, in units of one step of the paper's distance (K = 1). With the
default, a straight line, the paper's model is the special case. A loaded data centre answers later, and so is farther.
"""

from __future__ import annotations

import itertools
from bisect import bisect_right
from collections.abc import Sequence

import msgspec

from fmcc.policy import Candidate, View
from fmcc.policy.models.checks import BadParameter, amount

READINGS_KEPT = 1024
FULL_LOAD = 0.99
"""Waiting grows without bound as the load nears 1; from here on it counts as this."""


class Curve:
    """Quality lost at a round-trip time: straight between points, the last slope goes on beyond the last one."""

    def __init__(self, points: Sequence[tuple[float, float]]) -> None:
        """`points` are (ms, loss), rising in both. Raises BadParameter."""
        if len(points) < 2:
            raise BadParameter("a latency curve needs two points or more; give [[0, 0], [100, 10]], for example")
        for before, after in itertools.pairwise(points):
            if after[0] <= before[0] or after[1] < before[1]:
                raise BadParameter(
                    f"the latency curve goes from {list(before)} to {list(after)}: milliseconds must rise and the "
                    "loss must not fall; put its points in order"
                )
        self._at = [amount("a latency curve's ms", ms) for ms, _ in points]
        self._loss = [amount("a latency curve's loss", loss) for _, loss in points]

    @classmethod
    def straight(cls, step_ms: float) -> Curve:
        """One step of distance each `step_ms`."""
        return cls(((0.0, 0.0), (amount("step_ms", step_ms, positive=True), 1.0)))

    def loss(self, rtt_ms: float) -> float:
        index = min(max(bisect_right(self._at, rtt_ms) - 1, 0), len(self._at) - 2)
        x0, x1, y0, y1 = self._at[index], self._at[index + 1], self._loss[index], self._loss[index + 1]
        return max(0.0, y0 + (rtt_ms - x0) * (y1 - y0) / (x1 - x0))


class Reading(msgspec.Struct, frozen=True, gc=False):
    """Where the service is best served, and how many steps farther it is now. `distance` None: that is not known."""

    best: Candidate | None
    here: Candidate | None
    distance: float | None
    fuller: tuple[str, ...] = ()
    """Data centres that would be better but are full."""


class Gauge:
    """Reads a view. `load_ms` is what a half-loaded data centre adds to its answers."""

    def __init__(self, curve: Curve | None = None, *, load_ms: float = 0.0) -> None:
        self._curve = curve or Curve.straight(10.0)
        self._load_ms = amount("load_ms", load_ms)
        self._read_before: dict[tuple[int, str], tuple[tuple[Candidate, ...], Reading]] = {}

    def loss(self, candidate: Candidate) -> float | None:
        if candidate.rtt_ms is None:
            return None
        if not self._load_ms:
            return self._curve.loss(candidate.rtt_ms)
        load = min(max(candidate.load, 0.0), FULL_LOAD)
        return self._curve.loss(candidate.rtt_ms + self._load_ms * load / (1 - load))

    def read(self, view: View) -> Reading:
        """The nearest data centre with room is the best; where two are equal, the service's own, then by name."""
        # a handover is shown to the policy first and then decided on, and many services have the same candidates
        candidates, key = view.candidates, (id(view.candidates), view.datacenter)
        before = self._read_before.get(key)
        if before is not None and before[0] is candidates:
            return before[1]
        reading = self._read(view)
        if len(self._read_before) >= READINGS_KEPT:
            self._read_before.clear()
        self._read_before[key] = candidates, reading
        return reading

    def _read(self, view: View) -> Reading:
        known = []
        here: Candidate | None = None
        loss_here: float | None = None
        for candidate in view.candidates:
            loss = self.loss(candidate)
            own = candidate.datacenter == view.datacenter
            if own:
                here, loss_here = candidate, loss
            if loss is not None:
                known.append((loss, not own, candidate.datacenter, candidate))
        known.sort(key=lambda each: each[:3])
        full = []
        for loss, elsewhere, name, candidate in known:
            if elsewhere and not candidate.has_room:
                full.append(name)
                continue
            distance = None if loss_here is None else loss_here - loss
            return Reading(candidate, here, distance, tuple(full))
        return Reading(None, here, None, tuple(full))


def told(candidate: Candidate | None) -> str:
    """A place with its distance, for a reason."""
    if candidate is None or candidate.rtt_ms is None:
        return "an unknown distance"
    return f"{candidate.rtt_ms:g} ms"
