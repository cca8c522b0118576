"""What the scheme of the papers' Fig. 9 should add to a move, from the delays alone. Pure.

H2 is the target's hypervisor, C the controller, 1 the source's router, 2 the target's, 3 the user's. C acts when it has
heard H2's RESUMED, tells 1 and 2, and 1 tells 3, which then sends to 2:

    added = d(H2,C) + max(d(C,1) + d(1,3) + d(3,2), d(C,2))

That is the formula by which schemes are compared. What goes over the wire has branches that it does not have. 2
registers when C has told it, and the Map-Server M tells 1, whose registration is displaced (RFC 9301 §8.2); 1 acts on
the word that is first. And 2 delivers to a machine that announces itself, told or not: C's word only registers it. So

    added = d(H2,C) + min(d(C,1), d(C,2) + d(2,M) + d(M,1)) + d(1,3) + d(3,2)

The two are one where C is equally far from 1 and 2, and differ in a case like the papers' 100 and 10 ms.
"""

from __future__ import annotations

from collections.abc import Mapping

from lispfmc.experiment.network import Delays
from lispfmc.lab.topology import FMCC, MAPSERVER

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
    return round(_heard(d(target, FMCC), hypervisor_ms) + told, 3)


def fig9_by_messages(
    rtts_ms: Mapping[frozenset[str], float],
    source: str,
    target: str,
    user: str,
    hypervisor_ms: float | None = None,
) -> float:
    """The same by the messages that are really sent."""
    d = Delays(rtts_ms).between
    first = min(d(FMCC, source), d(FMCC, target) + d(target, MAPSERVER) + d(MAPSERVER, source))
    return round(_heard(d(target, FMCC), hypervisor_ms) + first + d(source, user) + d(user, target), 3)


def _heard(router_ms: float, hypervisor_ms: float | None) -> float:
    """From RESUME until the controller hears of it."""
    return router_ms if hypervisor_ms is None else hypervisor_ms / 2


def agrees(measured_ms: float, predicted_ms: float) -> bool:
    return abs(measured_ms - predicted_ms) <= SHARE * predicted_ms + ABSOLUTE_MS
