"""What the last run knew, into a controller that has just been made.

The configuration wins: users and services that it has not, and nobody added at run time, are let go, and so is what
contradicts it. Whatever cannot be taken up is said, with its reason, and costs nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import structlog

from fmcc.controller import Controller
from fmcc.history.database import History
from fmcc.history.records import KeptService, KeptUser
from fmcc.world import Service, User, World
from lispfmc.wire.address import Prefix, ip_of
from lispfmc.wire.errors import LocalError

_log = structlog.get_logger("history")


def locate(history: History, world: World) -> None:
    """Which RLOCs served the sites that have none configured; before the controller is made."""
    wanted = set(world.site_prefixes.values())
    for site, rlocs in history.sites().items():
        if site in wanted:
            _tried(f"site {site}", partial(_locate, world, site, rlocs))


def restore(history: History, controller: Controller, now: float, offset: float) -> None:
    """`offset` is unix time less monotonic time. What was read is not written again."""
    users, services = history.users(), history.services()
    for user in users:
        _tried(f"user {user.name}", partial(_restore_user, user, controller, now))
    for service in services:
        _tried(f"service {service.name}", partial(_restore_service, service, controller, now, offset))
    changes, world = controller.changes, controller.world
    # what is not there has to be written, and what is not known any more has to go
    changes.users = dict.fromkeys(world.users.keys() ^ {each.name for each in users})
    changes.services = dict.fromkeys(world.services.keys() ^ {each.name for each in services})


def _locate(world: World, site: str, rlocs: list[str]) -> None:
    world.sites[site] = tuple(map(ip_of, rlocs))


def _restore_user(kept: KeptUser, controller: Controller, now: float) -> None:
    if kept.added:
        controller.add_user(User(kept.name, _prefixes(kept.eids), added=True), now)
    if kept.name in controller.world.users and kept.site in controller.world.sites:
        controller.population.remembered_user(kept.name, kept.site)


def _restore_service(kept: KeptService, controller: Controller, now: float, offset: float) -> None:
    if kept.added:
        controller.add_service(_service(kept), now)
    known = controller.world.services.get(kept.name)
    if known is None:
        return
    if kept.datacenter in controller.world.datacenters:
        controller.population.remembered(kept.name, kept.datacenter, kept.version)
    if kept.learned is not None:
        # a clock that went back in between makes nothing younger than now
        controller.deliberation.restore(kept.name, kept.learned, min(kept.saved - offset, now))


def _service(kept: KeptService) -> Service:
    return Service(
        kept.name,
        kept.user,
        _prefixes(kept.eids),
        kept.datacenter,
        tuple(kept.allowed),
        kept.service_class,
        kept.size_bytes,
        added=True,
    )


def _prefixes(texts: list[str]) -> tuple[Prefix, ...]:
    return tuple(map(Prefix.parse, texts))


def _tried(what: str, act: Callable[[], object]) -> None:
    try:
        act()
    except LocalError as error:
        _log.warning("history.let_go", what=what, why=str(error))
