"""Who may say what: finds the site whose key a Map-Register carries, and the EIDs that the site may register."""

from __future__ import annotations

from collections.abc import Sequence

from lispfmc.core.prefixes import PrefixTable
from lispfmc.wire.address import Endpoint, Ip, Prefix
from lispfmc.wire.auth import verify
from lispfmc.wire.messages import MapRegister
from mapserver.settings import SiteSettings

SENDERS_REMEMBERED = 65_536  # addresses whose site we know, so that the next message costs one check of its MAC


class Sites:
    """The configured sites."""

    def __init__(self, sites: Sequence[SiteSettings]) -> None:
        self._by_key_id: dict[int, list[SiteSettings]] = {}
        self._by_xtr: dict[Ip, SiteSettings] = {}
        self._senders: dict[Ip, SiteSettings] = {}
        self._fixed: dict[str, PrefixTable[bool]] = {}  # by site name: True = more-specifics as well
        self._roaming: dict[str, PrefixTable[None]] = {}
        for site in sites:
            self._by_key_id.setdefault(site.key_id, []).append(site)
            self._by_xtr.update(dict.fromkeys(site.xtrs, site))
            fixed = self._fixed[site.name] = PrefixTable()
            roaming = self._roaming[site.name] = PrefixTable()
            for prefix in site.prefixes:
                fixed.set(site.placed(prefix), site.accept_more_specifics)
            for prefix in site.roaming:
                roaming.set(site.placed(prefix), None)

    def authenticate(self, register: MapRegister, datagram: bytes, source: Endpoint) -> SiteSettings | str:
        """The site that signed it, or the reason of the refusal. RFC 9301 §5.6."""
        candidates = self._candidates(register.key_id, source.ip)
        if not candidates:
            return "unknown-key"
        for site in candidates:
            if verify(register, datagram, site.key):
                self._remember(source.ip, site)
                return site
        return "bad-authentication"

    def may_register(self, site: SiteSettings, eid: Prefix) -> bool:
        """Whether `eid` is a fixed prefix of the site (or, where accepted, a part of one) or a host that roams."""
        fixed = self._fixed[site.name]
        if eid in fixed or any(parts for _, parts in fixed.covering(eid)):
            return True
        return eid.is_host and self._roaming[site.name].longest(eid) is not None

    def _candidates(self, key_id: int, sender: Ip) -> list[SiteSettings]:
        known = self._by_xtr.get(sender)
        if known is not None:
            return [known] if known.key_id == key_id else []
        sites = [site for site in self._by_key_id.get(key_id, ()) if not site.xtrs]
        last = self._senders.get(sender)
        return sorted(sites, key=lambda site: site is not last) if last is not None and len(sites) > 1 else sites

    def _remember(self, sender: Ip, site: SiteSettings) -> None:
        if sender not in self._senders and len(self._senders) >= SENDERS_REMEMBERED:
            del self._senders[next(iter(self._senders))]
        self._senders[sender] = site
