"""What the papers' scheme adds to a move by the delays alone, from the messages that it sends (docs/fidelity.md). Pure.

H2 is the target's hypervisor, C the controller, 1 the source's router, 2 the target's, 3 the user's, M the Map-Server.
At RESUME H2 tells C (its agent's event), and C tells 1 and 2 at once (Map-Notify). Two messages then end the old
mapping at 1, and the first counts:

    directly      C -> 1             d(C,1)
    registered    C -> 2 -> M -> 1   d(C,2) + d(2,M) + d(M,1): 2 registers, and M tells the router whose registration
                                     has been replaced (RFC 9301 §8.2)

1 tells 3 (Map-Notify), and 3's next packet goes to 2, which delivers since the machine announced itself (ADR 5):

    added = d(H2,C) + min(directly, registered) + d(1,3) + d(3,2)

Other messages move nothing: M publishes to C alone, our routers' data carries no map-versions, and acknowledgements
are not waited for.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from lispfmc.experiment.network import Delays
from lispfmc.lab.topology import FMCC, MAPSERVER


class Ways(msgspec.Struct, frozen=True):
    """One-way delays in milliseconds: until the controller has `heard`, the two ways to the source's router, `onward`
    to the user's router and on to the target, and from the controller to the `target`'s router."""

    heard: float
    direct: float
    registered: float
    onward: float
    target: float

    @property
    def told(self) -> float:
        return min(self.direct, self.registered)

    @property
    def name(self) -> str:
        return "by the controller" if self.direct <= self.registered else "by the target's registration"

    @property
    def shortest(self) -> float:
        """What the delays alone make of it."""
        return round(self.heard + self.told + self.onward, 3)


def ways(
    rtts_ms: Mapping[frozenset[str], float],
    source: str,
    target: str,
    user: str,
    hypervisor_ms: float | None = None,
) -> Ways:
    """Of a move from `source` to `target`; `user` is the user's access network. `hypervisor_ms`: the controller's
    round-trip time to the target's hypervisor, where it is not that to its router."""
    d = Delays(rtts_ms).between
    return Ways(
        heard=d(target, FMCC) if hypervisor_ms is None else hypervisor_ms / 2,
        direct=d(FMCC, source),
        registered=d(FMCC, target) + d(target, MAPSERVER) + d(MAPSERVER, source),
        onward=d(source, user) + d(user, target),
        target=d(FMCC, target),
    )
