"""`learned`: each service's own threshold, the one that would have been best over its user's past handovers.

It starts from the decision model's table and is replaced by the replay once that has seen enough. Real users skip
cells and go back and forth, which the model's walk does not know; the replay does.
"""

from __future__ import annotations

from array import array
from math import isfinite

from fmcc.policy import Decision, State, View
from fmcc.policy.gauge import Gauge
from fmcc.policy.mdp import BadState, Mdp
from fmcc.policy.registry import COST_PER_S
from fmcc.policy.replay import NOWHERE, REMEMBERED, Replay
from fmcc.policy.table import ThresholdTable
from fmcc.policy.threshold import compared

ENOUGH = 20
"""Handovers from which on the replay is believed more than the model."""


class Learned:
    """Bounded by the configured services: one replay each, 10 bytes for each threshold."""

    name = "learned"

    def __init__(
        self, table: ThresholdTable | None = None, gauge: Gauge | None = None, *, cost_per_s: float = COST_PER_S
    ) -> None:
        table = table or ThresholdTable()
        self._thr = table.thr
        self._gauge = gauge or Gauge()
        self._model = Mdp(table, self._gauge, cost_per_s=cost_per_s)
        self._replays: dict[str, Replay] = {}

    def decide(self, view: View) -> Decision:
        reading = self._gauge.read(view)
        start, why = self._model.threshold(view, reading)
        replay = self._replays.get(view.service)
        if replay is None or replay.handovers < ENOUGH:
            seen = 0 if replay is None else int(replay.handovers)
            return compared(view, reading, start, self.name, f" (the model's, {seen} handovers seen{why})")
        threshold = replay.best(start)
        why = f" (best of {int(replay.handovers)} handovers replayed; the model's is {start})"
        return compared(view, reading, threshold, self.name, why)

    def observe(self, view: View) -> None:
        reading = self._gauge.read(view)
        self._model.observed(view, reading)
        replay = self._replays.get(view.service)
        if replay is None:
            replay = self._replays[view.service] = Replay.beginning(view.datacenter, self._thr)
        losses = [(each.datacenter, loss) for each in view.candidates if (loss := self._gauge.loss(each)) is not None]
        replay.handover(losses, self._model.cost(reading))

    def state(self, service: str) -> State | None:
        replay = self._replays.get(service)
        if replay is None:
            return None
        return {
            "handovers": replay.handovers,
            "datacenters": list(replay.datacenters),
            "places": list(replay.places),
            "costs": list(replay.costs),
            "walk": self._model.state(service),
        }

    def forget(self, service: str) -> None:
        self._replays.pop(service, None)
        self._model.forget(service)

    def restore(self, service: str, state: State) -> None:
        """A state of another number of thresholds is refused: what its missing ones would have cost is not known."""
        try:
            places, costs = bytearray(state["places"]), array("d", state["costs"])
            datacenters, handovers = [str(each) for each in state["datacenters"]], float(state["handovers"])
        except (KeyError, TypeError, ValueError) as error:
            raise BadState(f"what was learned of {service}: {error!r}; it is learned anew") from error
        if len(places) != self._thr or len(costs) != self._thr:
            raise BadState(
                f"what was learned of {service}: {len(costs)} thresholds, there are {self._thr} now; it is learned anew"
            )
        whole = (
            0 < len(datacenters) <= NOWHERE
            and max(places) < len(datacenters)
            and len(set(datacenters)) == len(datacenters)
        )
        if not whole or not all(map(isfinite, costs)) or not 0 <= handovers <= REMEMBERED:
            raise BadState(f"what was learned of {service}: impossible values; it is learned anew")
        if state.get("walk") is not None:
            self._model.restore(service, state["walk"])
        self._replays[service] = Replay(datacenters, places, costs, handovers)
