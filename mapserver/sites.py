"""Who may say what: finds the site whose key a Map-Register carries, and the EIDs that the site may register."""

from __future__ import annotations

from collections.abc import Sequence

from lispfmc.core.prefixes import PrefixTable
from lispfmc.wire.address import Endpoint, Ip, Prefix
from lispfmc.wire.auth import Key, verify
from lispfmc.wire.messages import MapRegister
from mapserver.settings import SiteSettings

SENDERS_REMEMBERED = 65_536  # addresses whose site we know, so that the next message costs one check of its MAC


class Sites:
    """The configured sites."""

    def __init__(self, sites: Sequence[SiteSettings]) -> None:
        self._by_key_id: dict[int, list[tuple[SiteSettings, Key]]] = {}
        self._by_name: dict[str, SiteSettings] = {}
        self._by_xtr: dict[Ip, SiteSettings] = {}
        self._senders: dict[Ip, SiteSettings] = {}
        self._fixed: dict[str, PrefixTable[bool]] = {}  # by site name: True = more-specifics as well
        self._roaming: dict[str, PrefixTable[None]] = {}
        for site in sites:
            self._by_name[site.name] = site
            for key in site.all_keys:
                self._by_key_id.setdefault(key.id, []).append((site, key))
            self._by_xtr.update(dict.fromkeys(site.xtrs, site))
            fixed = self._fixed[site.name] = PrefixTable()
            roaming = self._roaming[site.name] = PrefixTable()
            for prefix in site.prefixes:
                fixed.set(site.placed(prefix), site.accept_more_specifics)
            for prefix in site.roaming:
                roaming.set(site.placed(prefix), None)

    def authenticate(self, register: MapRegister, datagram: bytes, source: Endpoint) -> tuple[SiteSettings, Key] | str:
        """The site that signed it and by which key, or the reason of the refusal. RFC 9301 §5.6."""
        candidates = self._candidates(register.key_id, source.ip)
        if not candidates:
            return "unknown-key"
        for site, key in candidates:
            if verify(register, datagram, key):
                self._remember(source.ip, site)
                return site, key
        return "bad-authentication"

    def key(self, site: str, key_id: int) -> Key | None:
        """The site's key of that id, its own where that one is gone; None for a site that is not configured."""
        settings = self._by_name.get(site)
        if settings is None:
            return None
        return next((key for key in settings.all_keys if key.id == key_id), settings.key)

    def named(self, site: str) -> SiteSettings | None:
        return self._by_name.get(site)

    def may_register(self, site: SiteSettings, eid: Prefix) -> bool:
        """Whether `eid` is a fixed prefix of the site (or, where accepted, a part of one) or a host that roams."""
        fixed = self._fixed[site.name]
        if (site.accept_more_specifics and fixed.covers(eid)) or eid in fixed:
            return True
        return eid.is_host and self._roaming[site.name].covers(eid)

    def may_register_hosts(self, site: SiteSettings, ips: Sequence[Ip]) -> bool:
        """`may_register` for each of these addresses, which are of one family and outside of any Instance-ID."""
        left = ips
        if site.accept_more_specifics:
            left = self._fixed[site.name].uncovered(left)
        if left:
            left = self._roaming[site.name].uncovered(left)
        return all(Prefix.host(ip) in self._fixed[site.name] for ip in left)

    def _candidates(self, key_id: int, sender: Ip) -> list[tuple[SiteSettings, Key]]:
        pairs = self._by_key_id.get(key_id, [])
        if len(pairs) == 1 and not pairs[0][0].xtrs and sender not in self._by_xtr:
            return pairs
        known = self._by_xtr.get(sender)
        if known is not None:
            return [pair for pair in pairs if pair[0] is known]
        last = self._senders.get(sender)
        return sorted((pair for pair in pairs if not pair[0].xtrs), key=lambda pair: pair[0] is not last)

    def _remember(self, sender: Ip, site: SiteSettings) -> None:
        if sender not in self._senders and len(self._senders) >= SENDERS_REMEMBERED:
            del self._senders[next(iter(self._senders))]
        self._senders[sender] = site
