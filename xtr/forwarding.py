"""The map-cache and what the data plane must be told about it, kept in step.

Mappings and the health of locators go in, `Install` and `Remove` come out, with the events that say so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from lispfmc.core.effects import Emit, Reject
from lispfmc.core.mapcache import MapCache, Mapping, best
from lispfmc.core.mapcache import ttl_s as record_ttl_s
from lispfmc.core.versions import newer
from lispfmc.wire.address import Endpoint, Ip, Prefix, ip_text
from lispfmc.wire.messages import Action, EidRecord, MapReply
from xtr.effects import Drop, Forward, Hop, Install, Native, Remove, XtrEffect
from xtr.locators import Locators
from xtr.mobility import Mobilities
from xtr.settings import XtrSettings


class Forwarding:
    """Owns the map-cache; everybody may read it, changes go through here."""

    def __init__(
        self,
        settings: XtrSettings,
        request_nonces: Iterator[int],
        used: Callable[[Prefix], float | None] = lambda _: None,
    ) -> None:
        """`used` says when a packet last went by the data plane's entry of a prefix."""
        self.cache = MapCache(settings.limits.map_cache_entries, used)
        self.locators = Locators(settings, request_nonces, self.cache.behind)
        self._mobilities = Mobilities(settings)
        self._interworking = settings.interworking
        self._ours = frozenset(settings.rlocs)
        self._address_sizes = frozenset(len(rloc) for rloc in settings.rlocs)

    def ours(self, rlocs: Iterable[Ip]) -> bool:
        """True when packets for such a mapping would come to us."""
        return any(rloc in self._ours for rloc in rlocs)

    def learn(self, mapping: Mapping) -> list[XtrEffect]:
        """Use `mapping` from now on."""
        before = self.cache.get(mapping.eid)
        left = self.cache.put(mapping)
        self.locators.learned(mapping.rlocs, mapping.learned)
        effects: list[XtrEffect] = [self.install(mapping)]
        if before is None or _essence(before) != _essence(mapping):
            effects.append(self._installed(mapping))
        return effects + self._removed(left, "evicted")

    def install(self, mapping: Mapping) -> Install:
        """What the data plane does with packets for `mapping`."""
        shares = best(mapping.locators, self._address_sizes, self.locators.down)
        if shares:
            hops = tuple(Hop(*share) for share in shares)
            away = mapping.away and self._mobilities.of(mapping.eid).sends_on
            return Install(mapping.eid, Forward(hops, away=away, sink=mapping.away and not away))
        if mapping.locators or mapping.action != Action.NATIVELY_FORWARD:
            return Install(mapping.eid, Drop())
        # RFC 9301 §5.4 and RFC 6832 §6: to a Proxy-ETR that is configured, else as the plain routing table says
        petrs = [rloc for rloc in self._interworking.petrs if len(rloc) in self._address_sizes]
        if petrs:
            return Install(mapping.eid, Forward(tuple(Hop(rloc, 1) for rloc in petrs)))
        route = self._interworking.natively_forward == "route"
        return Install(mapping.eid, Native() if route else Drop(native=True))

    def probed(self, reply: MapReply, source: Endpoint, now: float) -> list[XtrEffect]:
        """The answer to an RLOC-probe: the locator answers, and has said what its mapping is now."""
        answer = self.locators.answered(reply, source, now)
        if isinstance(answer, Reject):
            return [answer]
        rloc, effects = answer
        if effects:
            effects += self._installed_anew(rloc)
        record = reply.records[0]
        before = self.cache.get(record.prefix) if record.prefix is not None else None
        if before is not None and rloc in before.rlocs and not before.away and self._news(before, record):
            mapping = Mapping(
                before.eid,
                record.locators,
                record.action,
                record.map_version,
                "probe",
                now,
                now + record_ttl_s(record),
            )
            effects += self.learn(mapping)
        return effects

    def _news(self, before: Mapping, record: EidRecord) -> bool:
        """Whether a probe's answer changes our mapping: the bits L and p are about the answer, not the mapping."""
        if not record.locators or not record.ttl_minutes or newer(before.version, record.map_version):
            return False
        known = [(each.address, each.priority, each.weight, each.reachable) for each in before.locators]
        told = [(each.address, each.priority, each.weight, each.reachable) for each in record.locators]
        return known != told or record.map_version != before.version

    def _installed_anew(self, rloc: Ip) -> list[XtrEffect]:
        return [self.install(mapping) for mapping in self.cache.all_behind(rloc)]

    def forget(self, eid: Prefix, cause: str) -> list[XtrEffect]:
        """The next packet for `eid` is a miss."""
        return self._removed(self.cache.remove(eid), cause)

    def next_deadline(self) -> float | None:
        deadlines = (self.cache.next_deadline(), self.locators.next_deadline())
        return min((at for at in deadlines if at is not None), default=None)

    def expired(self, now: float) -> list[XtrEffect]:
        """What has expired leaves; locators are probed, and those that are down are avoided."""
        effects = self._removed(self.cache.expired(now), "expired")
        probes, lost = self.locators.expired(now)
        effects += probes
        for rloc in lost:
            effects += self._installed_anew(rloc)
        return effects

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
