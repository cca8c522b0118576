"""`mdp`: the threshold of the decision model, for each service by its user's walk and by what its move costs.

The walk is counted from handovers: of those that began at a distance above 0, how many went outward, inward, or kept
the distance. The cost is the time that the copy is expected to take: as measured, or from the machine's size and the
link's rate.
"""

from __future__ import annotations

import msgspec

from fmcc.policy import Decision, State, View
from fmcc.policy.gauge import Gauge, Reading
from fmcc.policy.models.checks import amount
from fmcc.policy.registry import COST_PER_S
from fmcc.policy.table import ThresholdTable
from fmcc.policy.threshold import compared
from lispfmc.wire.errors import LocalError

UNKNOWN_TRANSFER_S = 80.0
REMEMBERED = 1024
"""Handovers of a user that count; older ones fade, so that a user who changes habits is followed."""
PRIOR = 1.0
"""Handovers outward and inward that every user is taken to have made: a symmetric walk until more is known."""
SAME = 1e-9
"""Distances nearer than this are equal."""


class BadState(LocalError):  # noqa: N818 - reads as what it is
    """A saved state is none of ours."""


class Pace(msgspec.Struct):
    """What is counted of one service's user: handovers by what they did to the distance, and where the last one led."""

    outward: float = 0.0
    inward: float = 0.0
    same: float = 0.0
    datacenter: str = ""
    distance: float = 0.0

    @property
    def walk(self) -> tuple[float, float]:
        """p and stay."""
        total = self.outward + self.inward + self.same + 2 * PRIOR
        return (self.outward + PRIOR) / total, self.same / total

    def count(self, datacenter: str, distance: float) -> None:
        """A handover to `distance`. From 0 every way leads outward, which says nothing of the walk."""
        if datacenter == self.datacenter and self.distance > SAME:
            if distance > self.distance + SAME:
                self.outward += 1
            elif distance < self.distance - SAME:
                self.inward += 1
            else:
                self.same += 1
            if self.outward + self.inward + self.same > REMEMBERED:
                self.outward, self.inward, self.same = self.outward / 2, self.inward / 2, self.same / 2
        self.datacenter, self.distance = datacenter, distance


class Mdp:
    """Bounded by the configured services: one `Pace` each."""

    name = "mdp"

    def __init__(
        self, table: ThresholdTable | None = None, gauge: Gauge | None = None, *, cost_per_s: float = COST_PER_S
    ) -> None:
        self._table = table or ThresholdTable()
        self._gauge = gauge or Gauge()
        self._cost_per_s = amount("cost_per_s", cost_per_s)
        self._paces: dict[str, Pace] = {}

    def decide(self, view: View) -> Decision:
        reading = self._gauge.read(view)
        threshold, why = self.threshold(view, reading)
        return compared(view, reading, threshold, self.name, why)

    def threshold(self, view: View, reading: Reading) -> tuple[int, str]:
        """The table's, and why it is this."""
        pace = self._paces.get(view.service)
        p, stay = pace.walk if pace is not None else Pace().walk
        cost = self.cost(reading)
        return self._table.threshold(p, stay, cost), f" (p {p:.2f}, stay {stay:.2f}, cost {cost:.3g})"

    def cost(self, reading: Reading) -> float:
        """Of a move to the best place, in steps of distance borne for one handover."""
        transfer_s = reading.best.transfer_s if reading.best is not None else None
        return self._cost_per_s * (UNKNOWN_TRANSFER_S if transfer_s is None else transfer_s)

    def observe(self, view: View) -> None:
        self.observed(view, self._gauge.read(view))

    def observed(self, view: View, reading: Reading) -> None:
        if reading.distance is not None:
            pace = self._paces.get(view.service)
            if pace is None:
                pace = self._paces[view.service] = Pace()
            pace.count(view.datacenter, reading.distance)

    def state(self, service: str) -> State | None:
        pace = self._paces.get(service)
        return None if pace is None else msgspec.structs.asdict(pace)

    def forget(self, service: str) -> None:
        self._paces.pop(service, None)

    def restore(self, service: str, state: State) -> None:
        try:
            pace = msgspec.convert(dict(state), Pace)
        except (msgspec.ValidationError, TypeError, ValueError) as error:
            raise BadState(f"the saved walk of {service}: {error}; it is learned anew") from error
        if not all(0 <= count <= 2 * REMEMBERED for count in (pace.outward, pace.inward, pace.same)):
            raise BadState(f"the saved walk of {service}: impossible counts; it is learned anew")
        self._paces[service] = pace
