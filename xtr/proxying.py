"""Standing in for hosts that are elsewhere, so that a host with an ordinary subnet needs no other configuration here.

Such a host asks the link for its gateway's MAC address, and for those of EIDs of its own subnet, wherever they are: it
gets ours, and its packets come to us. An EID that might be here answers for itself first, if it is.
"""

from __future__ import annotations

import msgspec

from lispfmc.core.deadlines import Deadlines
from lispfmc.wire.address import Ip, Prefix
from xtr.effects import StandIn, TakeOver, XtrEffect
from xtr.forwarding import Forwarding
from xtr.presence import Activation, Presence
from xtr.settings import XtrSettings

ANSWER_S = 0.15  # within this a host that is here has answered our question, and the asker's
MOST_ASKERS = 1024  # who wait for that; a flood of questions gets no more answers


class _Asker(msgspec.Struct, frozen=True, gc=False):
    eid: Prefix
    interface: str
    ip: Ip
    mac: bytes


class Proxying:
    """Decides whom we answer for."""

    def __init__(self, settings: XtrSettings, presence: Presence, forwarding: Forwarding) -> None:
        self._enabled = settings.site.proxy
        self._gateways = frozenset(settings.site.gateways)
        self._ranges = settings.eid_ranges
        self._presence = presence
        self._forwarding = forwarding
        self._waiting: Deadlines[_Asker] = Deadlines()

    def sought(self, eid: Prefix, interface: str, asker: Ip, mac: bytes, now: float) -> list[XtrEffect]:
        """The host `asker` on `interface` looks for the MAC address of `eid`."""
        stand_in = StandIn(eid, interface, asker, mac)
        host = self._presence.get(eid)
        if eid.ip in self._gateways and host is None:
            return [stand_in]
        activation = self._presence.activation(eid)
        known = activation is not Activation.FOREIGN or any(prefix.covers(eid) for prefix in self._ranges)
        if not self._enabled or not known:
            return []
        if host is not None:
            return [] if host.interface == interface else [stand_in]
        if activation is Activation.FOREIGN or self._elsewhere(eid):
            return [stand_in]
        waits = _Asker(eid, interface, asker, mac)
        if waits not in self._waiting and len(self._waiting) < MOST_ASKERS:
            self._waiting.set(waits, now + ANSWER_S)
        return self._presence.probe(eid, now)

    def left(self, eid: Prefix) -> list[XtrEffect]:
        """`eid` was here and is not any more: its neighbours still have its MAC address."""
        return [TakeOver(eid)] if self._enabled else []

    def next_deadline(self) -> float | None:
        return self._waiting.next()

    def expired(self, now: float) -> list[XtrEffect]:
        """Nobody has answered: it is not here."""
        late = list(self._waiting.pop_expired(now))
        return [StandIn(each.eid, each.interface, each.ip, each.mac) for each in late if each.eid not in self._presence]

    def _elsewhere(self, eid: Prefix) -> bool:
        mapping = self._forwarding.cache.lookup(eid)
        return mapping is not None and mapping.eid.is_host and bool(mapping.rlocs)
