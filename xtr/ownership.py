"""What changes when an EID becomes ours or somebody else's: registration, the way of its packets, who is told.

Who may say so is decided elsewhere (`xtr.moves`, `xtr.relocations`); here it takes effect, and what has left is kept in
mind for those who still send to it.
"""

from __future__ import annotations

from collections.abc import Callable

from lispfmc.core.effects import Emit
from lispfmc.core.mapcache import Mapping, ttl_s
from lispfmc.wire.address import Ip, Prefix, ip_text
from lispfmc.wire.messages import EidRecord
from xtr.effects import XtrEffect
from xtr.forwarding import Forwarding
from xtr.informer import Informer
from xtr.mobility import Mobilities
from xtr.notices import rlocs_of
from xtr.presence import Activation, Presence
from xtr.proxying import Proxying
from xtr.registrar import Registrar
from xtr.resolution import Resolution
from xtr.settings import XtrSettings

MOST_DEPARTED = 65_536  # the oldest is forgotten: its away entry goes on until it expires


class Ownership:
    """The EIDs that have left, and the parts of the router that must agree about each EID."""

    def __init__(
        self,
        settings: XtrSettings,
        *,
        forwarding: Forwarding,
        presence: Presence,
        registrar: Registrar,
        resolution: Resolution,
        informer: Informer,
        proxying: Proxying,
        peers: Callable[[Prefix], list[Ip]],
    ) -> None:
        self._mobilities = Mobilities(settings)
        self._forwarding = forwarding
        self._presence = presence
        self._registrar = registrar
        self._resolution = resolution
        self._informer = informer
        self._proxying = proxying
        self._peers = peers
        self._departed: dict[Prefix, EidRecord] = {}
        self._left: dict[Prefix, float] = {}

    # --- what is known ------------------------------------------------------------------------------------------------

    def departed(self, eid: Prefix) -> EidRecord | None:
        """Where an EID went that was here."""
        return self._departed.get(eid)

    def pop_left(self, eid: Prefix) -> float | None:
        """When we were told that a host left which was here; asked once."""
        return self._left.pop(eid, None)

    # --- changes ------------------------------------------------------------------------------------------------------

    def returned(self, eid: Prefix) -> None:
        """Its own evidence says that it is here again."""
        self._departed.pop(eid, None)

    def showed(self, eid: Prefix) -> list[XtrEffect]:
        """The host is here: nothing is asked or told about it any more, and no mapping leads elsewhere."""
        self._resolution.cancel(eid)
        self._informer.stop(eid)
        return self._forwarding.forget(eid, "host here")

    def arrive(self, eid: Prefix, version: int, now: float) -> list[XtrEffect]:
        """The EID is ours by this map-version."""
        self._departed.pop(eid, None)
        self._resolution.cancel(eid)
        self._informer.stop(eid)
        effects = self._forwarding.forget(eid, "adopted")
        effects += self._registrar.add(eid, version, now)
        effects.append(Emit("host.adopted", {"eid": str(eid), "version": version}))
        if eid not in self._presence:
            effects += self._presence.probe(eid, now)
        return effects

    def depart(
        self, eid: Prefix, record: EidRecord, by: str, now: float, *, cause: str, inform: bool = True
    ) -> list[XtrEffect]:
        """The EID is where `record` says, by the word of `by`. `inform` its peers, unless somebody else does."""
        before = self._departed.pop(eid, None)
        was_here = eid in self._presence
        was_ours = was_here or self._registrar.version(eid) is not None
        self._departed[eid] = record
        if was_here:
            self._left[eid] = now
        for table in (self._departed, self._left):
            if len(table) > MOST_DEPARTED:
                del table[next(iter(table))]
        self._resolution.cancel(eid)
        changed = was_ours or before is None or rlocs_of(before) != rlocs_of(record)
        words = self._informer.inform(record, eid, self._peers(eid), now) if changed and inform else []
        # first the way to its new place, then the end of local delivery: no packet finds neither
        effects = self.learn(eid, record, by, now, away=True)
        effects += self._presence.lost(eid, cause, now)
        if self._mobilities.of(eid).sends_on:
            effects += words  # nothing is lost from here on
        else:  # its peers go on sending in vain: the word is on its way while the kernel's tables change
            effects = [*words, *effects]
        effects += self._proxying.left(eid) if was_here else []
        self._registrar.drop(eid)
        if changed:
            there = [ip_text(rloc) for rloc in rlocs_of(record)]
            effects.append(Emit("away.installed", {"eid": str(eid), "rlocs": there, "version": record.map_version}))
        if was_ours and self._presence.activation(eid) is Activation.PRESENCE:
            # It may have come back while the notify was on its way: if it answers, that evidence is the newer one.
            effects += self._presence.probe(eid, now)
        return effects

    def learn(self, eid: Prefix, record: EidRecord, by: str, now: float, *, away: bool = False) -> list[XtrEffect]:
        """Send packets for the EID to where `record` says."""
        before = self._forwarding.cache.get(eid)
        if eid in self._departed:
            away = True
            self._departed[eid] = record
        away = away or (before is not None and before.away)
        expires = now + ttl_s(record)
        return self._forwarding.learn(
            Mapping(eid, record.locators, record.action, record.map_version, by, now, expires, away=away)
        )

    # --- those who do not know yet ------------------------------------------------------------------------------------

    def outdated(self, eid: Prefix, sender: Ip, now: float) -> list[XtrEffect]:
        """The xTR at `sender` encapsulates for `eid` of ours by an older map-version (RFC 9302 §7.1)."""
        record = self._registrar.mapping(eid)
        return self._informer.evidence(record, eid, sender, now) if record is not None else []

    def moved_away(self, eid: Prefix, sender: Ip, now: float) -> list[XtrEffect]:
        """A packet for `eid` came from the xTR at `sender`, and `eid` has left."""
        record = self._departed.get(eid) or self._elsewhere(eid, now)
        if record is None or eid in self._presence:
            return []
        return self._informer.evidence(record, eid, sender, now)

    def _elsewhere(self, eid: Prefix, now: float) -> EidRecord | None:
        """Where an EID that may be here is instead, by the mapping that we use: a restart forgot that it departed."""
        mapping = self._forwarding.cache.lookup(eid)
        ours = self._presence.activation(eid) is not Activation.FOREIGN and eid.is_host
        if not ours or mapping is None or not mapping.rlocs or self._forwarding.ours(mapping.rlocs):
            return None
        if self._registrar.version(eid) is not None:
            return None  # it came to us, whatever a less-specific mapping says
        # the host alone: a peer replaces the entry that it sends by; and for as long as ours holds
        minutes = max(1, int((mapping.expires - now) / 60))
        return EidRecord.of(eid, mapping.locators, ttl_minutes=minutes, map_version=mapping.version)
