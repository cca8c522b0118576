"""What the scheme of the papers' Fig. 9 should add to a move, from the delays alone. Pure.

H2 is the target's hypervisor, C the controller, 1 the source's router, 2 the target's, 3 the user's. C acts when it has
heard H2's RESUMED, tells 1 and 2, and 1 tells 3, which then sends to 2:

    added = d(H2,C) + max(d(C,1) + d(1,3) + d(3,2), d(C,2))
"""

from __future__ import annotations

from collections.abc import Mapping

from lispfmc.experiment.network import Delays
from lispfmc.lab.topology import FMCC

SHARE, ABSOLUTE_MS = 0.2, 2.0
"""How far a median may be from what was predicted."""


def fig9(
    rtts_ms: Mapping[frozenset[str], float],
    source: str,
    target: str,
    user: str,
    hypervisor_ms: float | None = None,
) -> float:
    """Milliseconds for a move from `source` to `target`; `user` is the user's access network. `hypervisor_ms`: the
    controller's round-trip time to the target's hypervisor, where it is not that to its router."""
    d = Delays(rtts_ms).between
    told = max(d(FMCC, source) + d(source, user) + d(user, target), d(FMCC, target))
    heard = d(target, FMCC) if hypervisor_ms is None else hypervisor_ms / 2
    return round(heard + told, 3)


def agrees(measured_ms: float, predicted_ms: float) -> bool:
    return abs(measured_ms - predicted_ms) <= SHARE * predicted_ms + ABSOLUTE_MS
