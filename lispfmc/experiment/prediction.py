"""What the scheme of the papers' Fig. 9 should add to a move, from the delays alone. Pure.

H2 is the target's hypervisor, C the controller, 1 the source's router, 2 the target's, 3 the user's. C acts when it has
heard H2's RESUMED, tells 1 and 2, and 1 tells 3, which then sends to 2:

    added = d(H2,C) + max(d(C,1) + d(1,3) + d(3,2), d(C,2))

That is the formula by which schemes are compared. What goes over the wire has branches that it does not have: those are
in `lispfmc.experiment.ways`. The two are one where C is equally far from 1 and 2, and differ in a case like the papers'
100 and 10 ms.
"""

from __future__ import annotations

from lispfmc.experiment.ways import Ways

SHARE, ABSOLUTE_MS = 0.2, 2.0
"""How far a median may be from what was predicted."""


def fig9(ways: Ways) -> float:
    """Milliseconds."""
    return round(ways.heard + max(ways.direct + ways.onward, ways.target), 3)


def agrees(measured_ms: float, predicted_ms: float) -> bool:
    return abs(measured_ms - predicted_ms) <= SHARE * predicted_ms + ABSOLUTE_MS
