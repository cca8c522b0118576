"""What it means that a dynamic EID shows up here or leaves, one row for each way of moving: plain values.

A row is everything in which the ways differ for a tunnel router; `xtr.presence`, `xtr.moves`, `xtr.notices` and
`xtr.forwarding` read it and know none of them by name. docs/schemes.md says where each comes from.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum

import msgspec

from lispfmc.core.prefixes import PrefixTable
from lispfmc.wire.address import Prefix
from xtr.settings import XtrSettings


class Sign(Enum):
    """What makes us register an EID. One that is seen at home for the first time is registered in any case."""

    SHOWN = "shown"
    """Whatever shows that it is here: an announcement for it, ARP, a packet."""
    SENT = "sent"
    """Only what it sends itself: a packet, or an ARP question. Announcements that a hypervisor makes for it are not."""
    HYPERVISOR = "hypervisor"
    """The word of this site's hypervisor."""
    CONTROLLER = "controller"
    """The word of the controller, or of a move that it has prepared."""


class Tells(Enum):
    """Whom we tell of an EID that has left, and how."""

    NOTIFY = "notify"
    """Its peers, at once, and whoever goes on sending to us: signed Map-Notify, SMR to those without a shared key."""
    SOLICIT = "solicit"
    """Its peers, at once, and whoever goes on sending to us: SMR (RFC 9301 §6.1)."""
    SOLICIT_SENDERS = "solicit senders"
    """Only whoever goes on sending to us: SMR."""
    NOBODY = "nobody"


class Mobility(msgspec.Struct, frozen=True):
    """One way of moving, as a tunnel router takes part in it."""

    registers_on: Sign
    sends_on: bool
    """What still arrives for an EID that has left is re-encapsulated to its new place; else it is dropped."""
    tells: Tells

    @property
    def among_routers(self) -> bool:
        """The router where an EID arrives tells the one that it left."""
        return self.registers_on is Sign.HYPERVISOR


WAYS: Mapping[str, Mobility] = {
    "presence": Mobility(Sign.SHOWN, sends_on=True, tells=Tells.NOTIFY),
    "lossless": Mobility(Sign.CONTROLLER, sends_on=True, tells=Tells.NOTIFY),
    "fig9": Mobility(Sign.CONTROLLER, sends_on=False, tells=Tells.NOTIFY),
    "cp": Mobility(Sign.HYPERVISOR, sends_on=False, tells=Tells.NOTIFY),
    "dataplane": Mobility(Sign.SENT, sends_on=False, tells=Tells.SOLICIT_SENDERS),
    "pubsub": Mobility(Sign.SHOWN, sends_on=False, tells=Tells.NOBODY),
    "smr": Mobility(Sign.SHOWN, sends_on=False, tells=Tells.SOLICIT),
}
"""By the name that `[[dynamic]]` gives."""

FIXED = WAYS["presence"]
"""EIDs in no dynamic range: a host of a fixed prefix does not move."""


class Mobilities:
    """The ranges of this router."""

    def __init__(self, settings: XtrSettings) -> None:
        self._ranges: PrefixTable[Mobility] = PrefixTable()
        for dynamic in settings.dynamic:
            self._ranges.set(settings.placed(dynamic.prefix), WAYS[dynamic.mobility])

    def dynamic(self, eid: Prefix) -> Mobility | None:
        """None when `eid` is in no dynamic range."""
        found = self._ranges.longest(eid)
        return found[1] if found else None

    def of(self, eid: Prefix) -> Mobility:
        return self.dynamic(eid) or FIXED
