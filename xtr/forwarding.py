"""The map-cache and what the data plane must be told about it, kept in step.

Mappings go in, `Install` and `Remove` come out, with the events that say so.
"""

from __future__ import annotations

from collections.abc import Iterable

from lispfmc.core.effects import Emit
from lispfmc.core.mapcache import MapCache, Mapping, best
from lispfmc.wire.address import Ip, Prefix, ip_text
from lispfmc.wire.messages import Action
from xtr.effects import Drop, Forward, Hop, Install, Remove, XtrEffect
from xtr.settings import XtrSettings


class Forwarding:
    """Owns the map-cache; everybody may read it, changes go through here."""

    def __init__(self, settings: XtrSettings) -> None:
        self.cache = MapCache(settings.limits.map_cache_entries)
        self._ours = frozenset(settings.rlocs)
        self._address_sizes = frozenset(len(rloc) for rloc in settings.rlocs)

    def ours(self, rlocs: Iterable[Ip]) -> bool:
        """True when packets for such a mapping would come to us."""
        return any(rloc in self._ours for rloc in rlocs)

    def learn(self, mapping: Mapping) -> list[XtrEffect]:
        """Use `mapping` from now on."""
        before = self.cache.get(mapping.eid)
        left = self.cache.put(mapping)
        effects: list[XtrEffect] = [self.install(mapping)]
        if before is None or _essence(before) != _essence(mapping):
            effects.append(self._installed(mapping))
        return effects + self._removed(left, "evicted")

    def install(self, mapping: Mapping) -> Install:
        """What the data plane does with packets for `mapping`."""
        hops = tuple(Hop(rloc, weight) for rloc, weight in best(mapping.locators, self._address_sizes))
        if hops:
            return Install(mapping.eid, Forward(hops, away=mapping.away))
        native = not mapping.locators and mapping.action == Action.NATIVELY_FORWARD
        return Install(mapping.eid, Drop(native=native))

    def forget(self, eid: Prefix, cause: str) -> list[XtrEffect]:
        """The next packet for `eid` is a miss."""
        return self._removed(self.cache.remove(eid), cause)

    def next_deadline(self) -> float | None:
        return self.cache.next_deadline()

    def expired(self, now: float) -> list[XtrEffect]:
        return self._removed(self.cache.expired(now), "expired")

    def _installed(self, mapping: Mapping) -> Emit:
        return Emit(
            "mapping.installed",
            {
                "eid": str(mapping.eid),
                "rlocs": [ip_text(rloc) for rloc in mapping.rlocs],
                "version": mapping.version,
                "ttl_s": round(mapping.expires - mapping.learned, 3),
                "source": mapping.source,
                "away": mapping.away,
            },
        )

    def _removed(self, eids: Iterable[Prefix], cause: str) -> list[XtrEffect]:
        effects: list[XtrEffect] = []
        for eid in eids:
            effects += [Remove(eid), Emit("mapping.removed", {"eid": str(eid), "cause": cause})]
        return effects


def _essence(mapping: Mapping) -> tuple[object, ...]:
    return mapping.locators, mapping.action, mapping.version, mapping.away
