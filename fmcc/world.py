"""The world as values: sites, data centres, users, services, distances, and what may move where.

Built once from the settings (`fmcc.settings`); every core of the controller reads it. After that users and services
come and go, by the controller's core alone, and RLOCs of sites that name none are learned, by `fmcc.locations` alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

import msgspec

from lispfmc.wire.address import Endpoint, Ip, Prefix
from lispfmc.wire.auth import Key


class DataCenter(msgspec.Struct, frozen=True):
    """A site that runs services. `key` is shared with its tunnel router; `capacity` None means unlimited. `prefix` is
    its own EID-Prefix; `located`: which router serves it is what the mapping system says of that prefix."""

    name: str
    key: Key
    capacity: int | None = None
    prefix: Prefix | None = None
    located: bool = False


class User(msgspec.Struct, frozen=True, gc=False):
    """`added`: at run time, by the API; the others are configured."""

    name: str
    eids: tuple[Prefix, ...]
    added: bool = False


class Service(msgspec.Struct, frozen=True, gc=False):
    """A service that follows `user`, starts in `datacenter` and may live in `allowed` only. `user` "" is nobody: it
    moves when it is told to. `size_bytes` is what a move copies; None = not known until it has moved. `scheme` leads
    its moves."""

    name: str
    user: str
    eids: tuple[Prefix, ...]
    datacenter: str
    allowed: tuple[str, ...]
    service_class: str = ""
    size_bytes: int | None = None
    scheme: str = ""
    added: bool = False


class Limits(msgspec.Struct, frozen=True, gc=False):
    """How long the controller waits in each state of a move before it acts on the silence, and how many moves a data
    centre takes part in at once; None: no limit."""

    prepare_s: float = 10.0
    copy_s: float = 600.0
    resume_s: float = 30.0
    commit_s: float = 60.0
    moves_at_once: int | None = None


class World(msgspec.Struct, frozen=True, dict=True):
    """Everything configured that decisions depend on."""

    rlocs: tuple[Ip, ...]
    xtr_id: bytes
    map_server: Endpoint
    map_server_key: Key
    sites: dict[str, tuple[Ip, ...]]
    datacenters: Mapping[str, DataCenter]
    users: dict[str, User]
    services: dict[str, Service]
    ranges: tuple[Prefix, ...]
    rtts_ms: Mapping[frozenset[str], float]
    acts: bool = True
    limits: Limits = Limits()
    rates_bit_s: Mapping[frozenset[str], float] = msgspec.field(default_factory=dict)
    link_bit_s: float | None = None
    ping_pong_s: float = 300.0
    site_prefixes: Mapping[Prefix, str] = msgspec.field(default_factory=dict)
    """EID-Prefixes of the sites whose RLOCs are not configured: the mapping system has them."""

    def rtt_ms(self, a: str, b: str) -> float | None:
        """The configured round-trip time between two sites; 0 within one; None where none is configured."""
        return 0.0 if a == b else self.rtts_ms.get(frozenset((a, b)))

    def transfer_s(self, service: Service, source: str, target: str) -> float | None:
        """How long copying the service from one data centre to another should take; None when not configured."""
        rate = self.rates_bit_s.get(frozenset((source, target)), self.link_bit_s)
        return None if service.size_bytes is None or rate is None else service.size_bytes * 8 / rate

    def services_of(self, user: str) -> tuple[Service, ...]:
        return self._followers.get(user, ()) if user else ()  # nobody has services, not followers

    def follows(self, service: Service) -> None:
        """A service has been added."""
        self._followers[service.user] = (*self.services_of(service.user), service)

    def follows_no_more(self, service: Service) -> None:
        """A service has been removed."""
        left = tuple(each for each in self.services_of(service.user) if each.name != service.name)
        self._followers.pop(service.user, None)
        if left:
            self._followers[service.user] = left

    @cached_property
    def _followers(self) -> dict[str, tuple[Service, ...]]:
        """Services by user: asked for at every handover."""
        followers: dict[str, tuple[Service, ...]] = {}
        for service in self.services.values():
            followers[service.user] = (*followers.get(service.user, ()), service)
        return followers
