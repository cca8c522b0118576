"""A Map-Server for one EID: the real merge rule of `core.registry`, on a state small enough to be explored.

Nonces count as ranks among what is under way: a register that another one has overtaken has rank 0, as the last one
that was accepted has.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

from lispfmc.core.registry import Accepted, Kind, Lease, Owner, Register, Registration, merge
from lispfmc.wire.address import Endpoint, Ip, Prefix, ip_of
from lispfmc.wire.auth import Key
from lispfmc.wire.messages import EidRecord, Locator

EID = Prefix.parse("100.64.101.10/32")
RLOCS: dict[int, Ip] = {1: ip_of("198.18.0.21"), 2: ip_of("198.18.0.22"), 3: ip_of("198.18.0.11")}
KEY = Key(1, b"site")


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
    record = EidRecord.of(EID, [Locator.of(RLOCS[node])], ttl_minutes=1440, map_version=epoch)
    return Register(_owner(node), KEY, nonce, Endpoint(RLOCS[node], 4342), (record,), True, 180.0)


class _View:
    """What `merge` reads of a `Registry`."""

    def __init__(self, registry: Registry) -> None:
        self.registry = registry
        register = _register(registry.owner, registry.epoch, 0) if registry.owner else None
        self.registration = (
            Registration(EID, register.records[0], Lease(1, register, 1.0, 1), 0.0) if register else None
        )

    def exact(self, eid: Prefix) -> Registration | None:
        return self.registration

    longest = exact

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
    displaced |= {registry.owner for change in outcome.changes if change.displaced is not None}
    version = outcome.changes[0].after.version if outcome.changes and outcome.changes[0].after else registry.epoch
    after = Registry(node, version, tuple(sorted(displaced)))
    return Merged(after, accepted=True, fresh=True, changed=changed, tell=after.displaced if changed else ())


def released(registry: Registry, node: int) -> Registry:
    """`node` has acknowledged that the EID left it."""
    return registry._replace(displaced=tuple(each for each in registry.displaced if each != node))
