"""What the scheme of the papers' Fig. 9 should add to a move, from the delays alone. Pure.

H2 is the target's hypervisor, C the controller, 1 the source's router, 2 the target's, 3 the user's. C acts when it has
heard H2's RESUMED, tells 1 and 2, and 1 tells 3, which then sends to 2:

    added = d(H2,C) + max(d(C,1) + d(1,3) + d(3,2), d(C,2))

1 also forwards what it still gets once it has been told, so packets may be at 2 sooner, d(H2,C) + d(C,1) + d(1,2);
both are given.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from lispfmc.experiment.network import Delays
from lispfmc.lab.topology import FMCC

SHARE, ABSOLUTE_MS = 0.2, 2.0
"""How far a median may be from what was predicted."""


class Prediction(msgspec.Struct, frozen=True):
    """Added downtime in milliseconds, with and without what the source's router forwards."""

    added_ms: float
    forwarding_ms: float

    def holds(self, measured_ms: float) -> bool:
        """Whether the figure is between the two, as far as the tolerance goes."""
        low, high = min(self.added_ms, self.forwarding_ms), self.added_ms
        return _below(low) <= measured_ms <= _above(high)


def fig9(rtts_ms: Mapping[frozenset[str], float], source: str, target: str, user: str) -> Prediction:
    """For a move from `source` to `target`; `user` is the user's access network."""
    d = Delays(rtts_ms).between
    heard = d(target, FMCC)
    told = heard + max(d(FMCC, source) + d(source, user) + d(user, target), d(FMCC, target))
    forwarded = heard + max(d(FMCC, source) + d(source, target), d(FMCC, target))
    return Prediction(round(told, 3), round(min(told, forwarded), 3))


def _below(ms: float) -> float:
    return ms * (1 - SHARE) - ABSOLUTE_MS


def _above(ms: float) -> float:
    return ms * (1 + SHARE) + ABSOLUTE_MS
