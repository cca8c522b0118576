"""Who is where, learned from the mapping system's publications. Pure.

Only host routes locate: a user's home prefix is served by its home site wherever the user is. An EID is at the site
that owns the most preferred locator of its mapping; a mapping without locators, or withdrawn, is nowhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeAlias

import msgspec

from fmcc.changes import Changes
from fmcc.world import Service, User, World
from lispfmc.core.versions import newer
from lispfmc.wire.address import Ip, Prefix
from lispfmc.wire.messages import EidRecord, Locator

APART_S = 10.0
"""Publications of a move's two address families come within milliseconds of one another, or of a retransmission."""
UNUSABLE = 255  # RFC 9301 §5.4: a locator of priority 255 must not be used


class UserMoved(msgspec.Struct, frozen=True, gc=False):
    """The user is at another site than before; None = nowhere (before it was first seen, or after it vanished)."""

    user: str
    eid: Prefix
    before: str | None
    site: str | None


class UserApart(msgspec.Struct, frozen=True, gc=False):
    """The user's addresses have been at different sites for too long to be halves of one move; `site` counts."""

    user: str
    site: str
    sites: tuple[str, ...]


class ServicePublished(msgspec.Struct, frozen=True, gc=False):
    """Every EID of the service is now published at this one data centre; `version` is the newest of their map-versions.
    `agreed` False: they differ, so a change may be half published."""

    service: str
    datacenter: str
    version: int
    agreed: bool = True


class VersionPublished(msgspec.Struct, frozen=True, gc=False):
    """The service's EIDs are not all at one place; the newest of their map-versions counts all the same."""

    service: str
    version: int


class SiteLocated(msgspec.Struct, frozen=True, gc=False):
    """The mapping system says which RLOCs serve a site that has none configured."""

    site: str
    rlocs: tuple[Ip, ...]


class Nothing(msgspec.Struct, frozen=True, gc=False):
    """The publication changes nothing that matters here."""


Learned: TypeAlias = UserMoved | UserApart | ServicePublished | VersionPublished | SiteLocated | Nothing


class _Place(msgspec.Struct, frozen=True, gc=False):
    site: str
    version: int


class Whereabouts(msgspec.Struct, frozen=True, gc=False):
    """Where a user is, since when (monotonic seconds)."""

    site: str | None = None
    since: float | None = None


NOWHERE = Whereabouts()


class Locations:
    """The site of every known user's and service's EID. Bounded by their number: other EIDs are ignored."""

    def __init__(self, world: World, changes: Changes | None = None) -> None:
        self._changes = Changes() if changes is None else changes
        self._world = world
        self._site_by_rloc = _by_rloc(world)
        owners: list[User | Service] = [*world.users.values(), *world.services.values()]
        self._owner: dict[Prefix, User | Service] = {eid: owner for owner in owners for eid in owner.eids}
        self._places: dict[Prefix, _Place] = {}
        self._users: dict[str, Whereabouts] = {}
        self._remembered: dict[str, str] = {}
        self._apart: set[str] = set()

    def knows(self, eid: Prefix) -> bool:
        """True for an EID of a known user or service, and for the EID-Prefix of a site that is to be located."""
        return eid in self._owner or eid in self._world.site_prefixes

    def site_at(self, rloc: Ip) -> str | None:
        return self._site_by_rloc.get(rloc)

    def owner(self, eid: Prefix) -> str | None:
        """Whose EID it is."""
        owner = self._owner.get(eid)
        return None if owner is None else owner.name

    def user(self, name: str) -> Whereabouts:
        return self._users.get(name, NOWHERE)

    def remembered(self, user: str, site: str) -> None:
        """Where the user was when we last ran: to be seen elsewhere is a handover that happened meanwhile."""
        self._remembered[user] = site

    def add(self, owner: User | Service) -> None:
        self._owner |= dict.fromkeys(owner.eids, owner)

    def remove(self, owner: User | Service) -> None:
        for eid in owner.eids:
            self._owner.pop(eid, None)
            self._places.pop(eid, None)
        if isinstance(owner, User):
            self._users.pop(owner.name, None)
            self._remembered.pop(owner.name, None)
            self._apart.discard(owner.name)

    def learn(self, record: EidRecord, now: float) -> Learned:
        """Take in one published record."""
        eid = record.prefix
        return Nothing() if eid is None else self.learned(eid, record, now)

    def learned(self, eid: Prefix, record: EidRecord, now: float) -> Learned:
        """The same, of a record whose prefix is known."""
        owner = self._owner.get(eid)
        if owner is None:
            site = self._world.site_prefixes.get(eid)
            return Nothing() if site is None else self._located(site, record)
        here = self._site_of(record)
        before = self._places.get(eid)
        if here is None:
            self._places.pop(eid, None)
        else:
            self._places[eid] = _Place(here, record.map_version)
        if isinstance(owner, User):
            return self._user_at(owner, eid, before.site if before else None, here, now)
        return self._service_at(owner)

    def _located(self, site: str, record: EidRecord) -> Learned:
        rlocs = tuple(locator.address for locator in _usable(record) if isinstance(locator.address, bytes))
        if not rlocs or rlocs == self._world.sites[site]:
            return Nothing()  # a router that has left the mapping system is reached where it was last
        self._world.sites[site] = rlocs
        self._site_by_rloc = _by_rloc(self._world)
        return SiteLocated(site, rlocs)

    def _user_at(self, user: User, eid: Prefix, before: str | None, site: str | None, now: float) -> Learned:
        here = self.user(user.name).site
        if site is None:
            # an address that vanished says nothing while another one of the user's is still somewhere
            site = next(iter(self._sites_of(user.eids)), None)
        elif site == before:
            # a repeated mapping, not a move: the other address may already be elsewhere
            return Nothing() if site == here else self._user_apart(user, now)
        if site == here:
            return Nothing()
        self._users[user.name] = Whereabouts(site, now)
        self._apart.discard(user.name)
        self._changes.users[user.name] = None
        if here is None and site is not None:
            last = self._remembered.pop(user.name, site)
            here = None if last == site else last
        return UserMoved(user.name, eid, here, site)

    def _user_apart(self, user: User, now: float) -> Learned:
        """One address is elsewhere than the user: told once, when that has lasted."""
        here = self.user(user.name)
        sites = tuple(sorted(set(self._sites_of(user.eids))))
        lately = here.since is None or now - here.since < APART_S
        if here.site is None or lately or len(sites) < 2 or user.name in self._apart:
            return Nothing()
        self._apart.add(user.name)
        return UserApart(user.name, here.site, sites)

    def _service_at(self, service: Service) -> Learned:
        places = [place for eid in service.eids if (place := self._places.get(eid)) is not None]
        if not places:
            return Nothing()
        newest = places[0].version
        for place in places:
            newest = place.version if newer(place.version, newest) else newest
        # half of a change: the other address family's publication is still to come
        if len(places) < len(service.eids) or len({place.site for place in places}) > 1:
            return VersionPublished(service.name, newest)
        agreed = all(place.version == newest for place in places)
        return ServicePublished(service.name, places[0].site, newest, agreed)

    def _sites_of(self, eids: Iterable[Prefix]) -> Iterable[str]:
        return (place.site for eid in eids if (place := self._places.get(eid)) is not None)

    def _site_of(self, record: EidRecord) -> str | None:
        """The site of the most preferred locator; None when the mapping leads to no known site."""
        for locator in _usable(record):
            if isinstance(locator.address, bytes) and (site := self._site_by_rloc.get(locator.address)) is not None:
                return site
        return None


def _usable(record: EidRecord) -> Sequence[Locator]:
    """The most preferred locator first."""
    if record.ttl_minutes == 0:
        return ()  # RFC 9437 §6: TTL 0 withdraws the mapping
    usable = [each for each in record.locators if each.priority != UNUSABLE]
    return usable if len(usable) < 2 else sorted(usable, key=lambda each: each.priority)


def _by_rloc(world: World) -> dict[Ip, str]:
    return {rloc: site for site, rlocs in world.sites.items() for rloc in rlocs}
