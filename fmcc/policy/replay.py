"""What each threshold would have cost: all of them replayed side by side over the handovers that a user made.

Where a user goes does not depend on where its service is, so that every threshold can be judged by the same past. For
each threshold T = 1 .. thr: the data centre where the service would be now, and what it would have cost so far.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence

import msgspec

from fmcc.policy.models.checks import BadParameter

REMEMBERED = 4096
"""Handovers that count in full. Then everything fades by half, so that old habits do."""
NOWHERE = 255
"""A place that is not among the data centres any more."""


class Replay(msgspec.Struct):
    """One service's. `places` are indices into `datacenters`, which may grow; a vanished one is never an index."""

    datacenters: list[str]
    places: bytearray
    costs: array[float]
    handovers: float = 0.0

    @classmethod
    def beginning(cls, datacenter: str, thr: int) -> Replay:
        """Every threshold has the service at `datacenter`."""
        return cls([datacenter], bytearray(thr), array("d", bytes(8 * thr)))

    def handover(self, losses: Sequence[tuple[str, float]], cost: float) -> None:
        """The user is now where `losses` (data centre, steps) hold; a move costs `cost`. O(thr)."""
        if not losses:
            return
        by_place = [float("inf")] * len(self.datacenters)
        best, least = 0, float("inf")
        for name, loss in losses:
            index = self._index(name)
            if index == len(by_place):
                by_place.append(loss)
            else:
                by_place[index] = loss
            if loss < least:
                best, least = index, loss
        places, costs = self.places, self.costs
        for number, place in enumerate(places):
            distance = by_place[place] - least if place != best else 0.0
            if distance >= number + 1:  # the threshold
                places[number] = best
                distance = cost
            costs[number] += distance
        self.handovers += 1
        if self.handovers >= REMEMBERED:
            self.handovers /= 2
            for number in range(len(costs)):
                costs[number] /= 2

    def best(self, start: int) -> int:
        """The threshold that would have cost least; among equals the one nearest to `start`."""
        least = min(self.costs)
        margin = 1e-9 * max(1.0, abs(least))
        equal = [number + 1 for number, cost in enumerate(self.costs) if cost <= least + margin]
        return min(equal, key=lambda threshold: (abs(threshold - start), threshold))

    def _index(self, name: str) -> int:
        try:
            return self.datacenters.index(name)
        except ValueError:
            if len(self.datacenters) >= NOWHERE:
                raise BadParameter(f"more than {NOWHERE} data centres for one service; allow fewer") from None
            self.datacenters.append(name)
            return len(self.datacenters) - 1
