"""What the controller knows of a service after a restart: where it runs, its move, and how far the routers are led."""

from __future__ import annotations

import msgspec

from fmcc.moves import Move, Placement
from fmcc.steering.lead import Lead


class Standing(msgspec.Struct, frozen=True):
    """One service. Written whole at every change, so that the last one says everything."""

    datacenter: str
    version: int
    move: Move | None = None
    lead: Lead | None = None
    format: int = 1

    @classmethod
    def of(cls, placement: Placement, lead: Lead | None) -> Standing:
        return cls(placement.datacenter, placement.version, placement.move, lead)
