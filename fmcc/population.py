"""Users and services that come and go while the controller runs. Pure.

What would make the world contradict itself is refused with a reason: a name or an EID that is taken, an EID outside the
subscribed ranges, a place that is none; and what the configuration has is not removed by anybody else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeAlias

from fmcc.changes import Changes
from fmcc.deliberation import Deliberation
from fmcc.locations import Locations
from fmcc.migrations import Migrations
from fmcc.moves import Placement
from fmcc.requests import RequestRefused
from fmcc.subscriber import Subscriber
from fmcc.world import Service, User, World
from lispfmc.core.effects import Emit
from lispfmc.wire.address import Prefix

Owner: TypeAlias = Callable[[Prefix], str | None]
"""Says whose EID it is."""


class Population:
    """Lets them in and out everywhere at once."""

    def __init__(
        self,
        world: World,
        locations: Locations,
        migrations: Migrations,
        deliberation: Deliberation,
        subscriber: Subscriber,
        changes: Changes,
    ) -> None:
        self._world = world
        self._locations = locations
        self._migrations = migrations
        self._deliberation = deliberation
        self._subscriber = subscriber
        self._changes = changes

    def check_user(self, user: User) -> None:
        """Raises RequestRefused when the user cannot be added."""
        check_user(self._world, user, self._locations.owner)

    def add_user(self, user: User, now: float) -> list[Emit]:
        """Raises RequestRefused."""
        self.check_user(user)
        self._world.users[user.name] = user
        self._locations.add(user)
        self._changes.users[user.name] = None
        self._subscriber.ask_anew(now)
        return [Emit("user.added", {"user": user.name, "eids": [str(eid) for eid in user.eids]})]

    def check_user_leaves(self, name: str) -> None:
        """Raises RequestRefused when the user cannot be removed."""
        check_user_leaves(self._world, name)

    def remove_user(self, name: str) -> list[Emit]:
        """Raises RequestRefused."""
        self.check_user_leaves(name)
        self._forget(self._world.users.pop(name))
        self._changes.users[name] = None
        return [Emit("user.removed", {"user": name})]

    def check_service(self, service: Service) -> None:
        """Raises RequestRefused when the service cannot be added."""
        check_service(self._world, service, self._locations.owner)

    def add_service(self, service: Service, now: float) -> list[Emit]:
        """Raises RequestRefused."""
        self.check_service(service)
        self._world.follows(service)
        self._world.services[service.name] = service
        self._locations.add(service)
        self._migrations.placements[service.name] = Placement(service, service.datacenter)
        self._deliberation.added(self._migrations.placements[service.name])
        self._subscriber.ask_anew(now)
        eids = [str(eid) for eid in service.eids]
        return [Emit("service.added", {"service": service.name, "user": service.user or None, "eids": eids})]

    def check_service_leaves(self, name: str) -> None:
        """Raises RequestRefused: a service on its way has to arrive first."""
        check_service_leaves(self._world, name)
        if not self._migrations.resting(name):
            what, why = f"service {name!r} cannot be removed", "a move of it is under way"
            raise RequestRefused(what, why, "wait until it has ended, or abort it", 409)

    def remove_service(self, name: str) -> list[Emit]:
        """Raises RequestRefused."""
        self.check_service_leaves(name)
        self._deliberation.removed(self._migrations.removed(name))
        service = self._world.services.pop(name)
        self._world.follows_no_more(service)
        self._forget(service)
        return [Emit("service.removed", {"service": name})]

    def _forget(self, owner: User | Service) -> None:
        self._locations.remove(owner)
        for eid in owner.eids:
            self._subscriber.forget(eid)

    def remembered(self, service: str, datacenter: str, version: int) -> None:
        """Where the service was when we last ran, before anything is heard: to find it there is no move."""
        before = self._migrations.placements[service]
        placement = Placement(before.service, datacenter, version)
        self._deliberation.replaced(before, placement, 0.0)  # unheard of: no move of anybody's
        self._migrations.placements[service] = placement
        self._deliberation.heard(service)

    def remembered_user(self, user: str, site: str) -> None:
        self._locations.remembered(user, site)


def check_user(world: World, user: User, owner: Owner) -> None:
    """Raises RequestRefused when the user cannot be added."""
    what = f"user {user.name!r} cannot be added"
    if user.name in world.users:
        raise RequestRefused(what, "there is a user of that name", "choose another name, or remove that one first", 409)
    _check_eids(world, user.eids, what, owner)


def check_user_leaves(world: World, name: str) -> None:
    """Raises RequestRefused: a user that services follow stays, and so does a configured one."""
    if name not in world.users:
        raise RequestRefused(f"no user {name!r}", "it was never added, or has left", "see GET /v1/users", 404)
    if not world.users[name].added:
        why, do = "the configuration has it", "remove it there and restart"
        raise RequestRefused(f"user {name!r} cannot be removed", why, do, 409)
    if followers := world.services_of(name):
        names = ", ".join(service.name for service in followers)
        raise RequestRefused(f"user {name!r} cannot be removed", f"{names} follow it", "remove them first", 409)


def check_service(world: World, service: Service, owner: Owner) -> None:
    """Raises RequestRefused when the service cannot be added."""
    what = f"service {service.name!r} cannot be added"
    if service.name in world.services:
        why, do = "there is a service of that name", "choose another name, or remove that one first"
        raise RequestRefused(what, why, do, 409)
    if service.user and service.user not in world.users:
        raise RequestRefused(what, f"there is no user {service.user!r}", "add the user first, or name none", 409)
    for name in (service.datacenter, *service.allowed):
        if name not in world.datacenters:
            known = ", ".join(sorted(world.datacenters)) or "none"
            raise RequestRefused(what, f"there is no data centre {name!r}", f"name one of {known}", 409)
    _check_eids(world, service.eids, what, owner)


def check_service_leaves(world: World, name: str) -> None:
    """Raises RequestRefused: a configured service stays."""
    if name not in world.services:
        raise RequestRefused(f"no service {name!r}", "it was never added, or has gone", "see GET /v1/services", 404)
    if not world.services[name].added:
        why, do = "the configuration has it", "remove it there and restart"
        raise RequestRefused(f"service {name!r} cannot be removed", why, do, 409)


def _check_eids(world: World, eids: Iterable[Prefix], what: str, owner: Owner) -> None:
    """Each EID is one address in a subscribed range, and nobody else's. Raises RequestRefused."""
    wanted = list(eids)
    if not wanted:
        raise RequestRefused(what, "it has no EID", 'give eids, for example ["100.64.1.10/32"]', 400)
    for eid in wanted:
        if not eid.is_host:
            raise RequestRefused(what, f"{eid} is no single address", "give a /32 or /128", 400)
        if not any(prefix.covers(eid) for prefix in world.ranges):
            known = ", ".join(map(str, world.ranges))
            raise RequestRefused(what, f"{eid} is in no subscribed range", f"take one of {known}", 409)
    if len(set(wanted)) < len(wanted):
        raise RequestRefused(what, "it names an EID twice", "name each once", 400)
    for eid in wanted:
        if (taken := owner(eid)) is not None:
            raise RequestRefused(what, f"{eid} belongs to {taken} already", "give each its own", 409)
