"""The configured world as frozen values: sites, data centres, users, services, distances, and what may move where.

Built once from the settings (`fmcc.settings`); every core of the controller reads it and none changes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

import msgspec

from lispfmc.wire.address import Endpoint, Ip, Prefix
from lispfmc.wire.auth import Key


class DataCenter(msgspec.Struct, frozen=True):
    """A site that runs services. `key` is shared with its tunnel router; `capacity` None means unlimited."""

    name: str
    key: Key
    capacity: int | None = None


class User(msgspec.Struct, frozen=True):
    name: str
    eids: tuple[Prefix, ...]


class Service(msgspec.Struct, frozen=True):
    """A service that follows `user`, starts in `datacenter` and may live in `allowed` only. `size_bytes` is what a move
    copies; None = not known until it has moved. `scheme` leads its moves."""

    name: str
    user: str
    eids: tuple[Prefix, ...]
    datacenter: str
    allowed: tuple[str, ...]
    service_class: str = ""
    size_bytes: int | None = None
    scheme: str = ""


class Limits(msgspec.Struct, frozen=True, gc=False):
    """How long the controller waits in each state of a move before it acts on the silence."""

    prepare_s: float = 10.0
    copy_s: float = 600.0
    resume_s: float = 30.0
    commit_s: float = 60.0


class World(msgspec.Struct, frozen=True, dict=True):
    """Everything configured that decisions depend on."""

    rlocs: tuple[Ip, ...]
    xtr_id: bytes
    map_server: Endpoint
    map_server_key: Key
    sites: Mapping[str, tuple[Ip, ...]]
    datacenters: Mapping[str, DataCenter]
    users: Mapping[str, User]
    services: Mapping[str, Service]
    ranges: tuple[Prefix, ...]
    rtts_ms: Mapping[frozenset[str], float]
    acts: bool = True
    limits: Limits = Limits()
    rates_bit_s: Mapping[frozenset[str], float] = msgspec.field(default_factory=dict)
    link_bit_s: float | None = None
    ping_pong_s: float = 300.0

    def rtt_ms(self, a: str, b: str) -> float | None:
        """The configured round-trip time between two sites; 0 within one; None where none is configured."""
        return 0.0 if a == b else self.rtts_ms.get(frozenset((a, b)))

    def transfer_s(self, service: Service, source: str, target: str) -> float | None:
        """How long copying the service from one data centre to another should take; None when not configured."""
        rate = self.rates_bit_s.get(frozenset((source, target)), self.link_bit_s)
        return None if service.size_bytes is None or rate is None else service.size_bytes * 8 / rate

    def services_of(self, user: str) -> tuple[Service, ...]:
        return self._followers.get(user, ())

    @cached_property
    def _followers(self) -> Mapping[str, tuple[Service, ...]]:
        """Services by user: asked for at every handover."""
        followers: dict[str, tuple[Service, ...]] = {}
        for service in self.services.values():
            followers[service.user] = (*followers.get(service.user, ()), service)
        return followers
