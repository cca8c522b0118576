"""Which users and services may come and go while the controller runs. Pure.

What would make the world contradict itself is refused with a reason: a name or an EID that is taken, an EID outside the
subscribed ranges, a place that is none; and what the configuration has is not removed by anybody else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeAlias

from fmcc.world import Service, User, World
from lispfmc.wire.address import Prefix
from lispfmc.wire.errors import LocalError

Owner: TypeAlias = Callable[[Prefix], str | None]
"""Says whose EID it is."""


class RequestRefused(LocalError):  # noqa: N818 - raised as the answer that it becomes
    """What was asked for cannot be. `status` is the HTTP status that says so."""

    def __init__(self, what: str, why: str, do: str, status: int) -> None:
        super().__init__(f"{what}: {why}; {do}")
        self.what, self.why, self.do, self.status = what, why, do, status


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
