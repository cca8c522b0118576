"""Who is registered for an EID: the values of the mapping database and the one rule that changes them.

`merge(register, view)` decides what an authenticated, authorised Map-Register does (RFC 9301 §5.6): replay protection,
who owns an EID (map-version is the epoch of a move, RFC 9302 §7), withdrawal, refresh. It is pure; every store calls
it or must give equal outcomes. A displaced xTR stays refused until it acknowledges that the EID has moved.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from typing import Protocol, TypeAlias

import msgspec

from lispfmc.core.versions import newer
from lispfmc.wire.address import Endpoint, InstanceAddress, Prefix
from lispfmc.wire.auth import Key
from lispfmc.wire.messages import TTL_RECEIVER_DECIDES, Action, EidRecord, Locator

_LONGEST_LIFE_S = 24 * 3600.0  # whatever TTL an xTR asks for with the T-bit: soft state must go one day


class Owner(msgspec.Struct, frozen=True, gc=False, order=True):
    """The xTR that registers: its site, and its xTR-ID (its RLOC when it sends none)."""

    site: str
    xtr: bytes


class Register(msgspec.Struct, frozen=True, gc=False):
    """A Map-Register whose authentication and prefixes were found right."""

    owner: Owner
    key: Key
    nonce: int
    source: Endpoint
    records: tuple[EidRecord, ...]  # as received; each names a prefix
    proxy_reply: bool
    lifetime_s: float


class Lease(msgspec.Struct, gc=False):
    """What one Map-Register registered. Its EIDs live and expire together: one deadline, whatever their number."""

    number: int
    register: Register
    expires_at: float
    live: int  # registrations that still belong to it


class Registration(msgspec.Struct, frozen=True, gc=False):
    """One EID-Prefix with its current mapping, as it is told to others."""

    eid: Prefix
    mapping: EidRecord
    lease: Lease
    since: float

    @property
    def owner(self) -> Owner:
        return self.lease.register.owner

    @property
    def version(self) -> int:
        return self.mapping.map_version


class Kind(Enum):
    """What happened to a registration; the values are the events' names."""

    ADDED = "added"
    CHANGED = "changed"
    REFRESHED = "refreshed"
    WITHDRAWN = "withdrawn"
    EXPIRED = "expired"


class Change(msgspec.Struct, frozen=True, gc=False):
    """One EID's registration before and after."""

    kind: Kind
    eid: Prefix
    before: Registration | None
    after: Registration | None
    displaced: Registration | None = None  # whose xTR must be told that the EID has moved


class Refusal(msgspec.Struct, frozen=True, gc=False):
    """A record that changes nothing, and the registration that stands against it."""

    reason: str
    eid: Prefix
    current: Registration


class Accepted(msgspec.Struct, frozen=True, gc=False):
    """What a store applies. `renewed` = an unchanged refresh, the lease just lives on."""

    register: Register
    changes: tuple[Change, ...]
    refusals: tuple[Refusal, ...] = ()
    released: tuple[Prefix, ...] = ()  # EIDs that the displaced xTR gives up by withdrawing them
    renewed: Lease | None = None


class Replayed(msgspec.Struct, frozen=True, gc=False):
    """The nonce is not greater than the last one of this xTR and key: drop (RFC 9301 §5.6)."""

    last_nonce: int


Outcome: TypeAlias = Accepted | Replayed


class View(Protocol):
    """The part of a store that a decision reads."""

    def exact(self, eid: Prefix) -> Registration | None: ...

    def longest(self, eid: Prefix) -> Registration | None: ...

    def within(self, eid: Prefix) -> Iterator[Registration]:
        """The registrations of `eid` and its more-specifics, less specific first."""

    def hole(self, eid: Prefix, shortest: int) -> Prefix:
        """See `lispfmc.core.prefixes.PrefixTable.hole`."""

    def last_nonce(self, owner: Owner, key_id: int) -> int | None: ...

    def is_displaced(self, eid: Prefix, owner: Owner) -> bool: ...

    def xtrs(self) -> int:
        """How many xTRs have replay state."""


def merge(register: Register, view: View, now: float) -> Outcome:
    """Decide what `register` changes."""
    last_nonce = view.last_nonce(register.owner, register.key.id)
    if last_nonce is not None and register.nonce <= last_nonce:
        return Replayed(last_nonce)
    if (lease := _unchanged(register, view)) is not None:
        return Accepted(register, (), renewed=lease)
    lease = Lease(0, register, now + register.lifetime_s, 0)
    changes: list[Change] = []
    refusals: list[Refusal] = []
    released: list[Prefix] = []
    for eid, record in _by_prefix(register.records).items():
        current = view.exact(eid)
        displaced = view.is_displaced(eid, register.owner)
        if is_withdrawal(record):
            if displaced:
                released.append(eid)
            elif current is not None and current.owner == register.owner:
                changes.append(Change(Kind.WITHDRAWN, eid, current, None))
            elif current is not None:
                refusals.append(Refusal("not-owner", eid, current))
            continue
        if current is not None and (reason := _refused(record, current, register.owner, displaced=displaced)):
            refusals.append(Refusal(reason, eid, current))
            continue
        changes.append(_change(eid, record, current, lease, view, now))
    return Accepted(register, tuple(changes), tuple(refusals), tuple(released))


def is_withdrawal(record: EidRecord) -> bool:
    """RFC 9301 defines no withdrawal; deployed xTRs send TTL 0, or ACT = Drop without locators."""
    return record.ttl_minutes == 0 or (not record.locators and record.action == Action.DROP_NO_REASON)


def lifetime_s(records: tuple[EidRecord, ...], *, use_ttl: bool, default_s: float) -> float:
    """How long a Map-Register lasts: 3 minutes unless the T-bit asks for the records' TTL (RFC 9301 §5.6)."""
    ttls = [record.ttl_minutes for record in records if record.ttl_minutes not in (0, TTL_RECEIVER_DECIDES)]
    return min(min(ttls) * 60.0, _LONGEST_LIFE_S) if use_ttl and ttls else default_s


def _by_prefix(records: tuple[EidRecord, ...]) -> dict[Prefix, EidRecord]:
    """The records by their prefix; the last one of a prefix counts."""
    return {prefix: record for record in records if (prefix := record.prefix) is not None}


def _unchanged(register: Register, view: View) -> Lease | None:
    """The lease that this register renews as a whole; the usual case, so it must not cost a walk of the records."""
    first = register.records[0].prefix if register.records else None
    current = view.exact(first) if first is not None else None
    if current is None:
        return None
    lease, held = current.lease, current.lease.register
    same = (
        held.owner == register.owner
        and held.records == register.records
        and held.source == register.source
        and held.proxy_reply == register.proxy_reply
        and held.key == register.key
        and lease.live == len(register.records)
    )
    return lease if same else None


def _refused(record: EidRecord, current: Registration, owner: Owner, *, displaced: bool) -> str | None:
    version = record.map_version
    if current.owner == owner:
        # RFC 9302 §7: an old version is dropped. An xTR that restarts knows no version and keeps what it holds.
        return "stale-version" if version and newer(current.version, version) else None
    if newer(current.version, version):
        return "stale-version"  # a late refresh of the old site cannot steal the EID back
    if displaced and not newer(version, current.version):
        return "displaced"
    return None


def _change(
    eid: Prefix, record: EidRecord, current: Registration | None, lease: Lease, view: View, now: float
) -> Change:
    owner = lease.register.owner
    mapping = _mapping(record, current.version if current is not None and current.owner == owner else 0)
    if current is None:
        # a host that was covered by another xTR's prefix has left it just as if it had been registered there
        before = view.longest(eid)
        after = Registration(eid, mapping, lease, now)
        return Change(Kind.ADDED, eid, None, after, _displaced(before, after))
    same = mapping == current.mapping and current.owner == owner
    after = Registration(eid, mapping, lease, current.since if same else now)
    return Change(Kind.REFRESHED if same else Kind.CHANGED, eid, current, after, _displaced(current, after))


def _displaced(before: Registration | None, after: Registration) -> Registration | None:
    """RFC 9301 §8.2: a Map-Notify goes to previous locators that are not in the new set."""
    if before is None or before.owner == after.owner:
        return None
    previous = before.lease.register.source.ip
    kept = {locator.address for locator in after.mapping.locators} | {after.lease.register.source.ip}
    return None if previous in kept else before


def _mapping(record: EidRecord, held_version: int) -> EidRecord:
    """The record as a Map-Server tells it: not authoritative, no locator local, locators in order (RFC 9301 §5.4)."""
    locators = tuple(sorted((_told(locator) for locator in record.locators), key=_locator_order))
    version_word = record.version_word & 0xFFF or held_version
    return EidRecord(record.ttl_minutes, record.mask_length, record.action << 13, version_word, record.eid, locators)


def _told(locator: Locator) -> Locator:
    return Locator(
        locator.address,
        locator.priority,
        locator.weight,
        locator.multicast_priority,
        locator.multicast_weight,
        locator.flags & 1,
    )


def _locator_order(locator: Locator) -> tuple[int, bytes]:
    address = locator.address
    if isinstance(address, bytes):
        return len(address), address
    if isinstance(address, InstanceAddress):
        return 1 << 16, address.ip or b""
    return 1 << 17, repr(address).encode()  # any order will do that is the same every time
