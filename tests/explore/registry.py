"""A Map-Server for one EID: the real rule of `core.merging`, on a state small enough to be explored.

Nonces count as ranks among what is under way: a register that another one has overtaken has rank 0, as the last one
that was accepted has.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import NamedTuple

from lispfmc.core.merging import merge
from lispfmc.core.registry import (
    Accepted,
    Claim,
    Kind,
    Lease,
    Owner,
    Register,
    Registrant,
    Registration,
)
from lispfmc.wire import records
from lispfmc.wire.address import Endpoint, Ip, Prefix, ip_of
from lispfmc.wire.auth import Key
from lispfmc.wire.messages import EidRecord, Locator

EID = Prefix.parse("100.64.101.10/32")
RLOCS: dict[int, Ip] = {1: ip_of("198.18.0.21"), 2: ip_of("198.18.0.22"), 3: ip_of("198.18.0.11")}
KEY = Key(1, b"site")
PROXY_REPLY = 0x0800_0000


class Registry(NamedTuple):
    """Who has the EID, by which epoch; who was displaced and has not acknowledged it."""

    owner: int = 0
    epoch: int = 0
    displaced: tuple[int, ...] = ()


class Merged(NamedTuple):
    """What a register did: its refusal, and who must be told of the mapping that stands."""

    registry: Registry
    accepted: bool
    fresh: bool
    changed: bool
    tell: tuple[int, ...]


def _owner(node: int) -> Owner:
    return Owner(f"site{node}", RLOCS[node])


def _register(node: int, epoch: int, nonce: int) -> Register:
    registrant = Registrant(_owner(node), KEY, Endpoint(RLOCS[node], 4342), PROXY_REPLY)
    return Register(registrant, nonce, (Claim(EID, _record(node, epoch)),), 180.0)


def _record(node: int, epoch: int) -> bytes:
    return records.packed(EidRecord.of(EID, [Locator.of(RLOCS[node])], ttl_minutes=1440, map_version=epoch))


class _View:
    """What `merge` reads of a `Registry`."""

    def __init__(self, registry: Registry) -> None:
        self.registry = registry
        self.registration: Registration | None = None
        if registry.owner:
            registrant = _register(registry.owner, registry.epoch, 0).registrant
            lease = Lease(180.0, 1, 180.0, registrant, claimed=1, live=1)
            self.registration = Registration(_record(registry.owner, registry.epoch), lease, 0.0)

    def exact(self, eid: Prefix) -> Registration | None:
        return self.registration

    longest = exact

    def hosts(self, size: int) -> Mapping[Ip, Registration]:
        return {EID.ip: self.registration} if self.registration is not None and size == len(EID.ip) else {}

    def uncovered(self, ips: Sequence[Ip]) -> Sequence[Ip]:
        return [] if self.registration is not None else ips

    def alone(self, iid: int, ip: Ip) -> Registration | None:
        return self.registration

    def within(self, eid: Prefix) -> Iterator[Registration]:
        yield from (self.registration,) if self.registration else ()

    def hole(self, eid: Prefix, shortest: int) -> Prefix:
        return eid

    def last_nonce(self, owner: Owner, key_id: int) -> int | None:
        return 0

    def is_displaced(self, eid: Prefix, owner: Owner) -> bool:
        return any(_owner(node) == owner for node in self.registry.displaced)

    def xtrs(self) -> int:
        return 2


@cache
def registered(registry: Registry, node: int, epoch: int, rank: int) -> Merged:
    """The outcome of a Map-Register from `node`."""
    outcome = merge(_register(node, epoch, rank), _View(registry), 0.0)
    if not isinstance(outcome, Accepted):
        return Merged(registry, accepted=False, fresh=False, changed=False, tell=())
    if outcome.refusals:
        return Merged(registry, accepted=False, fresh=True, changed=False, tell=(node,))
    changed = any(change.kind is not Kind.REFRESHED for change in outcome.changes)
    displaced = {each for each in registry.displaced if each != node}
    displaced |= {registry.owner for change in outcome.changes if change.displaced}
    version = outcome.changes[0].after.version if outcome.changes and outcome.changes[0].after else registry.epoch
    after = Registry(node, version, tuple(sorted(displaced)))
    return Merged(after, accepted=True, fresh=True, changed=changed, tell=after.displaced if changed else ())


def released(registry: Registry, node: int) -> Registry:
    """`node` has acknowledged that the EID left it."""
    return registry._replace(displaced=tuple(each for each in registry.displaced if each != node))
